//! Places in the logs of the shards.

use flatbuffers::{FlatBufferBuilder, Vector, WIPOffset};

use crate::types::{LogPosition, RecordPlace};
use crate::wire::generated as schema;

type Places<'a> = Vector<'a, schema::StoredPlace>;

/// No vector for no places: most look-ups begin at the newest message, and most answers are whole.
pub(super) fn write(
    builder: &mut FlatBufferBuilder<'static>,
    places: &[RecordPlace],
) -> Option<WIPOffset<Places<'static>>> {
    let stored = |place: &RecordPlace| schema::StoredPlace::new(place.position.0, place.index);
    let places: Vec<_> = places.iter().map(stored).collect();
    (!places.is_empty()).then(|| builder.create_vector(&places))
}

pub(super) fn read(places: Option<Places<'_>>) -> Vec<RecordPlace> {
    let place = |place: &schema::StoredPlace| RecordPlace {
        position: LogPosition(place.position()),
        index: place.index(),
    };
    places.into_iter().flatten().map(place).collect()
}
