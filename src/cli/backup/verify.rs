//! `turbopump backup verify`: holds the files of a backup against what was written.

use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::catalog::{CATALOG, Catalog, SegmentCopy, shard_directory};
use super::{place, store};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, grouped, print};
use crate::cli::progress::Progress;
use crate::types::not_regular;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  turbopump backup verify /backups/a

Nothing is written. A damaged file is made good by removing it and running the backup once more, as long as the broker has it. What the \
messages themselves are like is checked by `turbopump log verify` on what `turbopump restore` makes.")]
pub struct VerifyArguments {
    /// Directory of the backup
    #[arg(value_name = "DIR")]
    pub backup: PathBuf,
}

#[derive(Serialize)]
struct VerifiedView {
    node: String,
    taken_at_ms: u64,
    files: u64,
    bytes: u64,
    shards: Vec<ShardView>,
    damaged: Vec<DamagedView>,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    position: u64,
    segments: usize,
}

#[derive(Serialize)]
struct DamagedView {
    file: String,
    reason: String,
}

/// The backup in a directory, which must be there.
pub fn catalog(backup: &Path) -> Result<Catalog, CommandError> {
    let catalog = Catalog::read(backup)?.ok_or_else(|| {
        CommandError::failed(format!(
            "{} holds no complete backup: there is no {CATALOG} in it",
            backup.display()
        ))
    })?;
    place::check_shards(backup)?;
    Ok(catalog)
}

/// Why a file cannot be as it was written, whatever its bytes are.
pub fn wrong_shape(path: &Path, segment: &SegmentCopy) -> Option<String> {
    let found = match std::fs::symlink_metadata(path) {
        Err(error) => return Some(error.to_string()),
        Ok(found) => found,
    };
    if let Some(what) = not_regular(found.file_type()) {
        return Some(format!("it is {what}, and no file"));
    }
    let (bytes, stored) = (found.len(), segment.stored);
    (bytes != stored).then(|| format!("it has {} bytes, {} were written", grouped(bytes), grouped(stored)))
}

/// Why a file is not as it was written.
fn problem(path: &Path, segment: &SegmentCopy, progress: impl Fn(u64)) -> Option<String> {
    let shape = wrong_shape(path, segment);
    if shape.is_some() {
        return shape;
    }
    let read = store::read(path, segment.stored, |piece| {
        progress(piece.len() as u64);
        Ok(())
    });
    match read {
        Ok(crc) if crc == segment.crc32c => None,
        Ok(_) => Some("its checksum does not fit: some of its bytes were changed".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

pub fn run(arguments: &VerifyArguments, format: OutputFormat) -> Result<(), CommandError> {
    let backup = &arguments.backup;
    let catalog = catalog(backup)?;
    let bytes = catalog.shards.iter().map(|shard| shard.stored()).sum();
    let progress = Progress::new(Some(bytes));
    let done = std::cell::Cell::new(0);
    let (mut files, mut damaged) = (0, Vec::new());
    for shard in &catalog.shards {
        for segment in &shard.segments {
            let path = shard_directory(backup, shard.shard).join(segment.name());
            let show = |bytes| {
                done.set(done.get() + bytes);
                progress.show_checked(done.get(), shard.shard);
            };
            files += 1;
            let found = problem(&path, segment, show);
            damaged.extend(found.map(|reason| DamagedView { file: path.display().to_string(), reason }));
        }
    }
    progress.finish();
    let shards = catalog.shards.iter().map(|shard| ShardView {
        shard: shard.shard,
        position: shard.position,
        segments: shard.segments.len(),
    });
    let (node, taken_at_ms) = (catalog.node_id.clone(), catalog.taken_at_ms);
    let view = VerifiedView { node, taken_at_ms, files, bytes, shards: shards.collect(), damaged };
    print(format, &view, text)?;
    match view.damaged.len() {
        0 => Ok(()),
        count => {
            let error = CommandError::failed(format!(
                "{count} of {files} files are not as they were written: remove them and run `turbopump backup` once more, \
                 which copies them anew as long as the broker has them"
            ));
            Err(error.with("damaged", count))
        }
    }
}

fn text(view: &VerifiedView) -> String {
    let mut text = String::new();
    for shard in &view.shards {
        let (number, position, segments) = (shard.shard, shard.position, shard.segments);
        text += &format!("shard {number}: up to position {position}, {segments} segments\n");
    }
    for damaged in &view.damaged {
        text += &format!("  DAMAGED {}: {}\n", damaged.file, damaged.reason);
    }
    if view.damaged.is_empty() {
        let (files, bytes) = (grouped(view.files), grouped(view.bytes));
        text += &format!("all {files} files, {bytes} bytes, are as they were written\n");
    }
    text
}
