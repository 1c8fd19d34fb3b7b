//! Lines that are to be delivered later: each is stored by a request of its own, once everything before it is acknowledged.

use super::{Run, Stopped};
use crate::api::{Hold, Release, Reply, Request, Status};
use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::client::{ClientError, Message, Partitioner};
use crate::types::{QueueKey, QueueNumber, Timestamp, TopicId};

/// What has become of them.
pub(super) struct Held {
    pub topic: TopicId,
    pub partitioner: Partitioner,
    /// Stored.
    pub count: u64,
    /// Of those, how many may be stored twice.
    pub repeated: u64,
}

impl Held {
    pub fn new(topic: TopicId, queue_count: u32) -> Self {
        let partitioner = Partitioner::new(queue_count, QueueNumber(0));
        Self { topic, partitioner, count: 0, repeated: 0 }
    }
}

impl Run<'_> {
    /// Stores a message that its queue gets later.
    pub(super) fn hold(&mut self, number: u64, message: &Message<'_>, due: Timestamp) -> Result<(), Stopped> {
        self.flush()?;
        self.note_results();
        self.check()?;
        let batch = match message.to_batch(calendar::now()) {
            Ok(batch) => batch,
            Err(fault) => return Err(self.ended_at(number, format!("cannot be a message: {fault}"))),
        };
        let queue = self.held.partitioner.queue_of(message);
        let key = QueueKey { topic: self.held.topic, queue };
        let release = Release::At(due);
        let request = Request::Hold(Hold { key, level: self.arguments.level, batch, release });
        let mut is_again = false;
        loop {
            match self.producer.call(&request) {
                Ok(Reply::Held(held)) => {
                    self.level = Some(self.level.map_or(held.level, |lowest| lowest.min(held.level)));
                    break;
                }
                Ok(other) => {
                    let message = format!("an answer of another kind: {other:?}");
                    return Err(CommandError::failed(message).into());
                }
                Err(error) if self.endures(&error) => {
                    // Where nobody was reached, nothing was stored.
                    is_again |=
                        !matches!(error, ClientError::Connect { .. } | ClientError::UnknownHost { .. });
                    self.wait_for_broker(error)?;
                }
                Err(ClientError::Refused(failure)) if failure.status == Status::InvalidArgument => {
                    return Err(self.ended_at(number, format!("cannot be delayed: {}", failure.message)));
                }
                Err(error) => return Err(self.not_taken(number, message, error)),
            }
        }
        self.held.partitioner.batch_filled(queue);
        self.held.count += 1;
        self.held.repeated += u64::from(is_again);
        Ok(())
    }
}
