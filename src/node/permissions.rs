//! What this user may do with the files of a data directory. Asked before a start changes any of them, since files that
//! another user has made, as by a command that was run as root, would end it half-way.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access};

/// What a start lists, and makes files in.
const FOLDERS: [&str; 3] = ["", "log", "index"];

/// The first folder or file of a shard that a start writes to, and this user may not, and why.
pub fn not_writable(shard: &Path) -> Option<(PathBuf, io::Error)> {
    let folders = FOLDERS.iter().map(|folder| PathBuf::from_iter(shard.join(folder).components()));
    folders.filter(|folder| folder.is_dir()).find_map(|folder| {
        may_not_write(&folder).or_else(|| {
            let mut files: Vec<_> = fs::read_dir(&folder).ok()?.flatten().map(|entry| entry.path()).collect();
            files.retain(|path| is_written(path));
            files.sort();
            files.iter().find_map(|path| refused(path, Access::READ_OK | Access::WRITE_OK))
        })
    })
}

/// A folder in which this user may make no files, and why.
pub fn may_not_write(folder: &Path) -> Option<(PathBuf, io::Error)> {
    refused(folder, Access::READ_OK | Access::WRITE_OK | Access::EXEC_OK)
}

fn refused(path: &Path, wanted: Access) -> Option<(PathBuf, io::Error)> {
    let error = access(path, wanted).err().map(io::Error::from).filter(is_refusal)?;
    Some((path.to_owned(), error))
}

/// Anything else is said by whoever opens it.
fn is_refusal(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem)
}

fn is_written(path: &Path) -> bool {
    let Some(name) = path.file_name().and_then(|name| name.to_str()) else { return false };
    let is_ours = name == "manifest"
        || ["snapshot-", "spare-"].iter().any(|begin| name.starts_with(begin))
        || [".segment", ".index"].iter().any(|end| name.ends_with(end));
    is_ours && path.is_file()
}

/// The user of this process, when that is another one than the file's.
pub fn not_of_user(file: &Path) -> Option<Owners> {
    let (owner, user) = (fs::metadata(file).ok()?.uid(), fs::metadata("/proc/self").ok()?.uid());
    (owner != user).then_some(Owners { owner, user })
}

/// Numbers of users.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owners {
    pub owner: u32,
    pub user: u32,
}

/// A file of a shard that is written in place and has another name, which a copy made of hard links has given it.
pub fn linked(shard: &Path) -> Option<PathBuf> {
    let files = ["log/manifest", "snapshot-0", "snapshot-1"].map(|name| shard.join(name));
    files.into_iter().find(|file| fs::metadata(file).is_ok_and(|found| found.nlink() > 1))
}
