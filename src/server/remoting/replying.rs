//! Replies to requests that clients send one another as messages: each goes to the client that waits for it, over a connection of it
//! to whichever shard, and is not stored.

use std::rc::Rc;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::requests::Refused;
use super::signed::Sender;
use crate::access::Need;
use crate::api::ReplyOutcome;
use crate::limits;
use crate::protocol::remoting::call::reply::ReplyRequest;
use crate::protocol::remoting::message::REGION;
use crate::protocol::remoting::{Header, ResponseCode};

impl Remoting {
    /// Begins to hand a reply to its client.
    pub(super) async fn take_reply(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        let share = self.calls.reserve_forwarded(body.len() + limits::PROPERTIES_BYTES_MAX).await;
        let broker = self.connections.broker.clone();
        let came = (broker.shard(), self.connections.clock.now());
        let ReplyRequest { client, reply } = ReplyRequest::read(header, body, self.born, came)?;
        self.check(sender, Need::Publish { topic: &reply.topic }).map_err(Refused::failed)?;
        let delivered = async move {
            let _share = share;
            let queue = reply.queue;
            let remark = match broker.deliver_reply(&client, reply).await.map_err(Refused::failed)? {
                ReplyOutcome::Delivered => return Ok(answer(queue)),
                ReplyOutcome::NoClient => {
                    format!("push reply message fail, channel of <{client}> not found.")
                }
                ReplyOutcome::NotTaken => format!("push reply message to {client}fail."),
            };
            Err(Refused::new(ResponseCode::SystemError, remark))
        };
        self.begin(asker, delivered).await
    }
}

/// The fields of a send's answer, which clients look for. There is no place where the reply is.
fn answer(queue: i32) -> Answer {
    let fields = [
        ("msgId", String::new()),
        ("queueId", queue.to_string()),
        ("queueOffset", "0".to_owned()),
        ("MSG_REGION", REGION.to_owned()),
        ("TRACE_ON", "true".to_owned()),
    ];
    Answer { fields: fields.into(), body: Vec::new() }
}
