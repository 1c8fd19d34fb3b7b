//! Places in the logs of the shards.

use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};

use crate::types::{LogPosition, RecordLocation};
use crate::wire::generated as schema;

type Places<'a> = Vector<'a, schema::StoredPlace>;

/// No vector for no locations: most look-ups begin at the newest message, and most answers are whole.
pub(super) fn write(
    builder: &mut FlatBufferBuilder<'static>,
    places: &[RecordLocation],
) -> Option<WIPOffset<Places<'static>>> {
    let places: Vec<_> = places.iter().map(code).collect();
    (!places.is_empty()).then(|| builder.create_vector(&places))
}

pub(super) fn read(places: Option<Places<'_>>) -> Vec<RecordLocation> {
    places.into_iter().flatten().map(known).collect()
}

pub(super) fn code(place: &RecordLocation) -> schema::StoredPlace {
    schema::StoredPlace::new(place.position.0, place.index)
}

pub(super) fn known(place: &schema::StoredPlace) -> RecordLocation {
    RecordLocation { position: LogPosition(place.position()), index: place.index() }
}
