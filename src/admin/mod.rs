//! The admin address (`serve --admin`): what a node shows of itself over HTTP to people, to probes and to Prometheus.
//!
//! It runs on a thread of its own, which belongs to no core and gives way to those that do (`runtime::host::give_way`), on
//! tokio, whose wakers any thread may call. What it shows it asks each shard for, when it is asked itself: a [`Question`] goes to
//! the shard's mailbox, the shard's own task reads its counters or carries the request out in a queue of few shares, and the
//! answer comes back through a slot. So nothing is shared with the way of a message, and nobody pays for what nobody looks at.
//!
//! * `router` says what there is; `pages` are those for probes, `metrics` what Prometheus scrapes, `api` the calls that answer in JSON.
//! * `console` is the page for people, and its calls.
//! * `guard` keeps other sites' pages in an operator's browser from using what is meant for the operator.
//! * `connection` and `server` keep the bounds: connections, time for a head, for a body and for an answer to be read.
//! * Who may see what: `docs/metrics.md`, "Who may look".

mod answer;
mod api;
mod connection;
mod console;
mod guard;
mod metrics;
mod pages;
mod phase;
mod request;
mod router;
mod server;
mod shards;

pub use phase::{NodePhase, PhaseBoard};
pub use server::{AdminError, AdminServer, AdminSetup, AdminTls};
pub use shards::{Facts, Post, Question, ShardStanding, Slot};
