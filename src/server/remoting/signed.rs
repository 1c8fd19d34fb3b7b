//! Who sends a request, where the node has access keys: each one is signed. What a key has to allow for it follows the rules of
//! the other protocols, see `server::access`.

use std::borrow::Cow;

use super::connection::Remoting;
use crate::access::{Denied, Need, Session};
use crate::api::{Failure, Status};
use crate::namesrv::{is_retry_topic, retried_group};
use crate::protocol::http::Authentication;
use crate::protocol::remoting::Header;
use crate::protocol::remoting::body::Heartbeat;
use crate::protocol::remoting::signature::SignedRequest;
use crate::server::access::refusal;

/// The sender of one request.
#[derive(Clone)]
pub(super) struct Sender {
    session: Session,
}

impl Sender {
    /// Whether everybody may do everything.
    pub fn is_open(&self) -> bool {
        self.session.is_open()
    }

    pub fn session(&self) -> Session {
        self.session.clone()
    }
}

/// Whether topics may be consumed as a group. Those of retries are for whoever acts for their group.
pub(super) fn may_read<'a>(
    session: &Session,
    group: &str,
    topics: impl IntoIterator<Item = &'a str>,
) -> Result<(), Denied> {
    session.check(Need::ActFor { group })?;
    topics.into_iter().try_for_each(|topic| match retried_group(topic) {
        Some(retried) => session.check(Need::ActFor { group: retried }),
        None => session.check(Need::Consume { topic, group }),
    })
}

impl Remoting {
    /// Whose request it is; refused when nobody has signed it with a key that there is.
    pub fn sender(&self, header: &Header<'_>, body: &[u8]) -> Result<Sender, Failure> {
        let Some(access) = &self.connections.access else { return Ok(Sender { session: Session::Open }) };
        let signed = SignedRequest::read(header, body).map_err(|error| {
            access.denied();
            Failure::new(Status::Unauthenticated, error.to_string())
        })?;
        let is_signed = |secret: &_| signed.is_signed_with(secret);
        let session = access.authenticate(&signed.key_id, &self.peer, &is_signed)?;
        Ok(Sender { session })
    }

    fn allowed(&self, checked: Result<(), Denied>) -> Result<(), Failure> {
        checked.map_err(|denied| {
            if let Some(access) = &self.connections.access {
                access.denied();
            }
            refusal(denied)
        })
    }

    pub fn check(&self, sender: &Sender, need: Need<'_>) -> Result<(), Failure> {
        self.allowed(sender.session.check(need))
    }

    /// Whether the sender may know where a topic is.
    pub fn check_route(&self, sender: &Sender, topic: &str) -> Result<(), Failure> {
        let port = self.port();
        let shards = port.addresses().len();
        let is_everybodys = || port.node.unmade_topics(shards).iter().any(|unmade| unmade == topic);
        match topic.strip_prefix("%RETRY%") {
            Some(group) if is_retry_topic(topic) => self.check(sender, Need::ActFor { group }),
            _ if !sender.session.is_open() && is_everybodys() => self.check(sender, Need::AnyKey),
            _ => self.check(sender, Need::Describe { topic }),
        }
    }

    /// Whether the sender may consume all that a heartbeat says. What it produces is asked when it sends.
    pub fn check_heartbeat(&self, sender: &Sender, heartbeat: &Heartbeat) -> Result<(), Failure> {
        self.check(sender, Need::AnyKey)?;
        for consumer in &heartbeat.consumers {
            let topics = consumer.subscriptions.iter().map(|subscription| subscription.topic.as_str());
            self.allowed(may_read(&sender.session, &consumer.group, topics))?;
        }
        Ok(())
    }

    /// Whether the sender may act for a group, where one is named.
    pub fn check_group(&self, sender: &Sender, group: Option<&Cow<'_, str>>) -> Result<(), Failure> {
        match group.filter(|group| !group.is_empty()) {
            Some(group) => self.check(sender, Need::ActFor { group }),
            None => self.check(sender, Need::AnyKey),
        }
    }
}
