//! Sends messages, and learns which of them are safe.
//!
//!     cargo run --example publish -- 127.0.0.1:10911

use std::error::Error;

use turbopump::client::{BatchOutcome, Client, Message, Producer, ProducerOptions, Timeouts};

/// Sends `count` messages to topic `orders` and returns how many were acknowledged.
pub fn run(server: &str, count: u32) -> Result<u64, Box<dyn Error>> {
    let client = Client::connect(server, Timeouts::default())?;
    let mut producer = Producer::new(client, "orders".parse()?, ProducerOptions::default())?;
    for number in 0..count {
        // Messages of one key are in one queue, in the order of sending.
        let key = format!("customer-{}", number % 10);
        let body = format!("order {number}");
        let message =
            Message { key: key.as_bytes(), tag: b"fruit", body: body.as_bytes(), ..Message::default() };
        // It leaves with its batch, and waits here when too much is unanswered.
        producer.send(&message)?;
    }
    // Everything has an answer after this.
    producer.flush()?;
    while let Some(result) = producer.take_result() {
        match result.outcome {
            BatchOutcome::Acknowledged { .. } => {}
            // A batch that was refused is not stored. What is unknown may be: sent again, it may be there twice.
            outcome => eprintln!("messages from {} on: {outcome:?}", result.first_sequence),
        }
    }
    Ok(producer.acknowledged_prefix())
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:10911".to_owned());
    println!("{} messages are flushed to the device", run(&server, 1_000)?);
    Ok(())
}
