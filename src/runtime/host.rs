//! What the operating system tells about this thread and process, and what it is asked for.
#![allow(unsafe_code)]

use std::alloc::{GlobalAlloc, Layout};
use std::cell::Cell;
use std::io;
use std::sync::atomic::{AtomicU8, Ordering};

use mimalloc::MiMalloc;
use rustix::thread::MembarrierCommand;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
    static SYSCALLS: Cell<i32> = const { Cell::new(-1) };
}

/// Standard streams that were of no use when the process began: bit 0 is the input, bit 1 the output.
static UNUSABLE_STREAMS: AtomicU8 = AtomicU8::new(0);

/// The C library calls this before the standard library puts `/dev/null` in the place of what is closed. Later nobody can
/// tell that from a `/dev/null` that was asked for: others open it for both directions as well.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = note_unusable_streams;

/// A standard stream of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StandardStream {
    Input = 0,
    Output = 1,
}

/// The allocator with a count per thread: one addition per call, and the only way to claim "no allocation on
/// the way of a message" and be believed.
pub struct CountingAllocator;

// SAFETY: every call goes to `MiMalloc` unchanged; counting touches a thread-local integer and allocates nothing.
unsafe impl GlobalAlloc for CountingAllocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller's contract is passed on.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller's contract is passed on.
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, bytes: usize) -> *mut u8 {
        count_allocation();
        // SAFETY: the caller's contract is passed on.
        unsafe { MiMalloc.realloc(pointer, layout, bytes) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's contract is passed on.
        unsafe { MiMalloc.dealloc(pointer, layout) }
    }
}

fn count_allocation() {
    // While a thread ends its locals may be gone; what it allocates then is not counted.
    let _ = ALLOCATIONS.try_with(|count| count.set(count.get() + 1));
}

/// Nothing of the standard library works yet here.
extern "C" fn note_unusable_streams() {
    for stream in [StandardStream::Input, StandardStream::Output] {
        // SAFETY: `fcntl` with F_GETFL takes an integer and changes nothing.
        let flags = unsafe { libc::fcntl(stream as i32, libc::F_GETFL) };
        let useless = if stream == StandardStream::Input { libc::O_WRONLY } else { libc::O_RDONLY };
        if flags < 0 || flags & libc::O_ACCMODE == useless {
            UNUSABLE_STREAMS.fetch_or(1 << stream as u8, Ordering::Relaxed);
        }
    }
}

/// Registers the process for the barrier that glommio makes before each sleep. That is free while the process has one
/// thread; else the first executor that sleeps waits for every core to pass the kernel's scheduler, tens of milliseconds.
pub fn register_memory_barrier() {
    // A kernel that has none is met by glommio as well, which then makes its barrier another way.
    let _ = rustix::thread::membarrier(MembarrierCommand::RegisterPrivateExpedited);
}

/// Whether the process began with this stream closed, or open for the other direction only. The standard library takes a
/// read from such a stream for its end, and a write to it for a success.
pub fn is_unusable(stream: StandardStream) -> bool {
    UNUSABLE_STREAMS.load(Ordering::Relaxed) & (1 << stream as u8) != 0
}

/// Allocations of this thread so far; zero when the program does not use [`CountingAllocator`].
pub fn allocations() -> u64 {
    ALLOCATIONS.with(Cell::get)
}

/// Processor time of this thread, nanoseconds.
pub fn thread_cpu_ns() -> u64 {
    cpu_ns(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Processor time of the whole process, nanoseconds: that of the kernel's workers for its rings included.
pub fn process_cpu_ns() -> u64 {
    cpu_ns(libc::CLOCK_PROCESS_CPUTIME_ID)
}

fn cpu_ns(clock: libc::clockid_t) -> u64 {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one `timespec`.
    unsafe { libc::clock_gettime(clock, &mut time) };
    time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64
}

/// Resident memory of the process, bytes; zero when /proc does not tell.
pub fn resident_bytes() -> u64 {
    let pages = std::fs::read_to_string("/proc/self/statm")
        .ok()
        .and_then(|text| text.split(' ').nth(1).and_then(|pages| pages.parse::<u64>().ok()));
    // SAFETY: `sysconf` takes no pointers.
    let page_bytes = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    pages.unwrap_or(0) * page_bytes as u64
}

unsafe extern "C" {
    /// mimalloc's, which its crate declares with a feature only.
    fn mi_collect(force: bool);
}

/// Gives the system back what this thread has freed and the allocator keeps for it. That takes the thread some milliseconds.
pub fn give_back_memory() {
    // SAFETY: it may be called at any time, from any thread; no memory in use is touched.
    unsafe { mi_collect(true) };
}

/// Has the system run this thread only where a core has nothing else to do; where it refuses that, at the lowest priority.
pub fn give_way_to_all() -> io::Result<()> {
    let parameter = libc::sched_param { sched_priority: 0 };
    // SAFETY: the pointer gives one `sched_param`; 0 is the calling thread.
    if unsafe { libc::sched_setscheduler(0, libc::SCHED_IDLE, &raw const parameter) } == 0 {
        return Ok(());
    }
    let error = io::Error::last_os_error();
    // SAFETY: `setpriority` takes no pointers; with 0 it is of the calling thread.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, 19) };
    if result == 0 { Ok(()) } else { Err(error) }
}

/// The cores that this process may run on.
pub fn available_cores() -> Vec<usize> {
    // SAFETY: an all-zero set is a valid `cpu_set_t`, which the call below fills in.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the size describe `set`.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &mut set) };
    if result != 0 {
        return vec![0];
    }
    // SAFETY: every index is below CPU_SETSIZE, the set's size in bits.
    (0..libc::CPU_SETSIZE as usize).filter(|&core| unsafe { libc::CPU_ISSET(core, &set) }).collect()
}

/// Raises the limit of open files to what the system allows, and returns what it is then.
pub fn raise_open_files() -> u64 {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for one `rlimit`.
    if unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) } != 0 {
        return 0;
    }
    let raised = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    // SAFETY: `raised` is a filled-in `rlimit`.
    let result = unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raised) };
    if result == 0 { raised.rlim_cur } else { limit.rlim_cur }
}

/// Descriptors that the process has open; a guess where /proc does not tell.
pub fn open_descriptors() -> usize {
    const GUESS: usize = 32;
    // The one that lists them is among them.
    std::fs::read_dir("/proc/self/fd").map_or(GUESS, |entries| entries.count().saturating_sub(1))
}

/// The limit of locked memory, bytes; `None` when there is none.
pub fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limit` is a valid place for one `rlimit`.
    let result = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &mut limit) };
    (result == 0 && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur)
}

/// Has this thread give way to those that run cores, where there is not a core for each.
pub fn give_way() {
    const NICE: libc::c_int = 10;
    // SAFETY: `setpriority` takes integers; 0 is the calling thread, whose own value Linux keeps. It may always be raised.
    unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, NICE) };
}

/// Whether a time server keeps the clock right, by the kernel's word; `None` where it gives none.
pub fn is_clock_synchronised() -> Option<bool> {
    // SAFETY: all zeros are a valid `timex`: nothing is to be changed.
    let mut time: libc::timex = unsafe { std::mem::zeroed() };
    // SAFETY: `time` is a valid place for one `timex`.
    let state = unsafe { libc::adjtimex(&raw mut time) };
    (state >= 0).then_some(time.status & libc::STA_UNSYNC == 0)
}

/// Tries to make an io_uring, the smallest there is.
pub fn probe_io_uring() -> io::Result<()> {
    // 120 bytes of zeros are a valid `io_uring_params`: no flags.
    let mut parameters = [0u64; 15];
    // SAFETY: the kernel reads and writes 120 bytes at the pointer, which is what is there.
    let fd = unsafe { libc::syscall(libc::SYS_io_uring_setup, 1, parameters.as_mut_ptr()) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just made and nobody else has it.
    unsafe { libc::close(fd as i32) };
    Ok(())
}

/// Ends both directions of a connection: whoever reads or writes it gets an error or the end.
pub fn shut_down(fd: i32) {
    // SAFETY: `shutdown` takes no pointers; a descriptor that is none gives an error.
    unsafe { libc::shutdown(fd, libc::SHUT_RDWR) };
}

/// Has the system reset a connection that is closed, and not end it, whoever closes it: the system itself when the process dies. Or
/// no longer: then the peer gets what was sent, and the end.
pub fn set_reset_when_closed(fd: i32, is_reset: bool) {
    let linger = libc::linger { l_onoff: libc::c_int::from(is_reset), l_linger: 0 };
    let bytes = size_of::<libc::linger>() as libc::socklen_t;
    // SAFETY: the pointer and the size describe `linger`; a descriptor that is none gives an error.
    unsafe { libc::setsockopt(fd, libc::SOL_SOCKET, libc::SO_LINGER, (&raw const linger).cast(), bytes) };
}

/// Resets a connection: both sides get an error. What was not sent yet is not sent any more.
pub fn reset(fd: i32) {
    // SAFETY: a `sockaddr` is valid when it is all zeros.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let bytes = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the pointer and the size describe `nowhere`; a descriptor that is none gives an error.
    unsafe { libc::connect(fd, &raw const nowhere, bytes) };
}

/// Ends our direction of a connection: the peer gets what was sent, and then the end.
pub fn end_sending(fd: i32) {
    // SAFETY: `shutdown` takes no pointers; a descriptor that is none gives an error.
    unsafe { libc::shutdown(fd, libc::SHUT_WR) };
}

/// Whether the peer has ended its side of a connection, whatever of it was read.
pub fn has_hung_up(fd: i32) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLRDHUP, revents: 0 };
    // SAFETY: the pointer and the count describe `poll`; with no time-out the call does not wait.
    let ready = unsafe { libc::poll(&raw mut poll, 1, 0) };
    ready == 1 && poll.revents & (libc::POLLRDHUP | libc::POLLHUP | libc::POLLERR) != 0
}

/// Sends the parts one after the other, as far as the socket takes them without waiting.
pub fn send_parts(fd: i32, parts: &[io::IoSlice<'_>]) -> io::Result<usize> {
    // SAFETY: all zeros are a valid `msghdr`: no address, no parts, no control data.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // The standard library promises that an `IoSlice` is an `iovec`.
    message.msg_iov = parts.as_ptr().cast_mut().cast();
    message.msg_iovlen = parts.len() as _;
    // SAFETY: the message describes `parts`, whose bytes the kernel only reads, during this call.
    let sent = unsafe { libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())
}

/// Looks at the first bytes that have come and were not read, as many as there is room for, without waiting: how many there are.
pub fn peek(fd: i32, output: &mut [u8]) -> usize {
    let flags = libc::MSG_PEEK | libc::MSG_DONTWAIT;
    // SAFETY: the kernel writes no more bytes than `output` has, during this call.
    let count = unsafe { libc::recv(fd, output.as_mut_ptr().cast(), output.len(), flags) };
    usize::try_from(count).unwrap_or(0)
}

/// Bytes that were sent on a connection and that the peer's end has not taken; zero when the kernel does not tell.
pub fn unacknowledged_bytes(fd: i32) -> usize {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the kernel writes one integer to the place that the pointer gives it.
    let result = unsafe { libc::ioctl(fd, libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 { usize::try_from(bytes).unwrap_or(0) } else { 0 }
}

/// Whether a connection is over for both directions: its peer has answered with a reset, or it was never one.
pub fn is_reset(fd: i32) -> bool {
    // TCP_CLOSE of the kernel's `tcp_states.h`.
    tcp_state(fd).is_none_or(|state| state == 7)
}

/// Whether neither end of a connection has closed its direction.
pub fn is_established(fd: i32) -> bool {
    // TCP_ESTABLISHED.
    tcp_state(fd) == Some(1)
}

fn tcp_state(fd: i32) -> Option<u8> {
    // The state is the first byte of `tcp_info`, of which the kernel gives as much as there is room for.
    let mut state = 0_u8;
    let mut bytes: libc::socklen_t = 1;
    // SAFETY: the kernel writes one byte to the first pointer, and a length to the second.
    let result = unsafe {
        libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_INFO, (&raw mut state).cast(), &raw mut bytes)
    };
    (result == 0).then_some(state)
}

/// A second descriptor for the same socket.
pub fn duplicate(fd: i32) -> io::Result<i32> {
    // SAFETY: `fcntl` with F_DUPFD_CLOEXEC takes an integer.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 0) };
    if copy < 0 { Err(io::Error::last_os_error()) } else { Ok(copy) }
}

/// Makes a glommio stream of a descriptor that the caller owns and gives away.
pub fn stream_of(fd: i32) -> glommio::net::TcpStream {
    use std::os::fd::FromRawFd;
    // SAFETY: the caller hands over a connected socket that nobody else closes.
    unsafe { glommio::net::TcpStream::from_raw_fd(fd) }
}

/// Makes a glommio listener of one of the standard library.
pub fn listener_of(listener: std::net::TcpListener) -> glommio::net::TcpListener {
    use std::os::fd::{FromRawFd, IntoRawFd};
    // SAFETY: `into_raw_fd` gives up the descriptor, a listening socket.
    unsafe { glommio::net::TcpListener::from_raw_fd(listener.into_raw_fd()) }
}

/// System calls of this thread since they were first asked for; `None` where the kernel does not let this process count
/// them (it needs the tracepoint `raw_syscalls:sys_enter`, so tracefs and the right to use it).
pub fn syscalls(count_from_now: bool) -> Option<u64> {
    let mut fd = SYSCALLS.get();
    if fd < 0 && count_from_now {
        fd = open_syscall_counter()?;
        SYSCALLS.set(fd);
    }
    if fd < 0 {
        return None;
    }
    let mut count = 0u64;
    // SAFETY: eight bytes are read into an integer of eight bytes.
    let read = unsafe { libc::read(fd, (&raw mut count).cast(), 8) };
    (read == 8).then_some(count)
}

/// Opens a perf counter of the tracepoint for the calling thread.
fn open_syscall_counter() -> Option<i32> {
    const TRACEPOINT: u32 = 2;
    let tracefs = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];
    let id = tracefs.iter().find_map(|root| {
        let path = format!("{root}/events/raw_syscalls/sys_enter/id");
        std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok()
    })?;
    // `struct perf_event_attr` of the first published size, PERF_ATTR_SIZE_VER0: type, size, config; the rest is zero.
    let mut attributes = [0u64; 8];
    attributes[0] = u64::from(TRACEPOINT) | (64 << 32);
    attributes[1] = id;
    // SAFETY: the kernel reads the 64 bytes that the structure's size field announces.
    let fd = unsafe { libc::syscall(libc::SYS_perf_event_open, attributes.as_ptr(), 0, -1, -1, 8) };
    (fd >= 0).then_some(fd as i32)
}
