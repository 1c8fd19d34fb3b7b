//! Locations of records in the logs of the shards.

use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};

use crate::types::{LogPosition, RecordLocation};
use crate::wire::generated as schema;

type Locations<'a> = Vector<'a, schema::RecordLocation>;

/// No vector for no locations: most look-ups begin at the newest message, and most answers are whole.
pub(super) fn write(
    builder: &mut FlatBufferBuilder<'static>,
    locations: &[RecordLocation],
) -> Option<WIPOffset<Locations<'static>>> {
    let locations: Vec<_> = locations.iter().map(code).collect();
    (!locations.is_empty()).then(|| builder.create_vector(&locations))
}

pub(super) fn read(locations: Option<Locations<'_>>) -> Vec<RecordLocation> {
    locations.into_iter().flatten().map(known).collect()
}

pub(super) fn code(location: &RecordLocation) -> schema::RecordLocation {
    schema::RecordLocation::new(location.position.0, location.index)
}

pub(super) fn known(location: &schema::RecordLocation) -> RecordLocation {
    RecordLocation { position: LogPosition(location.position()), index: location.index() }
}
