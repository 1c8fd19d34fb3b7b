//! `turbopump backup`: a copy of everything that a broker has stored, while it runs or after.
//!
//! The log is the database, so the logs are what is copied: segments that are not written any more as they are, and of the last one what
//! lies before the backup's position. A segment that retention takes away meanwhile is noticed, and what is missing then is looked
//! for at a later position.

mod catalog;
mod continuation;
mod place;
mod restore;
mod source;
mod store;
mod verify;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use clap::{Args, Subcommand};
use serde::Serialize;

use self::catalog::{Catalog, SegmentCopy, ShardCopy, cannot, is_stored_name, shard_directory, stored_name};
use self::source::Source;
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, bytes_for_people, grouped, print};
use crate::cli::progress::Progress;
use crate::cli::server::ServerArguments;
use crate::limits::BLOCK_BYTES;
use crate::log::segment_name;
use crate::types::{LogPosition, Timestamp};

pub use self::restore::{RestoreArguments, run as run_restore};
use self::verify::VerifyArguments;

/// Positions that are tried: each time retention was faster than the copy.
const ATTEMPTS_MAX: u32 = 20;

#[derive(Debug, Args)]
#[command(
    args_conflicts_with_subcommands = true,
    subcommand_negates_reqs = true,
    after_help = "\
Examples:
  turbopump backup /backups/a --data /var/lib/turbopump            of a broker at 127.0.0.1:10911, or of one that does not run
  turbopump backup verify /backups/a
  turbopump restore /backups/a --data /var/lib/turbopump-restored

Everything that was answered before the command began is in the backup: messages, those that are held and undecided halves as well, \
topics, groups and their places. A further run into the same directory copies what is new. Segments that are not written any more get \
a second name (a hard link) where both directories are on one file system: that takes no room and keeps nothing when the disk \
is lost, so copy the directory elsewhere, or use --copy with one on another disk."
)]
pub struct BackupArguments {
    #[command(subcommand)]
    command: Option<BackupCommand>,
    /// Directory of the backup; made if it is not there, brought up to date if it is
    #[arg(value_name = "DIR", required = true)]
    backup: Option<PathBuf>,
    /// The broker's data directory
    #[arg(long, value_name = "DIR", required = true)]
    data: Option<PathBuf>,
    /// Copy everything, even where a second name would do
    #[arg(long)]
    copy: bool,
    /// Where the broker listens that runs on it
    #[command(flatten)]
    server: ServerArguments,
}

#[derive(Debug, Subcommand)]
enum BackupCommand {
    /// Hold every file of a backup against what was written, and name what is damaged or missing
    Verify(VerifyArguments),
}

#[derive(Serialize)]
struct BackupView {
    backup: String,
    node: String,
    taken_at_ms: u64,
    /// Whether a broker ran meanwhile.
    running: bool,
    shards: Vec<ShardView>,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    /// Everything of its log that lies before is in the backup.
    position: u64,
    segments: usize,
    bytes: u64,
    copied_bytes: u64,
    linked_bytes: u64,
    kept_bytes: u64,
}

/// How the segments of a shard got into the backup.
#[derive(Clone, Copy, Default)]
struct Ways {
    copied: u64,
    linked: u64,
    kept: u64,
}

pub fn run(arguments: BackupArguments, format: OutputFormat) -> Result<(), CommandError> {
    match (arguments.command, arguments.backup, arguments.data) {
        (Some(BackupCommand::Verify(verify)), ..) => verify::run(&verify, format),
        (None, Some(backup), Some(data)) => {
            back_up(&backup, &data, arguments.copy, &arguments.server, format)
        }
        (None, ..) => unreachable!("clap asks for both"),
    }
}

fn back_up(
    backup: &Path,
    data: &Path,
    copies_all: bool,
    server: &ServerArguments,
    format: OutputFormat,
) -> Result<(), CommandError> {
    let mut source = Source::open(data, server)?;
    place::check_apart(backup, data)?;
    let _lock = place::take(backup)?;
    let before = Catalog::read(backup)?;
    check_same_node(backup, &source, before.as_ref())?;
    continuation::check(backup, &mut source, before.as_ref())?;
    let mut run = Run {
        backup,
        copies_all,
        before: segments_of(before.as_ref()),
        held: BTreeMap::new(),
        ways: vec![Ways::default(); usize::from(source.files.shards)],
        progress: Progress::new(None),
        done: 0,
    };
    let shards = run.copy_all(&mut source)?;
    let catalog = Catalog::new(&source.files, now(), shards);
    catalog.write(backup)?;
    run.progress.finish();
    clean(backup, &catalog)?;
    let view = BackupView::new(backup, &catalog, &run.ways, source.is_running());
    print(format, &view, text)
}

/// What was taken of one node says nothing of another's files.
fn check_same_node(backup: &Path, source: &Source, before: Option<&Catalog>) -> Result<(), CommandError> {
    let Some(before) = before else { return Ok(()) };
    let mut is_same = before.node_id == source.files.node().to_string()
        && before.shards.len() == usize::from(source.files.shards);
    for shard in before.shards.iter().take(usize::from(source.files.shards)) {
        is_same &= shard.is_of(&source.manifest(shard.shard)?);
    }
    if is_same {
        return Ok(());
    }
    Err(CommandError::failed(format!(
        "{} holds a backup of another node ({}): name another directory",
        backup.display(),
        before.node_id
    )))
}

fn segments_of(catalog: Option<&Catalog>) -> BTreeMap<(u16, u64), SegmentCopy> {
    let shards = catalog.into_iter().flat_map(|catalog| &catalog.shards);
    shards
        .flat_map(|shard| shard.segments.iter().map(|segment| ((shard.shard, segment.base), segment.clone())))
        .collect()
}

/// A clock set before 1970 reads as 1970.
fn now() -> Timestamp {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Timestamp(u64::try_from(since.as_millis()).unwrap_or(u64::MAX))
}

/// One run of the command.
struct Run<'a> {
    backup: &'a Path,
    copies_all: bool,
    /// What the run before has left.
    before: BTreeMap<(u16, u64), SegmentCopy>,
    /// Whole segments that are in the backup by now.
    held: BTreeMap<(u16, u64), SegmentCopy>,
    ways: Vec<Ways>,
    progress: Progress,
    done: u64,
}

/// Which segments a shard's copy must have.
struct Wanted {
    position: LogPosition,
    whole: Vec<LogPosition>,
    /// The one in which it ends.
    last: LogPosition,
}

impl Wanted {
    /// Of what there was before the position was known, and what there is since.
    fn new(position: LogPosition, earlier: &[LogPosition], now: &[LogPosition]) -> Option<Self> {
        let mut bases: Vec<_> = earlier.iter().chain(now).copied().filter(|base| *base <= position).collect();
        bases.sort();
        bases.dedup();
        // One that begins at the position holds nothing before it.
        if bases.len() > 1 && bases.last() == Some(&position) {
            bases.pop();
        }
        let last = bases.pop()?;
        Some(Self { position, whole: bases, last })
    }
}

impl Run<'_> {
    /// What retention takes away while this goes on is not missed: then it begins at a later position, at which what was in there
    /// and is still needed stands elsewhere.
    fn copy_all(&mut self, source: &mut Source) -> Result<Vec<ShardCopy>, CommandError> {
        for shard in 0..source.files.shards {
            let directory = shard_directory(self.backup, shard);
            if !directory.exists() {
                store::make_directory(&directory)?;
            }
        }
        // Most of it, at leisure; what is gone before it was copied is not needed.
        self.copy_once(source, true)?;
        for _ in 0..ATTEMPTS_MAX {
            if let Some(shards) = self.copy_once(source, false)? {
                for shard in 0..source.files.shards {
                    store::sync_directory(&shard_directory(self.backup, shard))?;
                }
                return Ok(shards);
            }
        }
        Err(CommandError::failed(format!(
            "retention removes segments faster than they are copied to {}: use a directory on the file system of the data, \
             or let the broker keep more (--retention-bytes)",
            self.backup.display()
        )))
    }

    /// Copies what is there now, only whole segments at first; `None` when something went away meanwhile.
    fn copy_once(
        &mut self,
        source: &mut Source,
        only_whole: bool,
    ) -> Result<Option<Vec<ShardCopy>>, CommandError> {
        let shards = 0..source.files.shards;
        let earlier = shards.clone().map(|shard| source.segments(shard)).collect::<Result<Vec<_>, _>>()?;
        let positions = source.positions()?;
        let mut copies = Vec::new();
        for shard in shards {
            let (position, earlier) = (positions[usize::from(shard)], &earlier[usize::from(shard)]);
            let Some(wanted) = Wanted::new(position, earlier, &source.segments(shard)?) else {
                return Ok(None);
            };
            let mut segments = Vec::new();
            for base in &wanted.whole {
                match self.whole(source, shard, *base)? {
                    Some(segment) => segments.push(segment),
                    None if only_whole => {}
                    None => return Ok(None),
                }
            }
            if only_whole {
                continue;
            }
            let Some(last) = self.part(source, shard, &wanted)? else { return Ok(None) };
            segments.push(last);
            copies.push(ShardCopy::new(shard, position, &source.manifest(shard)?, segments));
        }
        Ok(Some(copies))
    }

    /// A segment that is not written any more; `None` when it is gone.
    fn whole(
        &mut self,
        source: &Source,
        shard: u16,
        base: LogPosition,
    ) -> Result<Option<SegmentCopy>, CommandError> {
        if let Some(held) = self.held.get(&(shard, base.0)) {
            return Ok(Some(held.clone()));
        }
        let from = source.log(shard).join(segment_name(base));
        let Some(bytes) = file_bytes(&from)? else { return Ok(None) };
        let to = shard_directory(self.backup, shard).join(stored_name(base, bytes, bytes));
        let ways = usize::from(shard);
        let before =
            self.before.get(&(shard, base.0)).filter(|before| before.is_whole() && before.bytes == bytes);
        let is_kept = before.is_some_and(|before| {
            let is_unchanged =
                matches!(catalog::FileIdentity::of(&from), Ok(Some(now)) if now == before.source);
            is_unchanged && matches!(file_bytes(&to), Ok(Some(stored)) if stored == bytes)
        });
        let segment = if let Some(before) = before.filter(|_| is_kept) {
            self.ways[ways].kept += bytes;
            before.clone()
        } else {
            let mut progress = self.progress(shard);
            let made = match self.copies_all {
                true => store::copy(&from, bytes, &to, &mut progress)?,
                false => store::link(&from, bytes, &to, &mut progress)?,
            };
            let Some(made) = made else { return Ok(None) };
            self.done += bytes;
            let way = &mut self.ways[ways];
            *(if made.is_linked { &mut way.linked } else { &mut way.copied }) += bytes;
            SegmentCopy { base: base.0, bytes, stored: bytes, crc32c: made.crc32c, source: made.source }
        };
        self.held.insert((shard, base.0), segment.clone());
        Ok(Some(segment))
    }

    /// Of the last segment what lies before the position; `None` when it is gone.
    fn part(
        &mut self,
        source: &Source,
        shard: u16,
        wanted: &Wanted,
    ) -> Result<Option<SegmentCopy>, CommandError> {
        let from = source.log(shard).join(segment_name(wanted.last));
        let Some(bytes) = file_bytes(&from)? else { return Ok(None) };
        // A group of batches ends with its block.
        let stored = wanted.position.0.saturating_sub(wanted.last.0).next_multiple_of(BLOCK_BYTES as u64);
        if stored > bytes {
            return Err(CommandError::failed(format!(
                "{} has {bytes} bytes, and the log has got to byte {stored} of it: see `turbopump log verify`",
                from.display()
            )));
        }
        let to = shard_directory(self.backup, shard).join(stored_name(wanted.last, stored, bytes));
        let made = store::copy(&from, stored, &to, self.progress(shard))?;
        self.done += stored;
        self.ways[usize::from(shard)].copied += stored;
        let base = wanted.last.0;
        Ok(made.map(|made| SegmentCopy { base, bytes, stored, crc32c: made.crc32c, source: made.source }))
    }

    fn progress(&self, shard: u16) -> impl FnMut(u64) + use<> {
        let (progress, mut done) = (self.progress.clone(), self.done);
        move |bytes| {
            done += bytes;
            progress.show_checked(done, shard);
        }
    }
}

/// Size of a segment's file; `None` when there is none.
fn file_bytes(path: &Path) -> Result<Option<u64>, CommandError> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        found => found.map_err(|error| cannot("read", path, &error))?,
    };
    if !found.is_file() || !found.len().is_multiple_of(BLOCK_BYTES as u64) {
        let path = path.display();
        return Err(CommandError::failed(format!(
            "{path} is no file of whole blocks: see `turbopump log verify`"
        )));
    }
    Ok(Some(found.len()))
}

/// Removes what no complete backup names any more.
fn clean(backup: &Path, catalog: &Catalog) -> Result<(), CommandError> {
    for shard in &catalog.shards {
        let directory = shard_directory(backup, shard.shard);
        let named: Vec<_> = shard.segments.iter().map(SegmentCopy::name).collect();
        for entry in std::fs::read_dir(&directory).map_err(|error| cannot("read", &directory, &error))? {
            let name = entry.map_err(|error| cannot("read", &directory, &error))?.file_name();
            let is_old = |name: &str| is_stored_name(name) && !named.iter().any(|named| named == name);
            if name.to_str().is_some_and(is_old) {
                let path = directory.join(name);
                std::fs::remove_file(&path).map_err(|error| cannot("remove", &path, &error))?;
            }
        }
    }
    Ok(())
}

impl BackupView {
    fn new(backup: &Path, catalog: &Catalog, ways: &[Ways], running: bool) -> Self {
        let shards = catalog.shards.iter().zip(ways).map(|(shard, ways)| ShardView {
            shard: shard.shard,
            position: shard.position,
            segments: shard.segments.len(),
            bytes: shard.stored(),
            copied_bytes: ways.copied,
            linked_bytes: ways.linked,
            kept_bytes: ways.kept,
        });
        Self {
            backup: backup.display().to_string(),
            node: catalog.node_id.clone(),
            taken_at_ms: catalog.taken_at_ms,
            running,
            shards: shards.collect(),
        }
    }
}

fn text(view: &BackupView) -> String {
    let mut text = String::new();
    for shard in &view.shards {
        let [copied, linked, kept] = [shard.copied_bytes, shard.linked_bytes, shard.kept_bytes]
            .map(|bytes| bytes_for_people(bytes as f64));
        let (number, position, segments) = (shard.shard, shard.position, grouped(shard.segments as u64));
        text += &format!(
            "shard {number}: up to position {position}, {segments} segments; {copied} copied, {linked} linked, {kept} there before\n"
        );
    }
    text + &format!("{} is a backup of node {}\n", view.backup, view.node)
}
