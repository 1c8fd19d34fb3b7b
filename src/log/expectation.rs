//! What a log must hold, and what of it is not there.
//!
//! Four witnesses are held against the files: the manifest, which segments there are and how far the log had got; the
//! snapshots, how far it had got; the segments' own headers, where each belongs, how large it is and whose it is; the
//! other shards' manifests, which epoch this one had reached. What contradicts them is never taken for the log's end: it is
//! refused by name, and a start changes nothing.
//!
//! | flaw          | found at the place of a segment                    | what of the log is gone |
//! | ------------- | -------------------------------------------------- | ----------------------- |
//! | missing       | no file, though one was made there                 | its whole range |
//! | empty         | a file of no bytes                                 | its whole range |
//! | short         | less than its header, or the next one's name, says | what is after the file's end |
//! | beginning unreadable | not the log's first batch: see `missing_part`  | what is before the first batch that is there |
//! | end unreadable | no batch where one must be: see `missing_part`    | what is after the last batch that is there |
//! | long          | more than that                                     | nothing |
//! | misplaced     | the header of another place of this log            | its whole range, unless it is put back |
//! | foreign       | the header of another log                          | its whole range |
//! | blank         | no header and no batch, though it was used         | its whole range |
//! | stray         | a file in the middle of another one, or before all | nothing |
//! | manifest lost | no manifest of this log that can be read           | nothing |
//! | outdated      | a manifest that is older than what is stored       | nothing; see `outdated` |
//! | older         | all of an earlier day than another shard is        | everything from then on, however much that was |
//! | nothing       | no log at all, though there was one                | everything |
//! | interrupted   | a repair that was begun and not finished           | not known before it is; see `repair_journal` |
//!
//! A file may be taken away by a start when nothing was ever in it, and that is known: it was never registered, or lies
//! after the place where the log was stopped, and holds neither its header nor a batch.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::Path;

use futures_util::future::join_all;

use super::error::OpenError;
use super::manifest::{self, Holdings, Manifest};
use super::missing_part::missing_parts;
use super::outdated::{LostManifest, Outdated, OwnManifest};
use super::recovery::holds_batches;
use super::repair_journal::interrupted;
use super::segment::{
    FoundHeader, SEGMENT_HEADER_BYTES, Segment, SegmentHeader, parse_segment_name, segment_name,
};
use crate::disk::{Disk, DiskError, DiskErrorKind, DiskFile, OpenMode};
use crate::limits::BLOCK_BYTES;
use crate::types::{LogPosition, ShardId};
use crate::wire::batch::{BatchHeader, LogSecret};

/// A segment has a header and room for a batch.
pub(super) const SEGMENT_FILE_BYTES_MIN: u64 = 2 * SEGMENT_HEADER_BYTES as u64;

/// What is read of each segment: its header, and the block in which its first batch begins.
pub(super) const HEAD_BYTES: usize = SEGMENT_HEADER_BYTES + BLOCK_BYTES;
/// Segments that are opened together.
pub(super) const LOOKED_AT_ONCE: usize = 16;

/// What is known of a log from elsewhere.
#[derive(Clone, Debug)]
pub struct Known {
    pub shard: ShardId,
    pub shard_count: u16,
    /// The log is not new: there must be one.
    pub is_made: bool,
    /// How far it had got, by those who say so.
    pub reached: Vec<Reached>,
    /// The highest epoch that another shard's manifest says this one had reached.
    pub reached_epoch: Option<ReachedEpoch>,
}

impl Known {
    /// Nothing but whose log it is.
    pub fn nothing(shard: ShardId, shard_count: u16) -> Self {
        Self { shard, shard_count, is_made: false, reached: Vec::new(), reached_epoch: None }
    }
}

/// A file outside of the log that says how far the log had got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    pub file: String,
    pub position: LogPosition,
    pub epoch: u32,
    /// Of the log, if it says so.
    pub secret: Option<LogSecret>,
}

/// What another shard's manifest says of this shard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReachedEpoch {
    pub shard: ShardId,
    pub epoch: u32,
}

/// What is wrong with a file of the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flaw {
    Missing,
    Empty,
    Short {
        bytes: u64,
        expected: u64,
    },
    /// The file has its size, and not what was stored at its beginning, up to this place in it.
    BeginningUnreadable {
        position: u64,
    },
    /// The file has its size, and not what was stored at its end, from this place in it on.
    EndUnreadable {
        position: u64,
    },
    Long {
        bytes: u64,
        expected: u64,
    },
    Misplaced {
        belongs: LogPosition,
    },
    Foreign {
        shard: u16,
    },
    Blank,
    Stray,
    ManifestLost(LostManifest),
    ManifestOutdated(Outdated),
    /// The log has got to `epoch`, and another shard knows that it had got further.
    Older {
        epoch: u32,
        reached: ReachedEpoch,
    },
    Nothing,
    /// A repair of this log was begun, and has not come to its end.
    Interrupted,
}

impl Flaw {
    /// Whether nobody can tell how much is missing by it.
    fn loses_unknown(self) -> bool {
        matches!(self, Flaw::Nothing | Flaw::Older { .. } | Flaw::Interrupted)
    }
}

/// A file that is not as it must be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Contradiction {
    pub file: String,
    pub flaw: Flaw,
    /// What of the log is not there, from here ...
    pub from: LogPosition,
    /// ... up to here; the same when nothing of it is missing.
    pub to: LogPosition,
    /// Nothing was stored from here on below `to`, as is known of a log that was stopped well.
    pub end: LogPosition,
    /// About how many messages that is, when something is known of it.
    pub messages: Option<u64>,
}

/// A segment's file as it was found.
pub(super) struct Facts {
    pub file_bytes: u64,
    pub header: FoundHeader,
    /// Its first batch, if one stands where it belongs.
    pub begun: Option<BatchHeader>,
    /// Batches that fit their place were found in it.
    pub holds_batches: bool,
}

/// What the witnesses say of the files.
#[derive(Default)]
pub(super) struct Verdict {
    pub contradictions: Vec<Contradiction>,
    /// Sizes of the segments, as they must be.
    pub sizes: BTreeMap<LogPosition, u64>,
    /// Segments that are known to hold something.
    pub used: BTreeSet<LogPosition>,
    /// Files that never held anything, whose making was cut off.
    pub unfinished: Vec<LogPosition>,
}

impl Contradiction {
    /// What may have been stored in what is missing.
    pub fn lost_bytes(&self) -> u64 {
        self.end.min(self.to).0.saturating_sub(self.from.0)
    }

    /// About how many messages are missing by it; `None` when nobody can tell.
    pub fn lost_messages(&self) -> Option<u64> {
        let loses_nothing = self.lost_bytes() == 0 && !self.flaw.loses_unknown();
        if loses_nothing { Some(0) } else { self.messages }
    }
}

impl fmt::Display for Contradiction {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let file = &self.file;
        match self.flaw {
            Flaw::Missing => write!(formatter, "{file} is missing")?,
            Flaw::Empty => write!(formatter, "{file} is empty")?,
            Flaw::Short { bytes, expected } => {
                write!(formatter, "{file} has {bytes} bytes of {expected}: it was cut off")?;
            }
            Flaw::BeginningUnreadable { position } => {
                write!(formatter, "{file} does not hold what was stored in it up to byte {position}")?;
            }
            Flaw::EndUnreadable { position } => {
                write!(formatter, "{file} does not hold what was stored in it from byte {position} on")?;
            }
            Flaw::Long { bytes, expected } => {
                write!(formatter, "{file} has {bytes} bytes, {expected} were written")?;
            }
            Flaw::Misplaced { belongs } => {
                write!(formatter, "{file} is what was written as {}", segment_name(belongs))?;
            }
            Flaw::Foreign { shard } => {
                write!(formatter, "{file} belongs to another log (its shard is {shard})")?;
            }
            Flaw::Blank => write!(formatter, "{file} holds neither a header nor a batch, but was used")?,
            Flaw::Stray => write!(formatter, "{file} has no place in this log")?,
            Flaw::ManifestLost(lost) => write!(formatter, "{file} {lost}")?,
            Flaw::ManifestOutdated(outdated) => write!(formatter, "{file} is {outdated}")?,
            Flaw::Older { epoch, reached: ReachedEpoch { shard, epoch: known } } => write!(
                formatter,
                "{file} is older than the other shards: it was last used in epoch {epoch}, and shard {shard} knows that \
                 this one had got to epoch {known}; restore all shards from one copy, or put this one of the other \
                 shards' day back"
            )?,
            Flaw::Nothing => write!(formatter, "{file} holds no log, but there was one")?,
            Flaw::Interrupted => {
                return write!(
                    formatter,
                    "a repair was interrupted: {file} says what it still has to do, and `turbopump log repair` with --yes \
                     goes on with it"
                );
            }
        }
        let bytes = self.lost_bytes();
        if self.flaw.loses_unknown() && bytes == 0 {
            return write!(formatter, "; an unknown number of messages is missing by that");
        }
        if bytes == 0 {
            return write!(formatter, "; no stored message is missing by that");
        }
        write!(formatter, "; missing are the log's bytes {} to {}", self.from, self.end.min(self.to))?;
        match self.messages {
            Some(count) => write!(formatter, ", {bytes} in all, with about {count} messages"),
            None => write!(formatter, ", {bytes} in all, with an unknown number of messages"),
        }
    }
}

/// Holds a log against everything that is known of it, without changing anything. For tools, and for a repair; a start
/// does the same. The shard must not be running.
pub async fn contradictions<D: Disk>(
    disk: &D,
    directory: &Path,
    known: &Known,
) -> Result<Vec<Contradiction>, OpenError> {
    if let Some(found) = interrupted(disk, directory).await? {
        // What else is wrong is known when it has come to its end.
        return Ok(vec![found]);
    }
    let (manifest, facts) = hear(disk, directory, known).await?;
    let manifest = manifest.look_past_end(disk, directory, &facts, known).await?;
    examine(disk, directory, (&manifest, &facts), known).await
}

/// The secret of the log, as its manifest says, or its segments when the manifest is of another one.
pub async fn secret_of_log<D: Disk>(
    disk: &D,
    directory: &Path,
    known: &Known,
) -> Result<Option<LogSecret>, OpenError> {
    let (manifest, facts) = hear(disk, directory, known).await?;
    Ok(manifest.found().map(|manifest| manifest.secret).or_else(|| secret_of(&facts)))
}

/// Reads the manifest, and looks at every segment's file with the secret of the log that they are of.
pub(super) async fn hear<D: Disk>(
    disk: &D,
    directory: &Path,
    known: &Known,
) -> Result<(OwnManifest, BTreeMap<LogPosition, Facts>), OpenError> {
    let manifest = Manifest::read(disk, directory).await?;
    let mut facts = survey(disk, directory, manifest.as_ref().map(|manifest| manifest.secret)).await?;
    let is_there = list_log(disk, directory).await?.iter().any(|name| name == manifest::NAME);
    let manifest = own_manifest(directory, (manifest, is_there), &facts, known)?;
    if let OwnManifest::Lost(LostManifest::Foreign { .. }) = manifest {
        // With its secret no batch of theirs can be told from any other bytes.
        facts = survey(disk, directory, secret_of(&facts)).await?;
    }
    Ok((manifest, facts))
}

/// Names of a log's files; none where there is no log.
pub(super) async fn list_log<D: Disk>(disk: &D, directory: &Path) -> Result<Vec<String>, DiskError> {
    match disk.list(directory).await {
        Err(error) if error.kind == DiskErrorKind::NotFound => Ok(Vec::new()),
        names => names,
    }
}

/// The manifest, if it could be read, unless it is of another log than the segments are: then it is as good as lost. Of another shard, with
/// segments that are no more of this one, or of a node with another number of shards, all belongs elsewhere.
pub(super) fn own_manifest(
    directory: &Path,
    (manifest, is_there): (Option<Manifest>, bool),
    facts: &BTreeMap<LogPosition, Facts>,
    known: &Known,
) -> Result<OwnManifest, OpenError> {
    let Some(manifest) = manifest else {
        return Ok(OwnManifest::Lost(if is_there {
            LostManifest::Unreadable
        } else {
            LostManifest::Missing
        }));
    };
    let foreign = OwnManifest::Lost(LostManifest::Foreign { shard: manifest.shard.0 });
    let file = || directory.join(manifest::NAME).display().to_string();
    let mut named = facts.iter().filter_map(|(base, facts)| match facts.header {
        FoundHeader::Valid(header) if header.base == *base => Some(header),
        _ => None,
    });
    if manifest.shard != known.shard {
        if named.any(|header| header.shard == known.shard.0) {
            return Ok(foreign);
        }
        return Err(OpenError::WrongShard { file: file(), found: manifest.shard.0, expected: known.shard.0 });
    }
    let described = known.shard_count;
    match manifest.holdings.map(|holdings| holdings.shard_count) {
        Some(made) if made != described => {
            return Err(OpenError::WrongShardCount { file: file(), made, described });
        }
        _ => {}
    }
    let secrets: BTreeSet<u64> = named.map(|header| header.secret.0).collect();
    let is_own = secrets.is_empty() || secrets.contains(&manifest.secret.0);
    Ok(if is_own { OwnManifest::held_against(manifest, facts, known) } else { foreign })
}

/// Looks at every segment's file.
pub(super) async fn survey<D: Disk>(
    disk: &D,
    directory: &Path,
    secret: Option<LogSecret>,
) -> Result<BTreeMap<LogPosition, Facts>, OpenError> {
    let names = list_log(disk, directory).await?;
    let bases: Vec<_> = names.iter().filter_map(|name| parse_segment_name(name)).collect();
    let mut secret = secret;
    let mut all = BTreeMap::new();
    for some in bases.chunks(LOOKED_AT_ONCE) {
        for begun in begin_segments(disk, directory, some, OpenMode::ReadOnly).await? {
            let facts = look(&begun, &mut secret).await;
            let base = begun.segment.base;
            begun.segment.file.close().await?;
            all.insert(base, facts?);
        }
    }
    Ok(all)
}

/// A segment's file, opened, with what it begins with.
pub(super) struct Begun<D: Disk> {
    pub segment: Segment<D>,
    /// Its header and the block after it, as far as they are there.
    blocks: Vec<u8>,
}

/// Opens segments' files together and reads how each begins: each of them is a few waits for the device.
pub(super) async fn begin_segments<D: Disk>(
    disk: &D,
    directory: &Path,
    bases: &[LogPosition],
    mode: OpenMode,
) -> Result<Vec<Begun<D>>, DiskError> {
    let begin = async |base: LogPosition| {
        let path = directory.join(segment_name(base));
        let file = disk.open(&path, mode).await?;
        let bytes = file.size().await?;
        // A block that is not all there cannot be read with direct I/O.
        let head = (bytes / BLOCK_BYTES as u64 * BLOCK_BYTES as u64).min(HEAD_BYTES as u64) as usize;
        let blocks = if head > 0 { file.read(0, head).await?.to_vec() } else { Vec::new() };
        Ok(Begun { segment: Segment::new(base, bytes, file, path), blocks })
    };
    join_all(bases.iter().map(|base| begin(*base))).await.into_iter().collect()
}

/// Looks at how a segment's file begins. `secret` is taken from the first header that has one.
pub(super) async fn look<D: Disk>(
    begun: &Begun<D>,
    secret: &mut Option<LogSecret>,
) -> Result<Facts, OpenError> {
    let Begun { segment, blocks } = begun;
    let file_bytes = segment.bytes;
    let mut facts = Facts { file_bytes, header: FoundHeader::Other, begun: None, holds_batches: false };
    if blocks.is_empty() {
        return Ok(facts);
    }
    facts.header = SegmentHeader::decode(blocks);
    if let FoundHeader::Newer(version) = facts.header {
        let file = segment.path.display().to_string();
        return Err(OpenError::Newer { file, what: format!("segment version {version}") });
    }
    if let FoundHeader::Valid(header) = facts.header {
        *secret = secret.or((header.base == segment.base).then_some(header.secret));
    }
    let secret = secret.unwrap_or_default();
    if blocks.len() == HEAD_BYTES {
        facts.begun = first_batch(blocks, segment.base, secret);
    }
    let is_own = matches!(facts.header, FoundHeader::Valid(header) if header.base == segment.base);
    facts.holds_batches = facts.begun.is_some()
        || (!is_own && file_bytes >= SEGMENT_FILE_BYTES_MIN && holds_batches(segment, secret).await?);
    Ok(facts)
}

/// The segment's first batch, if one stands where it belongs.
pub(super) fn first_batch(blocks: &[u8], base: LogPosition, secret: LogSecret) -> Option<BatchHeader> {
    let header = BatchHeader::decode_stored(&blocks[SEGMENT_HEADER_BYTES..], secret).ok()?;
    (header.position == base.advance(SEGMENT_HEADER_BYTES as u64)).then_some(header)
}

/// Holds the files against the witnesses.
pub(super) fn judge(
    directory: &Path,
    manifest: &OwnManifest,
    facts: &BTreeMap<LogPosition, Facts>,
    known: &Known,
) -> Verdict {
    let secret = manifest.found().map(|manifest| manifest.secret).or_else(|| secret_of(facts));
    let mut court = Court {
        directory,
        shard: known.shard,
        secret,
        holdings: manifest.current().and_then(|manifest| manifest.holdings),
        reached: manifest.reached(known),
        facts,
        verdict: Verdict::default(),
    };
    let is_used = |(base, facts): &(&LogPosition, &Facts)| facts.holds_batches || court.is_own(**base, facts);
    court.verdict.used = facts.iter().filter(is_used).map(|(base, _)| *base).collect();
    court.judge(manifest, known.is_made);
    court.judge_age(manifest, known);
    court.verdict
}

/// Holds the files against the witnesses, and looks into those whose end nobody else tells of.
pub(super) async fn examine<D: Disk>(
    disk: &D,
    directory: &Path,
    (manifest, facts): (&OwnManifest, &BTreeMap<LogPosition, Facts>),
    known: &Known,
) -> Result<Vec<Contradiction>, OpenError> {
    let verdict = judge(directory, manifest, facts, known);
    let missing = missing_parts(disk, directory, (manifest, facts), known, &verdict).await?;
    let mut contradictions = verdict.contradictions;
    contradictions.extend(missing);
    Ok(contradictions)
}

/// The secret that most of the segments name.
pub(super) fn secret_of(facts: &BTreeMap<LogPosition, Facts>) -> Option<LogSecret> {
    let mut votes: BTreeMap<u64, usize> = BTreeMap::new();
    for (base, facts) in facts {
        if let FoundHeader::Valid(header) = facts.header
            && header.base == *base
        {
            *votes.entry(header.secret.0).or_default() += 1;
        }
    }
    votes.into_iter().max_by_key(|(_, votes)| *votes).map(|(secret, _)| LogSecret(secret))
}

/// One judgement.
struct Court<'a> {
    directory: &'a Path,
    shard: ShardId,
    secret: Option<LogSecret>,
    holdings: Option<Holdings>,
    /// The highest that any witness names.
    reached: LogPosition,
    facts: &'a BTreeMap<LogPosition, Facts>,
    verdict: Verdict,
}

impl Court<'_> {
    fn judge(&mut self, manifest: &OwnManifest, is_made: bool) {
        let nothing = LogPosition::ZERO;
        if let OwnManifest::Outdated(_, outdated) = manifest {
            self.add(manifest::NAME, Flaw::ManifestOutdated(*outdated), nothing, nothing);
        }
        if manifest.current().is_none() {
            let has_files = self.facts.iter().any(|(_, facts)| facts.file_bytes > 0);
            if let OwnManifest::Lost(lost) = manifest
                && has_files
            {
                self.add(manifest::NAME, Flaw::ManifestLost(*lost), nothing, nothing);
            } else if !has_files && (is_made || self.reached > nothing) {
                // Whatever there was. Its end is not known, but for what others say.
                let to = LogPosition(self.reached.0.next_multiple_of(BLOCK_BYTES as u64));
                self.add("", Flaw::Nothing, nothing, to);
                return;
            }
        }
        let first = self.first_base();
        let mut position = first;
        for (base, facts) in self.facts.range(first..) {
            if *base < position {
                self.add(&segment_name(*base), Flaw::Stray, *base, *base);
                continue;
            }
            if *base > position {
                self.add(&segment_name(position), Flaw::Missing, position, *base);
            }
            position = self.judge_file(*base, facts);
        }
        for base in self.facts.range(..first).map(|(base, _)| *base) {
            self.add(&segment_name(base), Flaw::Stray, base, base);
        }
        let made_end = self.holdings.map_or(nothing, |holdings| holdings.end());
        let must_end = made_end.max(LogPosition(self.reached.0.next_multiple_of(BLOCK_BYTES as u64)));
        if position < must_end && !self.was_never_used(position) {
            self.add(&segment_name(position), Flaw::Missing, position, must_end);
        }
    }

    /// Holds the epoch of the log against what the other shards know. Of a log whose manifest is lost or outdated it is not
    /// known.
    fn judge_age(&mut self, manifest: &OwnManifest, known: &Known) {
        let (Some(manifest), Some(reached)) = (manifest.current(), known.reached_epoch) else { return };
        let is_named = self.verdict.contradictions.iter().any(|found| found.flaw == Flaw::Nothing);
        if manifest.epoch >= reached.epoch || is_named {
            return;
        }
        // After everything that is there or was named: what was only prepared then was used since.
        let size = |base: &LogPosition| self.verdict.sizes.get(base).copied().unwrap_or(0);
        let used = self.verdict.used.last().map(|base| base.advance(size(base)));
        let named = self.verdict.contradictions.iter().map(|found| found.to);
        let end = named.chain(used).max().unwrap_or_else(|| self.first_base());
        let flaw = Flaw::Older { epoch: manifest.epoch, reached };
        self.add("", flaw, end, end);
    }

    /// Where the log begins: where the manifest says, or before that when retention was cut off between saying so and
    /// taking the file away.
    fn first_base(&self) -> LogPosition {
        let Some(holdings) = self.holdings.filter(|holdings| holdings.last_bytes > 0) else {
            return self.facts.keys().next().copied().unwrap_or(LogPosition::ZERO);
        };
        let mut first = holdings.first_base;
        for (base, facts) in self.facts.range(..first).rev() {
            if !self.is_own(*base, facts) || base.advance(facts.file_bytes) != first {
                break;
            }
            first = *base;
        }
        first
    }

    /// Judges one file, and returns where the next one must begin.
    fn judge_file(&mut self, base: LogPosition, facts: &Facts) -> LogPosition {
        let name = segment_name(base);
        let is_used = self.verdict.used.contains(&base);
        let expected = self.expected_bytes(base, facts);
        let end = base.advance(expected);
        self.verdict.sizes.insert(base, expected);
        let is_whole = facts.file_bytes == expected;
        if !is_used && self.was_never_used(base) && self.belongs(base, facts).is_none() {
            if !is_whole {
                self.verdict.unfinished.push(base);
            }
            return end;
        }
        match facts.header {
            FoundHeader::Valid(header) if self.is_foreign(&header) => {
                self.add(&name, Flaw::Foreign { shard: header.shard }, base, end);
                return end;
            }
            _ => {}
        }
        if self.stands_in(base, facts) {
            return end;
        }
        if let Some(belongs) = self.belongs(base, facts).filter(|_| !is_used) {
            self.add(&name, Flaw::Misplaced { belongs }, base, end);
        } else if facts.file_bytes == 0 {
            self.add(&name, Flaw::Empty, base, end);
        } else if facts.file_bytes < expected {
            let bytes = facts.file_bytes;
            self.add(&name, Flaw::Short { bytes, expected }, base.advance(bytes), end);
        } else if facts.file_bytes > expected {
            self.add(&name, Flaw::Long { bytes: facts.file_bytes, expected }, base, base);
        } else if !is_used && self.must_be_used(base) {
            self.add(&name, Flaw::Blank, base, end);
        }
        end
    }

    /// The size that the file must have.
    fn expected_bytes(&self, base: LogPosition, facts: &Facts) -> u64 {
        if let FoundHeader::Valid(header) = facts.header
            && self.is_own(base, facts)
        {
            return header.segment_bytes;
        }
        let registered = self.holdings.filter(|holdings| holdings.last_base == base);
        if let Some(holdings) = registered.filter(|holdings| holdings.last_bytes > 0) {
            return holdings.last_bytes;
        }
        let behind = LogPosition(base.0 + 1);
        match self.facts.range(behind..).next() {
            Some((next, _)) => next.since(base),
            None => facts.file_bytes.next_multiple_of(BLOCK_BYTES as u64).max(SEGMENT_FILE_BYTES_MIN),
        }
    }

    fn is_own(&self, base: LogPosition, facts: &Facts) -> bool {
        matches!(facts.header, FoundHeader::Valid(header)
            if header.base == base && !self.is_foreign(&header))
    }

    /// Whether the file stands in for one that was lost: then it is as long as it was made, which its header does not say.
    fn stands_in(&self, base: LogPosition, facts: &Facts) -> bool {
        matches!(facts.header, FoundHeader::Valid(header) if header.is_stand_in) && self.is_own(base, facts)
    }

    fn is_foreign(&self, header: &SegmentHeader) -> bool {
        header.shard != self.shard.0 || self.secret.is_some_and(|secret| secret != header.secret)
    }

    /// The place that the file's header names, when it is another one and may be meant: what a file was before it was
    /// used again lies below the log's first position.
    fn belongs(&self, base: LogPosition, facts: &Facts) -> Option<LogPosition> {
        match facts.header {
            FoundHeader::Valid(header) if !self.is_foreign(&header) => {
                (header.base != base && header.base >= self.first_base()).then_some(header.base)
            }
            _ => None,
        }
    }

    /// Something was stored in or after the segment that begins here.
    fn must_be_used(&self, base: LogPosition) -> bool {
        let is_named = |(at, facts): (&LogPosition, &Facts)| self.belongs(*at, facts) >= Some(base);
        self.verdict.used.range(base..).next().is_some()
            || self.facts.iter().any(is_named)
            || self.reached > base.advance(SEGMENT_HEADER_BYTES as u64)
    }

    /// Nothing was ever stored in the segment that begins here, for certain: it was never registered, or the log was
    /// stopped before it.
    fn was_never_used(&self, base: LogPosition) -> bool {
        let Some(holdings) = self.holdings else { return false };
        let is_behind = base >= holdings.end() || (holdings.is_end && base >= holdings.reached);
        is_behind && !self.must_be_used(base)
    }

    /// Where the log had ended below `to`, as is known when it was stopped there, or went on in the next segment.
    fn stored_end(&self, to: LogPosition) -> LogPosition {
        let stopped = self.holdings.filter(|holdings| holdings.is_end);
        let stopped = stopped.map(|holdings| holdings.reached.max(self.reached));
        let next = self.facts.get(&to).filter(|facts| self.is_own(to, facts));
        let went_on = next.and_then(|facts| match facts.header {
            // What stands in for a lost file does not know it.
            FoundHeader::Valid(header) if !header.is_stand_in => Some(header.previous_end),
            _ => None,
        });
        stopped.into_iter().chain(went_on).fold(to, LogPosition::min)
    }

    fn add(&mut self, name: &str, flaw: Flaw, from: LogPosition, to: LogPosition) {
        let file = self.directory.join(name).display().to_string();
        let end = self.stored_end(to).clamp(from, to);
        self.verdict.contradictions.push(Contradiction { file, flaw, from, to, end, messages: None });
    }
}
