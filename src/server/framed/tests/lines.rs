//! A small protocol: lines, each after its length, `NUMBER VERB ARGUMENT` in and `NUMBER RESULT` out.

use std::cell::{Cell, RefCell};
use std::io::{self, ErrorKind, IoSlice, Read, Write};
use std::net::Shutdown;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use futures_lite::AsyncRead;

use crate::api::{Failure, RequestProtocol, RequestSubject, Status};
use crate::broker::{LookNow, Recipient};
use crate::clock::SharedClock;
use crate::metrics::{LogMark, Timeline};
use crate::net::ReceiveBuffer;
use crate::runtime::{Executor, host};
use crate::server::context::ShardContext;
use crate::server::framed::{Call, CallTerms, Calls, Cut, Framed, Protocol, SendHalf, Taken, Waited};
use crate::server::parked::{LookReason, ParkedCall};
use crate::server::sessions::{ClientConnection, ClientSessions, Connection, OpenConnections, SessionTerms};
use crate::testing::{JoinHandle, SeededExecutor, Spawner};
use crate::types::{Account, ClientMemory, MonotonicTime, WakerList};

pub const LINE_BYTES_MAX: usize = 1 << 20;
/// How often a socket that is empty or full is looked at.
const POLL_INTERVAL: Duration = Duration::from_millis(1);

pub type LineSessions = ClientSessions<LineClient, String>;

/// What the connections of the protocol have in common.
pub struct Shard {
    pub context: Rc<ShardContext>,
    pub open: Rc<OpenConnections>,
    pub sessions: Rc<LineSessions>,
}

/// A client over one connection: it is asked in lines of their own.
pub struct LineClient {
    context: Rc<ShardContext>,
    connection: Rc<Connection>,
}

/// The protocol on one connection.
pub struct Lines {
    context: Rc<ShardContext>,
    connection: Rc<Connection>,
    sessions: Rc<LineSessions>,
    /// Who is at the other end, once it has said so.
    client: RefCell<String>,
    way: Rc<LineClient>,
    calls: Rc<Calls>,
    spawner: Spawner,
    placed: Cell<u64>,
    settled: Cell<u64>,
    settling: WakerList,
    released: WakerList,
    unstuck: WakerList,
    /// Those who are called when something arrives.
    callers: RefCell<Vec<Rc<dyn LookNow>>>,
    /// What has arrived and was not taken.
    arrived: Cell<usize>,
    /// Frames of this length or a larger one are not taken.
    pub refused_from: Cell<usize>,
    pub taken: Cell<usize>,
    /// Lines that wait.
    pub waiting: Cell<usize>,
    /// Lines that are parked, and how often one was looked at.
    pub parked: Cell<usize>,
    pub looks: Cell<usize>,
}

/// A line that is parked.
struct ParkedLine {
    lines: Rc<Lines>,
    call: Call,
    number: String,
    end: MonotonicTime,
}

/// A placed line: its number, and which one it is in the log.
pub struct PlacedLine {
    number: String,
    at: u64,
}

/// A connection that is being served, and its client.
pub struct Served {
    pub context: Rc<ShardContext>,
    pub connection: Rc<Connection>,
    pub lines: Rc<Lines>,
    pub yields: Rc<Cell<usize>>,
    client: UnixStream,
    came: RefCell<Vec<u8>>,
    serving: JoinHandle<()>,
}

impl Shard {
    pub fn new(executor: &SeededExecutor) -> Self {
        let clock = executor.shared_clock();
        let context = ShardContext::new(clock.clone(), Rc::default(), ClientMemory::new(512 << 20));
        let terms = SessionTerms {
            absence: Duration::from_secs(30),
            silence: Duration::from_secs(120),
            clients_max: 3,
            asked_max: 2,
        };
        let on = Seeded { spawner: executor.spawner(), clock: clock.clone(), yields: Rc::default() };
        executor.spawn(context.parked.clone().run(on));
        let sessions = Rc::new(ClientSessions::new(clock, terms));
        Self { open: Rc::new(OpenConnections::new(&context)), context, sessions }
    }

    /// A client connects, and is served.
    pub fn connect(&self, executor: &SeededExecutor) -> Served {
        let (client, server) = UnixStream::pair().expect("a pair of sockets");
        client.set_nonblocking(true).expect("no waiting");
        server.set_nonblocking(true).expect("no waiting");
        let (context, clock) = (self.context.clone(), executor.shared_clock());
        let connection = self.open.begin(server.as_raw_fd());
        connection.is_known.set(true);
        let way = LineClient { context: context.clone(), connection: connection.clone() };
        let lines = Rc::new(Lines {
            context: context.clone(),
            connection: connection.clone(),
            sessions: self.sessions.clone(),
            client: RefCell::default(),
            way: Rc::new(way),
            calls: Calls::new(&context, &connection, RequestProtocol::Native),
            spawner: executor.spawner(),
            placed: Cell::new(0),
            settled: Cell::new(0),
            settling: WakerList::new(),
            released: WakerList::new(),
            unstuck: WakerList::new(),
            callers: RefCell::default(),
            arrived: Cell::new(0),
            refused_from: Cell::new(usize::MAX),
            taken: Cell::new(0),
            waiting: Cell::new(0),
            parked: Cell::new(0),
            looks: Cell::new(0),
        });
        let yields = Rc::new(Cell::new(0));
        let on = Seeded { spawner: executor.spawner(), clock: clock.clone(), yields: yields.clone() };
        let copy = server.try_clone().expect("a second descriptor");
        let halves = (Socket::new(server, &clock), Socket::new(copy, &clock));
        let framed = Framed::new(&context, &connection, &lines);
        let (open, of_it) = (self.open.clone(), lines.clone());
        let serving = executor.spawn(async move {
            framed.serve(&on, halves, ReceiveBuffer::new()).await;
            of_it.sessions.disconnected(&of_it.client.borrow(), of_it.connection.id);
            open.close(&of_it.connection);
        });
        Served { context, connection, lines, yields, client, came: RefCell::default(), serving }
    }
}

impl Lines {
    /// One client of a shard.
    pub fn serve(executor: &SeededExecutor) -> Served {
        Shard::new(executor).connect(executor)
    }

    pub fn framed(line: &str) -> Vec<u8> {
        [&(line.len() as u32).to_le_bytes(), line.as_bytes()].concat()
    }

    /// The first so many of what was placed have reached their level.
    pub fn settle_up_to(&self, count: u64) {
        self.settled.set(count);
        self.settling.wake();
    }

    pub fn release(&self) {
        self.released.wake();
    }

    pub fn unstick(&self) {
        self.unstuck.wake();
    }

    /// So many things arrive, and all who wait for one are called.
    pub fn arrive(&self, count: usize) {
        self.arrived.set(self.arrived.get() + count);
        self.callers.take().iter().for_each(|caller| caller.look_now());
    }

    /// Has a line wait until something arrives, or so many milliseconds have passed.
    async fn begin_parked(self: &Rc<Self>, number: &str, milliseconds: u64) {
        let terms = CallTerms { carried_bytes: 0, waits_long: true, is_parked: true, deadline: None };
        let Some(call) = self.calls.begin(terms, None).await else { return };
        call.describe(RequestSubject::of("park"));
        let end = self.context.clock.monotonic().after(Duration::from_millis(milliseconds));
        self.parked.set(self.parked.get() + 1);
        self.park(Box::new(ParkedLine { lines: self.clone(), call, number: number.to_owned(), end }));
    }

    fn park(&self, line: Box<ParkedLine>) {
        let slot = self.connection.parked.slot();
        self.callers.borrow_mut().push(slot.caller());
        slot.park(line.end, line);
    }

    fn answer(&self, number: &str, result: &str) {
        let frame = Self::framed(&format!("{number} {result}"));
        self.connection.outbox.push_with(|output| output.extend_from_slice(&frame));
    }

    async fn call(self: &Rc<Self>, number: &str, verb: &str, argument: usize) {
        let (waits_long, is_parked) = (verb == "wait", false);
        let deadline = (verb == "until").then(|| Duration::from_millis(argument as u64));
        let deadline = deadline.map(|time| self.context.clock.monotonic().after(time));
        let terms = CallTerms { carried_bytes: 0, waits_long, is_parked, deadline };
        let Some(call) = self.calls.begin(terms, None).await else { return };
        call.describe(RequestSubject::of(if waits_long { "" } else { "call" }));
        let (lines, number, verb) = (self.clone(), number.to_owned(), verb.to_owned());
        let task = async move {
            if let Some(result) = lines.carry_out(&call, &verb, argument).await {
                lines.answer(&number, &result);
            }
        };
        drop(self.spawner.spawn(task));
    }

    async fn carry_out(&self, call: &Call, verb: &str, argument: usize) -> Option<String> {
        match verb {
            "wait" | "until" => {
                self.waiting.set(self.waiting.get() + 1);
                let waited = call.while_there(self.released.changed()).await;
                self.waiting.set(self.waiting.get() - 1);
                match waited {
                    Waited::Over(()) => Some("released".to_owned()),
                    Waited::Cut => Some("cut".to_owned()),
                    Waited::Late => Some("late".to_owned()),
                    Waited::Left => None,
                }
            }
            "stick" => {
                self.unstuck.changed().await;
                None
            }
            "make" => {
                let _reservation = call.reserve_answer(Account::Answers, argument).await?;
                Some("x".repeat(argument))
            }
            other => panic!("no call is named {other}"),
        }
    }
}

impl Protocol for Lines {
    const NAME: RequestProtocol = RequestProtocol::Native;

    type Frame<'a> = &'a str;
    type Placed = PlacedLine;

    async fn greet<R: AsyncRead + Unpin>(&self, _: &mut R, _: &mut ReceiveBuffer) -> bool {
        true
    }

    fn cut<'a>(&self, bytes: &'a [u8]) -> Result<Cut<&'a str>, Failure> {
        let Some((head, rest)) = bytes.split_first_chunk::<4>() else {
            return Ok(Cut::Incomplete { needed: 4 });
        };
        let length = u32::from_le_bytes(*head) as usize;
        if length > LINE_BYTES_MAX {
            return Err(Failure::new(Status::MalformedFrame, "too long"));
        }
        let Some(line) = rest.get(..length) else { return Ok(Cut::Incomplete { needed: 4 + length }) };
        let frame = std::str::from_utf8(line).expect("text");
        Ok(Cut::Frame { frame, frame_bytes: 4 + length })
    }

    fn frame_refusal(&self, frame_bytes: usize) -> Option<Failure> {
        let is_refused = frame_bytes >= self.refused_from.get();
        is_refused.then(|| Failure::new(Status::PermissionDenied, "for others"))
    }

    async fn take(self: &Rc<Self>, frame: Self::Frame<'_>) -> Taken<PlacedLine> {
        self.taken.set(self.taken.get() + 1);
        let mut words = frame.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (number, verb, argument) = (word(), word(), word());
        match verb {
            "echo" => self.answer(number, argument),
            "fill" => self.answer(number, &"x".repeat(argument.parse().expect("a size"))),
            "drop" => {}
            "hello" => {
                *self.client.borrow_mut() = argument.to_owned();
                let is_known = self.sessions.heard(argument, self.connection.id, &self.way);
                self.answer(number, if is_known { "welcome" } else { "too many" });
            }
            "answer" => {
                let (asked, answer) = argument.split_once(' ').expect("a number and an answer");
                let asked = asked.parse().expect("a number");
                let is_taken = self.sessions.answer(&self.client.borrow(), asked, answer.to_owned());
                self.answer(number, if is_taken { "taken" } else { "dropped" });
            }
            "weigh" => return Taken::Weighing(argument.parse().expect("a size")),
            "place" => {
                self.placed.set(self.placed.get() + 1);
                return Taken::Placed(PlacedLine { number: number.to_owned(), at: self.placed.get() });
            }
            "bye" => {
                self.answer(number, "bye");
                return Taken::Last;
            }
            "park" => self.begin_parked(number, argument.parse().expect("milliseconds")).await,
            verb => self.call(number, verb, argument.parse().unwrap_or_default()).await,
        }
        Taken::Weighing(0)
    }

    fn settle(&self, placed: &PlacedLine, _: &Timeline, _: MonotonicTime) -> bool {
        let is_due = placed.at <= self.settled.get();
        if is_due {
            self.answer(&placed.number, "placed");
        }
        is_due
    }

    fn describe(&self, _: &Self::Frame<'_>) -> RequestSubject {
        RequestSubject::of("at-once")
    }

    fn describe_placed(&self, _: &PlacedLine) -> (RequestSubject, Option<LogMark>) {
        (RequestSubject::of("place"), None)
    }

    fn settling(&self) -> &WakerList {
        &self.settling
    }

    fn refuse(&self, failure: Failure) {
        let result = match failure.status {
            Status::MalformedFrame => "malformed-frame",
            Status::PermissionDenied => "permission-denied",
            other => panic!("{other:?}"),
        };
        self.answer("0", result);
    }
}

impl ParkedCall for ParkedLine {
    fn woken(&self, since: MonotonicTime) -> Timeline {
        self.call.woken(since)
    }

    fn look(self: Box<Self>, reason: LookReason) -> usize {
        let lines = self.lines.clone();
        lines.looks.set(lines.looks.get() + 1);
        assert!(self.call.is_here(), "a line was looked at for somebody who has left");
        let arrived = lines.arrived.get();
        if arrived > 0 {
            lines.arrived.set(arrived - 1);
            lines.answer(&self.number, "arrived");
            return 0;
        }
        match reason {
            // Somebody was faster.
            LookReason::Called => lines.park(self),
            LookReason::Over => lines.answer(&self.number, "over"),
            LookReason::Cut => lines.answer(&self.number, "cut"),
        }
        0
    }
}

impl Drop for ParkedLine {
    fn drop(&mut self) {
        self.lines.parked.set(self.lines.parked.get() - 1);
    }
}

impl ClientConnection for LineClient {
    type Request = String;

    fn send(&self, _client: &str, number: Option<u64>, request: &String) -> bool {
        let outbox = &self.connection.outbox;
        if outbox.is_closed() || outbox.bytes() > self.context.unread_bytes_max() {
            return false;
        }
        let line = match number {
            Some(number) => format!("ask {number} {request}"),
            None => format!("tell {request}"),
        };
        outbox.push_with(|output| output.extend_from_slice(&Lines::framed(&line)));
        true
    }
}

impl Served {
    pub fn send(&self, lines: &[impl AsRef<str>]) {
        self.send_bytes(&lines.iter().flat_map(|line| Lines::framed(line.as_ref())).collect::<Vec<_>>());
    }

    /// Lines that wait for something to arrive, of these numbers.
    pub fn park(&self, numbers: std::ops::Range<usize>, milliseconds: u64) {
        self.send(&numbers.map(|number| format!("{number} park {milliseconds}")).collect::<Vec<_>>());
    }

    /// Sends what the socket takes whole.
    pub fn send_bytes(&self, bytes: &[u8]) {
        (&self.client).write_all(bytes).expect("room in the socket");
    }

    pub fn send_some(&self, bytes: &[u8]) -> usize {
        match (&self.client).write(bytes) {
            Ok(count) => count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
            Err(error) => panic!("{error}"),
        }
    }

    /// The whole answers that have come since the last look.
    pub fn answers(&self) -> Vec<String> {
        let mut came = self.came.borrow_mut();
        let mut part = vec![0; 64 * 1024];
        while let Ok(count) = (&self.client).read(&mut part) {
            came.extend_from_slice(&part[..count]);
            if count == 0 {
                break;
            }
        }
        let (mut answers, mut at) = (Vec::new(), 0);
        while let Some(head) = came[at..].first_chunk::<4>() {
            let length = u32::from_le_bytes(*head) as usize;
            let Some(line) = came.get(at + 4..at + 4 + length) else { break };
            answers.push(String::from_utf8(line.to_vec()).expect("text"));
            at += 4 + length;
        }
        came.drain(..at);
        answers
    }

    /// So many answers, each of which may take more than the socket holds.
    pub fn answers_within(&self, executor: &SeededExecutor, count: usize) -> Vec<String> {
        let mut answers = Vec::new();
        while answers.len() < count {
            executor.run_for(Duration::from_millis(5));
            answers.extend(self.answers());
        }
        answers
    }

    /// The client sends nothing more, and still reads.
    pub fn end_sending(&self) {
        self.client.shutdown(Shutdown::Write).expect("it was open");
    }

    /// The client is gone, whatever it has not read.
    pub fn hang_up(&self) {
        self.client.shutdown(Shutdown::Both).expect("it was open");
    }

    /// Whether the client has met the end, after all that was sent.
    pub fn has_ended(&self) -> bool {
        matches!((&self.client).read(&mut [0]), Ok(0))
    }

    /// Whether nothing serves the connection any more.
    pub fn is_over(&self) -> bool {
        self.serving.is_finished()
    }
}

/// The seeded executor, as a connection sees it.
struct Seeded {
    spawner: Spawner,
    clock: SharedClock,
    yields: Rc<Cell<usize>>,
}

impl Executor for Seeded {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        self.spawner.spawn(task)
    }

    async fn yield_to_reactor(&self) {
        self.yields.set(self.yields.get() + 1);
        self.clock.sleep(Duration::from_micros(1)).await;
    }
}

/// A socket that is looked at now and then in virtual time, since nothing tells the seeded executor of it.
struct Socket {
    stream: UnixStream,
    clock: SharedClock,
    pause: Option<Pin<Box<dyn Future<Output = ()>>>>,
}

impl Socket {
    fn new(stream: UnixStream, clock: &SharedClock) -> Self {
        Self { stream, clock: clock.clone(), pause: None }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        loop {
            if let Some(pause) = &mut this.pause {
                ready!(pause.as_mut().poll(context));
                this.pause = None;
            }
            match this.stream.read(bytes) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    this.pause = Some(this.clock.sleep(POLL_INTERVAL));
                }
                read => return Poll::Ready(read),
            }
        }
    }
}

impl SendHalf for Socket {
    fn send_now(&self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        host::send_parts(self.stream.as_raw_fd(), parts)
    }

    async fn send(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        loop {
            match self.send_now(parts) {
                Err(error) if error.kind() == ErrorKind::WouldBlock => self.clock.sleep(POLL_INTERVAL).await,
                sent => return sent,
            }
        }
    }

    async fn finish(&mut self) {}
}
