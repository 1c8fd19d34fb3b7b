//! The requests that administer a node and the ones about single messages: which shard each goes to, and what its answer
//! is taken for. No I/O: both drivers carry them out.

use std::time::Duration;

use crate::api::{
    Acknowledge, ChangeLease, CommitOffset, DelayedMessages, EndTransaction, Failure, FindMessages, Found,
    GroupInfo, GroupSettings, GroupStats, GroupTerms, Held, Hold, InstanceInfo, LatencyInfo, ListDelayed,
    ListSlow, MeasureLatency, NodeInfo, OffsetSpec, PurgeReport, PurgeTopic, RecallDelayed, ReceiptOutcome,
    Receive, ReceiveHalves, ReceiveScope, Redrive, RedriveReport, RedrivenRanges, Reply, Request, ResetGroup,
    RouteInfo, SetUpGroup, SettingChange, SettingInfo, SlowRequest, StatsAsked, StatsPage, TopicChange,
    TopicInfo, TopicStats,
};
use crate::types::{GroupName, InstanceName, QueueKey, QueueNumber, QueueOffset, Receipt, TopicName};

use super::error::ClientError;
use super::leased::{LeasedMessage, UndecidedMessage};

/// A request with its way there and back.
pub(super) struct Command<T> {
    pub(super) request: Request,
    /// The queue to whose shard it goes; `None`: to the address that the client was made with.
    pub(super) queue: Option<QueueNumber>,
    read: Box<dyn FnOnce(Reply) -> Option<T> + Send>,
}

impl<T> Command<T> {
    fn new(request: Request, read: impl FnOnce(Reply) -> Option<T> + Send + 'static) -> Self {
        Self { request, queue: None, read: Box::new(read) }
    }

    fn to(self, queue: QueueNumber) -> Self {
        Self { queue: Some(queue), ..self }
    }

    /// What the reply of the broker at `address` says.
    pub(super) fn read(self, reply: Reply, address: &str) -> Result<T, ClientError> {
        (self.read)(reply).ok_or_else(|| unexpected(address))
    }
}

fn unexpected(address: &str) -> ClientError {
    ClientError::protocol(address, "it answers another kind of request")
}

/// The reply to a request for a route.
pub(super) fn route(reply: Reply, address: &str) -> Result<RouteInfo, ClientError> {
    match reply {
        Reply::Route(route) => Ok(route),
        _ => Err(unexpected(address)),
    }
}

/// A command whose answer is that it was carried out.
fn done(request: Request) -> Command<()> {
    Command::new(request, |reply| matches!(reply, Reply::Done | Reply::Topic(_)).then_some(()))
}

// ---- Topics ----------------------------------------------------------------------------------------------------

pub(super) fn create_topic(change: TopicChange) -> Command<()> {
    done(Request::CreateTopic(change))
}

pub(super) fn alter_topic(change: TopicChange) -> Command<()> {
    done(Request::AlterTopic(change))
}

pub(super) fn delete_topic(topic: &TopicName) -> Command<()> {
    done(Request::DeleteTopic(topic.clone()))
}

pub(super) fn describe_topic(topic: &TopicName) -> Command<TopicInfo> {
    Command::new(Request::DescribeTopic(topic.clone()), |reply| match reply {
        Reply::Topic(topic) => Some(topic),
        _ => None,
    })
}

pub(super) fn list_topics() -> Command<Vec<TopicInfo>> {
    Command::new(Request::ListTopics, |reply| match reply {
        Reply::Topics(topics) => Some(topics),
        _ => None,
    })
}

// ---- Instances -------------------------------------------------------------------------------------------------

pub(super) fn create_instance(instance: &InstanceName) -> Command<()> {
    done(Request::CreateInstance(instance.clone()))
}

pub(super) fn delete_instance(instance: &InstanceName) -> Command<()> {
    done(Request::DeleteInstance(instance.clone()))
}

pub(super) fn list_instances() -> Command<Vec<InstanceInfo>> {
    Command::new(Request::ListInstances, |reply| match reply {
        Reply::Instances(instances) => Some(instances),
        _ => None,
    })
}

// ---- Queues ----------------------------------------------------------------------------------------------------

pub(super) fn find_offset(key: QueueKey, spec: OffsetSpec) -> Command<QueueOffset> {
    let read = |reply| match reply {
        Reply::OffsetFound(offset) => Some(offset),
        _ => None,
    };
    Command::new(Request::FindOffset { key, spec }, read).to(key.queue)
}

pub(super) fn find_messages(find: FindMessages) -> Command<Found> {
    Command::new(Request::FindMessages(find), |reply| match reply {
        Reply::Found(found) => Some(found),
        _ => None,
    })
}

// ---- Groups ----------------------------------------------------------------------------------------------------

pub(super) fn list_groups() -> Command<Vec<GroupName>> {
    Command::new(Request::ListGroups, |reply| match reply {
        Reply::Groups(groups) => Some(groups),
        _ => None,
    })
}

pub(super) fn describe_group(group: &GroupName) -> Command<GroupInfo> {
    Command::new(Request::DescribeGroup(group.clone()), |reply| match reply {
        Reply::Group(group) => Some(group),
        _ => None,
    })
}

pub(super) fn delete_group(group: &GroupName) -> Command<()> {
    done(Request::DeleteGroup(group.clone()))
}

pub(super) fn reset_group(reset: ResetGroup) -> Command<()> {
    done(Request::ResetGroup(reset))
}

pub(super) fn alter_group(settings: GroupSettings) -> Command<GroupSettings> {
    Command::new(Request::AlterGroup(settings), |reply| match reply {
        Reply::GroupSettings(settings) => Some(settings),
        _ => None,
    })
}

pub(super) fn committed_offset(group: &GroupName, key: QueueKey) -> Command<Option<QueueOffset>> {
    let read = |reply| match reply {
        Reply::Offset(offset) => Some(offset),
        _ => None,
    };
    Command::new(Request::CommittedOffset { group: group.clone(), key }, read).to(key.queue)
}

pub(super) fn commit_offset(group: &GroupName, key: QueueKey, offset: QueueOffset) -> Command<()> {
    let commit = CommitOffset { group: group.clone(), key, offset, member: None };
    done(Request::CommitOffset(commit)).to(key.queue)
}

// ---- Leased messages -------------------------------------------------------------------------------------------

pub(super) fn receive(receive: Receive) -> Result<Command<Vec<LeasedMessage>>, ClientError> {
    if let ReceiveScope::Shard(shard) = receive.scope {
        let message = format!("the native protocol cannot ask for messages of shard {shard} only");
        return Err(Failure::invalid(message).into());
    }
    let queue = receive.scope.queue();
    let command = Command::new(Request::Receive(receive), |reply| match reply {
        Reply::Received(messages) => Some(messages.into_iter().map(LeasedMessage::from).collect()),
        _ => None,
    });
    Ok(Command { queue, ..command })
}

/// Any shard takes it; where the messages are of one queue, going to the first one's spares a hop.
pub(super) fn acknowledge(group: &GroupName, receipts: &[Receipt]) -> Command<Vec<ReceiptOutcome>> {
    let queue = receipts.first().map(|receipt| receipt.key.queue);
    let count = receipts.len();
    let acknowledge = Acknowledge { group: group.clone(), receipts: receipts.to_vec() };
    let command = Command::new(Request::Acknowledge(acknowledge), move |reply| match reply {
        Reply::Acknowledged(outcomes) if outcomes.len() == count => Some(outcomes),
        _ => None,
    });
    Command { queue, ..command }
}

pub(super) fn change_lease(group: &GroupName, receipt: Receipt, lease: Duration) -> Command<Receipt> {
    let change = ChangeLease { group: group.clone(), receipt, lease };
    let read = |reply| match reply {
        Reply::LeaseChanged(receipt) => Some(receipt),
        _ => None,
    };
    Command::new(Request::ChangeLease(change), read).to(receipt.key.queue)
}

// ---- Held messages ---------------------------------------------------------------------------------------------

pub(super) fn hold(hold: Hold) -> Command<Held> {
    let queue = hold.key.queue;
    let read = |reply| match reply {
        Reply::Held(held) => Some(held),
        _ => None,
    };
    Command::new(Request::Hold(hold), read).to(queue)
}

pub(super) fn end_transaction(end: EndTransaction) -> Command<()> {
    let queue = end.receipt.key.queue;
    done(Request::EndTransaction(end)).to(queue)
}

pub(super) fn receive_halves(receive: ReceiveHalves) -> Command<Vec<UndecidedMessage>> {
    Command::new(Request::ReceiveHalves(receive), |reply| match reply {
        Reply::Halves(halves) => Some(halves.into_iter().map(UndecidedMessage::from).collect()),
        _ => None,
    })
}

// ---- By hand ---------------------------------------------------------------------------------------------------

pub(super) fn permit_topic(topic: &TopicName, permission: u8) -> Command<()> {
    done(Request::PermitTopic { topic: topic.clone(), permission })
}

pub(super) fn purge_topic(purge: PurgeTopic) -> Command<PurgeReport> {
    Command::new(Request::PurgeTopic(purge), |reply| match reply {
        Reply::Purged(report) => Some(report),
        _ => None,
    })
}

pub(super) fn set_up_group(set_up: SetUpGroup) -> Command<GroupTerms> {
    Command::new(Request::SetUpGroup(set_up), |reply| match reply {
        Reply::GroupTerms(terms) => Some(terms),
        _ => None,
    })
}

pub(super) fn list_delayed(list: ListDelayed) -> Command<DelayedMessages> {
    let queue = QueueNumber(u32::from(list.shard.0));
    let read = |reply| match reply {
        Reply::Delayed(delayed) => Some(delayed),
        _ => None,
    };
    Command::new(Request::ListDelayed(list), read).to(queue)
}

pub(super) fn recall_delayed(recall: RecallDelayed) -> Command<()> {
    let queue = recall.queue;
    done(Request::RecallDelayed(recall)).to(queue)
}

// ---- Dead letters ----------------------------------------------------------------------------------------------

pub(super) fn redrive(redrive: Redrive) -> Command<RedriveReport> {
    let (queue, count) = (redrive.queue, redrive.offsets.len());
    let read = move |reply| match reply {
        Reply::Redriven(report) if report.outcomes.len() <= count => Some(report),
        _ => None,
    };
    Command::new(Request::Redrive(redrive), read).to(queue)
}

pub(super) fn redriven_ranges(
    group: &GroupName,
    queue: QueueNumber,
    from: QueueOffset,
) -> Command<RedrivenRanges> {
    let read = |reply| match reply {
        Reply::RedrivenRanges(ranges) => Some(ranges),
        _ => None,
    };
    Command::new(Request::RedrivenRanges { group: group.clone(), queue, from }, read).to(queue)
}

// ---- The node --------------------------------------------------------------------------------------------------

pub(super) fn settings(changes: Vec<SettingChange>) -> Command<Vec<SettingInfo>> {
    Command::new(Request::Settings(changes), |reply| match reply {
        Reply::Settings(settings) => Some(settings),
        _ => None,
    })
}

pub(super) fn list_slow(list: ListSlow) -> Command<Vec<SlowRequest>> {
    Command::new(Request::ListSlow(list), |reply| match reply {
        Reply::Slow(requests) => Some(requests),
        _ => None,
    })
}

pub(super) fn measure_latency(measure: MeasureLatency) -> Command<LatencyInfo> {
    Command::new(Request::MeasureLatency(measure), |reply| match reply {
        Reply::Latency(latency) => Some(latency),
        _ => None,
    })
}

pub(super) fn describe_node(count_syscalls: bool) -> Command<NodeInfo> {
    Command::new(Request::DescribeNode { count_syscalls }, |reply| match reply {
        Reply::Node(node) => Some(node),
        _ => None,
    })
}

pub(super) fn topic_stats(asked: StatsAsked<TopicName>) -> Command<StatsPage<TopicStats, TopicName>> {
    Command::new(Request::TopicStats(asked), |reply| match reply {
        Reply::TopicStats(page) => Some(page),
        _ => None,
    })
}

pub(super) fn group_stats(asked: StatsAsked<GroupName>) -> Command<StatsPage<GroupStats, GroupName>> {
    Command::new(Request::GroupStats(asked), |reply| match reply {
        Reply::GroupStats(page) => Some(page),
        _ => None,
    })
}
