//! Round trips of every request and reply, refusals, and damaged envelopes.

mod receiving;

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::*;
use crate::api::*;
use crate::limits;
use crate::testing::fuzz::native::{fuzz_envelope, fuzz_frame};
use crate::types::{
    InstanceName, Level, LogPosition, NodeId, QueueKey, QueueNumber, QueueOffset, RecordLocation, Retention,
    ShardId, Timestamp, TopicId, TopicName,
};
use crate::wire::frame;
use crate::wire::generated as schema;
use crate::wire::record::Record;

fn key() -> QueueKey {
    QueueKey { topic: TopicId(7), queue: QueueNumber(3) }
}

fn topic() -> TopicName {
    "orders".parse().expect("a good name")
}

fn instance() -> InstanceName {
    "MQ_INST-1".parse().expect("a good name")
}

fn change(queues: Option<u32>, retention: Option<Retention>, level: Option<Level>) -> TopicChange {
    TopicChange { topic: topic(), queues, retention, level }
}

fn requests() -> Vec<Request> {
    let group = || "readers".parse().expect("a good name");
    let mut requests = vec![
        Request::Fetch(Fetch {
            key: key(),
            offset: QueueOffset(u64::MAX),
            bytes_max: 1,
            records_max: 500,
            session: u64::MAX,
            wait: Duration::from_millis(60_000),
        }),
        Request::CreateTopic(change(
            Some(4),
            Some(Retention::Age(Duration::from_secs(3600))),
            Some(Level::Written),
        )),
        Request::CreateTopic(change(None, None, None)),
        Request::AlterTopic(change(Some(65_536), None, None)),
        Request::AlterTopic(change(None, Some(Retention::Unlimited), None)),
        Request::AlterTopic(change(None, Some(Retention::Inherited), None)),
        Request::Watch(Watch {
            queues: vec![(key(), QueueOffset(0)), (key(), QueueOffset(u64::MAX))],
            wait: Duration::from_millis(1),
        }),
        Request::DeleteTopic(topic()),
        Request::DescribeTopic(topic()),
        Request::ListTopics,
        Request::Route(None),
        Request::Route(Some(topic())),
        Request::OpenTopic(topic()),
        Request::CommitOffset(CommitOffset {
            group: group(),
            key: key(),
            offset: QueueOffset(0),
            member: None,
        }),
        Request::CommitOffset(CommitOffset {
            group: group(),
            key: key(),
            offset: QueueOffset(u64::MAX),
            member: Some(ActingMember { member: "member 1".to_owned(), generation: u64::MAX }),
        }),
        Request::CommittedOffset { group: group(), key: key() },
        Request::JoinGroup(JoinGroup {
            group: group(),
            member: "member 1".to_owned(),
            topics: vec![topic(), "other".parse().expect("a good name")],
            session_timeout: Duration::from_secs(10),
            generation: 12,
            life: SessionLife::Connected(None),
        }),
        Request::JoinGroup(JoinGroup {
            group: group(),
            member: "member 2".to_owned(),
            topics: vec![topic()],
            session_timeout: Duration::from_secs(10),
            generation: 0,
            life: SessionLife::Timed,
        }),
        Request::LeaveGroup { group: group(), member: "m".repeat(limits::MEMBER_NAME_BYTES_MAX) },
        Request::ListGroups,
        Request::DescribeGroup(group()),
        Request::DeleteGroup(group()),
        Request::DescribeNode { count_syscalls: true },
        Request::DescribeNode { count_syscalls: false },
        Request::CreateInstance(instance()),
        Request::DeleteInstance(instance()),
        Request::ListInstances,
        Request::TopicStats(StatsAsked { of: StatsOf::After(None), ages: true }),
        Request::TopicStats(StatsAsked { of: StatsOf::After(Some(topic())), ages: false }),
        Request::GroupStats(StatsAsked { of: StatsOf::One(group()), ages: true }),
        Request::Settings(Vec::new()),
        Request::Settings(vec![
            SettingChange { name: "level".to_owned(), value: Some("written".to_owned()) },
            SettingChange { name: "lease".to_owned(), value: None },
        ]),
        Request::ListSlow(ListSlow { count: 1_000, ..ListSlow::default() }),
        Request::ListSlow(ListSlow {
            shard: Some(ShardId(0)),
            protocol: Some(RequestProtocol::Remoting),
            topic: Some(topic()),
            count: 1,
        }),
        Request::MeasureLatency(MeasureLatency { topic: topic(), time: Duration::from_secs(60) }),
    ];
    let time = OffsetSpec::Time(Timestamp(1_700_000_000_000));
    let specs = [OffsetSpec::First, OffsetSpec::Last, time, OffsetSpec::Ago(Duration::from_secs(90))];
    for spec in specs {
        requests.push(Request::FindOffset { key: key(), spec });
        let target = ResetTarget::Every(spec);
        requests.push(Request::ResetGroup(ResetGroup { group: group(), topic: topic(), target }));
    }
    requests.push(Request::FindMessages(FindMessages::Key {
        topic: topic(),
        key: "k".repeat(limits::KEY_BYTES_MAX),
        count: 3,
        from: Timestamp(1),
        to: Timestamp(u64::MAX),
        before: vec![RecordLocation { position: LogPosition(u64::MAX), index: u16::MAX }, location_at(8)],
    }));
    let (shard, position) = (ShardId(u16::MAX), LogPosition(u64::MAX));
    requests.push(Request::FindMessages(FindMessages::Position { shard, position, index: u16::MAX }));
    let target = ResetTarget::Offset(QueueNumber(9), QueueOffset(1000));
    requests.push(Request::ResetGroup(ResetGroup { group: group(), topic: topic(), target }));
    requests.extend(receiving::requests());
    requests
}

fn topic_info(queues: u32) -> TopicInfo {
    TopicInfo {
        topic: topic(),
        id: TopicId(7),
        queue_count: queues,
        retention: Retention::Age(Duration::from_secs(3600)),
        level: None,
        permission: 2,
        consumers: None,
        queues: (0..queues)
            .map(|queue| QueueInfo {
                queue: QueueNumber(queue),
                shard: ShardId(1),
                first_offset: QueueOffset(5),
                end_offset: QueueOffset(u64::MAX),
            })
            .collect(),
    }
}

fn group_info() -> GroupInfo {
    GroupInfo {
        group: "readers".parse().expect("a good name"),
        generation: 3,
        members: vec![MemberInfo {
            member: "m-1".to_owned(),
            topics: vec![topic()],
            queues: vec![key()],
            heartbeat_age: Duration::from_millis(1500),
        }],
        refused: vec!["shard 1 is full".to_owned()],
        readers: [ReaderMode::Clustering, ReaderMode::Broadcasting]
            .map(|mode| ReaderInfo {
                client: "10.0.0.9@4711#17".to_owned(),
                language: "JAVA".to_owned(),
                version: 513,
                address: "10.0.0.9:4000".to_owned(),
                mode,
                subscriptions: vec![("orders".to_owned(), "a || b".to_owned())],
            })
            .to_vec(),
        queues: [Some(QueueOffset(0)), None]
            .map(|committed| GroupQueueInfo {
                topic: topic(),
                queue: QueueNumber(3),
                committed,
                end_offset: QueueOffset(10),
                lag: 10,
                member: committed.map(|_| "m-1".to_owned()),
                leased: 3,
                waiting: u64::MAX,
                dead_letters: 5,
            })
            .to_vec(),
        receivers: ClientProtocol::ALL
            .map(|protocol| ReceiverInfo {
                topic: topic(),
                protocol,
                filter: match protocol {
                    ClientProtocol::Http => Filter::parse(Some("b || a")),
                    ClientProtocol::Native => Filter::Expression(Arc::new("a > 1".parse().expect("one"))),
                },
                ordered: protocol == ClientProtocol::Native,
                active: u32::MAX,
                seen_age: Duration::from_millis(2),
            })
            .to_vec(),
        settings: Some(GroupSettings {
            group: "readers".parse().expect("a good name"),
            deliveries_max: Some(3),
            lease: None,
            ordered_lease: Some(Duration::from_secs(1)),
        }),
    }
}

fn topic_consumers() -> TopicConsumers {
    let GroupInfo { group, receivers, readers, .. } = group_info();
    let nobody = TopicGroup { group: group.clone(), members: 0, receivers: Vec::new(), readers: Vec::new() };
    TopicConsumers { groups: vec![TopicGroup { group, members: 3, receivers, readers }, nobody], left_out: 9 }
}

fn node_info() -> NodeInfo {
    let histogram = HistogramInfo {
        stage: "flush".to_owned(),
        count: 1,
        p50_ns: 2,
        p90_ns: 3,
        p99_ns: 4,
        p99_9_ns: 5,
        p99_99_ns: 6,
        max_ns: 7,
    };
    let shard = |number: u16, core: Option<u32>| ShardInfo {
        shard: ShardId(number),
        core,
        state: "the disk failed".to_owned(),
        counters: vec![("batches".to_owned(), 9), ("bytes".to_owned(), u64::MAX)],
        histograms: vec![histogram.clone()],
        rates: vec![RateInfo { name: "bytes_in".into(), ten_seconds: 0.5, minute: 1e9, ten_minutes: 0.0 }],
    };
    NodeInfo {
        version: "0.1.0".to_owned(),
        node: Some(NodeId(u128::MAX - 1)),
        level: Level::Durable,
        resident_bytes: 1 << 40,
        shards: vec![shard(0, Some(0)), shard(1, None)],
    }
}

fn topic_stats() -> Reply {
    let counts = TopicCounts {
        messages: 1,
        stored: u64::MAX,
        stored_bytes: 2,
        given: 3,
        given_bytes: 4,
        oldest_age: Some(Duration::from_millis(5)),
        newest_age: None,
        within: [6, 7, 8],
    };
    let stats = TopicStats { topic: topic(), id: TopicId(7), queue_count: 4, counts };
    Reply::TopicStats(StatsPage { entries: vec![stats], next: Some(topic()) })
}

fn group_stats() -> Reply {
    let lag = GroupLag {
        lag: 1,
        leased: 2,
        waiting: 3,
        dead_letters: 4,
        passed: u64::MAX,
        oldest_unread_age: Some(Duration::ZERO),
    };
    let stats = GroupStats {
        group: "readers".parse().expect("a good name"),
        members: 1,
        receivers: 2,
        readers: 3,
        topics: vec![GroupTopicStats { topic: topic(), lag }],
        topics_left_out: 4,
    };
    Reply::GroupStats(StatsPage { entries: vec![stats], next: None })
}

fn slow_request(protocol: RequestProtocol) -> SlowRequest {
    let is_whole = protocol == RequestProtocol::Native;
    let mut times = StageTimes::default();
    for (number, stage) in (1..).zip(RequestStage::ALL) {
        times.set(stage, Duration::from_nanos(number));
    }
    SlowRequest {
        shard: ShardId(3),
        answered: Timestamp(1_700_000_000_000),
        protocol,
        kind: "produce".to_owned(),
        topic: is_whole.then(topic),
        queue: is_whole.then_some(QueueNumber(0)),
        offset: is_whole.then_some(QueueOffset(0)),
        client: is_whole.then(|| "127.0.0.1".parse().expect("an address")),
        times,
        meanwhile: Activity::ALL.map(|activity| (activity, Duration::from_nanos(activity as u64))).to_vec(),
    }
}

fn kind_latency() -> KindLatency {
    let histogram = &node_info().shards[0].histograms[0];
    let stages = RequestStage::ALL.map(|stage| (Duration::from_nanos(stage as u64), histogram.clone()));
    KindLatency {
        protocol: RequestProtocol::Http,
        kind: "publish".to_owned(),
        total: histogram.clone(),
        mean: Duration::from_micros(3),
        curve: vec![(0.0, Duration::ZERO), (1.0, Duration::from_nanos(u64::MAX))],
        stages: stages.to_vec(),
    }
}

/// What is said of stages is said of the next answer alone, whatever that is.
#[test]
fn an_answer_says_where_the_time_went() {
    let times = slow_request(RequestProtocol::Native).times;
    let mut encoder = ReplyEncoder::new();
    for reply in [Ok(Reply::Done), Err(Failure::invalid("no"))] {
        let mut bytes = Vec::new();
        encoder.tell_stages(Some(times));
        encoder.encode(&mut bytes, 1, &reply);
        assert_eq!(reply_stages(&cut(&bytes)), Some(times));
        bytes.clear();
        encoder.encode(&mut bytes, 1, &reply);
        assert_eq!(reply_stages(&cut(&bytes)), None);
    }
    let mut encoder = RequestEncoder::new();
    for asks in [false, true] {
        let mut bytes = Vec::new();
        encoder.ask_for_stages(asks);
        encoder.encode(&mut bytes, 1, &Request::ListTopics).expect("it is small");
        assert_eq!(decode_request_and_wish(&cut(&bytes)).1, asks);
    }
}

#[test]
fn a_curve_without_shares_is_none() {
    let mut bytes = Vec::new();
    let kind = KindLatency { curve: vec![(f64::NAN, Duration::ZERO)], ..kind_latency() };
    ReplyEncoder::new().encode(&mut bytes, 1, &Ok(Reply::Latency(LatencyInfo { kinds: vec![kind] })));
    assert!(decode_reply(&cut(&bytes)).is_err());
}

fn replies() -> Vec<Result<Reply, Failure>> {
    let fetched = |batches: Vec<u8>, damaged| Fetched {
        batches,
        next_offset: QueueOffset(8),
        first_offset: QueueOffset(0),
        end_offset: QueueOffset(9),
        damaged,
    };
    let damaged = DamagedBytes { file: "shard-0/00000000000000004096.log".to_owned(), position: 8192 };
    let assignment =
        |settled| Assignment { generation: 4, queues: vec![key(), key()], settled, session: u64::MAX };
    let shards = (0..2)
        .map(|shard| ShardAddress { shard: ShardId(shard), address: format!("h:{shard}") })
        .collect::<Vec<_>>();
    let mut replies = vec![
        Ok(Reply::Fetched(fetched(vec![1, 2, 3], None))),
        Ok(Reply::Fetched(fetched(Vec::new(), Some(damaged)))),
        Ok(Reply::OffsetFound(QueueOffset(u64::MAX))),
        Ok(Reply::Topic(topic_info(2))),
        Ok(Reply::Topic(TopicInfo { consumers: Some(topic_consumers()), ..topic_info(1) })),
        Ok(Reply::Topic(TopicInfo { consumers: Some(TopicConsumers::default()), ..topic_info(1) })),
        Ok(Reply::Topics(vec![topic_info(0), topic_info(0)])),
        Ok(Reply::Topics(Vec::new())),
        Ok(Reply::Route(RouteInfo { shards: shards.clone(), topic: None, node: None })),
        Ok(Reply::Route(RouteInfo { shards, topic: Some(topic_info(1)), node: Some(NodeId(1 << 64 | 2)) })),
        Ok(Reply::Offset(None)),
        Ok(Reply::Offset(Some(QueueOffset(0)))),
        Ok(Reply::Assignment(assignment(true))),
        Ok(Reply::Assignment(assignment(false))),
        Ok(Reply::Group(group_info())),
        Ok(Reply::Group(GroupInfo { receivers: Vec::new(), settings: None, ..group_info() })),
        Ok(Reply::Groups(vec!["a".parse().expect("a good name"), "b".parse().expect("a good name")])),
        Ok(Reply::Node(node_info())),
        Ok(Reply::Slow(RequestProtocol::ALL.map(slow_request).to_vec())),
        Ok(Reply::Latency(LatencyInfo { kinds: vec![kind_latency()] })),
        Ok(Reply::Watched(vec![key()])),
        Ok(Reply::Done),
        Ok(Reply::Settings(vec![
            SettingInfo {
                name: "level".into(),
                value: Some("durable".into()),
                origin: "default".into(),
                is_live: true,
            },
            SettingInfo { name: "advertise".into(), value: None, origin: String::new(), is_live: false },
        ])),
        Ok(Reply::Instances(Vec::new())),
        Ok(Reply::Instances(
            [None, Some(instance())]
                .map(|instance| InstanceInfo { instance, topic_count: 1, group_count: u32::MAX })
                .to_vec(),
        )),
    ];
    replies.extend([topic_stats(), group_stats()].map(Ok));
    replies.push(Ok(Reply::Found(Found::default())));
    let messages = [&b"first"[..], b""].map(found_message).to_vec();
    replies.push(Ok(Reply::Found(Found {
        messages,
        complete: false,
        next: vec![location_at(0), location_at(16)],
    })));
    for level in Level::ALL {
        replies.push(Ok(Reply::Produced(Produced {
            base_offset: QueueOffset(0),
            position: LogPosition(4096),
            store_time: Timestamp(1),
            level,
        })));
    }
    replies.extend(receiving::replies().into_iter().map(Ok));
    for status in Status::ALL.into_iter().filter(|&status| status != Status::Ok) {
        replies.push(Err(Failure::new(status, "what to do")));
    }
    replies
}

fn location_at(position: u64) -> RecordLocation {
    RecordLocation { position: LogPosition(position), index: 7 }
}

fn found_message(body: &[u8]) -> FoundMessage {
    let mut record = Vec::new();
    Record { key: b"k", body, ..Record::default() }.encode(&mut record);
    FoundMessage {
        topic: topic(),
        key: key(),
        offset: QueueOffset(u64::MAX),
        shard: ShardId(1),
        position: LogPosition(8),
        index: u16::MAX,
        record: record.into(),
        born_time: Timestamp(1),
        store_time: Timestamp(2),
    }
}

fn cut(bytes: &[u8]) -> frame::Frame<'_> {
    let frame = frame::cut(bytes).expect("well formed").expect("complete");
    assert_eq!(frame.frame_bytes, bytes.len(), "one frame and no more");
    frame
}

fn encoded_request(request: &Request) -> Vec<u8> {
    let mut bytes = Vec::new();
    RequestEncoder::new().encode(&mut bytes, 42, request).expect("it fits a frame");
    bytes
}

fn encoded_reply(reply: &Result<Reply, Failure>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ReplyEncoder::new().encode(&mut bytes, 42, reply);
    bytes
}

#[test]
fn every_request_comes_back_as_it_went_in() {
    let mut encoder = RequestEncoder::new();
    for request in requests() {
        let mut bytes = Vec::new();
        encoder.encode(&mut bytes, 42, &request).expect("it fits a frame");
        let frame = cut(&bytes);
        assert_eq!(frame.correlation, 42);
        match decode_request(&frame).unwrap_or_else(|failure| panic!("{request:?}: {failure}")) {
            DecodedRequest::Other(decoded) => assert_eq!(format!("{decoded:?}"), format!("{request:?}")),
            other => panic!("{request:?} became {other:?}"),
        }
    }
}

#[test]
fn a_proof_comes_back_as_it_went_in_and_odd_ones_are_refused() {
    let prove = |key_id: &str| Prove { key_id: key_id.to_owned(), nonce: [1; 32], proof: [2; 32] };
    let sent = |prove: &Prove| {
        let mut bytes = Vec::new();
        RequestEncoder::new().encode_prove(&mut bytes, 42, prove).expect("it fits a frame");
        bytes
    };
    let longest = "k".repeat(256);
    for key_id in ["shop", longest.as_str()] {
        let bytes = sent(&prove(key_id));
        let Ok(DecodedRequest::Prove(decoded)) = decode_request(&cut(&bytes)) else { panic!("{key_id}") };
        assert_eq!(decoded, prove(key_id));
    }
    let too_long = "k".repeat(257);
    for key_id in ["", "a b", "a:b", "a\nb", "\u{e9}", too_long.as_str()] {
        let refused = decode_request(&cut(&sent(&prove(key_id)))).expect_err(key_id);
        assert_eq!(refused.status, Status::MalformedFrame, "{key_id}");
    }
    let mut bytes = Vec::new();
    ReplyEncoder::new().encode_proved(&mut bytes, 42, &[3; 32]);
    assert_eq!(decode_proved(&cut(&bytes)), Ok(Ok([3; 32])));
    assert!(decode_reply(&cut(&bytes)).is_err(), "no answer to another request");
}

#[test]
fn a_produce_request_borrows_its_batch() {
    for level in Level::ALL.map(Some).into_iter().chain([None]) {
        let batch = Bytes::from_static(b"not looked at here");
        let bytes = encoded_request(&Request::Produce(Produce { key: key(), level, batch: batch.clone() }));
        let decoded = decode_request(&cut(&bytes)).expect("well formed");
        let DecodedRequest::Produce { key: decoded_key, level: decoded_level, batch: decoded_batch } =
            decoded
        else {
            panic!("{decoded:?}");
        };
        assert_eq!((decoded_key, decoded_level, decoded_batch), (key(), level, &batch[..]));
        assert!(bytes.as_ptr_range().contains(&decoded_batch.as_ptr()));
    }
}

#[test]
fn copies_come_back_with_the_offset_that_they_are_for() {
    for at in [None, Some(QueueOffset(0)), Some(QueueOffset(u64::MAX))] {
        let (level, batch) = (Some(Level::Durable), Bytes::from_static(b"not looked at here"));
        let produce = Produce { key: key(), level, batch: batch.clone() };
        let bytes = encoded_request(&Request::ProduceCopies(ProduceCopies { produce, at }));
        let decoded = decode_request(&cut(&bytes)).expect("well formed");
        let DecodedRequest::ProduceCopies {
            key: found,
            level: found_level,
            at: found_at,
            batch: found_batch,
        } = decoded
        else {
            panic!("{decoded:?}");
        };
        assert_eq!((found, found_level, found_at, found_batch), (key(), level, at, &batch[..]));
    }
}

#[test]
fn every_reply_comes_back_as_it_went_in() {
    let mut encoder = ReplyEncoder::new();
    for reply in replies() {
        let mut bytes = Vec::new();
        encoder.encode(&mut bytes, 42, &reply);
        let frame = cut(&bytes);
        assert_eq!(frame.correlation, 42);
        let decoded = decode_reply(&frame).unwrap_or_else(|error| panic!("{reply:?}: {error}"));
        assert_eq!(decoded.into_owned(), reply);
    }
}

#[test]
fn an_encoder_appends_after_what_is_there() {
    let mut bytes = Vec::new();
    let mut encoder = ReplyEncoder::new();
    let mut expected = Vec::new();
    for (index, reply) in replies().iter().enumerate() {
        encoder.encode(&mut bytes, index as u64, reply);
        expected.push(reply.clone());
    }
    let mut rest = &bytes[..];
    for (index, reply) in expected.into_iter().enumerate() {
        let frame = frame::cut(rest).expect("well formed").expect("complete");
        assert_eq!(frame.correlation, index as u64);
        assert_eq!(decode_reply(&frame).expect("well formed").into_owned(), reply);
        rest = &rest[frame.frame_bytes..];
    }
    assert!(rest.is_empty());
}

#[test]
fn an_answer_that_fits_no_frame_says_so() {
    let topics = vec![topic_info(40_000); 4];
    let bytes = encoded_reply(&Ok(Reply::Topics(topics)));
    let decoded = decode_reply(&cut(&bytes)).expect("well formed").into_owned();
    assert_eq!(decoded.expect_err("it is too large").status, Status::LimitReached);
    let described = Ok(Reply::Topic(topic_info(limits::TOPIC_QUEUES_MAX)));
    assert_eq!(decode_reply(&cut(&encoded_reply(&described))).expect("well formed").into_owned(), described);
}

#[test]
fn a_batch_that_fits_no_frame_is_refused_before_it_is_sent() {
    let mut bytes = Vec::new();
    let failure = RequestEncoder::new()
        .begin_produce(&mut bytes, 1, key(), None, limits::BATCH_BYTES_MAX + 1)
        .expect_err("too large");
    assert_eq!(failure.status, Status::MessageTooLarge);
    assert!(bytes.is_empty());
}

#[test]
fn limits_of_a_fetch_are_cut_to_the_brokers() {
    let fetch = |bytes_max, records_max, wait| {
        Request::Fetch(Fetch { key: key(), offset: QueueOffset(1), bytes_max, records_max, session: 0, wait })
    };
    for (asked, bytes_max, records_max, wait_ms) in [
        (fetch(0, 0, Duration::ZERO), limits::FETCH_BYTES_MAX as u32, u32::MAX, 0),
        (fetch(u32::MAX, 1, Duration::MAX), limits::FETCH_BYTES_MAX as u32, 1, limits::FETCH_WAIT_MS_MAX),
    ] {
        let bytes = encoded_request(&asked);
        let decoded = decode_request(&cut(&bytes)).expect("well formed");
        let DecodedRequest::Other(Request::Fetch(fetch)) = decoded else { panic!("{decoded:?}") };
        assert_eq!((fetch.bytes_max, fetch.records_max), (bytes_max, records_max));
        assert_eq!(fetch.wait, Duration::from_millis(u64::from(wait_ms)));
    }
}

/// An envelope that no encoder of ours writes.
fn raw_request(
    build: impl FnOnce(
        &mut flatbuffers::FlatBufferBuilder<'static>,
    ) -> (schema::RequestBody, flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>),
) -> Status {
    let mut builder = flatbuffers::FlatBufferBuilder::new();
    let (body_type, body) = build(&mut builder);
    let root = schema::Request::create(
        &mut builder,
        &schema::RequestArgs { body_type, body: Some(body), stages: false },
    );
    builder.finish_minimal(root);
    let envelope = builder.finished_data();
    let frame = frame::Frame { correlation: 1, envelope, payload: &[], frame_bytes: 0 };
    let failure = decode_request(&frame).expect_err("it must be refused");
    assert!(!failure.message.is_empty());
    failure.status
}

#[test]
fn what_is_out_of_range_is_refused_by_name() {
    use schema::RequestBody as Kind;
    let status = raw_request(|builder| {
        let table = schema::Produce::create(builder, &schema::ProduceArgs::default());
        (Kind::Produce, table.as_union_value())
    });
    assert_eq!(status, Status::InvalidArgument, "the broker's own topic");
    let status = raw_request(|builder| {
        let arguments = schema::ProduceArgs { topic_id: 1, queue: 0, level: schema::Level(4) };
        (Kind::Produce, schema::Produce::create(builder, &arguments).as_union_value())
    });
    assert_eq!(status, Status::InvalidArgument, "an unknown level");
    let status = raw_request(|builder| {
        let table = schema::ListTopics::create(builder, &schema::ListTopicsArgs {});
        (Kind(99), table.as_union_value())
    });
    assert_eq!(status, Status::UnsupportedRequest, "a request of a newer release");
    for name in ["", "a%b", &"x".repeat(limits::INSTANCE_NAME_BYTES_MAX + 1)] {
        let status = raw_request(|builder| {
            let instance = Some(builder.create_string(name));
            let table = schema::CreateInstance::create(builder, &schema::CreateInstanceArgs { instance });
            (Kind::CreateInstance, table.as_union_value())
        });
        assert_eq!(status, Status::InvalidArgument, "instance {name:?}");
    }
    for name in ["", "a b", "../etc", &"x".repeat(128)] {
        let status = raw_request(|builder| {
            let topic = Some(builder.create_string(name));
            let table = schema::DeleteTopic::create(builder, &schema::DeleteTopicArgs { topic });
            (Kind::DeleteTopic, table.as_union_value())
        });
        assert_eq!(status, Status::InvalidArgument, "topic name {name:?}");
    }
    for (queues, what) in [(limits::TOPIC_QUEUES_MAX + 1, "too many queues"), (0, "nothing to alter")] {
        let status = raw_request(|builder| {
            let topic = Some(builder.create_string("orders"));
            let arguments = schema::AlterTopicArgs { topic, queues, ..Default::default() };
            (Kind::AlterTopic, schema::AlterTopic::create(builder, &arguments).as_union_value())
        });
        assert_eq!(status, Status::InvalidArgument, "{what}");
    }
}

#[test]
fn a_member_is_refused_by_what_is_wrong_with_it() {
    let good = "m";
    let long = "m".repeat(limits::MEMBER_NAME_BYTES_MAX + 1);
    let timeout = limits::SESSION_TIMEOUT_MS_MIN;
    for (member, topics, session_timeout_ms) in [
        ("", vec!["orders"], timeout),
        (&long, vec!["orders"], timeout),
        (good, vec![], timeout),
        (good, vec!["no topic"], timeout),
        (good, vec!["orders"], limits::SESSION_TIMEOUT_MS_MIN - 1),
        (good, vec!["orders"], limits::SESSION_TIMEOUT_MS_MAX + 1),
    ] {
        let status = raw_request(|builder| {
            let names: Vec<_> = topics.iter().map(|topic| builder.create_string(topic)).collect();
            let arguments = schema::JoinGroupArgs {
                group: Some(builder.create_string("readers")),
                member: Some(builder.create_string(member)),
                topics: Some(builder.create_vector(&names)),
                session_timeout_ms,
                generation: 0,
                ends_with_connection: false,
            };
            let table = schema::JoinGroup::create(builder, &arguments);
            (schema::RequestBody::JoinGroup, table.as_union_value())
        });
        assert_eq!(status, Status::InvalidArgument, "{member:?} {topics:?} {session_timeout_ms}");
    }
}

#[test]
fn a_payload_where_none_belongs_is_refused() {
    let mut encoder = RequestEncoder::new();
    let mut bytes = Vec::new();
    encoder.encode(&mut bytes, 1, &Request::ListTopics).expect("it fits a frame");
    let frame = frame::Frame { payload: b"!", ..cut(&bytes) };
    assert_eq!(decode_request(&frame).expect_err("a payload").status, Status::MalformedFrame);
}

#[test]
fn no_truncation_and_no_flipped_bit_of_a_frame_panics() {
    let produce = Produce { key: key(), level: None, batch: Bytes::from_static(b"12345678") };
    let mut frames: Vec<_> = requests().iter().map(encoded_request).collect();
    frames.push(encoded_request(&Request::Produce(produce)));
    frames.extend(replies().iter().map(encoded_reply));
    for bytes in frames {
        fuzz_frame(&bytes);
        let (envelope, payload) = (cut(&bytes).envelope, cut(&bytes).payload);
        for end in 0..envelope.len() {
            fuzz_envelope(&envelope[..end], b"");
            fuzz_envelope(&envelope[..end], payload);
        }
        for end in 0..payload.len() {
            fuzz_envelope(envelope, &payload[..end]);
        }
        for bit in 0..bytes.len() * 8 {
            let mut flipped = bytes.clone();
            flipped[bit / 8] ^= 1 << (bit % 8);
            fuzz_frame(&flipped);
        }
    }
}

/// Several bytes at once, aimed at offsets: what single bits do not reach.
#[test]
fn no_mixture_of_frames_panics() {
    let frames: Vec<_> =
        requests().iter().map(encoded_request).chain(replies().iter().map(encoded_reply)).collect();
    let mut state = 0x9E37_79B9_7F4A_7C15_u64;
    let mut next = |bound: usize| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state % bound as u64) as usize
    };
    for _ in 0..20_000 {
        let frame = cut(&frames[next(frames.len())]);
        let mut envelope = frame.envelope.to_vec();
        for _ in 0..1 + next(4) {
            let at = next(envelope.len());
            envelope[at] = [0, 1, 4, 8, 0x7F, 0x80, 0xFF, next(256) as u8][next(8)];
        }
        fuzz_envelope(&envelope, b"");
        fuzz_envelope(&envelope, frame.payload);
    }
}
