//! The clients that read for groups, as they have said over all connections of the node. Every shard has the same table, but
//! for what is on its way to it (`spreading`). It is memory: after a start, clients say it again.
//!
//! 1. A client is in a group as long as one of its connections is on which it said so last.
//! 2. Of the subscriptions to a topic that the clients of a group have, the one of the highest version counts, for all of them;
//!    a topic that none of them names any more is none of the group's. RocketMQ's brokers do so within one client's word
//!    (`broker/.../client/ConsumerGroupInfo.java`): there the last one to speak takes away the topics that only others name.
//! 3. A group is *read* while a client of it shares its messages with the others; those that get every message do not count.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::producers::{Producers, Way};
use super::progress::Given;
use super::rates::GivenRates;
use super::resets::Resets;
pub use crate::api::READER_CLIENTS;
use crate::api::{
    ClientTally, ConnectionId, GroupClient, Producer, ReaderClient, ReaderGroup, ReaderInfo, Subscription,
};
use crate::limits;
use crate::types::{GroupName, Reservation, ShardId, network_of};

/// Of an entry in a table, beside its name.
const ENTRY_BYTES: usize = 96;

/// All clients and their groups.
#[derive(Default)]
pub(in crate::broker) struct Readers {
    clients: BTreeMap<String, BTreeMap<ConnectionId, Said>>,
    groups: BTreeMap<GroupName, Group>,
    producers: Producers,
    /// What is kept of the clients of each place of the network.
    networks: HashMap<Option<IpAddr>, usize>,
    pub(super) given: Given,
    pub(super) rates: GivenRates,
    pub(super) resets: Resets,
}

/// What was said over one connection.
struct Said {
    /// Shared with other connections of the client over which it said the same.
    client: Rc<ReaderClient>,
    address: String,
    memory: Reservation,
}

#[derive(Default)]
struct Group {
    /// Over how many connections each of its clients is in it, and over how many of those it shares messages.
    clients: BTreeMap<String, (usize, usize)>,
    topics: BTreeMap<String, Topic>,
}

struct Topic {
    /// Connections over which it was named, and those of them over which messages are shared.
    count: usize,
    sharing: usize,
    newest: Subscription,
}

/// The place of the network that an address is of; `None` for what is none.
fn network(address: &str) -> Option<IpAddr> {
    address.parse::<SocketAddr>().ok().map(|address| network_of(address.ip()))
}

impl ReaderClient {
    /// What it takes in a table that has nothing like it.
    fn bytes(&self, id: &str) -> usize {
        let subscription =
            |of: &Subscription| 2 * (of.topic.len() + of.expression.len() + of.kind.len() + ENTRY_BYTES);
        let group = |of: &ReaderGroup| {
            id.len()
                + 2 * (of.group.as_str().len() + ENTRY_BYTES)
                + of.subscriptions.iter().map(subscription).sum::<usize>()
        };
        let names: usize = self.produces.iter().map(|group| group.as_str().len() + ENTRY_BYTES).sum();
        2 * (id.len() + ENTRY_BYTES) + names + self.groups.iter().map(group).sum::<usize>()
    }
}

impl ReaderGroup {
    fn shares(&self) -> usize {
        usize::from(self.shares_messages())
    }

    fn topics(&self) -> impl Iterator<Item = &str> {
        self.subscriptions.iter().map(|subscription| subscription.topic.as_str())
    }
}

impl Readers {
    /// What the entry of a client and a connection takes of memory.
    pub fn entry_bytes(&self, id: &str, address: &str, client: &ReaderClient) -> usize {
        let of_entry = address.len() + ENTRY_BYTES + client.produces.len() * (id.len() + ENTRY_BYTES);
        match self.shared(id, client) {
            Some(_) => of_entry,
            None => of_entry + client.bytes(id),
        }
    }

    fn shared(&self, id: &str, client: &ReaderClient) -> Option<&Rc<ReaderClient>> {
        let mut said = self.clients.get(id)?.values().map(|said| &said.client);
        said.find(|known| ***known == *client)
    }

    /// What the client has said last over a connection.
    pub fn said(&self, id: &str, connection: ConnectionId) -> Option<(&Rc<ReaderClient>, &str)> {
        let said = self.clients.get(id)?.get(&connection)?;
        Some((&said.client, &said.address))
    }

    /// Bytes that are kept of all clients that come from the place of an address.
    pub fn kept_of(&self, address: &str) -> usize {
        self.networks.get(&network(address)).copied().unwrap_or(0)
    }

    /// Of those, what is kept of the last word of a client over a connection.
    pub fn kept(&self, id: &str, connection: ConnectionId) -> usize {
        let said = self.clients.get(id).and_then(|said| said.get(&connection));
        said.map_or(0, |said| said.memory.bytes())
    }

    /// All that it has said, by connection.
    pub fn words(&self, id: &str) -> impl Iterator<Item = (ConnectionId, &Rc<ReaderClient>, &str)> {
        let said = self.clients.get(id).into_iter().flatten();
        said.map(|(connection, said)| (*connection, &said.client, &*said.address))
    }

    /// A client has said this over a connection. Returns the groups that have other clients, or other topics, than before.
    pub fn set(
        &mut self,
        id: &str,
        connection: ConnectionId,
        address: &str,
        client: ReaderClient,
        memory: Reservation,
    ) -> BTreeSet<GroupName> {
        let client = self.shared(id, &client).cloned().unwrap_or_else(|| Rc::new(client));
        self.change(id, connection, Some(Said { client, address: address.to_owned(), memory }))
    }

    /// A connection is gone, or the client over it. Returns likewise.
    pub fn remove(&mut self, id: &str, connection: ConnectionId) -> BTreeSet<GroupName> {
        self.change(id, connection, None)
    }

    fn change(&mut self, id: &str, connection: ConnectionId, said: Option<Said>) -> BTreeSet<GroupName> {
        let now = said.as_ref().map(|said| said.client.clone());
        if let Some(said) = &said {
            *self.networks.entry(network(&said.address)).or_default() += said.memory.bytes();
        }
        let said_before = match said {
            Some(said) => {
                if !self.clients.contains_key(id) {
                    self.clients.insert(id.to_owned(), BTreeMap::new());
                }
                self.clients.get_mut(id).and_then(|connections| connections.insert(connection, said))
            }
            None => self.forget(id, connection),
        };
        self.give_back(said_before.as_ref());
        let before = said_before.map(|said| said.client);
        self.change_producer(&(connection, id.to_owned()), before.as_deref(), now.as_deref());
        let mut changed = BTreeSet::new();
        // First what is new, so that what stays does not go in between.
        for group in now.iter().flat_map(|client| &client.groups) {
            if self.add(id, group) {
                changed.insert(group.group.clone());
            }
        }
        for group in before.iter().flat_map(|client| &client.groups) {
            if self.take(id, group) {
                changed.insert(group.group.clone());
            }
        }
        changed
    }

    fn give_back(&mut self, said: Option<&Said>) {
        let Some(said) = said else { return };
        let network = network(&said.address);
        let Some(kept) = self.networks.get_mut(&network) else { return };
        *kept -= said.memory.bytes();
        if *kept == 0 {
            self.networks.remove(&network);
        }
    }

    fn change_producer(&mut self, way: &Way, before: Option<&ReaderClient>, now: Option<&ReaderClient>) {
        let produces = |client: Option<&ReaderClient>| client.map_or_else(Vec::new, |of| of.produces.clone());
        let (before, now) = (produces(before), produces(now));
        if before != now {
            self.producers.take(&before, way);
            self.producers.add(&now, way);
        }
    }

    fn forget(&mut self, id: &str, connection: ConnectionId) -> Option<Said> {
        let connections = self.clients.get_mut(id)?;
        let said = connections.remove(&connection);
        if connections.is_empty() {
            self.clients.remove(id);
        }
        said
    }

    /// Whether the group has a client, or a topic, more than before.
    fn add(&mut self, id: &str, said: &ReaderGroup) -> bool {
        let shares = said.shares();
        let group = match self.groups.get_mut(&said.group) {
            Some(group) => group,
            None => self.groups.entry(said.group.clone()).or_default(),
        };
        let mut is_new = false;
        match group.clients.get_mut(id) {
            Some((count, sharing)) => (*count, *sharing) = (*count + 1, *sharing + shares),
            None => {
                group.clients.insert(id.to_owned(), (1, shares));
                is_new = true;
            }
        }
        for subscription in &said.subscriptions {
            match group.topics.get_mut(&subscription.topic) {
                Some(topic) => {
                    (topic.count, topic.sharing) = (topic.count + 1, topic.sharing + shares);
                    if subscription.version > topic.newest.version {
                        topic.newest = subscription.clone();
                    }
                }
                None => {
                    let topic = Topic { count: 1, sharing: shares, newest: subscription.clone() };
                    group.topics.insert(subscription.topic.clone(), topic);
                    is_new = true;
                }
            }
        }
        is_new
    }

    /// Whether the group has a client, or a topic, less than before.
    fn take(&mut self, id: &str, said: &ReaderGroup) -> bool {
        let shares = said.shares();
        let Some(group) = self.groups.get_mut(&said.group) else { return false };
        let mut is_less = false;
        if let Some((count, sharing)) = group.clients.get_mut(id) {
            (*count, *sharing) = (*count - 1, *sharing - shares);
            if *count == 0 {
                group.clients.remove(id);
                is_less = true;
            }
        }
        let mut outdated = Vec::new();
        for subscription in &said.subscriptions {
            let Some(topic) = group.topics.get_mut(&subscription.topic) else { continue };
            (topic.count, topic.sharing) = (topic.count - 1, topic.sharing - shares);
            if topic.count == 0 {
                group.topics.remove(&subscription.topic);
                is_less = true;
            } else if topic.newest == *subscription {
                outdated.push(subscription.topic.as_str());
            }
        }
        for topic in outdated {
            self.choose_newest(&said.group, topic);
        }
        if self.groups.get(&said.group).is_some_and(|group| group.clients.is_empty()) {
            self.groups.remove(&said.group);
            self.given.remove(&said.group);
            self.resets.remove(&said.group);
        }
        is_less
    }

    /// Somebody has gone whose subscription counted: the newest of the others' counts.
    fn choose_newest(&mut self, name: &GroupName, topic: &str) {
        let Some(group) = self.groups.get(name) else { return };
        let said = group.clients.keys().filter_map(|id| self.clients.get(id)).flat_map(BTreeMap::values);
        let groups = said.flat_map(|said| &said.client.groups).filter(|said| said.group == *name);
        let subscriptions = groups.flat_map(|said| &said.subscriptions).filter(|of| of.topic == topic);
        let Some(newest) = subscriptions.max_by_key(|of| of.version).cloned() else { return };
        let topic = self.groups.get_mut(name).and_then(|group| group.topics.get_mut(topic));
        if let Some(topic) = topic {
            topic.newest = newest;
        }
    }

    /// The clients of a group, in the order of their ids.
    pub fn members(&self, group: &GroupName) -> Vec<String> {
        self.groups.get(group).map_or_else(Vec::new, |group| group.clients.keys().cloned().collect())
    }

    /// Those of them whose first connection is one of this shard's: every client has one shard that speaks to it.
    pub fn members_of_shard(&self, group: &GroupName, shard: ShardId) -> Vec<String> {
        let is_here = |id: &String| {
            let connections = self.clients.get(id);
            let first = connections.and_then(|connections| connections.keys().next());
            first.is_some_and(|first| first.shard == shard)
        };
        self.members(group).into_iter().filter(is_here).collect()
    }

    /// The clients of a group as they are shown. Of very many, as many as an answer has room for, and the number of those left
    /// out.
    pub fn shown(&self, group: &GroupName) -> (Vec<ReaderInfo>, usize) {
        let mut bytes = 0;
        let has_room = |reader: &ReaderInfo| {
            bytes += shown_bytes(reader);
            bytes <= limits::SHOWN_CONSUMERS_BYTES_MAX
        };
        let member_count = self.groups.get(group).map_or(0, |group| group.clients.len());
        let shown: Vec<_> = self.infos(group).take_while(has_room).collect();
        let left_out = member_count - shown.len();
        (shown, left_out)
    }

    /// Each client of a group once, by its first connection that is of the group.
    fn of_group(&self, group: &GroupName) -> impl Iterator<Item = (&str, &Said, &ReaderGroup)> {
        let members = self.groups.get(group).into_iter().flat_map(|group| group.clients.keys());
        members.filter_map(move |id| {
            let said = self.clients.get(id)?.values();
            let mut read = said.filter_map(|said| {
                let read = said.client.groups.iter().find(|of| of.group == *group)?;
                Some((said, read))
            });
            read.next().map(|(said, read)| (id.as_str(), said, read))
        })
    }

    fn infos(&self, group: &GroupName) -> impl Iterator<Item = ReaderInfo> {
        self.of_group(group).map(|(id, said, read)| {
            let subscriptions = read.subscriptions.iter();
            ReaderInfo {
                client: id.to_owned(),
                language: said.client.language.to_owned(),
                version: said.client.version,
                address: said.address.clone(),
                mode: read.mode,
                subscriptions: subscriptions.map(|of| (of.topic.clone(), of.expression.clone())).collect(),
            }
        })
    }

    /// The clients of a group with all that they have said of it; of very many as many as are shown.
    pub fn clients(&self, group: &GroupName) -> Vec<GroupClient> {
        let (shown, _) = self.shown(group);
        let clients = self.of_group(group).take(shown.len()).map(|(id, said, read)| GroupClient {
            client: id.to_owned(),
            language: said.client.language,
            version: said.client.version,
            address: said.address.clone(),
            said: read.clone(),
        });
        clients.collect()
    }

    /// How many clients a group has.
    pub fn client_count_of(&self, group: &GroupName) -> usize {
        self.groups.get(group).map_or(0, |group| group.clients.len())
    }

    /// What the group wants of its topics.
    pub fn subscriptions(&self, group: &GroupName) -> impl Iterator<Item = &Subscription> {
        self.groups.get(group).into_iter().flat_map(|group| group.topics.values().map(|topic| &topic.newest))
    }

    /// The clients that name a topic, by their groups, with what they want of it.
    pub fn of_topic(&self, topic: &str) -> impl Iterator<Item = (&GroupName, ReaderInfo)> {
        let groups = self.groups.iter().filter(move |(_, group)| group.topics.contains_key(topic));
        let clients = groups.flat_map(|(name, _)| self.infos(name).map(move |reader| (name, reader)));
        clients.filter_map(move |(name, mut reader)| {
            reader.subscriptions.retain(|(of, _)| of == topic);
            (!reader.subscriptions.is_empty()).then_some((name, reader))
        })
    }

    /// All clients by their kinds: for each group that they read for, and once for each that produces.
    pub fn tallies(&self) -> Vec<ClientTally> {
        let mut counts: BTreeMap<(Option<&GroupName>, &'static str, i32, &'static str), u64> =
            BTreeMap::new();
        for group in self.groups.keys() {
            for (_, said, read) in self.of_group(group) {
                let kind = (Some(group), said.client.language, said.client.version, read.kind);
                *counts.entry(kind).or_default() += 1;
            }
        }
        for said in self.clients.values().filter_map(|connections| connections.values().next()) {
            if !said.client.produces.is_empty() {
                *counts.entry((None, said.client.language, said.client.version, "")).or_default() += 1;
            }
        }
        let tally = |((group, language, version, kind), count)| {
            let group: Option<&GroupName> = group;
            ClientTally { group: group.cloned(), language, version, kind, count }
        };
        counts.into_iter().map(tally).take(limits::METRICS_PAIRS_MAX).collect()
    }

    /// How many clients have their first connection on a shard: over all shards, each is counted once.
    pub fn clients_of_shard(&self, shard: ShardId) -> usize {
        let first = self.clients.values().filter_map(|connections| connections.keys().next());
        first.filter(|first| first.shard == shard).count()
    }

    pub fn client_count(&self) -> usize {
        self.clients.len()
    }

    /// Who produces as a group; a client over each of its connections.
    pub fn producers(&self, group: &GroupName) -> impl Iterator<Item = Producer> {
        self.producers.of(group).filter_map(|way| self.producer(way))
    }

    /// The groups that somebody produces as.
    pub fn producer_groups(&self) -> impl Iterator<Item = &GroupName> {
        self.producers.groups()
    }

    /// The producer of a group that comes after another one, round and round: of those connected to `shard`, if there are any.
    pub fn producer_after(
        &self,
        group: &GroupName,
        shard: ShardId,
        last: Option<&Producer>,
    ) -> Option<Producer> {
        let last = last.map(|last| (last.connection, last.client.clone()));
        self.producer(self.producers.after(group, shard, last.as_ref())?)
    }

    fn producer(&self, (connection, id): &Way) -> Option<Producer> {
        let (client, address) = self.said(id, *connection)?;
        Some(Producer {
            connection: *connection,
            client: id.clone(),
            language: client.language,
            version: client.version,
            address: address.to_owned(),
        })
    }

    /// Whether a client is of a group.
    pub fn has_client(&self, group: &GroupName, id: &str) -> bool {
        self.groups.get(group).is_some_and(|group| group.clients.contains_key(id))
    }

    /// Whether somebody is there of the group, whatever it does.
    pub fn has_group(&self, group: &GroupName) -> bool {
        self.groups.contains_key(group)
    }

    /// What the group wants of a topic.
    pub fn subscription(&self, group: &GroupName, topic: &str) -> Option<&Subscription> {
        Some(&self.groups.get(group)?.topics.get(topic)?.newest)
    }

    /// Whether the group is read.
    pub fn is_read(&self, group: &GroupName) -> bool {
        self.groups.get(group).is_some_and(|group| group.clients.values().any(|(_, sharing)| *sharing > 0))
    }

    /// Whether a topic is read for the group.
    pub fn reads(&self, group: &GroupName, topic: &str) -> bool {
        let topic = self.groups.get(group).and_then(|group| group.topics.get(topic));
        topic.is_some_and(|topic| topic.sharing > 0)
    }

    /// The groups that somebody is of.
    pub fn groups(&self) -> impl Iterator<Item = &GroupName> {
        self.groups.keys()
    }

    /// The topics that a client names in a connection's word, for those groups whose messages it shares.
    pub fn shared_topics(client: &ReaderClient) -> impl Iterator<Item = &str> {
        client.groups.iter().filter(|group| group.shares() > 0).flat_map(ReaderGroup::topics)
    }
}

/// What a client takes in an answer.
pub(in crate::broker) fn shown_bytes(reader: &ReaderInfo) -> usize {
    let of = |(topic, expression): &(String, String)| topic.len() + expression.len() + ENTRY_BYTES;
    reader.client.len() + ENTRY_BYTES + reader.subscriptions.iter().map(of).sum::<usize>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::ReaderMode;
    use crate::types::ByteBudget;

    struct Scene {
        readers: Readers,
        budget: ByteBudget,
    }

    fn scene() -> Scene {
        Scene { readers: Readers::default(), budget: ByteBudget::new(1_000_000) }
    }

    fn at(shard: u16, number: u64) -> ConnectionId {
        ConnectionId { shard: ShardId(shard), number }
    }

    fn group(name: &str) -> GroupName {
        name.parse().expect("a name")
    }

    fn reads(name: &str, mode: ReaderMode, topics: &[(&str, &str, i64)]) -> ReaderGroup {
        let subscription = |&(topic, expression, version): &(&str, &str, i64)| Subscription {
            topic: topic.to_owned(),
            expression: expression.to_owned(),
            kind: "TAG".to_owned(),
            version,
        };
        let subscriptions = topics.iter().map(subscription).collect();
        ReaderGroup { group: group(name), mode, kind: "push", start: "last", subscriptions }
    }

    impl Scene {
        /// The groups that change, as their names.
        fn says(&mut self, id: &str, connection: ConnectionId, groups: Vec<ReaderGroup>) -> Vec<String> {
            self.says_both(id, connection, groups, &[])
        }

        fn says_both(
            &mut self,
            id: &str,
            connection: ConnectionId,
            groups: Vec<ReaderGroup>,
            produces: &[&str],
        ) -> Vec<String> {
            let produces = produces.iter().copied().map(group).collect();
            let client = ReaderClient { language: "JAVA", version: 479, groups, produces };
            let bytes = self.readers.entry_bytes(id, "a:1", &client);
            let memory = self.budget.try_reserve(bytes).expect("there is room");
            let changed = self.readers.set(id, connection, "a:1", client, memory);
            changed.iter().map(GroupName::to_string).collect()
        }

        fn goes(&mut self, id: &str, connection: ConnectionId) -> Vec<String> {
            self.readers.remove(id, connection).iter().map(GroupName::to_string).collect()
        }

        fn expression(&self, topic: &str) -> Option<&str> {
            self.readers.subscription(&group("g"), topic).map(|found| found.expression.as_str())
        }
    }

    const ALL: &[(&str, &str, i64)] = &[("t", "*", 1)];

    #[test]
    fn who_is_not_shown_is_counted() {
        let mut scene = Scene { readers: Readers::default(), budget: ByteBudget::new(100 << 20) };
        let expression = "x".repeat(200 * 1024);
        for id in ["a", "b", "c", "d", "e"] {
            scene.says(id, at(0, 1), vec![reads("g", ReaderMode::Clustering, &[("t", &expression, 1)])]);
        }
        let (shown, left_out) = scene.readers.shown(&group("g"));
        assert_eq!((shown.len(), left_out), (3, 2), "of 768 KiB");
    }

    #[test]
    fn a_client_is_in_its_group_over_any_of_its_connections() {
        let mut scene = scene();
        let said = || vec![reads("g", ReaderMode::Clustering, ALL)];
        assert_eq!(scene.says("b", at(1, 5), said()), ["g"]);
        let alone = scene.budget.bytes();
        assert_eq!(scene.says("b", at(0, 7), said()), [""; 0], "nothing is new");
        assert!(scene.budget.bytes() < 2 * alone, "it is kept once");
        assert_eq!(scene.says("a", at(1, 6), said()), ["g"]);
        assert_eq!(scene.readers.members(&group("g")), ["a", "b"]);
        assert_eq!(scene.readers.members_of_shard(&group("g"), ShardId(0)), ["b"]);
        assert_eq!(scene.readers.members_of_shard(&group("g"), ShardId(1)), ["a"]);
        assert_eq!(scene.goes("b", at(1, 5)), [""; 0], "the other connection is there");
        assert_eq!(scene.goes("b", at(0, 7)), ["g"]);
        assert_eq!(scene.goes("b", at(0, 7)), [""; 0], "it is gone already");
        assert_eq!(scene.goes("a", at(1, 6)), ["g"]);
        assert!(scene.readers.clients.is_empty() && scene.readers.groups.is_empty());
        assert!(scene.readers.networks.is_empty());
        assert_eq!(scene.budget.bytes(), 0);
    }

    #[test]
    fn of_two_subscriptions_the_newer_one_counts_and_a_topic_is_there_while_somebody_names_it() {
        let mut scene = scene();
        let clustering = |topics| vec![reads("g", ReaderMode::Clustering, topics)];
        scene.says("a", at(0, 1), clustering(&[("t", "old", 1), ("only-a", "*", 1)]));
        assert_eq!(scene.says("b", at(0, 2), clustering(&[("t", "new", 2)])), ["g"]);
        assert_eq!((scene.expression("t"), scene.expression("only-a")), (Some("new"), Some("*")));
        assert_eq!(scene.says("a", at(0, 1), clustering(&[("t", "old", 1)])), ["g"], "a topic less");
        assert_eq!(scene.expression("only-a"), None);
        assert_eq!(scene.says("a", at(0, 1), clustering(&[("t", "newest", 3)])), [""; 0], "only the version");
        assert_eq!(scene.expression("t"), Some("newest"));
        scene.goes("a", at(0, 1));
        assert_eq!(scene.expression("t"), Some("new"), "that of those who are left");
        scene.goes("b", at(0, 2));
        assert_eq!(scene.expression("t"), None);
    }

    #[test]
    fn a_producer_is_found_over_each_of_its_connections_while_it_says_so() {
        let mut scene = scene();
        assert_eq!(scene.says_both("a", at(0, 1), Vec::new(), &["p", "q"]), [""; 0], "no readers hear of it");
        scene.says_both("a", at(1, 1), Vec::new(), &["p", "q"]);
        scene.says_both("b", at(1, 2), vec![reads("g", ReaderMode::Clustering, ALL)], &["p"]);
        let ways = |scene: &Scene, name: &str| {
            let group = group(name);
            let found = scene.readers.producers(&group);
            found.map(|found| (found.client, found.connection.shard.0)).collect::<Vec<_>>()
        };
        let of = |client: &str, shard| (client.to_owned(), shard);
        assert_eq!(ways(&scene, "p"), [of("a", 0), of("a", 1), of("b", 1)]);
        assert_eq!(ways(&scene, "q"), [of("a", 0), of("a", 1)]);
        assert_eq!(ways(&scene, "g"), [], "a group of readers is another one");
        let next = |scene: &Scene, last: Option<&Producer>| {
            scene.readers.producer_after(&group("p"), ShardId(1), last).expect("there are some")
        };
        let first = next(&scene, None);
        let second = next(&scene, Some(&first));
        assert_eq!((first.client.as_str(), second.client.as_str()), ("a", "b"));
        assert_eq!((second.language, second.version, second.address.as_str()), ("JAVA", 479, "a:1"));
        scene.says_both("a", at(1, 1), Vec::new(), &["q"]);
        assert_eq!(ways(&scene, "p"), [of("a", 0), of("b", 1)]);
        for (id, connection) in [("a", at(0, 1)), ("a", at(1, 1)), ("b", at(1, 2))] {
            scene.goes(id, connection);
        }
        assert_eq!((ways(&scene, "p"), ways(&scene, "q")), (Vec::new(), Vec::new()));
        assert_eq!(scene.budget.bytes(), 0);
    }

    #[test]
    fn who_gets_every_message_shares_none() {
        let mut scene = scene();
        scene.says("a", at(0, 1), vec![reads("g", ReaderMode::Broadcasting, ALL)]);
        assert_eq!(scene.readers.members(&group("g")), ["a"]);
        assert!(!scene.readers.is_read(&group("g")) && !scene.readers.reads(&group("g"), "t"));
        scene.says("b", at(0, 2), vec![reads("g", ReaderMode::Clustering, ALL)]);
        assert!(scene.readers.is_read(&group("g")) && scene.readers.reads(&group("g"), "t"));
        assert!(!scene.readers.reads(&group("g"), "other"));
        scene.goes("b", at(0, 2));
        assert!(!scene.readers.is_read(&group("g")) && !scene.readers.reads(&group("g"), "t"));
    }
}
