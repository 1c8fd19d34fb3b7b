//! Requests that concern the whole node: topics, routes, status.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::instances::{topic_missing, topic_unknown};
use crate::api::{Failure, NodeInfo, QueueInfo, Reply, RouteInfo, ShardInfo, Status, TopicChange, TopicInfo};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::readers::READER_CLIENTS;
use crate::broker::shard_broker::{Broker, owned_queues};
use crate::disk::Disk;
use crate::limits;
use crate::state::{Change, Group, Tables, Topic, TopicPolicy, adoption_batches};
use crate::types::{GroupName, InstanceName, Retention, ShardId, TopicId, TopicName};

/// The counter that says up to where something was placed in the log, durable or not.
pub const LOG_PLACED: &str = "log_placed";

/// Queues of a topic that is created without a number: RocketMQ's `defaultTopicQueueNums` on the producer's side
/// (`client/.../DefaultMQProducer.java`).
const QUEUES_DEFAULT: u32 = 4;

/// Changes in one batch of those that a shard takes over from others.
const ADOPTED_MAX: usize = 1024;

impl<D: Disk> Broker<D> {
    pub(in crate::broker) async fn create_topic(
        self: &Rc<Self>,
        change: TopicChange,
    ) -> Result<TopicInfo, Failure> {
        let _guard = self.topic_change.lock().await;
        let topic = {
            let tables = self.tables();
            if tables.topic_named(&change.topic).is_some() {
                return Err(Failure::new(
                    Status::TopicExists,
                    format!("topic {} exists already", change.topic),
                ));
            }
            Topic {
                queue_count: change.queues.unwrap_or(QUEUES_DEFAULT),
                retention: change.retention.unwrap_or_default(),
                level: change.level,
                policy: TopicPolicy::default().changed(),
                ..self.empty_topic(&change.topic)?
            }
        };
        self.check_queue_count(topic.queue_count, topic.queue_count)?;
        check_retention(topic.retention)?;
        self.put_everywhere(&topic).await?;
        tracing::info!(target: "topics", topic = %topic.name, id = topic.id.0, queues = topic.queue_count, "topic made");
        Ok(topic.info())
    }

    pub(in crate::broker) async fn alter_topic(
        self: &Rc<Self>,
        change: TopicChange,
    ) -> Result<TopicInfo, Failure> {
        let _guard = self.topic_change.lock().await;
        let present = self.topic_by_name(&change.topic)?;
        let queue_count = change.queues.unwrap_or(present.queue_count);
        if queue_count < present.queue_count {
            return Err(Failure::invalid(format!(
                "topic {} has {} queues: it can get more, but not fewer, since messages in the others would be out of reach",
                present.name, present.queue_count
            )));
        }
        self.check_queue_count(queue_count, queue_count - present.queue_count)?;
        change.retention.map_or(Ok(()), check_retention)?;
        let topic = Topic {
            queue_count,
            retention: change.retention.unwrap_or(present.retention),
            level: change.level.or(present.level),
            policy: present.policy.changed(),
            ..present
        };
        self.put_everywhere(&topic).await?;
        tracing::info!(target: "topics", topic = %topic.name, id = topic.id.0, queues = topic.queue_count, "topic altered");
        Ok(topic.info())
    }

    pub(in crate::broker) async fn delete_topic(self: &Rc<Self>, name: &TopicName) -> Result<Reply, Failure> {
        let _guard = self.topic_change.lock().await;
        let id = self.topic_by_name(name)?.id;
        self.remove_topic(id).await?;
        self.ask_others(|| PeerRequest::RemoveTopic(id)).await?;
        tracing::info!(target: "topics", topic = %name, id = id.0, "topic removed");
        Ok(Reply::Done)
    }

    /// A topic that is meant to be there.
    pub(in crate::broker) fn topic_by_name(&self, name: &TopicName) -> Result<Topic, Failure> {
        let tables = self.tables();
        tables.topic_named(name).cloned().ok_or_else(|| topic_unknown(&tables, name))
    }

    /// Removes a topic here, and says so twice: see [`Change::LiveTopics`]. The caller holds `topic_change`.
    async fn remove_topic(&self, id: TopicId) -> Result<(), Failure> {
        self.change(&[Change::TopicRemoved(id)]).await?;
        let live = self.tables().live_topics();
        self.change(&[live]).await
    }

    pub(super) fn check_queue_count(&self, queue_count: u32, added: u32) -> Result<(), Failure> {
        if !(1..=limits::TOPIC_QUEUES_MAX).contains(&queue_count) {
            let max = limits::TOPIC_QUEUES_MAX;
            return Err(Failure::invalid(format!("a topic has 1 to {max} queues, not {queue_count}")));
        }
        // Every shard holds the same share, so that of this one speaks for all.
        let share = added.div_ceil(u32::from(self.options.shard_count)) as usize;
        let present = self.queues.borrow().len();
        if present + share > limits::SHARD_QUEUES_MAX {
            let max = limits::SHARD_QUEUES_MAX;
            let message =
                format!("a shard keeps {max} queues; {present} are there and {share} would be added");
            return Err(Failure::new(Status::LimitReached, message));
        }
        Ok(())
    }

    /// Makes a topic's configuration durable on every shard, this one first: at the next start it hands the others what
    /// they missed.
    pub(super) async fn put_everywhere(self: &Rc<Self>, topic: &Topic) -> Result<(), Failure> {
        self.change(&[Change::Topic(topic.clone())]).await?;
        self.ask_others(|| PeerRequest::PutTopic(topic.clone())).await
    }

    pub(in crate::broker) async fn ask_others(
        &self,
        request: impl Fn() -> PeerRequest,
    ) -> Result<(), Failure> {
        for reply in self.ask_all(request, Others::Only).await? {
            match reply {
                PeerReply::Done => {}
                other => return Err(unexpected(&other)),
            }
        }
        Ok(())
    }

    /// Asks the shards at once and returns their answers in the order of their ids.
    pub(in crate::broker) async fn ask_all(
        &self,
        request: impl Fn() -> PeerRequest,
        others: Others,
    ) -> Result<Vec<PeerReply>, Failure> {
        let peers = self.peers()?;
        let shards = (0..self.options.shard_count).map(ShardId);
        let asked = shards.filter(|shard| others == Others::AndThis || *shard != self.options.shard);
        let answers: Vec<_> = asked.map(|shard| peers.ask(shard, request())).collect();
        futures_util::future::join_all(answers).await.into_iter().collect()
    }

    /// Brings every shard's topics in line with this one's. The control shard does it before the node takes requests.
    pub async fn sync_topics(self: &Rc<Self>) -> Result<(), Failure> {
        if !self.given_up.is_empty() {
            self.adopt_tables().await?;
        }
        let (topics, next_topic_id, groups, instances) = self.shared_tables();
        let sync = || PeerRequest::SyncTopics {
            topics: topics.clone(),
            next_topic_id,
            groups: groups.clone(),
            instances: instances.clone(),
        };
        self.ask_others(sync).await
    }

    /// What every shard must have.
    fn shared_tables(&self) -> (Vec<Topic>, TopicId, Vec<Group>, BTreeSet<InstanceName>) {
        let tables = self.tables();
        let topics: Vec<_> = tables.topics().cloned().collect();
        let groups: Vec<_> = tables.all_groups().cloned().collect();
        (topics, tables.next_topic_id(), groups, tables.instances().clone())
    }

    /// Takes over what the other shards know and this one does not: it was in what this shard's log has lost. Otherwise
    /// their messages of such a topic would go as well.
    async fn adopt_tables(self: &Rc<Self>) -> Result<(), Failure> {
        for reply in self.ask_all(|| PeerRequest::Tables, Others::Only).await? {
            let PeerReply::Tables { topics, next_topic_id, groups, instances } = reply else {
                return Err(unexpected(&reply));
            };
            let _guard = self.topic_change.lock().await;
            let changes: Vec<_> = {
                let tables = self.tables();
                let is_new = |topic: &Topic| {
                    tables.topic(topic.id).is_none() && tables.topic_named(&topic.name).is_none()
                };
                let topics = topics.into_iter().filter(is_new).map(Change::Topic);
                let groups = groups.into_iter().filter(|group| tables.group(&group.settings.group).is_none());
                let next = tables.next_topic_id().max(next_topic_id);
                let mut all = tables.instances().clone();
                all.extend(instances);
                topics
                    .chain(groups.map(Change::Group))
                    .chain([Change::NextTopicId(next), Change::Instances(all)])
                    .collect()
            };
            self.adopt(&changes).await?;
        }
        Ok(())
    }

    /// Makes changes that others have made before.
    async fn adopt(&self, changes: &[Change]) -> Result<(), Failure> {
        self.is_adopting.set(true);
        let mut outcome = Ok(());
        // In slices, since a node may have thousands of topics and a batch has a bound.
        for slice in adoption_batches(changes, ADOPTED_MAX) {
            outcome = self.change(&slice).await;
            if outcome.is_err() {
                break;
            }
        }
        self.is_adopting.set(false);
        outcome
    }

    pub(in crate::broker) fn route(&self, name: Option<&TopicName>) -> Result<RouteInfo, Failure> {
        let tables = self.tables();
        let topic = match name {
            Some(name) => Some(tables.topic_named(name).ok_or_else(|| topic_missing(&tables, name))?.info()),
            None => None,
        };
        Ok(RouteInfo { shards: self.peers()?.addresses(), topic, node: Some(self.options.node) })
    }

    pub(in crate::broker) async fn describe_topic(&self, name: &TopicName) -> Result<TopicInfo, Failure> {
        let mut info = self.topic_by_name(name)?.info();
        info.queues = self.queue_ranges(info.id).await?;
        info.consumers = Some(self.topic_consumers(&info).await?);
        Ok(info)
    }

    pub(in crate::broker) async fn queue_ranges(&self, id: TopicId) -> Result<Vec<QueueInfo>, Failure> {
        let mut queues = Vec::new();
        for reply in self.ask_all(|| PeerRequest::QueueRanges(id), Others::AndThis).await? {
            match reply {
                PeerReply::QueueRanges(ranges) => queues.extend(ranges),
                other => return Err(unexpected(&other)),
            }
        }
        queues.sort_by_key(|info| info.queue);
        Ok(queues)
    }

    pub(in crate::broker) async fn describe_node(&self, count_syscalls: bool) -> Result<NodeInfo, Failure> {
        let mut shards = Vec::new();
        for reply in self.ask_all(|| PeerRequest::ShardInfo { count_syscalls }, Others::AndThis).await? {
            match reply {
                PeerReply::ShardInfo(info) => shards.push(*info),
                other => return Err(unexpected(&other)),
            }
        }
        let resident =
            |info: &ShardInfo| info.counters.iter().find(|(name, _)| name == "resident_bytes").map(|c| c.1);
        let resident_bytes = shards.iter().find_map(resident).unwrap_or(0);
        Ok(NodeInfo {
            version: self.options.version.clone(),
            node: Some(self.options.node),
            level: self.live.get().level,
            resident_bytes,
            shards,
        })
    }

    /// Makes a change durable that the control shard has made.
    async fn put(&self, change: Change) -> Result<PeerReply, Failure> {
        let _guard = self.topic_change.lock().await;
        self.change(&[change]).await?;
        Ok(PeerReply::Done)
    }

    /// Carries out what another shard, or this one, asks of this one.
    pub async fn handle_peer(self: &Rc<Self>, request: PeerRequest) -> Result<PeerReply, Failure> {
        match request {
            PeerRequest::Client(request) => self.handle_here(request).await.map(PeerReply::Client),
            PeerRequest::Produce { produce, at } => self.produce_for_peer(&produce, at).await,
            PeerRequest::Publish(publication) => self.publish_for_peer(&publication).await,
            PeerRequest::OpenTopic { topic, queues, maker } => {
                self.open_topic_for_peer(&topic, queues, maker).await
            }
            PeerRequest::GroupTopic { request, maker } => self.make_group_topic(request, maker).await,
            PeerRequest::ShapeTopic(shape) => self.shape_topic_for_peer(shape).await,
            PeerRequest::ShapeGroup(shape) => self.shape_group_for_peer(shape).await,
            PeerRequest::Hold(hold) => self.hold_here(&hold).await.map(Reply::Held).map(PeerReply::Client),
            PeerRequest::PutTopic(topic) => self.put(Change::Topic(topic)).await,
            PeerRequest::RemoveTopic(id) => {
                let _guard = self.topic_change.lock().await;
                self.remove_topic(id).await.map(|()| PeerReply::Done)
            }
            PeerRequest::Tables => {
                let (topics, next_topic_id, groups, instances) = self.shared_tables();
                Ok(PeerReply::Tables { topics, next_topic_id, groups, instances })
            }
            PeerRequest::SyncTopics { topics, next_topic_id, groups, instances } => {
                self.take_topics(topics, next_topic_id, groups, instances).await
            }
            PeerRequest::PutInstances(instances) => self.put(Change::Instances(instances)).await,
            PeerRequest::PutGroup(group) => self.put(Change::Group(group)).await,
            PeerRequest::Receive(receive) => self.receive_here(&receive).await.map(PeerReply::Received),
            PeerRequest::WatchTopic { from, receive } => {
                self.watch_topic(from, &receive).await.map(PeerReply::Prospect)
            }
            PeerRequest::Acknowledge { group, receipts } => {
                self.acknowledge_here(&group, &receipts).await.map(PeerReply::Acknowledged)
            }
            PeerRequest::GiveBack { group, receipts } => {
                self.give_back_here(&group, &receipts).await;
                Ok(PeerReply::Done)
            }
            PeerRequest::GroupLeases(group) => Ok(self.own_holding(&group)),
            PeerRequest::SetGates { group, grants } => {
                let draining = self.set_gates(&group, grants).await?;
                Ok(PeerReply::GatesSet { draining })
            }
            PeerRequest::ReceiversSeen { group, topic } => self.receivers_seen(&group, topic).await,
            PeerRequest::GroupReceivers(group) => {
                let seen = self.receivers.borrow().of_group(&group, self.clock.monotonic());
                Ok(PeerReply::GroupReceivers(seen))
            }
            PeerRequest::QueueRanges(id) => Ok(PeerReply::QueueRanges(self.own_ranges(id).await)),
            PeerRequest::TopicGroups(id) => Ok(PeerReply::TopicGroups(self.own_topic_groups(id).await)),
            PeerRequest::GroupOffsets(group) => Ok(PeerReply::GroupOffsets(self.own_offsets(&group))),
            PeerRequest::Readers(news) => self.hear_of_readers(news).await,
            PeerRequest::GroupNames => Ok(PeerReply::GroupNames(self.own_group_names())),
            PeerRequest::ConnectionEnded { connection, groups } => {
                self.connection_ended(connection, groups).await;
                Ok(PeerReply::Done)
            }
            PeerRequest::RemoveGroup { group, settings, only_unused } => {
                self.remove_group_here(&group, settings, only_unused).await.map(PeerReply::GroupRemoved)
            }
            PeerRequest::GroupsInUse { interval } => Ok(PeerReply::GroupsInUse(self.groups_in_use(interval))),
            PeerRequest::CheckHolder(check) => self.check_holder_here(&check).map(|()| PeerReply::Done),
            PeerRequest::Halves(request) => self.handle_halves(request).await,
            PeerRequest::ShardInfo { count_syscalls } => Ok(self.shard_info(count_syscalls).await),
            PeerRequest::Stats(request) => self.own_stats(request).await.map(PeerReply::Stats),
            PeerRequest::Time(request) => self.handle_time(request).await,
            PeerRequest::FindHere(find) => self.find_here(find).await.map(PeerReply::Found),
            PeerRequest::Purge { topic, before } => self.purge_here(topic, before).await,
            PeerRequest::TakeRedriven(sent) => self.take_redriven(&sent).await.map(PeerReply::RedriveArrived),
        }
    }

    /// What a group has of this shard's queues, and why it gets nothing new.
    fn own_holding(&self, group: &GroupName) -> PeerReply {
        let leases = self.own_leases(group);
        let refused = self.lease_refusal(group, None).map(|refused| refused.message);
        let refused = refused.into_iter().chain(self.precedence_notes(group)).collect();
        PeerReply::GroupLeases { leases, locks: self.own_locks(group), refused }
    }

    async fn take_topics(
        &self,
        topics: Vec<Topic>,
        next_topic_id: TopicId,
        groups: Vec<Group>,
        instances: BTreeSet<InstanceName>,
    ) -> Result<PeerReply, Failure> {
        let _guard = self.topic_change.lock().await;
        let changes: Vec<_> = {
            let tables = self.tables();
            let kept: BTreeSet<_> = topics.iter().map(|topic| topic.id).collect();
            let gone = tables.topics().filter(|topic| !kept.contains(&topic.id));
            let gone: Vec<_> = gone.map(|topic| Change::TopicRemoved(topic.id)).collect();
            let new =
                topics.into_iter().filter(|topic| tables.topic(topic.id) != Some(topic)).map(Change::Topic);
            let next =
                (tables.next_topic_id() != next_topic_id).then_some(Change::NextTopicId(next_topic_id));
            let groups = groups
                .into_iter()
                .filter(|group| tables.group(&group.settings.group) != Some(group))
                .map(Change::Group);
            let instances = (*tables.instances() != instances).then_some(Change::Instances(instances));
            gone.into_iter().chain(new).chain(next).chain(groups).chain(instances).collect()
        };
        self.adopt(&changes).await?;
        Ok(PeerReply::Done)
    }

    async fn own_ranges(&self, id: TopicId) -> Vec<QueueInfo> {
        let queue_count = self.tables().topic(id).map_or(0, |topic| topic.queue_count);
        let mut ranges = Vec::new();
        let mut slice = self.time_slice();
        for key in owned_queues(id, queue_count, &self.options) {
            let queue = self.queues.borrow().get(&key).cloned();
            if let Some(queue) = queue {
                let (first_offset, end_offset) = self.bounds(&queue);
                let queue = queue.key.queue;
                ranges.push(QueueInfo { queue, shard: self.options.shard, first_offset, end_offset });
            }
            slice.yield_if_over().await;
        }
        ranges
    }

    /// What is counted here, and how much of what there is, by name.
    pub(in crate::broker) async fn counters(&self, count_syscalls: bool) -> Vec<(String, u64)> {
        let mut counters = self.metrics.counters();
        let queue_count = self.queues.borrow().len() as u64;
        let segments = self.log.segments();
        let segment_bytes = segments.iter().map(|segment| segment.bytes).sum();
        counters.push(("queues".to_owned(), queue_count));
        counters.push(("segments".to_owned(), segments.len() as u64));
        counters.push(("segment_bytes".to_owned(), segment_bytes));
        counters.push(("log_end".to_owned(), self.log.watermarks().durable_end().0));
        counters.push((LOG_PLACED.to_owned(), self.log.watermarks().appended_end().0));
        counters.push(("index_bytes".to_owned(), self.index.memory_bytes() as u64));
        let given_up = self.given_up.iter().map(|range| range.bytes).sum();
        counters.push(("given_up_bytes".to_owned(), given_up));
        counters.extend(self.standing_counters().await);
        counters.extend(self.keys.counters());
        counters.extend(self.held_counters());
        counters.extend(self.memory.counters());
        counters.extend(self.lease_counters());
        counters.push(("receivers_bytes".to_owned(), self.receivers.borrow().bytes() as u64));
        counters.push(("flight_recorder_bytes".to_owned(), self.metrics.flight.bytes() as u64));
        let clients = self.readers.borrow().clients_of_shard(self.options.shard) as u64;
        counters.push((READER_CLIENTS.to_owned(), clients));
        counters.push(("offsets".to_owned(), self.tables().offset_count() as u64));
        counters.push(("queue_locks".to_owned(), self.locks().count() as u64));
        if let Some(host) = &*self.host.borrow() {
            counters.extend(host(count_syscalls));
        }
        counters
    }

    async fn shard_info(&self, count_syscalls: bool) -> PeerReply {
        PeerReply::ShardInfo(Box::new(ShardInfo {
            shard: self.options.shard,
            core: self.options.core,
            state: self.condition(),
            counters: self.counters(count_syscalls).await,
            histograms: self.metrics.histograms(),
            rates: self.rate_infos(),
        }))
    }
}

/// Whether the asking shard asks itself as well.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(in crate::broker) enum Others {
    Only,
    AndThis,
}

/// Topics of groups are made because somebody consumes: they do not take the place of others.
pub(super) fn check_group_topics(tables: &Tables, name: &TopicName) -> Result<(), Failure> {
    let max = limits::GROUP_TOPICS_MAX;
    if !name.is_of_group() || tables.group_topic_count() < max {
        return Ok(());
    }
    let message = format!("there are {max} topics of groups' retries and dead letters, no more are taken");
    Err(Failure::new(Status::LimitReached, message))
}

/// What is kept for less, nobody has read.
pub(super) fn check_retention(retention: Retention) -> Result<(), Failure> {
    match retention {
        Retention::Age(age) if age < limits::RETENTION_MIN => {
            let (min, given) = (limits::RETENTION_MIN.as_millis(), age.as_millis());
            Err(Failure::invalid(format!(
                "a topic keeps its messages for {min} ms at least, not for {given} ms"
            )))
        }
        Retention::Age(_) | Retention::Inherited | Retention::Unlimited => Ok(()),
    }
}
