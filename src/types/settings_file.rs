//! Files that say how the broker is to be: keys, certificates, the configuration.
//!
//! They are read by threads that must not wait: a shard reads them again while it serves. A FIFO that nobody writes to would
//! hold such a thread for ever, a device can have no end, and what is behind a directory's or a socket's name is no text at
//! all. So only regular files of a bounded size are read, and whatever stands in their place is named.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

/// Why a file was not read. Its path is for the caller to say.
#[derive(Debug, thiserror::Error)]
pub enum SettingsFileError {
    #[error(transparent)]
    System(#[from] io::Error),
    #[error("it is {what}, and must be a regular file")]
    NotRegular { what: &'static str },
    #[error("it is a symbolic link to {target}, which is not there, and must be a regular file")]
    Dangling { target: String },
    #[error("it has {bytes} bytes, {most} are the most")]
    TooLarge { bytes: u64, most: u64 },
}

/// A file that was read whole.
#[derive(Debug)]
pub struct SettingsFile {
    pub bytes: Vec<u8>,
    /// From before the bytes: a change between the two shows in the next look at the file.
    pub metadata: Metadata,
}

impl SettingsFile {
    /// Reads a regular file of at most `most` bytes.
    pub fn read(path: &Path, most: u64) -> Result<Self, SettingsFileError> {
        // Opening a device can do something to it, so what has the name is looked at before.
        let found = std::fs::metadata(path).map_err(|error| unless_dangling(path, error))?;
        check_kind(found.file_type())?;
        // And once more on what was opened: meanwhile the name may have gone to a FIFO, whose opening would wait.
        let file =
            OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK | libc::O_NOCTTY).open(path)?;
        let metadata = file.metadata()?;
        check_kind(metadata.file_type())?;
        let bytes = read_whole(file, most)?;
        let length = bytes.len() as u64;
        if length > most {
            return Err(SettingsFileError::TooLarge { bytes: metadata.len().max(length), most });
        }
        Ok(Self { bytes, metadata })
    }

    /// Reads a file that is text; an error when it is not UTF-8.
    pub fn read_text(path: &Path, most: u64) -> Result<(String, Metadata), SettingsFileError> {
        let Self { bytes, metadata } = Self::read(path, most)?;
        let text = String::from_utf8(bytes)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.utf8_error()))?;
        Ok((text, metadata))
    }
}

/// A link that leads nowhere is no missing file, in the place of which another one may be made.
fn unless_dangling(path: &Path, error: io::Error) -> SettingsFileError {
    match std::fs::read_link(path) {
        Ok(target) if error.kind() == io::ErrorKind::NotFound => {
            SettingsFileError::Dangling { target: target.display().to_string() }
        }
        _ => error.into(),
    }
}

/// One byte too many is enough to see that it is too large.
fn read_whole(file: File, most: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    file.take(most.saturating_add(1)).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn check_kind(kind: FileType) -> Result<(), SettingsFileError> {
    not_regular(kind).map_or(Ok(()), |what| Err(SettingsFileError::NotRegular { what }))
}

/// What stands in the place of a regular file; `None` when it is one.
pub fn not_regular(kind: FileType) -> Option<&'static str> {
    Some(match () {
        () if kind.is_file() => return None,
        () if kind.is_dir() => "a directory",
        () if kind.is_fifo() => "a FIFO (a pipe)",
        () if kind.is_socket() => "a socket",
        () if kind.is_block_device() || kind.is_char_device() => "a device",
        () if kind.is_symlink() => "a symbolic link",
        () => "something else",
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(path: &Path, most: u64) -> String {
        SettingsFile::read(path, most).map(|_| ()).expect_err("not to be read").to_string()
    }

    #[test]
    fn only_regular_files_of_a_bounded_size_are_read() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("file");
        std::fs::write(&file, "text").expect("writable");
        let read = SettingsFile::read(&file, 4).expect("it fits");
        assert_eq!((&read.bytes[..], read.metadata.len()), (&b"text"[..], 4));
        assert_eq!(refused(&file, 3), "it has 4 bytes, 3 are the most");
        let link = directory.path().join("link");
        std::os::unix::fs::symlink(&file, &link).expect("a file system with links");
        assert_eq!(SettingsFile::read_text(&link, 4).expect("it leads to a file").0, "text");
        let dangling = directory.path().join("dangling");
        std::os::unix::fs::symlink(directory.path().join("gone"), &dangling)
            .expect("a file system with links");
        assert!(refused(&dangling, 4).contains("which is not there, and must be a regular file"));
        std::fs::write(&file, b"\xff").expect("writable");
        let error = SettingsFile::read_text(&file, 4).expect_err("no text").to_string();
        assert!(error.contains("utf-8"), "{error}");
    }

    /// Nobody writes to the FIFO: whoever waits for a writer waits for ever.
    #[test]
    fn what_is_no_file_is_named_and_nothing_waits() {
        let directory = tempfile::tempdir().expect("a directory");
        let fifo = directory.path().join("fifo");
        use rustix::fs::{CWD, FileType, Mode, mknodat};
        mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).expect("a file system with FIFOs");
        let socket = directory.path().join("socket");
        let _listener = std::os::unix::net::UnixListener::bind(&socket).expect("a short path");
        let cases = [
            (fifo.as_path(), "a FIFO"),
            (&socket, "a socket"),
            (directory.path(), "a directory"),
            (Path::new("/dev/zero"), "a device"),
        ];
        for (path, part) in cases {
            let error = refused(path, 10);
            assert!(error.contains(part) && error.contains("regular file"), "{error}");
        }
        assert!(refused(Path::new("/nowhere/at/all"), 10).contains("No such file"));
    }
}
