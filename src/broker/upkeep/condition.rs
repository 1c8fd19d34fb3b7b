//! What a shard's directory must hold: the log, as its snapshots know it. A start and the tools ask here alike.

use std::path::{Path, PathBuf};

use super::snapshot::{FoundSnapshot, Owner, Snapshot};
use crate::broker::open::StartError;
use crate::disk::{Disk, DiskError};
use crate::index::{MessageMap, check_files};
use crate::log::{
    Act, Contradiction, Flaw, Known, Manifest, Reached, ReachedEpoch, Repair, check_spares, contradictions,
    finish_repair, move_aside, repair, secret_of_log,
};
use crate::types::{LogPosition, ShardId};
use crate::wire::batch::LogSecret;

/// A shard and where it keeps everything.
#[derive(Clone, Copy, Debug)]
pub struct ShardHome<'a> {
    pub directory: &'a Path,
    pub shard: ShardId,
    pub shard_count: u16,
    /// It was used before: what is not there was lost.
    pub is_made: bool,
}

/// What the files beside the log say of it.
#[derive(Debug)]
pub struct Witnesses {
    pub known: Known,
    /// The newest of this log.
    pub snapshot: Option<Snapshot>,
    /// Files that are not what they must be, and do no harm.
    pub notices: Vec<String>,
    /// Files of snapshots that were written, and are not there.
    pub lost_snapshots: Vec<PathBuf>,
    /// Snapshots of another log, when there are none of this one.
    pub foreign: Vec<Contradiction>,
    /// The files of all snapshots of another log, whether there are some of this one or not.
    pub foreign_files: Vec<PathBuf>,
}

impl Witnesses {
    /// Reads the snapshots.
    pub async fn hear<D: Disk>(disk: &D, home: &ShardHome<'_>) -> Result<Witnesses, StartError> {
        let ShardHome { directory, shard, shard_count, is_made } = *home;
        let reached_epoch = reached_epoch(disk, home).await;
        let known = Known { shard, shard_count, is_made, reached: Vec::new(), reached_epoch };
        let log = directory.join("log");
        let found = Snapshot::read_both(disk, directory).await?;
        let manifest = Manifest::read(disk, &log).await?;
        let secret = manifest.as_ref().map(|manifest| manifest.secret);
        let mut witnesses = Self::of(&known, &found, secret);
        if !witnesses.foreign.is_empty() {
            // It may be the manifest that is of another log.
            let secret = secret_of_log(disk, &log, &known).await?;
            witnesses = Self::of(&known, &found, secret);
        }
        witnesses.lost_snapshots =
            manifest.map_or_else(Vec::new, |manifest| lost_snapshots(&manifest, &found));
        witnesses.notices.extend(witnesses.lost_snapshots.iter().map(|path| {
            format!("{} is missing, though it was written: the log is read instead", path.display())
        }));
        if witnesses.snapshot.is_some() {
            witnesses.notices.extend(witnesses.foreign.drain(..).map(|foreign| foreign.to_string()));
        }
        Ok(witnesses)
    }

    fn of(known: &Known, found: &[FoundSnapshot], secret: Option<LogSecret>) -> Self {
        let owner = secret.map(|secret| Owner { secret, shard: known.shard });
        let (known, snapshot) = (known.clone(), None);
        let (notices, lost_snapshots, foreign) = (Vec::new(), Vec::new(), Vec::new());
        let foreign_files = Vec::new();
        let mut witnesses = Self { known, snapshot, notices, lost_snapshots, foreign, foreign_files };
        found.iter().cloned().for_each(|found| witnesses.take(found, owner));
        witnesses
    }

    fn take(&mut self, found: FoundSnapshot, owner: Option<Owner>) {
        let (path, snapshot) = match found {
            // Told with the other names.
            FoundSnapshot::Missing(_) | FoundSnapshot::Refused(_) => return,
            FoundSnapshot::Damaged(path) => {
                self.notices.push(format!(
                    "{} is not whole, as when the broker died while it was written: it is not used",
                    path.display()
                ));
                return;
            }
            FoundSnapshot::Whole(path, snapshot) => (path, snapshot),
        };
        let file = path.display().to_string();
        if let (Some(named), Some(owner)) = (snapshot.owner, owner)
            && named != owner
        {
            let (flaw, zero) = (Flaw::Foreign { shard: named.shard.0 }, LogPosition::ZERO);
            self.foreign.push(Contradiction { file, flaw, from: zero, to: zero, end: zero, messages: None });
            self.foreign_files.push(path);
            return;
        }
        let (position, epoch) = (snapshot.position, snapshot.epoch);
        let secret = snapshot.owner.map(|owner| owner.secret);
        self.known.reached.push(Reached { file, position, epoch, secret });
        if self.snapshot.as_ref().is_none_or(|other| other.sequence < snapshot.sequence) {
            self.snapshot = Some(snapshot);
        }
    }

    /// Whether there is nothing to go on from, though there was.
    pub fn has_lost_snapshots(&self) -> bool {
        self.snapshot.is_none() && !self.lost_snapshots.is_empty()
    }

    /// Everything in which the log contradicts them.
    pub async fn contradictions<D: Disk>(
        &mut self,
        disk: &D,
        home: &ShardHome<'_>,
    ) -> Result<Vec<Contradiction>, StartError> {
        let mut found = contradictions(disk, &home.directory.join("log"), &self.known).await?;
        if found.iter().any(|found| found.flaw == Flaw::Interrupted) {
            return Ok(found);
        }
        self.estimate(&mut found);
        found.append(&mut self.foreign);
        Ok(found)
    }

    /// Says of each contradiction about how many messages are missing, where the snapshot's index knows.
    pub fn estimate(&self, contradictions: &mut [Contradiction]) {
        let Some(snapshot) = &self.snapshot else { return };
        let Some(map) = MessageMap::of_snapshot(&snapshot.index) else { return };
        for contradiction in contradictions {
            let end = contradiction.end.min(contradiction.to);
            // Of what was stored after the snapshot its index knows nothing.
            if end <= snapshot.position {
                contradiction.messages = map.messages_between(contradiction.from, end);
            }
        }
    }
}

/// The snapshots' files that were written, as the manifest says, and are not there.
pub(in crate::broker) fn lost_snapshots(manifest: &Manifest, found: &[FoundSnapshot; 2]) -> Vec<PathBuf> {
    let lost = found.iter().zip(manifest.snapshots).filter_map(|(found, was_written)| match found {
        FoundSnapshot::Missing(path) if was_written => Some(path.clone()),
        _ => None,
    });
    lost.collect()
}

/// The highest epoch that the manifest of another shard says this one had reached. What is wrong with that manifest is for
/// its own shard to say.
async fn reached_epoch<D: Disk>(disk: &D, home: &ShardHome<'_>) -> Option<ReachedEpoch> {
    let node = home.directory.parent()?;
    let mut highest: Option<ReachedEpoch> = None;
    for shard in (0..home.shard_count).map(ShardId).filter(|shard| *shard != home.shard) {
        let log = node.join(format!("shard-{shard}")).join("log");
        let Ok(Some(manifest)) = Manifest::read(disk, &log).await else { continue };
        let epoch = manifest.shard_epochs.get(usize::from(home.shard.0)).filter(|_| manifest.shard == shard);
        if let Some(epoch) =
            epoch.copied().filter(|epoch| highest.as_ref().is_none_or(|other| other.epoch < *epoch))
        {
            highest = Some(ReachedEpoch { shard, epoch });
        }
    }
    highest
}

/// What keeps a start from opening the shard's files, whatever is in them: something else has the name of one of them. Asked
/// before anything is changed.
pub async fn refused_names<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<DiskError>, DiskError> {
    let mut refused = check_spares(disk, &directory.join("log")).await?;
    refused.extend(Snapshot::read_both(disk, directory).await?.into_iter().filter_map(|found| match found {
        FoundSnapshot::Refused(error) => Some(error),
        _ => None,
    }));
    refused.append(&mut check_files(disk, &directory.join("index")).await?);
    Ok(refused)
}

/// Everything in which a shard's log contradicts what is known of it, with nothing changed. For tools; the shard must not
/// be running.
pub async fn check_shard<D: Disk>(disk: &D, home: &ShardHome<'_>) -> Result<Vec<Contradiction>, StartError> {
    Witnesses::hear(disk, home).await?.contradictions(disk, home).await
}

/// Lets a shard go on without what is missing, or tells what that would be: see `log::repair`. `secret` is for a log that
/// begins anew. The shard must not be running.
pub async fn repair_shard<D: Disk>(
    disk: &D,
    home: &ShardHome<'_>,
    secret: LogSecret,
    act: Act,
) -> Result<Repair, StartError> {
    let log = home.directory.join("log");
    // No repair makes them good, and the start would be refused all the same.
    if let Some(error) = refused_names(disk, home.directory).await?.into_iter().next() {
        return Err(error.into());
    }
    let finished = finish_repair(disk, &log, act).await?;
    if let (Act::Tell, Some(told)) = (act, &finished) {
        return Ok(told.clone());
    }
    let mut witnesses = Witnesses::hear(disk, home).await?;
    // A log that begins anew goes on with its snapshots.
    let named = witnesses.known.reached.iter().find_map(|reached| reached.secret);
    let secret = named.unwrap_or(secret);
    let mut repaired = repair(disk, &log, &witnesses.known, secret, act).await?;
    witnesses.estimate(&mut repaired.contradictions);
    let foreign: Vec<PathBuf> = witnesses.foreign.iter().map(|found| PathBuf::from(&found.file)).collect();
    repaired.steps.extend(foreign.iter().map(|path| format!("{} is moved aside", path.display())));
    repaired.contradictions.append(&mut witnesses.foreign);
    if act == Act::Do && !foreign.is_empty() {
        move_aside(disk, &log, &foreign).await?;
    }
    if act == Act::Do && !repaired.contradictions.is_empty() {
        disk.sync_directory(home.directory).await?;
    }
    if let Some(mut all) = finished {
        all.contradictions.append(&mut repaired.contradictions);
        all.steps.append(&mut repaired.steps);
        all.given_up_bytes += repaired.given_up_bytes;
        return Ok(all);
    }
    Ok(repaired)
}
