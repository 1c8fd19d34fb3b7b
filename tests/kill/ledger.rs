//! What producers were told, against what is stored.

use std::collections::{BTreeMap, HashSet};

use turbopump::client::Start;
use turbopump::types::QueueOffset;

use crate::TOPIC;
use crate::body::{self, Tag};
use crate::producing::Sent;
use crate::support::load::read;
use crate::support::node::Node;

pub struct Ledger {
    queues: Vec<Queue>,
    /// What each producer sends next.
    next: Vec<u64>,
    /// Refused, so not stored.
    refused: HashSet<Tag>,
    acknowledged: u64,
}

struct Queue {
    /// Every message by its offset, as far as it was read.
    found: Vec<Tag>,
    /// Acknowledged and not read yet.
    acknowledged: BTreeMap<u64, Tag>,
    /// Per producer, the newest message that was read.
    newest: Vec<Option<Tag>>,
}

impl Ledger {
    pub fn new(queues: u32, producers: u8) -> Self {
        let queue = || Queue {
            found: Vec::new(),
            acknowledged: BTreeMap::new(),
            newest: vec![None; usize::from(producers)],
        };
        Self {
            queues: (0..queues).map(|_| queue()).collect(),
            next: vec![0; usize::from(producers)],
            refused: HashSet::new(),
            acknowledged: 0,
        }
    }

    pub fn next_sequences(&self) -> Vec<u64> {
        self.next.clone()
    }

    pub fn acknowledged(&self) -> u64 {
        self.acknowledged
    }

    pub fn found(&self) -> usize {
        self.queues.iter().map(|queue| queue.found.len()).sum()
    }

    /// The end of a queue, as it was last read.
    pub fn end(&self, queue: u32) -> u64 {
        self.queues[queue as usize].found.len() as u64
    }

    /// Takes down what a producer was told. No offset is given twice.
    pub fn note(&mut self, sent: Sent) {
        self.next[usize::from(sent.producer)] = sent.next;
        self.refused.extend(sent.refused);
        self.acknowledged += sent.acknowledged.len() as u64;
        for (queue, offset, tag) in sent.acknowledged {
            let ledger = &mut self.queues[queue as usize];
            assert!(offset >= ledger.found.len() as u64, "{tag:?} got offset {offset}, which was taken");
            let earlier = ledger.acknowledged.insert(offset, tag);
            assert_eq!(earlier, None, "queue {queue} offset {offset} was given to {tag:?} too");
        }
    }

    /// Reads what is new in every queue, and checks it.
    pub fn catch_up(&mut self, node: &Node) {
        for queue in 0..self.queues.len() as u32 {
            let from = QueueOffset(self.end(queue));
            for message in read(node.client(), TOPIC, Some(queue), Start::Offset(from)) {
                let tag = body::parse(&message.body, queue);
                self.find(queue, message.offset, tag);
            }
            let ledger = &mut self.queues[queue as usize];
            let lost = ledger.acknowledged.split_off(&(ledger.found.len() as u64));
            assert!(lost.is_empty(), "queue {queue} ends at {}; lost: {lost:?}", ledger.found.len());
            ledger.acknowledged.clear();
        }
    }

    fn find(&mut self, queue: u32, offset: u64, tag: Tag) {
        let ledger = &mut self.queues[queue as usize];
        assert_eq!(offset, ledger.found.len() as u64, "queue {queue} has a gap");
        let producer = usize::from(tag.producer());
        assert!(tag.sequence() < self.next[producer], "{tag:?} was never sent");
        assert!(!self.refused.contains(&tag), "{tag:?} was refused, and is stored");
        // Nothing is sent twice, so whatever comes again or late is the broker's doing.
        assert!(ledger.newest[producer] < Some(tag), "{tag:?} behind {:?}", ledger.newest[producer]);
        if let Some(acknowledged) = ledger.acknowledged.get(&offset) {
            assert_eq!(
                *acknowledged, tag,
                "queue {queue} offset {offset} was acknowledged as another message"
            );
        }
        ledger.newest[producer] = Some(tag);
        ledger.found.push(tag);
    }

    /// Reads everything once more, from the first message on.
    pub fn check_everything(&self, node: &Node) {
        for (queue, ledger) in (0..).zip(&self.queues) {
            let mut from = 0;
            while from < ledger.found.len() as u64 {
                from = check_part(node, queue, from, &ledger.found);
            }
        }
    }
}

/// Compares one queue with what was found in it; returns where it stopped, because memory is short and queues are long.
fn check_part(node: &Node, queue: u32, from: u64, found: &[Tag]) -> u64 {
    let mut next = from;
    for message in read(node.client(), TOPIC, Some(queue), Start::Offset(QueueOffset(from))) {
        assert_eq!(message.offset, next, "queue {queue} has a gap");
        assert_eq!(body::parse(&message.body, queue), found[next as usize], "queue {queue} offset {next}");
        next += 1;
    }
    assert_eq!(next, found.len() as u64, "queue {queue} has become shorter or longer");
    next
}
