//! `turbopump bench`: a load generator that one core can drive to more than ten million messages a second, checks every
//! message, and counts latency from when a message was due.
//!
//! A run: [`command`] prepares it and prints the [`report`]; [`load`] makes connections and threads; a [`worker`] is
//! the event loop of one thread over its [`produce_lane`]s, [`consume_lane`]s and [`pull_lane`]s; a [`link`] is what is said in which protocol; [`verdict`] says whether the run is
//! sound. Expected cost of the generator per batch of 500 x 100 B, warm: 2 us of stamping, 3 us of CRC, 15 us in one
//! `send`, 1 us for the answer.

mod arguments;
mod assignment;
mod baseline;
mod baseline_device;
mod baseline_loopback;
mod batch_frame;
mod clock;
mod command;
mod consume_lane;
mod evenness;
mod histogram;
mod ledger;
mod link;
mod load;
mod message;
mod ownership;
mod plot;
mod process_cost;
mod produce_lane;
mod pull_lane;
mod read_lane;
mod remoting_caller;
mod remoting_link;
mod remoting_run;
mod remoting_topic;
mod report;
mod schedule;
mod send_frame;
mod server_cost;
mod setting;
mod socket;
#[cfg(test)]
mod tests;
mod tracker;
mod verdict;
mod window;
mod worker;

pub use arguments::BenchArguments;
pub use command::run;
