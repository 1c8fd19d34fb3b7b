//! Connections of one shard: accepting, telling the protocol, watching for peers that stall, ending.

use std::cell::{Cell, RefCell};
use std::os::fd::AsRawFd;
use std::rc::Rc;
use std::time::Duration;

use futures_lite::future::or;
use futures_lite::{AsyncReadExt, AsyncWriteExt};
use glommio::TaskQueueHandle;
use glommio::net::{TcpListener, TcpStream};

use super::access::Access;
use super::context::ShardContext;
use super::descriptors::{ConnectionDescriptors, ConnectionShare};
use super::doors::{Door, DoorRules, Verdict, tls_refusal};
use super::http::{HttpPort, http_refusal, serve_http};
use super::idle_memory::{IdleMemory, Look};
use super::native::{native_refusal, serve_native};
use super::refused_connections::{Reason, RefusedConnections, Unsaid, Words};
use super::remoting::{RemotingPort, remoting_refusal, serve_remoting};
use super::sessions::{Connection, EXPIRY_GRACE, OpenConnections};
use super::stream::Stream;
use super::tls::Tls;
use crate::access::Session;
use crate::api::Status;
use crate::broker::Broker;
use crate::clock::SharedClock;
use crate::disk::bounded::BoundedDisk;
use crate::disk::glommio::GlommioDisk;
use crate::limits;
use crate::metrics::ShardMetrics;
use crate::net::{Detected, ReceiveBuffer, detect};
use crate::protocol::native::ReplyEncoder;
use crate::runtime::host;
use crate::types::{Account, ByteBudget, ClientMemory, Reservation, Throttle, network_of};

/// Within TLS what is spoken must be said within this time, or that of an idle connection over HTTP if that is less.
const FIRST_BYTES_TIMEOUT: Duration = Duration::from_secs(30);
/// A native client of a broker with access keys has this long to prove one.
pub(super) const PROOF_TIMEOUT: Duration = Duration::from_secs(limits::PROOF_SECONDS);
/// How often it is looked whether somebody who is refused has said what they speak.
const FIRST_BYTES_INTERVAL: Duration = Duration::from_millis(10);
const WATCH_INTERVAL: Duration = Duration::from_secs(1);
const ACCEPT_INTERVAL: Duration = Duration::from_millis(limits::ACCEPT_INTERVAL_MS);
/// What an ended connection holds is given back within milliseconds.
const ROOM_WAIT_MAX: Duration = Duration::from_secs(1);
/// Ended connections are told of this often at most.
const SHORTAGE_NEWS_INTERVAL: Duration = Duration::from_secs(10);
/// Pause after a failed accept, which mostly means that descriptors have run out.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

pub(crate) type ShardDisk = BoundedDisk<GlommioDisk>;
pub(crate) type ShardBroker = Broker<ShardDisk>;

/// All connections of a shard.
pub(crate) struct Connections {
    pub broker: Rc<ShardBroker>,
    pub clock: SharedClock,
    pub metrics: Rc<ShardMetrics>,
    /// What tasks of a connection have of this without knowing the broker.
    pub context: Rc<ShardContext>,
    open: OpenConnections,
    catch_up: TaskQueueHandle,
    /// Writes the answers of all native connections: what its largest answer needed, it keeps once.
    pub encoder: RefCell<ReplyEncoder>,
    /// One at a time of what keeps a core busy for long.
    pub heavy: ByteBudget,
    pub(crate) shortage_news: Throttle,
    rules: DoorRules,
    /// `None` when nothing speaks HTTP here.
    pub http: Option<HttpPort>,
    /// `None` when nothing speaks RocketMQ's protocol here.
    pub remoting: Option<RemotingPort>,
    pub(super) tls: Option<Tls>,
    /// `None` when everybody may do everything, at every door.
    pub access: Option<Rc<Access>>,
    /// What everything that is held for a peer counts in.
    pub memory: Rc<ClientMemory>,
    descriptors: ConnectionDescriptors,
    pub(super) refused: RefusedConnections,
    /// A task sees to those who are refused and have not said what they speak.
    is_turning_away: Cell<bool>,
}

/// What all doors of a shard have in common.
pub(crate) struct Doors {
    pub rules: DoorRules,
    /// `None` when nothing speaks HTTP here.
    pub http: Option<HttpPort>,
    /// `None` when nothing speaks RocketMQ's protocol here.
    pub remoting: Option<RemotingPort>,
    /// `None` without a certificate.
    pub tls: Option<Tls>,
    /// `None` when everybody may do everything.
    pub access: Option<Rc<Access>>,
}

/// What an open connection holds of what there is for connections.
struct Admission {
    _descriptors: ConnectionShare,
    /// For a protocol that needs more of them than those of its door usually do.
    more_descriptors: Option<ConnectionShare>,
    memory: Reservation,
}

impl Connections {
    /// Fetches that may read the disk run in the queue `catch_up`.
    pub fn new(
        broker: Rc<ShardBroker>,
        catch_up: TaskQueueHandle,
        doors: Doors,
        descriptors: ConnectionDescriptors,
    ) -> Rc<Self> {
        let (clock, metrics) = (broker.clock().clone(), broker.metrics().clone());
        let memory = broker.memory().clone();
        let Doors { rules, http, remoting, tls, access } = doors;
        let context = ShardContext::new(clock.clone(), metrics.clone(), memory.clone());
        let refused = RefusedConnections::new(metrics.clone());
        Rc::new(Self {
            open: OpenConnections::new(&context),
            context,
            clock,
            metrics,
            memory,
            broker,
            catch_up,
            encoder: RefCell::default(),
            heavy: ByteBudget::new(1),
            shortage_news: Throttle::new(SHORTAGE_NEWS_INTERVAL),
            rules,
            http,
            remoting,
            tls,
            access,
            descriptors,
            refused,
            is_turning_away: Cell::new(false),
        })
    }

    /// Accepts connections until the shard stops.
    pub async fn accept_from(self: Rc<Self>, listener: TcpListener, door: Door) {
        let mut accepted_in_interval = 0;
        let mut interval_began = self.clock.monotonic();
        loop {
            if accepted_in_interval >= limits::ACCEPTS_PER_INTERVAL {
                let rest = ACCEPT_INTERVAL.saturating_sub(self.clock.monotonic().since(interval_began));
                if !rest.is_zero() {
                    self.clock.sleep(rest).await;
                }
                (accepted_in_interval, interval_began) = (0, self.clock.monotonic());
            }
            let accepted = listener.accept().await;
            accepted_in_interval += 1;
            if self.is_stopping() {
                return;
            }
            match accepted {
                Ok(stream) => match self.admit(door) {
                    Ok(share) => glommio::spawn_local(self.clone().serve(stream, door, share)).detach(),
                    // Those that are open are not hurt.
                    Err(reason) => {
                        self.metrics.connections_dropped.add(1);
                        self.clone().turn_away(stream, Unsaid { door, reason });
                        continue;
                    }
                },
                Err(error) => {
                    self.refused.not_accepted(&error.to_string(), self.clock.monotonic());
                    self.clock.sleep(ACCEPT_PAUSE).await;
                    continue;
                }
            };
        }
    }

    /// Room for one more connection, or why there is none.
    fn admit(&self, door: Door) -> Result<Admission, Reason> {
        if self.open.count() >= limits::CONNECTIONS_MAX {
            return Err(Reason::Number);
        }
        // A native connection has one for each direction.
        let count = if door == Door::Http { 1 } else { 2 };
        let descriptors = self.descriptors.take(count).ok_or(Reason::Descriptors)?;
        let (budget, bytes) = (self.memory.budget(Account::Connections), limits::CONNECTION_SILENT_BYTES);
        let memory = budget.try_reserve(bytes).or_else(|| {
            let is_beside = || self.open.silent_count() < limits::CONNECTIONS_SILENT_BESIDE;
            (self.end_silent() || is_beside()).then(|| budget.count(bytes))
        });
        let memory = memory.ok_or(Reason::Memory)?;
        Ok(Admission { _descriptors: descriptors, more_descriptors: None, memory })
    }

    /// Room for a connection that has said what it speaks, if need be that of another one which gets no further. False when
    /// there is none.
    async fn make_room(&self, connection: &Connection, share: &mut Admission) -> bool {
        let more = self.room(connection, limits::CONNECTION_BYTES - limits::CONNECTION_SILENT_BYTES).await;
        more.map(|more| share.memory.merge(more)).is_some()
    }

    async fn room(&self, connection: &Connection, bytes: usize) -> Option<Reservation> {
        let budget = self.memory.budget(Account::Connections);
        let free = budget.try_reserve(bytes);
        if free.is_some() || !(self.end_some_silent(bytes) || self.end_some_stuck(connection, bytes)) {
            return free;
        }
        let freed = async { Some(budget.reserve(bytes).await) };
        let late = async {
            self.clock.sleep(ROOM_WAIT_MAX).await;
            None
        };
        or(freed, late).await
    }

    /// Ends as many of those that have not said what they speak as hold so many bytes. False when there are not so many.
    fn end_some_silent(&self, bytes: usize) -> bool {
        (0..bytes.div_ceil(limits::CONNECTION_SILENT_BYTES)).all(|_| self.end_silent())
    }

    /// Ends as many of those that get no further as hold so many bytes, as far as there are any. False when there are none.
    fn end_some_stuck(&self, newcomer: &Connection, bytes: usize) -> bool {
        let wanted = bytes.div_ceil(limits::CONNECTION_BYTES);
        (0..wanted).take_while(|_| self.end_stuck(newcomer)).count() > 0
    }

    fn end_stuck(&self, newcomer: &Connection) -> bool {
        let is_ended = self.open.end_stuck(newcomer, self.clock.monotonic());
        if is_ended {
            self.tell_of_shortage("it holds memory and does nothing, and there is none for others");
        }
        is_ended
    }

    fn end_silent(&self) -> bool {
        let is_ended = self.open.end_silent(self.clock.monotonic());
        if is_ended {
            self.tell_of_shortage("it has said nothing, and there is no memory for others");
        }
        is_ended
    }

    /// Refuses a connection in words that its client understands. What it speaks may come a moment later than it does.
    fn turn_away(self: Rc<Self>, stream: TcpStream, unsaid: Unsaid) {
        let now = self.clock.monotonic();
        let is_to_be_said = self.refused.refuse(
            stream,
            unsaid,
            &|unsaid, first, last| self.refusal(unsaid, first, last),
            now,
        );
        if !is_to_be_said || self.is_turning_away.replace(true) {
            return;
        }
        let turning_away = async move {
            let mut is_any_left = true;
            while is_any_left && !self.is_stopping() {
                self.clock.sleep(FIRST_BYTES_INTERVAL).await;
                let words: Words<'_> = &|unsaid, first, last| self.refusal(unsaid, first, last);
                is_any_left = self.refused.say(words, self.clock.monotonic());
            }
            self.is_turning_away.set(false);
        };
        glommio::spawn_local(turning_away).detach();
    }

    /// What a client that is not let in is told, who begins with `first`; `None` if that is too little to tell what it speaks,
    /// and there will be another time. No handshake is made with those who cannot stay.
    fn refusal(&self, unsaid: &Unsaid, first: &[u8], is_last_time: bool) -> Option<Vec<u8>> {
        let (door, reason) = (&unsaid.door, unsaid.reason.text());
        let native = || native_refusal(Status::LimitReached, &reason);
        let http = |port| http_refusal(port, self.clock.now(), &reason);
        match self.rules.judge(*door, detect(first), false) {
            Verdict::Gone if !is_last_time => None,
            Verdict::Handshake => Some(tls_refusal(&reason)),
            Verdict::Native => Some(native()),
            // Only a request is answered.
            Verdict::Remoting => {
                Some(remoting_refusal(first, &reason)).filter(|answer| is_last_time || !answer.is_empty())
            }
            Verdict::Refuse(answer) => Some(answer),
            Verdict::Http { .. } => self.http.as_ref().map(http).or_else(|| Some(Vec::new())),
            Verdict::Gone => Some(match (door, &self.http) {
                (Door::Native, _) => native(),
                (Door::Http, Some(port)) if self.rules.is_told_in_clear(*door) => http(port),
                (Door::Http | Door::NameServer, _) => Vec::new(),
            }),
        }
    }

    /// One connection from its first byte to its end.
    async fn serve(self: Rc<Self>, stream: TcpStream, door: Door, mut share: Admission) {
        let connection = self.open.begin(stream.as_raw_fd());
        connection.network.set(stream.peer_addr().ok().map(|address| network_of(address.ip())));
        // Answers are put together by us; waiting for more would only delay them.
        let _ = stream.set_nodelay(true);
        self.speak(&connection, Stream::Plain(stream), door, &mut share).await;
        self.open.close(&connection);
        drop(share);
    }

    /// Finds out what a connection speaks and speaks it until it ends. What stands within TLS is found out in the same way.
    async fn speak(
        self: &Rc<Self>,
        connection: &Rc<Connection>,
        mut stream: Stream,
        door: Door,
        share: &mut Admission,
    ) {
        let mut buffer = ReceiveBuffer::of_first_bytes();
        loop {
            let Some(detected) = self.first_bytes(connection, &mut stream, &mut buffer).await else { return };
            let is_new = !connection.is_known.replace(true) && !matches!(detected, Detected::NeedMore);
            if is_new && !self.make_room(connection, share).await {
                let reason = Reason::Memory;
                let answer = self.refusal(&Unsaid { door, reason }, buffer.filled(), true);
                return self.refuse(connection, stream, reason, &answer.unwrap_or_default()).await;
            }
            buffer.make_usual();
            match self.rules.judge(door, detected, stream.is_tls()) {
                Verdict::Handshake => {
                    let secured = Box::pin(self.secure(connection, stream, buffer, door, share)).await;
                    let Some(secured) = secured else { return };
                    (stream, buffer) = (secured, ReceiveBuffer::of_first_bytes());
                }
                Verdict::Native => {
                    connection.deadline.set(None);
                    if door == Door::Http && !stream.is_tls() {
                        // It has one for each direction.
                        share.more_descriptors = self.descriptors.take(1);
                        if share.more_descriptors.is_none() {
                            let reason = Reason::Descriptors;
                            let answer = native_refusal(Status::LimitReached, &reason.text());
                            return self.refuse(connection, stream, reason, &answer).await;
                        }
                    }
                    return Box::pin(serve_native(self, connection, stream, buffer)).await;
                }
                Verdict::Remoting => {
                    if door == Door::Http && !stream.is_tls() {
                        // As above.
                        share.more_descriptors = self.descriptors.take(1);
                        if share.more_descriptors.is_none() {
                            return self.refuse(connection, stream, Reason::Descriptors, &[]).await;
                        }
                    }
                    return Box::pin(serve_remoting(self, connection, stream, buffer)).await;
                }
                Verdict::Http { lacks_tls } => {
                    return Box::pin(serve_http(self, connection, stream, buffer, lacks_tls)).await;
                }
                Verdict::Refuse(answer) => {
                    return self.refuse(connection, stream, Reason::Stranger, &answer).await;
                }
                Verdict::Gone => return,
            }
        }
    }

    /// Reads until it can be told what a connection speaks, or that it never will be; `None` when it gives way to others, which
    /// is said within TLS.
    async fn first_bytes(
        &self,
        connection: &Connection,
        stream: &mut Stream,
        buffer: &mut ReceiveBuffer,
    ) -> Option<Detected> {
        connection.has_last_words.set(stream.is_tls());
        let detected = {
            let given_way = async {
                connection.given_way().await;
                None
            };
            or(async { Some(first_bytes(stream, buffer).await) }, given_way).await
        };
        connection.has_last_words.set(false);
        if detected.is_none() {
            // A peer that has gone away does not miss it.
            let _ = stream.close().await;
            connection.end();
        }
        detected
    }

    /// Puts TLS around a connection; `None` when it has ended.
    async fn secure(
        &self,
        connection: &Connection,
        stream: Stream,
        buffer: ReceiveBuffer,
        door: Door,
        share: &mut Admission,
    ) -> Option<Stream> {
        let (Stream::Plain(socket), Some(tls)) = (stream, &self.tls) else { return None };
        let time = self.http.as_ref().map_or(Duration::MAX, |http| http.idle_timeout);
        let Some(memory) = self.room(connection, limits::TLS_CONNECTION_BYTES).await else {
            tls.note_refused_for_memory();
            let words: Words<'_> = &|unsaid, first, last| self.refusal(unsaid, first, last);
            let answer = tls_refusal(&Reason::Memory.text());
            self.refused.send_last(socket, &answer, words, self.clock.monotonic());
            return None;
        };
        let stream = tls.shake_hands(connection, door, socket, buffer, time).await?;
        share.memory.merge(memory);
        // It is to say now what it speaks; its session takes more than those take that have just come.
        connection.end_after(self.clock.monotonic(), FIRST_BYTES_TIMEOUT.min(time));
        connection.incomplete_since.set(Some(self.clock.monotonic()));
        Some(Stream::Tls(Box::new(stream)))
    }

    /// Ends a connection that has begun to speak with an answer that it understands, or with none.
    async fn refuse(&self, connection: &Connection, mut stream: Stream, reason: Reason, answer: &[u8]) {
        self.metrics.connections_dropped.add(1);
        let now = self.clock.monotonic();
        self.refused.tell(reason, stream.peer(), now);
        match stream {
            Stream::Plain(stream) => {
                let words: Words<'_> = &|unsaid, first, last| self.refusal(unsaid, first, last);
                self.refused.send_last(stream, answer, words, now);
            }
            Stream::Tls(mut stream) => {
                connection.incomplete_since.set(None);
                connection.end_after(now, EXPIRY_GRACE);
                // A peer that has gone away needs no answer.
                let _ = stream.write_all(answer).await;
                let _ = stream.close().await;
                connection.end();
            }
        }
    }

    /// Reads the files of access keys and certificates again, and says what became of it.
    pub fn read_files_again(&self) {
        if let Some(tls) = &self.tls {
            tls.read_again();
        }
        if let Some(access) = self.access.as_ref().filter(|access| access.read_again()) {
            self.renew_sessions(access);
        }
    }

    /// Ends connections whose peer does not read its answers, or never completes what it has begun.
    pub async fn watch(self: Rc<Self>) {
        let idle_memory = IdleMemory::default();
        loop {
            self.clock.sleep(WATCH_INTERVAL).await;
            let now = self.clock.monotonic();
            self.refused.let_go(now);
            self.broker.let_stretches_go();
            self.broker.note_rates();
            self.tell_left_out(Some(now));
            if let Some(tls) = &self.tls {
                tls.tick();
            }
            if let Some(access) = self.access.as_ref().filter(|access| access.tick()) {
                self.renew_sessions(access);
            }
            self.open.all().values().for_each(|connection| connection.note_progress(now));
            if let Some(remoting) = &self.remoting {
                remoting.tick();
            }
            self.relieve(self.open.all().values(), now);
            self.open.end_overdue(now);
            let traffic = self.metrics.log_bytes_written.get() + self.metrics.bytes_fetched.get();
            let look = Look { traffic, held: self.memory.bytes() as u64 };
            idle_memory.look(look, host::resident_bytes, host::give_back_memory);
        }
    }

    /// Lets sessions have the rules that the file of keys has now, when it was read again. What waits ends early, with what
    /// there is: its client asks again, and is checked by the new rules.
    fn renew_sessions(&self, access: &Access) {
        let (keys, now) = (access.keys().keys(), self.clock.monotonic());
        for connection in self.open.all().values() {
            let mut session = connection.session.borrow_mut();
            if !matches!(*session, Session::Key(_)) {
                // Where each request proves a key, nobody has kept whose the parked ones are.
                connection.parked.cut();
                continue;
            }
            session.renew(&keys);
            if session.denial().is_some() {
                connection.end_after(now, PROOF_TIMEOUT);
            }
            connection.cut_waits();
        }
        if let Some(remoting) = &self.remoting {
            remoting.renew(&keys);
        }
    }

    /// Takes back what threads have made of TLS handshakes, until this is [finished](Self::finish).
    pub async fn run_handshakes(&self) {
        if let Some(tls) = &self.tls {
            tls.run().await;
        }
    }

    /// Takes no more requests, lets the answers out that are due within `grace`, and ends every connection.
    pub async fn finish(&self, grace: Duration) {
        self.open.finish(grace).await;
        if let Some(tls) = &self.tls {
            tls.end();
        }
        self.tell_left_out(None);
    }

    /// Carries out what only readers of old messages wait for.
    pub fn spawn_catch_up(&self, task: impl Future<Output = ()> + 'static) {
        match glommio::spawn_local_into(task, self.catch_up) {
            Ok(task) => drop(task.detach()),
            Err(error) => unreachable!("the queue was made by this executor: {error}"),
        }
    }

    /// What a connection may leave unread before it gets more: little when the whole shard's clients leave much.
    pub fn unread_bytes_max(&self) -> usize {
        self.context.unread_bytes_max()
    }

    pub fn is_stopping(&self) -> bool {
        self.context.is_stopping()
    }
}

/// Reads until it can be told what a connection speaks, or that it never will be.
async fn first_bytes(stream: &mut Stream, buffer: &mut ReceiveBuffer) -> Detected {
    loop {
        match detect(buffer.filled()) {
            Detected::NeedMore => match stream.read(buffer.spare_capacity()).await {
                Ok(0) | Err(_) => return Detected::NeedMore,
                Ok(count) => buffer.read(count),
            },
            detected => return detected,
        }
    }
}
