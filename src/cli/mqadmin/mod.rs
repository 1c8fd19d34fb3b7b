//! RocketMQ's `mqadmin` as commands of ours: what people type daily, with the same verbs, flags and columns, so that what is
//! written around them goes on working. They speak RocketMQ's protocol to any name server and broker, whoever made it.
//!
//! Other than `mqadmin` they end in time, say in one sentence what is wrong, and exit with 1 when anything has failed.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `arguments`, `entry` | what can be typed; from a line to its exit code |
//! | `caller` | one connection, a request at a time, in time |
//! | `admin` | who there is to be asked: name servers, routes, clusters |
//! | `columns` | names, times and releases as `mqadmin` prints them |
//! | the others | the verbs of one kind of thing |

mod admin;
mod arguments;
mod brokers;
mod caller;
mod clients;
mod columns;
mod entry;
mod groups;
mod look_up;
mod message;
mod places;
mod progress;
mod reading;
mod sending;
mod stats;
mod topics;
mod traces;
mod tracks;

pub use admin::Admin;
pub use arguments::{MqadminWords, Shared};
pub use entry::{definition, is_verb, main};
