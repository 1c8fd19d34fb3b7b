//! The consumer group: what its members read, and what they committed.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::time::{Duration, Instant};

use turbopump::client::{Client, ClientError, Consumer, ConsumerOptions, Delivery, Until};
use turbopump::types::{GroupName, QueueKey, QueueNumber};

use crate::ledger::Ledger;
use crate::support::load::topic;
use crate::support::node::{Node, PATIENCE};
use crate::{TOPIC, body, connect, knows_topic};

/// Polls between two commits.
const COMMIT_EVERY: u32 = 20;

/// What is known of the committed offsets.
pub struct Commits {
    queues: Mutex<Vec<Committed>>,
    count: AtomicU64,
}

/// One queue: the broker has an offset between the two.
#[derive(Clone, Copy, Debug, Default)]
struct Committed {
    answered: u64,
    attempted: u64,
}

fn group() -> GroupName {
    "readers".parse().expect("a name")
}

fn options(until: Until) -> ConsumerOptions {
    ConsumerOptions { until, session_timeout: Duration::from_secs(20), ..ConsumerOptions::default() }
}

impl Commits {
    pub fn new(queues: u32) -> Self {
        Self { queues: Mutex::new(vec![Committed::default(); queues as usize]), count: AtomicU64::new(0) }
    }

    pub fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    fn queues(&self) -> MutexGuard<'_, Vec<Committed>> {
        self.queues.lock().expect("no holder has panicked")
    }

    /// The broker's offsets are neither behind what it answered nor beyond what it was told.
    pub fn check(&self, client: &mut Client, ledger: &Ledger) {
        let id = client.topic(&topic(TOPIC)).expect("the topic exists").id;
        for (queue, committed) in (0..).zip(self.queues().iter_mut()) {
            let key = QueueKey { topic: id, queue: QueueNumber(queue) };
            let found = client.committed_offset(&group(), key).expect("the broker answers");
            let found = found.map_or(0, |offset| offset.0);
            assert!(
                (committed.answered..=committed.attempted).contains(&found),
                "queue {queue}: {found} is committed, {committed:?}"
            );
            assert!(found <= ledger.end(queue), "queue {queue}: {found} is beyond {}", ledger.end(queue));
            // From here on it is known.
            *committed = Committed { answered: found, attempted: found };
        }
    }

    /// A member, until the broker is lost.
    pub fn read_until_lost(&self, address: &str, dying: &AtomicBool) {
        let outcome = self.read(address);
        if let Err(error) = outcome {
            assert!(dying.load(Ordering::SeqCst), "the broker lives, but {error}");
        }
    }

    fn read(&self, address: &str) -> Result<(), String> {
        let mut client = connect(address).ok_or("no connection")?;
        if !knows_topic(&mut client) {
            return Err("no topic".to_owned());
        }
        let consumer = Consumer::subscribe(client, group(), vec![topic(TOPIC)], options(Until::Forever));
        let mut consumer = consumer.map_err(|error| error.to_string())?;
        let mut places = HashMap::new();
        for poll in 1_u32.. {
            let rebalanced =
                self.poll(&mut consumer, &mut places).map_err(|error| error.to_string())?.is_none();
            if rebalanced || poll.is_multiple_of(COMMIT_EVERY) {
                self.commit(&mut consumer).map_err(|error| error.to_string())?;
            }
        }
        Ok(())
    }

    /// Reads one batch, which must follow the one before. `None` when queues have changed hands; else whether there was
    /// anything to read before the end.
    fn poll(
        &self,
        consumer: &mut Consumer,
        places: &mut HashMap<u32, u64>,
    ) -> Result<Option<bool>, ClientError> {
        match consumer.poll(Duration::from_millis(20))? {
            Some(Delivery::Messages(batch)) => {
                let (queue, first) = (batch.queue().0, batch.first_offset().0);
                match places.get(&queue) {
                    Some(place) => assert_eq!(first, *place, "queue {queue} goes on elsewhere"),
                    None => {
                        let known = self.queues()[queue as usize];
                        let expected = known.answered..=known.attempted;
                        assert!(expected.contains(&first), "queue {queue} begins at {first}, {known:?}");
                    }
                }
                for message in batch.messages() {
                    body::parse(message.body(), queue);
                }
                places.insert(queue, batch.end_offset().0);
                Ok(Some(true))
            }
            Some(Delivery::Rebalanced { revoked, .. }) => {
                places.retain(|queue, _| revoked.iter().all(|name| name.queue.0 != *queue));
                Ok(None)
            }
            Some(Delivery::End) => Ok(Some(false)),
            Some(Delivery::Damaged(range)) => panic!("{range:?}"),
            Some(Delivery::Moved { queue, from, to }) => panic!("{queue:?} moved from {from} to {to}"),
            None => Ok(Some(true)),
        }
    }

    fn commit(&self, consumer: &mut Consumer) -> Result<(), ClientError> {
        let positions = consumer.positions();
        for (name, offset) in &positions {
            let committed = &mut self.queues()[name.queue.0 as usize];
            committed.attempted = committed.attempted.max(offset.0);
        }
        consumer.commit()?;
        for (name, offset) in &positions {
            let committed = &mut self.queues()[name.queue.0 as usize];
            committed.answered = committed.answered.max(offset.0);
        }
        self.count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// Reads all that the group has not, to the end of every queue.
pub fn finish(node: &Node, commits: &Commits) {
    let mut consumer = Consumer::subscribe(node.client(), group(), vec![topic(TOPIC)], options(Until::End))
        .expect("the topic exists");
    let mut places = HashMap::new();
    let deadline = Instant::now() + PATIENCE;
    while commits.poll(&mut consumer, &mut places).expect("the broker answers") != Some(false) {
        assert!(Instant::now() < deadline, "the end does not come");
    }
    commits.commit(&mut consumer).expect("the broker answers");
    let client = &mut consumer.close().expect("the broker answers");
    let described = client.describe_group(&group()).expect("the group exists");
    let lag: u64 = described.queues.iter().map(|queue| queue.lag).sum();
    assert_eq!((lag, described.queues.len()), (0, crate::QUEUES as usize));
}
