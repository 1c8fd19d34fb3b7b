//! Requests that are carried out as calls, in tasks of their own.

use std::net::{IpAddr, Ipv4Addr};
use std::rc::Rc;
use std::time::Duration;

use super::Native;
use crate::access::{Need, Session};
use crate::api::{Failure, Receive, Reply, Request, RequestSubject, Status, TopicInfo, Watch};
use crate::broker::watch_time;
use crate::limits;
use crate::server::framed::{Call, CallTerms, Waited};
use crate::types::{Account, MonotonicTime, Reservation};

/// After work that keeps a core busy, the next piece of it rests for so many times as long: everything else has the core
/// meanwhile.
const HEAVY_RESTS: u32 = 3;
const HEAVY_REST_MAX: Duration = Duration::from_secs(1);
/// What a request takes while it waits to be begun. A connection may have hundreds of them, each of which an attacker gets for some bytes.
const WAITING_TASK_BYTES_MAX: usize = 8 * 1024;
/// Another shard has this long to say that the time of a watch is up.
const WATCH_GRACE: Duration = Duration::from_millis(500);

impl Native {
    /// Carries a request out in a task of its own. With too many of them the connection waits. `forwarded` is what its batch
    /// counts for.
    pub(crate) async fn spawn(
        self: &Rc<Self>,
        correlation: u64,
        request: Request,
        forwarded: Option<Reservation>,
    ) {
        let (carried_bytes, waits_long) = (carried_bytes(&request), waits_long(&request));
        let deadline = self.deadline(&request);
        let terms = CallTerms { carried_bytes, waits_long, is_parked: false, deadline };
        let subject = self.counted_subject(&request);
        let Some(call) = self.calls.begin(terms, forwarded).await else { return };
        call.describe(subject);
        let native = self.clone();
        let is_fetch = matches!(request, Request::Fetch(_));
        let task = async move {
            call.traced(native.carry_out_and_answer(&call, correlation, request)).await;
            drop(call);
        };
        debug_assert!(size_of_val(&task) <= WAITING_TASK_BYTES_MAX, "{} bytes", size_of_val(&task));
        if is_fetch {
            self.connections.spawn_catch_up(task);
        } else {
            glommio::spawn_local(task).detach();
        }
    }

    /// What a request is about, if the time that it takes is all work: what waits for messages of another shard is not told
    /// from what waits for that shard.
    fn counted_subject(&self, request: &Request) -> RequestSubject {
        let broker = &self.connections.broker;
        let is_here = broker.owner(request) == broker.options().shard;
        let may_wait = match request {
            Request::Fetch(fetch) => !fetch.wait.is_zero() && !is_here,
            Request::Watch(watch) => !watch.wait.is_zero(),
            Request::ReceiveHalves(receive) => !receive.wait.is_zero(),
            Request::MeasureLatency(_) => true,
            _ => false,
        };
        if may_wait { RequestSubject::default() } else { request.subject() }
    }

    /// When a request is answered with what there is, although what it asks another shard for has not come.
    fn deadline(&self, request: &Request) -> Option<MonotonicTime> {
        let Request::Watch(watch) = request else { return None };
        if watch.wait.is_zero() {
            return None;
        }
        Some(self.connections.clock.monotonic().after(watch_time(watch) + WATCH_GRACE))
    }

    async fn carry_out_and_answer(&self, call: &Call, correlation: u64, mut request: Request) {
        self.note_join(&mut request);
        if let Request::Fetch(fetch) = request {
            return Box::pin(self.fetch_later(call, correlation, fetch)).await;
        }
        let broker = &self.connections.broker;
        let _reservation = match broker.answer_bytes_max(&request) {
            0 => None,
            bytes => match call.reserve_answer(Account::Answers, bytes).await {
                Some(reservation) => Some(reservation),
                None => return,
            },
        };
        // Whoever asks for such work gets one piece of it done at a time, and all of them together a part of the core.
        let heavy = match is_heavy(&request) {
            true => Some((self.connections.heavy.reserve(1).await, self.connections.clock.monotonic())),
            false => None,
        };
        // What carries requests out is of tens of kilobytes, and hundreds may wait to begin: it is allocated for who has begun.
        let outcome = match request {
            // It holds nothing that cannot be dropped.
            Request::Watch(_) => match call.while_there(Box::pin(broker.handle(request))).await {
                Waited::Over(outcome) => outcome,
                Waited::Cut | Waited::Late => Ok(Reply::Watched(Vec::new())),
                Waited::Left => return,
            },
            // Nor does this: whoever went away is not in the way of the next one.
            Request::MeasureLatency(_) => match call.while_there(Box::pin(broker.handle(request))).await {
                Waited::Over(outcome) => outcome,
                Waited::Cut | Waited::Late => {
                    let message =
                        "others need the memory of what waits: measure again when there is less of it";
                    Err(Failure::new(Status::Busy, message))
                }
                Waited::Left => return,
            },
            Request::OpenTopic(topic) => {
                let network = self.connection.network.get();
                let maker = network.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED));
                Box::pin(broker.use_topic(&topic, maker)).await.map(Reply::Route)
            }
            request => Box::pin(broker.handle_for(request, call)).await,
        };
        let answered = outcome.map(|reply| without_consumers(reply, &self.connection.session.borrow()));
        self.answer(correlation, answered);
        if let Some((permit, began)) = heavy {
            let clock = self.connections.clock.clone();
            let rest = (HEAVY_RESTS * clock.monotonic().since(began)).min(HEAVY_REST_MAX);
            // The next piece of such work waits for it, and not this answer.
            let rested = async move {
                clock.sleep(rest).await;
                drop(permit);
            };
            glommio::spawn_local(rested).detach();
        }
    }
}

/// Who may know where a topic is does not learn by that who else consumes it.
pub(crate) fn without_consumers(reply: Reply, session: &Session) -> Reply {
    let may_know = || session.check(Need::Administer { what: "see who consumes a topic" }).is_ok();
    match reply {
        Reply::Topic(topic) if topic.consumers.is_some() && !may_know() => {
            Reply::Topic(TopicInfo { consumers: None, ..topic })
        }
        reply => reply,
    }
}

/// Whether the answer may take as long as the client said it would wait. The end of the connection does not wait for it.
fn waits_long(request: &Request) -> bool {
    match request {
        Request::Fetch(_) | Request::Watch(_) | Request::MeasureLatency(_) => true,
        Request::ReceiveHalves(receive) => !receive.wait.is_zero(),
        _ => false,
    }
}

/// Bytes of a batch that no longer lies in the connection's buffer.
pub(crate) fn copied_bytes(request: &Request) -> usize {
    match request {
        Request::Produce(produce) => produce.batch.len(),
        Request::ProduceCopies(copies) => copies.produce.batch.len(),
        Request::Hold(hold) => hold.batch.len(),
        _ => 0,
    }
}

/// Whether it keeps a core busy for as long as hundreds of messages, or more. What looks at thousands of messages does so in
/// slices of time, and is none of these.
pub(crate) fn is_heavy(request: &Request) -> bool {
    matches!(request, Request::JoinGroup(_) | Request::DescribeTopic(_) | Request::DescribeGroup(_))
}

/// Memory of what a receive asks for: tags, or an expression.
pub(crate) fn receive_bytes(receive: &Receive) -> usize {
    receive.filter.memory_bytes()
}

/// Memory of the queues that a watch waits for.
pub(super) fn watched_bytes(watch: &Watch) -> usize {
    watch.queues.len() * limits::WATCHED_QUEUE_BYTES
}

/// Memory of a request that waits, beyond that of its task and its batch.
pub(crate) fn carried_bytes(request: &Request) -> usize {
    match request {
        Request::Watch(watch) => watched_bytes(watch),
        Request::JoinGroup(join) => join.topics.iter().map(|topic| topic.as_str().len() + 32).sum(),
        Request::Acknowledge(acknowledge) => acknowledge.receipts.len() * 64,
        Request::Receive(receive) => receive_bytes(receive),
        _ => 0,
    }
}
