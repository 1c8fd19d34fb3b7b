//! Reads as a member of a group: its members share a topic's queues, and go on where the group has committed.
//!
//!     cargo run --example consume -- 127.0.0.1:10911

use std::error::Error;
use std::time::Duration;

use turbopump::client::{Client, Consumer, ConsumerOptions, Delivery, Timeouts, Until};

/// Reads topic `orders` for group `billing` to its present end; returns the bodies in the order of their queues.
pub fn run(server: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let client = Client::connect(server, Timeouts::default())?;
    // Without `until` it waits for further messages for ever.
    let options = ConsumerOptions { until: Until::End, ..ConsumerOptions::default() };
    let mut consumer = Consumer::subscribe(client, "billing".parse()?, vec!["orders".parse()?], options)?;
    let mut bodies = Vec::new();
    loop {
        match consumer.poll(Duration::from_secs(1))? {
            Some(Delivery::Messages(batch)) => {
                for message in batch.messages() {
                    bodies.push(String::from_utf8_lossy(message.body()).into_owned());
                }
                // What is committed is read by nobody of the group again; what is not, is, after a crash.
                consumer.commit()?;
            }
            // Another member has come or gone. What was read of a queue that was taken away is committed by now.
            Some(Delivery::Rebalanced { assigned, revoked }) => {
                eprintln!("{} queues more, {} fewer", assigned.len(), revoked.len());
            }
            Some(Delivery::Damaged(range)) => eprintln!("{range:?} cannot be read"),
            Some(Delivery::Moved { queue, from, to }) => {
                eprintln!("{queue:?}: messages {from} to {to} have gone by their age");
            }
            Some(Delivery::End) => break,
            None => {}
        }
    }
    consumer.close()?;
    Ok(bodies)
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:10911".to_owned());
    run(&server)?.iter().for_each(|body| println!("{body}"));
    Ok(())
}
