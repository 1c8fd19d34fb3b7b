//! Messages that the broker itself stores once more, in a topic of its own: those that are to be consumed again, dead letters,
//! and halves that nobody decided on.

use crate::types::Timestamp;
use crate::wire::batch::{BatchBuilder, OwnedBatch};
use crate::wire::origin::Attributes;
use crate::wire::properties::{self, PropertyError};
use crate::wire::record::{Record, RecordView};

/// The message as a batch of its own: as it is, with `said` (names and values) in place of what its properties say of that, each
/// as far as there is room. `born_time` is that of the batch it comes from.
pub(super) fn copy_with(message: &Record<'_>, born_time: Timestamp, said: &[(&str, &str)]) -> OwnedBatch {
    batch_of(message, born_time, &properties::replaced_as_far_as_fits(message.properties, said))
}

/// The same with all of `said`, or an error.
pub(super) fn copy_with_all(
    message: &Record<'_>,
    born_time: Timestamp,
    said: &[(&str, &str)],
) -> Result<OwnedBatch, PropertyError> {
    Ok(batch_of(message, born_time, &properties::replaced(message.properties, said)?))
}

fn batch_of(message: &Record<'_>, born_time: Timestamp, properties: &[u8]) -> OwnedBatch {
    let mut builder = BatchBuilder::new(born_time);
    let copy = Record { properties, ..*message };
    builder.push(if builder.fits(&copy) { &copy } else { message });
    builder.finish_checked()
}

/// A half that nobody has decided on, with `added` (names and values) after its properties. It stays without them where they would
/// not fit. `born_time` is that of the batch it comes from.
pub(super) fn undecided_message(
    record: RecordView<'_>,
    born_time: Timestamp,
    added: &[(&str, &str)],
) -> OwnedBatch {
    let mut text = record.properties().to_vec();
    // Refused as a whole, the text is what it was.
    let _ = properties::append_all(&mut text, added);
    let attributes = Attributes { committed: false, ..record.attributes() };
    let mut builder = BatchBuilder::new(born_time);
    let mut copy = Record { attributes, ..record.with_properties(&text) };
    if !builder.fits(&copy) {
        copy.properties = record.properties();
    }
    builder.push(&copy);
    builder.finish_checked()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits;

    fn copied(properties: &[u8]) -> Vec<u8> {
        let mut stored = Vec::new();
        let record = Record { key: b"k", properties, body: b"body", ..Record::default() };
        record.encode(&mut stored);
        let (view, _) = RecordView::cut(&stored).expect("a record");
        let batch = undecided_message(view, Timestamp(7), &[("A", "1"), ("B", "22")]);
        let copy = crate::wire::batch::stored_records(batch.view().as_bytes()).next().expect("one record");
        assert_eq!((copy.key(), copy.body()), (&b"k"[..], &b"body"[..]));
        copy.properties().to_vec()
    }

    #[test]
    fn properties_are_added_all_or_none() {
        assert_eq!(copied(b""), b"A\x011\x02B\x0122\x02");
        assert_eq!(copied(b"x\x01y"), b"x\x01y\x02A\x011\x02B\x0122\x02", "the last separator was missing");
        // Room for the first one only.
        let mut long = b"x\x01".to_vec();
        long.resize(limits::PROPERTIES_BYTES_MAX - 5, b'y');
        long.push(2);
        assert_eq!(copied(&long), long);
    }

    #[test]
    fn a_half_that_is_given_up_was_not_committed() {
        let mut stored = Vec::new();
        let attributes = Attributes { committed: true, ..Attributes::default() };
        Record { body: b"body", attributes, ..Record::default() }.encode(&mut stored);
        let (view, _) = RecordView::cut(&stored).expect("a record");
        let committed = |batch: OwnedBatch| {
            let copy = crate::wire::batch::stored_records(batch.view().as_bytes()).next();
            copy.expect("one record").attributes().committed
        };
        let message = view.with_properties(b"");
        assert!(committed(copy_with(&message, Timestamp(7), &[("A", "1")])), "others stay what they were");
        assert!(!committed(undecided_message(view, Timestamp(7), &[("A", "1")])));
    }
}
