//! `turbopump log repair`: lets a data directory go on without what is missing in it.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::io;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_lite::future::block_on;
use glommio::{LocalExecutorBuilder, Placement};
use rustix::fs::{Access, access, statvfs};
use serde::Serialize;

use crate::broker::{ShardHome, StartError, repair_shard};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, grouped, print};
use crate::disk::bounded::BoundedDisk;
use crate::disk::glommio::{Access as DiskAccess, GlommioDisk};
use crate::disk::plain::PlainDisk;
use crate::disk::{Disk, DiskError, DiskErrorKind};
use crate::limits::SHARD_FILES_MIN;
use crate::log::{Act, Repair};
use crate::node::{self, DataDirectory, Owners};
use crate::types::ShardId;
use crate::wire::batch::LogSecret;

/// Memory that the executor registers.
const RING_MEMORY_BYTES: usize = 64 * 1024;

#[derive(Debug, Args)]
#[command(after_help = "\
Without --yes nothing is changed: it says what is missing and what would be done. With it, what is missing is given up for \
good: files that are not what was written are moved to aside-N in the shard's directory, never removed; what can be read of \
the others stays readable; each later start names what was given up. Offsets that may have been given out before are not \
given out again. Put missing files back instead, if there is any way to.")]
pub struct RepairArguments {
    /// The data directory; its broker must not run
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
    /// Do it, and do not only say what would be done
    #[arg(long)]
    pub yes: bool,
}

#[derive(Serialize)]
struct RepairView {
    data: String,
    done: bool,
    /// Of the log, that were or may have been stored in what is given up.
    given_up_bytes: u64,
    shards: Vec<ShardView>,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    found: Vec<FoundView>,
    steps: Vec<String>,
    given_up_bytes: u64,
}

#[derive(Serialize)]
struct FoundView {
    file: String,
    what: String,
    /// Log positions of what is missing.
    from: u64,
    to: u64,
    bytes: u64,
    messages_about: Option<u64>,
}

pub fn run(arguments: &RepairArguments, format: OutputFormat) -> Result<(), CommandError> {
    let directory = DataDirectory::open_existing(&arguments.data).map_err(CommandError::failed)?;
    let act = if arguments.yes { Act::Do } else { Act::Tell };
    if act == Act::Do {
        node::check_io_uring().map_err(CommandError::failed)?;
        check_user(&directory)?;
    }
    // No repair makes them good, and the start would be refused all the same.
    if let Some(error) = directory.lock_refusal() {
        return Err(CommandError::failed(format!("{error}; nothing was changed")));
    }
    directory.read_secret().map_err(|error| CommandError::failed(format!("{error}; nothing was changed")))?;
    // All are judged before the first one is changed.
    let mut told = Vec::new();
    for shard in 0..directory.shard_count() {
        check_directories(&directory.shard(shard))?;
        let repair = tell(&directory, shard).map_err(|error| refusal(shard, &error))?;
        if !repair.contradictions.is_empty() {
            told.push((shard, repair));
        }
    }
    if act == Act::Do {
        check_changes(&directory, &told)?;
    }
    let mut shards = Vec::new();
    for (shard, told) in told {
        let repair = match act {
            Act::Tell => told,
            Act::Do => repair(&directory, shard)?,
        };
        shards.push(ShardView::new(shard, repair));
    }
    let is_whole = shards.is_empty();
    let given_up_bytes = shards.iter().map(|shard| shard.given_up_bytes).sum();
    let data = arguments.data.display().to_string();
    let view = RepairView { data, done: arguments.yes, given_up_bytes, shards };
    print(format, &view, text)?;
    match act {
        Act::Tell if !is_whole => Err(CommandError::failed(match view.given_up_bytes {
            0 => "nothing was changed: --yes does it, and no stored message is lost by that".to_owned(),
            _ => "nothing was changed: put the missing files back, or give them up with --yes".to_owned(),
        })),
        _ => Ok(()),
    }
}

/// What is said of a shard that cannot be judged.
fn refusal(shard: u16, error: &StartError) -> CommandError {
    CommandError::failed(format!("shard {shard}: {error}; nothing was changed"))
}

fn refused(path: &Path, why: &str) -> CommandError {
    CommandError::failed(format!("{}: {why}; nothing was changed", path.display()))
}

/// What root makes in the directory of another user, that one's broker cannot open.
fn check_user(directory: &DataDirectory) -> Result<(), CommandError> {
    match directory.other_owner() {
        Some(Owners { owner, user: 0 }) => Err(refused(
            directory.path(),
            &format!(
                "it belongs to the user with number {owner}, whose broker could not open what root makes: run this as that user \
                 (`sudo -u '#{owner}'`)"
            ),
        )),
        _ => Ok(()),
    }
}

/// Whether what has a directory's name is one, or nothing.
fn check_directories(shard: &Path) -> Result<(), CommandError> {
    let checked = [shard, &shard.join("log")].into_iter().try_for_each(DiskError::check_directory);
    checked.map_err(|error| CommandError::failed(format!("{error}; nothing was changed")))
}

/// Whether this user may change what is to be changed, and the disk has room for it.
fn check_changes(directory: &DataDirectory, told: &[(u16, Repair)]) -> Result<(), CommandError> {
    for (shard, _) in told {
        let shard = directory.shard(*shard);
        let log = shard.join("log");
        for path in [directory.path(), &shard, &log].into_iter().filter(|path| path.is_dir()) {
            access(path, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK).map_err(|error| {
                refused(path, &format!("it cannot be written to: {}", io::Error::from(error)))
            })?;
        }
    }
    let needed: u64 = told.iter().map(|(_, repair)| repair.bytes_needed).sum();
    let path = directory.path();
    let space = statvfs(path).map_err(|error| refused(path, &io::Error::from(error).to_string()))?;
    let available = space.f_bavail.saturating_mul(space.f_frsize);
    if needed > available {
        let (needed, available) = (grouped(needed), grouped(available));
        let why = format!("{needed} bytes are needed on the disk, and {available} are free: free some");
        return Err(refused(path, &why));
    }
    Ok(())
}

/// What is missing and what would be done. Needs neither io_uring nor a medium that can be written to.
fn tell(directory: &DataDirectory, shard: u16) -> Result<Repair, StartError> {
    let disk = BoundedDisk::new(PlainDisk, SHARD_FILES_MIN);
    let path = directory.shard(shard);
    let home = home(directory, &path, shard, directory.is_shard_made(shard));
    let told = repair_shard(&disk, &home, LogSecret::default(), Act::Tell);
    block_on(told)
}

fn home<'a>(directory: &DataDirectory, path: &'a Path, shard: u16, is_made: bool) -> ShardHome<'a> {
    ShardHome { directory: path, shard: ShardId(shard), shard_count: directory.shard_count(), is_made }
}

fn repair(directory: &DataDirectory, shard: u16) -> Result<Repair, CommandError> {
    let executor = LocalExecutorBuilder::new(Placement::Unbound)
        .io_memory(RING_MEMORY_BYTES)
        .make()
        .map_err(|error| CommandError::failed(format!("io_uring does not start: {error}")))?;
    let path = directory.shard(shard);
    let is_made = directory.is_shard_made(shard);
    let secret = LogSecret(RandomState::new().build_hasher().finish());
    executor.run(async {
        let disk = attach(directory.path()).await.map_err(CommandError::failed)?;
        if !path.is_dir() {
            disk.create_directory(&path).await.map_err(CommandError::failed)?;
            disk.sync_directory(directory.path()).await.map_err(CommandError::failed)?;
        }
        let home = home(directory, &path, shard, is_made);
        repair_shard(&disk, &home, secret, Act::Do).await.map_err(CommandError::failed)
    })
}

/// Direct I/O where the file system takes it.
async fn attach(directory: &Path) -> Result<BoundedDisk<GlommioDisk>, DiskError> {
    let attached = match GlommioDisk::attach(directory, DiskAccess::Direct).await {
        Err(error) if error.kind == DiskErrorKind::NoDirectIo => {
            GlommioDisk::attach(directory, DiskAccess::Buffered).await
        }
        attached => attached,
    };
    Ok(BoundedDisk::new(attached?, SHARD_FILES_MIN))
}

impl ShardView {
    fn new(shard: u16, repair: Repair) -> Self {
        let found = repair.contradictions.iter().map(|found| FoundView {
            file: found.file.clone(),
            what: found.to_string(),
            from: found.from.0,
            to: found.to.0,
            bytes: found.lost_bytes(),
            messages_about: found.messages,
        });
        let given_up_bytes = repair.given_up_bytes;
        Self { shard, found: found.collect(), steps: repair.steps, given_up_bytes }
    }
}

fn text(view: &RepairView) -> String {
    if view.shards.is_empty() {
        return "nothing is missing: there is nothing to repair\n".to_owned();
    }
    let mut text = String::new();
    for shard in &view.shards {
        text += &format!("shard {}:\n", shard.shard);
        shard.found.iter().for_each(|found| text += &format!("  {}\n", found.what));
        text += if view.done { "  done:\n" } else { "  to go on without:\n" };
        shard.steps.iter().for_each(|step| text += &format!("    {step}\n"));
    }
    match view.given_up_bytes {
        _ if !view.done => {}
        0 => text += "nothing was given up: the broker starts with everything that is stored\n",
        _ => text += "what is missing was given up: the broker starts without it, and names it\n",
    }
    text
}
