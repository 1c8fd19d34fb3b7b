//! The requests of a consumer other than fetches: joining its group, finding where to start, committing. No I/O.

use std::time::Instant;

use crate::api::{Assignment, CommitOffset, Failure, OffsetSpec, Reply, Request, RouteInfo, Status};
use crate::types::{QueueKey, QueueNumber, QueueOffset, TopicName};

use super::error::ClientError;
use super::membership::Membership;
use super::options::{OutOfRange, ROUTE_INTERVAL, Start, Until};
use super::reading::Reader;

/// Requests, each with the queue to whose shard it goes; without one it goes to any. The driver gives the answers, in the
/// order of the requests, to [`Reader::called`].
pub(super) struct Call {
    purpose: Purpose,
    pub(super) requests: Vec<(Option<QueueNumber>, Request)>,
}

enum Purpose {
    Join,
    /// The numbers of the group's topics.
    Topics(Vec<TopicName>),
    /// A topic that may have got queues.
    Route,
    FindStart(Vec<QueueKey>),
    Move(QueueKey),
    Commit(Vec<(QueueKey, QueueOffset)>),
}

/// Where the reading of a queue begins.
struct StartOffset {
    key: QueueKey,
    /// Where the group's offset is, if it has one.
    committed: Option<QueueOffset>,
    from: QueueOffset,
    /// Where reading ends, if it does.
    stop_at: Option<QueueOffset>,
}

/// An answer to each request of a call.
type Answers = Vec<Result<Reply, Failure>>;

impl Call {
    pub(super) fn next(reader: &Reader, now: Instant) -> Option<Self> {
        if reader.topics_are_stale {
            return reader.membership.as_ref().map(Self::topics);
        }
        if reader.is_join_due(now) {
            return reader.membership.as_ref().map(Self::join);
        }
        if let Some(whole) = reader.whole.as_ref().filter(|whole| whole.due <= now) {
            let requests = vec![(None, Request::Route(Some(whole.topic.clone())))];
            return Some(Self { purpose: Purpose::Route, requests });
        }
        if !reader.unplaced.is_empty() {
            return Some(Self::find_start(reader));
        }
        let key = *reader.misplaced.last()?;
        let spec = match reader.options.out_of_range {
            OutOfRange::Last => OffsetSpec::Last,
            OutOfRange::First | OutOfRange::Fail => OffsetSpec::First,
        };
        let requests = vec![(Some(key.queue), Request::FindOffset { key, spec })];
        Some(Self { purpose: Purpose::Move(key), requests })
    }

    /// Whether a member's session is bound to the connection over which this is carried out.
    pub(super) fn is_join(&self) -> bool {
        matches!(self.purpose, Purpose::Join)
    }

    fn topics(membership: &Membership) -> Self {
        let topics = membership.topics().to_vec();
        let requests = topics.iter().map(|topic| (None, Request::Route(Some(topic.clone())))).collect();
        Self { purpose: Purpose::Topics(topics), requests }
    }

    fn join(membership: &Membership) -> Self {
        let request = Request::JoinGroup(membership.request());
        Self { purpose: Purpose::Join, requests: vec![(None, request)] }
    }

    /// Where to start, and where to stop, in queues that are new.
    fn find_start(reader: &Reader) -> Self {
        let keys = reader.unplaced.clone();
        let start = |key: QueueKey| match reader.start_of(key) {
            Start::Offset(_) => None,
            Start::First => Some(OffsetSpec::First),
            Start::Last => Some(OffsetSpec::Last),
            Start::Time(time) => Some(OffsetSpec::Time(time)),
            Start::Ago(span) => Some(OffsetSpec::Ago(span)),
        };
        let stop = match reader.options.until {
            Until::Forever => None,
            Until::End => Some(OffsetSpec::Last),
            Until::Time(time) => Some(OffsetSpec::Time(time)),
            Until::Ago(span) => Some(OffsetSpec::Ago(span)),
        };
        let mut requests = Vec::new();
        for &key in &keys {
            let committed = reader.group.iter().map(|group| {
                let group = group.clone();
                Request::CommittedOffset { group, key }
            });
            let found =
                [start(key), stop].into_iter().flatten().map(|spec| Request::FindOffset { key, spec });
            requests.extend(committed.chain(found).map(|request| (Some(key.queue), request)));
        }
        Self { purpose: Purpose::FindStart(keys), requests }
    }
}

impl Reader {
    /// What became of a call. An error is the caller's to hear; what was to be asked is asked again.
    pub(super) fn called(
        &mut self,
        call: Call,
        outcome: Result<Answers, ClientError>,
        now: Instant,
    ) -> Result<(), ClientError> {
        if matches!(call.purpose, Purpose::Join)
            && let Some(membership) = &mut self.membership
        {
            // The next attempt, if this one comes to nothing.
            membership.failed(now);
        }
        if outcome.as_ref().is_err_and(ClientError::is_connection_loss) {
            self.calls_lost();
        }
        if let (Purpose::Route, Some(whole)) = (&call.purpose, &mut self.whole) {
            whole.due = now + ROUTE_INTERVAL;
            // When the broker is lost, the fetches' own connections say so.
            if let Some(Ok(Reply::Route(RouteInfo { topic: Some(info), .. }))) =
                outcome.ok().and_then(|answers| answers.into_iter().next())
            {
                self.route_found(&info);
            }
            return Ok(());
        }
        let answers = outcome?;
        match call.purpose {
            Purpose::Route => Ok(()),
            Purpose::Join => self.joined(answers, now),
            Purpose::Topics(topics) => {
                self.topics_found(topics, answers);
                Ok(())
            }
            Purpose::FindStart(keys) => self.start_found(keys, answers),
            Purpose::Move(key) => {
                self.misplaced.retain(|&other| other != key);
                let found = Answer(answers.into_iter()).offset();
                let to = found.inspect_err(|_| self.fetcher.again(key))?;
                self.moved(key, to);
                Ok(())
            }
            Purpose::Commit(offsets) => self.commits_answered(offsets, answers, now),
        }
    }

    fn joined(&mut self, answers: Answers, now: Instant) -> Result<(), ClientError> {
        match Answer(answers.into_iter()).next() {
            Ok(Reply::Assignment(assignment)) => self.assigned(&assignment, now),
            Ok(other) => return Err(unexpected(&other)),
            Err(failure) if failure.status.ends_session() => self.expire(now),
            Err(failure) => return Err(failure.into()),
        }
        Ok(())
    }

    /// A topic that was deleted and made again has another number, which is asked for before the assignment is.
    fn assigned(&mut self, assignment: &Assignment, now: Instant) {
        let is_known = |key: &QueueKey| self.topics.contains_key(&key.topic);
        if !assignment.queues.iter().all(is_known) && !self.topics_were_asked {
            self.topics_are_stale = true;
            return;
        }
        self.topics_were_asked = false;
        if let Some(membership) = &mut self.membership {
            let change = membership.assigned(assignment, now);
            self.fetcher.session = membership.session();
            self.rebalance(change);
        }
    }

    fn topics_found(&mut self, topics: Vec<TopicName>, answers: Answers) {
        for (topic, answer) in topics.into_iter().zip(answers) {
            // One that is gone has no queues in the next assignment.
            if let Ok(Reply::Route(route)) = answer
                && let Some(info) = route.topic
            {
                self.topics.insert(info.id, topic);
            }
        }
        (self.topics_are_stale, self.topics_were_asked) = (false, true);
        if let Some(membership) = &mut self.membership {
            membership.ask_again();
        }
    }

    /// Refuses an offset after the end of every queue, where out of range is to fail: such queues are at their end before
    /// anything is fetched, and the broker is not asked.
    fn check_start(&self, starts: &[StartOffset]) -> Result<(), Failure> {
        let Start::Offset(start) = self.options.start else { return Ok(()) };
        let is_beyond = |queue: &StartOffset| {
            queue.committed.is_none() && queue.stop_at.is_some_and(|end| queue.from > end)
        };
        let ends_there = self.options.until == Until::End;
        if self.options.out_of_range != OutOfRange::Fail || !ends_there || !starts.iter().all(is_beyond) {
            return Ok(());
        }
        let longest = starts.iter().filter_map(|queue| Some((queue.stop_at?, queue.key))).max();
        let Some((end, key)) = longest else { return Ok(()) };
        let topic = self.topics.get(&key.topic).map_or_else(|| key.topic.to_string(), TopicName::to_string);
        let message =
            format!("offset {start} is after the end {end} of queue {} of topic {topic}", key.queue);
        Err(Failure::new(Status::OffsetOutOfRange, message))
    }

    fn start_found(&mut self, keys: Vec<QueueKey>, answers: Answers) -> Result<(), ClientError> {
        let mut answers = Answer(answers.into_iter());
        let mut starts = Vec::with_capacity(keys.len());
        for key in keys {
            let committed = match &self.group {
                Some(_) => answers.committed()?,
                None => None,
            };
            let start = match self.start_of(key) {
                Start::Offset(offset) => offset,
                Start::First | Start::Last | Start::Time(_) | Start::Ago(_) => answers.offset()?,
            };
            let stop_at = match self.options.until {
                Until::Forever => None,
                Until::End | Until::Time(_) | Until::Ago(_) => Some(answers.offset()?),
            };
            starts.push(StartOffset { key, committed, from: committed.unwrap_or(start), stop_at });
        }
        self.check_start(&starts)?;
        self.unplaced.clear();
        for StartOffset { key, committed, from, stop_at } in starts {
            let Some(topic) = self.topics.get(&key.topic) else { continue };
            if let Some(offset) = committed {
                self.committed.insert(key, offset);
            }
            self.fetcher.add(key, topic.clone(), from, stop_at);
        }
        Ok(())
    }

    /// What is to be stored for the group; `None` when that is stored already. `before` is where a queue goes on, if that
    /// is not after the last message that was delivered: the caller has not handled all of a batch.
    pub(super) fn commit(&self, before: Option<(QueueKey, QueueOffset)>) -> Result<Option<Call>, Failure> {
        let Some(group) = &self.group else {
            return Err(Failure::invalid("this consumer has no group to commit for"));
        };
        let handled = |key| match before {
            Some((partly, offset)) if partly == key => Some(offset),
            _ => self.fetcher.delivered(key),
        };
        let delivered = |key| handled(key).map(|offset| (key, offset));
        let mut offsets: Vec<_> = self.fetcher.keys().into_iter().filter_map(delivered).collect();
        offsets.retain(|(key, offset)| self.committed.get(key) != Some(offset));
        let request = |&(key, offset): &(QueueKey, QueueOffset)| {
            let member = self.membership.as_ref().map(Membership::acting);
            let commit = CommitOffset { group: group.clone(), key, offset, member };
            (Some(key.queue), Request::CommitOffset(commit))
        };
        let requests: Vec<_> = offsets.iter().map(request).collect();
        Ok((!requests.is_empty()).then_some(Call { purpose: Purpose::Commit(offsets), requests }))
    }

    fn commits_answered(
        &mut self,
        offsets: Vec<(QueueKey, QueueOffset)>,
        answers: Answers,
        now: Instant,
    ) -> Result<(), ClientError> {
        let mut first_failure = None;
        for ((key, offset), answer) in offsets.into_iter().zip(answers) {
            match answer {
                Ok(_) => {
                    self.committed.insert(key, offset);
                }
                Err(failure) => first_failure = first_failure.or(Some(failure)),
            }
        }
        let Some(failure) = first_failure else { return Ok(()) };
        if failure.status.ends_session() {
            self.expire(now);
        }
        Err(failure.into())
    }

    /// The request that ends this member's session at once.
    pub(super) fn leave(&self) -> Option<Request> {
        let membership = self.membership.as_ref()?;
        let (group, member) = (membership.group().clone(), membership.member().to_owned());
        Some(Request::LeaveGroup { group, member })
    }
}

/// What became of leaving: a session that has ended is none to be ended.
pub(super) fn left(outcome: Result<Reply, ClientError>) -> Result<(), ClientError> {
    match outcome {
        Ok(_) => Ok(()),
        Err(ClientError::Refused(failure)) if failure.status == Status::MemberUnknown => Ok(()),
        Err(error) => Err(error),
    }
}

/// Reads answers one after the other.
struct Answer(std::vec::IntoIter<Result<Reply, Failure>>);

impl Answer {
    fn next(&mut self) -> Result<Reply, Failure> {
        self.0.next().expect("a driver gives an answer to every request")
    }

    fn offset(&mut self) -> Result<QueueOffset, ClientError> {
        match self.next()? {
            Reply::OffsetFound(offset) => Ok(offset),
            other => Err(unexpected(&other)),
        }
    }

    fn committed(&mut self) -> Result<Option<QueueOffset>, ClientError> {
        match self.next() {
            Ok(Reply::Offset(offset)) => Ok(offset),
            Err(failure) if failure.status == Status::GroupNotExist => Ok(None),
            Err(failure) => Err(failure.into()),
            Ok(other) => Err(unexpected(&other)),
        }
    }
}

fn unexpected(reply: &Reply) -> ClientError {
    Failure::new(Status::Internal, format!("the broker gave an answer of another kind: {reply:?}")).into()
}
