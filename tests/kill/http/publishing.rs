//! Publishers of plain, delayed and ordered messages.

use std::io::Result;

use turbopump::testing::Random;

use super::connection::{Connection, now_ms};
use super::tag::Kind;
use super::{ORDERED_KEYS, ORDERED_TOPIC, PLAIN_TOPIC, Scene};

/// Plain messages, with and without sharding keys, and delayed ones.
pub fn plain(scene: &Scene<'_>, sender: u8, mut random: Random) -> Result<()> {
    let mut connection = Connection::open(scene.address)?;
    loop {
        let (kind, due_ms, properties) = match random.range(0..6) {
            0 | 1 => {
                // At once, within this life, or in one of the next.
                let ahead_ms = *random.pick(&[1, 20, 300, 1_500, 4_000]);
                let due_ms = now_ms() + random.range(0..=ahead_ms);
                (Kind::Delayed, due_ms, format!("__STARTDELIVERTIME:{due_ms}|"))
            }
            2 | 3 => (Kind::Plain, 0, format!("__SHARDINGKEY:key{}|", random.range(0..9))),
            _ => (Kind::Plain, 0, format!("name:value{}|", random.range(0..9))),
        };
        let tag = scene.books.sending(kind, sender, due_ms);
        connection.publish(PLAIN_TOPIC, &tag.body(), &properties)?;
        scene.books.published(tag, None);
    }
}

/// Ordered messages of one key, one after the other.
pub fn ordered(scene: &Scene<'_>, key: u8) -> Result<()> {
    let mut connection = Connection::open(scene.address)?;
    let properties = format!("__SHARDINGKEY:{}|", ORDERED_KEYS[usize::from(key)]);
    loop {
        let tag = scene.books.sending(Kind::Ordered, key, 0);
        connection.publish(ORDERED_TOPIC, &tag.body(), &properties)?;
        scene.books.published(tag, None);
    }
}
