//! The consumer for tasks: fixed queues. Groups are the blocking consumer's.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

use crate::api::{Failure, OffsetPlace, Request, Status};
use crate::client::fetching::{Answered, BatchCut, FetchLimits, Fetcher};
use crate::client::messages::{DamagedRange, Delivery, MessageBatch, QueueName};
use crate::client::{ClientError, ConsumerOptions, OutOfRange, Start, Until};
use crate::limits;
use crate::protocol::native::DecodedReply;
use crate::types::{QueueKey, QueueNumber, QueueOffset, TopicName};

use super::client::AsyncClient;
use super::connection::{AsyncConnection, any_readable};

/// Reads fixed queues of one topic, batch by batch. While the program handles one batch, the next is on its way.
pub struct AsyncConsumer {
    client: AsyncClient,
    options: ConsumerOptions,
    topic: TopicName,
    fetcher: Fetcher,
    links: Vec<Link>,
    events: VecDeque<Event>,
    /// Queues whose offset was gone, and is to be found anew.
    lost_places: Vec<(QueueKey, Failure)>,
}

/// The way to one shard.
#[derive(Default)]
struct Link {
    connection: Option<AsyncConnection>,
    /// Since when nothing has come while a fetch was waiting.
    waiting_since: Option<Instant>,
}

enum Event {
    Damaged(DamagedRange),
    Moved { queue: QueueName, from: QueueOffset, to: QueueOffset },
}

enum Step {
    Batch { shard: usize, cut: BatchCut },
    Event(Event),
    End,
}

impl AsyncConsumer {
    /// Reads fixed queues of a topic, or all of them.
    pub async fn assign(
        mut client: AsyncClient,
        topic: TopicName,
        queues: Option<Vec<QueueNumber>>,
        options: ConsumerOptions,
    ) -> Result<Self, ClientError> {
        let info = client.topic(&topic).await?;
        let mut queues = queues.unwrap_or_else(|| (0..info.queue_count).map(QueueNumber).collect());
        queues.sort_unstable();
        queues.dedup();
        if let Some(queue) = queues.iter().find(|queue| queue.0 >= info.queue_count) {
            let message =
                format!("queue {queue} does not exist: topic {topic} has {}, from 0", info.queue_count);
            return Err(Failure::new(Status::QueueNotExist, message).into());
        }
        let limits = FetchLimits {
            bytes_max: options.fetch_bytes,
            records_max: options.fetch_records,
            wait: options.fetch_wait.min(Duration::from_millis(u64::from(limits::FETCH_WAIT_MS_MAX))),
        };
        let shard_count = client.shard_count();
        let mut fetcher = Fetcher::new(limits, shard_count);
        for queue in queues {
            let key = QueueKey { topic: info.id, queue };
            let from = match options.start {
                Start::Offset(offset) => offset,
                Start::First => client.find_offset(key, OffsetPlace::First).await?,
                Start::Last => client.find_offset(key, OffsetPlace::Last).await?,
                Start::Time(time) => client.find_offset(key, OffsetPlace::Time(time)).await?,
            };
            let stop_at = match options.until {
                Until::Forever => None,
                Until::End => Some(client.find_offset(key, OffsetPlace::Last).await?),
            };
            fetcher.add(key, topic.clone(), from, stop_at);
        }
        Ok(Self {
            client,
            options,
            topic,
            fetcher,
            links: (0..shard_count).map(|_| Link::default()).collect(),
            events: VecDeque::new(),
            lost_places: Vec::new(),
        })
    }

    /// The next batch or event. Waits as long as it takes: put a time-out around it. After an error about the broker the
    /// next call tries again with a new connection, from the same place.
    pub async fn next(&mut self) -> Result<Delivery<'_>, ClientError> {
        match self.next_step().await? {
            Step::End => Ok(Delivery::End),
            Step::Event(Event::Damaged(range)) => Ok(Delivery::Damaged(range)),
            Step::Event(Event::Moved { queue, from, to }) => Ok(Delivery::Moved { queue, from, to }),
            Step::Batch { shard, cut } => {
                let connection = self.links[shard].connection.as_ref().expect("the batch came over it");
                let bytes = &connection.last_payload()[cut.range];
                let offsets = (cut.first_offset, cut.end_offset);
                Ok(Delivery::Messages(MessageBatch::new(&self.topic, cut.header, bytes, offsets)))
            }
        }
    }

    /// Per queue, the offset behind the last message that was handed out.
    pub fn positions(&self) -> Vec<(QueueNumber, QueueOffset)> {
        let keys = self.fetcher.keys();
        keys.into_iter().filter_map(|key| Some((key.queue, self.fetcher.delivered(key)?))).collect()
    }

    async fn next_step(&mut self) -> Result<Step, ClientError> {
        loop {
            if let Some(event) = self.events.pop_front() {
                return Ok(Step::Event(event));
            }
            if let Some(step) = self.cut_current()? {
                return Ok(step);
            }
            if self.options.until == Until::End && self.lost_places.is_empty() && self.fetcher.is_done() {
                return Ok(Step::End);
            }
            self.move_on().await?;
            self.fetcher.resume_due(std::time::Instant::now());
            self.ask().await?;
            if self.take_answer()? {
                // The next fetch leaves before this answer's batches are handed out.
                self.ask().await?;
            } else {
                self.wait().await?;
            }
        }
    }

    fn cut_current(&mut self) -> Result<Option<Step>, ClientError> {
        let Some((shard, key)) = self.fetcher.current() else { return Ok(None) };
        let payload = self.links[shard].connection.as_ref().map_or(&[][..], AsyncConnection::last_payload);
        match self.fetcher.next_batch(payload) {
            Ok(None) => Ok(None),
            Ok(Some(cut)) if cut.intact => Ok(Some(Step::Batch { shard, cut })),
            Ok(Some(cut)) => {
                let (from, to) = (cut.first_offset, cut.end_offset);
                let range = DamagedRange { queue: self.name(key), from, to, bytes: None };
                Ok(Some(Step::Event(Event::Damaged(range))))
            }
            Err(reason) => {
                let address = self.links[shard].connection.as_ref().map_or("", AsyncConnection::address);
                let error = ClientError::protocol(address, reason);
                Err(self.lose(shard, error))
            }
        }
    }

    /// Sends the fetches of queues that have none on its way.
    async fn ask(&mut self) -> Result<(), ClientError> {
        for shard in 0..self.links.len() {
            while let Some(fetch) = self.fetcher.next_fetch(shard) {
                // Until the fetch is taken the queue must stay listed, should this be cancelled.
                self.fetcher.not_asked(fetch.key);
                if self.links[shard].connection.is_none() {
                    let connection = self.client.open_owner(fetch.key.queue).await?;
                    self.links[shard].connection = Some(connection);
                }
                let Some(fetch) = self.fetcher.next_fetch(shard) else { break };
                let link = &mut self.links[shard];
                let connection = link.connection.as_mut().expect("just opened");
                match connection.submit(&Request::Fetch(fetch)) {
                    Ok(correlation) => self.fetcher.asked(shard, fetch.key, correlation),
                    Err(error) => {
                        self.fetcher.not_asked(fetch.key);
                        return Err(self.lose(shard, error));
                    }
                }
                link.waiting_since.get_or_insert_with(Instant::now);
            }
            if let Some(connection) = &mut self.links[shard].connection {
                connection.flush().await.map_err(|error| self.lose(shard, error))?;
            }
        }
        Ok(())
    }

    /// Takes one answer that has come.
    fn take_answer(&mut self) -> Result<bool, ClientError> {
        let now = std::time::Instant::now();
        for shard in 0..self.links.len() {
            let link = &mut self.links[shard];
            let Some(connection) = &mut link.connection else { continue };
            if self.fetcher.in_flight(shard) == 0 {
                continue;
            }
            let answered = match connection.try_receive() {
                Ok(None) => continue,
                Ok(Some((correlation, DecodedReply::Fetched(view)))) => {
                    self.fetcher.answered(shard, correlation, Ok(&view), now)
                }
                Ok(Some((correlation, DecodedReply::Failed(failure)))) => {
                    self.fetcher.answered(shard, correlation, Err(failure), now)
                }
                Ok(Some(_)) => {
                    let error = ClientError::protocol(
                        connection.address(),
                        "a fetch was answered with something else",
                    );
                    return Err(self.lose(shard, error));
                }
                Err(error) => return Err(self.lose(shard, error)),
            };
            link.waiting_since = (self.fetcher.in_flight(shard) > 0).then(Instant::now);
            match answered {
                Answered::Nothing | Answered::Batches => {}
                Answered::Damaged(range) => self.events.push_back(Event::Damaged(range)),
                Answered::OutOfRange(key, failure) => self.lost_places.push((key, failure)),
                Answered::Refused(failure) => return Err(failure.into()),
            }
            return Ok(true);
        }
        Ok(false)
    }

    /// Finds new places for queues whose offset was gone.
    async fn move_on(&mut self) -> Result<(), ClientError> {
        while let Some((key, failure)) = self.lost_places.last().cloned() {
            let place = match self.options.out_of_range {
                OutOfRange::First => OffsetPlace::First,
                OutOfRange::Last => OffsetPlace::Last,
                OutOfRange::Fail => return Err(failure.into()),
            };
            let to = self.client.find_offset(key, place).await?;
            let from = self.fetcher.delivered(key).unwrap_or(to);
            self.fetcher.seek(key, to);
            self.events.push_back(Event::Moved { queue: self.name(key), from, to });
            self.lost_places.pop();
        }
        Ok(())
    }

    /// Waits for an answer, or for something to be done without one.
    async fn wait(&mut self) -> Result<(), ClientError> {
        if !self.events.is_empty() {
            return Ok(());
        }
        let patience = self.options.fetch_wait + self.client.timeouts().request;
        let waiting: Vec<usize> =
            (0..self.links.len()).filter(|&shard| self.fetcher.in_flight(shard) > 0).collect();
        let answer_due = waiting.iter().filter_map(|&shard| self.links[shard].waiting_since).min();
        let pause = self.fetcher.next_deadline().map(Instant::from_std);
        let due = answer_due.map(|since| since + patience).into_iter().chain(pause).min();
        let connections: Vec<&AsyncConnection> =
            waiting.iter().filter_map(|&shard| self.links[shard].connection.as_ref()).collect();
        let deadline = due.unwrap_or_else(|| Instant::now() + patience);
        if any_readable(&connections, deadline).await {
            return Ok(());
        }
        let now = Instant::now();
        for shard in waiting {
            let link = &self.links[shard];
            let overdue = link.waiting_since.is_some_and(|since| now >= since + patience);
            if let (true, Some(connection)) = (overdue, &link.connection) {
                let address = connection.address().to_owned();
                return Err(self.lose(shard, ClientError::Timeout { address, waited: patience }));
            }
        }
        Ok(())
    }

    fn name(&self, key: QueueKey) -> QueueName {
        QueueName { topic: self.topic.clone(), queue: key.queue }
    }

    /// Ends a connection: its queues are read again from where the caller has got to.
    fn lose(&mut self, shard: usize, error: ClientError) -> ClientError {
        self.links[shard] = Link::default();
        self.fetcher.lost(shard);
        error
    }
}
