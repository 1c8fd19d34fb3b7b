//! A topic of a mirror before anything is copied: it is made at the target where it is missing, with what it is at the source, and
//! each queue's place is found.

use super::alignment::{self, Aligned, align};
use super::ends::{End, EndError, Ends, is_refused};
use super::lane::Place;
use crate::api::{OffsetSpec, Status, TopicChange, TopicInfo};
use crate::cli::error::CommandError;
use crate::cli::offset_argument::{OffsetArgument, SentOffsetSpec};
use crate::types::{QueueKey, QueueNumber, QueueOffset, TopicName};

/// A topic at both brokers.
pub struct MirroredTopic {
    pub name: TopicName,
    pub source: TopicInfo,
    /// `None`: it is to be made.
    pub target: Option<TopicInfo>,
}

/// What is to be done with a topic that has messages at the target of which this mirror knows nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    Refuse,
    /// The copies come behind them.
    Append,
}

/// The places that are kept of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kept {
    source: Option<QueueOffset>,
    target: Option<QueueOffset>,
}

/// A place for a queue, as it is kept or as it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    Kept(Place),
    New(Place),
}

impl MirroredTopic {
    /// Looks at both brokers, and changes nothing.
    pub fn look(ends: &mut Ends, name: &TopicName) -> Result<Self, CommandError> {
        let source = ends.source.describe_topic(name).map_err(|error| End::Source.failed(error))?;
        let target = match ends.target.describe_topic(name) {
            Ok(info) => Some(info),
            Err(error) if is_refused(&error, Status::TopicNotExist) => None,
            Err(error) => return Err(End::Target.failed(error)),
        };
        let topic = Self { name: name.clone(), source, target };
        topic.check_direction(ends)?;
        Ok(topic)
    }

    /// A topic that the target copies to the source would go round for ever.
    fn check_direction(&self, ends: &mut Ends) -> Result<(), CommandError> {
        let Some(target) = &self.target else { return Ok(()) };
        let group = ends.backward_group();
        for queue in 0..target.queue_count {
            let key = QueueKey { topic: target.id, queue: QueueNumber(queue) };
            let place = match ends.target.committed_offset(&group, key) {
                Err(error) if is_refused(&error, Status::GroupNotExist) => None,
                place => place.map_err(|error| End::Target.failed(error))?,
            };
            if place.is_some() {
                return Err(CommandError::failed(format!(
                    "topic {} is mirrored the other way, from the broker to copy to: its messages would go round for ever. \
                     If that is over, `turbopump group delete {group}` there ends it",
                    self.name
                )));
            }
        }
        Ok(())
    }

    /// Has the topic at the target with at least as many queues as at the source. Returns what there is to tell.
    pub fn prepare(&mut self, ends: &mut Ends) -> Result<Vec<String>, CommandError> {
        let mut told = Vec::new();
        let (name, source) = (&self.name, &self.source);
        let change = TopicChange {
            topic: name.clone(),
            queues: Some(source.queue_count),
            retention: None,
            level: None,
        };
        match &self.target {
            None => {
                let (retention, level) = (Some(source.retention), source.level);
                let change = TopicChange { retention, level, ..change };
                ends.target.create_topic(change).map_err(|error| End::Target.failed(error))?;
                told.push(format!("made topic {name} with {} queues", source.queue_count));
            }
            Some(target) => {
                if target.queue_count < source.queue_count {
                    ends.target.alter_topic(change).map_err(|error| End::Target.failed(error))?;
                    let (before, now) = (target.queue_count, source.queue_count);
                    told.push(format!("topic {name} has {now} queues at the target, where it had {before}"));
                }
                if (target.retention, target.level) != (source.retention, source.level) {
                    told.push(format!(
                        "topic {name} has another retention or level at the target, which stays as it is"
                    ));
                }
            }
        }
        if self.source.permission != self.target.as_ref().map_or(6, |target| target.permission) {
            told.push(format!(
                "topic {name} has another permission at the source: `turbopump mqadmin updateTopicPerm` sets it"
            ));
        }
        self.target = Some(ends.target.describe_topic(name).map_err(|error| End::Target.failed(error))?);
        Ok(told)
    }

    /// Where copying of a queue begins, or goes on.
    pub fn place(
        &self,
        ends: &mut Ends,
        queue: QueueNumber,
        start: OffsetArgument,
        existing: Existing,
    ) -> Result<Found, CommandError> {
        let kept = self.kept(ends, queue)?;
        let end = self.target_end(queue);
        match (kept.source, kept.target) {
            (Some(source), Some(target)) if target > end => Err(CommandError::failed(format!(
                "queue {queue} of topic {} ends at {end} at the target, and was copied up to {target}, which is message {source} of \
                 the source: the target has lost messages, or the topic was made anew. {}",
                self.name,
                self.anew(ends)
            ))),
            (Some(source), Some(target)) => Ok(Found::Kept(Place { source, target })),
            // The source has forgotten. The target's last copy is looked for from its end on back.
            (None, Some(target)) if target > QueueOffset::ZERO && target <= end => {
                Ok(Found::Kept(Place { source: self.source_end(queue), target }))
            }
            (Some(source), None) if end.0 > 0 || source > self.source_first(queue) => {
                Err(CommandError::failed(format!(
                    "queue {queue} of topic {} was copied up to message {source}, and the target no longer knows up to where \
                     that is there: was the topic made anew? {}",
                    self.name,
                    self.anew(ends)
                )))
            }
            _ if end.0 > 0 && existing == Existing::Refuse => Err(CommandError::failed(format!(
                "queue {queue} of topic {} has had {end} messages at the target, and none of them by this mirror: delete the topic \
                 there, or give --append to have the copies behind them",
                self.name
            ))),
            _ => {
                let source = self.begin(ends, queue, start)?;
                Ok(Found::New(Place { source, target: end }))
            }
        }
    }

    fn anew(&self, ends: &Ends) -> String {
        format!(
            "To copy it anew, delete it at the target, and have the source forget how far this mirror's topics are with `turbopump \
             group delete {}`: the others go on by what the target has of them",
            ends.source_group()
        )
    }

    /// What the two brokers keep.
    fn kept(&self, ends: &mut Ends, queue: QueueNumber) -> Result<Kept, CommandError> {
        let (source_group, target_group) = (ends.source_group(), ends.target_group());
        let source = ends.source.committed_offset(&source_group, self.source_key(queue));
        let target = match self.target_key(queue) {
            Some(key) => ends.target.committed_offset(&target_group, key),
            None => Ok(None),
        };
        let known = |end: End, place| match place {
            Err(error) if is_refused(&error, Status::GroupNotExist) => Ok(None),
            place => place.map_err(|error| end.failed(CommandError::from(error))),
        };
        Ok(Kept { source: known(End::Source, source)?, target: known(End::Target, target)? })
    }

    fn begin(
        &self,
        ends: &mut Ends,
        queue: QueueNumber,
        start: OffsetArgument,
    ) -> Result<QueueOffset, CommandError> {
        let spec = match start.sent() {
            SentOffsetSpec::Offset(offset) => return Ok(offset),
            SentOffsetSpec::Asked(OffsetSpec::First) => return Ok(self.source_first(queue)),
            SentOffsetSpec::Asked(spec) => spec,
        };
        let found = ends.source.find_offset(self.source_key(queue), spec);
        found.map_err(|error| End::Source.failed(error))
    }

    /// What is to be said of places that were found not to be what was kept. Nothing is copied where that is not known, unless
    /// the copies may come behind whatever is there.
    pub fn check_kept(
        &self,
        ends: &Ends,
        queue: QueueNumber,
        aligned: &Aligned,
        existing: Existing,
    ) -> Result<Option<String>, CommandError> {
        let Place { source, target } = aligned.place;
        match aligned.kept {
            alignment::Kept::Together => Ok(None),
            alignment::Kept::TargetBehind => Ok(Some(format!(
                "queue {queue} at the target was copied up to message {source} of the source, which is less than the source knows: \
                 the target was brought back to an earlier state, or the source was told to forget; going on from there"
            ))),
            alignment::Kept::SourceBehind => Ok(Some(format!(
                "the source was brought back to an earlier state: what was written to its queue {queue} since, from message {source} \
                 on, comes behind what the target has"
            ))),
            alignment::Kept::Unknown if existing == Existing::Append => Ok(Some(format!(
                "what was copied last of queue {queue} is not what the target has there: going on from message {source}; some \
                 messages may be there twice or, if the target was brought back to an earlier state, missing"
            ))),
            alignment::Kept::Unknown => Err(CommandError::failed(format!(
                "what is before message {target} of queue {queue} of topic {} at the target is not what was copied up to message \
                 {source} of the source, nor is it found there: was one of them brought back to an earlier state? {}; --append goes \
                 on from message {source} all the same",
                self.name,
                self.anew(ends)
            ))),
        }
    }

    /// Finds out how far a queue was copied, beginning with what is kept.
    pub fn align(&self, ends: &Ends, queue: QueueNumber, kept: Place) -> Result<Aligned, EndError> {
        align(ends, &self.name, queue, kept)
    }

    /// Messages of a queue from an offset on, as of when it was looked at.
    pub fn left(&self, queue: QueueNumber, from: QueueOffset) -> u64 {
        self.source_end(queue).0.saturating_sub(from.max(self.source_first(queue)).0)
    }

    pub fn queues(&self) -> impl Iterator<Item = QueueNumber> + use<> {
        (0..self.source.queue_count).map(QueueNumber)
    }

    pub fn source_key(&self, queue: QueueNumber) -> QueueKey {
        QueueKey { topic: self.source.id, queue }
    }

    pub fn target_key(&self, queue: QueueNumber) -> Option<QueueKey> {
        let target = self.target.as_ref().filter(|target| queue.0 < target.queue_count)?;
        Some(QueueKey { topic: target.id, queue })
    }

    fn source_first(&self, queue: QueueNumber) -> QueueOffset {
        bounds(Some(&self.source), queue).0
    }

    fn source_end(&self, queue: QueueNumber) -> QueueOffset {
        bounds(Some(&self.source), queue).1
    }

    fn target_end(&self, queue: QueueNumber) -> QueueOffset {
        bounds(self.target.as_ref(), queue).1
    }
}

/// The first offset of a queue and its end; nothing where it is not there.
fn bounds(topic: Option<&TopicInfo>, queue: QueueNumber) -> (QueueOffset, QueueOffset) {
    let queues = topic.map(|topic| &topic.queues[..]).unwrap_or_default();
    let found = queues.iter().find(|info| info.queue == queue);
    found.map_or((QueueOffset::ZERO, QueueOffset::ZERO), |info| (info.first_offset, info.end_offset))
}
