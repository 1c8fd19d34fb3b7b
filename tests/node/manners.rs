//! How commands behave in a terminal and for its user: tables that fit, colours where they are wanted, contexts, completion of names,
//! short names, and quoted fields.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

use serde_json::Value;

use crate::support::command::{self, BINARY};
use crate::support::directory::test_directory;
use crate::support::node::{Node, Setup, wait_for};
use crate::support::terminal::Terminal;

const LONG: &str = "a-topic-with-a-name-that-is-far-too-long-for-a-narrow-terminal-to-show-in-one-line";

/// Runs a command with a configuration directory of its own, and without a broker in its environment.
fn with_config(config: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Output {
    let mut command = Command::new(BINARY);
    command.args(arguments).env("XDG_CONFIG_HOME", config).env_remove("TURBOPUMP_SERVER");
    command.envs(variables.iter().copied()).output().expect("the binary under test can be run")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

fn well(config: &Path, arguments: &[&str]) -> String {
    let output = with_config(config, arguments, &[]);
    assert!(output.status.success(), "{arguments:?}: {}", text(&output));
    text(&output)
}

#[test]
fn tables_fit_the_terminal_and_a_pipe_has_them_whole() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", LONG, "--queues", "1234"]);
    let piped = node.run_well(&["topic", "list"]);
    assert_eq!(piped.lines().count(), 2, "{piped}");
    assert!(piped.contains(LONG) && !piped.contains('\u{1b}'), "{piped:?}");
    for (columns, is_whole) in [(60, false), (160, true)] {
        let mut terminal = Terminal::start(node.address(), &["topic", "list"], columns, 20);
        assert!(terminal.end().success());
        terminal.wait_for("1234");
        let shown = terminal.lines();
        assert!(shown.iter().all(|line| line.chars().count() <= usize::from(columns)), "{shown:#?}");
        assert_eq!(shown.len() == 2, is_whole, "{shown:#?}");
    }
}

#[test]
fn colours_are_for_terminals_that_want_them() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders"]);
    for (variables, coloured) in [(&[][..], true), (&[("NO_COLOR", "1")][..], false)] {
        for (arguments, shown) in [(["topic", "list"], "orders"), (["topic", "lists"], "unrecognized")] {
            let mut terminal = Terminal::start_with(node.address(), &arguments, (80, 20), variables);
            terminal.end();
            terminal.wait_for(shown);
            let raw = String::from_utf8_lossy(&terminal.raw()).into_owned();
            assert_eq!(
                raw.contains("\u{1b}[1m") || raw.contains("\u{1b}[31m"),
                coloured,
                "{variables:?} {raw:?}"
            );
        }
    }
    let sentence = node.run(&["topic", "describe", "nothing"]).badly(1);
    assert!(sentence.starts_with("turbopump: ") && !sentence.contains('\u{1b}'), "{sentence:?}");
}

#[test]
fn a_context_says_which_broker_until_something_else_does() {
    let directory = test_directory();
    let config = directory.path().join("config");
    let [one, other] = ["one", "other"].map(|name| Node::start(directory.path().join(name)));
    one.run_well(&["topic", "create", "first"]);
    other.run_well(&["topic", "create", "second"]);
    assert!(well(&config, &["context", "list"]).contains("no contexts"));
    let added = well(&config, &["context", "add", "one", "--server", other.address()]);
    assert_eq!(added, "context one added\n");
    let replaced = well(&config, &["context", "add", "one", "--server", one.address()]);
    assert_eq!(replaced, "context one replaced\n");
    well(&config, &["context", "add", "other", "--server", other.address()]);
    well(&config, &["context", "use", "one"]);
    assert!(well(&config, &["topic", "list"]).contains("first"));
    assert!(well(&config, &["topic", "ls", "--context", "other"]).contains("second"));
    assert!(well(&config, &["topic", "list", "--server", other.address()]).contains("second"));
    let variables = [("TURBOPUMP_SERVER", other.address())];
    assert!(text(&with_config(&config, &["topic", "list"], &variables)).contains("second"));
    let variables = [("TURBOPUMP_CONTEXT", "other")];
    assert!(text(&with_config(&config, &["topic", "list"], &variables)).contains("second"));
    let listed = well(&config, &["context", "ls"]);
    assert!(listed.lines().any(|line| line.starts_with('*') && line.contains("one")), "{listed}");
    well(&config, &["context", "rm", "one"]);
    let output = with_config(&config, &["topic", "list", "--context", "one"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("there is no context one"), "{}", text(&output));
}

#[test]
fn secrets_of_contexts_are_the_users_alone_and_never_shown() {
    let directory = test_directory();
    let config = directory.path().join("config");
    let keys = directory.path().join("keys.toml");
    std::fs::write(&keys, "[[keys]]\nid = \"ops\"\nsecret = \"hunter2\"\nadmin = true\n").expect("written");
    std::fs::set_permissions(&keys, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let data = directory.path().join("data");
    let node = Setup::new(data).with(&["--access-keys", keys.to_str().expect("UTF-8")]).start();
    let add = ["context", "add", "guarded", "--server", node.address(), "--access-key", "ops"];
    let added = with_config(&config, &add, &[("TURBOPUMP_SECRET_KEY", "hunter2")]);
    assert!(added.status.success(), "{}", text(&added));
    well(&config, &["context", "use", "guarded"]);
    let file = config.join("turbopump/contexts.toml");
    let mode = |path: &Path| std::fs::metadata(path).expect("it is there").permissions().mode() & 0o777;
    assert_eq!((mode(&file), mode(file.parent().expect("a folder"))), (0o600, 0o700));
    well(&config, &["topic", "create", "orders"]);
    assert!(well(&config, &["topic", "list"]).contains("orders"));
    for arguments in [
        &["context", "list"][..],
        &["context", "list", "-o", "json"],
        &["topic", "list", "--help"],
        &["topic", "list", "--frobnicate"],
    ] {
        let output = with_config(&config, arguments, &[]);
        assert!(!text(&output).contains("hunter2"), "{arguments:?}: {}", text(&output));
    }
    // Not for a broker that somebody else names.
    let output = with_config(&config, &["topic", "list", "--server", node.address()], &[]);
    assert_eq!(output.status.code(), Some(1), "{}", text(&output));
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o644)).expect("ours");
    let output = with_config(&config, &["topic", "list"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(text(&output).contains("chmod 600"), "{}", text(&output));
    std::fs::write(&file, "secret-key = \"hunter2\"").expect("ours");
    std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o600)).expect("ours");
    let output = with_config(&config, &["topic", "list"], &[]);
    assert_eq!(output.status.code(), Some(2));
    assert!(!text(&output).contains("hunter2"), "{}", text(&output));
}

/// What a shell gets for a line whose last word is being typed.
fn completed(config: &Path, line: &[&str], variables: &[(&str, &str)]) -> Vec<String> {
    let mut arguments = vec!["--"];
    arguments.extend(line);
    let index = (line.len() - 1).to_string();
    let mut all = vec![("TURBOPUMP_COMPLETE", "bash"), ("_CLAP_COMPLETE_INDEX", &index), ("_CLAP_IFS", "\n")];
    all.extend(variables);
    let output = with_config(config, &arguments, &all);
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[test]
fn a_shell_completes_commands_and_the_names_that_the_broker_has() {
    let directory = test_directory();
    let config = directory.path().join("config");
    let node = Node::start(directory.path().join("data"));
    for topic in ["orders", "orders-archive", "pears"] {
        node.run_well(&["topic", "create", topic]);
    }
    command::run(Some(node.address()), &["produce", "orders"], Some(b"1\n")).well();
    node.run_well(&["consume", "orders", "--group", "billing"]);
    let server = [("TURBOPUMP_SERVER", node.address())];
    let complete = |line: &[&str]| completed(&config, line, &server);
    assert_eq!(complete(&["turbopump", "topic", "describe", "ord"]), ["orders", "orders-archive"]);
    assert_eq!(complete(&["turbopump", "group", "describe", "b"]), ["billing"]);
    assert_eq!(complete(&["turbopump", "consume", "orders", "--group", ""]), ["billing"]);
    assert_eq!(complete(&["turbopump", "group", "clone", "b"]), ["billing"]);
    let to = ["turbopump", "dlq", "redrive", "billing", "--to", "ord"];
    assert_eq!(complete(&to), ["orders", "orders-archive"]);
    let clone = ["turbopump", "cloneGroupOffset", "-n", node.address(), "-s", "b"];
    assert_eq!(completed(&config, &clone, &[]), ["billing"]);
    assert!(complete(&["turbopump", "top"]).contains(&"topicList".to_owned()));
    let address = ["turbopump", "topicRoute", "-n", node.address(), "-t", "pe"];
    assert_eq!(completed(&config, &address, &[]), ["pears"]);
    // A broker that is not there has no names, and nobody hears of it.
    let nowhere = [("TURBOPUMP_SERVER", "127.0.0.1:1")];
    assert!(completed(&config, &["turbopump", "topic", "describe", "ord"], &nowhere).is_empty());
    for shell in ["bash", "zsh", "fish"] {
        let script = well(&config, &["completion", shell]);
        assert!(script.contains("TURBOPUMP_COMPLETE"), "{script}");
    }
}

#[test]
fn short_names_do_what_the_long_ones_do() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "orders"]);
    assert_eq!(node.run_well(&["topic", "ls"]), node.run_well(&["topic", "list"]));
    assert_eq!(node.run_well(&["group", "ls"]), node.run_well(&["group", "list"]));
    node.run_well(&["topic", "rm", "orders", "--yes"]);
    assert!(!node.run_well(&["topic", "ls"]).contains("orders"));
}

#[test]
fn quoted_fields_are_keys_as_in_csv() {
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "people"]);
    let lines = "1,\"Smith,John\",red\n2,\"a \"\"b\"\"\",blue\n";
    let produce = ["produce", "people", "--key-field", "2", "--tag-field", "3", "--key-delimiter", ","];
    command::run(Some(node.address()), &produce, Some(lines.as_bytes())).well();
    let found = node.run_well(&["message", "find", "people", "--key", "Smith,John", "-o", "json"]);
    assert!(found.contains("\"tag\":\"red\""), "{found}");
    let open = "3,plain,red\n4,\"open,red\n";
    let sentence = command::run(Some(node.address()), &produce, Some(open.as_bytes())).badly(1);
    assert!(sentence.contains("line 2") && sentence.contains("--skip 2"), "{sentence}");
}

#[test]
fn a_start_says_what_its_log_takes_of_the_disk() {
    let directory = test_directory();
    let node = Setup::new(directory.path().join("data")).with(&["--shards", "2"]).start();
    assert!(node.banner.contains("the log takes 32MiB from the start on"), "{}", node.banner);
}

/// Whatever a producer puts into a message: a terminal does not obey it, and it does not look like a field or row of its own.
#[test]
fn what_producers_wrote_is_not_obeyed() {
    const ODD: &str = "\u{1b}[31mred\u{1b}]0;title\u{7}\u{9b}2J\u{7f}\nid                FAKE\tend";
    let directory = test_directory();
    let node = Node::start(directory.path());
    node.run_well(&["topic", "create", "odd", "--queues", "1"]);
    let publish = ["message", "publish", "odd", ODD, "--property", "p=\u{1b}[1m"];
    node.run_well(&[&publish[..], &["--key", "K"]].concat());
    node.run_well(&[&publish[..], &["--delay", "1h", "--key", "later"]].concat());
    node.run_well(&["group", "create", "g", "--deliveries", "1"]);
    let run = |line: &str| {
        let words: Vec<_> = line.split(' ').collect();
        let text = node.run_well(&words);
        check_tame(line, &text);
        assert!(text.contains("\\u001b[31mred") && text.contains("FAKE"), "{line}: {text}");
        text
    };
    run("message find odd --key K");
    run("message find odd --key later");
    run("delayed list odd");
    let received = run("message receive odd --group g");
    let handle = received.lines().find_map(|line| line.strip_prefix("handle")).expect("a handle").trim();
    node.run_well(&["message", "extend", "odd", handle, "--group", "g", "--lease", "0"]);
    assert_eq!(node.run_well(&["message", "receive", "odd", "--group", "g"]), "", "it is a dead letter");
    wait_for("the dead letter", || node.run(&["dlq", "show", "g"]).code == Some(0));
    run("dlq show g");
    let printed = command::run(None, &["printMsg", "-t", "odd", "-n", node.address()], None).well();
    check_tame("printMsg", &printed);

    // A program gets the very bytes, and JSON that means them.
    assert_eq!(node.run_well(&["consume", "odd"]), format!("{ODD}\n"));
    for line in [
        "consume odd -o json",
        "message find odd --key K -o json",
        "dlq export g",
        "delayed list odd -o json",
    ] {
        let words: Vec<_> = line.split(' ').collect();
        let text = node.run_well(&words);
        assert!(!text.trim_end().contains(char::is_control), "{line}: {text:?}");
        let object: Value = serde_json::from_str(&text).expect("JSON");
        let message = if object["messages"].is_array() { &object["messages"][0] } else { &object };
        assert_eq!(
            (&message["body"], &message["properties"]["p"]),
            (&ODD.into(), &"\u{1b}[1m".into()),
            "{line}"
        );
    }
    // A person sees what is there, and where lines end.
    for line in [&["consume", "odd"][..], &["consume", "odd", "-f", "%p %b\\n"]] {
        let mut terminal = Terminal::start(node.address(), line, 120, 20);
        assert!(terminal.end().success());
        terminal.wait_for("end");
        let raw = String::from_utf8(terminal.raw()).expect("text");
        assert!(
            !raw.contains(|character: char| character.is_control() && !"\r\n\t".contains(character)),
            "{line:?}: {raw:?}"
        );
        let shown = "\\u001b[31mred\\u001b]0;title\\u0007\\u009b2J\\u007f\r\nid ";
        assert!(raw.contains(shown), "{line:?}: {raw:?}");
    }

    node.stop();
    let data = directory.path().to_str().expect("UTF-8");
    let dumped = command::run(None, &["log", "dump", "--data", data, "--records"], None).well();
    check_tame("log dump", &dumped);
    assert!(dumped.contains("FAKE"), "{dumped}");
}

fn check_tame(line: &str, text: &str) {
    assert!(!text.contains(|of: char| of.is_control() && !"\n\t".contains(of)), "{line}: {text:?}");
    assert!(!text.lines().any(|line| line.starts_with("id  ") && line.contains("FAKE")), "{line}: {text}");
}
