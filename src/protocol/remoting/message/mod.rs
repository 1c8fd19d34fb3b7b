//! What RocketMQ's messages are in ours: their properties in and out, and batches as its clients write them.

mod inner;
mod properties;

pub use inner::{INNER_HEAD_BYTES, InnerError, InnerMessage, InnerMessages};
pub use properties::{Delay, Meaning, write_properties};
