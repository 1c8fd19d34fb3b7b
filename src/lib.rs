//! turbopump is a message broker in the manner of RocketMQ, rebuilt for Linux: thread per core on io_uring, a
//! direct-I/O commit log per shard, FlatBuffers framing. `ARCHITECTURE.md` has the map of these modules.

#![deny(unsafe_code)]
// Every future here stays on the executor that made it, so the `Send` bound that this lint asks for is never wanted.
#![allow(async_fn_in_trait)]

pub mod access;
pub mod api;
pub mod broker;
pub mod cli;
pub mod client;
pub mod clock;
pub mod disk;
pub mod index;
pub mod limits;
pub mod log;
pub mod metrics;
pub mod net;
pub mod node;
pub mod protocol;
pub mod runtime;
pub mod server;
pub mod state;
#[cfg(any(test, feature = "testing"))]
pub mod testing;
pub mod types;
pub mod wire;
