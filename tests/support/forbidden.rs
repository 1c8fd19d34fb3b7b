//! A system that forbids io_uring, as the default profile of container engines does.

use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use super::command::{self, BINARY, Outcome};

/// Runs a command that gets "not permitted" from `io_uring_setup`.
pub fn run_without_io_uring(server: Option<&str>, arguments: &[&str]) -> Outcome {
    let mut child = Command::new(BINARY);
    child.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    child.env_remove("TURBOPUMP_SERVER");
    if let Some(server) = server {
        child.env("TURBOPUMP_SERVER", server);
    }
    // SAFETY: between fork and exec only two system calls are made, on memory of this stack.
    unsafe { child.pre_exec(forbid_io_uring) };
    command::finish(child.spawn().expect("the binary under test can be run"), arguments)
}

fn forbid_io_uring() -> std::io::Result<()> {
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
    if results == [0, 0] { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}
