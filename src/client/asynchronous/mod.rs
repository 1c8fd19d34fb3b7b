//! The client for programs whose tasks share it: on tokio, with values that are cheap to clone.
//!
//! * [`Client`] asks and administers: topics, groups, instances, the node's state, leased messages.
//! * [`Producer`] sends to a topic. Messages of all its clones gather into batches; each has a receipt of its own.
//! * [`MessageStream`] reads topics, alone or as a member of a group.
//!
//! What becomes of a call whose future is dropped stands at each of them. Programs that want to drive batches and polls
//! themselves, without a task that is spawned, find what is below in [`tokio_driver`](super::tokio_driver).
//!
//! ```no_run
//! use std::time::Duration;
//! use turbopump::client::asynchronous::{Client, Message};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = Client::connect("127.0.0.1:10911").await?;
//!
//!     let orders = client.producer("orders").await?;
//!     let message = Message::new(b"three apples").key("customer-17").property("region", "north");
//!     let receipt = orders.send(message).await?;
//!     println!("queue {}, offset {:?}, id {}", receipt.queue, receipt.offset, receipt.id);
//!     orders.send(Message::new("a reminder").delay(Duration::from_secs(60))).await?;
//!
//!     let mut messages = client.subscribe("billing", &["orders"]).await?;
//!     while let Some(message) = messages.next().await {
//!         let message = message?;
//!         println!("{}: {} bytes", message.offset, message.body().len());
//!         messages.commit().await?;
//!     }
//!     Ok(())
//! }
//! ```

mod backoff;
mod client;
mod message;
mod producer;
mod sending;
mod stream;
mod waiting;

pub use client::Client;
pub use message::{Message, OwnedMessage};
pub use producer::{PendingSend, Producer, SendReceipt};
pub use stream::MessageStream;
