//! The client library of turbopump, a message broker in the manner of RocketMQ, and the broker itself.
//!
//! # Sending and reading
//!
//! `client::asynchronous` is for programs on tokio. Its clients and producers are shared by cloning them, and each message
//! that is sent has a receipt.
//!
//! ```no_run
//! use turbopump::client::asynchronous::{Client, Message};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let client = Client::connect("127.0.0.1:10911").await?;
//!
//! let orders = client.producer("orders").await?;
//! let receipt = orders.send(Message::new(b"three apples").key("customer-17").property("region", "north")).await?;
//! println!("queue {}, offset {:?}, id {}", receipt.queue, receipt.offset, receipt.id);
//!
//! let mut messages = client.subscribe("billing", &["orders"]).await?;
//! while let Some(message) = messages.next().await {
//!     let message = message?;
//!     println!("{}: {} bytes", message.offset, message.body().len());
//!     messages.commit().await?;
//! }
//! # Ok(())
//! # }
//! ```
//!
//! [`client::Producer`] and [`client::Consumer`] are for programs with threads of their own: they block.
//!
//! # Features
//!
//! * `server`, on by default: the broker and its command line. A program that only wants the client library leaves it out
//!   with `default-features = false`, and builds neither the broker nor what that depends on.
//! * `tokio`: the client library for programs that run on tokio.
//! * `tls`: TLS in the client library; `server` has it.
//!
//! # The broker
//!
//! Thread per core on io_uring, a direct-I/O commit log per shard, FlatBuffers framing. `ARCHITECTURE.md` has the map of
//! these modules, and what each must not know.

#![deny(unsafe_code)]
// Every future here stays on the executor that made it, so the `Send` bound that this lint asks for is never wanted.
#![allow(async_fn_in_trait)]

#[cfg(feature = "server")]
pub mod access;
#[cfg(feature = "server")]
pub mod admin;
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
pub mod filter;
#[cfg(feature = "server")]
pub mod index;
pub mod limits;
#[cfg(feature = "server")]
pub mod log;
#[cfg(feature = "server")]
pub mod metrics;
#[cfg(feature = "server")]
pub mod namesrv;
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
#[cfg(feature = "server")]
pub mod views;
pub mod wire;
