//! A connection of a framed protocol, from its first byte to its end.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use futures_lite::AsyncRead;

use super::protocol::Protocol;
use super::sender::{SendHalf, Sender};
use crate::metrics::Timeline;
use crate::net::ReceiveBuffer;
use crate::runtime::Executor;
use crate::server::context::ShardContext;
use crate::server::sessions::Connection;
use crate::types::WakerList;

/// What the two tasks of a connection share.
pub(crate) struct Framed<P: Protocol> {
    pub(super) context: Rc<ShardContext>,
    pub(super) connection: Rc<Connection>,
    pub(super) protocol: Rc<P>,
    /// Placed requests that are not answered, in the order in which they came.
    pub(super) unsettled: RefCell<VecDeque<Unsettled<P::Placed>>>,
    /// Woken when `unsettled` gets its first entry.
    pub(super) unsettled_added: WakerList,
}

/// A placed request that waits for its level.
pub(super) struct Unsettled<T> {
    pub timeline: Timeline,
    pub placed: T,
}

impl<P: Protocol> Framed<P> {
    pub fn new(context: &Rc<ShardContext>, connection: &Rc<Connection>, protocol: &Rc<P>) -> Rc<Self> {
        Rc::new(Self {
            context: context.clone(),
            connection: connection.clone(),
            protocol: protocol.clone(),
            unsettled: RefCell::default(),
            unsettled_added: WakerList::new(),
        })
    }

    /// Serves a connection whose first bytes are in `buffer`, until nothing more is to be sent. Then the connection has ended
    /// for both sides.
    pub async fn serve<R, W>(self: Rc<Self>, executor: &impl Executor, halves: (R, W), buffer: ReceiveBuffer)
    where
        R: AsyncRead + Unpin,
        W: SendHalf + 'static,
    {
        let (mut stream, half) = halves;
        let writer = executor.spawn(self.clone().write(Sender::new(half)));
        self.read(executor, &mut stream, buffer).await;
        // Nobody is there to wait for any more.
        self.connection.leave();
        // What was taken is answered before the connection goes, unless the peer is gone anyway.
        self.connection.all_answered().await;
        self.connection.outbox.close();
        writer.await;
        self.connection.end();
    }
}
