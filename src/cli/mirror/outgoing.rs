//! Batches on their way to the target: a connection for each of its shards, and which answer is whose.

use std::collections::HashMap;
use std::time::Duration;

use crate::api::{Failure, Produced};
use crate::client::{Client, ClientError, Connection, Correlation};
use crate::protocol::native::DecodedReply;
use crate::types::{Level, QueueKey, QueueNumber, QueueOffset};

/// Bytes on their way to all shards.
const BYTES_MAX: usize = 32 * 1024 * 1024;
/// Batches on their way to one shard.
const BATCHES_MAX: usize = 256;

/// What became of a batch.
pub struct Outcome {
    pub queue: QueueNumber,
    pub number: u64,
    pub answer: Result<Produced, Failure>,
}

/// A connection that is lost, and whose batches with it.
pub struct Loss {
    pub shard: usize,
    pub error: ClientError,
}

/// Which batch a request is.
struct Flight {
    queue: QueueNumber,
    number: u64,
    bytes: usize,
}

#[derive(Default)]
struct Link {
    connection: Option<Connection>,
    flights: HashMap<Correlation, Flight>,
}

pub struct Outgoing {
    client: Client,
    links: Vec<Link>,
    bytes: usize,
    last_number: u64,
}

impl Outgoing {
    pub fn new(client: Client) -> Self {
        let links = (0..client.shard_count()).map(|_| Link::default()).collect();
        Self { client, links, bytes: 0, last_number: 0 }
    }

    pub fn shard(&self, queue: QueueNumber) -> usize {
        usize::from(queue.shard(self.client.shard_count()).0)
    }

    pub fn is_idle(&self) -> bool {
        self.links.iter().all(|link| link.flights.is_empty())
    }

    /// Whether another batch may be on its way to this queue's shard.
    pub fn has_room(&self, queue: QueueNumber) -> bool {
        self.bytes < BYTES_MAX && self.links[self.shard(queue)].flights.len() < BATCHES_MAX
    }

    /// Whether batches for this queue are handed on by another shard, which cannot be reached otherwise. Opens the connection.
    pub fn is_forwarded(&mut self, queue: QueueNumber) -> Result<bool, ClientError> {
        let address = self.client.reachable_shard(queue.shard(self.client.shard_count()))?;
        let own = self.client.shards().nth(self.shard(queue)).map(|shard| shard.address.clone());
        Ok(own.is_some_and(|own| own != address) && self.client.shard_count() > 1)
    }

    /// Sends a batch of copies, and returns its number.
    pub fn send(&mut self, key: QueueKey, at: Option<QueueOffset>, batch: &[u8]) -> Result<u64, ClientError> {
        let shard = self.shard(key.queue);
        if self.links[shard].connection.is_none() {
            self.links[shard].connection = Some(self.client.open_owner(key.queue)?);
        }
        let connection = self.links[shard].connection.as_mut().expect("just opened");
        let correlation = connection.submit_copies(key, Some(Level::Durable), at, batch)?;
        self.last_number += 1;
        let flight = Flight { queue: key.queue, number: self.last_number, bytes: batch.len() };
        self.bytes += flight.bytes;
        self.links[shard].flights.insert(correlation, flight);
        Ok(self.last_number)
    }

    /// An answer that has come; waits for one so long at most. `None`: there is none.
    pub fn next(&mut self, wait: Duration) -> Result<Option<Outcome>, Loss> {
        for shard in 0..self.links.len() {
            if let Some(outcome) = self.next_of(shard, Duration::ZERO)? {
                return Ok(Some(outcome));
            }
        }
        // One after the other gets its share of the wait: an answer of another is found soon enough.
        let waiting: Vec<_> =
            (0..self.links.len()).filter(|&shard| !self.links[shard].flights.is_empty()).collect();
        let share = wait / u32::try_from(waiting.len().max(1)).unwrap_or(1);
        for shard in waiting.into_iter().filter(|_| !share.is_zero()) {
            if let Some(outcome) = self.next_of(shard, share)? {
                return Ok(Some(outcome));
            }
        }
        Ok(None)
    }

    fn next_of(&mut self, shard: usize, wait: Duration) -> Result<Option<Outcome>, Loss> {
        let Link { connection: Some(connection), flights } = &mut self.links[shard] else { return Ok(None) };
        if flights.is_empty() {
            return Ok(None);
        }
        let received = match wait.is_zero() {
            true => connection.try_receive(),
            false => connection.receive(wait),
        };
        let (correlation, reply) = match received {
            Ok(Some(received)) => received,
            Ok(None) => return Ok(None),
            Err(error) => return Err(Loss { shard, error }),
        };
        let answer = match reply {
            DecodedReply::Produced(produced) => Ok(produced),
            DecodedReply::Failed(failure) => Err(failure),
            DecodedReply::Fetched(_) | DecodedReply::Other(_) => {
                let address = connection.address().to_owned();
                let reason = "a batch was answered with something else".to_owned();
                return Err(Loss { shard, error: ClientError::Protocol { address, reason } });
            }
        };
        let Some(flight) = flights.remove(&correlation) else { return Ok(None) };
        self.bytes -= flight.bytes;
        Ok(Some(Outcome { queue: flight.queue, number: flight.number, answer }))
    }

    /// Gives a connection up: nothing of what is on its way is heard of again.
    pub fn give_up(&mut self, shard: usize) {
        let link = std::mem::take(&mut self.links[shard]);
        self.bytes -= link.flights.values().map(|flight| flight.bytes).sum::<usize>();
    }
}
