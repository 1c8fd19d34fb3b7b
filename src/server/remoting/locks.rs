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

/// What is to become of the queues on a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Locking {
    Lock,
    Unlock,
}

impl Asked {
    fn keys(&self) -> BTreeSet<QueueKey> {
        self.queues.iter().filter_map(|(_, key)| *key).collect()
    }
}

impl Remoting {
    /// Begins to give a client the queues that it asks for, of which those that it cannot have now are left out of the answer, or
    /// to take back those that it gives up.
    pub(super) async fn change_locks(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        body: &[u8],
        change: Locking,
    ) -> Result<Option<Answer>, Refused> {
        let asked = self.asked_queues(sender, body)?;
        // Nobody gives up what others have.
        let is_anothers = || {
            let is_reader = self.connections.broker.is_reader(&asked.group, &asked.client);
            is_reader && !self.heard_client(&asked.client)
        };
        if change == Locking::Unlock && is_anothers() {
            return Ok(Some(Answer::done()));
        }
        let (broker, network) = (self.connections.broker.clone(), self.network());
        let changing = async move {
            let Asked { group, client, queues } = &asked;
            if change == Locking::Unlock {
                broker.unlock_queues(group, client, &asked.keys()).await;
                return Ok(Answer::done());
            }
            let locked = broker.lock_queues(group, client, &asked.keys(), network).await;
            let locked = locked.map_err(with_members)?;
            let has = |key: &Option<QueueKey>| key.is_none_or(|key| locked.contains(&key));
            let granted = queues.iter().filter(|(_, key)| has(key)).map(|(queue, _)| queue);
            Ok(Answer::body(|output| write_locked(granted, output)))
        };
        self.begin(asker, changing).await
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
