//! `turbopump top` in terminals of different widths, once, and as JSON; `topic stats` and `group lag`; and a terminal that is as it
//! was afterwards.

use rustix::process::Signal;
use serde_json::Value;

use crate::support::command;
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup, wait_for};
use crate::support::terminal::Terminal;

const ESCAPE: &str = "\u{1b}";
const DOWN: &str = "\u{1b}[B";

fn produce(node: &Node, topic: &str, count: usize) {
    let lines: String = (0..count).map(|number| format!("{number}\n")).collect();
    command::run(Some(node.address()), &["produce", topic], Some(lines.as_bytes())).well();
}

/// A node with two topics, one of them with a group that is behind.
fn node(directory: &std::path::Path) -> Node {
    let node = Setup::new(directory).with(&["--shards", "2"]).start();
    for topic in ["apples", "pears"] {
        node.run_well(&["topic", "create", topic, "--queues", "4"]);
    }
    produce(&node, "apples", 300);
    produce(&node, "pears", 20);
    node.run_well(&["consume", "apples", "--group", "kitchen", "--count", "100"]);
    node
}

fn find<'a>(list: &'a Value, name: &str, value: &str) -> &'a Value {
    let found = list.as_array().expect("a list").iter().find(|entry| entry[name] == value);
    found.unwrap_or_else(|| panic!("no {value} in {list}"))
}

/// The first cells of the rows below the header that begins so.
fn names(terminal: &Terminal, header: &str) -> Vec<String> {
    let lines = terminal.lines();
    let rows = lines.iter().skip_while(|line| !line.starts_with(header)).skip(1);
    let cells = rows.map_while(|line| line.split_whitespace().next());
    cells.map(str::to_owned).take_while(|cell| cell != "q").collect()
}

#[test]
fn once_has_rates_lag_and_ages_for_programs() {
    let directory = test_directory();
    let node = node(directory.path());
    let printed = node.run(&["top", "--once", "--interval", "100ms", "-o", "json"]).json();
    assert!(printed["interval_ms"].as_u64() >= Some(100), "{printed}");
    let apples = find(&printed["topics"], "topic", "apples");
    assert_eq!((&apples["messages"], &apples["queues"]), (&300.into(), &4.into()));
    assert_eq!((&apples["lag"], &apples["lag_group"]), (&200.into(), &"kitchen".into()));
    assert!(apples["oldest_unread_age_ms"].is_u64(), "{apples}");
    assert_eq!(apples["messages_in_per_second"], 0.0);
    let pears = find(&printed["topics"], "topic", "pears");
    assert_eq!(pears["lag"], Value::Null, "no group has a place in it");
    let kitchen = find(&printed["groups"], "group", "kitchen");
    assert_eq!((&kitchen["lag"], &kitchen["topics"][0]["topic"]), (&200.into(), &"apples".into()));
    let shards = printed["node"]["shards"].as_array().expect("a list");
    assert_eq!(shards.len(), 2, "{printed}");
    assert!(shards[0]["core_use"].as_f64().is_some_and(|used| (0.0..=1.0).contains(&used)), "{printed}");
    assert!(shards.iter().all(|shard| shard["state"] == "ok" && shard["device_use"].is_f64()), "{printed}");
    assert!(printed["node"]["disk_available_bytes"].is_u64(), "{printed}");
}

#[test]
fn once_prints_tables_and_a_pipe_has_all_columns() {
    let directory = test_directory();
    let node = node(directory.path());
    let text = node.run_well(&["top", "--once", "--interval", "100ms"]);
    for part in
        ["TOPIC", "apples", "pears", "UNREAD FOR", "QUEUES", "GROUP", "kitchen", "200", "SHARD", "DEVICE"]
    {
        assert!(text.contains(part), "{part} is missing in {text}");
    }
    let mut narrow = Terminal::start(node.address(), &["top", "--once", "--interval", "100ms"], 60, 40);
    assert!(narrow.end().success());
    narrow.wait_for("SHARD");
    let lines = narrow.lines();
    assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:#?}");
    assert!(!narrow.text().contains("QUEUES"), "there is no room for all: {lines:#?}");
}

#[test]
fn stats_and_lag_say_the_same_without_a_screen() {
    let directory = test_directory();
    let node = node(directory.path());
    let stats = node.run(&["topic", "stats", "apples", "--interval", "100ms", "-o", "json"]).json();
    let [apples] = &stats["topics"].as_array().expect("a list")[..] else { panic!("{stats}") };
    assert_eq!(
        (&apples["messages"], &apples["within_minute"], &apples["within_day"]),
        (&300.into(), &300.into(), &300.into())
    );
    assert!(apples["oldest_age_ms"].as_u64() >= apples["newest_age_ms"].as_u64(), "{apples}");
    let table = node.run_well(&["topic", "stats", "--interval", "100ms"]);
    assert!(table.contains("apples") && table.contains("pears") && table.contains("NEWEST"), "{table}");
    let lag = node.run(&["group", "lag", "kitchen", "--interval", "100ms", "-o", "json"]).json();
    let [kitchen] = &lag["groups"].as_array().expect("a list")[..] else { panic!("{lag}") };
    let described = node.run(&["group", "describe", "kitchen", "-o", "json"]).json();
    assert_eq!(kitchen["lag"], described["lag"]);
    assert!(node.run_well(&["group", "lag", "--interval", "100ms"]).contains("apples"));
    for (arguments, reason) in [
        (["topic", "stats", "plums"], "plums"),
        (["group", "lag", "plums"], "has no members, no receivers, no offsets and no settings"),
    ] {
        let sentence = node.run(&arguments).badly(1);
        assert!(sentence.contains(reason), "{sentence}");
    }
    assert!(node.run(&["topic", "stats", "--interval", "10ms"]).badly(2).contains("100ms"));
}

#[test]
fn what_receives_has_the_same_lag_as_describe_tells() {
    let directory = test_directory();
    let node = node(directory.path());
    let printed =
        node.run_well(&["message", "receive", "pears", "--group", "cellar", "--count", "7", "-o", "json"]);
    assert!(printed.contains("handle"), "{printed}");
    let lag = node.run(&["group", "lag", "cellar", "--interval", "100ms", "-o", "json"]).json();
    let described = node.run(&["group", "describe", "cellar", "-o", "json"]).json();
    for figure in ["lag", "leased", "waiting", "dead_letters"] {
        assert_eq!(lag["groups"][0][figure], described[figure], "{figure}: {lag} {described}");
    }
    assert_eq!((&lag["groups"][0]["lag"], &lag["groups"][0]["leased"]), (&20.into(), &7.into()));
}

#[test]
fn rates_are_those_of_what_goes_on() {
    let directory = test_directory();
    let node = node(directory.path());
    let mut watched =
        command::spawn(Some(node.address()), &["top", "-o", "json", "--interval", "300ms"], false);
    let output = watched.stdout.take().expect("it is piped");
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(output));
    let mut sums = (0.0, 0.0);
    for _ in 0..40 {
        produce(&node, "apples", 50);
        let picture: Value =
            serde_json::from_str(&lines.next().expect("a line").expect("text")).expect("JSON");
        let apples = find(&picture["topics"], "topic", "apples");
        let shards = picture["node"]["shards"].as_array().expect("a list");
        sums.0 += apples["messages_in_per_second"].as_f64().expect("it was there before");
        sums.1 += shards.iter().filter_map(|shard| shard["messages_in_per_second"].as_f64()).sum::<f64>();
        if sums.0 > 0.0 && sums.1 > 0.0 {
            break;
        }
    }
    assert!(sums.0 > 0.0 && sums.1 > 0.0, "{sums:?}");
    watched.kill().expect("it is ours");
    watched.wait().expect("it is ours");
}

#[test]
fn keys_choose_sort_filter_and_quit() {
    let directory = test_directory();
    let node = node(directory.path());
    let mut terminal = Terminal::start(node.address(), &["top", "--interval", "200ms"], 160, 30);
    terminal.wait_for("apples");
    assert!(terminal.is_beside() && !terminal.is_cooked());
    // By name, and the other way round.
    terminal.press("n");
    terminal.wait_until("from A on", |_| names(&terminal, "TOPIC") == ["apples", "pears"]);
    terminal.press("n");
    terminal.wait_until("from Z on", |_| names(&terminal, "TOPIC") == ["pears", "apples"]);
    // By messages, the most first.
    terminal.press("m");
    terminal.wait_until("300 before 20", |_| names(&terminal, "TOPIC") == ["apples", "pears"]);
    terminal.press("r");
    terminal.wait_until("reversed", |_| names(&terminal, "TOPIC") == ["pears", "apples"]);
    terminal.press("/appl");
    terminal.wait_until("filtered", |_| names(&terminal, "TOPIC") == ["apples"]);
    // From a topic to its groups, and to the members of one.
    terminal.press("\r\r");
    terminal.wait_until("its groups", |_| names(&terminal, "GROUP") == ["kitchen"]);
    terminal.press("\r");
    terminal.wait_for("nobody consumes as this group now");
    terminal.press("3");
    terminal.wait_for("DEVICE");
    terminal.press("p");
    terminal.wait_for("PAUSED");
    terminal.press("?");
    terminal.wait_for("reverse the order");
    terminal.press(ESCAPE);
    terminal.wait_until("no help", |text| !text.contains("reverse the order"));
    terminal.press("q");
    assert!(terminal.end().success());
    wait_for("the screen is given back", || !terminal.is_beside() && !terminal.hides_cursor());
    assert!(terminal.is_cooked());
}

#[test]
fn it_fits_sixty_columns_and_grows_with_its_terminal() {
    let directory = test_directory();
    let node = node(directory.path());
    let long = "a-topic-with-a-name-that-is-far-too-long-for-a-narrow-terminal-to-show-in-full";
    node.run_well(&["topic", "create", long]);
    let terminal = Terminal::start(node.address(), &["top", "--interval", "200ms"], 60, 14);
    for (view, header) in [("1", "TOPIC"), ("2", "GROUP"), ("3", "SHARD"), ("4", "MEMBER")] {
        terminal.press(view);
        terminal.wait_until(header, |text| {
            text.lines().any(|line| line.starts_with(header) || line.contains("choose a group"))
        });
        let lines = terminal.lines();
        assert!(lines.iter().all(|line| line.chars().count() <= 60), "{lines:#?}");
        assert!(lines.len() <= 14, "{lines:#?}");
    }
    terminal.press("1");
    terminal.wait_for("LAG");
    assert!(!terminal.text().contains("QUEUES"));
    terminal.resize(160, 20);
    terminal.wait_for("QUEUES");
    terminal.wait_for(long);
    terminal.resize(20, 5);
    terminal.wait_until("narrower than anything", |text| text.lines().all(|line| line.chars().count() <= 20));
    terminal.resize(60, 14);
    terminal.press(DOWN);
    terminal.wait_for("apples");
}

#[test]
fn signals_leave_the_terminal_as_it_was() {
    let directory = test_directory();
    let node = node(directory.path());
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut terminal = Terminal::start(node.address(), &["top"], 80, 20);
        terminal.wait_for("apples");
        terminal.signal(signal);
        terminal.end();
        wait_for("the screen is given back", || !terminal.is_beside() && !terminal.hides_cursor());
        assert!(terminal.is_cooked(), "{signal:?}");
    }
}

#[test]
fn a_lost_connection_is_told_and_made_again() {
    let directory = test_directory();
    let data = directory.path().join("data");
    let node = node(&data);
    let address = node.address().to_owned();
    let mut terminal = Terminal::start(&address, &["top", "--interval", "200ms"], 100, 20);
    terminal.wait_for("apples");
    node.kill();
    terminal.wait_for("no connection, trying again");
    terminal.wait_for("apples");
    let node = Setup::new(&data).with(&["--listen", &address]).start();
    terminal
        .wait_until("it is there again", |text| !text.contains("no connection") && text.contains("apples"));
    assert_eq!(node.address(), address);
    terminal.press("\u{3}");
    assert!(terminal.end().success());
    assert!(terminal.is_cooked());
}

#[test]
fn without_a_terminal_or_a_broker_it_says_what_to_do() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    let sentence = node.run(&["top"]).badly(2);
    assert!(sentence.contains("--once") && sentence.contains("-o json"), "{sentence}");
    let address = node.address().to_owned();
    node.kill();
    let mut terminal = Terminal::start(&address, &["top"], 80, 20);
    assert_eq!(terminal.end().code(), Some(1));
    terminal.wait_for("turbopump serve --data DIR");
    assert!(!terminal.is_beside() && terminal.is_cooked());
}

#[test]
fn colours_are_left_out_where_nobody_wants_them() {
    let directory = test_directory();
    let node = node(directory.path());
    // The colour of titles, cyan.
    let has_colour = |terminal: &Terminal| String::from_utf8_lossy(&terminal.raw()).contains("38;5;6");
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        let terminal = Terminal::start_with(node.address(), &["top"], (80, 20), variables);
        terminal.wait_for("apples");
        assert_eq!(has_colour(&terminal), coloured, "{variables:?}");
    }
}
