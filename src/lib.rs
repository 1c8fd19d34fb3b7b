//! turbopump is a message broker in the manner of RocketMQ, rebuilt for Linux: thread per core on io_uring, a
//! direct-I/O commit log per shard, FlatBuffers framing. `ARCHITECTURE.md` has the map of these modules.
//!
//! Features: `server` (on by default) is the broker and its command line; a program that only wants the client library
//! leaves it out with `default-features = false`. `tokio` is the client library for programs that run on tokio.

#![deny(unsafe_code)]
// Every future here stays on the executor that made it, so the `Send` bound that this lint asks for is never wanted.
#![allow(async_fn_in_trait)]

#[cfg(feature = "server")]
pub mod access;
pub mod api;
#[cfg(feature = "server")]
pub mod broker;
#[cfg(feature = "server")]
pub mod cli;
pub mod client;
#[cfg(feature = "server")]
pub mod clock;
#[cfg(feature = "server")]
pub mod disk;
#[cfg(feature = "server")]
pub mod index;
pub mod limits;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod net;
#[cfg(feature = "server")]
pub mod node;
pub mod protocol;
#[cfg(feature = "server")]
pub mod runtime;
#[cfg(feature = "server")]
pub mod server;
#[cfg(feature = "server")]
pub mod state;
#[cfg(any(all(test, feature = "server"), feature = "testing"))]
pub mod testing;
pub mod types;
pub mod wire;
