//! `turbopump check` on this machine.

use serde_json::Value;

use crate::support::command;
use crate::support::directory::test_directory;

fn check(data: &str, more: &[&str]) -> (Option<i32>, Value) {
    let outcome = command::run(None, &[&["check", "--data", data, "-o", "json"], more].concat(), None);
    let view = serde_json::from_slice(&outcome.stdout).expect("an object on standard output");
    (outcome.code, view)
}

fn state<'a>(view: &'a Value, what: &str) -> &'a str {
    let found = view["findings"].as_array().expect("a list").iter().find(|finding| finding["what"] == what);
    found.and_then(|finding| finding["state"].as_str()).unwrap_or_else(|| panic!("no {what} in {view}"))
}

/// Where the other tests run brokers, nothing has to be repaired; what is advised depends on the machine.
#[test]
fn a_machine_that_runs_brokers_passes() {
    let directory = test_directory();
    let data = directory.path().join("not/yet/made");
    let (code, view) = check(data.to_str().expect("UTF-8"), &[]);
    assert_eq!((code, &view["to_repair"]), (Some(0), &Value::from(0)), "{view}");
    for what in ["kernel", "io_uring", "memlock", "direct I/O", "cores"] {
        assert_eq!(state(&view, what), "ok", "{view}");
    }
    assert!(!directory.path().join("not").exists(), "nothing is made");
    assert_eq!(std::fs::read_dir(directory.path()).expect("ours").count(), 0, "nor left behind");
}

#[test]
fn what_must_be_repaired_is_an_exit_code_with_something_to_type() {
    let outcome = command::run(None, &["check", "--data", "/proc/nowhere"], None);
    let text = String::from_utf8(outcome.stdout).expect("UTF-8");
    assert_eq!(outcome.code, Some(1), "{text}");
    assert!(text.lines().any(|line| line.starts_with("repair   direct I/O")), "{text}");
    assert!(outcome.stderr.contains("must be repaired"), "{}", outcome.stderr);
    let directory = test_directory();
    let (code, view) = check(directory.path().to_str().expect("UTF-8"), &["--cores", "4000"]);
    assert_eq!((code, state(&view, "cores")), (Some(1), "repair"));
}
