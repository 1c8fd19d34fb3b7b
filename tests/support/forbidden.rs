//! A system that forbids io_uring, as the default profile of container engines does, or writing to a medium.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::ptr::null;

use super::command::{self, BINARY, Outcome};

/// Runs a command that gets "not permitted" from `io_uring_setup`.
pub fn run_without_io_uring(server: Option<&str>, arguments: &[&str]) -> Outcome {
    let mut child = binary(arguments);
    if let Some(server) = server {
        child.env("TURBOPUMP_SERVER", server);
    }
    // SAFETY: between fork and exec only two system calls are made, on memory of this stack.
    unsafe { child.pre_exec(forbid_io_uring) };
    command::finish(child.spawn().expect("the binary under test can be run"), arguments)
}

/// Runs a command for which `directory` is on a medium that cannot be written to.
pub fn run_read_only(directory: &Path, arguments: &[&str]) -> Outcome {
    let mut child = binary(arguments);
    let path = CString::new(directory.as_os_str().as_bytes()).expect("a path");
    // SAFETY: between fork and exec only system calls are made, on memory that was prepared before.
    unsafe { child.pre_exec(move || mount_read_only(&path)) };
    command::finish(
        child.spawn().expect("a mount name space can be made, and the binary can be run"),
        arguments,
    )
}

fn binary(arguments: &[&str]) -> Command {
    let mut child = Command::new(BINARY);
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child.env_remove("TURBOPUMP_SERVER");
    child
}

/// In a mount name space of this process alone. Without the right to make one, in a user name space of its own as well.
fn mount_read_only(path: &CString) -> io::Result<()> {
    let checked = |result: libc::c_int| if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) };
    let (own, bound) = (libc::MS_REC | libc::MS_PRIVATE, libc::MS_BIND | libc::MS_REC);
    let read_only = libc::MS_REMOUNT | libc::MS_BIND | libc::MS_RDONLY;
    // SAFETY: the calls take numbers, and texts that end with a zero and outlive them.
    unsafe {
        checked(libc::unshare(libc::CLONE_NEWNS))
            .or_else(|_| checked(libc::unshare(libc::CLONE_NEWUSER | libc::CLONE_NEWNS)))?;
        checked(libc::mount(null(), c"/".as_ptr(), null(), own, null()))?;
        checked(libc::mount(path.as_ptr(), path.as_ptr(), null(), bound, null()))?;
        checked(libc::mount(null(), path.as_ptr(), null(), read_only, null()))
    }
}

fn forbid_io_uring() -> io::Result<()> {
    const NUMBER_AT: u32 = 0;
    let step = |code: u32, jt, jf, k| libc::sock_filter { code: code as u16, jt, jf, k };
    let mut filter = [
        step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, NUMBER_AT),
        step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 0, 1, libc::SYS_io_uring_setup as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ERRNO | libc::EPERM as u32),
        step(libc::BPF_RET | libc::BPF_K, 0, 0, libc::SECCOMP_RET_ALLOW),
    ];
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: `prctl` takes numbers here, and the address of a program that outlives the call.
    let results = unsafe {
        [
            libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0),
            libc::prctl(libc::PR_SET_SECCOMP, libc::SECCOMP_MODE_FILTER, &raw const program, 0, 0),
        ]
    };
    if results == [0, 0] { Ok(()) } else { Err(io::Error::last_os_error()) }
}
