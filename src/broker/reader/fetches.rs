//! The fetches of one client: where a protocol gets stored batches from.
//!
//! A fetch is one call: [`ClientFetches::at_once`] when its answer takes no waiting, else [`ClientFetches::next`], which waits
//! for a message, asks the caller for room, and reads, on whichever shard the queue is.

use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

use super::ahead::ReadAhead;
use super::fetch::{FetchStep, SharedFetched};
use super::waits::{LookNow, WaitFor};
use crate::api::{Failure, Fetch, Reply, Request, Status, Watch};
use crate::broker::queue::Queue;
use crate::broker::recipient::Recipient;
use crate::broker::shard_broker::Broker;
use crate::disk::Disk;
use crate::limits;
use crate::types::Account;

/// One client's fetches. What was read ahead of it is kept between them.
pub struct ClientFetches<D: Disk> {
    broker: Rc<Broker<D>>,
    ahead: Rc<ReadAhead>,
}

/// A fetch or a pull that waits as an entry of its queue's list, which it leaves when this is dropped.
pub struct FetchWait {
    queue: Rc<Queue>,
    number: u64,
}

impl FetchWait {
    pub(super) fn begin(queue: Rc<Queue>, wait: WaitFor, caller: Rc<dyn LookNow>) -> Self {
        let number = queue.waits.add(wait, caller);
        Self { queue, number }
    }
}

impl Drop for FetchWait {
    fn drop(&mut self) {
        self.queue.waits.leave(self.number);
    }
}

impl<D: Disk> ClientFetches<D> {
    pub fn new(broker: &Rc<Broker<D>>) -> Self {
        Self { broker: broker.clone(), ahead: Rc::default() }
    }

    /// The answer, if it takes no waiting and no reading; [`next`](ClientFetches::next) has it otherwise.
    pub fn at_once(&self, fetch: &Fetch) -> Result<Option<SharedFetched>, Failure> {
        if !self.is_ours(fetch) {
            return Ok(None);
        }
        Ok(match self.broker.fetch_now(fetch)? {
            FetchStep::Ready(fetched) => Some(fetched),
            FetchStep::Later => None,
        })
    }

    /// Whether a fetch can do nothing but wait, and be an entry meanwhile.
    pub fn has_to_wait(&self, fetch: &Fetch) -> bool {
        self.is_ours(fetch) && matches!(self.broker.queue_to_wait_for(fetch), Ok(Some(_)))
    }

    /// Lets a fetch of this shard wait without anybody's doing: `caller` is called, once, when there may be something, and the
    /// fetch is to be tried again. `None` when it has something to return already, or is not to wait.
    pub fn park(
        &self,
        fetch: &Fetch,
        caller: impl FnOnce() -> Rc<dyn LookNow>,
    ) -> Result<Option<FetchWait>, Failure> {
        let Some(queue) = self.broker.queue_to_wait_for(fetch)? else { return Ok(None) };
        Ok(Some(FetchWait::begin(queue, WaitFor::from(fetch.offset), caller())))
    }

    /// Waits for a message as long as the fetch asks, or until `recipient` is gone; then for room; then reads. `None` when the
    /// recipient has no room any more. The wait may be dropped; a read is carried to its end.
    pub async fn next(
        &self,
        fetch: Fetch,
        recipient: &impl Recipient,
    ) -> Result<Option<SharedFetched>, Failure> {
        let gone = async {
            recipient.gone().await;
            Ok(())
        };
        futures_lite::future::or(self.wait(&fetch), gone).await?;
        let Some(_reservation) = recipient.reserve().await else { return Ok(None) };
        let fetch = Fetch { wait: Duration::ZERO, ..fetch };
        if !self.is_ours(&fetch) {
            return match self.broker.handle(Request::Fetch(fetch)).await? {
                Reply::Fetched(head) => {
                    Ok(Some(SharedFetched { head, batches: Vec::new(), from_disk: false }))
                }
                other => Err(Failure::new(
                    Status::Internal,
                    format!("a shard gave an answer of another kind: {other:?}"),
                )),
            };
        }
        let fetched = match self.ahead.take(&fetch) {
            Some(entry) => self.broker.take_ahead(&fetch, entry.outcome().await?),
            None => self.broker.fetch_shared(fetch).await,
        }?;
        Ok(Some(fetched))
    }

    /// Waits until the fetch has something to return, or its time is up.
    async fn wait(&self, fetch: &Fetch) -> Result<(), Failure> {
        if self.is_ours(fetch) {
            return self.broker.wait_for_fetch(fetch).await;
        }
        if !fetch.wait.is_zero() {
            let watch = Watch { queues: vec![(fetch.key, fetch.offset)], wait: fetch.wait };
            self.broker.handle(Request::Watch(watch)).await?;
        }
        Ok(())
    }

    /// Reads what a client will ask for that is given `fetched` from the disk, if there is memory for it: to be run beside
    /// the sending.
    pub fn read_ahead(
        &self,
        fetch: Fetch,
        fetched: &SharedFetched,
    ) -> Option<impl Future<Output = ()> + 'static> {
        let head = &fetched.head;
        if !fetched.from_disk || head.next_offset >= head.end_offset {
            return None;
        }
        let share = self.broker.memory.budget(Account::Ahead).try_reserve(fetch_share(&fetch))?;
        let following = Fetch { offset: head.next_offset, wait: Duration::ZERO, ..fetch };
        Some(self.ahead.clone().read(self.broker.clone(), following, share))
    }

    /// The client is gone: what was read ahead is let go.
    pub fn end(&self) {
        self.ahead.clear();
    }

    fn is_ours(&self, fetch: &Fetch) -> bool {
        let options = &self.broker.options;
        fetch.key.queue.shard(options.shard_count) == options.shard
    }
}

/// What the answer to a fetch counts for while it is brought together.
pub fn fetch_share(fetch: &Fetch) -> usize {
    (fetch.bytes_max as usize).clamp(limits::FETCH_SHARE_BYTES_MIN, limits::FETCH_BYTES_MAX)
}
