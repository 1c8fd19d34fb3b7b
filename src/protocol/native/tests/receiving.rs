//! The forms of receiving, holding and groups' settings.

use super::*;
use crate::types::{GroupName, HalfReceipt, QueueOffset, Receipt, RecordLocation};

fn group() -> GroupName {
    "readers".parse().expect("a good name")
}

fn receipt() -> Receipt {
    Receipt {
        key: key(),
        offset: QueueOffset(u64::MAX),
        leased_at: Timestamp(1_700_000_000_000),
        lease_until: Timestamp(u64::MAX),
    }
}

fn half_receipt() -> HalfReceipt {
    HalfReceipt { key: key(), position: LogPosition(1 << 40) }
}

fn receive() -> Receive {
    Receive {
        protocol: ClientProtocol::Native,
        group: group(),
        topic: topic(),
        scope: Default::default(),
        filter: Filter::default(),
        count: 1,
        bytes_max: 1,
        wait: Duration::ZERO,
        lease: None,
        ordered: false,
    }
}

fn hold(release: Release) -> Request {
    let batch = Bytes::from_static(b"not looked at here");
    Request::Hold(Hold { key: key(), level: Some(Level::Written), batch, release })
}

fn settings(deliveries_max: Option<u32>, lease: Option<u64>, ordered_lease: Option<u64>) -> GroupSettings {
    let [lease, ordered_lease] = [lease, ordered_lease].map(|lease| lease.map(Duration::from_millis));
    GroupSettings { group: group(), deliveries_max, lease, ordered_lease }
}

fn receive_halves() -> ReceiveHalves {
    ReceiveHalves { topic: topic(), producer_group: group(), count: 32, wait: Duration::from_secs(60) }
}

fn by_expression(text: &str) -> Filter {
    Filter::Expression(Arc::new(text.parse().expect(text)))
}

pub(super) fn requests() -> Vec<Request> {
    let most = Receive {
        scope: Some(QueueNumber(0)).into(),
        filter: Filter::parse(Some("a || b || \u{e9}")),
        count: limits::RECEIVE_MESSAGES_MAX,
        bytes_max: limits::RECEIVE_BYTES_MAX as u32,
        wait: Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS_MAX)),
        lease: Some(Duration::from_millis(limits::LEASE_MS_MAX)),
        ordered: true,
        ..receive()
    };
    let end = |producer_group, decision| EndTransaction { receipt: half_receipt(), producer_group, decision };
    let commit = |producer_group| Release::Commit { producer_group, immunity: Duration::from_secs(7) };
    vec![
        Request::Receive(receive()),
        Request::Receive(most),
        Request::Receive(Receive { filter: Filter::parse(Some("*||*")), ..receive() }),
        Request::Receive(Receive { filter: by_expression("n > 5 AND TAGS IN ('a')"), ..receive() }),
        Request::Acknowledge(Acknowledge { group: group(), receipts: vec![receipt()] }),
        Request::Acknowledge(Acknowledge { group: group(), receipts: vec![receipt(); 3] }),
        Request::ChangeLease(ChangeLease { group: group(), receipt: receipt(), lease: Duration::ZERO }),
        Request::ChangeLease(ChangeLease {
            group: group(),
            receipt: receipt(),
            lease: Duration::from_millis(limits::LEASE_MS_MAX),
        }),
        Request::AlterGroup(settings(Some(3), None, None)),
        Request::AlterGroup(settings(None, Some(limits::LEASE_MS_MIN), None)),
        Request::AlterGroup(settings(Some(u32::MAX), Some(2_000), Some(limits::LEASE_MS_MAX))),
        hold(Release::At(Timestamp(u64::MAX))),
        hold(commit(None)),
        hold(commit(Some(group()))),
        Request::EndTransaction(end(None, Decision::Commit)),
        Request::EndTransaction(end(Some(group()), Decision::Rollback)),
        Request::ReceiveHalves(receive_halves()),
    ]
}

fn records() -> [Bytes; 2] {
    [&b"first"[..], b""].map(|body| found_message(body).record)
}

pub(super) fn replies() -> Vec<Reply> {
    let received = records().map(|record| ReceivedMessage {
        receipt: receipt(),
        location: Some(RecordLocation { position: LogPosition(u64::MAX - 7), index: u16::MAX }),
        record,
        born_time: Timestamp(1),
        store_time: Timestamp(2),
        first_delivery: Timestamp(3),
        deliveries: u32::MAX,
    });
    let halves = records().map(|record| HalfMessage {
        receipt: half_receipt(),
        record,
        born_time: Timestamp(1),
        store_time: Timestamp(2),
        first_check: Timestamp(3),
        next_check: Timestamp(4),
        checks: 5,
    });
    vec![
        Reply::Received(Vec::new()),
        Reply::Received(received.to_vec()),
        Reply::Acknowledged(Vec::new()),
        Reply::Acknowledged(vec![
            ReceiptOutcome::Acknowledged,
            ReceiptOutcome::NotLeased,
            ReceiptOutcome::Failed,
        ]),
        Reply::LeaseChanged(receipt()),
        Reply::GroupSettings(settings(None, None, None)),
        Reply::GroupSettings(settings(Some(16), Some(300_000), Some(60_000))),
        Reply::Held(Held {
            receipt: half_receipt(),
            position: LogPosition(8),
            store_time: Timestamp(1),
            level: Level::Durable,
            due: Some(Timestamp(9)),
            offset: Some(QueueOffset(u64::MAX)),
        }),
        Reply::Halves(Vec::new()),
        Reply::Halves(halves.to_vec()),
    ]
}

/// What the broker makes of a request as it is sent.
fn decoded(request: &Request) -> Result<Request, Failure> {
    match decode_request(&cut(&encoded_request(request)))? {
        DecodedRequest::Other(request) => Ok(request),
        other => panic!("{request:?} became {other:?}"),
    }
}

#[test]
fn limits_of_a_receive_are_cut_to_the_brokers() {
    let wait = Duration::from_millis(u64::from(limits::RECEIVE_WAIT_MS_MAX));
    for bytes_max in [0, u32::MAX] {
        let asked = Request::Receive(Receive { bytes_max, wait: Duration::MAX, ..receive() });
        let Ok(Request::Receive(receive)) = decoded(&asked) else { panic!("{asked:?} is refused") };
        assert_eq!((receive.bytes_max, receive.wait), (limits::RECEIVE_BYTES_MAX as u32, wait));
    }
    let asked = Request::ReceiveHalves(ReceiveHalves { wait: Duration::MAX, ..receive_halves() });
    let Ok(Request::ReceiveHalves(receive)) = decoded(&asked) else { panic!("{asked:?} is refused") };
    assert_eq!(receive.wait, wait);
}

#[test]
fn as_many_receipts_as_there_may_be_come_back() {
    let receipts = vec![receipt(); limits::ACKNOWLEDGE_RECEIPTS_MAX];
    let asked = Request::Acknowledge(Acknowledge { group: group(), receipts: receipts.clone() });
    let Ok(Request::Acknowledge(acknowledge)) = decoded(&asked) else { panic!("it is refused") };
    assert_eq!(acknowledge.receipts, receipts);
}

#[test]
fn what_is_out_of_range_is_refused() {
    let tags = |count: usize| (0..count).map(|tag| tag.to_string()).collect::<Vec<_>>().join("||");
    let filter = |text: &str| Receive { filter: Filter::parse(Some(text)), ..receive() };
    assert!(decoded(&Request::Receive(filter(&tags(limits::FILTER_TAGS_MAX)))).is_ok());
    let lease = |milliseconds| Some(Duration::from_millis(milliseconds));
    let long = Duration::from_millis(limits::LEASE_MS_MAX + 1);
    let no_topic = QueueKey { topic: TopicId::BROKER, ..key() };
    let too_many = vec![receipt(); limits::ACKNOWLEDGE_RECEIPTS_MAX + 1];
    let half = HalfReceipt { key: no_topic, ..half_receipt() };
    let refused = [
        Request::Receive(Receive { count: 0, ..receive() }),
        Request::Receive(Receive { count: limits::RECEIVE_MESSAGES_MAX + 1, ..receive() }),
        Request::Receive(Receive { lease: Some(Duration::from_nanos(1)), ..receive() }),
        Request::Receive(Receive { lease: lease(limits::LEASE_MS_MIN - 1), ..receive() }),
        Request::Receive(Receive { lease: Some(long), ..receive() }),
        Request::Receive(filter(&tags(limits::FILTER_TAGS_MAX + 1))),
        Request::Receive(filter(&"x".repeat(limits::FILTER_BYTES_MAX + 1))),
        Request::Acknowledge(Acknowledge { group: group(), receipts: Vec::new() }),
        Request::Acknowledge(Acknowledge { group: group(), receipts: too_many }),
        Request::Acknowledge(Acknowledge {
            group: group(),
            receipts: vec![Receipt { key: no_topic, ..receipt() }],
        }),
        Request::ChangeLease(ChangeLease { group: group(), receipt: receipt(), lease: long }),
        Request::AlterGroup(settings(None, None, None)),
        Request::AlterGroup(settings(None, Some(limits::LEASE_MS_MIN - 1), None)),
        Request::AlterGroup(settings(None, None, Some(limits::LEASE_MS_MAX + 1))),
        Request::EndTransaction(EndTransaction {
            receipt: half,
            producer_group: None,
            decision: Decision::Commit,
        }),
        Request::ReceiveHalves(ReceiveHalves { count: 0, ..receive_halves() }),
        Request::ReceiveHalves(ReceiveHalves { count: 33, ..receive_halves() }),
    ];
    for request in refused {
        let failure = decoded(&request).expect_err("it is out of range");
        assert_eq!(failure.status, Status::InvalidArgument, "{request:?}: {failure}");
    }
}

#[test]
fn a_held_batch_that_is_too_large_is_refused_on_both_sides() {
    let batch = Bytes::from(vec![0; limits::BATCH_BYTES_MAX + 1]);
    let release = Release::At(Timestamp(1));
    let large = Request::Hold(Hold { key: key(), level: None, batch: batch.clone(), release });
    let mut output = Vec::new();
    let refused = RequestEncoder::new().encode(&mut output, 1, &large).expect_err("it is too large");
    assert_eq!((refused.status, output.len()), (Status::MessageTooLarge, 0));
    let bytes = encoded_request(&hold(Release::At(Timestamp(1))));
    let frame = frame::Frame { payload: &batch, ..cut(&bytes) };
    assert_eq!(decode_request(&frame).expect_err("it is too large").status, Status::MessageTooLarge);
}

#[test]
fn codes_of_a_newer_release_are_named() {
    use schema::RequestBody as Kind;
    let status = raw_request(|builder| {
        let until = schema::HoldUntil(3);
        let arguments = schema::HoldArgs { topic_id: 1, until, ..Default::default() };
        (Kind::Hold, schema::Hold::create(builder, &arguments).as_union_value())
    });
    assert_eq!(status, Status::InvalidArgument);
    let status = raw_request(|builder| {
        let receipt = schema::HalfReceipt::new(1, 0, 8);
        let decision = schema::Decision(2);
        let arguments =
            schema::EndTransactionArgs { receipt: Some(&receipt), producer_group: None, decision };
        (Kind::EndTransaction, schema::EndTransaction::create(builder, &arguments).as_union_value())
    });
    assert_eq!(status, Status::InvalidArgument);
}

#[test]
fn records_that_are_not_as_long_as_they_say_are_refused() {
    for reply in replies().into_iter().filter(|reply| {
        matches!(reply, Reply::Received(messages) if !messages.is_empty())
            || matches!(reply, Reply::Halves(halves) if !halves.is_empty())
    }) {
        let bytes = encoded_reply(&Ok(reply));
        let frame = cut(&bytes);
        assert!(decode_reply(&frame).is_ok());
        let longer = [frame.payload, b"!"].concat();
        let swapped = {
            let (first, second) = frame.payload.split_at(records()[0].len());
            [second, first].concat()
        };
        for payload in [&frame.payload[1..], &frame.payload[..frame.payload.len() - 1], &longer, &swapped] {
            assert!(decode_reply(&frame::Frame { payload, ..frame }).is_err());
        }
    }
}

/// A broker of this release keeps answers to what a frame holds; were it not so, the client would be told.
#[test]
fn messages_that_fit_no_frame_become_a_refusal() {
    let record = Bytes::from(vec![0; limits::FRAME_BYTES_MAX / 2]);
    let [Reply::Received(small), ..] = &replies()[1..] else { unreachable!("it stands there") };
    let messages = vec![ReceivedMessage { record, ..small[0].clone() }; 2];
    let bytes = encoded_reply(&Ok(Reply::Received(messages)));
    let decoded = decode_reply(&cut(&bytes)).expect("well formed");
    assert_eq!(decoded.into_owned().expect_err("it is too large").status, Status::LimitReached);
}
