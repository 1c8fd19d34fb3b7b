//! What a filter asks of batches and records.

use crate::api::TagFilter;
use crate::index::IndexEntry;
use crate::wire::record::{RecordView, tag_hash, tag_summary_bit};

/// A filter made ready to be asked of many records: of tags now, of properties when there are expressions for them.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct Selection<'a> {
    filter: &'a TagFilter,
    /// The bits of a tag summary of which at least one must be set; `None`: all messages are wanted.
    tags: Option<u32>,
}

impl<'a> Selection<'a> {
    pub fn new(filter: &'a TagFilter) -> Self {
        let bit = |tag: &String| tag_summary_bit(tag_hash(tag.as_bytes()));
        let tags =
            (!filter.is_everything()).then(|| filter.tags().iter().map(bit).fold(0, |bits, bit| bits | bit));
        Self { filter, tags }
    }

    /// The bits of a tag summary of which at least one must be set; `None`: all messages are wanted.
    pub fn tags(&self) -> Option<u32> {
        self.tags
    }

    pub fn is_everything(&self) -> bool {
        self.tags.is_none()
    }

    /// False: nothing in the batch is wanted, so it need not be read.
    pub fn may_want(&self, entry: &IndexEntry) -> bool {
        self.tags.is_none_or(|bits| entry.tag_summary & bits != 0)
    }

    pub fn wants(&self, record: &RecordView<'_>) -> bool {
        self.filter.matches(record.tag())
    }
}
