//! Where the data is to lie: the directory, its file system, and the device below it.

use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::cli::check::finding::{Finding, State};
use crate::cli::check::system::System;
use crate::cli::output::bytes_for_people;
use crate::limits;

/// The file that direct I/O is tried with; of a name that no broker uses.
const PROBE: &str = "check-probe";
/// Segments that a shard prepares before messages come.
const SEGMENTS_AT_FIRST: u64 = 2;

/// The directory of data as it would be used, or the nearest one above it that exists.
#[derive(Clone, Debug)]
pub struct Place {
    pub asked: PathBuf,
    pub existing: PathBuf,
}

impl Place {
    pub fn of(asked: &Path) -> Option<Self> {
        let asked = std::path::absolute(asked).ok()?;
        let existing = asked.ancestors().find(|path| path.is_dir())?.to_owned();
        Some(Self { asked, existing })
    }
}

/// Everything about the place of the data.
pub fn all(system: &System, place: &Place, shards: u64) -> Vec<Finding> {
    let mount = mount_of(system, &place.existing);
    let mut findings = vec![file_system(mount.as_ref()), direct_io(place)];
    findings.extend(mount.as_ref().and_then(mount_options));
    findings.push(space(place, shards));
    findings.extend(device(system, &place.existing));
    findings
}

/// A mounted file system.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Mount {
    point: String,
    kind: String,
    options: Vec<String>,
}

/// The line of /proc/self/mountinfo whose mount point is the longest that leads to the path; the last of equals is on top.
fn mount_of(system: &System, path: &Path) -> Option<Mount> {
    let text = system.read("/proc/self/mountinfo")?;
    let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let mounts = text.lines().filter_map(|line| {
        let (before, behind) = line.split_once(" - ")?;
        let (before, behind): (Vec<_>, Vec<_>) = (before.split(' ').collect(), behind.split(' ').collect());
        // A blank in a name stands there as \040.
        let point = before.get(4)?.replace("\\040", " ");
        let options = [*before.get(5)?, behind.get(2).copied().unwrap_or_default()].join(",");
        let options = options.split(',').map(str::to_owned).collect();
        path.starts_with(&point).then(|| Mount { point, kind: (*behind[0]).to_owned(), options })
    });
    mounts.max_by_key(|mount| mount.point.len())
}

fn file_system(mount: Option<&Mount>) -> Finding {
    let Some(Mount { point, kind, .. }) = mount else {
        return Finding::new("file system", State::Unknown, "/proc/self/mountinfo does not name it");
    };
    let found = format!("{kind}, mounted at {point}");
    match kind.as_str() {
        "ext4" | "xfs" => Finding::ok("file system", found),
        "tmpfs" | "ramfs" => Finding::new(
            "file system",
            State::Repair,
            format!("{found}: it is in memory, and durable messages would be lost with the power"),
        )
        .with(&["turbopump serve --data DIR    # with DIR on ext4 or xfs"]),
        "nfs" | "nfs4" | "cifs" | "smb3" | "9p" | "fuse" | "fuseblk" => Finding::new(
            "file system",
            State::Repair,
            format!(
                "{found}: a file of another machine, or of another program, gives no promise about a flush"
            ),
        )
        .with(&["turbopump serve --data DIR    # with DIR on ext4 or xfs of a local disk"]),
        "overlay" => {
            Finding::new("file system", State::Advice, format!("{found}: the data goes with the container"))
                .with(&["docker run --volume turbopump:/var/lib/turbopump ..."])
        }
        _ => Finding::new(
            "file system",
            State::Advice,
            format!("{found}: ext4 and xfs are those that the broker is tested on"),
        )
        .with(&["mkfs.xfs DEVICE    # of a disk that holds nothing else; then mount it for --data"]),
    }
}

/// Options that cost promises, or time.
fn mount_options(mount: &Mount) -> Option<Finding> {
    let has = |option: &str| mount.options.iter().any(|known| known == option);
    let remount = |option: &str| format!("mount -o remount,{option} {}    # and in /etc/fstab", mount.point);
    if has("ro") {
        let found = format!("{} is mounted read-only", mount.point);
        return Some(Finding::new("mount options", State::Repair, found).with(&[&remount("rw")]));
    }
    if has("nobarrier") || has("barrier=0") {
        let found =
            "without barriers a flush may not reach the disk, and durable messages are lost with the power";
        return Some(Finding::new("mount options", State::Repair, found).with(&[&remount("barrier")]));
    }
    if has("discard") {
        let found = "`discard` stops all writes while blocks of a removed segment are freed";
        let todo = [&*remount("nodiscard"), "systemctl enable --now fstrim.timer"];
        return Some(Finding::new("mount options", State::Advice, found).with(&todo));
    }
    None
}

/// Tries what the log does: a block past the page cache.
fn direct_io(place: &Place) -> Finding {
    const WHAT: &str = "direct I/O";
    let probe = place.existing.join(PROBE);
    match try_direct(&probe) {
        Ok(()) => Finding::ok(WHAT, format!("{} takes it", place.existing.display())),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Finding::new(
            WHAT,
            State::Repair,
            format!("{} cannot be written to by this user: {error}", place.existing.display()),
        )
        .with(&[
            &format!(
                "chown -R turbopump: {}    # as root: whoever runs the broker must own it",
                place.asked.display()
            ),
            "sudo -u turbopump turbopump check    # asks as that user",
        ]),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Finding::new(
            WHAT,
            State::Repair,
            format!("the file system of {} does not take it", place.existing.display()),
        )
        .with(&[
            "turbopump serve --data DIR    # with DIR on ext4 or xfs",
            "turbopump serve --buffered-io    # for trying things out only",
        ]),
        Err(error) => Finding::new(WHAT, State::Repair, format!("{}: {error}", probe.display())),
    }
}

fn try_direct(probe: &Path) -> io::Result<()> {
    // Another file of that name is left alone, and no link is followed.
    let file =
        OpenOptions::new().write(true).create_new(true).mode(0o600).custom_flags(libc::O_DIRECT).open(probe);
    let written = file.and_then(|file| {
        let block = limits::BLOCK_BYTES;
        let room = vec![0_u8; 2 * block];
        let skip = room.as_ptr().align_offset(block);
        file.write_all_at(&room[skip..skip + block], 0).and_then(|()| file.sync_data())
    });
    if !matches!(&written, Err(error) if error.kind() == io::ErrorKind::AlreadyExists) {
        // A file system may make the file and refuse to open it.
        let _ = fs::remove_file(probe);
    }
    written
}

fn space(place: &Place, shards: u64) -> Finding {
    let Ok(found) = rustix::fs::statvfs(&place.existing) else {
        return Finding::new("space", State::Unknown, format!("{} does not tell", place.existing.display()));
    };
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let first = SEGMENTS_AT_FIRST * limits::SEGMENT_BYTES_DEFAULT * shards;
    let shown = format!("{} free", bytes_for_people(free as f64));
    let is_made = place.asked.join("turbopump.toml").exists();
    if is_made || free >= first {
        return Finding::ok("space", shown);
    }
    let found =
        format!("{shown}, and a new directory with {shards} shards takes {}", bytes_for_people(first as f64));
    Finding::new("space", State::Advice, found).with(&[
        "turbopump serve --segment-bytes 64MiB    # two of them a shard, at first",
        "turbopump serve --shards 1",
    ])
}

/// The block device, where the file system has one.
fn device(system: &System, path: &Path) -> Vec<Finding> {
    let Ok(metadata) = fs::metadata(path) else { return Vec::new() };
    let number = metadata.dev();
    let number = format!("{}:{}", rustix::fs::major(number), rustix::fs::minor(number));
    let Some(folder) = system.leads_to(&format!("/sys/dev/block/{number}")) else { return Vec::new() };
    // A partition's queue is its disk's.
    let is_partition = system.exists(&format!("{folder}/partition"));
    let disk =
        if is_partition { folder.rsplit_once('/').map_or("", |(disk, _)| disk).to_owned() } else { folder };
    let name = disk.rsplit('/').next().unwrap_or_default().to_owned();
    queue(system, &disk, &name)
}

fn queue(system: &System, disk: &str, name: &str) -> Vec<Finding> {
    let mut findings = Vec::new();
    if system.number(&format!("{disk}/queue/rotational")) == Some(1) {
        findings.push(Finding::new(
            "device",
            State::Advice,
            format!("{name} says that it rotates: a flush takes milliseconds there, and durable messages wait for it"),
        ));
    } else {
        findings.push(Finding::ok("device", name));
    }
    let schedulers = system.read(&format!("{disk}/queue/scheduler")).unwrap_or_default();
    let present = schedulers.split('[').nth(1).and_then(|rest| rest.split(']').next()).unwrap_or_default();
    if !matches!(present, "" | "none" | "mq-deadline") {
        findings.push(
            Finding::new(
                "I/O scheduler",
                State::Advice,
                format!("`{present}` on {name}: it holds back flushes"),
            )
            .with(&[&format!(
                "echo none > /sys/block/{name}/queue/scheduler    # as root; udev keeps it over a boot"
            )]),
        );
    }
    findings
}

#[cfg(test)]
mod tests {
    use super::*;

    fn system(mountinfo: &str) -> (tempfile::TempDir, System) {
        let directory = tempfile::tempdir().expect("a directory");
        std::fs::create_dir_all(directory.path().join("proc/self")).expect("ours");
        std::fs::write(directory.path().join("proc/self/mountinfo"), mountinfo).expect("ours");
        let system = System::new(directory.path());
        (directory, system)
    }

    #[test]
    fn the_innermost_mount_counts() {
        let (_directory, system) = system(
            "1 0 8:1 / / rw,relatime - ext4 /dev/sda1 rw,discard\n2 1 0:5 / /no/data rw - tmpfs tmpfs rw\n3 1 8:2 / /no/such\\040place rw shared:1 - xfs /dev/b rw\n",
        );
        let kind = |path: &str| mount_of(&system, Path::new(path)).expect("mounted").kind;
        assert_eq!(
            [kind("/no/data/x"), kind("/no/database"), kind("/no/such place/x")],
            ["tmpfs", "ext4", "xfs"]
        );
    }

    #[test]
    fn mounts_are_judged() {
        let mount = |kind: &str, options: &str| Mount {
            point: "/data".into(),
            kind: kind.into(),
            options: options.split(',').map(str::to_owned).collect(),
        };
        for (kind, state) in [
            ("ext4", State::Ok),
            ("xfs", State::Ok),
            ("tmpfs", State::Repair),
            ("nfs4", State::Repair),
            ("btrfs", State::Advice),
        ] {
            assert_eq!(file_system(Some(&mount(kind, "rw"))).state, state, "{kind}");
        }
        let state = |options: &str| mount_options(&mount("ext4", options)).map(|finding| finding.state);
        assert_eq!(state("rw,relatime"), None);
        assert_eq!(state("rw,discard"), Some(State::Advice));
        assert_eq!(state("rw,nobarrier"), Some(State::Repair));
        assert_eq!(state("ro"), Some(State::Repair));
    }

    #[test]
    fn a_scheduler_that_holds_back_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("sys/block/sda/queue");
        std::fs::create_dir_all(&folder).expect("ours");
        std::fs::write(folder.join("scheduler"), "none mq-deadline [bfq]\n").expect("ours");
        std::fs::write(folder.join("rotational"), "1\n").expect("ours");
        let found = queue(&System::new(directory.path()), "/sys/block/sda", "sda");
        assert_eq!(found.iter().map(|finding| finding.what).collect::<Vec<_>>(), ["device", "I/O scheduler"]);
        assert!(found.iter().all(|finding| finding.state == State::Advice), "{found:?}");
    }
}
