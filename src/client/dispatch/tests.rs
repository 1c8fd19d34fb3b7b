//! The rules of sending again, with answers given by hand.

use super::*;
use crate::types::{LogPosition, Timestamp};

struct Bench {
    dispatcher: Dispatcher,
    now: Now,
    last_correlation: u64,
}

fn busy() -> Result<Produced, Failure> {
    Err(Failure::new(Status::Busy, "not now"))
}

fn stored(offset: u64) -> Result<Produced, Failure> {
    Ok(Produced {
        base_offset: QueueOffset(offset),
        position: LogPosition(0),
        store_time: Timestamp(0),
        level: Level::Durable,
    })
}

impl Bench {
    /// One message per batch, so that a batch is named by the number of its message.
    fn new(queue_count: u32, shard_count: u16, options: ProducerOptions) -> Self {
        let options = ProducerOptions { batch_records: 1, ..options };
        let partitioner = Partitioner::new(queue_count, QueueNumber(0));
        Self {
            dispatcher: Dispatcher::new(options, TopicId(1), partitioner, shard_count),
            now: Now { monotonic: Instant::now(), wall: Timestamp(0) },
            last_correlation: 0,
        }
    }

    fn push(&mut self, queue: u32, count: usize) {
        for _ in 0..count {
            let message = Message { body: b"m", queue: Some(QueueNumber(queue)), ..Message::default() };
            self.dispatcher.push(&message, self.now).expect("a good message");
        }
    }

    /// Sends all that may leave; returns the first sequences in the order of leaving, with their correlations.
    fn send(&mut self, shard: usize) -> Vec<(u64, Correlation)> {
        let mut sent = Vec::new();
        while let Some(queue) = self.dispatcher.next_queue(shard, self.now.monotonic) {
            let waiting = &self.dispatcher.lanes[queue.0 as usize].waiting;
            let sequence = waiting.front().expect("there is a batch").first_sequence;
            self.last_correlation += 1;
            let correlation = Correlation(self.last_correlation);
            self.dispatcher.sent(queue, correlation);
            sent.push((sequence, correlation));
        }
        sent
    }

    fn answer(&mut self, correlation: Correlation, answer: Result<Produced, Failure>) {
        assert!(self.dispatcher.answered(0, correlation, answer, self.now.monotonic));
    }

    fn pass(&mut self, duration: Duration) {
        self.now.monotonic += duration;
        self.dispatcher.resume_due(self.now.monotonic);
    }

    fn results(&mut self) -> Vec<(u64, &'static str)> {
        let mut results = Vec::new();
        while let Some(result) = self.dispatcher.take_result() {
            results.push((
                result.first_sequence,
                match result.outcome {
                    BatchOutcome::Acknowledged { .. } => "acknowledged",
                    BatchOutcome::Refused(_) => "refused",
                    BatchOutcome::Unknown(_) => "unknown",
                },
            ));
        }
        results
    }
}

fn sequences(sent: &[(u64, Correlation)]) -> Vec<u64> {
    sent.iter().map(|&(sequence, _)| sequence).collect()
}

#[test]
fn batches_leave_in_order_up_to_the_window() {
    let mut bench = Bench::new(1, 1, ProducerOptions { in_flight: 3, ..Default::default() });
    bench.push(0, 5);
    let sent = bench.send(0);
    assert_eq!(sequences(&sent), [0, 1, 2]);
    bench.answer(sent[1].1, stored(1));
    assert_eq!(bench.dispatcher.acknowledged_prefix(), 0);
    bench.answer(sent[0].1, stored(0));
    assert_eq!(bench.dispatcher.acknowledged_prefix(), 2);
    let more = bench.send(0);
    assert_eq!(sequences(&more), [3, 4]);
    for (_, correlation) in sent[2..].iter().chain(&more) {
        bench.answer(*correlation, stored(2));
    }
    assert!(bench.dispatcher.is_idle());
    assert_eq!(bench.dispatcher.acknowledged_prefix(), 5);
    assert_eq!(bench.dispatcher.buffered_bytes, 0);
    assert_eq!(bench.results().len(), 5);
}

#[test]
fn refused_batches_go_again_in_order_after_a_pause_and_one_at_a_time() {
    let mut bench = Bench::new(1, 1, ProducerOptions { in_flight: 2, ..Default::default() });
    bench.push(0, 4);
    let sent = bench.send(0);
    assert_eq!(sequences(&sent), [0, 1]);
    bench.answer(sent[0].1, busy());
    assert!(bench.send(0).is_empty(), "rule 1: nothing leaves while one is in flight");
    bench.answer(sent[1].1, busy());
    assert!(bench.send(0).is_empty(), "rule 2: a pause");
    assert_eq!(bench.dispatcher.next_deadline(), Some(bench.now.monotonic + BACKOFF_MIN));
    bench.pass(BACKOFF_MIN);
    let again = bench.send(0);
    assert_eq!(sequences(&again), [0], "one at a time");
    bench.answer(again[0].1, stored(0));
    let rest = bench.send(0);
    assert_eq!(sequences(&rest), [1, 2], "the window opens with the first success");
    for (_, correlation) in rest {
        bench.answer(correlation, stored(1));
    }
    for (_, correlation) in bench.send(0) {
        bench.answer(correlation, stored(3));
    }
    assert_eq!(
        bench.results(),
        [(0, "acknowledged"), (1, "acknowledged"), (2, "acknowledged"), (3, "acknowledged")]
    );
    assert_eq!(bench.dispatcher.counters().retries, 2);
}

#[test]
fn an_overtaken_batch_is_reported_rather_than_stored_later() {
    for (order, expected) in [(RetryOrder::Keep, "refused"), (RetryOrder::Relax, "acknowledged")] {
        let mut bench = Bench::new(1, 1, ProducerOptions { order, ..Default::default() });
        bench.push(0, 2);
        let sent = bench.send(0);
        bench.answer(sent[0].1, busy());
        bench.answer(sent[1].1, stored(0));
        bench.pass(BACKOFF_MIN);
        for (_, correlation) in bench.send(0) {
            bench.answer(correlation, stored(1));
        }
        let mut results = bench.results();
        results.sort_unstable();
        assert_eq!(results, [(0, expected), (1, "acknowledged")], "{order:?}");
        let prefix = if order == RetryOrder::Keep { 0 } else { 2 };
        assert_eq!(bench.dispatcher.acknowledged_prefix(), prefix);
        assert!(bench.dispatcher.is_idle());
    }
}

#[test]
fn what_was_lost_goes_again_in_its_order_where_that_is_wanted() {
    let options = ProducerOptions { in_flight: 3, lost: LostBatches::SendAgain, ..Default::default() };
    let mut bench = Bench::new(2, 1, options);
    bench.push(0, 4);
    bench.push(1, 1);
    let sent = bench.send(0);
    assert_eq!(sent.iter().map(|(sequence, _)| *sequence).collect::<Vec<_>>(), [0, 4, 1]);
    bench.answer(sent[1].1, stored(0));
    bench.dispatcher.lost(0, "the cable", bench.now.monotonic);
    assert_eq!(bench.dispatcher.counters().repeated, 2);
    assert_eq!(bench.dispatcher.first_failure(), None);
    let mut again = Vec::new();
    while !bench.dispatcher.is_idle() {
        bench.pass(BACKOFF_MAX);
        for (sequence, correlation) in bench.send(0) {
            again.push(sequence);
            bench.answer(correlation, stored(sequence));
        }
    }
    assert_eq!(again, [0, 1, 2, 3], "before what comes after it");
    assert_eq!(bench.dispatcher.acknowledged_prefix(), 5);
}

#[test]
fn what_was_lost_and_is_refused_then_is_still_unknown() {
    let options = ProducerOptions { lost: LostBatches::SendAgain, ..Default::default() };
    let mut bench = Bench::new(1, 1, options);
    bench.push(0, 2);
    let sent = bench.send(0);
    assert_eq!(sent.len(), 2);
    bench.dispatcher.lost(0, "the cable", bench.now.monotonic);
    // A second loss counts nobody twice.
    bench.pass(BACKOFF_MAX);
    assert_eq!(bench.send(0).len(), 1);
    bench.dispatcher.lost(0, "the cable", bench.now.monotonic);
    assert_eq!(bench.dispatcher.counters().repeated, 2);
    bench.pass(BACKOFF_MAX);
    let gone = Err(Failure::new(Status::StorageFailed, "the disk"));
    for (_, correlation) in bench.send(0) {
        bench.answer(correlation, gone.clone());
    }
    assert_eq!(bench.results(), [(0, "unknown")]);
    assert_eq!(bench.dispatcher.counters().refused, 0);
}

#[test]
fn a_lost_connection_leaves_what_was_sent_unknown_and_the_rest_waiting() {
    let mut bench = Bench::new(2, 1, ProducerOptions { in_flight: 3, ..Default::default() });
    bench.push(0, 3);
    bench.push(1, 1);
    let sent = bench.send(0);
    assert_eq!(sent.len(), 3);
    bench.answer(sent[0].1, stored(0));
    let reached = bench.dispatcher.acknowledged_prefix();
    bench.dispatcher.lost(0, "the cable", bench.now.monotonic);
    let results = bench.results();
    assert_eq!(results.iter().filter(|(_, outcome)| *outcome == "unknown").count(), 2);
    assert_eq!(bench.dispatcher.counters().unknown, 2);
    let rest = bench.send(0);
    assert_eq!(rest.len(), 1);
    bench.answer(rest[0].1, stored(9));
    assert!(bench.dispatcher.is_idle());
    assert_eq!(bench.dispatcher.acknowledged_prefix(), reached, "an unknown batch holds the prefix for good");
    assert!(matches!(
        bench.dispatcher.first_failure().expect("two batches failed").outcome,
        BatchOutcome::Unknown(_)
    ));
}

#[test]
fn a_refused_batch_ahead_of_an_unknown_one_is_not_sent_after_it() {
    let mut bench = Bench::new(1, 1, ProducerOptions::default());
    bench.push(0, 2);
    let sent = bench.send(0);
    bench.answer(sent[0].1, busy());
    bench.dispatcher.lost(0, "the cable", bench.now.monotonic);
    let mut results = bench.results();
    results.sort_unstable();
    assert_eq!(results, [(0, "refused"), (1, "unknown")]);
}

#[test]
fn retries_end() {
    let retry_for = Duration::from_secs(2);
    let mut bench = Bench::new(1, 1, ProducerOptions { retry_for, ..Default::default() });
    bench.push(0, 1);
    let mut attempts = 0;
    while !bench.dispatcher.is_idle() {
        for (_, correlation) in bench.send(0) {
            attempts += 1;
            assert!(attempts < 20, "the pauses grow");
            bench.answer(correlation, busy());
        }
        bench.pass(BACKOFF_MAX);
    }
    assert!(attempts >= 3);
    assert_eq!(bench.results(), [(0, "refused")]);
}

/// On a disk that stayed full each waiting batch was tried for its own `retry_for`, one after the other, so that a small
/// file took hours to fail.
#[test]
fn the_batches_of_a_queue_share_one_patience() {
    let retry_for = Duration::from_secs(2);
    let mut bench = Bench::new(1, 1, ProducerOptions { retry_for, in_flight: 2, ..Default::default() });
    bench.push(0, 50);
    let mut attempts = 0;
    while !bench.dispatcher.is_idle() {
        for (_, correlation) in bench.send(0) {
            attempts += 1;
            assert!(attempts < 30, "the patience is not each batch's own");
            bench.answer(correlation, busy());
        }
        bench.pass(BACKOFF_MAX);
    }
    assert_eq!(bench.results().len(), 50);
}

#[test]
fn what_cannot_help_is_not_tried_again() {
    for (status, expected) in [
        (Status::InvalidArgument, "refused"),
        (Status::StorageFailed, "refused"),
        (Status::OutcomeUnknown, "unknown"),
        (Status::Internal, "unknown"),
    ] {
        let mut bench = Bench::new(1, 1, ProducerOptions::default());
        bench.push(0, 1);
        let sent = bench.send(0);
        bench.answer(sent[0].1, Err(Failure::new(status, "no")));
        assert_eq!(bench.results(), [(0, expected)], "{status:?}");
    }
}

#[test]
fn a_topic_made_anew_gets_the_batches_under_its_new_number() {
    let gone = || Err(Failure::new(Status::TopicNotExist, "no topic 1"));
    let mut bench = Bench::new(1, 1, ProducerOptions::default());
    bench.push(0, 1);
    let sent = bench.send(0);
    bench.answer(sent[0].1, gone());
    assert!(bench.dispatcher.take_stale_topic() && !bench.dispatcher.take_stale_topic());
    bench.dispatcher.set_topic(TopicId(2), 4);
    bench.pass(BACKOFF_MIN);
    let queue = bench.dispatcher.next_queue(0, bench.now.monotonic).expect("it goes again");
    assert_eq!(bench.dispatcher.front(queue).0.topic, TopicId(2));
    bench.dispatcher.sent(queue, Correlation(77));
    bench.answer(Correlation(77), gone());
    assert_eq!(bench.results(), [(0, "refused")], "once is enough");
}

#[test]
fn queues_do_not_hold_each_other_up() {
    let mut bench = Bench::new(2, 1, ProducerOptions { in_flight: 2, ..Default::default() });
    bench.push(0, 1);
    let refused = bench.send(0);
    bench.answer(refused[0].1, busy());
    bench.push(0, 1);
    bench.push(1, 3);
    assert_eq!(sequences(&bench.send(0)), [2, 3], "queue 0 pauses, queue 1 goes on");
}

#[test]
fn a_shard_has_its_own_window() {
    let mut bench = Bench::new(4, 2, ProducerOptions { in_flight: 1, ..Default::default() });
    for queue in 0..4 {
        bench.push(queue, 1);
    }
    assert_eq!(sequences(&bench.send(0)), [0]);
    assert_eq!(sequences(&bench.send(1)), [1]);
    bench.dispatcher.lost(1, "the cable", bench.now.monotonic);
    assert_eq!(sequences(&bench.send(1)), [3]);
    assert!(bench.send(0).is_empty());
}

#[test]
fn a_batch_leaves_when_it_has_lingered() {
    let linger = Duration::from_millis(5);
    let options = ProducerOptions { linger, ..Default::default() };
    let mut bench = Bench::new(2, 1, options);
    bench.dispatcher.limits.records = 100;
    bench.push(0, 3);
    bench.pass(Duration::from_millis(4));
    bench.push(1, 1);
    assert!(bench.send(0).is_empty());
    assert_eq!(bench.dispatcher.next_deadline(), Some(bench.now.monotonic + Duration::from_millis(1)));
    bench.pass(Duration::from_millis(1));
    assert_eq!(sequences(&bench.send(0)), [0]);
    bench.pass(linger);
    assert_eq!(sequences(&bench.send(0)), [3]);
}

#[test]
fn batches_fill_while_the_window_is_full() {
    for linger in [Duration::ZERO, Duration::from_millis(5)] {
        let mut bench = Bench::new(2, 1, ProducerOptions { linger, in_flight: 1, ..Default::default() });
        bench.dispatcher.limits.records = 100;
        bench.push(0, 1);
        bench.pass(linger);
        let sent = bench.send(0);
        assert_eq!(sequences(&sent), [0]);
        bench.push(1, 5);
        bench.pass(linger * 2);
        assert!(bench.send(0).is_empty());
        assert_eq!(bench.dispatcher.next_deadline(), None, "only an answer helps");
        bench.push(1, 5);
        bench.answer(sent[0].1, stored(0));
        let sent = bench.send(0);
        assert_eq!(sequences(&sent), [1]);
        bench.answer(sent[0].1, stored(1));
        assert_eq!(bench.dispatcher.counters().acknowledged, 11);
        assert_eq!(bench.results().len(), 2);
    }
}

#[test]
fn without_room_the_oldest_batches_leave_first() {
    let options = ProducerOptions {
        linger: Duration::from_secs(3600),
        buffered_bytes_max: 3_000,
        in_flight: 2,
        ..Default::default()
    };
    let mut bench = Bench::new(100, 1, options);
    bench.dispatcher.limits.records = 100;
    let mut queue = 0;
    while bench.dispatcher.has_buffer_space() {
        bench.push(queue, 1);
        queue += 1;
    }
    assert_eq!(sequences(&bench.send(0)), [0, 1]);
}

#[test]
fn notes_of_open_batches_do_not_pile_up() {
    let linger = Duration::from_secs(3600);
    let mut bench = Bench::new(2, 1, ProducerOptions { linger, in_flight: 4096, ..Default::default() });
    bench.dispatcher.limits.records = 2;
    bench.push(1, 1);
    for _ in 0..5_000 {
        bench.push(0, 2);
        for (_, correlation) in bench.send(0) {
            bench.answer(correlation, stored(0));
        }
    }
    assert!(bench.dispatcher.windows[0].lingering.len() < 100);
    bench.dispatcher.seal_all();
    assert_eq!(sequences(&bench.send(0)), [0]);
}

#[test]
fn a_message_for_no_queue_is_refused_and_not_counted() {
    let mut bench = Bench::new(2, 1, ProducerOptions::default());
    let message = Message { queue: Some(QueueNumber(2)), ..Message::default() };
    let failure = bench.dispatcher.push(&message, bench.now).expect_err("there are queues 0 and 1");
    assert_eq!(failure.status, Status::QueueNotExist);
    assert_eq!(bench.dispatcher.counters(), ProducerCounters::default());
}
