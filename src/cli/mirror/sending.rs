//! What goes to the target: messages into batches, batches into lanes, and the places that are kept of them.

use std::time::{Duration, Instant};

use super::Shared;
use super::alignment::Aligned;
use super::ends::{End, EndError, Ends, is_refused};
use super::lane::{Lane, Place, Trouble};
use super::outgoing::{Loss, Outcome, Outgoing};
use super::topic::{Found, MirroredTopic};
use crate::api::{CommitOffset, Failure, Request, Status};
use crate::cli::error::CommandError;
use crate::cli::offset_argument::OffsetArgument;
use crate::client::{Client, ClientError, MessageBatch, ReceivedMessage};
use crate::types::{GroupName, QueueKey, QueueNumber, QueueOffset};
use crate::wire::batch::BatchBuilder;
use crate::wire::record::Record;

/// Bytes at which a batch leaves; smaller ones of the source are put together.
const BATCH_BYTES: usize = 256 * 1024;
/// How long answers are waited for before something else is looked at.
pub const IDLE: Duration = Duration::from_millis(100);
/// A refusal that goes on for longer is told.
const ROUTINE_MAX: Duration = Duration::from_secs(5);
/// Between places that are kept.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Places are kept again, though they are the same, so that neither broker forgets a group that nobody uses.
const KEEP_AGAIN_INTERVAL: Duration = Duration::from_secs(3600);

/// What became of a topic's messages.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Copied by this run.
    pub copied: u64,
    /// Found at the target, where they were copied to before without being counted.
    pub found: u64,
    /// Gone at the source before they were copied.
    pub expired: u64,
    /// Not readable at the source.
    pub damaged: u64,
    /// Refused by the target for what they are, and left out.
    pub left_out: u64,
}

/// A batch that takes messages of one queue.
struct OpenBatch {
    queue: QueueNumber,
    builder: BatchBuilder,
}

/// The target's side of one topic.
pub struct Sender<'a> {
    shared: &'a Shared,
    pub ends: Ends,
    pub topic: MirroredTopic,
    outgoing: Outgoing,
    lanes: Vec<Lane>,
    open: Option<OpenBatch>,
    pub counts: Counts,
    last_keeping: Instant,
    last_keeping_again: Instant,
    /// Since when nothing was acknowledged.
    trouble_since: Option<Instant>,
    trouble_told: bool,
}

impl<'a> Sender<'a> {
    /// Finds each queue's place, and keeps it.
    pub fn begin(shared: &'a Shared, ends: Ends, topic: MirroredTopic) -> Result<Self, CommandError> {
        let client = ends.target.another().map_err(|error| End::Target.failed(error))?;
        let now = Instant::now();
        let mut sender = Self {
            shared,
            ends,
            topic,
            outgoing: Outgoing::new(client),
            lanes: Vec::new(),
            open: None,
            counts: Counts::default(),
            last_keeping: now,
            last_keeping_again: now,
            trouble_since: None,
            trouble_told: false,
        };
        for line in sender.topic.prepare(&mut sender.ends)? {
            shared.tell(&sender.topic.name, &line);
        }
        sender.add_lanes(shared.start)?;
        sender.keep(Keep::All)?;
        Ok(sender)
    }

    /// A lane for each queue of the source that has none.
    fn add_lanes(&mut self, start: OffsetArgument) -> Result<(), CommandError> {
        for queue in self.topic.queues().skip(self.lanes.len()) {
            let found = self.topic.place(&mut self.ends, queue, start, self.shared.existing)?;
            let mut lane = match found {
                Found::New(place) => Lane::new(place, place.target, place),
                Found::Kept(kept) => {
                    let aligned = self.topic.align(&self.ends, queue, kept)?;
                    self.counts.found += aligned.found;
                    let mut lane = Lane::new(aligned.place, aligned.end, kept);
                    if aligned.foreign > 0 {
                        self.tell_shared(queue);
                        lane.is_shared_now();
                    }
                    let existing = self.shared.existing;
                    if let Some(line) = self.topic.check_kept(&self.ends, queue, &aligned, existing)? {
                        self.shared.tell(&self.topic.name, &line);
                    }
                    lane
                }
            };
            if self.outgoing.is_forwarded(queue).map_err(|error| End::Target.failed(error))? {
                lane.goes_one_by_one();
            }
            self.lanes.push(lane);
        }
        Ok(())
    }

    fn tell_shared(&self, queue: QueueNumber) {
        self.shared.tell(
            &self.topic.name,
            &format!(
                "others write to queue {queue} at the target: its copies go one batch at a time, and one whose answer is lost may \
                 be there twice"
            ),
        );
    }

    // ---- Messages ----------------------------------------------------------------------------------------------

    /// Takes the messages of a batch of the source, as long as nothing stands in the way.
    pub fn forward(&mut self, batch: &MessageBatch<'_>) -> Result<(), CommandError> {
        let queue = batch.queue();
        if queue.0 as usize >= self.lanes.len() {
            self.queues_added()?;
        }
        for message in batch.messages() {
            if message.offset < self.lane(queue).taken() {
                continue;
            }
            if !self.take(queue, &message)? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// The source's topic has got queues.
    fn queues_added(&mut self) -> Result<(), CommandError> {
        let name = self.topic.name.clone();
        self.topic = MirroredTopic::look(&mut self.ends, &name)?;
        for line in self.topic.prepare(&mut self.ends)? {
            self.shared.tell(&name, &line);
        }
        self.add_lanes(OffsetArgument::First)?;
        self.keep(Keep::All)
    }

    /// Takes a message into the open batch. False: something went wrong on the way, and the message is not taken.
    fn take(&mut self, queue: QueueNumber, message: &ReceivedMessage<'_>) -> Result<bool, CommandError> {
        let record = Record {
            key: message.key(),
            tag: message.tag(),
            properties: message.properties(),
            body: message.body(),
            born_delta_ms: 0,
            attributes: message.attributes(),
            origin: message.origin(),
        };
        if let Err(fault) = record.check().and_then(|()| record.check_text()) {
            self.leave_out(queue, message, &fault.to_string())?;
            self.lane(queue).take(message.offset);
            return Ok(true);
        }
        let born = message.born_time;
        let delta = |open: &OpenBatch| {
            let delta = i128::from(born.0) - i128::from(open.builder.born_time().0);
            i32::try_from(delta).ok()
        };
        let goes_in = |open: &OpenBatch| {
            open.queue == queue
                && open.builder.fits(&record)
                && open.builder.batch_bytes() + record.encoded_bytes() <= BATCH_BYTES
                && delta(open).is_some()
        };
        if !self.open.as_ref().is_none_or(goes_in) {
            self.send_open()?;
        }
        if self.open.is_none() && !self.make_room(queue)? {
            return Ok(false);
        }
        let open = self.open.get_or_insert_with(|| OpenBatch { queue, builder: BatchBuilder::new(born) });
        let born_delta_ms = delta(open).unwrap_or_default();
        open.builder.push(&Record { born_delta_ms, ..record });
        self.lane(queue).take(message.offset);
        Ok(true)
    }

    fn leave_out(
        &mut self,
        queue: QueueNumber,
        message: &ReceivedMessage<'_>,
        fault: &str,
    ) -> Result<(), CommandError> {
        let place = format!("message {} of queue {queue} of topic {}", message.offset, self.topic.name);
        if !self.shared.leave_out {
            return Err(CommandError::failed(format!(
                "{place} cannot be copied: {fault}. With --leave-out such messages are left out"
            )));
        }
        self.counts.left_out += 1;
        self.shared.tell(&self.topic.name, &format!("{place} is left out: {fault}"));
        Ok(())
    }

    /// Waits until a batch of a queue may leave. False: something went wrong, or the command is to stop.
    fn make_room(&mut self, queue: QueueNumber) -> Result<bool, CommandError> {
        loop {
            if self.has_trouble() || self.shared.is_stopped() {
                return Ok(false);
            }
            self.keep_if_due()?;
            if self.lane(queue).has_room() && self.outgoing.has_room(queue) {
                return Ok(true);
            }
            self.take_answers(IDLE)?;
        }
    }

    /// Sends the batch that has been filling.
    pub fn send_open(&mut self) -> Result<(), CommandError> {
        let Some(OpenBatch { queue, builder }) = self.open.take() else { return Ok(()) };
        let messages = u64::from(builder.record_count());
        let batch = builder.finish();
        let key = self.target_key(queue);
        let at = self.lane(queue).at();
        match self.outgoing.send(key, at, &batch) {
            Ok(number) => {
                self.lane(queue).sent(number, messages, batch.len() as u64);
                self.shared.note_sent(messages);
                Ok(())
            }
            Err(error) => {
                self.lane(queue).not_sent();
                let shard = self.outgoing.shard(queue);
                self.lost(Loss { shard, error })
            }
        }
    }

    // ---- Answers -----------------------------------------------------------------------------------------------

    /// Takes the answers that have come; waits for one so long at most.
    pub fn take_answers(&mut self, wait: Duration) -> Result<(), CommandError> {
        let mut wait = wait;
        loop {
            match self.outgoing.next(wait) {
                Ok(Some(outcome)) => self.answered(outcome)?,
                Ok(None) => return Ok(()),
                Err(loss) => self.lost(loss)?,
            }
            wait = Duration::ZERO;
        }
    }

    fn answered(&mut self, outcome: Outcome) -> Result<(), CommandError> {
        let Outcome { queue, number, answer } = outcome;
        let failure = match answer {
            Ok(produced) => {
                let (messages, bytes) = self.lane(queue).stored(number, produced.base_offset);
                self.counts.copied += messages;
                self.shared.note_copied(messages, bytes);
                (self.trouble_since, self.trouble_told) = (None, false);
                return Ok(());
            }
            Err(failure) => failure,
        };
        match failure.status {
            // One before it is not stored, or others write there.
            Status::OffsetOutOfRange => self.lane(queue).refused(number, Trouble::Align),
            Status::OutcomeUnknown | Status::Internal => self.lane(queue).unknown(number),
            Status::Busy | Status::NoSpace | Status::ShuttingDown | Status::StorageFailed => {
                self.lane(queue).refused(number, Trouble::Again);
            }
            Status::TopicNotExist | Status::QueueNotExist => return Err(self.topic_gone(&failure)),
            _ => return Err(End::Target.failed(ClientError::Refused(failure))),
        }
        self.note_trouble(EndError::target(ClientError::Refused(failure)))
    }

    fn topic_gone(&self, failure: &Failure) -> CommandError {
        CommandError::failed(format!(
            "topic {} was deleted at the target while it was mirrored ({}). To copy it anew, forget the places of all topics of \
             this mirror with `turbopump group delete {}` at the source, and begin again",
            self.topic.name,
            failure.message,
            self.ends.source_group()
        ))
    }

    fn lost(&mut self, loss: Loss) -> Result<(), CommandError> {
        for (index, lane) in self.lanes.iter_mut().enumerate() {
            if self.outgoing.shard(QueueNumber(index as u32)) == loss.shard {
                lane.lose();
            }
        }
        self.outgoing.give_up(loss.shard);
        let failed = EndError::target(loss.error);
        if failed.is_passing() { self.note_trouble(failed) } else { Err(failed.into()) }
    }

    /// Something went wrong that may pass; an error once it has not for too long.
    fn note_trouble(&mut self, failed: EndError) -> Result<(), CommandError> {
        let since = *self.trouble_since.get_or_insert_with(Instant::now);
        // It is over as soon as the target was looked at, unless it is not.
        let is_routine = is_refused(&failed.error, Status::OffsetOutOfRange) && since.elapsed() < ROUTINE_MAX;
        let error = CommandError::from(failed);
        if self.shared.retry_for.is_some_and(|patience| since.elapsed() >= patience) {
            return Err(error);
        }
        if !is_routine && !std::mem::replace(&mut self.trouble_told, true) {
            self.shared.tell(&self.topic.name, &format!("{error}; {}", self.shared.patience()));
        }
        Ok(())
    }

    // ---- After trouble -----------------------------------------------------------------------------------------

    pub fn has_trouble(&self) -> bool {
        self.lanes.iter().any(|lane| lane.trouble().is_some())
    }

    /// Whether a batch is filling or on its way.
    pub fn is_busy(&self) -> bool {
        self.open.is_some() || !self.outgoing.is_idle()
    }

    /// Whether an answer is to come.
    pub fn is_on_its_way(&self) -> bool {
        !self.outgoing.is_idle()
    }

    /// Has every lane go on from where it was acknowledged, once nothing is on its way. Returns where the source is to be read on;
    /// `None`: it is to be tried again.
    pub fn recover(&mut self) -> Result<Option<Vec<(QueueKey, QueueOffset)>>, CommandError> {
        self.open = None;
        if !self.outgoing.is_idle() {
            self.take_answers(IDLE)?;
            return Ok(None);
        }
        self.shared.pause(if self.trouble_told { super::PAUSE } else { Duration::ZERO });
        let mut places = Vec::new();
        for index in 0..self.lanes.len() {
            let queue = QueueNumber(index as u32);
            let taken = self.lanes[index].taken();
            match self.lanes[index].trouble() {
                Some(Trouble::Align) => {
                    match self.topic.align(&self.ends, queue, self.lanes[index].acknowledged()) {
                        Ok(aligned) => self.aligned(queue, aligned)?,
                        Err(failed) if failed.is_passing() => {
                            self.note_trouble(failed)?;
                            return Ok(None);
                        }
                        Err(failed) => return Err(failed.into()),
                    }
                }
                Some(Trouble::Again) | None => self.lanes[index].go_back(),
            }
            if self.lanes[index].taken() != taken {
                places.push((self.topic.source_key(queue), self.lanes[index].taken()));
            }
        }
        Ok(Some(places))
    }

    fn aligned(&mut self, queue: QueueNumber, aligned: Aligned) -> Result<(), CommandError> {
        if aligned.end < aligned.place.target {
            return Err(CommandError::failed(format!(
                "queue {queue} of topic {} ends at {} at the target, and was copied up to {}: the target has lost messages that it \
                 had said are durable, or the topic was made anew",
                self.topic.name, aligned.end, aligned.place.target
            )));
        }
        if aligned.found > 0 && !self.lane(queue).was_lost() {
            return Err(CommandError::failed(format!(
                "another `mirror` copies topic {} between these brokers as well: end one of the two",
                self.topic.name
            )));
        }
        self.counts.found += aligned.found;
        self.lane(queue).go_on(aligned.place, aligned.end);
        if aligned.foreign > 0 && self.lane(queue).is_shared_now() {
            self.tell_shared(queue);
        }
        Ok(())
    }

    // ---- Places ------------------------------------------------------------------------------------------------

    /// Has both brokers keep how far the queues are, if it is time. One that is away is tried again later.
    pub fn keep_if_due(&mut self) -> Result<(), CommandError> {
        let is_time = self.last_keeping.elapsed() >= KEEP_INTERVAL;
        if !is_time && !self.lanes.iter().any(Lane::is_keeping_due) {
            return Ok(());
        }
        self.last_keeping = Instant::now();
        let is_again = self.last_keeping_again.elapsed() >= KEEP_AGAIN_INTERVAL;
        if is_again {
            self.last_keeping_again = Instant::now();
        }
        match self.try_keep(if is_again { Keep::All } else { Keep::Moved }) {
            Err(failed) if failed.is_passing() => self.note_trouble(failed),
            kept => Ok(kept?),
        }
    }

    /// Has both brokers keep how far the queues are, now.
    pub fn keep(&mut self, which: Keep) -> Result<(), CommandError> {
        Ok(self.try_keep(which)?)
    }

    /// First the target, then the source: see `alignment`.
    fn try_keep(&mut self, which: Keep) -> Result<(), EndError> {
        let place_of = |lane: &Lane| match which {
            Keep::Moved => lane.unkept(),
            Keep::All => Some(lane.acknowledged()),
        };
        let due = self.lanes.iter().enumerate();
        let due: Vec<(QueueNumber, Place)> =
            due.filter_map(|(index, lane)| Some((QueueNumber(index as u32), place_of(lane)?))).collect();
        let (source_group, target_group) = (self.ends.source_group(), self.ends.target_group());
        let at_target = due.iter().map(|(queue, place)| (self.target_key(*queue), place.target));
        let at_target = commits(&target_group, at_target);
        let at_source = due.iter().map(|(queue, place)| (self.topic.source_key(*queue), place.source));
        let at_source = commits(&source_group, at_source);
        commit(&mut self.ends.target, &at_target).map_err(EndError::target)?;
        commit(&mut self.ends.source, &at_source).map_err(EndError::source)?;
        for (queue, place) in due {
            self.lane(queue).keep(place);
        }
        Ok(())
    }

    fn lane(&mut self, queue: QueueNumber) -> &mut Lane {
        &mut self.lanes[queue.0 as usize]
    }

    fn target_key(&self, queue: QueueNumber) -> QueueKey {
        self.topic.target_key(queue).expect("the target has as many queues as there are lanes")
    }
}

/// Which places are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// Those that are others than before.
    Moved,
    All,
}

type Requests = Vec<(Option<QueueNumber>, Request)>;

fn commits(group: &GroupName, places: impl Iterator<Item = (QueueKey, QueueOffset)>) -> Requests {
    let request = |(key, offset): (QueueKey, QueueOffset)| {
        let commit = CommitOffset { group: group.clone(), key, offset, member: None };
        (Some(key.queue), Request::CommitOffset(commit))
    };
    places.map(request).collect()
}

fn commit(client: &mut Client, requests: &Requests) -> Result<(), ClientError> {
    if requests.is_empty() {
        return Ok(());
    }
    for answer in client.call_each(requests)? {
        answer?;
    }
    Ok(())
}
