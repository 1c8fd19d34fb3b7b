//! The check as a whole, and what it has found.

use std::path::Path;

use super::holding::{check_manifest, check_offsets, check_snapshots, open_index};
use super::log_pass::{Gap, LogPass};
use crate::broker::open::StartError;
use crate::broker::upkeep::{ShardHome, Witnesses, check_shard, refused_names};
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::index::keys::{KeyCheck, KeyDamage, KeyIndex};
use crate::index::{Index, IndexError};
use crate::limits::BLOCK_BYTES;
use crate::log::{Contradiction, Damage, Flaw, GivenUpRange, OpenError, SEGMENT_HEADER_BYTES, scan};
use crate::types::LogPosition;

/// Something that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub file: String,
    /// Where in the file, and how much of it; zeros when it is about the file as a whole.
    pub position: u64,
    pub bytes: u64,
    /// Messages that cannot be read because of it, when that is known.
    pub messages: Option<u64>,
    pub detail: String,
}

impl Finding {
    pub(in crate::broker) fn of_file(file: &Path, detail: impl ToString) -> Self {
        let (file, detail) = (file.display().to_string(), detail.to_string());
        Self { file, position: 0, bytes: 0, messages: None, detail }
    }

    /// A device that does not read, whatever is stored there.
    pub(in crate::broker) fn of_disk(error: &DiskError) -> Self {
        let position = error.position.unwrap_or(0);
        Self { position, ..Self::of_file(&error.path, error) }
    }

    pub(in crate::broker) fn of_index(error: &IndexError, directory: &Path) -> Self {
        match error {
            IndexError::Damaged { file, position, reason } => {
                Self { position: *position, bytes: BLOCK_BYTES as u64, ..Self::of_file(file, reason) }
            }
            IndexError::Disk(error) => Self::of_disk(error),
            other => Self::of_file(directory, other),
        }
    }
}

/// What a shard holds, and what is wrong with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checked {
    pub batches: u64,
    pub messages: u64,
    pub log_end: LogPosition,
    /// Bytes after the end that were never answered; the next start cuts them off.
    pub is_torn: bool,
    /// Only a copy makes it good.
    pub damage: Vec<Finding>,
    /// For as many of these places a start is refused; around the others it serves.
    pub refusals: usize,
    /// The broker makes it anew by itself.
    pub derived: Vec<Finding>,
    /// Nobody knows: it may not be read by who checks, or was written by a newer release.
    pub unread: Vec<Finding>,
    /// What an operator gave up before, and how many messages that were.
    pub given_up: Vec<GivenUpRange>,
    pub messages_given_up: u64,
    /// Messages that cannot be read, in all: what the queues lack, or where nothing tells that, what is missing by the
    /// damage.
    pub messages_missing: u64,
    /// What a queue lacks was given up in part and is missing in part, and nobody can tell how much of it is which.
    pub is_uncounted: bool,
}

impl Checked {
    /// What the disk has answered with an error.
    pub(in crate::broker) fn add_disk_error(&mut self, error: &DiskError) {
        match error.kind {
            DiskErrorKind::PermissionDenied => self.unread.push(Finding::of_disk(error)),
            _ => self.refuse(Finding::of_disk(error)),
        }
    }

    /// Takes note of damage that keeps the broker from starting.
    fn refuse(&mut self, damage: Finding) {
        self.damage.push(damage);
        self.refusals += 1;
    }

    /// What is no file of the log, and keeps the broker from starting: no message is missing by it.
    fn add_refused_name(&mut self, error: &DiskError) {
        match error.kind {
            DiskErrorKind::PermissionDenied => self.unread.push(Finding::of_disk(error)),
            _ => self.refuse(Finding { messages: Some(0), ..Finding::of_disk(error) }),
        }
    }

    /// Takes note of an error in a file that is made from the log.
    pub(in crate::broker) fn add_derived_error(&mut self, error: &DiskError) {
        match error.kind {
            DiskErrorKind::PermissionDenied => self.unread.push(Finding::of_disk(error)),
            // The broker starts, and tries on.
            DiskErrorKind::NotRegular => {
                let detail = format!("{error}: move that away, and it is made anew");
                self.damage.push(Finding { messages: Some(0), detail, ..Finding::of_disk(error) });
            }
            _ => self.derived.push(Finding::of_disk(error)),
        }
    }

    fn add_damaged_keys(&mut self, damage: Vec<KeyDamage>) {
        self.derived.extend(damage.into_iter().map(|damage| Finding {
            position: damage.position,
            bytes: BLOCK_BYTES as u64,
            ..Finding::of_file(&damage.file, "a block of keys does not match its checksum")
        }));
    }

    /// What has ended the check, which a start would be refused for as well.
    fn add_refusal(&mut self, home: &ShardHome<'_>, error: StartError) {
        match error {
            StartError::Disk(error)
            | StartError::Log(OpenError::Disk(error))
            | StartError::Index(IndexError::Disk(error)) => self.add_disk_error(&error),
            StartError::Log(OpenError::Lacking { contradictions, .. }) => {
                add_contradictions(&contradictions, &[], self);
            }
            StartError::Log(
                ref error @ (OpenError::WrongShard { ref file, .. }
                | OpenError::WrongShardCount { ref file, .. }),
            ) => self.refuse(Finding::of_file(Path::new(file), error)),
            error => self.unread.push(Finding::of_file(home.directory, error)),
        }
    }
}

/// Checks a shard that does not run. `progress` is called with the bytes of log that were read so far. What keeps it from
/// going on is a finding as well: nothing is known then of what it did not come to.
pub async fn verify_shard<D: Disk>(disk: &D, home: &ShardHome<'_>, progress: &dyn Fn(u64)) -> Checked {
    let mut checked = Checked::default();
    if let Err(error) = verify(disk, home, progress, &mut checked).await {
        checked.add_refusal(home, error);
    }
    checked
}

async fn verify<D: Disk>(
    disk: &D,
    home: &ShardHome<'_>,
    progress: &dyn Fn(u64),
    checked: &mut Checked,
) -> Result<(), StartError> {
    let refused = refused_names(disk, home.directory).await?;
    refused.iter().for_each(|error| checked.add_refused_name(error));
    let mut contradictions = check_shard(disk, home).await?;
    if contradictions.iter().any(|found| found.flaw == Flaw::Interrupted) {
        add_contradictions(&contradictions, &[], checked);
        return Ok(());
    }
    check_manifest(disk, home, checked).await?;
    let witnesses = Witnesses::hear(disk, home).await?;
    let snapshot = check_snapshots(disk, home, &witnesses, checked).await?;
    let index_directory = home.directory.join("index");
    let index = match &snapshot {
        // It was told above.
        Some(_) if refused.iter().any(|error| error.path.starts_with(&index_directory)) => None,
        Some(snapshot) => open_index(disk, home, snapshot, checked).await?,
        None => None,
    };
    let keys = home.directory.join("keys");
    let opened = KeyCheck::open(disk, &keys).await;
    let key_check = opened.map_err(|error| checked.add_derived_error(&error)).ok();
    let key_check = key_check.unwrap_or_else(KeyCheck::of_nothing);
    let mut pass = LogPass::new(key_check, home.directory, index.as_ref(), snapshot.as_ref(), progress);
    let report = match scan(disk, &home.directory.join("log"), &witnesses.known, &mut pass).await {
        Err(error) => {
            add_contradictions(&contradictions, &[], checked);
            return Err(error.into());
        }
        Ok(report) => report,
    };
    if !report.is_cut {
        contradictions.iter_mut().for_each(|found| sharpen(found, report.end));
    }
    let passed = pass.finish().await?;
    (checked.batches, checked.messages) = (report.batches, passed.messages);
    (checked.log_end, checked.is_torn) = (report.end, report.torn);
    checked.given_up = report.given_up;
    let is_given_up = |from: LogPosition, to: LogPosition| {
        checked.given_up.iter().any(|range| range.from < to && from < range.to)
    };
    let is_damage =
        |damage: &Damage| !is_given_up(damage.log_position, damage.log_position.advance(damage.bytes.max(1)));
    let (damage, _): (Vec<_>, Vec<_>) = report.damage.into_iter().partition(is_damage);
    let (given_up, gaps): (Vec<Gap>, Vec<Gap>) =
        passed.gaps.iter().partition(|gap| is_given_up(gap.from, gap.to));
    let (shared, given_up): (Vec<Gap>, Vec<Gap>) =
        given_up.into_iter().partition(|gap| contradictions.iter().any(|found| is_within(gap, found)));
    checked.messages_given_up = given_up.iter().map(|gap| gap.messages).sum();
    count_missing(&gaps, &mut contradictions);
    uncount(&shared, &mut contradictions, checked);
    add_contradictions(&contradictions, &damage, checked);
    attribute_gaps(&gaps, &contradictions, &damage, checked);
    checked.derived.extend(passed.derived);
    if let Some(snapshot) = &snapshot {
        check_offsets(home, snapshot, &passed.ends, checked);
    }
    check_keys(disk, &keys, checked).await;
    if let Some(index) = &index {
        close(index).await?;
    }
    Ok(())
}

/// The blocks of the keys. That they cannot be read is told once.
async fn check_keys<D: Disk>(disk: &D, keys: &Path, checked: &mut Checked) {
    let told = |error: &DiskError, findings: &[Finding]| {
        let file = error.path.display().to_string();
        findings.iter().any(|finding| finding.file == file)
    };
    match KeyIndex::verify(disk, keys).await {
        Ok(damage) => checked.add_damaged_keys(damage),
        Err(error)
            if [&checked.unread, &checked.damage, &checked.derived]
                .iter()
                .any(|found| told(&error, found)) => {}
        Err(error) => checked.add_derived_error(&error),
    }
}

async fn close<D: Disk>(index: &Index<D>) -> Result<(), StartError> {
    Ok(index.close().await?)
}

/// Where a file was cut off and the log had ended before, nothing is missing: nobody knows that but who has read it.
fn sharpen(contradiction: &mut Contradiction, log_end: LogPosition) {
    if let Flaw::Short { .. } = contradiction.flaw
        && log_end <= contradiction.from
    {
        contradiction.end = contradiction.from;
    }
}

/// Whether messages of a gap may have been in what is missing.
fn is_within(gap: &Gap, found: &Contradiction) -> bool {
    found.from < gap.to && gap.from < found.to
}

/// Of a gap that what was given up before and what is missing now have made together, nobody can tell how much was in which.
fn uncount(shared: &[Gap], contradictions: &mut [Contradiction], checked: &mut Checked) {
    for found in contradictions.iter_mut().filter(|found| shared.iter().any(|gap| is_within(gap, found))) {
        found.messages = None;
        checked.is_uncounted = true;
    }
}

/// All that is missing around the only file that is not what it must be is missing by it, which is no guess.
fn count_missing(gaps: &[Gap], contradictions: &mut [Contradiction]) {
    let [found] = contradictions else { return };
    let gaps = gaps.iter().filter(|gap| is_within(gap, found));
    let missing: u64 = gaps.map(|gap| gap.messages).sum();
    found.messages = Some(missing).filter(|missing| *missing > 0).or(found.messages);
}

/// Whether damage that was met is what a contradiction says already.
fn is_told(damage: &Damage, contradictions: &[Contradiction]) -> bool {
    let end = damage.log_position.advance(damage.bytes);
    contradictions.iter().any(|found| found.from < end && damage.log_position < found.to)
}

/// Files that are not there or not as they must be, and damaged places in the others.
fn add_contradictions(contradictions: &[Contradiction], damage: &[Damage], checked: &mut Checked) {
    checked.refusals += contradictions.len();
    checked.damage.extend(contradictions.iter().map(|found| Finding {
        file: found.file.clone(),
        // Of a file that was cut off the bytes before are there.
        position: match found.flaw {
            Flaw::Short { bytes, .. } if found.lost_bytes() > 0 => bytes,
            Flaw::BeginningUnreadable { .. } => SEGMENT_HEADER_BYTES as u64,
            Flaw::EndUnreadable { position } => position,
            _ => 0,
        },
        bytes: found.lost_bytes(),
        messages: found.lost_messages(),
        detail: found.to_string(),
    }));
    let untold = damage.iter().filter(|damage| !is_told(damage, contradictions));
    checked.damage.extend(untold.map(|damage| Finding {
        file: damage.file.clone(),
        position: damage.position,
        bytes: damage.bytes,
        messages: Some(0),
        detail: format!("{} bytes are not as they were written", damage.bytes),
    }));
}

/// Says of each damaged place how many messages are missing by it: those that their queue lacks around it. Of files that
/// are missing the index may have said so already, for each by itself.
fn attribute_gaps(gaps: &[Gap], contradictions: &[Contradiction], damage: &[Damage], checked: &mut Checked) {
    let told = contradictions.len();
    let mut counts = vec![0; checked.damage.len()];
    for gap in gaps {
        checked.messages_missing += gap.messages;
        let contradiction = contradictions.iter().position(|found| is_within(gap, found));
        if contradiction.is_some_and(|index| checked.is_uncounted && contradictions[index].messages.is_none())
        {
            continue;
        }
        let kept = damage.iter().filter(|damage| !is_told(damage, contradictions));
        let damaged = || {
            let within = |damage: &Damage| {
                damage.log_position < gap.to && gap.from < damage.log_position.advance(damage.bytes.max(1))
            };
            kept.clone().position(within).map(|index| told + index)
        };
        // Findings that were there before the contradictions come first.
        let first = checked.damage.len() - told - kept.clone().count();
        if let Some(index) = contradiction.or_else(damaged) {
            counts[first + index] += gap.messages;
        }
    }
    for (finding, count) in checked.damage.iter_mut().zip(counts).filter(|(_, count)| *count > 0) {
        if finding.messages.is_none_or(|known| known == 0) {
            finding.messages = Some(count);
        }
    }
    if checked.messages_missing == 0 {
        checked.messages_missing = checked.damage.iter().filter_map(|finding| finding.messages).sum();
    }
}
