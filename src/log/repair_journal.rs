//! A repair that is written down before its first file leaves its place, so that it goes on after whatever interrupts it.
//!
//! 1. What has to be made is made in the log's directory under other names, `repairing-NAME`, and flushed. Whatever ends the
//!    repair until here has changed nothing.
//! 2. `repair-1` in the shard's directory says what goes where. From here on the shard does not start before the repair was
//!    carried out: by this run or by a later one. Every file that leaves its place gets it in a new folder, `aside-N`; one that
//!    is there already has left.
//! 3. The same file, named `repair-2`: every file that takes a place is given its name; one that is not under its old name any
//!    more has taken it. Files that were cut off are made as long as they were. Then `repair-2` is removed.
//!
//! So each step can be done again, and is done when what it makes is there. The file is text, filled up with line ends to whole
//! blocks; paths are relative to the shard's directory:
//!
//! ```text
//! turbopump repair 1
//! out FROM TO          leaves its place
//! in FROM TO           takes its place
//! extend FILE BYTES    was cut off
//! gives-up BYTES       of the log
//! end CRC32C           of all lines before, eight digits of hexadecimal
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::rc::Rc;

use super::error::OpenError;
use super::expectation::{Contradiction, Flaw, list_log};
use super::manifest;
use super::segment::parse_segment_name;
use crate::disk::{Disk, DiskBuffer, DiskError, DiskFile, OpenMode};
use crate::limits::{BLOCK_BYTES, READ_BYTES};
use crate::types::LogPosition;

/// While files leave their places, and while others take them.
const NAMES: [&str; 2] = ["repair-1", "repair-2"];
const PREPARED: &str = "repairing-";
const PLAN: &str = "plan";
const FIRST_LINE: &str = "turbopump repair 1";
/// More than a repair of every segment that a shard can have.
const FILE_BYTES_MAX: u64 = 64 << 20;

/// What goes where. Paths are relative to the shard's directory.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct RepairJournal {
    out: Vec<(String, String)>,
    into: Vec<(String, String)>,
    extended: Vec<(String, u64)>,
    given_up_bytes: u64,
}

/// The log's directory, by its name, and the folder for what leaves it.
pub(super) struct Places {
    log: String,
    aside: String,
}

fn shard_directory(log: &Path) -> &Path {
    log.parent().unwrap_or(log)
}

/// Where a file of the log is made before it takes its place.
pub(super) fn prepared(log: &Path, name: &str) -> PathBuf {
    log.join(format!("{PREPARED}{name}"))
}

/// Removes what a repair has made that did not begin.
pub(super) async fn remove_prepared<D: Disk>(disk: &D, log: &Path) -> Result<(), DiskError> {
    for name in list_log(disk, log).await? {
        let own = name.strip_prefix(PREPARED);
        let is_own = |own: &str| own == PLAN || own == manifest::NAME || parse_segment_name(own).is_some();
        if own.is_some_and(is_own) {
            disk.remove(&log.join(name)).await?;
        }
    }
    Ok(())
}

/// The plan of a repair of this log that was interrupted.
async fn begun<D: Disk>(disk: &D, log: &Path) -> Result<Option<(PathBuf, usize)>, DiskError> {
    let shard = shard_directory(log);
    let names = list_log(disk, shard).await?;
    let at = NAMES.iter().rposition(|name| names.iter().any(|found| found == name));
    Ok(at.map(|at| (shard.join(NAMES[at]), at)))
}

/// A repair of this log that was interrupted, as what is wrong with the log.
pub(super) async fn interrupted<D: Disk>(disk: &D, log: &Path) -> Result<Option<Contradiction>, DiskError> {
    let zero = LogPosition::ZERO;
    Ok(begun(disk, log).await?.map(|(path, _)| Contradiction {
        file: path.display().to_string(),
        flaw: Flaw::Interrupted,
        from: zero,
        to: zero,
        end: zero,
        messages: None,
    }))
}

impl Places {
    pub async fn of<D: Disk>(disk: &D, log: &Path) -> Result<Self, DiskError> {
        let names = list_log(disk, shard_directory(log)).await?;
        let numbers = names.iter().filter_map(|name| name.strip_prefix("aside-")?.parse::<u64>().ok());
        let aside = format!("aside-{}", numbers.max().map_or(0, |last| last + 1));
        let log = log.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { log, aside })
    }

    fn in_place(&self, name: &str) -> String {
        format!("{}/{name}", self.log)
    }

    fn aside(&self, name: &str) -> String {
        format!("{}/{name}", self.aside)
    }
}

impl RepairJournal {
    pub fn new(given_up_bytes: u64) -> Self {
        Self { given_up_bytes, ..Self::default() }
    }

    pub fn given_up_bytes(&self) -> u64 {
        self.given_up_bytes
    }

    /// A file of the log leaves its place.
    pub fn move_out(&mut self, places: &Places, name: &str) {
        self.out.push((places.in_place(name), places.aside(name)));
    }

    /// One that has left comes back under another name.
    pub fn put_back(&mut self, places: &Places, name: &str, belongs: &str) {
        self.into.push((places.aside(name), places.in_place(belongs)));
    }

    /// One that was made takes its place.
    pub fn put(&mut self, places: &Places, name: &str) {
        self.into.push((places.in_place(&format!("{PREPARED}{name}")), places.in_place(name)));
    }

    pub fn extend(&mut self, places: &Places, name: &str, bytes: u64) {
        self.extended.push((places.in_place(name), bytes));
    }

    /// In sentences.
    pub fn steps(&self) -> Vec<String> {
        let out = self.out.iter().map(|(from, to)| format!("{from} becomes {to}"));
        let into = self.into.iter().map(|(from, to)| format!("{from} becomes {to}"));
        let extended = self.extended.iter();
        let extended = extended.map(|(file, bytes)| format!("{file} is made {bytes} bytes long again"));
        let all = out.chain(into).chain(extended).map(|step| format!("{step}, unless that was done before"));
        all.collect()
    }

    /// The disk that is needed for what is made longer.
    pub fn bytes_needed(&self) -> u64 {
        self.extended.iter().map(|(_, bytes)| *bytes).sum()
    }

    fn encode(&self) -> String {
        let mut text = format!("{FIRST_LINE}\n");
        self.out.iter().for_each(|(from, to)| text += &format!("out {from} {to}\n"));
        self.into.iter().for_each(|(from, to)| text += &format!("in {from} {to}\n"));
        self.extended.iter().for_each(|(file, bytes)| text += &format!("extend {file} {bytes}\n"));
        text += &format!("gives-up {}\n", self.given_up_bytes);
        text += &format!("end {:08x}\n", crc32c::crc32c(text.as_bytes()));
        let missing = text.len().next_multiple_of(BLOCK_BYTES) - text.len();
        text + &"\n".repeat(missing)
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(bytes).ok()?.trim_end_matches('\n');
        let (lines, last) = text.rsplit_once('\n')?;
        let checksum = u32::from_str_radix(last.strip_prefix("end ")?, 16).ok()?;
        if crc32c::crc32c_append(crc32c::crc32c(lines.as_bytes()), b"\n") != checksum {
            return None;
        }
        let mut lines = lines.split('\n');
        if lines.next()? != FIRST_LINE {
            return None;
        }
        let mut journal = Self::default();
        for line in lines {
            let words: Vec<&str> = line.split(' ').collect();
            match words[..] {
                ["out", from, to] => journal.out.push((own_path(from)?, own_path(to)?)),
                ["in", from, to] => journal.into.push((own_path(from)?, own_path(to)?)),
                ["extend", file, bytes] => journal.extended.push((own_path(file)?, bytes.parse().ok()?)),
                ["gives-up", bytes] => journal.given_up_bytes = bytes.parse().ok()?,
                _ => return None,
            }
        }
        Some(journal)
    }

    /// The plan of a repair that was interrupted.
    pub async fn read<D: Disk>(disk: &D, log: &Path) -> Result<Option<Self>, OpenError> {
        let Some((path, _)) = begun(disk, log).await? else { return Ok(None) };
        let file = disk.open(&path, OpenMode::ReadOnly).await?;
        let read = read_all(&file).await;
        file.close().await?;
        match Self::decode(&read?) {
            Some(journal) => Ok(Some(journal)),
            None => {
                let detail = format!(
                    "{} is the plan of a repair that was interrupted, and cannot be read: restore it, or the whole \
                     directory, from a copy",
                    path.display()
                );
                Err(OpenError::Contradiction { directory: log.display().to_string(), detail })
            }
        }
    }

    /// Writes it down. What it needs is made and flushed.
    pub async fn begin<D: Disk>(&self, disk: &D, log: &Path) -> Result<(), DiskError> {
        let path = prepared(log, PLAN);
        let file = disk.open(&path, OpenMode::Create).await?;
        let text = self.encode();
        for (number, piece) in text.as_bytes().chunks(READ_BYTES).enumerate() {
            let mut buffer = disk.allocate(piece.len());
            buffer.as_mut_slice().copy_from_slice(piece);
            file.write((number * READ_BYTES) as u64, Rc::new(buffer)).await?;
        }
        file.sync().await?;
        file.close().await?;
        disk.sync_directory(log).await?;
        let shard = shard_directory(log);
        // What is moved aside goes the same way: where that leads to another file system, this is refused before anything
        // was moved.
        disk.rename(&path, &shard.join(NAMES[0])).await?;
        disk.sync_directory(log).await?;
        disk.sync_directory(shard).await
    }

    /// Carries it out, or what is left of it.
    pub async fn carry_out<D: Disk>(&self, disk: &D, log: &Path) -> Result<(), DiskError> {
        let shard = shard_directory(log);
        let Some((_, stage)) = begun(disk, log).await? else { return Ok(()) };
        if stage == 0 {
            self.clear_places(disk, shard).await?;
            disk.rename(&shard.join(NAMES[0]), &shard.join(NAMES[1])).await?;
            disk.sync_directory(shard).await?;
        }
        self.take_places(disk, shard).await?;
        disk.remove(&shard.join(NAMES[1])).await?;
        disk.sync_directory(shard).await
    }

    async fn clear_places<D: Disk>(&self, disk: &D, shard: &Path) -> Result<(), DiskError> {
        for directory in directories(&self.out) {
            disk.create_directory(&shard.join(directory)).await?;
        }
        disk.sync_directory(shard).await?;
        let there = Self::existing(disk, shard, &self.out).await?;
        for (from, to) in self.out.iter().filter(|(_, to)| !there.contains(to)) {
            disk.rename(&shard.join(from), &shard.join(to)).await?;
        }
        Self::sync_all(disk, shard, &self.out).await
    }

    async fn take_places<D: Disk>(&self, disk: &D, shard: &Path) -> Result<(), DiskError> {
        let there = Self::existing(disk, shard, &self.into).await?;
        for (from, to) in &self.into {
            // What is in neither place is lost: the rename says so.
            if there.contains(from) || !there.contains(to) {
                disk.rename(&shard.join(from), &shard.join(to)).await?;
            }
        }
        for (path, bytes) in &self.extended {
            let file = disk.open(&shard.join(path), OpenMode::Existing).await?;
            if file.size().await? < *bytes {
                file.preallocate(*bytes).await?;
            }
            file.sync().await?;
            file.close().await?;
        }
        Self::sync_all(disk, shard, &self.into).await
    }

    /// What there is in the directories from which and to which these files go.
    async fn existing<D: Disk>(
        disk: &D,
        shard: &Path,
        moves: &[(String, String)],
    ) -> Result<BTreeSet<String>, DiskError> {
        let mut found = BTreeSet::new();
        for directory in directories(moves) {
            let names = list_log(disk, &shard.join(directory)).await?;
            found.extend(names.into_iter().map(|name| format!("{directory}/{name}")));
        }
        Ok(found)
    }

    async fn sync_all<D: Disk>(disk: &D, shard: &Path, moves: &[(String, String)]) -> Result<(), DiskError> {
        for directory in directories(moves) {
            disk.sync_directory(&shard.join(directory)).await?;
        }
        Ok(())
    }
}

fn directories(moves: &[(String, String)]) -> BTreeSet<&str> {
    let all = moves.iter().flat_map(|(from, to)| [from, to]);
    all.filter_map(|path| Some(path.split_once('/')?.0)).collect()
}

/// A path that a repair names: a file in a directory of the shard's.
fn own_path(text: &str) -> Option<String> {
    let (directory, name) = text.split_once('/')?;
    let is_name = |name: &str| !matches!(name, "" | "." | "..") && !name.contains('/');
    (is_name(directory) && is_name(name)).then(|| text.to_owned())
}

async fn read_all<F: DiskFile>(file: &F) -> Result<Vec<u8>, DiskError> {
    // One that is longer, or no whole blocks, is no plan.
    let end = file.size().await?.min(FILE_BYTES_MAX) / BLOCK_BYTES as u64 * BLOCK_BYTES as u64;
    let mut bytes = Vec::new();
    while (bytes.len() as u64) < end {
        let count = READ_BYTES.min(end as usize - bytes.len());
        bytes.extend_from_slice(&file.read(bytes.len() as u64, count).await?);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests;
