//! Every request against keys that may some of them.

use std::time::Duration;

use super::*;
use crate::access::AccessKeys;
use crate::api::*;
use crate::types::*;

const KEYS: &str = r#"
    [[keys]]
    id = "producer"
    secret = "s"
    publish = ["orders"]
    [[keys]]
    id = "consumer"
    secret = "s"
    consume = [{ topic = "orders", group = "billing" }]
    [[keys]]
    id = "idle"
    secret = "s"
    [[keys]]
    id = "root"
    secret = "s"
    admin = true
"#;

/// Who may have a request carried out, of the keys above.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Who {
    Producer,
    Consumer,
    Both,
    Everybody,
    Root,
}

fn orders() -> TopicName {
    "orders".parse().expect("a name")
}

fn billing() -> GroupName {
    "billing".parse().expect("a name")
}

fn key() -> QueueKey {
    QueueKey { topic: TopicId(1), queue: QueueNumber(0) }
}

fn receipt() -> Receipt {
    Receipt { key: key(), offset: QueueOffset(0), leased_at: Timestamp(1), lease_until: Timestamp(2) }
}

fn half() -> HalfReceipt {
    HalfReceipt { key: key(), position: LogPosition(0) }
}

fn topic_change() -> TopicChange {
    TopicChange { topic: orders(), queues: None, retention: None, level: None }
}

fn settings() -> GroupSettings {
    GroupSettings { group: billing(), deliveries_max: None, lease: None, ordered_lease: None }
}

fn set_up() -> SetUpGroup {
    SetUpGroup {
        like: None,
        settings: settings(),
        may_consume: Some(false),
        may_broadcast: None,
        ordered: None,
        retry_queues: None,
        presence: Presence::There,
    }
}

fn recall() -> RecallDelayed {
    let (position, due) = (LogPosition(0), Timestamp(1));
    RecallDelayed { topic: orders(), queue: QueueNumber(0), position, due }
}

fn redrive() -> Redrive {
    Redrive { group: billing(), queue: QueueNumber(0), offsets: vec![QueueOffset(0)], to: orders() }
}

fn find_by_key() -> FindMessages {
    FindMessages::Key {
        topic: orders(),
        key: "k".into(),
        count: 1,
        from: Timestamp(0),
        to: Timestamp(1),
        before: Vec::new(),
    }
}

fn join() -> JoinGroup {
    JoinGroup {
        group: billing(),
        member: "m".into(),
        topics: vec![orders()],
        session_timeout: Duration::from_secs(10),
        generation: 0,
        life: SessionLife::Timed,
    }
}

fn receive() -> Receive {
    Receive {
        group: billing(),
        topic: orders(),
        scope: Default::default(),
        filter: Filter::default(),
        count: 1,
        bytes_max: 1,
        wait: Duration::ZERO,
        lease: None,
        ordered: false,
        protocol: ClientProtocol::Native,
    }
}

fn fetch() -> Fetch {
    Fetch {
        key: key(),
        offset: QueueOffset(0),
        bytes_max: 1,
        records_max: 1,
        session: 0,
        wait: Duration::ZERO,
    }
}

/// Every request, with who may send it.
fn requests() -> Vec<(Request, Who)> {
    let batch = bytes::Bytes::new();
    let instance: InstanceName = "i".parse().expect("a name");
    let commit = CommitOffset { group: billing(), key: key(), offset: QueueOffset(0), member: None };
    let decision = Decision::Commit;
    let halves = ReceiveHalves { topic: orders(), producer_group: billing(), count: 1, wait: Duration::ZERO };
    let watch = Watch { queues: vec![(key(), QueueOffset(0))], wait: Duration::ZERO };
    let change = ChangeLease { group: billing(), receipt: receipt(), lease: Duration::ZERO };
    let reset =
        ResetGroup { group: billing(), topic: orders(), target: ResetTarget::Every(OffsetSpec::First) };
    let hold = Hold { key: key(), level: None, batch: batch.clone(), release: Release::At(Timestamp(0)) };
    let by_place = FindMessages::Position { shard: ShardId(0), position: LogPosition(0), index: 0 };
    let acknowledge = Acknowledge { group: billing(), receipts: vec![receipt()] };
    vec![
        (Request::Produce(Produce { key: key(), level: None, batch: batch.clone() }), Who::Producer),
        (
            Request::ProduceCopies(ProduceCopies {
                produce: Produce { key: key(), level: None, batch },
                at: None,
            }),
            Who::Producer,
        ),
        (Request::Hold(hold), Who::Producer),
        (
            Request::EndTransaction(EndTransaction { receipt: half(), producer_group: None, decision }),
            Who::Producer,
        ),
        (Request::OpenTopic(orders()), Who::Producer),
        (Request::ReceiveHalves(halves), Who::Producer),
        (Request::Receive(receive()), Who::Consumer),
        (Request::Acknowledge(acknowledge), Who::Consumer),
        (Request::ChangeLease(change), Who::Consumer),
        (Request::CommitOffset(commit), Who::Consumer),
        (Request::CommittedOffset { group: billing(), key: key() }, Who::Consumer),
        (Request::JoinGroup(join()), Who::Consumer),
        (Request::LeaveGroup { group: billing(), member: "m".into() }, Who::Consumer),
        (Request::Fetch(fetch()), Who::Consumer),
        (Request::FindOffset { key: key(), spec: OffsetSpec::First }, Who::Consumer),
        (Request::Watch(watch), Who::Consumer),
        (Request::FindMessages(find_by_key()), Who::Consumer),
        (Request::DescribeTopic(orders()), Who::Both),
        (Request::Route(Some(orders())), Who::Both),
        (Request::Route(None), Who::Everybody),
        (Request::FindMessages(by_place), Who::Root),
        (Request::CreateTopic(topic_change()), Who::Root),
        (Request::AlterTopic(topic_change()), Who::Root),
        (Request::DeleteTopic(orders()), Who::Root),
        (Request::ListTopics, Who::Root),
        (Request::ListGroups, Who::Root),
        (Request::DescribeGroup(billing()), Who::Root),
        (Request::DeleteGroup(billing()), Who::Root),
        (Request::ResetGroup(reset), Who::Root),
        (Request::AlterGroup(settings()), Who::Root),
        (Request::CreateInstance(instance.clone()), Who::Root),
        (Request::DeleteInstance(instance), Who::Root),
        (Request::ListInstances, Who::Root),
        (Request::Settings(Vec::new()), Who::Root),
        (Request::Settings(vec![SettingChange { name: "level".into(), value: None }]), Who::Root),
        (Request::PermitTopic { topic: orders(), permission: 6 }, Who::Root),
        (Request::PurgeTopic(PurgeTopic { topic: orders(), before: OffsetSpec::Last }), Who::Root),
        (Request::SetUpGroup(set_up()), Who::Root),
        (Request::ListDelayed(ListDelayed { topic: orders(), shard: ShardId(0), from: None }), Who::Consumer),
        (Request::RecallDelayed(recall()), Who::Producer),
        (Request::Redrive(redrive()), Who::Root),
        (
            Request::RedrivenRanges { group: billing(), queue: QueueNumber(0), from: QueueOffset(0) },
            Who::Root,
        ),
        (Request::DescribeNode { count_syscalls: false }, Who::Root),
        (Request::TopicStats(StatsAsked { of: StatsOf::One(orders()), ages: true }), Who::Both),
        (Request::TopicStats(StatsAsked { of: StatsOf::After(None), ages: false }), Who::Root),
        (Request::GroupStats(StatsAsked { of: StatsOf::One(billing()), ages: true }), Who::Root),
        (Request::ListSlow(ListSlow::default()), Who::Root),
        (Request::MeasureLatency(MeasureLatency { topic: orders(), time: Duration::ZERO }), Who::Root),
    ]
}

fn check(session: &Session, request: &Request) -> Result<(), Status> {
    let topic_name = |id| match id {
        TopicId(1) => Some(orders()),
        TopicId(2) => Some("secret".parse().expect("a name")),
        _ => None,
    };
    Check { session, topic_name }.request(request).map_err(|failure| failure.status)
}

fn session(id: &str) -> Session {
    let keys = AccessKeys::parse(KEYS).expect("well formed");
    Session::Key(keys.find(id).expect("it is there").clone())
}

#[test]
fn every_request_is_carried_out_for_those_who_may_and_nobody_else() {
    for (request, who) in requests() {
        let may = [
            ("producer", matches!(who, Who::Producer | Who::Both | Who::Everybody)),
            ("consumer", matches!(who, Who::Consumer | Who::Both | Who::Everybody)),
            ("idle", who == Who::Everybody),
            ("root", true),
        ];
        for (id, may) in may {
            let expected = if may { Ok(()) } else { Err(Status::PermissionDenied) };
            assert_eq!(check(&session(id), &request), expected, "{id}: {request:?}");
        }
        assert_eq!(check(&Session::Open, &request), Ok(()), "{request:?}");
        let strangers = [Session::Stranger, Session::Revoked { id: "root".into() }];
        for stranger in strangers {
            assert_eq!(check(&stranger, &request), Err(Status::Unauthenticated), "{request:?}");
        }
    }
}

#[test]
fn dead_letters_go_from_a_topic_that_the_key_consumes_to_one_that_it_publishes_to() {
    let rules = |rules: &str| format!("[[keys]]\nid = \"k\"\nsecret = \"s\"\n{rules}");
    let dead = "consume = [{ topic = \"%DLQ%billing\", group = \"billing\" }]";
    for (text, may) in [
        (dead.to_owned(), false),
        ("publish = [\"orders\"]".to_owned(), false),
        (format!("{dead}\npublish = [\"other\"]"), false),
        (format!("{dead}\npublish = [\"orders\"]"), true),
    ] {
        let keys = AccessKeys::parse(&rules(&text)).expect("well formed");
        let session = Session::Key(keys.find("k").expect("it is there").clone());
        assert_eq!(check(&session, &Request::Redrive(redrive())).is_ok(), may, "{text}");
    }
}

#[test]
fn one_topic_or_group_that_a_key_may_not_use_is_enough() {
    let consumer = session("consumer");
    let secret = QueueKey { topic: TopicId(2), queue: QueueNumber(0) };
    let denied = Err(Status::PermissionDenied);
    let with_secret = vec![receipt(), Receipt { key: secret, ..receipt() }];
    let requests = [
        Request::Acknowledge(Acknowledge { group: billing(), receipts: with_secret }),
        Request::Acknowledge(Acknowledge { group: "other".parse().expect("a name"), receipts: Vec::new() }),
        Request::Watch(Watch {
            queues: vec![(key(), QueueOffset(0)), (secret, QueueOffset(0))],
            wait: Duration::ZERO,
        }),
        Request::JoinGroup(JoinGroup { topics: vec![orders(), "secret".parse().expect("a name")], ..join() }),
        Request::JoinGroup(JoinGroup { group: "other".parse().expect("a name"), ..join() }),
        Request::JoinGroup(JoinGroup {
            group: "other".parse().expect("a name"),
            topics: Vec::new(),
            ..join()
        }),
        Request::Receive(Receive { group: "other".parse().expect("a name"), ..receive() }),
        Request::Receive(Receive { topic: "secret".parse().expect("a name"), ..receive() }),
        Request::Fetch(Fetch { key: secret, ..fetch() }),
    ];
    for request in requests {
        assert_eq!(check(&consumer, &request), denied, "{request:?}");
    }
}

/// Topics are numbered from 1 on: who asks for one after the other would learn all names.
#[test]
fn a_topic_that_is_none_of_a_keys_business_is_not_called_by_its_name() {
    let consumer = session("consumer");
    let topic_name = |_| Some("merger-of-acme".parse().expect("a name"));
    let check = Check { session: &consumer, topic_name };
    let watch = Watch { queues: vec![(key(), QueueOffset(0))], wait: Duration::ZERO };
    for request in [Request::Fetch(fetch()), Request::Watch(watch)] {
        let refused = check.request(&request).expect_err("no rule");
        assert_eq!(refused.status, Status::PermissionDenied);
        assert!(!refused.message.contains("merger"), "{refused}");
    }
    // One that it reads it may know by name.
    let check = Check { session: &consumer, topic_name: |_| Some(orders()) };
    let refused = check.publish(TopicId(1)).expect_err("no rule");
    assert!(refused.message.contains("`consumer` may not publish to orders"), "{refused}");
}

/// The owner of the queue may know of the topic already, and would carry the request out.
#[test]
fn a_topic_that_the_shard_does_not_know_is_refused_where_it_is_the_only_one() {
    let unknown = QueueKey { topic: TopicId(9), queue: QueueNumber(0) };
    let fetch = Request::Fetch(Fetch { key: unknown, ..fetch() });
    assert_eq!(check(&session("consumer"), &fetch), Err(Status::TopicNotExist));
    assert_eq!(check(&Session::Stranger, &fetch), Err(Status::Unauthenticated));
    let receipts = vec![receipt(), Receipt { key: unknown, ..receipt() }];
    let acknowledge = Request::Acknowledge(Acknowledge { group: billing(), receipts });
    assert_eq!(check(&session("consumer"), &acknowledge), Ok(()), "the other message is dealt with");
}
