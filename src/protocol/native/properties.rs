//! What a client of this protocol may give as properties.
//!
//! A batch is stored as it came, properties included, so one that asks for a delay or a transaction there would be stored,
//! and delivered at once. Such a batch is refused; the requests of this protocol have a place for each of these wishes.

use crate::api::Failure;
use crate::wire::batch::{BATCH_HEADER_BYTES, stored_records};
use crate::wire::properties::check_incoming;

/// Refuses a batch with a property that is not its producer's to use. Bytes that are no batch pass: what is wrong with them
/// is told where the batch is checked.
pub fn check_properties(batch: &[u8]) -> Result<(), Failure> {
    if batch.len() < BATCH_HEADER_BYTES {
        return Ok(());
    }
    stored_records(batch)
        .try_for_each(|record| check_incoming(record.properties()))
        .map_err(|error| Failure::invalid(format_args!("the message was not stored: {error}")))
}
