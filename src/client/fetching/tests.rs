//! Answers by hand.

use super::*;
use crate::api::DamagedBytes;
use crate::limits;
use crate::types::{LogPosition, QueueNumber, Timestamp, TopicId};
use crate::wire::batch::{BatchBuilder, CheckedBatch, Placing};
use crate::wire::record::Record;

fn key(queue: u32) -> QueueKey {
    QueueKey { topic: TopicId(1), queue: QueueNumber(queue) }
}

fn fetcher(shard_count: u16) -> Fetcher {
    let limits = FetchLimits { bytes_max: 1000, records_max: 10, wait: Duration::from_secs(10) };
    Fetcher::new(limits, shard_count)
}

fn add(fetcher: &mut Fetcher, queue: u32, from: u64, stop_at: Option<u64>) {
    let topic = "orders".parse().expect("a good name");
    fetcher.add(key(queue), topic, QueueOffset(from), stop_at.map(QueueOffset));
}

/// A stored batch of `count` records from `base` on.
fn batch(queue: u32, base: u64, count: u64) -> Vec<u8> {
    let mut builder = BatchBuilder::new(Timestamp(0));
    (0..count).for_each(|_| builder.push(&Record { body: b"body", ..Record::default() }));
    let bytes = builder.finish();
    let checked = CheckedBatch::check(&bytes).expect("just built");
    let placing = Placing {
        continues: false,
        position: LogPosition(0),
        previous_end: LogPosition(0),
        flushed_end: LogPosition(0),
        epoch: 1,
        key: key(queue),
        base_offset: QueueOffset(base),
        store_time: Timestamp(0),
    };
    let mut stored = checked.placed_header(&placing).to_vec();
    stored.extend_from_slice(checked.payload());
    stored
}

fn payload(batches: &[Vec<u8>]) -> Vec<u8> {
    let mut payload = Vec::new();
    for batch in batches {
        payload.resize(payload.len().next_multiple_of(BATCH_ALIGNMENT), 0);
        payload.extend_from_slice(batch);
    }
    payload
}

fn view(batches: &[u8], next_offset: u64) -> FetchedView<'_> {
    FetchedView {
        batches,
        next_offset: QueueOffset(next_offset),
        first_offset: QueueOffset(0),
        end_offset: QueueOffset(1_000),
        damaged: None,
    }
}

/// Sends the next fetch under `correlation` and returns its offset.
fn ask(fetcher: &mut Fetcher, shard: usize, correlation: u64) -> (u32, u64) {
    let ask = fetcher.next_ask(shard, Instant::now()).expect("a queue has nothing on its way");
    fetcher.asked(shard, &ask, Correlation(correlation));
    let Ask::Fetch(fetch) = ask else { panic!("{ask:?}") };
    (fetch.key.queue.0, fetch.offset.0)
}

fn answer(fetcher: &mut Fetcher, correlation: u64, view: &FetchedView<'_>) -> Answered {
    fetcher.answered(0, Correlation(correlation), Ok(view), Instant::now())
}

/// Offsets of all batches of the current answer.
fn drain(fetcher: &mut Fetcher, payload: &[u8]) -> Result<Vec<(u64, u64)>, String> {
    let mut offsets = Vec::new();
    while let Some(cut) = fetcher.next_batch(payload)? {
        offsets.push((cut.first_offset.0, cut.end_offset.0));
    }
    Ok(offsets)
}

#[test]
fn the_next_fetch_leaves_before_the_answer_is_used() {
    let mut fetcher = fetcher(1);
    add(&mut fetcher, 0, 3, None);
    assert_eq!(ask(&mut fetcher, 0, 1), (0, 3));
    assert!(fetcher.next_ask(0, Instant::now()).is_none(), "one at a time");
    let bytes = payload(&[batch(0, 0, 5), batch(0, 5, 2)]);
    assert!(matches!(answer(&mut fetcher, 1, &view(&bytes, 7)), Answered::Batches));
    assert_eq!(ask(&mut fetcher, 0, 2), (0, 7));
    assert_eq!(fetcher.delivered(key(0)), Some(QueueOffset(3)));
    assert_eq!(
        drain(&mut fetcher, &bytes),
        Ok(vec![(3, 5), (5, 7)]),
        "what lies below the asked offset is cut"
    );
    assert_eq!(fetcher.delivered(key(0)), Some(QueueOffset(7)));
}

#[test]
fn a_lost_connection_asks_again_for_what_was_not_delivered() {
    let mut fetcher = fetcher(1);
    add(&mut fetcher, 0, 0, None);
    ask(&mut fetcher, 0, 1);
    let bytes = payload(&[batch(0, 0, 5), batch(0, 5, 2)]);
    answer(&mut fetcher, 1, &view(&bytes, 7));
    ask(&mut fetcher, 0, 2);
    assert!(fetcher.next_batch(&bytes).expect("well formed").is_some());
    fetcher.lost(0);
    assert!(fetcher.next_batch(&bytes).expect("nothing to read").is_none());
    assert_eq!(ask(&mut fetcher, 0, 3), (0, 5));
    assert!(matches!(answer(&mut fetcher, 2, &view(&bytes, 7)), Answered::Nothing), "an answer of old");
}

#[test]
fn gaps_repeats_strangers_and_short_answers_are_breaches() {
    let cases: [(&str, Vec<u8>, u64); 5] = [
        ("a gap", payload(&[batch(0, 0, 5), batch(0, 6, 1)]), 7),
        ("a repeat", payload(&[batch(0, 0, 5), batch(0, 0, 5)]), 5),
        ("a later start", payload(&[batch(0, 1, 5)]), 6),
        ("another queue's", payload(&[batch(1, 0, 5)]), 5),
        ("an end before the end", payload(&[batch(0, 0, 5)]), 6),
    ];
    for (what, bytes, next_offset) in cases {
        let mut fetcher = fetcher(1);
        add(&mut fetcher, 0, 0, None);
        ask(&mut fetcher, 0, 1);
        answer(&mut fetcher, 1, &view(&bytes, next_offset));
        assert!(drain(&mut fetcher, &bytes).is_err(), "{what}");
    }
}

#[test]
fn no_truncation_and_no_flipped_bit_of_an_answer_panics_or_passes() {
    let bytes = payload(&[batch(0, 0, 3), batch(0, 3, 2)]);
    let read = |bytes: &[u8]| {
        let mut fetcher = fetcher(1);
        add(&mut fetcher, 0, 0, None);
        ask(&mut fetcher, 0, 1);
        if !matches!(answer(&mut fetcher, 1, &view(bytes, 5)), Answered::Batches) {
            return false;
        }
        let mut intact = true;
        loop {
            match fetcher.next_batch(bytes) {
                Ok(Some(cut)) => intact &= cut.intact,
                Ok(None) => return intact,
                Err(_) => return false,
            }
        }
    };
    assert!(read(&bytes));
    for end in 0..bytes.len() {
        assert!(!read(&bytes[..end]), "cut at {end}");
    }
    let first_bytes = batch(0, 0, 3).len();
    for bit in 0..bytes.len() * 8 {
        // Between the batches there is padding.
        if (first_bytes..first_bytes.next_multiple_of(BATCH_ALIGNMENT)).contains(&(bit / 8)) {
            continue;
        }
        let mut flipped = bytes.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(!read(&flipped), "bit {bit}");
    }
}

#[test]
fn reading_stops_where_it_is_told() {
    let mut fetcher = fetcher(1);
    add(&mut fetcher, 0, 0, Some(4));
    add(&mut fetcher, 1, 9, Some(9));
    assert!(!fetcher.is_done());
    assert_eq!(ask(&mut fetcher, 0, 1), (0, 0));
    assert!(fetcher.next_ask(0, Instant::now()).is_none(), "queue 1 is at its end");
    let bytes = payload(&[batch(0, 0, 3), batch(0, 3, 3)]);
    answer(&mut fetcher, 1, &view(&bytes, 6));
    assert_eq!(drain(&mut fetcher, &bytes), Ok(vec![(0, 3), (3, 4)]));
    assert!(fetcher.is_done());
}

#[test]
fn damage_moves_on_whatever_the_broker_says() {
    for (says, to) in [(8, 8), (0, 4)] {
        let mut fetcher = fetcher(1);
        add(&mut fetcher, 0, 3, None);
        ask(&mut fetcher, 0, 1);
        let damaged = DamagedBytes { file: "log".to_owned(), position: 1 };
        let view = FetchedView { damaged: Some(damaged), ..view(&[], says) };
        let Answered::Damaged(range) = answer(&mut fetcher, 1, &view) else { panic!("damage") };
        assert_eq!((range.from, range.to), (QueueOffset(3), QueueOffset(to)));
        assert_eq!(ask(&mut fetcher, 0, 2), (0, to));
    }
}

#[test]
fn a_refused_queue_pauses() {
    let mut fetcher = fetcher(1);
    add(&mut fetcher, 0, 0, None);
    ask(&mut fetcher, 0, 1);
    let now = Instant::now();
    let failure = Failure::new(Status::TopicNotExist, "gone");
    assert!(matches!(fetcher.answered(0, Correlation(1), Err(failure), now), Answered::Refused(_)));
    assert!(fetcher.next_ask(0, Instant::now()).is_none());
    let until = fetcher.next_deadline().expect("a pause");
    fetcher.resume_due(until);
    assert_eq!(ask(&mut fetcher, 0, 2), (0, 0));
    let failure = Failure::new(Status::Busy, "later");
    assert!(matches!(fetcher.answered(0, Correlation(2), Err(failure), now), Answered::Nothing));
}

#[test]
fn a_queue_given_up_gets_no_late_answer() {
    let mut fetcher = fetcher(1);
    add(&mut fetcher, 0, 0, None);
    ask(&mut fetcher, 0, 1);
    fetcher.remove(key(0));
    assert_eq!(fetcher.in_flight(0), 1);
    add(&mut fetcher, 0, 50, None);
    let bytes = payload(&[batch(0, 0, 5)]);
    assert!(matches!(answer(&mut fetcher, 1, &view(&bytes, 5)), Answered::Nothing));
    assert_eq!(ask(&mut fetcher, 0, 2), (0, 50));
    assert_eq!(fetcher.in_flight(0), 1);
}

#[test]
fn a_seek_leaves_the_old_answer_behind() {
    let mut fetcher = fetcher(1);
    add(&mut fetcher, 0, 0, None);
    ask(&mut fetcher, 0, 1);
    fetcher.seek(key(0), QueueOffset(9));
    assert_eq!(ask(&mut fetcher, 0, 2), (0, 9));
    let bytes = payload(&[batch(0, 0, 5)]);
    assert!(matches!(answer(&mut fetcher, 1, &view(&bytes, 5)), Answered::Nothing));
    assert_eq!(fetcher.delivered(key(0)), Some(QueueOffset(9)));
}

/// The queues of the next watch.
fn watch(fetcher: &mut Fetcher, correlation: u64, now: Instant) -> Option<Vec<u32>> {
    let ask = fetcher.next_ask(0, now)?;
    fetcher.asked(0, &ask, Correlation(correlation));
    let Ask::Watch(watch) = ask else { panic!("{ask:?}") };
    Some(watch.queues.iter().map(|(key, _)| key.queue.0).collect())
}

#[test]
fn more_queues_than_may_wait_are_watched() {
    let now = Instant::now();
    let mut fetcher = fetcher(1);
    let count = limits::WATCH_QUEUES_MAX as u32 + FETCHES_IN_FLIGHT_MAX as u32 + 7;
    (0..count).for_each(|queue| add(&mut fetcher, queue, 0, None));
    // The first ones were to wait each for itself, before the others came.
    for correlation in 0..FETCHES_BESIDE_WATCHES_MAX as u64 {
        let ask = fetcher.next_ask(0, now).expect("queues were added");
        assert!(matches!(ask, Ask::Fetch(fetch) if fetch.wait.is_zero()));
        fetcher.asked(0, &ask, Correlation(correlation));
    }
    assert_eq!(watch(&mut fetcher, 1_000, now).map(|queues| queues.len()), Some(limits::WATCH_QUEUES_MAX));
    assert_eq!(watch(&mut fetcher, 1_001, now), None, "others may join the rest");
    for correlation in 0..FETCHES_IN_FLIGHT_MAX as u64 {
        answer(&mut fetcher, correlation, &view(&[], 0));
        if let Some(ask) = fetcher.next_ask(0, now) {
            fetcher.asked(0, &ask, Correlation(correlation + FETCHES_BESIDE_WATCHES_MAX as u64));
            assert!(matches!(ask, Ask::Fetch(_)) || correlation + 1 == FETCHES_IN_FLIGHT_MAX as u64);
        }
    }
    assert!(fetcher.next_ask(0, now).is_none(), "every queue is in one of two watches");
    assert_eq!(fetcher.in_flight(0), 2);
    let ready = vec![key(300), key(999_999)];
    assert!(matches!(fetcher.watched(0, Correlation(1_000), Ok(ready), now), Answered::Nothing));
    assert_eq!(ask(&mut fetcher, 0, 2_000), (300, 0));
    let bytes = payload(&[batch(300, 0, 5)]);
    assert!(matches!(answer(&mut fetcher, 2_000, &view(&bytes, 5)), Answered::Batches));
    assert_eq!(drain(&mut fetcher, &bytes), Ok(vec![(0, 5)]));
    assert_eq!(ask(&mut fetcher, 0, 2_001), (300, 5));
    answer(&mut fetcher, 2_001, &view(&[], 5));
    assert_eq!(watch(&mut fetcher, 2_002, now).map(|queues| queues.len()), Some(limits::WATCH_QUEUES_MAX));
}

#[test]
fn a_lost_or_refused_watch_is_asked_again() {
    let now = Instant::now();
    let mut fetcher = fetcher(1);
    let count = FETCHES_IN_FLIGHT_MAX as u32 + 100;
    (0..count).for_each(|queue| add(&mut fetcher, queue, 0, None));
    // All of them come to be watched.
    fetcher.shards[0].idle.clear();
    fetcher.shards[0].watches.take_quiet();
    fetcher.lanes.values_mut().for_each(|lane| lane.listed = false);
    (0..count).for_each(|queue| fetcher.list(key(queue), Likely::No));
    assert_eq!(watch(&mut fetcher, 1, now).map(|queues| queues.len()), Some(count as usize));
    fetcher.lost(0);
    assert_eq!(fetcher.in_flight(0), 0);
    assert_eq!(watch(&mut fetcher, 2, now).map(|queues| queues.len()), Some(count as usize));
    fetcher.remove(key(5));
    fetcher.seek(key(6), QueueOffset(1));
    assert_eq!(ask(&mut fetcher, 0, 3), (6, 1));
    let busy = Failure::new(Status::Busy, "later");
    assert!(matches!(fetcher.watched(0, Correlation(2), Err(busy), now), Answered::Nothing));
    fetcher.resume_due(now + REFUSED_PAUSE);
    let mut asked = 0;
    while let Some(ask) = fetcher.next_ask(0, now) {
        asked += 1;
        fetcher.asked(0, &ask, Correlation(10 + asked));
    }
    assert_eq!(asked as usize + 1, FETCHES_BESIDE_WATCHES_MAX);
}

#[test]
fn queues_go_to_the_shard_that_owns_them() {
    let mut fetcher = fetcher(3);
    (0..6).for_each(|queue| add(&mut fetcher, queue, 0, None));
    for shard in 0..3 {
        assert_eq!(ask(&mut fetcher, shard, 1), (shard as u32, 0));
        assert_eq!(ask(&mut fetcher, shard, 2), (shard as u32 + 3, 0));
        assert!(fetcher.next_ask(shard, Instant::now()).is_none());
    }
}
