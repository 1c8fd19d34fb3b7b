//! Messages that the broker itself stores once more, in a topic of its own: dead letters, and halves that nobody decided on.

use crate::types::Timestamp;
use crate::wire::batch::{BatchBuilder, OwnedBatch};
use crate::wire::origin::Attributes;
use crate::wire::properties;
use crate::wire::record::{Record, RecordView};

/// The message as a batch of its own: as it was, with `added` (names and values) after its properties. It stays without
/// them where they would not fit. `born_time` is that of the batch it comes from.
pub(super) fn copied_message(
    record: RecordView<'_>,
    born_time: Timestamp,
    added: &[(&str, &str)],
) -> OwnedBatch {
    copied(record, record.attributes(), born_time, added)
}

/// The same of a half that nobody has decided on.
pub(super) fn undecided_message(
    record: RecordView<'_>,
    born_time: Timestamp,
    added: &[(&str, &str)],
) -> OwnedBatch {
    copied(record, Attributes { committed: false, ..record.attributes() }, born_time, added)
}

fn copied(
    record: RecordView<'_>,
    attributes: Attributes,
    born_time: Timestamp,
    added: &[(&str, &str)],
) -> OwnedBatch {
    let mut text = record.properties().to_vec();
    // Refused as a whole, the text is what it was.
    let _ = properties::append_all(&mut text, added);
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

    fn copy_with(properties: &[u8]) -> Vec<u8> {
        let mut stored = Vec::new();
        let record = Record { key: b"k", properties, body: b"body", ..Record::default() };
        record.encode(&mut stored);
        let (view, _) = RecordView::cut(&stored).expect("a record");
        let batch = copied_message(view, Timestamp(7), &[("A", "1"), ("B", "22")]);
        let copy = crate::wire::batch::stored_records(batch.view().as_bytes()).next().expect("one record");
        assert_eq!((copy.key(), copy.body()), (&b"k"[..], &b"body"[..]));
        copy.properties().to_vec()
    }

    #[test]
    fn properties_are_added_all_or_none() {
        assert_eq!(copy_with(b""), b"A\x011\x02B\x0122\x02");
        assert_eq!(
            copy_with(b"x\x01y"),
            b"x\x01y\x02A\x011\x02B\x0122\x02",
            "the last separator was missing"
        );
        // Room for the first one only.
        let mut long = b"x\x01".to_vec();
        long.resize(limits::PROPERTIES_BYTES_MAX - 5, b'y');
        long.push(2);
        assert_eq!(copy_with(&long), long);
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
        assert!(committed(copied_message(view, Timestamp(7), &[])));
        assert!(!committed(undecided_message(view, Timestamp(7), &[("A", "1")])));
    }
}
