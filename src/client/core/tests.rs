//! The core against literal bytes.

use super::*;
use crate::api::{Produced, Reply};
use crate::protocol::native::ReplyEncoder;
use crate::types::{LogPosition, QueueNumber, QueueOffset, Timestamp, TopicId};

/// A broker's that does not say who it is.
const PREFACE: &[u8] = b"\xF5TPN\x01\x00\x00\x00";
/// A client's, which asks.
const ASKING: &[u8] = b"\xF5TPN\x01\x00\x01\x00";

/// `ListTopics` as it leaves first on a connection.
#[rustfmt::skip]
const LIST_TOPICS: &[u8] = &[
    // the frame has 48 bytes, 32 of them envelope; correlation 1
    0x30, 0, 0, 0,  0x20, 0, 0, 0,  1, 0, 0, 0, 0, 0, 0, 0,
    // the root is at 12; its vtable: 8 bytes, a table of 12, `body_type` at 7, `body` at 8
    0xC, 0, 0, 0,  8, 0, 0xC, 0, 7, 0, 8, 0,
    // the root: its vtable lies 8 before; kind 8; its body lies 8 after
    8, 0, 0, 0,  0, 0, 0, 8,  8, 0, 0, 0,
    // the body's vtable: 4 bytes, a table of 4; the body, without fields
    4, 0, 4, 0,  4, 0, 0, 0,
];

fn reply(correlation: u64, reply: Result<Reply, Failure>) -> Vec<u8> {
    let mut bytes = Vec::new();
    ReplyEncoder::new().encode(&mut bytes, correlation, &reply);
    bytes
}

fn greeted() -> ProtocolCore {
    let mut core = ProtocolCore::new();
    core.feed(PREFACE);
    core
}

fn key() -> QueueKey {
    QueueKey { topic: TopicId(1), queue: QueueNumber(0) }
}

#[test]
fn a_connection_begins_with_the_preface() {
    let mut core = ProtocolCore::new();
    assert_eq!(core.outgoing(), ASKING);
    core.submit(&Request::ListTopics).expect("there is room");
    assert!(core.outgoing().starts_with(ASKING));
    assert_eq!(core.outgoing()[8..], *LIST_TOPICS);
    core.sent(3);
    assert!(core.outgoing().starts_with(&ASKING[3..]));
    core.sent(core.outgoing().len());
    assert!(core.outgoing().is_empty());
}

#[test]
fn who_answers_is_known_when_all_of_it_has_come() {
    let identity = Identity { node: crate::types::NodeId(77), shard: crate::types::ShardId(5) };
    let bytes = frame::introduction(identity);
    let mut core = ProtocolCore::new();
    for byte in bytes {
        assert!(!core.is_greeted());
        core.feed(&[byte]);
        assert_eq!(core.has_reply(), Ok(false));
    }
    assert_eq!((core.is_greeted(), core.identity()), (true, Some(identity)));
    let mut silent = greeted();
    assert_eq!(silent.has_reply(), Ok(false));
    assert_eq!((silent.is_greeted(), silent.identity()), (true, None));
}

#[test]
fn answers_come_in_any_order_and_in_pieces_of_any_size() {
    let mut bytes = PREFACE.to_vec();
    for correlation in [2, 3, 1] {
        bytes.extend(reply(correlation, Ok(Reply::Offset(Some(QueueOffset(correlation))))));
    }
    for size in 1..bytes.len() {
        let mut core = ProtocolCore::new();
        for _ in 0..3 {
            core.submit(&Request::ListTopics).expect("there is room");
        }
        let mut order = Vec::new();
        for piece in bytes.chunks(size) {
            core.feed(piece);
            while let Some((correlation, answer)) = core.next_reply().expect("well formed") {
                assert_eq!(answer.into_owned(), Ok(Reply::Offset(Some(QueueOffset(correlation.0)))));
                order.push(correlation.0);
            }
        }
        assert_eq!(order, [2, 3, 1], "pieces of {size}");
        assert_eq!(core.in_flight(), 0);
    }
}

#[test]
fn a_produce_can_leave_from_where_its_batch_is() {
    let batch = vec![7; 1000];
    let mut whole = ProtocolCore::new();
    whole.submit_produce(key(), Some(Level::Written), &batch).expect("there is room");
    let mut parts = ProtocolCore::new();
    parts.begin_produce(key(), Some(Level::Written), batch.len()).expect("there is room");
    let head = parts.outgoing().to_vec();
    parts.sent(head.len());
    parts.append(&batch[400..]);
    let sent = [&head[..], &batch[..400], parts.outgoing()].concat();
    assert_eq!(sent, whole.outgoing());
}

#[test]
fn another_version_and_another_protocol_are_told_apart() {
    for (bytes, error) in
        [(b"\xF5TPN\x02\x00\x00\x00", FrameError::Version(2)), (b"HTTP/1.1", FrameError::Magic)]
    {
        let mut core = ProtocolCore::new();
        core.feed(bytes);
        assert_eq!(core.has_reply(), Err(CoreError::Frame(error)));
        assert_eq!(core.has_reply(), Err(CoreError::Frame(error)), "for good");
        assert!(!core.is_greeted());
    }
}

#[test]
fn answers_nobody_asked_for_end_the_connection() {
    let mut core = greeted();
    core.feed(&reply(5, Ok(Reply::Done)));
    assert_eq!(core.next_reply(), Err(CoreError::Unasked(5)));
    let mut core = greeted();
    let failure = Failure::new(Status::ShuttingDown, "the broker stops");
    core.feed(&reply(0, Err(failure.clone())));
    assert_eq!(core.next_reply(), Err(CoreError::Closing(failure)));
}

#[test]
fn an_answer_twice_is_one_too_many() {
    let mut core = greeted();
    let asked = core.submit(&Request::ListTopics).expect("there is room");
    core.feed(&reply(asked.0, Ok(Reply::Done)));
    core.feed(&reply(asked.0, Ok(Reply::Done)));
    assert!(core.next_reply().expect("the first").is_some());
    assert_eq!(core.next_reply(), Err(CoreError::Unasked(asked.0)));
}

#[test]
fn no_truncation_and_no_flipped_bit_panics() {
    let produced = Produced {
        base_offset: QueueOffset(1),
        position: LogPosition(2),
        store_time: Timestamp(3),
        level: Level::Durable,
    };
    let mut bytes = PREFACE.to_vec();
    bytes.extend(reply(1, Ok(Reply::Produced(produced))));
    for bit in 0..bytes.len() * 8 {
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        let mut core = ProtocolCore::new();
        core.submit(&Request::ListTopics).expect("there is room");
        core.feed(&flipped);
        while let Ok(Some(_)) = core.next_reply() {}
    }
}

#[test]
fn the_last_answers_payload_stays_while_more_is_read() {
    let mut core = greeted();
    let fetched = |byte: u8, count: usize| {
        Ok(Reply::Fetched(crate::api::Fetched {
            batches: vec![byte; count],
            next_offset: QueueOffset(0),
            first_offset: QueueOffset(0),
            end_offset: QueueOffset(0),
            damaged: None,
        }))
    };
    for _ in 0..2 {
        core.submit(&Request::ListTopics).expect("there is room");
    }
    core.feed(&reply(1, fetched(1, 100_000)));
    assert!(core.next_reply().expect("well formed").is_some());
    core.feed(&reply(2, fetched(2, 3_000_000)));
    assert_eq!(core.last_payload(), vec![1; 100_000]);
    assert!(core.next_reply().expect("well formed").is_some());
    assert_eq!(core.last_payload(), vec![2; 3_000_000]);
    assert!(core.next_reply().expect("well formed").is_none());
    assert!(core.last_payload().is_empty());
}

#[test]
fn what_waits_is_bounded() {
    let mut core = greeted();
    for _ in 0..IN_FLIGHT_MAX {
        core.submit(&Request::ListTopics).expect("there is room");
    }
    assert_eq!(core.submit(&Request::ListTopics).expect_err("one too many").status, Status::Busy);
    let mut core = greeted();
    let batch = vec![0; 4 * 1024 * 1024];
    let taken = (0..100).take_while(|_| core.submit_produce(key(), None, &batch).is_ok()).count();
    assert_eq!(taken, 4);
    let before = core.outgoing().len();
    assert!(core.submit(&Request::ListTopics).is_err());
    assert_eq!(core.outgoing().len(), before, "what is refused leaves nothing behind");
}

/// A client with a key, and a broker's introduction to it.
fn challenged() -> (ProtocolCore, Identity, [u8; 32]) {
    let credentials = Credentials::new("shop", "hunter2".to_owned()).expect("a key");
    let mut core = ProtocolCore::with_credentials(Some(credentials));
    assert_eq!(core.outgoing(), frame::proving_preface());
    core.sent(core.outgoing().len());
    let identity = Identity { node: crate::types::NodeId(77), shard: crate::types::ShardId(5) };
    for byte in frame::challenging_introduction(identity, &[3; 32]) {
        assert!(!core.is_greeted());
        core.feed(&[byte]);
        assert_eq!(core.has_reply(), Ok(false));
    }
    assert!(core.is_greeted() && core.identity() == Some(identity));
    (core, identity, [3; 32])
}

/// The proof that a client sends, and a broker's answer to it with this secret.
fn proved(core: &mut ProtocolCore, identity: Identity, challenge: &[u8; 32], secret: &str) -> Vec<u8> {
    use crate::protocol::native::{DecodedRequest, ProofContext, decode_request};
    let frame = frame::cut(core.outgoing()).expect("well formed").expect("whole");
    let Ok(DecodedRequest::Prove(prove)) = decode_request(&frame) else { panic!("no proof") };
    let context = ProofContext { identity, challenge, nonce: &prove.nonce, key_id: &prove.key_id };
    assert!(context.is_clients(&"hunter2".parse().expect("any text"), &prove.proof));
    let proof = context.broker_proof(&secret.parse().expect("any text"));
    let mut bytes = Vec::new();
    ReplyEncoder::new().encode_proved(&mut bytes, frame.correlation, &proof);
    let count = core.outgoing().len();
    core.sent(count);
    bytes
}

#[test]
fn a_key_is_proved_to_a_broker_that_asks_and_requests_follow() {
    let (mut core, identity, challenge) = challenged();
    assert_eq!(core.begin_proof(), Ok(true));
    assert_eq!(core.begin_proof(), Ok(false), "a challenge is for one proof");
    let answer = proved(&mut core, identity, &challenge, "hunter2");
    for byte in answer {
        assert!(core.awaits_proof());
        core.feed(&[byte]);
        assert_eq!(core.has_reply(), Ok(false));
    }
    assert!(!core.awaits_proof());
    let asked = core.submit(&Request::ListTopics).expect("there is room");
    core.feed(&reply(asked.0, Ok(Reply::Done)));
    let (correlation, _) = core.next_reply().expect("well formed").expect("an answer");
    assert_eq!(correlation, asked);
}

#[test]
fn a_broker_that_does_not_have_the_secret_is_found_out() {
    let (mut core, identity, challenge) = challenged();
    assert_eq!(core.begin_proof(), Ok(true));
    let answer = proved(&mut core, identity, &challenge, "guessed");
    core.feed(&answer);
    assert_eq!(core.has_reply(), Err(CoreError::Impostor("shop".into())));
}

#[test]
fn a_proof_that_is_not_believed_is_the_end_with_the_brokers_words() {
    let (mut core, identity, challenge) = challenged();
    assert_eq!(core.begin_proof(), Ok(true));
    proved(&mut core, identity, &challenge, "hunter2");
    let failure = Failure::new(Status::Unauthenticated, "no such key");
    core.feed(&reply(1, Err(failure.clone())));
    assert_eq!(core.has_reply(), Err(CoreError::NotProved(failure)));
}

#[test]
fn a_broker_without_keys_asks_for_no_proof() {
    let credentials = Credentials::new("shop", "hunter2".to_owned()).expect("a key");
    let mut core = ProtocolCore::with_credentials(Some(credentials));
    core.feed(PREFACE);
    assert_eq!(core.has_reply(), Ok(false));
    assert_eq!(core.begin_proof(), Ok(false));
    assert!(!core.awaits_proof());
}
