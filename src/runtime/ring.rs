//! How the executors' rings are set up, where glommio leaves it to the kernel's defaults.
//!
//! By default the kernel interrupts a thread that is running whenever one of its operations has ended, with an
//! interprocessor interrupt when that happened on another core: a client that sends from there stops this core for each
//! request, which on a virtual machine costs as much as a fifth of an HTTP request. `IORING_SETUP_COOP_TASKRUN` (Linux 5.19)
//! does without: the thread finds what has ended when it next enters the kernel, as an executor does in every round.
//!
//! glommio 0.9 has no option for it. `tools/build.rs` has the linker put the function below in the place of the one in
//! glommio's liburing that asks the kernel for a ring. Where a program links without that, rings are as glommio makes them.
#![allow(unsafe_code)]

use std::ffi::{c_int, c_long, c_uint};
use std::io;

/// `IORING_SETUP_COOP_TASKRUN` of `<linux/io_uring.h>`.
const COOP_TASKRUN: u32 = 1 << 8;

/// The beginning of the kernel's `struct io_uring_params`.
#[repr(C)]
struct RingParameters {
    sq_entries: u32,
    cq_entries: u32,
    flags: u32,
}

/// Asks for a ring, first with less interruption; -1 with `errno` set when there is none.
///
/// # Safety
///
/// `parameters` points to a whole `struct io_uring_params`.
#[unsafe(no_mangle)]
unsafe extern "C" fn __wrap___sys_io_uring_setup(entries: c_uint, parameters: *mut RingParameters) -> c_int {
    // SAFETY: the caller's contract; nobody else uses the structure meanwhile.
    let asked = unsafe { (*parameters).flags };
    let setup = |flags| {
        // SAFETY: the same.
        unsafe { (*parameters).flags = flags };
        // SAFETY: the kernel reads and writes no more than its structure.
        unsafe { libc::syscall(libc::SYS_io_uring_setup, c_long::from(entries), parameters) }
    };
    let ring = setup(asked | COOP_TASKRUN);
    // A kernel that does not know the flag calls that invalid. If it was something else it says so again.
    let is_refused = ring < 0 && io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL);
    (if is_refused { setup(asked) } else { ring }) as c_int
}

#[cfg(test)]
mod tests {
    use super::*;

    unsafe extern "C" {
        /// What glommio's liburing calls.
        fn __sys_io_uring_setup(entries: c_uint, parameters: *mut RingParameters) -> c_int;
    }

    /// As large as the kernel's structure.
    #[repr(C)]
    struct WholeParameters {
        begin: RingParameters,
        rest: [u32; 27],
    }

    fn set_up(entries: c_uint, flags: u32) -> (c_int, u32) {
        let begin = RingParameters { sq_entries: 0, cq_entries: 0, flags };
        let mut parameters = WholeParameters { begin, rest: [0; 27] };
        // SAFETY: the structure is whole.
        let ring = unsafe { __sys_io_uring_setup(entries, (&raw mut parameters).cast()) };
        if ring >= 0 {
            // SAFETY: it was just opened, and nobody else knows it.
            unsafe { libc::close(ring) };
        }
        (ring, parameters.begin.flags)
    }

    #[test]
    fn the_linker_has_rings_made_here() {
        let (ring, flags) = set_up(4, 0);
        assert!(ring >= 0 && (flags == COOP_TASKRUN || flags == 0), "{ring} {flags:#x}");
        // Without entries, and with a flag that no kernel has.
        for (entries, asked) in [(0, 0), (4, 1 << 31)] {
            let (ring, flags) = set_up(entries, asked);
            let error = io::Error::last_os_error().raw_os_error();
            assert_eq!((ring, flags, error), (-1, asked, Some(libc::EINVAL)));
        }
    }

    #[test]
    fn a_kernel_that_knows_the_flag_is_given_it() {
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").expect("Linux");
        let mut numbers = release.split(['.', '-']).map_while(|number| number.parse::<u32>().ok());
        let version = (numbers.next(), numbers.next());
        let expected = if version >= (Some(5), Some(19)) { COOP_TASKRUN } else { 0 };
        assert_eq!(set_up(4, 0).1, expected, "Linux {release}");
    }
}
