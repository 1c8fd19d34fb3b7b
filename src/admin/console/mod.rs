//! The console: the page that the admin address shows to people, and the calls below `/api/` that it is made of.
//!
//! * `assets` is the page itself, as `src/console` is built into `src/console/assets`: the program has it in itself.
//! * `routes` says which calls there are. Each asks the broker through `Asking`, as a native client that has proved the caller's
//!   key: what that key may not do, the console cannot do either.
//! * `change` says who may change anything where there are no keys.
//! * `survey` keeps figures of all topics and groups for a moment, so that many who look cost no more than one.
//!
//! Everything that a peer has said goes out as a string of JSON, and the page shows it as text.

mod asking;
mod assets;
mod change;
mod dead_letters;
mod figures;
mod groups;
mod ids;
mod latency;
mod look_up;
mod message_view;
mod parameters;
mod publish;
mod reset;
mod routes;
mod scan;
mod session;
mod survey;
mod topics;

pub(super) use assets::{asset, page};
pub(super) use routes::answer;
pub(super) use survey::Survey;
