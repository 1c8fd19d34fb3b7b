//! What was asked of the broker over HTTP, what it answered, and what it must and must not do from then on.
//!
//! What has no answer because the broker died is unknown: it may have happened or not, but not both.

use std::collections::{BTreeMap, HashSet};
use std::sync::{Mutex, MutexGuard};

use super::connection::{Delivered, Refused, now_ms};
use super::ordering;
use super::tag::{Kind, Tag};
use super::{LEASE_MS, ORDERED_LEASE_MS, TRANSACTION_IMMUNITY_MS};

#[derive(Default)]
pub struct Books(Mutex<BTreeMap<Tag, Entry>>);

/// One message.
#[derive(Debug, Default)]
pub struct Entry {
    sent_ms: u64,
    pub due_ms: u64,
    /// The publish was answered with 201.
    pub answered: bool,
    /// It was seen in its queue, past all leases.
    pub in_queue: bool,
    pub delivered: bool,
    attempts: HashSet<u32>,
    /// Since its last delivery somebody has asked to acknowledge it.
    pub asked_ms: Option<u64>,
    /// Answered with 204.
    pub acknowledged_ms: Option<u64>,
    /// What commits it or rolls it back.
    handle: Option<String>,
    decision: Option<(Decision, Stage)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    Commit,
    Rollback,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Somebody waits for the answer.
    Asked,
    /// There was none.
    Unknown,
    /// Answered with 204 at this time, or answered that it is known.
    Done(u64),
}

/// A delivery that can be acknowledged.
#[derive(Clone, Debug)]
pub struct Leased {
    pub tag: Tag,
    pub handle: String,
    pub until_ms: u64,
}

impl Decision {
    /// The parameter `trans` of the call.
    pub fn mode(self) -> &'static str {
        match self {
            Decision::Commit => "commit",
            Decision::Rollback => "rollback",
        }
    }
}

impl Entry {
    /// Delivered, and nobody has asked to acknowledge it since.
    pub fn is_open(&self) -> bool {
        self.delivered && self.asked_ms.is_none() && self.acknowledged_ms.is_none()
    }

    fn is_committed(&self) -> bool {
        matches!(self.decision, Some((Decision::Commit, Stage::Done(_))))
    }

    /// Whether consumers must get it, if its time has come.
    fn is_promised(&self, kind: Kind) -> bool {
        if kind == Kind::Half { self.is_committed() } else { self.answered }
    }

    /// Whether nobody knows yet what becomes of a half.
    fn is_undecided(&self) -> bool {
        match self.decision {
            None => self.answered,
            Some((Decision::Commit, Stage::Unknown)) => self.answered && !self.in_queue,
            Some((_, Stage::Asked)) => true,
            Some(_) => false,
        }
    }

    /// It is among the messages that consumers get: it must have been let through.
    fn check_visible(&self, tag: Tag) {
        assert!(self.due_ms <= now_ms(), "{tag} is early: {self:?}");
        if tag.kind == Kind::Half {
            let commit = matches!(self.decision, Some((Decision::Commit, _)));
            assert!(commit, "{tag} is visible, and nobody has committed it: {self:?}");
        }
    }

    fn check_delivery(&mut self, message: &Delivered, tag: Tag, asked_ms: u64) {
        let lease_ms = if tag.kind == Kind::Ordered { ORDERED_LEASE_MS } else { LEASE_MS };
        let leased_ms = message.lease_until_ms - lease_ms;
        self.check_visible(tag);
        assert!(self.due_ms <= leased_ms, "{tag} was leased at {leased_ms}, before its time: {self:?}");
        if let Some(acknowledged_ms) = self.acknowledged_ms {
            let is_late = leased_ms > acknowledged_ms || asked_ms > acknowledged_ms;
            assert!(!is_late, "{tag} was acknowledged, and is leased again at {leased_ms}: {self:?}");
        }
        let is_new = self.attempts.insert(message.attempt);
        assert!(is_new, "{tag} is delivered for the {}th time again: {self:?}", message.attempt);
        self.delivered = true;
        self.asked_ms = self.asked_ms.filter(|asked_ms| *asked_ms >= leased_ms);
    }
}

impl Books {
    fn entries(&self) -> MutexGuard<'_, BTreeMap<Tag, Entry>> {
        self.0.lock().expect("no other thread has found a fault")
    }

    /// Opens the entry of a message that is about to be sent.
    pub fn sending(&self, kind: Kind, sender: u8, due_ms: u64) -> Tag {
        let mut entries = self.entries();
        let first = Tag { kind, sender, number: 0 };
        let last = Tag { number: u64::MAX, ..first };
        let number = entries.range(first..=last).next_back().map_or(0, |(tag, _)| tag.number + 1);
        let tag = Tag { number, ..first };
        entries.insert(tag, Entry { sent_ms: now_ms(), due_ms, ..Entry::default() });
        tag
    }

    /// The publish was answered.
    pub fn published(&self, tag: Tag, handle: Option<String>) {
        assert_eq!(handle.is_some(), tag.kind == Kind::Half, "{tag}: transactions have handles");
        let mut entries = self.entries();
        let entry = entries.get_mut(&tag).expect("it was sent");
        (entry.answered, entry.handle) = (true, handle);
    }

    /// Takes down what a receive has brought, and checks it. `asked_ms` is when the receive was sent.
    pub fn delivered(&self, messages: Vec<Delivered>, asked_ms: u64) -> Vec<Leased> {
        let mut entries = self.entries();
        let leased: Vec<_> =
            messages.into_iter().map(|message| (Tag::of_body(&message.body), message)).collect();
        ordering::check(&entries, &leased);
        let take = |(tag, message): (Tag, Delivered)| {
            let entry = entries.get_mut(&tag).unwrap_or_else(|| panic!("nobody has sent {tag}"));
            entry.check_delivery(&message, tag, asked_ms);
            Leased { tag, handle: message.handle, until_ms: message.lease_until_ms }
        };
        leased.into_iter().map(take).collect()
    }

    /// Somebody is about to acknowledge these.
    pub fn asking(&self, leased: &[Leased]) {
        let mut entries = self.entries();
        for lease in leased {
            entries.get_mut(&lease.tag).expect("it was delivered").asked_ms = Some(now_ms());
        }
    }

    /// The acknowledgement was answered.
    pub fn acknowledged(&self, leased: &[Leased], refused: &[Refused], was_asked: &HashSet<Tag>) {
        let now = now_ms();
        let mut entries = self.entries();
        for lease in leased {
            let entry = entries.get_mut(&lease.tag).expect("it was delivered");
            match refused.iter().find(|refused| refused.handle == lease.handle) {
                None => entry.acknowledged_ms = Some(entry.acknowledged_ms.unwrap_or(now)),
                Some(refused) => {
                    assert_eq!(refused.code, "MessageNotExist", "{}: {entry:?}", lease.tag);
                    let is_over = now >= lease.until_ms || was_asked.contains(&lease.tag);
                    assert!(is_over, "{} was leased until {}: {entry:?}", lease.tag, lease.until_ms);
                }
            }
        }
    }

    /// The tags among these that somebody has asked to acknowledge before.
    pub fn asked_before(&self, leased: &[Leased]) -> HashSet<Tag> {
        let entries = self.entries();
        let is_asked = |lease: &&Leased| {
            let entry = &entries[&lease.tag];
            entry.asked_ms.is_some() || entry.acknowledged_ms.is_some()
        };
        leased.iter().filter(is_asked).map(|lease| lease.tag).collect()
    }

    /// Takes down the halves that were handed out to be decided on, and checks them.
    pub fn handed_out(&self, messages: &[Delivered], asked_ms: u64) -> Vec<(Tag, String)> {
        let mut entries = self.entries();
        let take = |message: &Delivered| {
            let tag = Tag::of_body(&message.body);
            let entry = entries.get_mut(&tag).unwrap_or_else(|| panic!("nobody has sent {tag}"));
            assert_eq!(tag.kind, Kind::Half, "{tag} is handed out as a half");
            if let Some((decision, Stage::Done(done_ms))) = entry.decision {
                assert!(asked_ms <= done_ms, "{tag} comes again after its {decision:?}: {entry:?}");
            }
            assert!(
                now_ms() >= entry.sent_ms + TRANSACTION_IMMUNITY_MS,
                "{tag} is asked about early: {entry:?}"
            );
            (tag, message.handle.clone())
        };
        messages.iter().map(take).collect()
    }

    /// Makes a decision this caller's: as it wishes, or again as somebody who got no answer has asked. `None` when that
    /// is somebody else's matter. True when it was asked for before.
    pub fn decide(&self, tag: Tag, wish: Decision) -> Option<(Decision, bool)> {
        let mut entries = self.entries();
        let entry = entries.get_mut(&tag).expect("it was sent");
        let (decision, again) = match entry.decision {
            None => (wish, false),
            Some((decision, Stage::Unknown)) => (decision, true),
            Some(_) => return None,
        };
        entry.decision = Some((decision, Stage::Asked));
        Some((decision, again))
    }

    /// The answer to a decision; `None`: there was none.
    pub fn decided(&self, tag: Tag, refused: Option<&[Refused]>, again: bool) {
        let mut entries = self.entries();
        let entry = entries.get_mut(&tag).expect("it was sent");
        let (decision, _) = entry.decision.expect("it was asked for");
        let stage = match refused {
            None => Stage::Unknown,
            Some([]) => Stage::Done(now_ms()),
            Some([refused]) => {
                assert_eq!(refused.code, "MessageNotExist", "{tag}: {entry:?}");
                assert!(again, "{tag} waits for a decision, and its {decision:?} is refused: {entry:?}");
                Stage::Done(now_ms())
            }
            Some(others) => panic!("{tag}: one handle, and {others:?}"),
        };
        entry.decision = Some((decision, stage));
    }

    /// An older half that nobody has decided on, with the handle its publisher got.
    pub fn old_half(&self, sender: u8) -> Option<(Tag, String)> {
        let entries = self.entries();
        let first = Tag { kind: Kind::Half, sender, number: 0 };
        let mut halves = entries.range(first..=Tag { number: u64::MAX, ..first });
        let is_open = |entry: &Entry| entry.decision.is_none();
        halves.find_map(|(tag, entry)| Some((*tag, entry.handle.clone().filter(|_| is_open(entry))?)))
    }

    /// A message stands in its queue.
    pub fn found(&self, tag: Tag) {
        let mut entries = self.entries();
        let entry = entries.get_mut(&tag).unwrap_or_else(|| panic!("nobody has sent {tag}"));
        assert!(!entry.in_queue, "{tag} is there twice: {entry:?}");
        entry.check_visible(tag);
        entry.in_queue = true;
    }

    /// Everything that was answered stands in its queue; delayed messages too that were due at this time.
    pub fn check_queues(&self, due_ms: u64) {
        for (tag, entry) in self.entries().iter() {
            let is_promised = entry.is_promised(tag.kind) && entry.due_ms < due_ms;
            assert!(entry.in_queue || !is_promised, "{tag} is lost: {entry:?}");
        }
    }

    /// The messages whose matter is not over: not delivered and acknowledged, or not decided on.
    pub fn unfinished(&self) -> Vec<Tag> {
        let entries = self.entries();
        let unfinished = entries.iter().filter(|(tag, entry)| {
            let is_visible = entry.in_queue || entry.is_promised(tag.kind);
            let is_over = entry.delivered && !entry.is_open();
            (is_visible && !is_over) || (tag.kind == Kind::Half && entry.is_undecided())
        });
        unfinished.map(|(tag, _)| *tag).collect()
    }

    /// An entry for a report.
    pub fn describe(&self, tag: Tag) -> String {
        format!("{tag}: {:?}", self.entries()[&tag])
    }

    /// Messages that were answered, acknowledged, and decided on.
    pub fn counts(&self) -> [usize; 3] {
        let entries = self.entries();
        let count = |is: &dyn Fn(&Entry) -> bool| entries.values().filter(|entry| is(entry)).count();
        [
            count(&|entry| entry.answered),
            count(&|entry| entry.acknowledged_ms.is_some()),
            count(&|entry| matches!(entry.decision, Some((_, Stage::Done(_))))),
        ]
    }
}
