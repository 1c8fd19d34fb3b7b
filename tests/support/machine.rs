//! What the machine says about processes, and the few things that only its superuser may do.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use rustix::mount::{MountFlags, UnmountFlags};

/// A line for whoever watches the run: past the test harness, which keeps the output of tests that pass.
pub fn report(line: &str) {
    // A reader that has gone away does not fail a test.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// A value from the environment that scales a test.
pub fn scale(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|error| panic!("{name}={text}: {error}")),
        Err(_) => default,
    }
}

/// Cores that this process may use.
pub fn available_cores() -> Vec<usize> {
    let set = rustix::thread::sched_getaffinity(None).expect("a process may ask for its own cores");
    (0..rustix::thread::CpuSet::MAX_CPU).filter(|&core| set.is_set(core)).collect()
}

/// Deals the cores out round robin, so that tests that run at the same time share the machine.
pub fn next_core() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let cores = available_cores();
    cores[NEXT.fetch_add(1, Ordering::Relaxed) % cores.len()]
}

/// Resident memory of a process, bytes.
pub fn resident_bytes(process: u32) -> u64 {
    status_bytes(process, "VmRSS:")
}

/// The most resident memory that a process ever had, bytes.
pub fn resident_bytes_max(process: u32) -> u64 {
    status_bytes(process, "VmHWM:")
}

fn status_bytes(process: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).expect("the process lives");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("every process has memory");
    let kib: u64 = line.trim().trim_end_matches(" kB").trim().parse().expect("a number of KiB");
    kib * 1024
}

/// Time that a process has spent on cores.
pub fn cpu_time(process: u32) -> Duration {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).expect("the process lives");
    // The name may hold spaces; it ends with the last parenthesis.
    let (_, fields) = stat.rsplit_once(") ").expect("a name in parentheses");
    let ticks: u64 =
        fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().expect("ticks")).sum();
    Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
}

/// A control group that bounds the memory of the processes in it.
pub struct MemoryGroup {
    path: PathBuf,
    /// Where a thread or a process is put into a group.
    members: &'static str,
}

impl MemoryGroup {
    /// `None` where this process may not make one.
    pub fn make(bytes: u64) -> Option<Self> {
        let name = format!("turbopump-test-{}", std::process::id());
        let first = Path::new("/sys/fs/cgroup/memory");
        let (root, limit, members) = if first.is_dir() {
            (first, "memory.limit_in_bytes", "cgroup.procs")
        } else {
            (Path::new("/sys/fs/cgroup"), "memory.max", "cgroup.procs")
        };
        let path = root.join(name);
        std::fs::create_dir(&path).ok()?;
        let group = Self { path, members };
        std::fs::write(group.path.join(limit), bytes.to_string()).ok()?;
        Some(group)
    }

    /// The file that a process writes its number into, to be in the group.
    pub fn members(&self) -> PathBuf {
        self.path.join(self.members)
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that is just ending still counts.
        for _ in 0..50 {
            if std::fs::remove_dir(&self.path).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

/// A file system in memory of a fixed size, mounted as long as this lives.
pub struct MemoryFileSystem {
    path: PathBuf,
}

impl MemoryFileSystem {
    /// `None` where this process may not mount.
    pub fn mount(path: &Path, bytes: u64) -> Option<Self> {
        std::fs::create_dir_all(path).expect("a directory of this test");
        let options = std::ffi::CString::new(format!("size={bytes}")).expect("no zeros");
        rustix::mount::mount("turbopump-test", path, "tmpfs", MountFlags::empty(), Some(options.as_c_str()))
            .ok()?;
        Some(Self { path: path.to_owned() })
    }

    /// Changes the size.
    pub fn resize(&self, bytes: u64) {
        let options = std::ffi::CString::new(format!("size={bytes}")).expect("no zeros");
        rustix::mount::mount_remount(&self.path, MountFlags::empty(), options.as_c_str())
            .expect("what was mounted can be mounted again");
    }
}

impl Drop for MemoryFileSystem {
    fn drop(&mut self) {
        // Lazily: a test that fails leaves its broker behind for a moment.
        let _ = rustix::mount::unmount(&self.path, UnmountFlags::DETACH);
    }
}
