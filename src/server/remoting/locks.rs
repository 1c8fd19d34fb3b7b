//! Who has which queue of this broker to itself: consumers in order ask for them.

use std::collections::BTreeSet;
use std::rc::Rc;

use super::answer::{Answer, Asker};
use super::connection::Remoting;
use super::offsets::{group_named, with_members};
use super::requests::Refused;
use super::signed::Sender;
use crate::access::Need;
use crate::namesrv::retried_group;
use crate::protocol::remoting::call::lock::{LockedQueue, QueueLocks, write_locked};
use crate::protocol::remoting::call::offsets::QueueAsked;
use crate::types::{GroupName, QueueKey};

/// A list of queues, as far as this broker has them. `None`: that of the group's retries, of which there are none yet; whoever asks
/// for it may wait for the first one.
struct Asked {
    group: GroupName,
    client: String,
    queues: Vec<(LockedQueue, Option<QueueKey>)>,
}

impl Asked {
    fn keys(&self) -> BTreeSet<QueueKey> {
        self.queues.iter().filter_map(|(_, key)| *key).collect()
    }
}

impl Remoting {
    /// Begins to give a client the queues that it asks for. Those that it cannot have now are left out of the answer.
    pub(super) async fn lock_queues(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        let asked = self.asked_queues(sender, body)?;
        let broker = self.connections.broker.clone();
        let locking = async move {
            let locked = broker.lock_queues(&asked.group, &asked.client, &asked.keys()).await;
            let locked = locked.map_err(with_members)?;
            let has = |key: &Option<QueueKey>| key.is_none_or(|key| locked.contains(&key));
            let granted = asked.queues.iter().filter(|(_, key)| has(key));
            Ok(Answer::body(|output| write_locked(granted.map(|(queue, _)| queue), output)))
        };
        self.begin(asker, locking).await
    }

    /// A client gives queues up.
    pub(super) async fn unlock_queues(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        body: &[u8],
    ) -> Result<Option<Answer>, Refused> {
        let asked = self.asked_queues(sender, body)?;
        let broker = self.connections.broker.clone();
        // Nobody gives up what others have.
        let is_heard = self.heard_client(&asked.client);
        if !is_heard && broker.is_reader(&asked.group, &asked.client) {
            return Ok(Some(Answer::done()));
        }
        let unlocking = async move {
            broker.unlock_queues(&asked.group, &asked.client, &asked.keys()).await;
            Ok(Answer::done())
        };
        self.begin(asker, unlocking).await
    }

    /// Whoever may act for the group may lock what it can consume: of topics that it may not read it gets no message.
    fn asked_queues(&self, sender: &Sender, body: &[u8]) -> Result<Asked, Refused> {
        let locks = QueueLocks::read(body)?;
        self.check(sender, Need::ActFor { group: &locks.group }).map_err(Refused::failed)?;
        let group = group_named(&locks.group)?;
        let found = locks.queues.into_iter().filter_map(|locked| {
            let QueueAsked { topic, queue } = &locked.queue;
            let key = match self.queue_of(&locked.queue) {
                Ok(key) => Some(key),
                Err(_) if *queue == 0 && retried_group(topic) == Some(group.as_str()) => None,
                Err(_) => return None,
            };
            Some((locked, key))
        });
        Ok(Asked { queues: found.collect(), group, client: locks.client })
    }
}
