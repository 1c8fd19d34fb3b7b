//! What must hold before anything is started, each failure with what to type.

use std::io;

use crate::runtime::host;

/// glommio registers memory with its rings and counts it against the limit of locked memory; below this not even the
/// rings can be made.
pub const MEMLOCK_BYTES_MIN: u64 = 512 * 1024;

/// Where glommio looks for the cores; it panics without it.
const CORES: &str = "/sys/devices/system/cpu/online";

/// Why this machine cannot run the broker as it is set up.
#[derive(Debug, thiserror::Error)]
pub enum PreflightError {
    #[error("this kernel has no io_uring: turbopump needs Linux 5.8 or newer")]
    NoIoUring,
    #[error(
        "io_uring is forbidden to this process: allow it with `sysctl kernel.io_uring_disabled=0`, and in a container \
         with a seccomp profile that has io_uring_setup"
    )]
    IoUringForbidden,
    #[error("io_uring does not start: {0}")]
    IoUring(io::Error),
    #[error(
        "{CORES} cannot be read ({0}), and the cores are found there: mount it with `mount -t sysfs sysfs /sys`"
    )]
    Sysfs(io::Error),
    #[error(
        "the limit of locked memory is {0} bytes, io_uring needs {MEMLOCK_BYTES_MIN}: raise it with `ulimit -l 8192`, or \
         LimitMEMLOCK=8M in a systemd unit"
    )]
    Memlock(u64),
    #[error(
        "the limit of open files is {limit}, and {needed} are needed at least: raise it with `ulimit -n 65536`, or \
         LimitNOFILE=65536 in a systemd unit"
    )]
    Descriptors { limit: usize, needed: usize },
    #[error("core {0} does not exist or is not open to this process: choose from {1:?} with --cores")]
    Core(usize, Vec<usize>),
}

/// Checks that io_uring may be used: asked by every command that does, since glommio panics without it.
pub fn check_io_uring() -> Result<(), PreflightError> {
    host::probe_io_uring().map_err(|error| match error.raw_os_error() {
        Some(libc::ENOSYS) => PreflightError::NoIoUring,
        Some(libc::EPERM) | Some(libc::EACCES) => PreflightError::IoUringForbidden,
        Some(libc::ENOMEM) => PreflightError::Memlock(host::memlock_limit().unwrap_or(0)),
        _ => PreflightError::IoUring(error),
    })?;
    std::fs::metadata(CORES).map_err(PreflightError::Sysfs)?;
    if let Some(limit) = host::memlock_limit().filter(|limit| *limit < MEMLOCK_BYTES_MIN) {
        return Err(PreflightError::Memlock(limit));
    }
    Ok(())
}

/// Checks the kernel and the limits.
pub(super) fn check(cores: &[usize]) -> Result<(), PreflightError> {
    check_io_uring()?;
    let available = host::available_cores();
    if let Some(&core) = cores.iter().find(|core| !available.contains(core)) {
        return Err(PreflightError::Core(core, available));
    }
    Ok(())
}
