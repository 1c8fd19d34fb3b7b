//! The client library: native protocol.
//!
//! * `asynchronous` (feature `tokio`): producers and streams that tasks share. Where to begin.
//! * [`Client`], [`Producer`] and [`Consumer`] block their thread; nothing runs behind them.
//! * `tokio_driver` (feature `tokio`): the same three for one task each, which drives them.
//!
//! All of them are loops around the same core, which does no I/O; [`ProtocolCore`] is its part that knows the protocol.

#[cfg(feature = "tokio")]
pub mod asynchronous;
mod batching;
mod blocking;
mod calls;
mod channel;
mod commands;
mod connection;
mod consumer;
mod core;
mod credentials;
mod dispatch;
mod error;
mod fetching;
mod handle;
// Only the tokio driver sends messages that are held.
#[cfg_attr(not(feature = "tokio"), allow(dead_code))]
mod holding;
mod leased;
mod links;
mod membership;
mod messages;
mod options;
mod patience;
mod peer;
mod producer;
mod producing;
mod reading;
mod receive_buffer;
mod stream;
#[cfg(feature = "tls")]
mod tls;
#[cfg(feature = "tokio")]
pub mod tokio_driver;
mod watching;

pub use batching::{Message, Original, Partitioner};
pub use blocking::Client;
pub use connection::Connection;
pub use consumer::Consumer;
pub use core::{CoreError, Correlation, IN_FLIGHT_MAX, ProtocolCore};
pub use credentials::{Credentials, CredentialsError};
pub use dispatch::{BatchOutcome, BatchResult, ProducerCounters};
pub use error::ClientError;
pub use handle::{HandleError, ReceiptHandle};
pub use leased::{LeasedMessage, UndecidedMessage};
pub use messages::{DamagedRange, Delivery, MessageBatch, QueueName, ReceivedMessage, ReceivedMessages};
pub use options::{
    ConnectOptions, ConsumerOptions, LostBatches, MessageSource, OutOfRange, ProducerOptions, RetryOrder,
    Start, Timeouts, Until,
};
pub use peer::Expected;
pub use producer::Producer;
#[cfg(feature = "tls")]
pub use tls::{Tls, TlsOptionsError, TlsStream};
