//! What must hold after a restart.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use turbopump::api::{Reply, Request};
use turbopump::disk::faulty::{FaultyDisk, Restart, Survival};
use turbopump::disk::{Disk, DiskError};
use turbopump::index::{IndexEntry, LookupMax};
use turbopump::log::{Lost, Replay};
use turbopump::types::{Level, QueueKey, QueueNumber, QueueOffset, TopicId};
use turbopump::wire::batch::{BatchHeader, align_batch};

use super::ledger::{Ledger, Sent};
use super::node::{Node, Setup, on_node, shard_directory};
use super::workload::produce;

/// Where the client's part of a batch starts.
const CLIENT_PART: usize = 72;

/// A replay for who only wants the log opened, or its report.
pub struct Nothing;

impl Replay for Nothing {
    fn restart(&mut self) {}

    fn whole(&mut self, _: &BatchHeader, _: &[u8]) {}

    fn harmed(&mut self, _: &BatchHeader) {}

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Everything readers can see: topics, bounds, and entries by queue, offsets by group.
#[derive(Clone, Debug, PartialEq)]
pub struct View {
    pub topics: Vec<(TopicId, u32)>,
    pub queues: BTreeMap<QueueKey, (QueueOffset, QueueOffset, Vec<IndexEntry>)>,
    pub offsets: Vec<(String, QueueKey, QueueOffset)>,
}

/// Restarts the node as `how` says and checks everything that the ledger promises, twice over.
pub fn check_restart(disk: &FaultyDisk, setup: &Setup, ledger: &Ledger, how: Restart, label: &str) {
    let promised = if how == Restart::ProcessKill { Level::Written } else { Level::Durable };
    let started = on_node(disk, setup, 1, async |node| {
        for report in &node.reports {
            assert!(report.damage.is_empty(), "{label}: damage without damage: {report:?}");
        }
        let settled = check_ledger(node, ledger, promised, label).await;
        let seen = view(node, ledger).await;
        // What a recovery has shown is flushed: not even a loss of power right now takes it away.
        let lost = disk.outcome(Restart::PowerLoss(Survival::Nothing), 1);
        (settled, seen, lost)
    });
    let (mut settled, seen, lost) = match started {
        Ok(seen) => seen,
        Err(error) => panic!("{label}: does not start: {error}"),
    };
    check_same(&lost, setup, &settled, &seen, &format!("{label}, again after a loss of power"));
    // The index is what the log alone makes.
    let bare = disk.outcome(Restart::ProcessKill, 2);
    remove_derived(&bare, setup);
    check_same(&bare, setup, &settled, &seen, &format!("{label}, from the log alone"));
    check_goes_on(disk, setup, &mut settled, label);
}

fn check_same(disk: &FaultyDisk, setup: &Setup, ledger: &Ledger, expected: &View, label: &str) {
    let seen = on_node(disk, setup, 2, async |node| view(node, ledger).await);
    let seen = seen.unwrap_or_else(|error| panic!("{label}: does not start: {error}"));
    assert_eq!(&seen, expected, "{label}");
}

/// The node takes messages, and keeps them over another loss of power.
fn check_goes_on(disk: &FaultyDisk, setup: &Setup, ledger: &mut Ledger, label: &str) {
    let books = Rc::new(std::cell::RefCell::new(ledger.clone()));
    let crashed = on_node(disk, setup, 3, async |node| {
        let keys: Vec<_> = live_queues(node);
        for (index, key) in keys.into_iter().enumerate() {
            let level = Some(Level::Durable);
            let outcome = produce(node, &books, key, level, 7 + index as u64, 3000).await;
            assert!(outcome.is_ok(), "{label}: takes no message: {outcome:?}");
        }
        disk.outcome(Restart::PowerLoss(Survival::Mixed), 3)
    });
    let crashed = crashed.unwrap_or_else(|error| panic!("{label}: does not start again: {error}"));
    let label = format!("{label}, after more messages");
    let books = books.borrow().clone();
    let checked =
        on_node(&crashed, setup, 4, async |node| check_ledger(node, &books, Level::Durable, &label).await);
    *ledger = checked.unwrap_or_else(|error| panic!("{label}: does not start: {error}"));
}

/// Removes what can be made again from the log: index, key index and snapshots.
pub fn remove_derived(disk: &FaultyDisk, setup: &Setup) {
    futures_lite::future::block_on(async {
        for shard in 0..setup.shard_count {
            let directory = shard_directory(shard);
            for part in [directory.clone(), directory.join("index"), directory.join("keys")] {
                // A crash may have come before the directory was made.
                let Ok(names) = disk.list(&part).await else { continue };
                let kept = |name: &&String| {
                    ["log", "index", "keys"].contains(&name.as_str()) || name.starts_with("aside-")
                };
                for name in names.iter().filter(|name| !kept(name)) {
                    disk.remove(&part.join(name)).await.expect("a file that was listed");
                }
                disk.sync_directory(&part).await.expect("a directory that was listed");
            }
        }
        disk.sync_directory(Path::new("/data")).await.ok();
    });
}

pub fn live_queues(node: &Node) -> Vec<QueueKey> {
    let mut keys: Vec<_> = node.brokers.iter().flat_map(|broker| broker.index().queues()).collect();
    keys.retain(|key| key.topic != TopicId::DELAYED);
    keys.sort();
    keys
}

async fn topics(node: &Node) -> Vec<turbopump::api::TopicInfo> {
    match node.handle(Request::ListTopics).await {
        Ok(Reply::Topics(topics)) => topics,
        other => panic!("no list of topics: {other:?}"),
    }
}

/// Everything that can be seen.
pub async fn view(node: &Node, ledger: &Ledger) -> View {
    let topics = topics(node).await.iter().map(|topic| (topic.id, topic.queue_count)).collect();
    let mut queues = BTreeMap::new();
    for key in live_queues(node) {
        let index = node.owner(key).index();
        let (first, end) = index.bounds(key).expect("a queue that was listed");
        let max = LookupMax { entries: usize::MAX, bytes: u64::MAX, records: u64::MAX };
        let entries = index.lookup(key, first, max).await.expect("an index that can be read");
        queues.insert(key, (first, end, entries));
    }
    let mut offsets = Vec::new();
    for (group, key) in ledger.offsets.keys() {
        if let Some(offset) = committed(node, group, *key).await {
            offsets.push((group.to_string(), *key, offset));
        }
    }
    View { topics, queues, offsets }
}

async fn committed(node: &Node, group: &turbopump::types::GroupName, key: QueueKey) -> Option<QueueOffset> {
    match node.handle(Request::CommittedOffset { group: group.clone(), key }).await {
        Ok(Reply::Offset(offset)) => offset,
        Ok(other) => panic!("no offset: {other:?}"),
        // The topic is gone.
        Err(_) => None,
    }
}

/// Holds the node against the ledger, and returns what the ledger is from here on.
pub async fn check_ledger(node: &Node, ledger: &Ledger, promised: Level, label: &str) -> Ledger {
    let mut settled = Ledger::default();
    let found = topics(node).await;
    for broker in &node.brokers {
        let theirs = broker.handle(Request::ListTopics).await;
        assert_eq!(theirs, Ok(Reply::Topics(found.clone())), "{label}: shard {} differs", broker.shard());
    }
    for info in &found {
        assert!(ledger.topics.contains_key(&info.topic), "{label}: nobody asked for {info:?}");
    }
    for (name, entry) in &ledger.topics {
        let info = found.iter().find(|info| info.topic == *name);
        let Some(info) = info else {
            let answered = entry.id.is_some() && !entry.delete_asked;
            assert!(!answered, "{label}: topic {name} is gone");
            continue;
        };
        assert!(!entry.delete_answered, "{label}: topic {name} is back");
        assert!(entry.id.is_none_or(|id| id == info.id), "{label}: topic {name} changed its id");
        let counts = entry.queues_answered.max(1)..=entry.queues_asked;
        assert!(counts.contains(&info.queue_count), "{label}: {} queues of {counts:?}", info.queue_count);
        let mut entry = entry.clone();
        entry.id = Some(info.id);
        (entry.delete_asked, entry.queues_answered) = (false, info.queue_count);
        settled.topics.insert(name.clone(), entry);
        for queue in (0..info.queue_count).map(QueueNumber) {
            let key = QueueKey { topic: info.id, queue };
            let sent = check_queue(node, ledger, key, promised, label).await;
            settled.queues.insert(key, sent);
        }
    }
    for ((group, key), commits) in &ledger.offsets {
        if !settled.queues.contains_key(key) {
            continue;
        }
        let offset = committed(node, group, *key).await;
        let possible = commits.possible();
        assert!(possible.contains(&offset), "{label}: offset of {group} in {key}: {offset:?} of {commits:?}");
        let asked: Vec<_> = offset.into_iter().collect();
        let commits = super::ledger::Commits { answered: asked.len(), asked };
        settled.offsets.insert((group.clone(), *key), commits);
        let (_, end) = node.owner(*key).index().bounds(*key).expect("a live queue");
        assert!(offset.is_none_or(|offset| offset <= end), "{label}: {offset:?} is behind the end {end}");
    }
    settled
}

/// A queue holds what was sent to it, from its first offset on: all that was promised, and nothing half.
async fn check_queue(node: &Node, ledger: &Ledger, key: QueueKey, promised: Level, label: &str) -> Vec<Sent> {
    let sent = ledger.queues.get(&key).map_or(&[][..], |sent| sent);
    let (first, end) = node.owner(key).index().bounds(key).expect("a live queue");
    let expected: Vec<_> = sent.iter().filter(|sent| sent.base_offset >= first).collect();
    let mut offset = first;
    let mut count = 0;
    while offset < end {
        let fetched = node.fetch(key, offset).await;
        let fetched = fetched.unwrap_or_else(|failure| panic!("{label}: {key} at {offset}: {failure:?}"));
        assert_eq!(fetched.damaged, None, "{label}: {key} at {offset}");
        let mut rest = &fetched.batches[..];
        while !rest.is_empty() {
            let header = BatchHeader::decode(rest).expect("a whole batch");
            let batch = &rest[..header.batch_bytes as usize];
            let wanted =
                expected.get(count).unwrap_or_else(|| panic!("{label}: {key} has more than was sent"));
            assert_eq!(header.base_offset, offset, "{label}: a gap in {key}");
            assert_eq!(header.base_offset, wanted.base_offset, "{label}: {key}");
            assert!(
                batch[CLIENT_PART..] == wanted.bytes[CLIENT_PART..],
                "{label}: {key} at {offset} differs"
            );
            offset = header.end_offset();
            count += 1;
            rest = &rest[(align_batch(u64::from(header.batch_bytes)) as usize).min(rest.len())..];
        }
        assert_eq!(offset, fetched.next_offset, "{label}: {key}");
    }
    let kept = sent.len() - expected.len() + count;
    let promised = ledger.promised(key, promised);
    assert!(kept >= promised, "{label}: {key} has {kept} batches of {promised} that were answered");
    let mut kept: Vec<_> = sent[..kept].to_vec();
    kept.iter_mut().for_each(|sent| sent.answered = Some(Level::Durable));
    kept
}
