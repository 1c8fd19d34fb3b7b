//! Going on without what is missing, when an operator says so.
//!
//! What a start refuses is taken apart here, one contradiction after the other. No byte is overwritten and no file removed:
//!
//! | flaw                             | what is done |
//! | -------------------------------- | ------------ |
//! | missing                          | a file that holds nothing stands in for it |
//! | empty, foreign, blank            | the file is moved aside, another one stands in for it |
//! | misplaced                        | it is put where it belongs, if that place is free, else moved aside |
//! | short                            | it is made as long as it was; what it still has can be read |
//! | beginning unreadable             | the file stays, and the log begins at its first batch that is there |
//! | end unreadable                   | the file stays, and the log goes on in the next one |
//! | long                             | it is moved aside, and its bytes up to the right size are copied back |
//! | stray                            | it is moved aside |
//! | manifest lost                    | it is made again, with an epoch above all that were found; what is there of it is
//! |                                  | moved aside |
//! | manifest outdated                | the same; what it says was given up stays so |
//! | older                            | it goes on after everything that there may have been since; what was only prepared
//! |                                  | for it is moved aside |
//! | nothing                          | a new log begins after everything that the old one may have had |
//!
//! What is made is made under other names, and what goes where is written down, before the first file is touched: a repair that
//! was cut off is finished by the next one, and nothing starts before (`repair_journal`). What is given up is in the manifest,
//! and each later start names it. Positions in it are never used again.

use std::collections::BTreeMap;
use std::path::Path;
use std::rc::Rc;

use super::error::OpenError;
use super::expectation::{
    Contradiction, Facts, Flaw, Known, SEGMENT_FILE_BYTES_MIN, examine, hear, secret_of, survey,
};
use super::manifest::{GivenUp, Holdings, Manifest, NAME};
use super::outdated::OwnManifest;
use super::recovery::{Lost, Replay, scan};
use super::repair_journal::{Places, RepairJournal, interrupted, prepared, remove_prepared};
use super::segment::{FoundHeader, SEGMENT_HEADER_BYTES, SegmentHeader, segment_name};
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, READ_BYTES};
use crate::types::LogPosition;
use crate::wire::batch::{BatchHeader, LogSecret};

/// Epochs left free after the highest one that was found, when the manifest that knew it is lost.
const EPOCH_MARGIN: u32 = 1 << 10;
/// A log may have gone on this far after its newest snapshot: many times what is ever between two of them.
const BEHIND_SNAPSHOT_BYTES: u64 = 4 << 30;
/// And this far after a copy of it was made, of which only the others know that it is old.
pub(super) const AFTER_COPY_BYTES: u64 = 1 << 40;
/// And a log of which nothing is known this far in all.
const UNKNOWN_LOG_BYTES: u64 = 1 << 40;

/// What a repair does or would do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    pub contradictions: Vec<Contradiction>,
    /// In sentences.
    pub steps: Vec<String>,
    /// Of the disk, for files that are made or become longer.
    pub bytes_needed: u64,
    /// Of the log, that were or may have been stored in what is given up.
    pub given_up_bytes: u64,
}

/// Whether a repair is to be done or only told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    Tell,
    Do,
}

/// What is to be done with the files.
#[derive(Default)]
struct Plan {
    /// Files that leave their place.
    moved: Vec<LogPosition>,
    /// Those of them that come back under another name: what they are called, and where they belong.
    put_back: BTreeMap<LogPosition, LogPosition>,
    /// Those of which the first bytes come back.
    copied: Vec<(LogPosition, u64)>,
    extended: Vec<(LogPosition, u64)>,
    /// Ranges without a file.
    stand_ins: Vec<(LogPosition, LogPosition)>,
    given_up: Vec<GivenUp>,
    /// The log goes on after this position at least: a repair that was cut off is not to take what is there for unused.
    reached: LogPosition,
}

/// What a pass over the log found.
#[derive(Default)]
struct Survey {
    epoch_max: u32,
    /// Positions that are asked for, each with the end of the last batch that was seen between the one before and it.
    ends: BTreeMap<LogPosition, Option<LogPosition>>,
}

impl Survey {
    fn before(positions: impl Iterator<Item = LogPosition>) -> Self {
        Self { epoch_max: 0, ends: positions.map(|position| (position, None)).collect() }
    }

    fn note(&mut self, header: &BatchHeader) {
        self.epoch_max = self.epoch_max.max(header.epoch);
        let end = header.end_position();
        if let Some((_, last)) = self.ends.range_mut(end..).next() {
            *last = (*last).max(Some(end));
        }
    }

    /// Where the log ended before a position that was asked for.
    fn end_before(&self, position: LogPosition) -> Option<LogPosition> {
        self.ends.range(..=position).rev().find_map(|(_, end)| *end)
    }
}

impl Replay for Survey {
    fn restart(&mut self) {}

    fn whole(&mut self, header: &BatchHeader, _: &[u8]) {
        self.note(header);
    }

    fn harmed(&mut self, header: &BatchHeader) {
        self.note(header);
    }

    fn lost(&mut self, _: Lost) {}

    async fn settle(&mut self) -> Result<(), DiskError> {
        Ok(())
    }
}

/// Repairs the log in `directory`, or tells what that would be. `secret` is for a log that begins anew. The shard must
/// not be running, and no repair of it interrupted: [`finish_repair`] comes before.
pub async fn repair<D: Disk>(
    disk: &D,
    directory: &Path,
    known: &Known,
    secret: LogSecret,
    act: Act,
) -> Result<Repair, OpenError> {
    let (manifest, facts) = hear(disk, directory, known).await?;
    let manifest = manifest.look_past_end(disk, directory, &facts, known).await?;
    let contradictions = examine(disk, directory, (&manifest, &facts), known).await?;
    if contradictions.is_empty() {
        return Ok(Repair::default());
    }
    let plan = Plan::of(&contradictions, &facts, known);
    let steps = plan.steps(directory, &contradictions);
    // What cannot be read is met before anything is changed, and by whoever only asks.
    let mut found = Survey::before(plan.stand_ins.iter().map(|(from, _)| *from));
    scan(disk, directory, known, &mut found).await?;
    if act == Act::Do {
        let begun = plan.begin(disk, directory, known, (manifest, &facts), (&found, secret)).await;
        let (manifest, journal) = begun_or_not(disk, directory, begun).await?;
        go_on(disk, directory, &journal).await?;
        let facts = survey(disk, directory, Some(manifest.secret)).await?;
        let manifest = OwnManifest::Current(manifest);
        let left = examine(disk, directory, (&manifest, &facts), known).await?;
        if !left.is_empty() {
            let directory = directory.to_owned();
            return Err(OpenError::Lacking { directory, contradictions: left });
        }
    }
    let (bytes_needed, given_up_bytes) = (plan.bytes_needed(), plan.given_up_bytes());
    Ok(Repair { contradictions, steps, bytes_needed, given_up_bytes })
}

/// A manifest in the place of one that is lost.
fn rebuilt(
    facts: &BTreeMap<LogPosition, Facts>,
    known: &Known,
    found: &Survey,
    secret: LogSecret,
) -> Manifest {
    let headers = facts.values().filter_map(|facts| match facts.header {
        FoundHeader::Valid(header) => Some(header.epoch),
        FoundHeader::Other | FoundHeader::Newer(_) => None,
    });
    let epochs = headers.chain(known.reached.iter().map(|reached| reached.epoch));
    let epoch = epochs.max().unwrap_or(0).max(found.epoch_max) + EPOCH_MARGIN;
    Manifest::new(known.shard, secret_of(facts).unwrap_or(secret), epoch, known.shard_count)
}

impl Plan {
    fn of(contradictions: &[Contradiction], facts: &BTreeMap<LogPosition, Facts>, known: &Known) -> Self {
        let mut plan = Self::default();
        let mut homeless = Vec::new();
        // Ranges without a file, once the files that do not belong there have left.
        let mut free: Vec<&Contradiction> = Vec::new();
        for contradiction in contradictions {
            let position = contradiction.from;
            match contradiction.flaw {
                Flaw::Missing => free.push(contradiction),
                Flaw::Empty | Flaw::Foreign { .. } | Flaw::Blank => {
                    plan.moved.push(position);
                    free.push(contradiction);
                }
                Flaw::Misplaced { belongs } => {
                    plan.moved.push(position);
                    homeless.push((position, belongs));
                    free.push(contradiction);
                }
                Flaw::Short { bytes, expected } => {
                    let base = LogPosition(position.0 - bytes);
                    if bytes < SEGMENT_FILE_BYTES_MIN {
                        plan.moved.push(base);
                        plan.stand_in(base, contradiction.to, contradiction.end.max(base));
                    } else {
                        plan.extended.push((base, expected));
                        if contradiction.lost_bytes() > 0 {
                            plan.give_up(position, contradiction.to, contradiction.end);
                        }
                    }
                }
                Flaw::BeginningUnreadable { .. } | Flaw::EndUnreadable { .. } => {
                    plan.give_up(position, contradiction.to, contradiction.end);
                }
                Flaw::Long { expected, .. } => {
                    plan.moved.push(position);
                    plan.copied.push((position, expected));
                }
                Flaw::Stray => plan.moved.push(position),
                // A judgement never finds one that was interrupted.
                Flaw::ManifestLost(_) | Flaw::ManifestOutdated(_) | Flaw::Interrupted => {}
                Flaw::Older { .. } => plan.go_on_after(position, facts),
                Flaw::Nothing => {
                    let unknown =
                        if known.reached.is_empty() { UNKNOWN_LOG_BYTES } else { BEHIND_SNAPSHOT_BYTES };
                    let to = contradiction.to.advance(unknown);
                    plan.stand_in(LogPosition::ZERO, to, to);
                }
            }
        }
        for missing in free {
            let (mut from, to) = (missing.from, missing.to);
            let fits = |(name, belongs): &&(LogPosition, LogPosition)| {
                *belongs == from && from.advance(facts[name].file_bytes) <= to
            };
            if let Some((name, belongs)) = homeless.iter().find(fits) {
                plan.put_back.insert(*name, *belongs);
                from = from.advance(facts[name].file_bytes);
            }
            if from < to {
                plan.stand_in(from, to, missing.end);
            }
        }
        plan
    }

    /// The log of an older copy goes on after everything that there may have been since.
    fn go_on_after(&mut self, position: LogPosition, facts: &BTreeMap<LogPosition, Facts>) {
        let prepared: Vec<_> =
            facts.range(position..).filter(|(base, _)| !self.moved.contains(base)).collect();
        let end = prepared.last().map_or(position, |(base, facts)| base.advance(facts.file_bytes));
        let end = LogPosition(end.0.next_multiple_of(BLOCK_BYTES as u64));
        self.moved.extend(prepared.iter().map(|(base, _)| **base));
        if position < end {
            self.stand_in(position, end, end);
        }
        let to = end.advance(AFTER_COPY_BYTES);
        self.stand_in(end, to, to);
        self.reached = end;
    }

    fn stand_in(&mut self, from: LogPosition, to: LogPosition, end: LogPosition) {
        let to = to.max(from.advance(SEGMENT_FILE_BYTES_MIN));
        self.stand_ins.push((from, to));
        self.give_up(from, to, end);
    }

    fn give_up(&mut self, from: LogPosition, to: LogPosition, end: LogPosition) {
        self.given_up.push(GivenUp { from, to, end: end.clamp(from, to) });
    }

    fn steps(&self, directory: &Path, contradictions: &[Contradiction]) -> Vec<String> {
        let name = |base: LogPosition| directory.join(segment_name(base)).display().to_string();
        let mut steps = Vec::new();
        let needs_manifest =
            |flaw| matches!(flaw, Flaw::ManifestLost(_) | Flaw::ManifestOutdated(_) | Flaw::Nothing);
        if contradictions.iter().any(|found| needs_manifest(found.flaw)) {
            steps.push(format!("a new manifest is made in {}", directory.display()));
        }
        let stays = |found: &&Contradiction| {
            matches!(found.flaw, Flaw::BeginningUnreadable { .. } | Flaw::EndUnreadable { .. })
        };
        for Contradiction { file, from, to, .. } in contradictions.iter().filter(stays) {
            steps.push(format!("{file} stays as it is; log positions {from} to {to} of it are given up"));
        }
        for base in &self.moved {
            match self.put_back.get(base) {
                Some(belongs) => {
                    steps.push(format!("{} gets the name {}", name(*base), segment_name(*belongs)))
                }
                None => steps.push(format!("{} is moved aside", name(*base))),
            }
        }
        for (base, bytes) in &self.copied {
            steps.push(format!("its first {bytes} bytes are copied to {} again", name(*base)));
        }
        for (base, bytes) in &self.extended {
            steps.push(format!("{} is made {bytes} bytes long again; what it has can be read", name(*base)));
        }
        for (from, to) in &self.stand_ins {
            steps.push(format!(
                "a file without content stands in for {}, up to log position {to}",
                name(*from)
            ));
        }
        steps
    }

    /// What the files take that are made, as far as it is not theirs already.
    fn bytes_needed(&self) -> u64 {
        let copied: u64 = self.copied.iter().chain(&self.extended).map(|(_, bytes)| *bytes).sum();
        // The manifest and the plan take a few blocks more.
        copied + self.stand_ins.len() as u64 * SEGMENT_FILE_BYTES_MIN + 4 * BLOCK_BYTES as u64
    }

    /// What may have been stored in what is given up.
    fn given_up_bytes(&self) -> u64 {
        self.given_up.iter().map(|range| range.bytes_from(range.from)).sum()
    }

    /// Says in the manifest what is given up, and which files there are then.
    fn note(&self, manifest: &mut Manifest, facts: &BTreeMap<LogPosition, Facts>, known: &Known) {
        let mut sizes: BTreeMap<LogPosition, u64> = facts
            .iter()
            .filter(|(base, _)| !self.moved.contains(base))
            .map(|(base, facts)| (*base, facts.file_bytes))
            .collect();
        sizes.extend(self.put_back.iter().map(|(name, belongs)| (*belongs, facts[name].file_bytes)));
        sizes.extend(self.copied.iter().chain(&self.extended).copied());
        sizes.extend(self.stand_ins.iter().map(|(from, to)| (*from, to.since(*from))));
        let zero = LogPosition::ZERO;
        let first = sizes.keys().next().copied().unwrap_or(zero);
        let (last, bytes) = sizes.into_iter().next_back().unwrap_or((zero, 0));
        // The others know of this one, and nothing of its batches may count any more.
        let reached_epoch = known.reached_epoch.as_ref().map_or(0, |reached| reached.epoch);
        manifest.epoch = manifest.epoch.max(reached_epoch) + 1;
        let reached = known.reached.iter().map(|reached| reached.position).max().unwrap_or(zero);
        let holdings = manifest.holdings.get_or_insert(Holdings::none(known.shard_count));
        holdings.first_base = first;
        (holdings.last_base, holdings.last_bytes) = (last, bytes);
        holdings.reached = holdings.reached.max(reached).max(self.reached);
        manifest.give_up(&self.given_up, first);
    }

    /// Makes what has to be made, and writes down what is to be done. Only then anything of the log changes.
    async fn begin<D: Disk>(
        &self,
        disk: &D,
        directory: &Path,
        known: &Known,
        (manifest, facts): (OwnManifest, &BTreeMap<LogPosition, Facts>),
        (found, secret): (&Survey, LogSecret),
    ) -> Result<(Manifest, RepairJournal), OpenError> {
        disk.create_directory(directory).await?;
        disk.sync_directory(directory.parent().unwrap_or(directory)).await?;
        remove_prepared(disk, directory).await?;
        let places = Places::of(disk, directory).await?;
        let mut journal = RepairJournal::new(self.given_up_bytes());
        let mut manifest = match manifest {
            OwnManifest::Current(manifest) => manifest,
            OwnManifest::Lost(_) | OwnManifest::Outdated(..) => {
                // What is there now, unreadable, of another log or of an earlier day, is kept. It goes first: what is
                // left then is not taken for its log.
                if disk.list(directory).await?.iter().any(|name| name == NAME) {
                    journal.move_out(&places, NAME);
                }
                let given_up = manifest.given_up();
                let mut made = rebuilt(facts, known, found, secret);
                made.given_up = given_up;
                made
            }
        };
        self.note(&mut manifest, facts, known);
        manifest.write_as(disk, &prepared(directory, NAME), 2).await?;
        self.make_files(disk, directory, (&manifest, found), (&mut journal, &places)).await?;
        journal.put(&places, NAME);
        journal.begin(disk, directory).await?;
        Ok((manifest, journal))
    }

    /// Makes under other names what is to take a place, and writes into the journal what goes where.
    async fn make_files<D: Disk>(
        &self,
        disk: &D,
        directory: &Path,
        (manifest, found): (&Manifest, &Survey),
        (journal, places): (&mut RepairJournal, &Places),
    ) -> Result<(), OpenError> {
        for base in &self.moved {
            journal.move_out(places, &segment_name(*base));
        }
        for (name, belongs) in &self.put_back {
            journal.put_back(places, &segment_name(*name), &segment_name(*belongs));
        }
        for (base, bytes) in &self.copied {
            let name = segment_name(*base);
            copy(disk, &directory.join(&name), &prepared(directory, &name), *bytes).await?;
            journal.put(places, &name);
        }
        for (base, bytes) in &self.extended {
            journal.extend(places, &segment_name(*base), *bytes);
        }
        for &(from, to) in &self.stand_ins {
            // Where the log ended in the segment before: what lies after is not missing as well.
            let before = found.end_before(from);
            let header = SegmentHeader {
                base: from,
                segment_bytes: to.since(from),
                epoch: manifest.epoch,
                shard: manifest.shard.0,
                is_stand_in: true,
                previous_end: before.unwrap_or(from),
                secret: manifest.secret,
            };
            let name = segment_name(from);
            make_stand_in(disk, &prepared(directory, &name), &header).await?;
            journal.put(places, &name);
        }
        Ok(())
    }
}

/// An error says whether the repair has begun.
async fn begun_or_not<D: Disk, T>(
    disk: &D,
    directory: &Path,
    begun: Result<T, OpenError>,
) -> Result<T, OpenError> {
    let Err(error) = begun else { return begun };
    let (directory, error) = (directory.to_owned(), Box::new(error));
    match interrupted(disk, &directory).await {
        Ok(None) => {
            // The disk may be full of them. What cannot be removed now is by the next repair.
            let _ = remove_prepared(disk, &directory).await;
            Err(OpenError::NotRepaired { directory, error })
        }
        _ => Err(OpenError::Interrupted { directory, error }),
    }
}

/// Carries out what is written down.
async fn go_on<D: Disk>(disk: &D, directory: &Path, journal: &RepairJournal) -> Result<(), OpenError> {
    journal.carry_out(disk, directory).await.map_err(|error| OpenError::Interrupted {
        directory: directory.to_owned(),
        error: Box::new(error.into()),
    })
}

/// Goes on with a repair that was interrupted, or tells what that would be; `None` when there is none. The shard must not
/// be running.
pub async fn finish_repair<D: Disk>(
    disk: &D,
    directory: &Path,
    act: Act,
) -> Result<Option<Repair>, OpenError> {
    let Some(found) = interrupted(disk, directory).await? else { return Ok(None) };
    let Some(journal) = RepairJournal::read(disk, directory).await? else { return Ok(None) };
    if act == Act::Do {
        go_on(disk, directory, &journal).await?;
    }
    Ok(Some(Repair {
        contradictions: vec![found],
        steps: journal.steps(),
        bytes_needed: journal.bytes_needed(),
        given_up_bytes: journal.given_up_bytes(),
    }))
}

/// A file with a header that says what it stands in for, and nothing after it: that may be more than a file system or a
/// limit lets one file have, and more than a copy of the directory should take.
async fn make_stand_in<D: Disk>(disk: &D, path: &Path, header: &SegmentHeader) -> Result<(), DiskError> {
    let file = disk.open(path, OpenMode::Create).await?;
    let mut block = disk.allocate(SEGMENT_HEADER_BYTES);
    header.encode(block.as_mut_slice());
    file.write(0, Rc::new(block)).await?;
    let mut last = disk.allocate(BLOCK_BYTES);
    last.as_mut_slice().fill(0);
    file.write(SEGMENT_HEADER_BYTES as u64, Rc::new(last)).await?;
    file.sync().await?;
    file.close().await
}

/// Copies the first bytes of a file, whole blocks, to a new one.
async fn copy<D: Disk>(disk: &D, from: &Path, to: &Path, bytes: u64) -> Result<(), DiskError> {
    let source = disk.open(from, OpenMode::ReadOnly).await?;
    let target = disk.open(to, OpenMode::Create).await?;
    target.preallocate(bytes).await?;
    let mut at = 0;
    while at < bytes {
        let count = (READ_BYTES as u64).min(bytes - at) as usize;
        let piece = source.read(at, count).await?;
        let mut buffer = disk.allocate(count);
        buffer.as_mut_slice().copy_from_slice(&piece);
        target.write(at, Rc::new(buffer)).await?;
        at += count as u64;
    }
    target.sync().await?;
    target.close().await?;
    source.close().await
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::types::{QueueKey, QueueNumber, QueueOffset, Timestamp, TopicId};
    use crate::wire::batch::Kind;

    fn batch(position: u64) -> BatchHeader {
        BatchHeader {
            kind: Kind::Messages,
            continues: false,
            keyed: false,
            batch_bytes: 100,
            position: LogPosition(position),
            previous_end: LogPosition(0),
            flushed_end: LogPosition(0),
            epoch: 1,
            tag_summary: 0,
            key: QueueKey { topic: TopicId(1), queue: QueueNumber(0) },
            base_offset: QueueOffset(0),
            store_time: Timestamp(0),
            record_count: 1,
            born_time: Timestamp(0),
        }
    }

    /// However many batches follow a hole, where the log ended before it is known.
    #[test]
    fn the_end_before_each_hole_is_kept_whatever_follows() {
        let [first, second, third] = [10_000, 1_000_000, 1_500_000].map(LogPosition);
        let mut survey = Survey::before([first, second, third].into_iter());
        for position in (4096..8_000).step_by(104).chain((2_000_000..20_000_000).step_by(104)) {
            survey.whole(&batch(position), &[]);
            futures_lite::future::block_on(survey.settle()).expect("nothing is written");
        }
        let end = batch(7_944).end_position();
        assert_eq!(survey.end_before(first), Some(end));
        // Nothing was seen between these and the one before.
        assert_eq!((survey.end_before(second), survey.end_before(third)), (Some(end), Some(end)));
        assert_eq!(Survey::before([first].into_iter()).end_before(first), None);
    }
}
