//! The kernel, and the limits that a process has.

use crate::cli::check::finding::{Finding, State};
use crate::cli::check::system::System;
use crate::cli::quantity::ByteSize;
use crate::node::{MEMLOCK_BYTES_MIN, PreflightError, check_io_uring};
use crate::runtime::host;

/// Since then io_uring has what the runtime needs.
const KERNEL_MIN: (u32, u32) = (5, 8);
/// What a unit file should give; a start with fewer says for how many connections there is room.
const OPEN_FILES_ADVISED: u64 = 65_536;

pub fn version(system: &System) -> Finding {
    let Some(release) = system.read("/proc/sys/kernel/osrelease") else {
        return Finding::new("kernel", State::Unknown, "/proc/sys/kernel/osrelease cannot be read");
    };
    let mut numbers = release.split(['.', '-', '+']).map(|part| part.parse::<u32>().ok());
    let version = numbers.next().flatten().zip(numbers.next().flatten());
    match version {
        Some(version) if version >= KERNEL_MIN => Finding::ok("kernel", format!("Linux {release}")),
        Some(_) => Finding::new(
            "kernel",
            State::Repair,
            format!("Linux {release}: 5.8 is the oldest that the broker runs on"),
        )
        .with(&["uname -r    # after an update of the kernel and a reboot"]),
        None => Finding::new("kernel", State::Unknown, format!("`{release}` is no version of Linux")),
    }
}

pub fn io_uring() -> Finding {
    let error = match check_io_uring() {
        Ok(()) => return Finding::ok("io_uring", "rings can be made"),
        // Told of by itself.
        Err(PreflightError::Memlock(_)) => return Finding::ok("io_uring", "allowed"),
        Err(error) => error,
    };
    let finding = Finding::new("io_uring", State::Repair, error.to_string());
    match error {
        PreflightError::IoUringForbidden => finding.with(&[
            "sysctl kernel.io_uring_disabled=0    # and in /etc/sysctl.d/ for the next boot",
            "docker run --security-opt seccomp=FILE ...    # a profile that allows io_uring_setup, io_uring_enter and \
             io_uring_register; /usr/share/doc/turbopump/seccomp.json is one",
        ]),
        PreflightError::NoIoUring => finding.with(&["uname -r    # 5.8 or newer, built with CONFIG_IO_URING"]),
        _ => finding,
    }
}

pub fn locked_memory(limit: Option<u64>) -> Finding {
    match limit {
        None => Finding::ok("memlock", "memory may be locked without a limit"),
        Some(limit) if limit >= MEMLOCK_BYTES_MIN => {
            Finding::ok("memlock", format!("{} may be locked", ByteSize(limit)))
        }
        Some(limit) => Finding::new(
            "memlock",
            State::Repair,
            format!("{} may be locked, and rings need {}", ByteSize(limit), ByteSize(MEMLOCK_BYTES_MIN)),
        )
        .with(&[
            "ulimit -l 8192    # as root, in the shell that starts the broker",
            "LimitMEMLOCK=8M    # in the unit, as the package's has it",
            "docker run --ulimit memlock=8388608 ...",
        ]),
    }
}

pub fn open_files() -> Finding {
    let limit = host::raise_open_files();
    match limit {
        0 => Finding::new("open files", State::Unknown, "the limit cannot be read"),
        limit if limit >= OPEN_FILES_ADVISED => Finding::ok("open files", format!("{limit} may be open")),
        limit => Finding::new(
            "open files",
            State::Advice,
            format!("{limit} may be open: files of the log come first, and connections get the rest"),
        )
        .with(&[
            "ulimit -Hn 65536    # as root, in the shell that starts the broker",
            "LimitNOFILE=65536    # in the unit, as the package's has it",
        ]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_told_apart() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("proc/sys/kernel");
        std::fs::create_dir_all(&folder).expect("ours");
        let system = System::new(directory.path());
        for (release, state) in [
            ("6.18.0-amd64", State::Ok),
            ("5.8.0", State::Ok),
            ("5.7.19+x", State::Repair),
            ("4.19", State::Repair),
            ("strange", State::Unknown),
        ] {
            std::fs::write(folder.join("osrelease"), format!("{release}\n")).expect("ours");
            assert_eq!(version(&system).state, state, "{release}");
        }
    }

    #[test]
    fn too_little_memory_to_lock_is_repaired_by_typing() {
        let finding = locked_memory(Some(64 * 1024));
        assert_eq!((finding.state, finding.commands.len()), (State::Repair, 3));
        assert!(finding.found.contains("64KiB"), "{}", finding.found);
        assert_eq!(locked_memory(None).state, State::Ok);
        assert_eq!(locked_memory(Some(8 << 20)).state, State::Ok);
    }
}
