//! Requests of clients: who carries them out, and those about offsets.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;

use super::groups::Gate;
use super::groups::HolderCheck;
use super::peers::{PeerReply, PeerRequest};
use super::readers::Coming;
use super::recipient::{AnyRecipient, Recipient};
use super::shard_broker::Broker;
use super::writer::PlaceRefusal;
use crate::api::{CommitOffset, Failure, Produce, ProduceCopies, QueueInfo, Redrive, Reply, Request, Status};
use crate::disk::Disk;
use crate::limits;
use crate::log::Placement;
use crate::state::{Change, LeaseChange, QueueLeases};
use crate::types::{GroupName, Level, QueueKey, QueueOffset, ShardId, TopicName};

/// The shard that makes changes of topics and keeps the groups' members.
pub(super) const CONTROL_SHARD: ShardId = ShardId(0);

/// An answer of less takes no room of its own.
const SMALL_ANSWER_BYTES: usize = 16 * 1024;
/// A name in a list, as a value and in its answer.
const LISTED_BYTES: usize = 512;
/// Counters and histograms of one shard, likewise.
const SHARD_INFO_BYTES: usize = 16 * 1024;
/// Distributions of one shard for each kind of request and each stage.
const MEASURED_BYTES: usize = limits::MEASURED_KINDS_MAX * 10 * 16 * 1024;

impl<D: Disk> Broker<D> {
    /// The shard that carries a request out.
    pub fn owner(&self, request: &Request) -> ShardId {
        let shard_count = self.options.shard_count;
        match request {
            Request::Produce(Produce { key, .. })
            | Request::ProduceCopies(ProduceCopies { produce: Produce { key, .. }, .. })
            | Request::FindOffset { key, .. }
            | Request::CommitOffset(CommitOffset { key, .. })
            | Request::CommittedOffset { key, .. } => key.queue.shard(shard_count),
            Request::Redrive(Redrive { queue, .. }) | Request::RedrivenRanges { queue, .. } => {
                queue.shard(shard_count)
            }
            Request::Fetch(fetch) => fetch.key.queue.shard(shard_count),
            Request::Watch(watch) => self.watch_owner(watch),
            Request::ListDelayed(list) if list.shard.0 < shard_count => list.shard,
            Request::ListDelayed(_) => self.options.shard,
            Request::RecallDelayed(recall) => recall.queue.shard(shard_count),
            Request::PermitTopic { .. }
            | Request::PurgeTopic(_)
            | Request::SetUpGroup(_)
            | Request::CreateTopic(_)
            | Request::AlterTopic(_)
            | Request::DeleteTopic(_)
            | Request::DescribeTopic(_)
            | Request::JoinGroup(_)
            | Request::LeaveGroup { .. }
            | Request::ListGroups
            | Request::DescribeGroup(_)
            | Request::DeleteGroup(_)
            | Request::ResetGroup(_) => CONTROL_SHARD,
            Request::Hold(hold) => hold.key.queue.shard(shard_count),
            Request::EndTransaction(end) => end.receipt.key.queue.shard(shard_count),
            Request::ChangeLease(change) => change.receipt.key.queue.shard(shard_count),
            Request::AlterGroup(_)
            | Request::GroupStats(_)
            | Request::CreateInstance(_)
            | Request::DeleteInstance(_)
            | Request::ListInstances => CONTROL_SHARD,
            // These may concern queues of several shards: the one that was asked asks the others.
            Request::Receive(_)
            | Request::Acknowledge(_)
            | Request::ReceiveHalves(_)
            | Request::FindMessages(_) => self.options.shard,
            Request::ListTopics
            | Request::Route(_)
            | Request::OpenTopic(_)
            | Request::TopicStats(_)
            | Request::Settings(_)
            | Request::DescribeNode { .. }
            | Request::ListSlow(_)
            | Request::MeasureLatency(_) => self.options.shard,
        }
    }

    /// What the answer takes at most while it is made: room to be had before. Zero where that is little, and for those whose
    /// recipient is asked for room.
    pub fn answer_bytes_max(&self, request: &Request) -> usize {
        let queues_of = |topic: &TopicName| {
            self.tables().topic_named(topic).map_or(0, |topic| topic.queue_count as usize)
        };
        let bytes = match request {
            // What one shard has found beside what those before it have: see `find_everywhere`.
            Request::FindMessages(_) => 2 * limits::BATCH_BYTES_MAX,
            // As answers of the shards, put together, and as an answer.
            Request::DescribeTopic(topic) => {
                let consumers = self.tables().group_count() + self.readers.borrow().client_count();
                let of_consumers = (consumers * LISTED_BYTES).min(limits::ENVELOPE_BYTES_MAX);
                queues_of(topic) * 4 * size_of::<QueueInfo>() + of_consumers
            }
            Request::JoinGroup(join) => {
                join.topics.iter().map(queues_of).sum::<usize>() * 3 * size_of::<QueueKey>()
            }
            Request::ListTopics => self.tables().topic_count() * LISTED_BYTES,
            Request::ListGroups | Request::DescribeGroup(_) => 2 * limits::ENVELOPE_BYTES_MAX,
            Request::ListInstances => limits::INSTANCES_MAX * LISTED_BYTES,
            // Some are looked into at once.
            Request::ListDelayed(_) => 2 * limits::BATCH_BYTES_MAX,
            Request::PurgeTopic(purge) => queues_of(&purge.topic) * 2 * size_of::<QueueInfo>(),
            // A dead letter at a time, as it is stored and as its copy.
            Request::Redrive(_) => 2 * limits::BATCH_BYTES_MAX,
            Request::DescribeNode { .. } => usize::from(self.options.shard_count) * SHARD_INFO_BYTES,
            Request::TopicStats(_) | Request::GroupStats(_) => limits::ENVELOPE_BYTES_MAX,
            Request::MeasureLatency(_) => usize::from(self.options.shard_count) * MEASURED_BYTES,
            // Those of every shard are there at once.
            Request::ListSlow(list) => {
                let each = limits::SLOW_REQUESTS_KEPT.min(list.count as usize);
                usize::from(self.options.shard_count) * each * 2 * LISTED_BYTES
            }
            _ => 0,
        };
        if bytes < SMALL_ANSWER_BYTES { 0 } else { bytes }
    }

    /// Carries a request out, on the shard it belongs to.
    pub async fn handle(self: &Rc<Self>, request: Request) -> Result<Reply, Failure> {
        let owner = self.owner(&request);
        if owner == self.options.shard {
            return self.handle_here(request).await;
        }
        let request = match request {
            // Checked by the shard that took them: the other one only places them.
            Request::Produce(produce) => {
                PeerRequest::Produce { produce: self.check_produce(produce)?, at: None }
            }
            Request::ProduceCopies(ProduceCopies { produce, at }) => {
                PeerRequest::Produce { produce: self.check_produce(produce)?, at }
            }
            Request::Hold(hold) => PeerRequest::Hold(self.check_hold(hold)?),
            request => PeerRequest::Client(request),
        };
        self.forward(owner, request).await
    }

    /// Has another shard carry out a client's request.
    pub(super) async fn forward(&self, owner: ShardId, request: PeerRequest) -> Result<Reply, Failure> {
        self.metrics.requests_forwarded.add(1);
        match self.peers()?.ask(owner, request).await? {
            PeerReply::Client(reply) => Ok(reply),
            other => Err(unexpected(&other)),
        }
    }

    /// Carries a request out for somebody who may go away, and who has to have room for the messages it leases.
    pub async fn handle_for(
        self: &Rc<Self>,
        request: Request,
        recipient: &impl Recipient,
    ) -> Result<Reply, Failure> {
        match request {
            Request::Receive(receive) => self.receive(receive, recipient).await.map(Reply::Received),
            Request::ReceiveHalves(receive) => {
                self.receive_halves(receive, recipient).await.map(Reply::Halves)
            }
            request => self.handle(request).await,
        }
    }

    /// Carries out a request that belongs to this shard.
    pub(super) async fn handle_here(self: &Rc<Self>, request: Request) -> Result<Reply, Failure> {
        match request {
            Request::Produce(produce) => self.store(produce, None).await,
            Request::ProduceCopies(ProduceCopies { produce, at }) => self.store(produce, at).await,
            Request::Fetch(fetch) => self.fetch(fetch).await.map(Reply::Fetched),
            Request::Watch(watch) => Ok(Reply::Watched(self.watch(&watch).await)),
            Request::FindOffset { key, spec } => self.find_offset(key, spec).await.map(Reply::OffsetFound),
            Request::CommitOffset(commit) => self.commit_offset(commit).await,
            Request::CommittedOffset { group, key } => {
                self.queue(key)?;
                Ok(Reply::Offset(self.committed_of(&group, key)))
            }
            Request::CreateTopic(change) => self.create_topic(change).await.map(Reply::Topic),
            Request::AlterTopic(change) => self.alter_topic(change).await.map(Reply::Topic),
            Request::DeleteTopic(topic) => self.delete_topic(&topic).await,
            Request::DescribeTopic(topic) => self.describe_topic(&topic).await.map(Reply::Topic),
            Request::ListTopics => {
                Ok(Reply::Topics(self.tables().topics().map(|topic| topic.info()).collect()))
            }
            Request::Route(topic) => self.route(topic.as_ref()).map(Reply::Route),
            Request::OpenTopic(topic) => {
                // Whoever asks is within this process.
                let maker = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
                self.use_topic(&topic, maker).await.map(Reply::Route)
            }
            Request::JoinGroup(join) => self.join_group(&join).await.map(Reply::Assignment),
            Request::LeaveGroup { group, member } => self.leave_group(&group, &member).await,
            Request::ListGroups => self.list_groups().await.map(Reply::Groups),
            Request::DescribeGroup(group) => self.describe_group(group).await.map(Reply::Group),
            Request::DeleteGroup(group) => self.delete_group(group).await,
            Request::ResetGroup(reset) => self.reset_group(reset).await,
            Request::Receive(receive) => self.receive(receive, &AnyRecipient).await.map(Reply::Received),
            Request::Acknowledge(acknowledge) => self.acknowledge(acknowledge).await.map(Reply::Acknowledged),
            Request::ChangeLease(change) => self.change_lease(&change).await.map(Reply::LeaseChanged),
            Request::AlterGroup(settings) => self.alter_group(settings).await.map(Reply::GroupSettings),
            Request::FindMessages(find) => self.find_messages(find).await,
            Request::PermitTopic { topic, permission } => {
                self.permit_topic(&topic, permission).await.map(Reply::Topic)
            }
            Request::PurgeTopic(purge) => self.purge_topic(&purge).await.map(Reply::Purged),
            Request::SetUpGroup(set_up) => self.set_up_group(set_up).await.map(Reply::GroupTerms),
            Request::ListDelayed(list) => self.list_delayed(&list).await.map(Reply::Delayed),
            Request::RecallDelayed(recall) => self.recall_listed(recall).await,
            Request::Redrive(redrive) => self.redrive(&redrive).await.map(Reply::Redriven),
            Request::RedrivenRanges { group, queue, from } => {
                self.redriven_ranges(&group, queue, from).map(Reply::RedrivenRanges)
            }
            Request::CreateInstance(instance) => self.create_instance(instance).await,
            Request::DeleteInstance(instance) => self.delete_instance(&instance).await,
            Request::ListInstances => self.list_instances().await.map(Reply::Instances),
            Request::Hold(hold) => self.hold_here(&self.check_hold(hold)?).await.map(Reply::Held),
            Request::EndTransaction(end) => self.end_transaction(end).await,
            Request::ReceiveHalves(receive) => {
                self.receive_halves(receive, &AnyRecipient).await.map(Reply::Halves)
            }
            Request::Settings(changes) => match self.peers()?.settings(changes).await? {
                PeerReply::Settings(settings) => Ok(Reply::Settings(settings)),
                other => Err(unexpected(&other)),
            },
            Request::DescribeNode { count_syscalls } => {
                self.describe_node(count_syscalls).await.map(Reply::Node)
            }
            Request::TopicStats(asked) => self.topic_stats(asked).await.map(Reply::TopicStats),
            Request::GroupStats(asked) => self.group_stats(asked).await.map(Reply::GroupStats),
            Request::ListSlow(list) => self.list_slow(&list).await.map(Reply::Slow),
            Request::MeasureLatency(measure) => self.measure_latency(&measure).await.map(Reply::Latency),
        }
    }

    async fn store(&self, produce: Produce, at: Option<QueueOffset>) -> Result<Reply, Failure> {
        self.produce_here(&self.check_produce(produce)?, at).await.map(Reply::Produced)
    }

    /// Stores a group's place; durable when answered.
    async fn commit_offset(&self, commit: CommitOffset) -> Result<Reply, Failure> {
        let ask = async || match commit.member.clone() {
            Some(acting) => {
                let check = HolderCheck { group: commit.group.clone(), acting, key: commit.key };
                self.check_holder(check).await
            }
            // Readers divide the queues, and go on where the group's offset is.
            None => self.check_not_read(&commit.group),
        };
        let placed = self.writer.place_after(ask, || self.try_commit(&commit)).await?;
        if let Some(placement) = placed {
            self.writer.settled(Level::Durable, placement).await?;
        }
        Ok(Reply::Done)
    }

    /// Places a commit; `None` when it is so already.
    fn try_commit(&self, commit: &CommitOffset) -> Result<Option<Placement>, PlaceRefusal> {
        let changes = self.commit_changes(commit)?;
        // What is so already is said again by whoever wants the group kept.
        self.note_use(&commit.group);
        let Some(changes) = changes else { return Ok(None) };
        let placement = self.writer.try_changes(changes, Level::Durable)?;
        self.passed.borrow_mut().remove(&commit.group, commit.key);
        self.reader_commits.remove(&commit.group, commit.key);
        Ok(Some(placement))
    }

    /// What a commit changes now; `None` when it is so already.
    fn commit_changes(&self, commit: &CommitOffset) -> Result<Option<Vec<Change>>, Failure> {
        let CommitOffset { group, key, offset, member } = commit.clone();
        let is_member = member.is_some();
        let end = self.queue(key)?.durable_end.get();
        if offset > end {
            return Err(Failure::new(
                Status::OffsetOutOfRange,
                format!("offset {offset} is after the end {end} of {}", self.queue_text(key)),
            ));
        }
        // The group has been receiving: a commit takes the place of its leases. A member's commit is of a queue that is
        // closed to receivers, and leases that are left there stay theirs.
        let received = self.leases().get(&group, key).map(QueueLeases::next);
        let receives = received.is_some_and(|next| !is_member || next < offset);
        match self.tables().commit(&group, key) {
            Some(commit) if commit.is(offset, is_member) && !receives => return Ok(None),
            Some(_) => {}
            None => self.check_offsets_limit(&group, Coming::default())?,
        }
        let by_member = is_member;
        let mut changes = vec![Change::Offset { group: group.clone(), key, offset, origin: None, by_member }];
        if receives {
            changes.push(Change::Lease(match is_member {
                true => LeaseChange::Passed { group, key, next: offset },
                false => LeaseChange::Reset { group, key, next: offset },
            }));
        }
        Ok(Some(changes))
    }

    /// Whether one more offset is kept for a group.
    pub(super) fn check_offsets_limit(&self, group: &GroupName, coming: Coming) -> Result<(), Failure> {
        let tables = self.tables();
        let shard = self.options.shard;
        let message = if tables.offset_count() + coming.offsets >= limits::SHARD_OFFSETS_MAX {
            format!("shard {shard} keeps {} offsets of groups", limits::SHARD_OFFSETS_MAX)
        } else if !tables.has_offsets(group) && tables.group_count() + coming.groups >= limits::GROUPS_MAX {
            format!("shard {shard} keeps the offsets of {} groups", limits::GROUPS_MAX)
        } else {
            return Ok(());
        };
        Err(Failure::new(Status::LimitReached, message + ", no more: delete groups that nobody uses"))
    }

    /// Where whoever asks goes on in a queue now, whichever way the group consumes.
    pub(super) fn committed_of(&self, group: &GroupName, key: QueueKey) -> Option<QueueOffset> {
        let leases = self.leases();
        let Some(pair) = leases.get(group, key) else { return self.tables().committed(group, key) };
        // A member goes on after what receivers have been given: what is left of that is theirs.
        let is_closed = self.gate(group, key) == Gate::Closed;
        Some(if is_closed { pair.next() } else { pair.floor() })
    }

    /// Answers what [`check_holder`](Self::check_holder) asks, on the control shard.
    pub(super) fn check_holder_here(&self, check: &HolderCheck) -> Result<(), Failure> {
        let named = |key| self.queue_text(key);
        self.groups.borrow_mut().check_holder(check, self.clock.monotonic(), named)
    }

    /// Asks the control shard whether a member may commit. After its answer nothing is waited for until the commit stands
    /// in the log: so commits stand there in the order of their holders.
    async fn check_holder(&self, check: HolderCheck) -> Result<(), Failure> {
        if self.options.shard == CONTROL_SHARD {
            return self.check_holder_here(&check);
        }
        match self.peers()?.ask(CONTROL_SHARD, PeerRequest::CheckHolder(check)).await? {
            PeerReply::Done => Ok(()),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes changes of the tables durable. On return they are applied.
    pub(super) async fn change(&self, changes: &[Change]) -> Result<(), Failure> {
        let attempt = || self.writer.try_changes(changes.to_vec(), Level::Durable);
        let placement = self.writer.place(attempt).await?;
        self.writer.settled(Level::Durable, placement).await?;
        Ok(())
    }
}

/// The failure for an answer of a kind that was not asked for.
pub(super) fn unexpected(reply: &PeerReply) -> Failure {
    Failure::new(Status::Internal, format!("a shard gave an answer of another kind: {reply:?}"))
}
