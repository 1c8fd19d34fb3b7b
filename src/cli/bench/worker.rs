//! One thread of the load generator: an event loop over its lanes. One thread drives any number of connections, so that
//! a generator on one core does not spend it on switching threads.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::thread::{CpuSet, sched_setaffinity};

use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::produce_lane::ProduceLane;
use crate::cli::bench::read_lane::ReadLane;
use crate::cli::bench::socket::SocketError;
use crate::cli::bench::window::Window;

/// Wakes up at least this often, to notice the end of the run.
const NAP_NS: u64 = 50_000_000;

/// When a run starts, stops starting new work, and gives up waiting for answers.
#[derive(Clone, Copy, Debug)]
pub struct Timetable {
    pub start_ns: u64,
    pub stop_ns: u64,
    pub give_up_ns: u64,
}

/// A worker's lanes. Returned when the run is over, with everything they found.
#[derive(Default)]
pub struct Worker {
    pub producers: Vec<ProduceLane>,
    pub consumers: Vec<ReadLane>,
    /// Messages and batches of which nothing is known, because the run gave up on them.
    pub abandoned_batches: u64,
    pub failure: Option<SocketError>,
    /// Producers that `Producing` was told of.
    reported_done: usize,
}

/// Counts the lanes of all workers that still produce.
pub struct Producing {
    lanes: AtomicUsize,
}

/// Pins the calling thread, and has the kernel wake it as exactly as it can: the default slack of 50 us is a third of a
/// durable write.
pub fn prepare_thread(core: Option<usize>) -> Result<(), Errno> {
    rustix::thread::set_current_timer_slack(std::num::NonZero::new(1))?;
    if let Some(core) = core {
        let mut cores = CpuSet::new();
        cores.set(core);
        sched_setaffinity(None, &cores)?;
    }
    Ok(())
}

impl Worker {
    /// Runs the lanes to their end, or to the first broken connection. Followers read on while `producing` says that
    /// messages may still come.
    pub fn run(
        &mut self,
        clock: BenchClock,
        times: Timetable,
        window: &Mutex<Window>,
        producing: &Producing,
    ) {
        self.producers.iter_mut().for_each(|lane| lane.begin(times.start_ns));
        if let Err(error) = self.drive(clock, times, window, producing) {
            self.failure = Some(error);
        }
        for lane in &mut self.producers {
            self.abandoned_batches += lane.abandon();
        }
        self.consumers.iter_mut().for_each(ReadLane::abandon);
        producing.done(self.producers.len() - self.reported_done);
    }

    fn drive(
        &mut self,
        clock: BenchClock,
        times: Timetable,
        window: &Mutex<Window>,
        producing: &Producing,
    ) -> Result<(), SocketError> {
        loop {
            let now_ns = clock.now_ns();
            if now_ns >= times.stop_ns {
                self.producers.iter_mut().for_each(ProduceLane::stop);
            }
            let done = self.producers.iter().filter(|lane| lane.is_done()).count();
            producing.done(done - self.reported_done);
            self.reported_done = done;
            if now_ns >= times.stop_ns && producing.is_over() {
                self.consumers.iter_mut().for_each(ReadLane::stop);
            }
            let mut wake_ns = now_ns + NAP_NS;
            for lane in &mut self.producers {
                wake_ns = wake_ns.min(lane.pump()?.unwrap_or(u64::MAX));
            }
            for lane in &mut self.consumers {
                lane.pump()?;
            }
            let all_done = done == self.producers.len() && self.consumers.iter().all(ReadLane::is_done);
            if all_done || now_ns >= times.give_up_ns {
                return Ok(());
            }
            self.wait(wake_ns.saturating_sub(clock.now_ns()), window)?;
        }
    }

    /// Waits until a socket is ready or the time is up, and receives what came.
    fn wait(&mut self, nanoseconds: u64, window: &Mutex<Window>) -> Result<(), SocketError> {
        let interest = |wants_write: bool| {
            if wants_write { PollFlags::IN | PollFlags::OUT } else { PollFlags::IN }
        };
        let mut sockets: Vec<PollFd<'_>> = Vec::with_capacity(self.producers.len() + self.consumers.len());
        sockets.extend(
            self.producers.iter().map(|lane| PollFd::new(lane.socket(), interest(lane.wants_write()))),
        );
        sockets.extend(
            self.consumers.iter().map(|lane| PollFd::new(lane.socket(), interest(lane.wants_write()))),
        );
        let timeout = Timespec {
            tv_sec: (nanoseconds / 1_000_000_000) as i64,
            tv_nsec: (nanoseconds % 1_000_000_000) as i64,
        };
        match poll(&mut sockets, Some(&timeout)) {
            Ok(0) | Err(Errno::INTR) => return Ok(()),
            Ok(_) => {}
            Err(error) => panic!("poll refuses its arguments: {error}"),
        }
        let readable: Vec<bool> =
            sockets.iter().map(|socket| !socket.revents().difference(PollFlags::OUT).is_empty()).collect();
        let (producers, consumers) = readable.split_at(self.producers.len());
        let mut window = window.lock().expect("no thread panics with the window");
        for (lane, _) in self.producers.iter_mut().zip(producers).filter(|(_, readable)| **readable) {
            lane.receive(&mut window)?;
        }
        for (lane, _) in self.consumers.iter_mut().zip(consumers).filter(|(_, readable)| **readable) {
            lane.receive(&mut window)?;
        }
        Ok(())
    }
}

impl Producing {
    pub fn new(lanes: usize) -> Self {
        Self { lanes: lanes.into() }
    }

    fn done(&self, lanes: usize) {
        let left = self.lanes.fetch_sub(lanes, Ordering::AcqRel);
        assert!(left >= lanes, "each lane is done once");
    }

    fn is_over(&self) -> bool {
        self.lanes.load(Ordering::Acquire) == 0
    }
}
