//! Much of everything: queues, connections, backlog, and clients that misbehave.
//!
//! Small by default. `TURBOPUMP_MANY=1` runs what takes a minute and more (peers that stall until they are dropped),
//! `TURBOPUMP_MANY_ATTACKS=5` prints what each attack costs others, watched for so many seconds;
//! `TURBOPUMP_MANY_QUEUES`, `TURBOPUMP_MANY_CONNECTIONS` and `TURBOPUMP_MANY_BACKLOG_MB` scale the rest: the issue's
//! figures are 10000, 1000 and 20000.

#[path = "../support/mod.rs"]
mod support;

mod abuse;
mod attacks;
mod backlog;
mod connections;
mod everything;
mod fairness;
mod memory;
mod queues;
mod slow_peers;
mod stalling;

/// Whether the long ones were asked for.
fn is_long_run() -> bool {
    support::machine::scale("TURBOPUMP_MANY", 0) > 0
}
