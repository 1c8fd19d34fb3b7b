//! Counts loss, duplication and disorder from the sequence numbers that a reader sees.

use std::collections::{BTreeMap, HashMap};

use crate::cli::bench::message::{Head, Reading, RunId, StreamId};

/// Gaps that are remembered per stream. A gap beyond it counts as lost for good: there are far too many anyway.
const GAPS_MAX: usize = 100_000;

/// What went wrong, in messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Faults {
    /// Never seen, although a later one was, or although they were acknowledged.
    pub lost: u64,
    /// Seen again.
    pub duplicated: u64,
    /// Seen once, but after a later one.
    pub disordered: u64,
    /// Bench messages whose bytes are not what was sent.
    pub damaged: u64,
}

/// One stream, as one reader of one queue sees it.
#[derive(Clone, Debug)]
pub struct StreamTracker {
    /// The sequence that is due.
    next: u64,
    /// First of each gap below `next`, and its end.
    gaps: BTreeMap<u64, u64>,
    forgotten: u64,
    duplicated: u64,
    disordered: u64,
}

/// All streams of all runs that a reader meets.
#[derive(Default)]
pub struct Trackers {
    streams: Vec<StreamTracker>,
    places: HashMap<(RunId, StreamId), usize>,
    /// The stream that was met last: the messages of a batch are all of one, and looking it up costs more than the rest.
    last: Option<((RunId, StreamId), usize)>,
    damaged: u64,
    /// Queue offsets that were skipped.
    holes: u64,
}

impl Faults {
    pub fn is_clean(&self) -> bool {
        *self == Faults::default()
    }

    pub fn add(&mut self, other: &Faults) {
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.disordered += other.disordered;
        self.damaged += other.damaged;
    }
}

/// What is wrong with several queues: in the passes over them that are counted already, and in the present ones.
pub fn faults_of<'a>(counted: Faults, present: impl Iterator<Item = &'a Trackers>) -> Faults {
    present.fold(counted, |mut faults, trackers| {
        faults.add(&trackers.faults());
        faults
    })
}

impl StreamTracker {
    /// A stream whose next message is `next`: 0 where it was read from its start, or the first one seen where older
    /// ones may rightly have gone.
    pub fn new(next: u64) -> Self {
        Self { next, gaps: BTreeMap::new(), forgotten: 0, duplicated: 0, disordered: 0 }
    }

    #[inline]
    pub fn observe(&mut self, sequence: u64) {
        if sequence == self.next {
            self.next += 1;
        } else {
            self.observe_out_of_order(sequence);
        }
    }

    #[cold]
    fn observe_out_of_order(&mut self, sequence: u64) {
        if sequence > self.next {
            if self.gaps.len() == GAPS_MAX
                && let Some((start, end)) = self.gaps.pop_first()
            {
                self.forgotten += end - start;
            }
            self.gaps.insert(self.next, sequence);
            self.next = sequence + 1;
            return;
        }
        let gap = self.gaps.range(..=sequence).next_back().map(|(&start, &end)| (start, end));
        let Some((start, end)) = gap.filter(|&(_, end)| sequence < end) else {
            self.duplicated += 1;
            return;
        };
        self.disordered += 1;
        self.gaps.remove(&start);
        if start < sequence {
            self.gaps.insert(start, sequence);
        }
        if sequence + 1 < end {
            self.gaps.insert(sequence + 1, end);
        }
    }

    /// Says that the messages `start..end` were never stored, as the producer knows from a refusal: they are not lost.
    pub fn excuse(&mut self, start: u64, end: u64) {
        let touched: Vec<(u64, u64)> = self
            .gaps
            .range(..end)
            .map(|(&gap_start, &gap_end)| (gap_start, gap_end))
            .filter(|&(_, gap_end)| gap_end > start)
            .collect();
        for (gap_start, gap_end) in touched {
            self.gaps.remove(&gap_start);
            if gap_start < start {
                self.gaps.insert(gap_start, start);
            }
            if gap_end > end {
                self.gaps.insert(end, gap_end);
            }
        }
    }

    /// Says that everything below `end` was acknowledged or excused: what was not seen of it is lost.
    pub fn finish(&mut self, end: u64) {
        if self.next < end {
            self.gaps.insert(self.next, end);
            self.next = end;
        }
    }

    pub fn faults(&self) -> Faults {
        let missing: u64 = self.gaps.iter().map(|(start, end)| end - start).sum();
        Faults {
            lost: missing + self.forgotten,
            duplicated: self.duplicated,
            disordered: self.disordered,
            damaged: 0,
        }
    }
}

impl Trackers {
    /// The stream, which starts with its message `first` where this reader meets it for the first time.
    #[inline]
    pub fn stream(&mut self, run: RunId, stream: StreamId, first: u64) -> &mut StreamTracker {
        let name = (run, stream);
        let place = match self.last {
            Some((last, place)) if last == name => place,
            _ => self.place(name, first),
        };
        &mut self.streams[place]
    }

    #[cold]
    fn place(&mut self, name: (RunId, StreamId), first: u64) -> usize {
        let streams = &mut self.streams;
        let place = *self.places.entry(name).or_insert_with(|| {
            streams.push(StreamTracker::new(first));
            streams.len() - 1
        });
        self.last = Some((name, place));
        place
    }

    /// Takes note of a message; `first` is where a stream starts that is met for the first time, if not with this message.
    /// Returns what the bench has written in front of it, if it is whole.
    #[inline]
    pub fn note(&mut self, reading: Reading, first: Option<u64>) -> Option<Head> {
        match reading {
            Reading::Message(head) => {
                self.stream(head.run, head.stream, first.unwrap_or(head.sequence)).observe(head.sequence);
                Some(head)
            }
            Reading::Foreign => None,
            Reading::Damaged => {
                self.damaged(1);
                None
            }
        }
    }

    pub fn damaged(&mut self, messages: u64) {
        self.damaged += messages;
    }

    /// Notes that queue offsets were skipped, whatever stood there.
    pub fn lost(&mut self, offsets: u64) {
        self.holes += offsets;
    }

    pub fn faults(&self) -> Faults {
        let mut faults = Faults { damaged: self.damaged, ..Faults::default() };
        self.streams.iter().for_each(|stream| faults.add(&stream.faults()));
        // A hole in the offsets is missing in some stream as well, unless the messages are not the bench's.
        faults.lost = faults.lost.max(self.holes);
        faults
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn faults(sequences: &[u64]) -> Faults {
        let mut tracker = StreamTracker::new(0);
        sequences.iter().for_each(|&sequence| tracker.observe(sequence));
        tracker.faults()
    }

    fn of(lost: u64, duplicated: u64, disordered: u64) -> Faults {
        Faults { lost, duplicated, disordered, damaged: 0 }
    }

    #[test]
    fn each_fault_is_told_from_the_others() {
        assert_eq!(faults(&[0, 1, 2, 3]), of(0, 0, 0));
        assert_eq!(faults(&[0, 1, 3]), of(1, 0, 0));
        assert_eq!(faults(&[2]), of(2, 0, 0), "a stream starts at 0");
        assert_eq!(faults(&[0, 1, 1, 2]), of(0, 1, 0));
        assert_eq!(faults(&[0, 2, 1]), of(0, 0, 1));
        assert_eq!(faults(&[0, 5, 3, 3, 1]), of(2, 1, 2), "2 and 4 are missing");
    }

    #[test]
    fn a_hole_in_the_offsets_is_counted_once() {
        let mut trackers = Trackers::default();
        [0, 1, 4]
            .into_iter()
            .for_each(|sequence| trackers.stream(RunId(1), StreamId(1), 0).observe(sequence));
        trackers.lost(2);
        assert_eq!(trackers.faults(), of(2, 0, 0));
        trackers.lost(3);
        assert_eq!(trackers.faults(), of(5, 0, 0), "some of them were not ours");
    }

    #[test]
    fn a_refused_batch_is_no_loss_and_an_acknowledged_one_is() {
        let mut tracker = StreamTracker::new(0);
        [0, 1, 6, 7].into_iter().for_each(|sequence| tracker.observe(sequence));
        tracker.excuse(2, 4);
        assert_eq!(tracker.faults(), of(2, 0, 0), "4 and 5");
        tracker.finish(10);
        assert_eq!(tracker.faults(), of(4, 0, 0), "8 and 9 too");
        tracker.excuse(0, 100);
        assert_eq!(tracker.faults(), of(0, 0, 0));
    }

    proptest! {
        #[test]
        fn counts_match_a_plain_model(sequences in prop::collection::vec(0_u64..30, 0..60), excused in (0_u64..30, 0_u64..30)) {
            let mut tracker = StreamTracker::new(0);
            let (mut seen, mut duplicated, mut disordered) = (std::collections::BTreeSet::new(), 0, 0);
            for &sequence in &sequences {
                tracker.observe(sequence);
                let behind = seen.last().is_some_and(|&last| sequence < last);
                if !seen.insert(sequence) { duplicated += 1 } else if behind { disordered += 1 }
            }
            let end = tracker.next;
            prop_assert_eq!(end, seen.last().map_or(0, |last| last + 1));
            prop_assert_eq!(tracker.faults(), of(end - seen.len() as u64, duplicated, disordered));
            let (start, end_excused) = (excused.0.min(excused.1), excused.0.max(excused.1));
            tracker.excuse(start, end_excused);
            let lost = (0..end).filter(|sequence| !seen.contains(sequence) && !(start..end_excused).contains(sequence)).count();
            prop_assert_eq!(tracker.faults().lost, lost as u64);
        }
    }
}
