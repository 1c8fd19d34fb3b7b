//! The client for programs that run on tokio. The same core, batching and fetching as the blocking client, moved by
//! tokio's sockets and timers; nothing is spawned, so that dropping a value ends what it did.
//!
//! Calls can be cancelled: what was taken stays taken, what was read stays in the buffer, and the next call goes on.
//!
//! ```no_run
//! use turbopump::client::tokio_driver::{AsyncClient, AsyncConsumer, AsyncProducer};
//! use turbopump::client::{ConsumerOptions, Delivery, Message, ProducerOptions, Timeouts, Until};
//!
//! #[tokio::main(flavor = "current_thread")]
//! async fn main() -> Result<(), Box<dyn std::error::Error>> {
//!     let client = AsyncClient::connect("127.0.0.1:10911", Timeouts::default()).await?;
//!     let mut producer = AsyncProducer::new(client, "orders".parse()?, ProducerOptions::default()).await?;
//!     producer.send(&Message { key: b"customer 1", body: b"an order", ..Message::default() }).await?;
//!     producer.flush().await?;
//!
//!     let client = AsyncClient::connect("127.0.0.1:10911", Timeouts::default()).await?;
//!     let options = ConsumerOptions { until: Until::End, ..ConsumerOptions::default() };
//!     let mut consumer = AsyncConsumer::assign(client, "orders".parse()?, None, None, options).await?;
//!     while let Delivery::Messages(batch) = consumer.next().await? {
//!         for message in batch.messages() {
//!             println!("{}: {} bytes", message.offset, message.body().len());
//!         }
//!     }
//!     Ok(())
//! }
//! ```

mod client;
mod connection;
mod consumer;
mod producer;

pub use client::AsyncClient;
pub use connection::AsyncConnection;
pub use consumer::AsyncConsumer;
pub use producer::AsyncProducer;
