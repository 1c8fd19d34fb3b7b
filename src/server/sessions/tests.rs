//! Connections and clients of a shard that speaks lines, in virtual time.

use std::rc::Rc;
use std::time::Duration;

use super::open::INCOMPLETE_TIMEOUT;
use super::{Clients, Connection, Unanswered};
use crate::limits;
use crate::server::framed::tests::lines::{Lines, Served, Shard};
use crate::testing::{JoinHandle, SeededExecutor};

const SOON: Duration = Duration::from_millis(200);
const WAIT: Duration = Duration::from_secs(5);

/// A shard, and what is done with it, once for each seed.
fn for_each_seed(check: impl Fn(&SeededExecutor, &Shard)) {
    for seed in 0..8 {
        let executor = SeededExecutor::new(seed);
        let shard = Shard::new(&executor);
        check(&executor, &shard);
    }
}

/// Lets this much time pass, with the look that a shard takes once a second. Returns the clients whose sessions have ended.
fn watch(executor: &SeededExecutor, shard: &Shard, seconds: u64) -> Vec<String> {
    let mut ended = Vec::new();
    for _ in 0..seconds {
        executor.run_for(Duration::from_secs(1));
        let now = executor.shared_clock().monotonic();
        shard.open.all().values().for_each(|connection| connection.note_progress(now));
        shard.open.end_overdue(now);
        ended.extend(shard.sessions.end_overdue());
    }
    ended
}

fn ask(
    executor: &SeededExecutor,
    shard: &Shard,
    client: &'static str,
    request: &str,
) -> JoinHandle<Result<String, Unanswered>> {
    let (sessions, request) = (shard.sessions.clone(), request.to_owned());
    executor.spawn(async move { sessions.ask(client, request, WAIT).await })
}

#[test]
fn a_peer_that_stalls_is_ended_and_others_are_not() {
    let executor = SeededExecutor::new(1);
    let shard = Shard::new(&executor);
    let (reader, greedy, slow) =
        (shard.connect(&executor), shard.connect(&executor), shard.connect(&executor));
    let requests: Vec<String> = (0..100).map(|number| format!("{number} fill 262144")).collect();
    greedy.send(&requests);
    reader.send(&["1 wait"]);
    watch(&executor, &shard, limits::CLIENT_STALL_SECONDS);
    assert_eq!(shard.open.count(), 3);
    slow.send_bytes(&Lines::framed("2 echo late")[..5]);
    watch(&executor, &shard, 3);
    assert!(greedy.is_over() && !reader.is_over() && !slow.is_over());
    watch(&executor, &shard, INCOMPLETE_TIMEOUT.as_secs());
    assert!(slow.is_over() && !reader.is_over());
    assert_eq!((shard.open.count(), shard.context.metrics.connections_dropped.get()), (1, 2));
    reader.lines.release();
    executor.run_for(SOON);
    assert_eq!(reader.answers(), ["1 released"]);
}

#[test]
fn a_shard_that_stops_lets_answers_out_and_ends_every_connection() {
    for_each_seed(|executor, shard| {
        let (placed, stuck) = (shard.connect(executor), shard.connect(executor));
        placed.send(&["1 place"]);
        stuck.send(&["1 stick", "2 wait"]);
        executor.run_for(SOON);
        let open = shard.open.clone();
        let finishing = executor.spawn(async move { open.finish(Duration::from_secs(2)).await });
        executor.run_for(SOON);
        placed.lines.settle_up_to(1);
        executor.run_for(SOON);
        assert_eq!(placed.answers(), ["1 placed"]);
        assert!(!finishing.is_finished(), "a call is waited for, as long as the grace lasts");
        executor.run_for(Duration::from_secs(3));
        assert!(finishing.is_finished() && stuck.is_over());
        assert_eq!(shard.open.count(), 0);
    });
}

#[test]
fn a_client_is_asked_and_answers_by_number() {
    for_each_seed(|executor, shard| {
        let client = shard.connect(executor);
        client.send(&["1 hello ann"]);
        executor.run_for(SOON);
        assert_eq!(client.answers(), ["1 welcome"]);
        assert_eq!(shard.sessions.clients(), [("ann".to_owned(), 1)]);
        let first = ask(executor, shard, "ann", "state");
        executor.run_for(SOON);
        let second = ask(executor, shard, "ann", "check");
        executor.run_for(SOON);
        assert_eq!(client.answers(), ["ask 1 state", "ask 2 check"]);
        let third = ask(executor, shard, "ann", "more");
        client.send(&["2 answer 2 done", "3 answer 1 well", "4 answer 1 again", "5 answer 9 what"]);
        executor.run_for(SOON);
        assert_eq!(third.try_take(), Some(Err(Unanswered::TooMany)));
        assert_eq!(second.try_take(), Some(Ok("done".to_owned())));
        assert_eq!(first.try_take(), Some(Ok("well".to_owned())));
        assert_eq!(client.answers(), ["2 taken", "3 taken", "4 dropped", "5 dropped"]);
        assert!(
            shard.sessions.tell("ann", "news".to_owned()) && !shard.sessions.tell("bob", "news".to_owned())
        );
        executor.run_for(SOON);
        assert_eq!(client.answers(), ["tell news"]);
        let nobody = ask(executor, shard, "bob", "state");
        executor.run_for(SOON);
        assert_eq!(nobody.try_take(), Some(Err(Unanswered::NotSent)));
    });
}

/// Otherwise one client could answer what another one was asked.
#[test]
fn only_who_was_asked_may_answer() {
    for_each_seed(|executor, shard| {
        let (ann, eve) = (shard.connect(executor), shard.connect(executor));
        ann.send(&["1 hello ann"]);
        eve.send(&["1 hello eve"]);
        executor.run_for(SOON);
        let asked = ask(executor, shard, "ann", "commit?");
        executor.run_for(SOON);
        eve.send(&["2 answer 1 yes"]);
        executor.run_for(SOON);
        assert_eq!(eve.answers(), ["1 welcome", "2 dropped"]);
        ann.send(&["2 answer 1 no"]);
        executor.run_for(SOON);
        assert_eq!(asked.try_take(), Some(Ok("no".to_owned())));
    });
}

#[test]
fn an_answer_may_come_over_another_connection_or_not_at_all() {
    for_each_seed(|executor, shard| {
        let (one, other) = (shard.connect(executor), shard.connect(executor));
        one.send(&["1 hello ann"]);
        executor.run_for(SOON);
        other.send(&["1 hello ann"]);
        executor.run_for(SOON);
        assert_eq!(shard.sessions.clients(), [("ann".to_owned(), 2)]);
        let asked = ask(executor, shard, "ann", "state");
        executor.run_for(SOON);
        assert_eq!(other.answers(), ["1 welcome", "ask 1 state"], "the one that came last");
        other.hang_up();
        executor.run_for(SOON);
        assert_eq!(shard.sessions.clients(), [("ann".to_owned(), 1)]);
        one.send(&["2 answer 1 well"]);
        executor.run_for(SOON);
        assert_eq!(asked.try_take(), Some(Ok("well".to_owned())));
        let silent = ask(executor, shard, "ann", "state");
        executor.run_for(WAIT + SOON);
        assert_eq!(silent.try_take(), Some(Err(Unanswered::Late)));
        one.send(&["3 answer 2 late"]);
        executor.run_for(SOON);
        assert!(one.answers().contains(&"3 dropped".to_owned()));
    });
}

#[test]
fn a_session_ends_by_word_by_absence_or_by_silence() {
    for_each_seed(|executor, shard| {
        let client = shard.connect(executor);
        client.send(&["1 hello ann"]);
        executor.run_for(SOON);
        let asked = ask(executor, shard, "ann", "state");
        executor.run_for(SOON);
        assert!(shard.sessions.end("ann") && !shard.sessions.end("ann"), "by word, once");
        executor.run_for(SOON);
        assert_eq!(asked.try_take(), Some(Err(Unanswered::Gone)));

        client.send(&["2 hello ann"]);
        assert!(watch(executor, shard, 120).is_empty());
        assert_eq!(watch(executor, shard, 2), ["ann"], "nothing has come of it for two minutes");

        client.send(&["3 hello ann"]);
        executor.run_for(SOON);
        client.hang_up();
        assert!(watch(executor, shard, 30).is_empty(), "the end of a connection is not the client's");
        let back = shard.connect(executor);
        back.send(&["1 hello ann"]);
        executor.run_for(SOON);
        back.hang_up();
        assert!(watch(executor, shard, 30).is_empty(), "it was back meanwhile");
        assert_eq!(watch(executor, shard, 2), ["ann"]);
        assert!(shard.sessions.clients().is_empty());
    });
}

#[test]
fn clients_are_counted_and_one_more_is_told() {
    let executor = SeededExecutor::new(1);
    let shard = Shard::new(&executor);
    let clients: Vec<_> = (0..4).map(|_| Rc::new(shard.connect(&executor))).collect();
    for (index, client) in clients.iter().enumerate() {
        client.send(&[format!("1 hello client-{index}")]);
        executor.run_for(SOON);
    }
    assert_eq!(clients[2].answers(), ["1 welcome"]);
    assert_eq!(clients[3].answers(), ["1 too many"]);
    assert_eq!(shard.sessions.clients().len(), 3);
    clients[0].hang_up();
    watch(&executor, &shard, 32);
    clients[3].send(&["2 hello client-3"]);
    executor.run_for(SOON);
    assert_eq!(clients[3].answers(), ["2 welcome"]);
}

/// A client that does not read is not sent more than a connection may leave unread.
#[test]
fn a_client_that_does_not_read_is_not_asked() {
    let executor = SeededExecutor::new(1);
    let shard = Shard::new(&executor);
    let client = shard.connect(&executor);
    client.send(&["1 hello ann"]);
    let requests: Vec<String> = (2..100).map(|number| format!("{number} fill 262144")).collect();
    client.send(&requests);
    executor.run_for(SOON);
    let asked = ask(&executor, &shard, "ann", "state");
    executor.run_for(SOON);
    assert_eq!(asked.try_take(), Some(Err(Unanswered::NotSent)));
}

/// Who finds no memory takes the place of one of many, whichever of their addresses it has, and not that of one who is alone,
/// unless it has been at rest for long.
#[test]
fn a_newcomer_takes_the_place_of_one_of_many_or_of_one_at_rest() {
    let executor = SeededExecutor::new(1);
    let shard = Shard::new(&executor);
    let connect = |address: &str| {
        let client = shard.connect(&executor);
        let newest = *shard.open.all().keys().max().expect("it is open");
        let connection = shard.open.all()[&newest].clone();
        connection.is_known.set(true);
        connection.incomplete_since.set(None);
        connection.network.set(Some(address.parse().expect("an address")));
        (client, connection)
    };
    let end_one = |newcomer: &Connection| {
        executor.run_for(SOON);
        shard.open.end_stuck(newcomer, executor.shared_clock().monotonic())
    };
    let alone = connect("10.0.1.1");
    let neighbours: Vec<_> = (1..=4).map(|last| connect(&format!("10.0.2.{last}"))).collect();
    let newcomer = connect("10.0.3.1");
    let is_over = |(client, _): &(_, Rc<Connection>)| Served::is_over(client);
    assert!(end_one(&newcomer.1));
    executor.run_for(SOON);
    assert!(is_over(&neighbours[0]) && !neighbours[1..].iter().any(is_over), "the oldest of the many");
    assert!(end_one(&newcomer.1));
    assert!(!end_one(&newcomer.1), "there are twice as many, and no more");
    executor.run_for(Duration::from_secs(limits::REST_SECONDS_MIN));
    assert!(end_one(&newcomer.1));
    executor.run_for(SOON);
    assert!(!is_over(&newcomer) && (is_over(&alone) || neighbours[2..].iter().any(is_over)));
}
