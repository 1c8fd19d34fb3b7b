//! `turbopump restore`: makes a data directory of a backup.

use std::cell::Cell;
use std::fs::{self, File, TryLockError};
use std::io::Write;
use std::path::{Path, PathBuf};

use clap::Args;
use serde::Serialize;

use super::catalog::{Catalog, ShardCopy, cannot, shard_directory};
use super::{place, store, verify};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, grouped, print};
use crate::cli::progress::Progress;
use crate::log::segment_name;
use crate::node::NodeFiles;
use crate::types::LogPosition;

#[derive(Debug, Args)]
#[command(after_help = "\
Example:
  turbopump restore /backups/a --data /var/lib/turbopump-restored
  turbopump serve --data /var/lib/turbopump-restored

The broker that starts there is the node that it was at the backup's position, and the first start builds the indexes anew. Where the \
other one is to go on beside it, --new-node makes it another node: receipt handles given out before count for it no more, and its \
messages are delivered again when their invisible duration has passed; `serve --node NAME` gives it a name of its own.")]
pub struct RestoreArguments {
    /// Directory of the backup
    #[arg(value_name = "DIR")]
    pub backup: PathBuf,
    /// The new data directory: not there yet, or empty
    #[arg(long, value_name = "NEW")]
    pub data: PathBuf,
    /// Make it another node, with an id of its own
    #[arg(long)]
    pub new_node: bool,
}

#[derive(Serialize)]
struct RestoredView {
    data: String,
    node: String,
    new_node: bool,
    taken_at_ms: u64,
    shards: Vec<ShardView>,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    /// Everything that was stored before is there.
    position: u64,
    bytes: u64,
}

pub fn run(arguments: &RestoreArguments, format: OutputFormat) -> Result<(), CommandError> {
    let (backup, data) = (&arguments.backup, &arguments.data);
    let catalog = verify::catalog(backup)?;
    let files = catalog.node_files()?;
    let files = if arguments.new_node { files.into_new_node().map_err(CommandError::failed)? } else { files };
    place::check_apart(backup, data)?;
    let _lock = take(data)?;
    if let Err(error) = fill(backup, data, &catalog, &files) {
        // What was made is of no use, and may be what fills the disk.
        for shard in &catalog.shards {
            let _ = fs::remove_dir_all(shard_directory(data, shard.shard));
        }
        return Err(error);
    }
    let shards = catalog.shards.iter().map(|shard| ShardView {
        shard: shard.shard,
        position: shard.position,
        bytes: shard.stored(),
    });
    let view = RestoredView {
        data: data.display().to_string(),
        node: files.node().to_string(),
        new_node: arguments.new_node,
        taken_at_ms: catalog.taken_at_ms,
        shards: shards.collect(),
    };
    print(format, &view, text)
}

/// Makes the directory if need be, and keeps a broker and other commands away from it.
fn take(data: &Path) -> Result<File, CommandError> {
    if !data.exists() {
        store::make_directory(data)?;
    } else if !data.is_dir() {
        return Err(CommandError::failed(format!("{} is no directory: name another one", data.display())));
    }
    let lock = File::open(data).map_err(|error| cannot("open", data, &error))?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            return Err(CommandError::failed(format!("{} is in use by another process", data.display())));
        }
        Err(TryLockError::Error(error)) => return Err(cannot("lock", data, &error)),
    }
    for entry in fs::read_dir(data).map_err(|error| cannot("read", data, &error))? {
        let name = entry.map_err(|error| cannot("read", data, &error))?.file_name();
        if name != "lost+found" {
            return Err(CommandError::failed(format!(
                "{} is not empty ({} is in it), and nothing is written over: name a directory that is not there yet",
                data.display(),
                name.display()
            )));
        }
    }
    Ok(lock)
}

fn fill(backup: &Path, data: &Path, catalog: &Catalog, files: &NodeFiles) -> Result<(), CommandError> {
    let progress = Progress::new(Some(catalog.shards.iter().map(ShardCopy::stored).sum()));
    let done = Cell::new(0);
    for shard in &catalog.shards {
        let show = |bytes| {
            done.set(done.get() + bytes);
            progress.show_checked(done.get(), shard.shard);
        };
        fill_shard(backup, data, shard, files.shards, show)?;
    }
    store::sync_directory(data)?;
    // The last thing: what has no description is no data directory.
    files.write(data).map_err(CommandError::failed)?;
    progress.finish();
    Ok(())
}

fn fill_shard(
    backup: &Path,
    data: &Path,
    shard: &ShardCopy,
    shard_count: u16,
    progress: impl Fn(u64),
) -> Result<(), CommandError> {
    let directory = shard_directory(data, shard.shard);
    let log = directory.join("log");
    store::make_directory(&log)?;
    for segment in &shard.segments {
        let from = shard_directory(backup, shard.shard).join(segment.name());
        let to = log.join(segment_name(LogPosition(segment.base)));
        let damaged = |why: &str| {
            CommandError::failed(format!(
                "{} is damaged: {why}. Nothing was restored: see `turbopump backup verify`",
                from.display()
            ))
        };
        if let Some(why) = verify::wrong_shape(&from, segment) {
            return Err(damaged(&why));
        }
        let crc = store::restore(&from, segment.stored, (&to, segment.bytes), &progress)?;
        if crc != segment.crc32c {
            return Err(damaged("its checksum does not fit"));
        }
    }
    let manifest = shard.log(shard_count)?.manifest_file();
    let path = log.join("manifest");
    store::write_fresh(&path, |made| {
        made.write_all(&manifest).map_err(|error| cannot("write", &path, &error))
    })?;
    store::sync_directory(&log)?;
    store::sync_directory(&directory)
}

fn text(view: &RestoredView) -> String {
    let mut text = String::new();
    for shard in &view.shards {
        let (number, position, bytes) = (shard.shard, shard.position, grouped(shard.bytes));
        text += &format!("shard {number}: {bytes} bytes, up to position {position}\n");
    }
    let (data, node) = (&view.data, &view.node);
    let what = if view.new_node { "a new node" } else { "the node that was backed up" };
    text + &format!("{data} is ready to be served, as {what}, {node}\n")
}
