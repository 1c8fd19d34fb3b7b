//! A batch: the unit that is sent, stored, checksummed and served. `header.rs` has the byte map.

mod checked;
mod header;

pub use checked::{
    BatchBuilder, CheckedBatch, OwnedBatch, Records, StateBatch, placed_again, state_payload, stored_records,
    stored_records_from,
};
pub use header::{
    BATCH_ALIGNMENT, BATCH_HEADER_BYTES, BATCH_MAGIC, BATCH_VERSION, BatchError, BatchHeader,
    HEADER_CRC_RANGE, Kind, LogSecret, Placing, align_batch, raise_flushed_end, records_in_parts_match,
    records_match, reseal, stored_batch_bytes, stored_born_time,
};
