//! What is said of a broker in JSON, wherever it is said: commands with `-o json` and the console's calls have one view of a thing.
//! Programs rely on the names.

mod group;
mod latency;
mod node;
mod rate;
mod slow;
mod time;

pub use group::{GroupView, ReaderView, ReceiverView, SettingsView};
pub use latency::LatencyView;
pub use node::{NodeSummary, NodeView, RateView, ShardView, StageView, counter, state_of};
pub use rate::per_second;
pub use slow::{SlowView, StagesView};
pub use time::{milliseconds, nanoseconds};
