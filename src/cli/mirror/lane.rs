//! One queue of a mirror: how far it was copied, what is on its way, and what a refusal or a loss means. No I/O.
//!
//! Every batch says which offset its first message must get at the target, so that of several on their way those behind one that
//! is not stored are refused as well: whatever happens, the queue has a beginning of the source's queue, in order and once. After
//! anything but success the lane goes back to where it was acknowledged; where a batch may be stored all the same, the target's
//! own messages tell (`alignment`).

use std::collections::VecDeque;

use crate::types::QueueOffset;

/// Messages that are copied ahead of the place that is kept: as many are looked through for it after a loss, at most.
pub const UNKEPT_MESSAGES_MAX: u64 = 65_536;
/// The same in bytes.
pub const UNKEPT_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// How far a queue was copied: what was last stored before `target` is a copy of what is before `source`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub source: QueueOffset,
    pub target: QueueOffset,
}

/// What is to be done before a lane goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Trouble {
    /// Nothing was stored: the same again, after a pause.
    Again,
    /// Something may be stored: the target is to be looked at.
    Align,
}

/// A batch on its way.
#[derive(Debug)]
struct Flight {
    number: u64,
    source_end: QueueOffset,
    messages: u64,
    bytes: u64,
    /// Where its messages end at the target, once it is stored.
    stored_end: Option<QueueOffset>,
}

/// One queue.
#[derive(Debug)]
pub struct Lane {
    /// Everything before it is durable at the target.
    acknowledged: Place,
    /// The offset that the next message gets at the target, if others write to it too.
    next_target: QueueOffset,
    /// What is kept by both brokers.
    kept: Place,
    /// The next message to be taken from the source.
    taken: QueueOffset,
    /// The offset that the next batch is for.
    at: QueueOffset,
    flights: VecDeque<Flight>,
    unkept_bytes: u64,
    trouble: Option<Trouble>,
    /// Whether what was on its way was lost since the target was looked at.
    lost: bool,
    /// Others write to the target's queue.
    shared: bool,
    /// One batch at a time: they go through a shard that hands them on, where one may overtake another.
    one_by_one: bool,
}

impl Lane {
    /// A lane whose target's queue ends at `end`.
    pub fn new(place: Place, end: QueueOffset, kept: Place) -> Self {
        Self {
            acknowledged: place,
            next_target: end,
            kept,
            taken: place.source,
            at: end,
            flights: VecDeque::new(),
            unkept_bytes: 0,
            trouble: None,
            lost: false,
            shared: false,
            one_by_one: false,
        }
    }

    // ---- Out ---------------------------------------------------------------------------------------------------

    /// The next message that is wanted of the source.
    pub fn taken(&self) -> QueueOffset {
        self.taken
    }

    /// A message was taken into a batch, or left out.
    pub fn take(&mut self, offset: QueueOffset) {
        self.taken = offset.advance(1);
    }

    /// Whether a batch may leave now.
    pub fn has_room(&self) -> bool {
        let few = !(self.shared || self.one_by_one) || self.flights.is_empty();
        let unkept = self.taken.0.saturating_sub(self.kept.source.0);
        few && unkept < UNKEPT_MESSAGES_MAX && self.unkept_bytes < UNKEPT_BYTES_MAX
    }

    /// The offset that the next batch is for; `None`: whichever comes, as others write there too.
    pub fn at(&self) -> Option<QueueOffset> {
        (!self.shared).then_some(self.at)
    }

    /// A batch has left with everything up to what was taken.
    pub fn sent(&mut self, number: u64, messages: u64, bytes: u64) {
        self.at = self.at.advance(messages);
        self.unkept_bytes += bytes;
        let source_end = self.taken;
        self.flights.push_back(Flight { number, source_end, messages, bytes, stored_end: None });
    }

    pub fn goes_one_by_one(&mut self) {
        self.one_by_one = true;
    }

    /// Others were seen to write to the target's queue. Whether that is news.
    pub fn is_shared_now(&mut self) -> bool {
        !std::mem::replace(&mut self.shared, true)
    }

    // ---- Answers -----------------------------------------------------------------------------------------------

    /// A batch is durable from `base` on. Returns the messages that are acknowledged by that, and their bytes.
    pub fn stored(&mut self, number: u64, base: QueueOffset) -> (u64, u64) {
        if let Some(flight) = self.flights.iter_mut().find(|flight| flight.number == number) {
            flight.stored_end = Some(base.advance(flight.messages));
        }
        let (mut messages, mut bytes) = (0, 0);
        while let Some(target) = self.flights.front().and_then(|flight| flight.stored_end) {
            let flight = self.flights.pop_front().expect("it was just looked at");
            self.acknowledged = Place { source: flight.source_end, target };
            self.next_target = target;
            messages += flight.messages;
            bytes += flight.bytes;
        }
        (messages, bytes)
    }

    /// A batch is not stored, or may not be. What is behind it is sent again too, whatever its answer is.
    pub fn refused(&mut self, number: u64, trouble: Trouble) {
        self.flights.retain(|flight| flight.number < number);
        self.trouble = self.trouble.max(Some(trouble));
    }

    /// A batch is stored or not: its answer does not say.
    pub fn unknown(&mut self, number: u64) {
        self.refused(number, Trouble::Align);
        self.lost = true;
    }

    /// The connection is gone, and with it the answers to what was on its way.
    pub fn lose(&mut self) {
        if !self.flights.is_empty() {
            self.flights.clear();
            self.lost = true;
            self.trouble = Some(Trouble::Align);
        }
    }

    /// A batch has not left.
    pub fn not_sent(&mut self) {
        self.trouble = self.trouble.max(Some(Trouble::Again));
    }

    // ---- After trouble -----------------------------------------------------------------------------------------

    pub fn trouble(&self) -> Option<Trouble> {
        self.trouble
    }

    /// Whether something may be stored that no answer told of.
    pub fn was_lost(&self) -> bool {
        self.lost
    }

    /// Goes back to where it was acknowledged.
    pub fn go_back(&mut self) {
        assert!(self.flights.is_empty(), "what is on its way is waited for first");
        (self.taken, self.at) = (self.acknowledged.source, self.next_target);
        self.trouble = None;
    }

    /// Goes on from where the target was seen to be.
    pub fn go_on(&mut self, place: Place, end: QueueOffset) {
        (self.acknowledged, self.next_target) = (place, end);
        self.lost = false;
        self.go_back();
    }

    // ---- Places ------------------------------------------------------------------------------------------------

    pub fn acknowledged(&self) -> Place {
        self.acknowledged
    }

    /// What is to be kept, if that is not kept already.
    pub fn unkept(&self) -> Option<Place> {
        (self.acknowledged != self.kept).then_some(self.acknowledged)
    }

    /// Whether so much is unkept that it is time.
    pub fn is_keeping_due(&self) -> bool {
        let unkept = self.acknowledged.source.0.saturating_sub(self.kept.source.0);
        unkept >= UNKEPT_MESSAGES_MAX / 2 || self.unkept_bytes >= UNKEPT_BYTES_MAX / 2
    }

    /// Both brokers have it.
    pub fn keep(&mut self, place: Place) {
        self.kept = place;
        self.unkept_bytes = self.flights.iter().map(|flight| flight.bytes).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(source: u64, target: u64) -> Place {
        Place { source: QueueOffset(source), target: QueueOffset(target) }
    }

    fn lane() -> Lane {
        Lane::new(place(10, 5), QueueOffset(5), place(10, 5))
    }

    fn send(lane: &mut Lane, number: u64, messages: u64) {
        (0..messages).for_each(|_| lane.take(lane.taken()));
        lane.sent(number, messages, 100);
    }

    #[test]
    fn what_is_stored_in_order_is_acknowledged() {
        let mut lane = lane();
        for number in 0..3 {
            assert_eq!(lane.at(), Some(QueueOffset(5 + 2 * number)));
            send(&mut lane, number, 2);
        }
        assert_eq!(lane.stored(1, QueueOffset(7)), (0, 0), "the one before it is still on its way");
        assert_eq!(lane.stored(0, QueueOffset(5)), (4, 200));
        assert_eq!(lane.acknowledged(), place(14, 9));
        lane.keep(place(14, 9));
        assert_eq!(lane.unkept(), None);
        assert_eq!(lane.stored(2, QueueOffset(9)), (2, 100));
        assert_eq!(lane.unkept(), Some(place(16, 11)));
    }

    #[test]
    fn after_a_refusal_everything_behind_it_comes_again() {
        let mut lane = lane();
        (0..3).for_each(|number| send(&mut lane, number, 2));
        lane.stored(0, QueueOffset(5));
        lane.refused(1, Trouble::Again);
        lane.refused(2, Trouble::Align);
        assert_eq!((lane.trouble(), lane.was_lost()), (Some(Trouble::Align), false));
        lane.go_back();
        assert_eq!((lane.taken(), lane.at(), lane.trouble()), (QueueOffset(12), Some(QueueOffset(7)), None));
    }

    #[test]
    fn after_a_loss_the_target_tells_where_to_go_on() {
        let mut lane = lane();
        (0..2).for_each(|number| send(&mut lane, number, 2));
        lane.lose();
        assert_eq!((lane.trouble(), lane.was_lost()), (Some(Trouble::Align), true));
        lane.go_on(place(12, 7), QueueOffset(9));
        assert_eq!((lane.taken(), lane.at()), (QueueOffset(12), Some(QueueOffset(9))));
        let mut idle = self::lane();
        idle.lose();
        assert_eq!(idle.trouble(), None, "nothing was on its way");
    }

    #[test]
    fn where_others_write_one_batch_goes_at_a_time() {
        let mut lane = lane();
        assert!(lane.is_shared_now() && !lane.is_shared_now());
        assert_eq!(lane.at(), None);
        send(&mut lane, 0, 2);
        assert!(!lane.has_room());
        lane.stored(0, QueueOffset(100));
        assert_eq!(lane.acknowledged(), place(12, 102));
        assert!(lane.has_room());
    }

    #[test]
    fn what_is_not_kept_is_bounded() {
        let mut lane = lane();
        let mut number = 0;
        while lane.has_room() {
            send(&mut lane, number, 1_000);
            number += 1;
        }
        assert_eq!(number, UNKEPT_MESSAGES_MAX.div_ceil(1_000));
        assert!(!lane.is_keeping_due(), "nothing is acknowledged");
        for number in 0..number {
            lane.stored(number, QueueOffset(5 + 1_000 * number));
        }
        assert!(lane.is_keeping_due());
        lane.keep(lane.acknowledged());
        assert!(lane.has_room() && !lane.is_keeping_due());
    }
}
