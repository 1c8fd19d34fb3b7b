//! What RocketMQ's messages are in ours: their properties in and out, batches as its clients write them, and stored messages
//! as its clients read them.

mod inner;
mod properties;
mod record;
pub mod system_flag;

pub use inner::{INNER_HEAD_BYTES, InnerError, InnerMessage, InnerMessages};
pub use properties::{AddedProperties, Delay, Meaning, REGION};
pub use record::{
    PlacedRecord, ReadRecord, RecordTerms, RecordWriter, body_checksum, read_record, write_record,
};
