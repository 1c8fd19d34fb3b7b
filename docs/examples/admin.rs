//! What an operator's program does: topics, groups, and how far behind they are.
//!
//!     cargo run --example admin -- 127.0.0.1:10911

use std::error::Error;
use std::time::Duration;

use turbopump::api::{GroupSettings, OffsetSpec, ResetGroup, ResetTarget, Status, TopicChange};
use turbopump::client::{Client, ClientError, Timeouts};
use turbopump::types::{GroupName, Retention, TopicName};

/// Makes topics `orders` and `invoices` where they are missing, keeps group `billing` to three deliveries, and puts it back to
/// the first message. Returns the group's lag then.
pub fn run(server: &str) -> Result<u64, Box<dyn Error>> {
    let mut client = Client::connect(server, Timeouts::default())?;
    for name in ["orders", "invoices"] {
        let topic: TopicName = name.parse()?;
        let retention = Some(Retention::Age(Duration::from_secs(24 * 3600)));
        match client.create_topic(TopicChange { topic, queues: Some(4), retention, level: None }) {
            Ok(()) => {}
            Err(ClientError::Refused(failure)) if failure.status == Status::TopicExists => {}
            Err(error) => return Err(error.into()),
        }
    }
    for topic in client.list_topics()? {
        println!("{}: {} queues", topic.topic, topic.queue_count);
    }
    let group: GroupName = "billing".parse()?;
    client.alter_group(GroupSettings {
        group: group.clone(),
        deliveries_max: Some(3),
        lease: None,
        ordered_lease: None,
    })?;
    let target = ResetTarget::Every(OffsetSpec::First);
    client.reset_group(ResetGroup { group: group.clone(), topic: "orders".parse()?, target })?;
    let described = client.describe_group(&group)?;
    Ok(described.queues.iter().map(|queue| queue.lag).sum())
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = std::env::args().nth(1).unwrap_or_else(|| "127.0.0.1:10911".to_owned());
    println!("group billing is {} messages behind", run(&server)?);
    Ok(())
}
