//! Receivers, which acknowledge part of what they get.

use std::io::Result;
use std::sync::Mutex;

use turbopump::testing::Random;

use super::books::Leased;
use super::connection::{Connection, Wanted, now_ms};
use super::{ORDERED_TOPIC, PLAIN_TOPIC, Scene, TRANSACTION_TOPIC};

/// Deliveries that wait to be acknowledged, over the deaths of the broker.
#[derive(Default)]
pub struct Kept(Mutex<Vec<Leased>>);

const GROUP: &str = "readers";
const ORDERED_GROUP: &str = "followers";

impl Kept {
    fn add(&self, leased: impl IntoIterator<Item = Leased>) {
        self.0.lock().expect("no holder has panicked").extend(leased);
    }

    fn take(&self, count: usize) -> Vec<Leased> {
        let mut kept = self.0.lock().expect("no holder has panicked");
        let from = kept.len().saturating_sub(count);
        kept.split_off(from)
    }
}

/// A member of a group, on the topics of plain messages and of transactions.
pub fn unordered(scene: &Scene<'_>, kept: &Kept, mut random: Random) -> Result<()> {
    let mut connection = Connection::open(scene.address)?;
    while scene.goes_on() {
        // A handle of an earlier life counts as long as its lease runs.
        let old = kept.take(16);
        if !old.is_empty() {
            for topic in [PLAIN_TOPIC, TRANSACTION_TOPIC] {
                let of_topic = |lease: &&Leased| super::topic_of(lease.tag.kind) == topic;
                let old: Vec<_> = old.iter().filter(of_topic).cloned().collect();
                acknowledge(scene, &mut connection, topic, GROUP, &old)?;
            }
        }
        let topic = *random.pick(&[PLAIN_TOPIC, PLAIN_TOPIC, TRANSACTION_TOPIC]);
        let count = random.range(1..=16) as usize;
        let wait_seconds = if scene.drains { 0 } else { random.range(0..=1) };
        let wanted = Wanted { topic, group: GROUP, mode: "", count, wait_seconds };
        let asked_ms = now_ms();
        let messages = connection.receive(wanted)?;
        let mut leased = scene.books.delivered(messages, asked_ms);
        if !scene.drains {
            random.shuffle(&mut leased);
            match random.range(0..10) {
                0 => leased.clear(),
                1 => kept.add(leased.drain(..)),
                2 => kept.add(leased.drain(leased.len() / 2..)),
                3 => leased.truncate(leased.len() / 2),
                _ => {}
            }
        }
        acknowledge(scene, &mut connection, topic, GROUP, &leased)?;
    }
    Ok(())
}

/// A member of a group that gets its messages in order.
pub fn ordered(scene: &Scene<'_>, mut random: Random) -> Result<()> {
    let mut connection = Connection::open(scene.address)?;
    while scene.goes_on() {
        let count = if scene.drains { 16 } else { random.range(1..=16) as usize };
        let wait_seconds = if scene.drains { 0 } else { random.range(0..=1) };
        let wanted =
            Wanted { topic: ORDERED_TOPIC, group: ORDERED_GROUP, mode: "order", count, wait_seconds };
        let asked_ms = now_ms();
        let messages = connection.receive(wanted)?;
        let mut leased = scene.books.delivered(messages, asked_ms);
        if !scene.drains {
            match random.range(0..12) {
                0 => leased.clear(),
                1 => leased.truncate(leased.len() / 2),
                2 => drop(leased.drain(..leased.len() / 2)),
                _ => {}
            }
        }
        acknowledge(scene, &mut connection, ORDERED_TOPIC, ORDERED_GROUP, &leased)?;
    }
    Ok(())
}

fn acknowledge(
    scene: &Scene<'_>,
    connection: &mut Connection,
    topic: &str,
    group: &str,
    leased: &[Leased],
) -> Result<()> {
    if leased.is_empty() {
        return Ok(());
    }
    let was_asked = scene.books.asked_before(leased);
    scene.books.asking(leased);
    let handles: Vec<_> = leased.iter().map(|lease| lease.handle.as_str()).collect();
    let refused = connection.acknowledge(topic, group, "", &handles)?;
    scene.books.acknowledged(leased, &refused, &was_asked);
    Ok(())
}
