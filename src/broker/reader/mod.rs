//! The reader: from entries of the index to batches, and from batches to chosen records.
//!
//! * `entries`: where batches stand. The only callers of the index's look-ups.
//! * `batches`, `records`: their bytes, and the records that a [`Selection`] wants, given to a [`Taker`] one by one. Receiving
//!   chooses so, dead letters and held messages are read so, and what the key index or an id has led to is checked so.
//! * `stretches`: the log around what was looked into, kept for those who look into what lies beside it, and read ahead.
//! * `fetch`: whole batches as they are stored, from the buffers where they lie. Nobody walks their records.
//!   [`ClientFetches`] is what a protocol uses: one call a fetch.
//! * `pulls`: single messages for readers who keep their own place, from where they lie.
//! * `waits`: who waits for messages, as entries that are called; `unmade`: who waits for a topic.

mod ahead;
mod batch_cache;
mod batches;
mod entries;
mod fetch;
mod fetches;
mod marks;
mod pulls;
mod records;
mod selection;
mod stretches;
mod unmade;
mod waits;
mod watch;

pub(super) use batch_cache::BatchCache;
pub use fetch::SharedFetched;
pub use fetches::{ClientFetches, FetchWait, fetch_share};
pub use pulls::{Pull, Pulled, QueueSpan, Standing};
pub(super) use records::{MessagesAt, StoredMessage};
pub use records::{StoredRecord, Taker};
pub(super) use selection::Selection;
pub(super) use stretches::Stretches;
pub use unmade::TopicWait;
pub(super) use unmade::UnmadeTopics;
pub use waits::LookNow;
pub(super) use waits::{WaitFor, WaitList};
pub use watch::{WatchWait, watch_time};
