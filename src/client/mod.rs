//! The client library: native protocol, over a blocking driver on `std` and, with the feature `tokio`, an asynchronous
//! one. [`ProtocolCore`] knows the protocol and does no I/O.

mod batching;
mod blocking;
mod calls;
mod commands;
mod connection;
mod consumer;
mod core;
mod dispatch;
mod error;
mod fetching;
mod handle;
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
#[cfg(feature = "tokio")]
pub mod tokio_driver;
mod watching;

pub use batching::{Message, Partitioner};
pub use blocking::Client;
pub use connection::Connection;
pub use consumer::Consumer;
pub use core::{CoreError, Correlation, IN_FLIGHT_MAX, ProtocolCore};
pub use dispatch::{BatchOutcome, BatchResult, ProducerCounters};
pub use error::ClientError;
pub use handle::{HandleError, ReceiptHandle};
pub use leased::{LeasedMessage, UndecidedMessage};
pub use messages::{DamagedRange, Delivery, MessageBatch, QueueName, ReceivedMessage, ReceivedMessages};
pub use options::{ConsumerOptions, OutOfRange, ProducerOptions, RetryOrder, Start, Timeouts, Until};
pub use peer::Expected;
pub use producer::Producer;
