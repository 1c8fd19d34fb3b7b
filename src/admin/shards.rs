//! What the admin thread asks the shards, and the way there and back.
//!
//! Bounds: at most [`QUESTIONS_MAX`] questions are with the shards at a time. One that nobody waits for any more counts until its
//! shard is done with it, so a shard that hangs is never given more than that.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::timeout;

use crate::access::Caller;
use crate::api::{Failure, Reply, Request, ShardReading, Status};
use crate::limits;
use crate::types::{NodeId, ShardId};

/// Questions that are with the shards at a time.
const QUESTIONS_MAX: usize = 4 * limits::SHARDS_MAX as usize;
/// A shard answers what it only has to look up within this time, or is told of as one that does not answer.
const LOOK_PATIENCE: Duration = Duration::from_secs(3);
/// A request may have to wait for a flush, or for other shards.
const REQUEST_PATIENCE: Duration = Duration::from_secs(20);

/// A question to one shard.
pub enum Question {
    /// How it stands.
    Standing(Slot<ShardStanding>),
    /// What it has counted and holds.
    Reading(Slot<Box<ShardReading>>),
    /// Whether this caller may see what operators see.
    MayLook(Caller, Slot<Result<(), Failure>>),
    /// A request of this caller: to be checked and carried out as if it had come over the native protocol. What it would wait
    /// for is not waited for.
    Request(Caller, Box<Request>, Slot<Result<Reply, Failure>>),
}

/// Where the answer to a question is put. Any thread may do so; whoever asked may have gone.
pub struct Slot<T> {
    sender: oneshot::Sender<T>,
    _counted: OwnedSemaphorePermit,
}

impl<T> Slot<T> {
    pub fn fill(self, answer: T) {
        // Who has gone needs no answer.
        let _ = self.sender.send(answer);
    }
}

/// How a shard stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShardStanding {
    /// Whether it takes messages and gives them.
    pub is_serving: bool,
    /// Why not, or what else an operator is to know; empty otherwise. It may name files of the broker's.
    pub condition: String,
}

/// The way to the shards' mailboxes.
pub trait Post {
    /// Gives a question to a shard; false when that one has ended.
    fn send(&self, shard: ShardId, question: Question) -> bool;
}

/// What does not change while a node runs.
#[derive(Clone, Debug)]
pub struct Facts {
    pub version: &'static str,
    pub node: NodeId,
    /// What the names of its brokers begin with, as RocketMQ's clients know them.
    pub name: String,
    pub cluster: String,
    pub shard_count: u16,
    /// Whoever reaches the admin address may change things there, where there are no access keys.
    pub is_writable: bool,
}

/// Why a shard has not answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unanswered {
    #[error("it has ended")]
    Ended,
    #[error("it did not answer within {} s", .0.as_secs())]
    Late(Duration),
    #[error("too many questions are with the shards: try again")]
    Busy,
}

/// All shards of the node, as the admin thread sees them.
pub(super) struct Shards {
    post: Box<dyn Post>,
    count: u16,
    outstanding: Arc<Semaphore>,
}

impl Shards {
    pub fn new(post: Box<dyn Post>, count: u16) -> Self {
        Self { post, count, outstanding: Arc::new(Semaphore::new(QUESTIONS_MAX)) }
    }

    pub fn all(&self) -> impl Iterator<Item = ShardId> {
        (0..self.count).map(ShardId)
    }

    async fn ask<T>(
        &self,
        shard: ShardId,
        patience: Duration,
        question: impl FnOnce(Slot<T>) -> Question,
    ) -> Result<T, Unanswered> {
        let counted = self.outstanding.clone().try_acquire_owned().map_err(|_| Unanswered::Busy)?;
        let (sender, answer) = oneshot::channel();
        if !self.post.send(shard, question(Slot { sender, _counted: counted })) {
            return Err(Unanswered::Ended);
        }
        match timeout(patience, answer).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(_)) => Err(Unanswered::Ended),
            Err(_) => Err(Unanswered::Late(patience)),
        }
    }

    /// Asks every shard the same, all at once; the answers in the order of the shards.
    async fn ask_all<T>(&self, question: impl Fn(Slot<T>) -> Question) -> Vec<Result<T, Unanswered>> {
        join_all(self.all().map(|shard| self.ask(shard, LOOK_PATIENCE, &question))).await
    }

    /// How every shard stands.
    pub async fn standings(&self) -> Vec<Result<ShardStanding, Unanswered>> {
        self.ask_all(Question::Standing).await
    }

    /// What every shard has counted and holds.
    pub async fn readings(&self) -> Vec<Result<ShardReading, Unanswered>> {
        let readings = self.ask_all(Question::Reading).await.into_iter();
        readings.map(|reading| reading.map(|reading| *reading)).collect()
    }

    /// Whether a caller may see what operators see.
    pub async fn may_look(&self, caller: Caller) -> Result<(), Failure> {
        let question = |slot| Question::MayLook(caller, slot);
        self.ask(ShardId(0), LOOK_PATIENCE, question)
            .await
            .unwrap_or_else(|unanswered| Err(unanswered.into()))
    }

    /// Has a request carried out as if a native client had sent it that has proved the caller's key, or none.
    pub async fn request(&self, caller: Caller, request: Request) -> Result<Reply, Failure> {
        let question = |slot| Question::Request(caller, Box::new(request), slot);
        // Any shard takes any request.
        let answered = self.ask(ShardId(0), REQUEST_PATIENCE, question).await;
        answered.unwrap_or_else(|unanswered| Err(unanswered.into()))
    }
}

impl From<Unanswered> for Failure {
    fn from(unanswered: Unanswered) -> Self {
        let status = match unanswered {
            Unanswered::Ended => Status::ShuttingDown,
            Unanswered::Busy => Status::Busy,
            // It may be carried out yet.
            Unanswered::Late(_) => Status::OutcomeUnknown,
        };
        Failure::new(status, format!("shard 0 was asked, and {unanswered}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// A mailbox that nobody opens.
    #[derive(Default)]
    struct Silent(Arc<Mutex<Vec<Question>>>);

    impl Post for Silent {
        fn send(&self, _: ShardId, question: Question) -> bool {
            self.0.lock().expect("nobody fails with it").push(question);
            true
        }
    }

    /// A node whose shards have ended.
    struct Ended;

    impl Post for Ended {
        fn send(&self, _: ShardId, _: Question) -> bool {
            false
        }
    }

    fn run<T>(task: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(task)
    }

    #[test]
    fn a_shard_that_hangs_is_not_asked_without_end() {
        let post = Silent::default();
        let held = post.0.clone();
        let shards = Shards::new(Box::new(post), 1);
        run(async {
            for _ in 0..QUESTIONS_MAX {
                let asked = shards.ask(ShardId(0), Duration::ZERO, Question::Standing).await;
                assert_eq!(asked, Err(Unanswered::Late(Duration::ZERO)));
            }
            let asked = shards.ask(ShardId(0), Duration::ZERO, Question::Standing).await;
            assert_eq!(asked, Err(Unanswered::Busy));
            held.lock().expect("nobody fails with it").clear();
            let asked = shards.ask(ShardId(0), Duration::ZERO, Question::Standing).await;
            assert_eq!(asked, Err(Unanswered::Late(Duration::ZERO)), "it is done with them");
        });
    }

    #[test]
    fn shards_that_have_ended_are_told_of() {
        let shards = Shards::new(Box::new(Ended), 2);
        run(async {
            assert_eq!(shards.standings().await, [Err(Unanswered::Ended), Err(Unanswered::Ended)]);
            let failure = shards.request(Caller::default(), Request::ListTopics).await;
            assert_eq!(failure.map_err(|failure| failure.status), Err(Status::ShuttingDown));
        });
    }
}
