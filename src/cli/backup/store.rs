//! How files get into a backup and out of it: read through direct I/O, summed up, and durable before anything relies on them.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use futures_lite::future::block_on;

use crate::cli::backup::catalog::{FileIdentity, cannot, fresh, make_fresh};
use crate::cli::error::CommandError;
use crate::disk::plain::PlainDisk;
use crate::disk::{Disk, DiskFile, OpenMode};

/// Read at once.
const PIECE_BYTES: usize = 1024 * 1024;

/// A file that is there.
pub struct Stored {
    pub crc32c: u32,
    /// The file that it was made of.
    pub source: FileIdentity,
    pub is_linked: bool,
}

/// Reads the first bytes of a file, a multiple of a block; what they add up to.
pub fn read(
    path: &Path,
    bytes: u64,
    mut each: impl FnMut(&[u8]) -> Result<(), CommandError>,
) -> Result<u32, CommandError> {
    block_on(async {
        let file = PlainDisk.open(path, OpenMode::ReadOnly).await.map_err(CommandError::failed)?;
        let (mut at, mut crc) = (0, 0);
        while at < bytes {
            let count = (bytes - at).min(PIECE_BYTES as u64) as usize;
            let piece = file.read(at, count).await.map_err(CommandError::failed)?;
            crc = crc32c::crc32c_append(crc, &piece);
            each(&piece)?;
            at += count as u64;
        }
        Ok(crc)
    })
}

/// Copies the first bytes of a segment; `None` when it has lost its name before all were read: a broker has given it up, and
/// may have used its blocks for others.
pub fn copy(
    from: &Path,
    bytes: u64,
    to: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Option<Stored>, CommandError> {
    let Some(source) = FileIdentity::of(from)? else { return Ok(None) };
    let fresh = fresh(to);
    let copied = write_fresh(&fresh, |made| {
        read(from, bytes, |piece| {
            progress(piece.len() as u64);
            made.write_all(piece).map_err(|error| not_written(to, &error))
        })
    });
    let is_still_there = FileIdentity::of(from)?.is_some_and(|now| now.is_same_file(&source));
    match copied {
        Ok(crc32c) if is_still_there => {
            fs::rename(&fresh, to).map_err(|error| not_written(to, &error))?;
            Ok(Some(Stored { crc32c, source, is_linked: false }))
        }
        copied => {
            // Whatever it holds is of no use, and its blocks may be what is missing.
            let _ = fs::remove_file(&fresh);
            copied.and(Ok(None)).or_else(|error| if is_still_there { Err(error) } else { Ok(None) })
        }
    }
}

/// Gives a segment that is not written any more another name in the backup, or copies it where that cannot be done. A broker
/// does not use the blocks of a file again that has two names.
pub fn link(
    from: &Path,
    bytes: u64,
    to: &Path,
    mut progress: impl FnMut(u64),
) -> Result<Option<Stored>, CommandError> {
    let fresh = fresh(to);
    match fs::remove_file(&fresh) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(not_written(to, &error)),
        _ => {}
    }
    match fs::hard_link(from, &fresh) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        // Another file system, one without links, or a file of somebody else.
        Err(_) => return copy(from, bytes, to, progress),
    }
    let crc32c = read(&fresh, bytes, |piece| {
        progress(piece.len() as u64);
        Ok(())
    })?;
    let source = FileIdentity::of(&fresh)?.ok_or_else(|| gone(&fresh))?;
    fs::rename(&fresh, to).map_err(|error| not_written(to, &error))?;
    Ok(Some(Stored { crc32c, source, is_linked: true }))
}

/// Makes a file of its own for a new data directory, as large as the segment is; what the bytes add up to that came from the
/// backup.
pub fn restore(
    from: &Path,
    stored: u64,
    (to, bytes): (&Path, u64),
    mut progress: impl FnMut(u64),
) -> Result<u32, CommandError> {
    write_fresh(to, |made| {
        let crc32c = read(from, stored, |piece| {
            progress(piece.len() as u64);
            made.write_all(piece).map_err(|error| not_written(to, &error))
        })?;
        reserve(made, stored, bytes).map_err(|error| not_written(to, &error))?;
        Ok(crc32c)
    })
}

/// Blocks for what the broker will write, where the file system can reserve any.
fn reserve(file: &File, from: u64, to: u64) -> io::Result<()> {
    if from == to {
        return Ok(());
    }
    match rustix::fs::fallocate(file, rustix::fs::FallocateFlags::empty(), from, to - from) {
        Err(rustix::io::Errno::OPNOTSUPP) => file.set_len(to),
        reserved => reserved.map_err(io::Error::from),
    }
}

/// Makes a file, and makes what was written to it durable.
pub fn write_fresh<T>(
    path: &Path,
    write: impl FnOnce(&mut File) -> Result<T, CommandError>,
) -> Result<T, CommandError> {
    let mut made = make_fresh(path).map_err(|error| not_written(path, &error))?;
    let written = write(&mut made)?;
    made.sync_all().map_err(|error| not_written(path, &error))?;
    Ok(written)
}

pub fn sync_directory(path: &Path) -> Result<(), CommandError> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(|error| not_written(path, &error))
}

/// Makes a directory that nobody else may look into, and its parents.
pub fn make_directory(path: &Path) -> Result<(), CommandError> {
    use std::os::unix::fs::DirBuilderExt;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(|error| cannot("make", path, &error))
}

fn gone(path: &Path) -> CommandError {
    CommandError::failed(format!("{} was removed by somebody else meanwhile", path.display()))
}

fn not_written(path: &Path, error: &io::Error) -> CommandError {
    let what = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ": free some there, and run it again",
        _ => "",
    };
    CommandError::failed(format!("cannot write {}: {error}{what}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_that_is_used_for_others_meanwhile_is_not_taken() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name| directory.path().join(name);
        let (from, to) = (at("from"), at("to"));
        fs::write(&from, vec![7; 8192]).expect("a file");
        let copied = copy(&from, 8192, &to, |_| fs::rename(&from, at("spare")).expect("it is there"));
        assert!(copied.expect("no error").is_none());
        assert!(!to.exists() && !fresh(&to).exists());
        assert!(copy(&from, 8192, &to, |_| {}).expect("no error").is_none(), "it is gone");
        assert!(link(&from, 8192, &to, |_| {}).expect("no error").is_none(), "it is gone");
        let linked = link(&at("spare"), 8192, &to, |_| {}).expect("no error").expect("it is there");
        assert!(linked.is_linked && linked.crc32c == crc32c::crc32c(&[7; 8192]));
        let copied = copy(&to, 4096, &at("part"), |_| {}).expect("no error").expect("it is there");
        assert_eq!((copied.is_linked, copied.crc32c), (false, crc32c::crc32c(&[7; 4096])));
        assert_eq!(fs::read(at("part")).expect("a file"), [7; 4096]);
    }

    #[test]
    fn what_is_restored_has_the_size_of_a_segment() {
        let directory = tempfile::tempdir().expect("a temporary directory");
        let at = |name| directory.path().join(name);
        fs::write(at("from"), vec![7; 4096]).expect("a file");
        let crc = restore(&at("from"), 4096, (&at("to"), 3 * 4096), |_| {}).expect("it is made");
        assert_eq!(crc, crc32c::crc32c(&[7; 4096]));
        let made = fs::read(at("to")).expect("a file");
        assert_eq!((&made[..4096], &made[4096..]), (&[7; 4096][..], &[0; 8192][..]));
    }
}
