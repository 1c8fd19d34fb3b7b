//! Messages that nobody sees yet: one that comes later, and one whose transaction decides.
//!
//!     cargo run --example held_messages -- 127.0.0.1:10911

use std::error::Error;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use turbopump::api::{
    ClientProtocol, Decision, EndTransaction, Filter, Hold, Receive, ReceiveScope, Release,
};
use turbopump::client::{Client, Message, Timeouts};
use turbopump::limits;
use turbopump::types::{GroupName, QueueKey, QueueNumber, Timestamp, TopicName};

/// Sends a message that is to come in a second, and two halves of transactions, of which one is committed. Returns what group
/// `packing` has received of topic `invoices` in the end.
pub fn run(server: &str) -> Result<Vec<String>, Box<dyn Error>> {
    let mut client = Client::connect(server, Timeouts::default())?;
    let topic: TopicName = "invoices".parse()?;
    let group: GroupName = "packing".parse()?;
    let key = QueueKey { topic: client.topic(&topic)?.id, queue: QueueNumber(0) };

    client.hold(hold(key, "comes in a second", Release::After(Duration::from_secs(1)))?)?;

    // A producer that has not decided in time is asked for its decision: see `Client::receive_halves`.
    let producer_group: Option<GroupName> = Some("shop".parse()?);
    for (body, decision) in [("was committed", Decision::Commit), ("was rolled back", Decision::Rollback)] {
        let immunity = Duration::from_secs(60);
        let half = Release::Commit { producer_group: producer_group.clone(), immunity };
        let receipt = client.hold(hold(key, body, half)?)?.receipt;
        client.end_transaction(EndTransaction {
            receipt,
            producer_group: producer_group.clone(),
            decision,
        })?;
    }

    let mut bodies = Vec::new();
    while bodies.len() < 2 {
        let messages = client.receive(Receive {
            group: group.clone(),
            topic: topic.clone(),
            scope: ReceiveScope::Anywhere,
            filter: Filter::default(),
            count: 16,
            bytes_max: limits::RECEIVE_BYTES_MAX as u32,
            wait: Duration::from_secs(10),
            lease: None,
            ordered: false,
            protocol: ClientProtocol::Native,
        })?;
        bodies.extend(messages.iter().map(|message| String::from_utf8_lossy(message.body()).into_owned()));
        // What is not acknowledged before its lease ends comes again, to anybody of the group.
        let receipts: Vec<_> = messages.iter().map(|message| message.receipt).collect();
        if !receipts.is_empty() {
            client.acknowledge(&group, &receipts)?;
        }
    }
    bodies.sort();
    Ok(bodies)
}

fn hold(key: QueueKey, body: &str, release: Release) -> Result<Hold, Box<dyn Error>> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let message = Message { body: body.as_bytes(), ..Message::default() };
    let batch = message.to_batch(Timestamp(u64::try_from(now.as_millis())?))?;
    Ok(Hold { key, level: None, batch, release })
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:10911".to_owned());
    run(&server)?.iter().for_each(|body| println!("{body}"));
    Ok(())
}
