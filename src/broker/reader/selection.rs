//! What a filter asks of batches and records.

use std::cell::Cell;

use crate::api::{Filter, TagFilter};
use crate::filter::{Expression, Subject};
use crate::index::IndexEntry;
use crate::wire::record::{RecordView, tag_hash, tag_summary_bit};

/// What one look may spend on an expression, in steps of some ten nanoseconds: others wait meanwhile.
const STEPS_MAX: usize = 200_000;
/// Bytes of a message's properties that are looked through in a step, once for their names, and by each part that searches in one.
const NAMED_BYTES: usize = 32;
const SEARCHED_BYTES: usize = 2048;

/// A filter made ready to be asked of the records of one look.
#[derive(Debug)]
pub(in crate::broker) struct Selection<'a> {
    wanted: Wanted<'a>,
    /// The bits of a tag summary of which at least one must be set; `None`: whatever the tags are.
    tags: Option<u32>,
    /// What is left for expressions.
    steps: Cell<usize>,
}

#[derive(Clone, Copy, Debug)]
enum Wanted<'a> {
    Everything,
    Tags(&'a TagFilter),
    Expression(&'a Expression),
}

/// The bits of a tag summary that these tags set.
fn summary<'a>(tags: impl Iterator<Item = &'a [u8]>) -> u32 {
    tags.map(|tag| tag_summary_bit(tag_hash(tag))).fold(0, |bits, bit| bits | bit)
}

impl<'a> Selection<'a> {
    pub fn new(filter: &'a Filter) -> Self {
        match filter {
            Filter::Tags(tags) => Self::of_tags(tags),
            Filter::Expression(expression) => Self {
                wanted: Wanted::Expression(expression),
                tags: expression.tags().map(|tags| summary(tags.iter().map(|tag| &**tag))),
                steps: Cell::new(STEPS_MAX),
            },
        }
    }

    pub fn of_tags(filter: &'a TagFilter) -> Self {
        let (wanted, tags) = match filter.is_everything() {
            true => (Wanted::Everything, None),
            false => (Wanted::Tags(filter), Some(summary(filter.tags().iter().map(|tag| tag.as_bytes())))),
        };
        Self { wanted, tags, steps: Cell::new(STEPS_MAX) }
    }

    /// The bits of a tag summary of which at least one must be set; `None`: whatever the tags are.
    pub fn tags(&self) -> Option<u32> {
        self.tags
    }

    pub fn is_everything(&self) -> bool {
        matches!(self.wanted, Wanted::Everything)
    }

    /// False: nothing in the batch is wanted, so it need not be read.
    pub fn may_want(&self, entry: &IndexEntry) -> bool {
        self.tags.is_none_or(|bits| entry.tag_summary & bits != 0)
    }

    pub fn wants(&self, record: &RecordView<'_>) -> bool {
        match self.wanted {
            Wanted::Everything => true,
            Wanted::Tags(filter) => filter.matches(record.tag()),
            Wanted::Expression(expression) => {
                let may_be = |bits: u32| bits & tag_summary_bit(record.tag_hash()) != 0;
                if !self.tags.is_none_or(may_be) {
                    return false;
                }
                let (parts, bytes) = (expression.steps(), record.key().len() + record.properties().len());
                let steps = parts + bytes / NAMED_BYTES + parts * bytes / SEARCHED_BYTES;
                self.steps.set(self.steps.get().saturating_sub(steps));
                expression.matches(&Subject::from(record))
            }
        }
    }

    /// What expressions have taken so far, in steps of some ten nanoseconds.
    pub fn steps(&self) -> usize {
        STEPS_MAX - self.steps.get()
    }

    /// A look ends here, whatever it has found: it has taken as long as it may.
    pub fn is_spent(&self) -> bool {
        self.steps.get() == 0
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::types::{LogPosition, QueueOffset, Timestamp};
    use crate::wire::record::Record;

    fn filter(text: &str) -> Filter {
        Filter::Expression(Arc::new(text.parse().expect(text)))
    }

    fn with_record<T>(tag: &str, properties: &[u8], body: impl FnOnce(&RecordView<'_>) -> T) -> T {
        let mut bytes = Vec::new();
        Record { tag: tag.as_bytes(), properties, ..Record::default() }.encode(&mut bytes);
        body(&RecordView::cut(&bytes).expect("a record").0)
    }

    fn entry(tag: &str) -> IndexEntry {
        IndexEntry {
            base_offset: QueueOffset(0),
            record_count: 1,
            position: LogPosition(0),
            batch_bytes: 100,
            tag_summary: tag_summary_bit(tag_hash(tag.as_bytes())),
            store_time: Timestamp(0),
        }
    }

    #[test]
    fn expressions_choose_records_and_their_tags_choose_batches() {
        let filter = filter("TAGS IN ('a', 'b') AND n > 5");
        let selection = Selection::new(&filter);
        assert!(!selection.is_everything());
        assert!(selection.may_want(&entry("a")) && !selection.may_want(&entry("c")));
        for (tag, properties, expected) in [
            ("a", &b"n\x016\x02"[..], true),
            ("a", b"n\x015\x02", false),
            ("c", b"n\x016\x02", false),
            ("", b"", false),
        ] {
            assert_eq!(with_record(tag, properties, |record| selection.wants(record)), expected, "{tag}");
        }
    }

    #[test]
    fn what_the_tags_leave_out_is_not_evaluated() {
        let filter = filter("TAGS = 'a' AND n > 5");
        let selection = Selection::new(&filter);
        (0..1000).for_each(|_| _ = with_record("c", b"n\x016\x02", |record| selection.wants(record)));
        assert_eq!(selection.steps(), 0);
    }

    #[test]
    fn a_look_is_spent_when_it_has_evaluated_enough() {
        let filter = filter("n > 5");
        let selection = Selection::new(&filter);
        let mut count = 0;
        while !selection.is_spent() {
            with_record("", b"n\x016\x02", |record| assert!(selection.wants(record)));
            count += 1;
        }
        assert_eq!(count, STEPS_MAX.div_ceil(3));
        // Long properties count for each part that may search in them.
        let long = [b"n\x01", &vec![b'6'; 32_000][..], b"\x02"].concat();
        let many = self::filter(&vec!["n CONTAINS 'x'"; 300].join(" OR "));
        let selection = Selection::new(&many);
        let count = (0..1000).take_while(|_| {
            with_record("", &long, |record| assert!(!selection.wants(record)));
            !selection.is_spent()
        });
        assert!((1..30).contains(&count.count()));
        let tags = TagFilter::parse(Some("a"));
        let selection = Selection::of_tags(&tags);
        (0..STEPS_MAX).for_each(|_| _ = with_record("b", b"", |record| selection.wants(record)));
        assert!(!selection.is_spent(), "tags cost next to nothing");
    }
}
