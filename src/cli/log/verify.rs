//! `turbopump log verify`: holds everything that a stopped broker has stored against everything else, and changes nothing.
//!
//! The object that `-o json` prints keeps its members; there may be more of them in later releases.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use clap::Args;
use futures_lite::future::block_on;
use serde::Serialize;

use crate::broker::{Checked, Finding, ShardHome, verify_shard};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, grouped, print};
use crate::cli::progress::Progress;
use crate::node::{DataDirectory, DirectoryError, NEW_SECRET_MEANS};
use crate::types::ShardId;

#[derive(Debug, Args)]
#[command(
    after_help = "Nothing is written, and io_uring is not used. The exit code is 0 only when nothing at all is wrong. \
Damage is what only a copy makes good; what is called rebuilt is made anew by the next start; what could not be read was \
not checked."
)]
pub struct VerifyArguments {
    /// The data directory; its broker must not run
    #[arg(long, value_name = "DIR")]
    pub data: PathBuf,
}

#[derive(Serialize)]
struct VerifiedView {
    shards: Vec<ShardView>,
    /// Damaged places of all shards.
    damaged: usize,
    /// Places that the next start makes anew.
    rebuilt: usize,
    /// Messages that cannot be read, as far as they can be counted; `null` when nobody can tell.
    messages_missing: Option<u64>,
    /// Files of which nobody knows, as they cannot be read by whoever checks, or not by this release.
    not_checked: usize,
    /// Whether the next start is not refused; `null` when nobody can tell.
    starts: Option<bool>,
    /// What is wrong with files that are no shard's; those that keep a broker from starting count as damaged.
    node: Vec<FindingView>,
}

#[derive(Serialize)]
struct ShardView {
    shard: u16,
    batches: u64,
    messages: u64,
    log_end: u64,
    /// Bytes after the end that were never answered; the next start cuts them off.
    unfinished_tail: bool,
    /// `null` when nobody can tell.
    messages_missing: Option<u64>,
    damage: Vec<FindingView>,
    rebuilt: Vec<FindingView>,
    not_checked: Vec<FindingView>,
    given_up: Vec<GivenUpView>,
    messages_given_up: u64,
    #[serde(skip)]
    refusals: usize,
}

#[derive(Serialize)]
struct FindingView {
    file: String,
    position: u64,
    bytes: u64,
    /// `null` when nobody can tell.
    messages: Option<u64>,
    detail: String,
}

#[derive(Serialize)]
struct GivenUpView {
    file: String,
    from: u64,
    to: u64,
    bytes: u64,
}

pub fn run(arguments: &VerifyArguments, format: OutputFormat) -> Result<(), CommandError> {
    let directory = DataDirectory::open_existing(&arguments.data).map_err(CommandError::failed)?;
    let shards = 0..directory.shard_count();
    let total: u64 = shards.clone().map(|shard| log_bytes(&directory.shard(shard).join("log"))).sum();
    let progress = Progress::new(Some(total));
    let mut before = 0;
    let mut views = Vec::new();
    for shard in shards {
        let path = directory.shard(shard);
        let home = ShardHome {
            directory: &path,
            shard: ShardId(shard),
            shard_count: directory.shard_count(),
            is_made: directory.is_shard_made(shard),
        };
        let show = |bytes| progress.show_checked(before + bytes, shard);
        let checked = block_on(verify_shard(&super::bounded(), &home, &show));
        before += log_bytes(&path.join("log"));
        views.push(ShardView::new(shard, checked));
    }
    progress.finish();
    let refused = refused_secret(&directory).into_iter();
    let refused = refused.chain(refused_lock(&directory));
    let refused = refused.chain(missing_shards(&directory)).chain(not_writable(&directory));
    let notes = node_findings(&directory);
    let (unread, refused): (Vec<_>, Vec<_>) = refused.partition(|(_, is_unread)| *is_unread);
    let of_node = |findings: Vec<(FindingView, bool)>| findings.into_iter().map(|(finding, _)| finding);
    let refusals = views.iter().map(|view| view.refusals).sum::<usize>() + refused.len();
    let not_checked = views.iter().map(|view| view.not_checked.len()).sum::<usize>() + unread.len();
    let view = VerifiedView {
        damaged: views.iter().map(|view| view.damage.len()).sum::<usize>() + refused.len(),
        rebuilt: views.iter().map(|view| view.rebuilt.len()).sum::<usize>() + notes.len(),
        not_checked,
        starts: (not_checked == 0).then_some(refusals == 0),
        messages_missing: views.iter().map(|view| view.messages_missing).sum(),
        shards: views,
        node: of_node(refused).chain(of_node(unread)).chain(notes).collect(),
    };
    print(format, &view, verified_text)?;
    verdict(&view)
}

fn verdict(view: &VerifiedView) -> Result<(), CommandError> {
    let (damaged, rebuilt, missing) = (view.damaged, view.rebuilt, view.messages_missing);
    if view.not_checked > 0 {
        let unread = view.not_checked;
        let harmed = if damaged > 0 { format!("{damaged} damaged places, and ") } else { String::new() };
        let error = CommandError::failed(format!(
            "{harmed}{unread} files or folders could not be read, so what they hold was not checked: see the reasons above. \
             Check again as the user who runs the broker"
        ));
        return Err(error.with("damaged", damaged).with("rebuilt", rebuilt).with("not_checked", unread));
    }
    let error = match (damaged, rebuilt) {
        (0, 0) if missing == Some(0) => return Ok(()),
        (0, 0) => format!("{} messages are missing, and nothing says where they were", count_text(missing)),
        (0, _) => format!(
            "{rebuilt} places are not as they were written; no message is lost by that: the broker makes them anew when \
             it starts"
        ),
        _ if missing == Some(0) && view.starts == Some(true) => format!(
            "{damaged} damaged places; every message can be read, and the broker starts: see above what is to be put right"
        ),
        _ if missing == Some(0) => format!(
            "{damaged} damaged places; every message can be read, but the broker does not start: see above what is to be put \
             right (`turbopump log repair` says whether it can do that)"
        ),
        _ => format!(
            "{damaged} damaged places, {} messages cannot be read: restore the files named above from a copy, or go on \
             without what they held (`turbopump log repair` says what that is)",
            count_text(missing)
        ),
    };
    let error = CommandError::failed(error);
    Err(error.with("damaged", damaged).with("rebuilt", rebuilt).with("messages_missing", missing))
}

fn count_text(messages: Option<u64>) -> String {
    messages.map_or_else(|| "an unknown number of".to_owned(), grouped)
}

/// Bytes of a log's files, for the progress bar.
fn log_bytes(log: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(log) else { return 0 };
    let segments =
        entries.flatten().filter(|entry| entry.path().extension().is_some_and(|name| name == "segment"));
    segments.filter_map(|entry| entry.metadata().ok()).map(|metadata| metadata.len()).sum()
}

/// A secret that keeps the broker from starting, and whether that is only because it may not be read.
fn refused_secret(directory: &DataDirectory) -> Option<(FindingView, bool)> {
    let error = directory.read_secret().err()?;
    let finding = |detail| node_finding(directory.secret_file(), detail);
    Some(match error {
        DirectoryError::Io { ref source, .. } if source.kind() == ErrorKind::PermissionDenied => {
            (finding(format!("it was not checked: {error}")), true)
        }
        error => (finding(format!("the next start refuses it: {error}")), false),
    })
}

/// A `lock` that keeps the broker from starting, and whether that is only because who checks may not open it.
fn refused_lock(directory: &DataDirectory) -> Option<(FindingView, bool)> {
    let error = directory.lock_refusal()?;
    let (file, is_of_other) = match error {
        DirectoryError::NotWritable { path, .. } => (path.clone(), directory.other_owner().is_some()),
        DirectoryError::LockFile { file, .. } => (file.clone(), false),
        _ => (directory.path().to_owned(), false),
    };
    let detail = match is_of_other {
        true => format!("it was not checked: {error}"),
        false => format!("the next start is refused: {error}"),
    };
    Some((node_finding(file, detail), is_of_other))
}

/// Shards whose directories are not there; what may have been stored in them is told of each shard.
fn missing_shards(directory: &DataDirectory) -> Option<(FindingView, bool)> {
    let error = directory.check_shards().err()?;
    let path = directory.path().to_owned();
    Some((node_finding(path, format!("the next start is refused: {error}")), false))
}

/// What a start of this user is refused for, when it is who runs the broker. Of a medium that takes no writes nobody asks
/// that it be writable.
fn not_writable(directory: &DataDirectory) -> Option<(FindingView, bool)> {
    if directory.other_owner().is_some() {
        return None;
    }
    match directory.check_writable() {
        Err(DirectoryError::NotWritable { ref source, .. })
            if source.kind() == ErrorKind::ReadOnlyFilesystem =>
        {
            None
        }
        Err(error) => {
            let path = directory.path().to_owned();
            Some((node_finding(path, format!("the next start is refused: {error}")), false))
        }
        Ok(()) => None,
    }
}

/// Files beside the shards that a start makes good, and shards that the description does not know.
fn node_findings(directory: &DataDirectory) -> Vec<FindingView> {
    let mut found = Vec::new();
    // A broker that never started has none.
    if directory.is_started() && matches!(directory.read_secret(), Ok(None)) {
        let detail =
            format!("it is missing: the next start makes another one. With a new one {NEW_SECRET_MEANS}");
        found.push(node_finding(directory.secret_file(), detail));
    }
    let beyond = directory.shard(directory.shard_count());
    if beyond.exists() {
        let detail = "the description of the data directory does not know this shard: it is not looked at, and not served";
        found.push(node_finding(beyond, detail.to_owned()));
    }
    found
}

fn node_finding(file: PathBuf, detail: String) -> FindingView {
    FindingView { file: file.display().to_string(), position: 0, bytes: 0, messages: None, detail }
}

impl ShardView {
    fn new(shard: u16, checked: Checked) -> Self {
        let is_uncounted =
            checked.messages_missing == 0 && checked.damage.iter().any(|found| found.messages.is_none());
        let is_unknown = is_uncounted || checked.is_uncounted || !checked.unread.is_empty();
        let views = |findings: Vec<Finding>| findings.into_iter().map(FindingView::from).collect();
        Self {
            shard,
            batches: checked.batches,
            messages: checked.messages,
            log_end: checked.log_end.0,
            unfinished_tail: checked.is_torn,
            messages_missing: (!is_unknown).then_some(checked.messages_missing),
            messages_given_up: checked.messages_given_up,
            refusals: checked.refusals,
            damage: views(checked.damage),
            rebuilt: views(checked.derived),
            not_checked: views(checked.unread),
            given_up: checked
                .given_up
                .into_iter()
                .map(|range| GivenUpView {
                    file: range.file,
                    from: range.from.0,
                    to: range.to.0,
                    bytes: range.bytes,
                })
                .collect(),
        }
    }
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        let Finding { file, position, bytes, messages, detail } = finding;
        Self { file, position, bytes, messages, detail }
    }
}

fn verified_text(view: &VerifiedView) -> String {
    let mut text = String::new();
    for shard in &view.shards {
        let (batches, messages) = (grouped(shard.batches), grouped(shard.messages));
        text += &format!(
            "shard {}: {batches} batches with {messages} messages, log end {}",
            shard.shard, shard.log_end
        );
        text += if shard.unfinished_tail { ", after it an unanswered tail\n" } else { "\n" };
        for damage in &shard.damage {
            text += &finding_text("DAMAGED", damage);
        }
        for given_up in &shard.given_up {
            text += &format!(
                "  given up before: {} bytes of the log from position {} on ({})\n",
                grouped(given_up.bytes),
                given_up.from,
                given_up.file
            );
        }
        if shard.messages_given_up > 0 {
            text += &format!("  {} messages were given up with them\n", grouped(shard.messages_given_up));
        }
        for unread in &shard.not_checked {
            text += &finding_text("NOT CHECKED", unread);
        }
        for rebuilt in &shard.rebuilt {
            text += &finding_text("to be made anew", rebuilt);
        }
        if shard.messages_missing != Some(0) && shard.not_checked.is_empty() {
            text += &format!("  {} messages cannot be read\n", count_text(shard.messages_missing));
        }
    }
    for finding in &view.node {
        text += &finding_text("NOTE", finding);
    }
    let is_well =
        view.damaged == 0 && view.rebuilt == 0 && view.not_checked == 0 && view.messages_missing == Some(0);
    if is_well { text + "every byte is as it was written\n" } else { text }
}

fn finding_text(label: &str, finding: &FindingView) -> String {
    let FindingView { file, position, bytes, messages, detail } = finding;
    let mut text = format!("  {label} {file}");
    if *position > 0 || *bytes > 0 {
        text += &format!(" at byte {position}, {} bytes", grouped(*bytes));
    }
    match messages {
        Some(0) | None => {}
        Some(count) => text += &format!(", {} messages", grouped(*count)),
    }
    text + ": " + detail + "\n"
}
