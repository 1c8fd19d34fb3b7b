//! Publishers of transactions, and the one that is asked about the undecided.

use std::io::Result;

use turbopump::testing::Random;

use super::books::Decision;
use super::connection::{Connection, Wanted, now_ms};
use super::tag::{Kind, Tag};
use super::{Scene, TRANSACTION_TOPIC};

const GROUP: &str = "producers";
const PROPERTIES: &str = "__TransCheckT:1|";

/// Sends halves, decides on most of them, and on some of an earlier life.
pub fn publisher(scene: &Scene<'_>, sender: u8, mut random: Random) -> Result<()> {
    let mut connection = Connection::open(scene.address)?;
    if let Some((tag, handle)) = scene.books.old_half(sender) {
        decide(scene, &mut connection, tag, &handle, &mut random)?;
    }
    loop {
        let tag = scene.books.sending(Kind::Half, sender, 0);
        let handle = connection.publish(TRANSACTION_TOPIC, &tag.body(), PROPERTIES)?;
        let handle = handle.expect("a transaction has a handle");
        scene.books.published(tag, Some(handle.clone()));
        if random.chance(0.8) {
            decide(scene, &mut connection, tag, &handle, &mut random)?;
        }
    }
}

/// Decides on most of what its publisher has left, and in the end on everything.
pub fn asked(scene: &Scene<'_>, mut random: Random) -> Result<()> {
    let mut connection = Connection::open(scene.address)?;
    while scene.goes_on() {
        let count = random.range(1..=16) as usize;
        let wait_seconds = if scene.drains { 0 } else { 1 };
        let wanted = Wanted { topic: TRANSACTION_TOPIC, group: GROUP, mode: "pop", count, wait_seconds };
        let asked_ms = now_ms();
        let messages = connection.receive(wanted)?;
        for (tag, handle) in scene.books.handed_out(&messages, asked_ms) {
            if scene.drains || random.chance(0.7) {
                decide(scene, &mut connection, tag, &handle, &mut random)?;
            }
        }
    }
    Ok(())
}

fn decide(
    scene: &Scene<'_>,
    connection: &mut Connection,
    tag: Tag,
    handle: &str,
    random: &mut Random,
) -> Result<()> {
    let wish = if random.chance(0.7) { Decision::Commit } else { Decision::Rollback };
    let Some((decision, again)) = scene.books.decide(tag, wish) else { return Ok(()) };
    let answer = connection.acknowledge(TRANSACTION_TOPIC, GROUP, decision.mode(), &[handle]);
    scene.books.decided(tag, answer.as_deref().ok(), again);
    answer.map(|_| ())
}
