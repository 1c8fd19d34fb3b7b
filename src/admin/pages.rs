//! Pages for probes and people: `/healthz`, `/readyz`, `/version`, and `/`, which says what there is.

use std::fmt::Write;

use hyper::StatusCode;
use serde::Serialize;

use super::answer::Answer;
use super::phase::NodePhase;
use super::server::Admin;
use super::shards::{ShardStanding, Unanswered};
use crate::types::ShardId;

const INDEX: &str = "\
turbopump's admin address

/healthz    200: the process is there
/readyz     200: every shard has recovered and takes messages; 503 and why not
/version    what runs here, as JSON
/metrics    for Prometheus
/api/node   counters and latencies of every shard, as JSON

A browser shows the console here; docs/console.md has the calls that it is made of.";

#[derive(Serialize)]
struct VersionView<'a> {
    version: &'a str,
    /// What the data directory has made of itself; another one is another broker.
    node: String,
    /// As RocketMQ's clients know it: its shard S is the broker NAME-S.
    name: &'a str,
    cluster: &'a str,
    shards: u16,
}

pub(super) fn index() -> Answer {
    Answer::text(StatusCode::OK, INDEX)
}

/// The process is there and its admin thread runs: what a supervisor restarts it for otherwise.
pub(super) fn healthz() -> Answer {
    Answer::text(StatusCode::OK, "ok")
}

pub(super) fn version(admin: &Admin) -> Answer {
    let facts = &admin.facts;
    Answer::json(&VersionView {
        version: facts.version,
        node: facts.node.to_string(),
        name: &facts.name,
        cluster: &facts.cluster,
        shards: facts.shard_count,
    })
}

/// Whether clients are to be sent here. `tells_all`: the asker may know what only operators do, such as names of files.
pub(super) async fn readyz(admin: &Admin, tells_all: bool) -> Answer {
    match admin.phase.phase() {
        NodePhase::Recovering => not_ready("the shards are recovering"),
        NodePhase::Stopping => not_ready("the broker stops"),
        NodePhase::Serving => {
            let standings = admin.shards.standings().await;
            let (is_ready, lines) = told(&standings, tells_all);
            let status = if is_ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
            Answer::text(status, if is_ready { format!("ready{lines}") } else { format!("not ready{lines}") })
        }
    }
}

fn not_ready(why: &str) -> Answer {
    Answer::text(StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}"))
}

/// Whether all shards serve, and a line for each.
fn told(standings: &[Result<ShardStanding, Unanswered>], tells_all: bool) -> (bool, String) {
    let (mut is_ready, mut lines) = (true, String::new());
    for (shard, standing) in (0..).map(ShardId).zip(standings) {
        let state = match standing {
            Ok(standing) => {
                is_ready &= standing.is_serving;
                match (standing.is_serving, standing.condition.as_str()) {
                    (true, "") => "serves".to_owned(),
                    (true, condition) if tells_all => format!("serves; {condition}"),
                    (false, condition) if tells_all && !condition.is_empty() => condition.to_owned(),
                    (true, _) => "serves, and has something to tell an operator".to_owned(),
                    (false, _) => "takes no messages".to_owned(),
                }
            }
            Err(unanswered) => {
                is_ready = false;
                unanswered.to_string()
            }
        };
        // Nothing fails to be written to a string.
        let _ = write!(lines, "\nshard {shard}: {state}");
    }
    (is_ready, lines)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn standing(is_serving: bool, condition: &str) -> Result<ShardStanding, Unanswered> {
        Ok(ShardStanding { is_serving, condition: condition.into() })
    }

    #[test]
    fn every_shard_has_its_line_and_one_that_does_not_serve_is_enough() {
        let (is_ready, lines) = told(&[standing(true, ""), standing(true, "the index is being built")], true);
        assert!(is_ready);
        assert_eq!(lines, "\nshard 0: serves\nshard 1: serves; the index is being built");
        for bad in [standing(false, "the disk is full"), Err(Unanswered::Late(Duration::from_secs(3)))] {
            let (is_ready, lines) = told(&[standing(true, ""), bad], true);
            assert!(!is_ready);
            assert!(lines.contains("the disk is full") || lines.contains("within 3 s"), "{lines}");
        }
    }

    #[test]
    fn strangers_are_not_told_what_operators_are() {
        let (_, lines) = told(&[standing(false, "/data is full"), standing(true, "/data/index")], false);
        assert!(!lines.contains("/data"), "{lines}");
        assert!(lines.contains("shard 0: takes no messages"), "{lines}");
    }
}
