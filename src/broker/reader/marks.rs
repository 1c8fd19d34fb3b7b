//! Where records begin in batches that are read a few records at a time: a walk to the last of a large batch's would
//! otherwise pass all those before it.

use std::collections::{HashMap, VecDeque};

use crate::types::LogPosition;
use crate::wire::batch::BATCH_HEADER_BYTES;
use crate::wire::record::RecordView;

/// Records between two marks.
const STEP: usize = 64;
/// Batches that have marks: with the most records, all of them together take 2 MiB.
const BATCHES_MAX: usize = 512;

/// The marks of the batches that were walked into last. Positions are never used twice, so that nothing here grows stale.
#[derive(Debug, Default)]
pub(super) struct RecordMarks {
    /// Where each `STEP`th record of a batch begins, after the first one, as far as somebody has walked.
    batches: HashMap<LogPosition, Vec<u32>>,
    /// In the order in which they came.
    order: VecDeque<LogPosition>,
}

impl RecordMarks {
    /// Where the record of that number begins in the batch at `position`; the batch's end when it has no such record.
    pub fn start_of(&mut self, position: LogPosition, batch: &[u8], number: usize) -> usize {
        if number < STEP {
            return skip(batch, BATCH_HEADER_BYTES, number);
        }
        if !self.batches.contains_key(&position) {
            if self.order.len() == BATCHES_MAX {
                let oldest = self.order.pop_front().expect("it is full");
                self.batches.remove(&oldest);
            }
            self.order.push_back(position);
        }
        let marks = self.batches.entry(position).or_default();
        let wanted = number / STEP;
        let mut start = match marks.get(wanted.min(marks.len()).wrapping_sub(1)) {
            Some(start) => *start as usize,
            None => BATCH_HEADER_BYTES,
        };
        while marks.len() < wanted {
            start = skip(batch, start, STEP);
            marks.push(start as u32);
        }
        skip(batch, start, number % STEP)
    }
}

/// Passes records of a batch, as far as there are any.
fn skip(batch: &[u8], start: usize, count: usize) -> usize {
    let mut at = start;
    for _ in 0..count {
        match RecordView::bytes_of_first(&batch[at..]) {
            Some(bytes) => at += bytes,
            None => return batch.len(),
        }
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::testing::generators::{batch, messages};
    use crate::types::Timestamp;
    use crate::wire::batch::stored_records;

    #[test]
    fn records_are_found_in_whatever_order_they_are_asked_for() {
        let mut random = Random::new(3);
        let mut marks = RecordMarks::default();
        for position in 0..20 {
            let messages = messages(&mut random, 700, 30);
            let batch = batch(&messages, Timestamp(0));
            for _ in 0..50 {
                let number = random.index(messages.len() + 70);
                let start = marks.start_of(LogPosition(8 * position), &batch, number);
                let left = &batch[start..];
                let found = stored_records(&batch).nth(number);
                assert_eq!(
                    RecordView::cut(left).ok().map(|(record, _)| record.as_bytes()),
                    found.map(|record| record.as_bytes()),
                    "record {number} of {}",
                    messages.len()
                );
            }
        }
    }

    #[test]
    fn the_batches_that_have_marks_are_bounded() {
        let messages = vec![messages(&mut Random::new(4), 1, 0).remove(0); 200];
        let batch = batch(&messages, Timestamp(0));
        let mut marks = RecordMarks::default();
        for position in 0..3 * BATCHES_MAX as u64 {
            marks.start_of(LogPosition(8 * position), &batch, 199);
            marks.start_of(LogPosition(8 * position), &batch, 1);
        }
        assert_eq!((marks.batches.len(), marks.order.len()), (BATCHES_MAX, BATCHES_MAX));
    }
}
