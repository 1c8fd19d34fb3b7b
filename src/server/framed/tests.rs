//! The engine under a protocol of lines, on a seeded executor, over a real pair of sockets.

pub mod lines;

use std::time::Duration;

use self::lines::{LINE_BYTES_MAX, Lines, Served};
use crate::limits;
use crate::server::context::OUTBOX_PAUSE_BYTES;
use crate::testing::SeededExecutor;
use crate::types::Account;

const SEEDS: std::ops::Range<u64> = 0..16;
/// Long enough for everything that does not wait for an event.
const SOON: Duration = Duration::from_millis(200);

/// A connection of the protocol of lines, and what is done with it, once for each seed.
fn for_each_seed(check: impl Fn(&SeededExecutor, &Served)) {
    for seed in SEEDS {
        let executor = SeededExecutor::new(seed);
        let served = Lines::serve(&executor);
        check(&executor, &served);
    }
}

#[test]
fn pipelined_requests_are_answered_when_they_are_due() {
    for_each_seed(|executor, served| {
        served.send(&["1 place", "2 echo apples", "3 place", "4 wait", "5 echo pears", "6 place"]);
        executor.run_for(SOON);
        assert_eq!(served.answers(), ["2 apples", "5 pears"], "what is placed waits for its level");
        assert_eq!(served.connection.unanswered.get(), 3, "a wait is not counted");
        served.lines.settle_up_to(2);
        executor.run_for(SOON);
        assert_eq!(served.answers(), ["1 placed", "3 placed"], "in the order in which they came");
        served.lines.settle_up_to(3);
        served.lines.release();
        executor.run_for(SOON);
        let mut last = served.answers();
        last.sort();
        assert_eq!(last, ["4 released", "6 placed"]);
        assert_eq!(served.connection.unanswered.get(), 0);
    });
}

/// Requests that lay in the buffer were once carried out to the last one, whatever their answers took.
#[test]
fn between_any_two_requests_the_peer_has_read_its_answers() {
    const ANSWER_BYTES: usize = 256 * 1024;
    const COUNT: usize = 100;
    for_each_seed(|executor, served| {
        let requests: Vec<String> =
            (0..COUNT).map(|number| format!("{number} fill {ANSWER_BYTES}")).collect();
        served.send(&requests);
        executor.run_for(SOON);
        let held = served.context.memory.budget(Account::Answers);
        assert!(held.bytes() > OUTBOX_PAUSE_BYTES / 2, "{} bytes: the peer reads nothing", held.bytes());
        assert!(held.peak() <= OUTBOX_PAUSE_BYTES + 2 * ANSWER_BYTES, "{} bytes", held.peak());
        assert!(served.lines.taken.get() < COUNT / 2, "{} requests were taken", served.lines.taken.get());
        let mut answered = Vec::new();
        while answered.len() < COUNT {
            executor.run_for(Duration::from_millis(5));
            answered.extend(served.answers());
        }
        let numbers: Vec<String> =
            answered.iter().map(|text| text[..text.find(' ').unwrap()].to_owned()).collect();
        assert!(numbers.iter().map(|number| number.parse::<usize>().unwrap()).eq(0..COUNT));
        assert!(held.peak() <= OUTBOX_PAUSE_BYTES + 2 * ANSWER_BYTES, "{} bytes", held.peak());
    });
}

#[test]
fn large_answers_of_calls_are_made_one_at_a_time() {
    const ANSWER_BYTES: usize = 3 * 1024 * 1024;
    for_each_seed(|executor, served| {
        let requests: Vec<String> = (0..20).map(|number| format!("{number} make {ANSWER_BYTES}")).collect();
        served.send(&requests);
        executor.run_for(SOON);
        let held = served.context.memory.budget(Account::Answers);
        assert!(held.peak() <= OUTBOX_PAUSE_BYTES + 2 * ANSWER_BYTES, "{} bytes", held.peak());
        let mut count = 0;
        while count < requests.len() {
            executor.run_for(Duration::from_millis(5));
            count += served.answers().len();
        }
        assert!(held.peak() <= OUTBOX_PAUSE_BYTES + 2 * ANSWER_BYTES, "{} bytes", held.peak());
        assert_eq!((held.bytes(), served.connection.unanswered.get()), (0, 0));
    });
}

#[test]
fn a_call_that_never_ends_holds_up_nobody() {
    for_each_seed(|executor, served| {
        served.send(&["1 stick"]);
        let others: Vec<String> = (2..200).map(|number| format!("{number} echo -")).collect();
        served.send(&others);
        executor.run_for(SOON);
        assert_eq!(served.answers().len(), others.len());
        // Nor does it keep the connection, once that is ended: by a shard that stops, or by the watch.
        assert_eq!(served.connection.unanswered.get(), 1);
        served.connection.end();
        executor.run_for(SOON);
        assert!(served.is_over());
        served.lines.unstick();
        executor.run_for(SOON);
        assert_eq!(served.connection.unanswered.get(), 0, "what it held is given back");
    });
}

#[test]
fn waits_take_their_share_and_end_with_their_connection() {
    for_each_seed(|executor, served| {
        let waits: Vec<String> =
            (0..limits::CONNECTION_WAITING_MAX).map(|number| format!("{number} wait")).collect();
        served.send(&waits);
        executor.run_for(SOON);
        let shares = served.context.memory.budget(Account::Waits);
        let counted = limits::CONNECTION_WAITING_MAX - limits::CONNECTION_WAITS_FREE;
        assert_eq!(shares.bytes(), counted * limits::WAIT_BYTES);
        assert_eq!(served.connection.pace.wait_bytes.get(), shares.bytes());
        served.send(&["600 wait", "601 echo late"]);
        executor.run_for(SOON);
        assert!(served.answers().is_empty(), "with too many of them the connection is not read");
        served.lines.release();
        executor.run_for(SOON);
        let answers = served.answers();
        assert_eq!(answers.len(), waits.len() + 1);
        assert!(answers.contains(&"601 late".to_owned()));
        served.hang_up();
        executor.run_for(SOON);
        assert!(served.is_over());
        assert_eq!((shares.bytes(), served.connection.pace.wait_bytes.get()), (0, 0));
    });
}

#[test]
fn a_wait_that_is_cut_is_answered_and_one_that_was_left_is_not() {
    for_each_seed(|executor, served| {
        served.send(&["1 wait", "2 wait"]);
        executor.run_for(SOON);
        served.connection.pace.cut.wake();
        executor.run_for(SOON);
        let mut answers = served.answers();
        answers.sort();
        assert_eq!(answers, ["1 cut", "2 cut"]);
        served.send(&["3 wait"]);
        executor.run_for(SOON);
        served.end_sending();
        executor.run_for(SOON);
        assert!(served.answers().is_empty() && served.is_over());
    });
}

/// A thousand waits once were a thousand tasks and timers.
#[test]
fn parked_calls_have_no_task_and_stop_nobody() {
    const COUNT: usize = 1_000;
    for seed in 0..4 {
        let executor = SeededExecutor::new(seed);
        let served = Lines::serve(&executor);
        executor.run_for(SOON);
        let tasks = executor.task_count();
        served.park(0..COUNT, 60_000);
        executor.run_for(SOON);
        assert_eq!((served.lines.parked.get(), executor.task_count()), (COUNT, tasks));
        let shares = served.context.memory.budget(Account::Waits);
        assert_eq!(shares.bytes(), (COUNT - limits::CONNECTION_WAITS_FREE) * limits::PARKED_BYTES);
        assert_eq!(served.connection.pace.wait_bytes.get(), shares.bytes());
        served.send(&["9999 echo apples"]);
        executor.run_for(SOON);
        assert_eq!(served.answers(), ["9999 apples"], "the connection is read all the same");
        // Nobody looks while nothing comes.
        executor.run_for(Duration::from_secs(30));
        assert_eq!(served.lines.looks.get(), 0);
        served.lines.arrive(1);
        executor.run_for(SOON);
        assert_eq!(served.answers(), ["0 arrived"]);
        assert_eq!((served.lines.looks.get(), served.lines.parked.get()), (COUNT, COUNT - 1));
        executor.run_for(Duration::from_secs(30));
        let over = served.answers_within(&executor, COUNT - 1);
        assert!(over.iter().all(|answer| answer.ends_with(" over")), "{over:?}");
        assert_eq!((served.lines.parked.get(), shares.bytes()), (0, 0));
    }
}

#[test]
fn a_parked_call_waits_as_long_as_it_asks_and_hardly_longer() {
    for_each_seed(|executor, served| {
        served.send(&["1 park 205", "2 park 100", "3 park 0", "4 park 1000"]);
        executor.run_for(Duration::from_millis(50));
        assert_eq!(served.answers(), ["3 over"]);
        executor.run_for(Duration::from_millis(49));
        assert!(served.answers().is_empty(), "not before its time");
        executor.run_for(Duration::from_millis(20));
        assert_eq!(served.answers(), ["2 over"]);
        executor.run_for(Duration::from_millis(110));
        assert_eq!(served.answers(), ["1 over"]);
        // One that begins later may end before the others.
        served.send(&["5 park 30"]);
        executor.run_for(Duration::from_millis(50));
        assert_eq!(served.answers(), ["5 over"]);
        executor.run_for(Duration::from_secs(1));
        assert_eq!(served.answers(), ["4 over"]);
    });
}

/// What arrives at the moment in which somebody leaves is nobody's, and the next one's.
#[test]
fn who_has_left_is_not_looked_at() {
    for_each_seed(|executor, served| {
        served.park(0..100, 60_000);
        executor.run_for(SOON);
        let has_left = served.connection.clone();
        served.lines.arrive(100);
        // They are due, and nobody has looked yet.
        has_left.leave();
        assert_eq!(served.lines.parked.get(), 0, "they are gone with it");
        executor.run_for(SOON);
        assert_eq!((served.lines.looks.get(), served.answers().len()), (0, 0));
        served.send(&["500 park 1000"]);
        executor.run_for(SOON);
        assert_eq!(served.lines.parked.get(), 0, "nor does one wait for nobody");
        assert_eq!(served.context.memory.budget(Account::Waits).bytes(), 0);
    });
}

#[test]
fn parked_calls_end_with_their_connection_or_early() {
    for_each_seed(|executor, served| {
        served.park(0..100, 60_000);
        executor.run_for(SOON);
        served.connection.cut_waits();
        executor.run_for(SOON);
        let cut = served.answers();
        assert!(cut.len() == 100 && cut.iter().all(|answer| answer.ends_with(" cut")), "{cut:?}");
        served.park(0..100, 60_000);
        executor.run_for(SOON);
        assert_eq!(served.lines.parked.get(), 100);
        served.end_sending();
        executor.run_for(SOON);
        assert!(served.is_over() && served.answers().is_empty());
        assert_eq!(served.lines.parked.get(), 0);
        assert_eq!(served.context.memory.budget(Account::Waits).bytes(), 0);
        assert_eq!(served.connection.pace.wait_bytes.get(), 0);
    });
}

#[test]
fn with_too_many_parked_calls_the_connection_is_not_read() {
    let executor = SeededExecutor::new(1);
    let served = Lines::serve(&executor);
    const MOST: usize = limits::CONNECTION_PARKED_MAX;
    for at in (0..MOST).step_by(1024) {
        served.park(at..at + 1024, 600_000);
        executor.run_for(SOON);
    }
    assert_eq!(served.lines.parked.get(), MOST);
    served.send(&["99999 park 600000", "99999 echo late"]);
    executor.run_for(SOON);
    assert!(served.answers().is_empty());
    served.lines.arrive(1);
    executor.run_for(SOON);
    assert_eq!(served.answers(), ["0 arrived", "99999 late"]);
    assert_eq!(served.lines.parked.get(), MOST);
}

#[test]
fn a_call_that_is_late_ends_alone() {
    for_each_seed(|executor, served| {
        served.send(&["1 until 100", "2 until 300", "3 wait", "4 park 300", "5 place", "6 until 100000"]);
        executor.run_for(Duration::from_millis(90));
        assert!(served.answers().is_empty());
        executor.run_for(Duration::from_millis(30));
        assert_eq!(served.answers(), ["1 late"]);
        served.lines.settle_up_to(1);
        executor.run_for(Duration::from_millis(200));
        let mut answers = served.answers();
        answers.sort();
        assert_eq!(answers, ["2 late", "4 over", "5 placed"]);
        served.lines.release();
        executor.run_for(SOON);
        let mut answers = served.answers();
        answers.sort();
        assert_eq!(answers, ["3 released", "6 released"]);
        assert!(!served.is_over() && served.connection.deadline.get().is_none());
    });
}

/// What is slow to come is the broker's, and no stall of the peer: that is told by bytes that it does not take.
#[test]
fn calls_that_take_long_are_no_stall() {
    for_each_seed(|executor, served| {
        served.send(&["1 stick", "2 wait", "3 place", "4 park 600000", "5 echo apples"]);
        executor.run_for(Duration::from_secs(3));
        assert_eq!(served.answers(), ["5 apples"]);
        assert!(served.connection.write_stalled_since.get().is_none());
        assert!(served.connection.incomplete_since.get().is_none());
    });
}

#[test]
fn a_client_that_never_reads_is_told_by_its_stall() {
    for_each_seed(|executor, served| {
        let requests: Vec<String> = (0..100).map(|number| format!("{number} fill 262144")).collect();
        served.send(&requests);
        executor.run_for(SOON);
        let since = served.connection.write_stalled_since.get();
        assert!(since.is_some() && served.connection.pace.is_parked.get(), "the watch sees it");
        executor.run_for(Duration::from_secs(3));
        assert_eq!(served.connection.write_stalled_since.get(), since, "it has not gone on");
        served.connection.end();
        executor.run_for(SOON);
        assert!(served.is_over());
        assert_eq!(served.context.memory.budget(Account::Answers).bytes(), 0);
        assert_eq!(served.context.memory.budget(Account::Received).bytes(), 0);
        assert_eq!(served.context.metrics.answer_bytes_waiting.get(), 0);
    });
}

#[test]
fn a_half_closed_client_gets_what_it_has_asked_for_and_then_the_end() {
    for_each_seed(|executor, served| {
        served.send(&["1 place", "2 wait", "3 echo apples", "4 make 100000"]);
        served.end_sending();
        executor.run_for(SOON);
        let answers = served.answers();
        assert_eq!(answers.len(), 2, "{answers:?}");
        assert_eq!(answers[0], "3 apples");
        assert!(answers[1].starts_with("4 ") && !served.is_over(), "the placed one is waited for");
        assert_eq!(served.lines.waiting.get(), 0, "nobody is there to wait for");
        served.lines.settle_up_to(1);
        executor.run_for(SOON);
        assert_eq!(served.answers(), ["1 placed"]);
        assert!(served.is_over() && served.has_ended());
    });
}

#[test]
fn a_peer_that_is_gone_leaves_nothing_behind() {
    for_each_seed(|executor, served| {
        served.send(&["1 place", "2 wait", "3 fill 1000000", "4 place"]);
        executor.run_for(Duration::from_millis(1));
        served.hang_up();
        executor.run_for(SOON);
        served.lines.settle_up_to(2);
        executor.run_for(SOON);
        assert!(served.is_over());
        assert_eq!(served.connection.unanswered.get(), 0);
        assert_eq!(served.context.memory.budget(Account::Answers).bytes(), 0);
    });
}

#[test]
fn what_is_no_frame_is_answered_last() {
    for_each_seed(|executor, served| {
        served.send(&["1 echo apples"]);
        served.send_bytes(&u32::MAX.to_le_bytes());
        served.send(&["2 echo pears"]);
        executor.run_for(SOON);
        assert_eq!(served.answers(), ["1 apples", "0 malformed-frame"]);
        assert!(served.is_over() && served.has_ended());
    });
}

/// The bytes of a frame that its sender may not send are not waited for.
#[test]
fn a_frame_that_is_not_taken_is_refused_by_its_length() {
    for_each_seed(|executor, served| {
        served.lines.refused_from.set(1000);
        served.send_bytes(&1000_u32.to_le_bytes());
        executor.run_for(SOON);
        assert_eq!(served.answers(), ["0 permission-denied"]);
        assert!(served.is_over());
    });
}

#[test]
fn memory_follows_the_bytes_that_came() {
    for_each_seed(|executor, served| {
        let received = served.context.memory.budget(Account::Received);
        let text = format!("1 echo {}", "x".repeat(LINE_BYTES_MAX - 7));
        let frame = Lines::framed(&text);
        served.send_bytes(&frame[..100]);
        executor.run_for(SOON);
        assert_eq!(received.bytes(), 0, "the announced length takes nothing");
        let since = served.connection.incomplete_since.get();
        assert!(since.is_some(), "the watch sees that it is not complete");
        let mut sent = 100;
        while sent < frame.len() {
            sent += served.send_some(&frame[sent..]);
            executor.run_for(Duration::from_millis(5));
            // One doubling ahead of what came, and the room for the whole frame once.
            assert!(received.bytes() <= frame.len().next_power_of_two(), "{} bytes", received.bytes());
        }
        executor.run_for(SOON);
        assert!(received.peak() >= frame.len() / 2);
        let answers = served.answers_within(executor, 1);
        assert_eq!(answers[0].len(), text.len() - 5);
        assert_eq!(served.connection.incomplete_since.get(), None);
        served.hang_up();
        executor.run_for(SOON);
        assert_eq!(received.bytes(), 0);
    });
}

#[test]
fn a_busy_connection_rests() {
    let executor = SeededExecutor::new(1);
    let served = Lines::serve(&executor);
    let line = format!("1 drop {}", "x".repeat(10_000));
    let frame = Lines::framed(&line);
    for _ in 0..300 {
        let mut sent = 0;
        while sent < frame.len() {
            sent += served.send_some(&frame[sent..]);
            executor.run_for(Duration::from_millis(2));
        }
    }
    assert_eq!(served.lines.taken.get(), 300);
    // Half a mebibyte of frames is one yield.
    assert_eq!(served.yields.get(), 300 * frame.len() / (512 * 1024));
    served.send(&["2 weigh 600000", "3 weigh 600000"]);
    executor.run_for(SOON);
    assert_eq!(served.yields.get(), 300 * frame.len() / (512 * 1024) + 2, "work counts as bytes do");
}

#[test]
fn a_shard_that_stops_takes_no_more_requests() {
    for_each_seed(|executor, served| {
        served.send(&["1 place"]);
        executor.run_for(SOON);
        served.context.stop();
        served.send(&["2 echo late"]);
        executor.run_for(SOON);
        assert!(!served.is_over(), "what was taken is answered");
        served.lines.settle_up_to(1);
        executor.run_for(SOON);
        assert!(served.is_over());
        assert!(served.answers().contains(&"1 placed".to_owned()));
    });
}
