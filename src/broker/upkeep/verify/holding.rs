//! What stands beside the log: manifest, snapshots, index, offsets.

use std::collections::BTreeMap;

use super::checked::{Checked, Finding};
use crate::broker::open::StartError;
use crate::broker::upkeep::ShardHome;
use crate::broker::upkeep::condition::{Witnesses, lost_snapshots};
use crate::broker::upkeep::snapshot::{FoundSnapshot, Snapshot};
use crate::disk::{Disk, DiskErrorKind};
use crate::index::{Index, IndexError, IndexOptions, check_snapshot, distrust};
use crate::log::Manifest;
use crate::state::{Change, LeaseChange, Topic, decode_changes};
use crate::types::{QueueKey, QueueOffset, TopicId};

/// Offsets after the end of their queue, told one by one up to this many.
const OFFSETS_TOLD_MAX: usize = 16;

/// The manifest has two copies; whether it has any is said by whoever looks at the log as a whole.
pub(in crate::broker) async fn check_manifest<D: Disk>(
    disk: &D,
    home: &ShardHome<'_>,
    checked: &mut Checked,
) -> Result<(), StartError> {
    let log = home.directory.join("log");
    let manifest = Manifest::read(disk, &log).await?;
    if manifest.is_some_and(|manifest| manifest.is_alone) {
        let detail = "one of its two copies is damaged or missing, the other one is whole";
        checked.derived.push(Finding::of_file(&log.join("manifest"), detail));
    }
    Ok(())
}

/// Both snapshots. Returns the newest of this log that can be read.
pub(in crate::broker) async fn check_snapshots<D: Disk>(
    disk: &D,
    home: &ShardHome<'_>,
    witnesses: &Witnesses,
    checked: &mut Checked,
) -> Result<Option<Snapshot>, StartError> {
    let mut newest: Option<Snapshot> = None;
    let found = Snapshot::read_both(disk, home.directory).await?;
    let manifest = Manifest::read(disk, &home.directory.join("log")).await?;
    let lost = manifest.map_or_else(Vec::new, |manifest| lost_snapshots(&manifest, &found));
    let told = "it is missing, though it was written: the next start reads the log instead";
    checked.derived.extend(lost.iter().map(|path| Finding::of_file(path, told)));
    for found in found {
        let (path, snapshot) = match found {
            FoundSnapshot::Missing(_) | FoundSnapshot::Refused(_) => continue,
            FoundSnapshot::Damaged(path) => {
                let detail = "it is not whole: it is damaged, or the broker died while it was written";
                checked.derived.push(Finding::of_file(&path, detail));
                continue;
            }
            FoundSnapshot::Whole(path, snapshot) => (path, snapshot),
        };
        if witnesses.foreign_files.contains(&path) {
            // Without one of this log beside it, it is among the contradictions.
            if witnesses.snapshot.is_some() {
                let detail = "it is a snapshot of another log: the next start goes on from the other one";
                checked.derived.push(Finding::of_file(&path, detail));
            }
            continue;
        }
        let tables = decode_changes(&snapshot.tables).map(drop).map_err(|error| error.to_string());
        let index = check_snapshot(&snapshot.index).map_err(|error| error.to_string());
        if let Err(reason) = tables.and(index) {
            checked.derived.push(Finding::of_file(&path, format!("it cannot be used: {reason}")));
            continue;
        }
        if newest.as_ref().is_none_or(|other| other.sequence < snapshot.sequence) {
            newest = Some(snapshot);
        }
    }
    if newest.is_none() && !lost.is_empty() {
        let detail =
            "no snapshot is left that says what is in it: the next start builds it anew from the log";
        checked.derived.push(Finding::of_file(&home.directory.join("index"), detail));
    }
    Ok(newest)
}

/// The index as the snapshot knows it, with every block checked; `None` when it cannot be used.
pub(in crate::broker) async fn open_index<D: Disk>(
    disk: &D,
    home: &ShardHome<'_>,
    snapshot: &Snapshot,
    checked: &mut Checked,
) -> Result<Option<Index<D>>, StartError> {
    let directory = home.directory.join("index");
    let distrusted = match distrust(disk, &directory).await {
        Ok(distrusted) => distrusted,
        Err(error) => {
            checked.add_derived_error(&error);
            return Ok(None);
        }
    };
    if let Some(reason) = distrusted {
        let detail = format!("it was found damaged, and the next start builds it anew: {reason}");
        checked.derived.push(Finding::of_file(&directory, detail));
        return Ok(None);
    }
    let first = first_position(disk, home).await?;
    if snapshot.position < first {
        // What came between the two is in neither, and is no loss.
        let detail =
            "the snapshots are older than what retention has left of the log: the next start builds it anew";
        checked.derived.push(Finding::of_file(&directory, detail));
        return Ok(None);
    }
    let options = IndexOptions::new(u32::MAX);
    let index = match Index::open_reading(disk.clone(), &directory, options, &snapshot.index).await {
        Err(IndexError::Disk(error)) => {
            checked.add_derived_error(&error);
            return Ok(None);
        }
        opened => opened?,
    };
    let found = check_index(&index, first).await;
    let Err(error) = found else { return Ok(Some(index)) };
    checked.derived.push(Finding::of_index(&error, &directory));
    index.close().await?;
    Ok(None)
}

async fn check_index<D: Disk>(index: &Index<D>, first: crate::types::LogPosition) -> Result<(), IndexError> {
    let stored = index.stored();
    index.follow(first).await?;
    index.check_stored(&stored).await?;
    index.verify().await.map(drop)
}

/// Where the log begins now: what the index knows of before is gone.
async fn first_position<D: Disk>(
    disk: &D,
    home: &ShardHome<'_>,
) -> Result<crate::types::LogPosition, StartError> {
    let log = home.directory.join("log");
    if let Some(holdings) = Manifest::read(disk, &log).await?.and_then(|manifest| manifest.holdings) {
        return Ok(holdings.first_base);
    }
    let names = match disk.list(&log).await {
        Err(error) if error.kind == DiskErrorKind::NotFound => Vec::new(),
        names => names?,
    };
    Ok(names.iter().find_map(|name| crate::log::parse_segment_name(name)).unwrap_or_default())
}

/// No group may be past the end of a queue.
pub(in crate::broker) fn check_offsets(
    home: &ShardHome<'_>,
    snapshot: &Snapshot,
    ends: &BTreeMap<QueueKey, QueueOffset>,
    checked: &mut Checked,
) {
    let changes = decode_changes(&snapshot.tables).unwrap_or_default();
    let topics = changes.iter().filter_map(|change| match change {
        Change::Topic(topic) => Some((topic.id, topic)),
        _ => None,
    });
    let topics: BTreeMap<TopicId, &Topic> = topics.collect();
    let mut told = 0;
    for change in &changes {
        let (group, key, offset) = match change {
            Change::Offset { group, key, offset, .. } => (group, key, offset),
            Change::Lease(LeaseChange::State { group, key, next, .. }) => (group, key, next),
            _ => continue,
        };
        // A queue of which nothing is known has gone with its topic.
        let Some(end) = ends.get(key).filter(|end| offset > *end) else { continue };
        told += 1;
        if told <= OFFSETS_TOLD_MAX {
            let named = |topic: &Topic| format!("queue {} of topic {}", key.queue, topic.name);
            let queue = topics.get(&key.topic).map_or_else(|| key.to_string(), |topic| named(topic));
            let detail = format!("group {group} goes on at offset {offset} in {queue}, which ends at {end}");
            checked.derived.push(Finding::of_file(home.directory, detail));
        }
    }
}
