//! The native protocol's decoders: arbitrary bytes are refused or understood, and what was understood says the same when
//! it is written and read again.

mod requests;

use std::net::Ipv6Addr;
use std::time::Duration;

use self::requests::Generated;
use crate::api::{
    Activity, Failure, GroupSettings, HalfMessage, Held, HistogramInfo, KindLatency, LatencyInfo,
    ReceiptOutcome, ReceivedMessage, RedriveReport, Redriven, RedrivenRanges, Reply, Request,
    RequestProtocol, RequestStage, SlowRequest, StageTimes, Status,
};
use crate::protocol::native::{
    DecodedReply, DecodedRequest, ReplyEncoder, RequestEncoder, decode_proved, decode_reply, decode_request,
};
use crate::testing::{Random, generators};
use crate::types::{
    HalfReceipt, Level, LogPosition, QueueKey, QueueNumber, QueueOffset, Receipt, RecordLocation, ShardId,
    Timestamp, TopicId,
};
use crate::wire::frame::{self, Frame};

/// Reads `bytes` as a connection's frames, each as a request and as a reply.
pub fn fuzz_frame(bytes: &[u8]) {
    let mut rest = bytes;
    while let Ok(Some(frame)) = frame::cut(rest) {
        assert!(frame.frame_bytes <= rest.len(), "a frame lies within its buffer");
        fuzz_request(&frame);
        fuzz_reply(&frame);
        rest = &rest[frame.frame_bytes..];
    }
}

/// Reads `bytes` as an envelope with `payload` after it.
pub fn fuzz_envelope(bytes: &[u8], payload: &[u8]) {
    let frame = Frame { correlation: 1, envelope: bytes, payload, frame_bytes: 0 };
    fuzz_request(&frame);
    fuzz_reply(&frame);
}

/// Reads a request of some kind and a reply about leased and held messages, as our own encoders write them but for a few bytes.
pub fn fuzz_receiving(seed: u64) {
    let mut random = Random::new(seed);
    let mut bytes = Vec::new();
    Generated::some(&mut random).encode(&mut bytes);
    fuzz_frame(&bytes);
    fuzz_changed(&mut random, &bytes);
    bytes.clear();
    ReplyEncoder::new().encode(&mut bytes, 1, &Ok(some_reply(&mut random)));
    fuzz_frame(&bytes);
    fuzz_changed(&mut random, &bytes);
}

/// The frame with other bytes in its envelope and in its payload.
fn fuzz_changed(random: &mut Random, bytes: &[u8]) {
    let frame = whole(bytes);
    let (mut envelope, mut payload) = (frame.envelope.to_vec(), frame.payload.to_vec());
    for _ in 0..random.range(1..=4) {
        let at = random.index(envelope.len());
        envelope[at] = *random.pick(&[0, 1, 4, 8, 0x7F, 0x80, 0xFF]);
    }
    if !payload.is_empty() && random.chance(0.3) {
        let at = random.index(payload.len());
        payload[at] ^= 1 << random.index(8);
    }
    fuzz_envelope(&envelope, &payload);
}

fn some_receipt(random: &mut Random) -> Receipt {
    Receipt {
        key: some_key(random),
        offset: QueueOffset(random.number()),
        leased_at: Timestamp(random.number()),
        lease_until: Timestamp(random.number()),
    }
}

fn some_half_receipt(random: &mut Random) -> HalfReceipt {
    HalfReceipt { key: some_key(random), position: LogPosition(random.number()) }
}

fn some_location(random: &mut Random) -> RecordLocation {
    RecordLocation { position: LogPosition(random.number()), index: random.number() as u16 }
}

fn some_key(random: &mut Random) -> QueueKey {
    QueueKey { topic: TopicId(random.range(0..4) as u32), queue: QueueNumber(random.number() as u32) }
}

fn some_duration(random: &mut Random) -> Duration {
    Duration::from_millis(random.range(0..100_000_000))
}

fn some_settings(random: &mut Random) -> GroupSettings {
    GroupSettings {
        group: generators::group_name(random),
        deliveries_max: random.chance(0.5).then(|| random.number() as u32),
        lease: random.chance(0.5).then(|| some_duration(random)),
        ordered_lease: random.chance(0.5).then(|| some_duration(random)),
    }
}

fn some_reply(random: &mut Random) -> Reply {
    let records = generators::messages(random, 4, 100);
    let record = |message: &generators::Message| {
        let mut record = Vec::new();
        message.as_record().encode(&mut record);
        record.into()
    };
    match random.index(10) {
        7 => Reply::Slow((0..random.index(4)).map(|_| some_slow(random)).collect()),
        8 => Reply::Latency(LatencyInfo { kinds: (0..random.index(4)).map(|_| some_kind(random)).collect() }),
        0 => Reply::Received(
            records
                .iter()
                .map(|message| ReceivedMessage {
                    receipt: some_receipt(random),
                    location: random.chance(0.5).then(|| some_location(random)),
                    record: record(message),
                    born_time: Timestamp(random.number()),
                    store_time: Timestamp(random.number()),
                    first_delivery: Timestamp(random.number()),
                    deliveries: random.number() as u32,
                })
                .collect(),
        ),
        1 => Reply::Halves(
            records
                .iter()
                .map(|message| HalfMessage {
                    receipt: some_half_receipt(random),
                    record: record(message),
                    born_time: Timestamp(random.number()),
                    store_time: Timestamp(random.number()),
                    first_check: Timestamp(random.number()),
                    next_check: Timestamp(random.number()),
                    checks: random.number() as u32,
                })
                .collect(),
        ),
        2 => {
            let all = [ReceiptOutcome::Acknowledged, ReceiptOutcome::NotLeased, ReceiptOutcome::Failed];
            let count = random.index(20);
            Reply::Acknowledged((0..count).map(|_| *random.pick(&all)).collect())
        }
        3 => Reply::LeaseChanged(some_receipt(random)),
        4 => Reply::GroupSettings(some_settings(random)),
        5 => Reply::Redriven(some_redrive_report(random)),
        6 => {
            let range = |random: &mut Random| QueueOffset(random.number())..QueueOffset(random.number());
            Reply::RedrivenRanges(RedrivenRanges {
                ranges: (0..random.index(20)).map(|_| range(random)).collect(),
                next: random.chance(0.5).then(|| QueueOffset(random.number())),
                moving: random.chance(0.5).then(|| QueueOffset(random.number())),
            })
        }
        _ => Reply::Held(Held {
            receipt: some_half_receipt(random),
            position: LogPosition(random.number()),
            store_time: Timestamp(random.number()),
            level: *random.pick(&Level::ALL),
            due: Some(Timestamp(9)),
            offset: Some(QueueOffset(u64::MAX)),
        }),
    }
}

fn some_redrive_report(random: &mut Random) -> RedriveReport {
    let outcome = |random: &mut Random| match random.index(3) {
        0 => Redriven::Moved {
            queue: QueueNumber(random.number() as u32),
            offset: QueueOffset(random.number()),
        },
        1 => Redriven::Before,
        _ => Redriven::Gone,
    };
    RedriveReport {
        outcomes: (0..random.index(20)).map(|_| outcome(random)).collect(),
        stopped: random.chance(0.5).then(|| Failure::new(Status::Busy, "try again")),
    }
}

fn some_slow(random: &mut Random) -> SlowRequest {
    let mut times = StageTimes::default();
    RequestStage::ALL.iter().for_each(|stage| times.set(*stage, some_duration(random)));
    let key = some_key(random);
    SlowRequest {
        shard: ShardId(random.number() as u16),
        answered: Timestamp(random.number()),
        protocol: *random.pick(&RequestProtocol::ALL),
        kind: "produce".to_owned(),
        topic: random.chance(0.5).then(|| generators::topic_name(random)),
        queue: random.chance(0.5).then_some(key.queue),
        offset: random.chance(0.5).then(|| QueueOffset(random.number())),
        client: random.chance(0.5).then(|| Ipv6Addr::from(u128::from(random.number())).into()),
        times,
        meanwhile: vec![(*random.pick(&Activity::ALL), some_duration(random))],
    }
}

fn some_kind(random: &mut Random) -> KindLatency {
    let mut histogram = |stage: &str| HistogramInfo {
        stage: stage.to_owned(),
        count: random.number(),
        p50_ns: random.number(),
        p90_ns: random.number(),
        p99_ns: random.number(),
        p99_9_ns: random.number(),
        p99_99_ns: random.number(),
        max_ns: random.number(),
    };
    KindLatency {
        total: histogram("total"),
        stages: RequestStage::ALL.map(|stage| (Duration::ZERO, histogram(stage.name()))).to_vec(),
        protocol: *random.pick(&RequestProtocol::ALL),
        kind: "pull".to_owned(),
        mean: some_duration(random),
        curve: vec![(0.5, some_duration(random)), (1.0, some_duration(random))],
    }
}

fn fuzz_request(frame: &Frame<'_>) {
    let mut output = Vec::new();
    let mut encoder = RequestEncoder::new();
    match decode_request(frame) {
        Err(failure) => assert!(!failure.message.is_empty(), "a refusal says why"),
        Ok(DecodedRequest::Produce { key, level, batch }) => {
            if encoder.begin_produce(&mut output, 7, key, level, batch.len()).is_ok() {
                output.extend_from_slice(batch);
                let again = whole(&output);
                assert!(matches!(
                    decode_request(&again),
                    Ok(DecodedRequest::Produce { key: key_again, level: level_again, batch: batch_again })
                        if (key, level, batch) == (key_again, level_again, batch_again)
                ));
            }
        }
        Ok(DecodedRequest::ProduceCopies { key, level, at, batch }) => {
            if encoder.begin_copies(&mut output, 7, (key, level, at), batch.len()).is_ok() {
                output.extend_from_slice(batch);
                let again = decode_request(&whole(&output)).expect("what was understood is again");
                let DecodedRequest::ProduceCopies {
                    key: key_again,
                    level: level_again,
                    at: at_again,
                    batch: batch_again,
                } = again
                else {
                    panic!("copies became {again:?}")
                };
                assert_eq!((key, level, at, batch), (key_again, level_again, at_again, batch_again));
            }
        }
        Ok(DecodedRequest::Prove(prove)) => {
            encoder.encode_prove(&mut output, 7, &prove).expect("what fitted a frame fits it again");
            let again = decode_request(&whole(&output));
            assert!(matches!(again, Ok(DecodedRequest::Prove(again)) if again == prove));
        }
        Ok(DecodedRequest::Other(request)) => {
            encoder.encode(&mut output, 7, &request).expect("what fitted a frame fits it again");
            let again =
                decode_request(&whole(&output)).expect("a request that was understood is well formed");
            let DecodedRequest::Other(again) = again else { panic!("{request:?} became a produce") };
            assert_same(&request, &again);
        }
    }
}

fn fuzz_reply(frame: &Frame<'_>) {
    if let Ok(Ok(proof)) = decode_proved(frame) {
        let mut output = Vec::new();
        ReplyEncoder::new().encode_proved(&mut output, 7, &proof);
        assert_eq!(decode_proved(&whole(&output)), Ok(Ok(proof)));
    }
    let Ok(reply) = decode_reply(frame).map(DecodedReply::into_owned) else { return };
    let mut output = Vec::new();
    ReplyEncoder::new().encode(&mut output, 7, &reply);
    let again = decode_reply(&whole(&output)).expect("this program wrote it").into_owned();
    // A foreign encoder may share what ours repeats, and then the answer becomes one that says it is too large; and a
    // failure's message is shortened.
    if let (Ok(reply), Ok(again)) = (&reply, &again) {
        assert_eq!(reply, again);
    }
}

fn assert_same(left: &Request, right: &Request) {
    assert_eq!(format!("{left:?}"), format!("{right:?}"));
}

fn whole(bytes: &[u8]) -> Frame<'_> {
    frame::cut(bytes).expect("this program wrote it").expect("it is complete")
}
