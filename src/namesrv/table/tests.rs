use super::*;

const SECOND: u64 = 1_000_000_000;

fn identity(broker: &str, id: i64) -> BrokerIdentity {
    BrokerIdentity { cluster: "C".into(), broker: broker.into(), id, address: format!("{broker}.{id}:10911") }
}

fn topics(names: &[&str], counter: i64) -> RegisteredTopics {
    let topic = RegisteredTopic { read: 8, write: 8, permission: 6, flags: 0 };
    RegisteredTopics {
        version: DataVersion { counter, state: 0, timestamp: 0 },
        topics: names.iter().map(|name| ((*name).to_owned(), topic)).collect(),
    }
}

fn registration(identity: BrokerIdentity, topics: RegisteredTopics) -> Registration {
    Registration {
        ha_address: Some(format!("{}:ha", identity.address)),
        identity,
        silence: None,
        zone: None,
        acting_master: false,
        topics,
        connection: (0, 1),
    }
}

fn at(seconds: u64) -> MonotonicTime {
    MonotonicTime(seconds * SECOND)
}

fn table(brokers: &[&str]) -> BrokerTable {
    let mut table = BrokerTable::default();
    for broker in brokers {
        let registration = registration(identity(broker, 0), topics(&["T", broker], 1));
        assert_eq!(table.register(registration, at(0)), Ok(None));
    }
    table
}

/// The brokers of a topic's route, with the numbers of their members.
fn route(table: &BrokerTable, topic: &str) -> Vec<(String, Vec<i64>)> {
    let mut route = TopicRoute::default();
    table.add_route(topic, None, &mut route);
    let brokers = route.brokers.into_iter();
    brokers.map(|broker| (broker.broker, broker.addresses.into_keys().collect())).collect()
}

fn named(brokers: &[&str]) -> Vec<(String, Vec<i64>)> {
    brokers.iter().map(|broker| ((*broker).to_owned(), vec![0])).collect()
}

fn assert_sums(table: &BrokerTable) {
    let bytes: usize = table.topics(None).map(|(name, _)| topic_bytes(name)).sum();
    assert_eq!(table.bytes, bytes);
    assert_eq!(table.member_count, table.brokers.values().map(|broker| broker.members.len()).sum::<usize>());
}

#[test]
fn a_topic_is_where_brokers_say_it_is() {
    let table = table(&["a", "b"]);
    assert_eq!(route(&table, "T"), named(&["a", "b"]));
    assert_eq!(route(&table, "b"), named(&["b"]));
    assert_eq!(route(&table, "nowhere"), []);
    assert_sums(&table);
}

#[test]
fn a_broker_that_is_not_heard_of_is_gone() {
    let mut table = table(&["a", "b"]);
    let known = table.heard(&identity("a", 0), at(100));
    assert_eq!(known, Some(DataVersion { counter: 1, state: 0, timestamp: 0 }));
    table.expire(at(120));
    assert_eq!(route(&table, "T"), named(&["a", "b"]));
    table.expire(at(121));
    assert_eq!(route(&table, "T"), named(&["a"]));
    assert_eq!(table.heard(&identity("b", 0), at(121)), None);
    let mut short = registration(identity("c", 0), topics(&["T", "U"], 1));
    short.silence = Some(Duration::from_secs(3));
    table.register(short, at(121)).expect("there is room");
    table.expire(at(125));
    assert_eq!(route(&table, "T"), named(&["a"]));
    assert_sums(&table);
}

#[test]
fn a_broker_goes_with_its_connection_or_by_its_word() {
    let mut table = table(&["a", "b"]);
    let mut other = registration(identity("c", 0), topics(&[], 1));
    other.connection = (1, 1);
    table.register(other, at(0)).expect("there is room");
    table.disconnected((0, 1));
    assert_eq!(table.brokers().len(), 1);
    let moved = BrokerIdentity { address: "elsewhere".into(), ..identity("c", 0) };
    table.unregister(&moved);
    assert_eq!(table.brokers().len(), 1, "another one has the name now");
    table.unregister(&identity("c", 0));
    assert!(table.is_empty());
    assert_sums(&table);
}

#[test]
fn members_of_one_name_share_its_topics_which_the_master_tells() {
    let mut table = table(&["a"]);
    let slave = registration(identity("a", 1), topics(&["T", "wrong"], 7));
    let master = ("a.0:10911:ha".to_owned(), "a.0:10911".to_owned());
    assert_eq!(table.register(slave, at(0)), Ok(Some(master)));
    assert_eq!(route(&table, "T"), [("a".to_owned(), vec![0, 1])]);
    assert_eq!(route(&table, "wrong"), []);
    // An address has one number.
    let mut risen = registration(identity("a", 0), topics(&["T", "right"], 8));
    risen.identity.address = "a.1:10911".into();
    table.register(risen, at(0)).expect("there is room");
    assert_eq!(route(&table, "right"), named(&["a"]));
    let mut older = registration(identity("a", 0), topics(&["T", "older"], 1));
    older.topics.version.state = -1;
    assert_eq!(table.register(older, at(0)), Ok(None));
    assert_eq!(route(&table, "older"), []);
    assert_sums(&table);
}

#[test]
fn topics_change_when_their_version_does_and_stay_when_they_are_not_told_again() {
    let mut table = table(&["a"]);
    table.register(registration(identity("a", 0), topics(&["U"], 1)), at(1)).expect("it is known");
    assert_eq!(route(&table, "U"), []);
    table.register(registration(identity("a", 0), topics(&["U"], 2)), at(1)).expect("it is known");
    assert_eq!(route(&table, "U").len(), 1);
    assert_eq!(route(&table, "T").len(), 1);
    table.remove_topic("T", Some("D"));
    assert_eq!(route(&table, "T").len(), 1, "of another cluster");
    table.remove_topic("T", Some("C"));
    assert_eq!(route(&table, "T"), []);
    assert_eq!(table.set_writable("a", false), 2);
    assert!(table.topics(Some("C")).all(|(_, topic)| topic.permission == 4));
    assert_eq!(table.set_writable("a", true), 2);
    assert!(table.topics(None).all(|(_, topic)| topic.permission == 6));
    assert_eq!(table.set_writable("nobody", true), 0);
    assert_sums(&table);
}

#[test]
fn what_is_not_taken_in_is_refused_in_words() {
    let mut table = table(&["a"]);
    let new = |names: &[&str]| registration(identity("b", 0), topics(names, 1));
    assert_eq!(table.register(new(&["T"]), at(0)), Err(RegisterError::OneTopic));
    let mut unnamed = new(&[]);
    unnamed.identity.cluster.clear();
    assert_eq!(table.register(unnamed, at(0)), Err(RegisterError::Name));
    for number in table.member_count..limits::NAMESRV_BROKERS_MAX {
        let registration = registration(identity(&format!("n{number}"), 0), topics(&[], 1));
        table.register(registration, at(0)).expect("there is room");
    }
    assert_eq!(table.register(new(&[]), at(0)), Err(RegisterError::Brokers));
    // Those that are known go on.
    table.register(registration(identity("a", 0), topics(&["T"], 2)), at(0)).expect("it is known");
    let names: Vec<String> = (0..40_000)
        .map(|number| format!("{number:0>width$}", width = limits::NAMESRV_NAME_BYTES_MAX))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let many = registration(identity("a", 0), topics(&names, 3));
    assert_eq!(table.register(many, at(0)), Err(RegisterError::Memory));
    assert_sums(&table);
}

#[test]
fn a_topic_is_added_to_brokers_that_have_registered_and_taken_from_them() {
    let mut table = table(&["a", "b"]);
    let queues =
        |broker: &str| QueueNumbers { broker: broker.into(), read: 1, write: 1, permission: 6, flags: 0 };
    for broker in ["a", "nobody"] {
        assert_eq!(table.add_topic("added", &queues(broker)), Ok(()));
    }
    assert_eq!(table.add_topic("added", &queues("a")), Ok(()), "it is there");
    assert_eq!(route(&table, "added"), named(&["a"]));
    let long = "x".repeat(limits::NAMESRV_NAME_BYTES_MAX + 1);
    assert_eq!(table.add_topic(&long, &queues("a")), Err(RegisterError::Name));
    table.remove_topic("added", Some("another"));
    assert_eq!(route(&table, "added"), named(&["a"]));
    table.remove_topic("added", None);
    assert_eq!(route(&table, "added"), []);
    assert_sums(&table);
}
