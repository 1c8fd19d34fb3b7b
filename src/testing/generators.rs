//! Names, messages and batches of every shape, from a seed. Shapes lean to the edges: empty, full, and one byte around
//! a block, because that is where layouts break.

use std::net::{IpAddr, SocketAddr};

use super::Random;
use crate::limits::{BLOCK_BYTES, BODY_BYTES_MAX, GROUP_NAME_BYTES_MAX, TOPIC_NAME_BYTES_MAX};
use crate::types::{GroupName, Timestamp, TopicName};
use crate::wire::batch::BatchBuilder;
use crate::wire::origin::{Attributes, Origin};
use crate::wire::record::Record;

/// A message that owns its parts.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Message {
    pub key: Vec<u8>,
    pub tag: Vec<u8>,
    pub properties: Vec<u8>,
    pub body: Vec<u8>,
    pub born_delta_ms: i32,
    pub attributes: Attributes,
    pub origin: Option<Origin>,
}

impl Message {
    pub fn as_record(&self) -> Record<'_> {
        Record {
            key: &self.key,
            tag: &self.tag,
            properties: &self.properties,
            body: &self.body,
            born_delta_ms: self.born_delta_ms,
            attributes: self.attributes,
            origin: self.origin,
        }
    }
}

/// A length up to `max`: small ones more often than large ones, edges and blocks' borders most often.
pub fn length(random: &mut Random, max: usize) -> usize {
    let length = match random.index(8) {
        0 => 0,
        1 => max,
        2 => (BLOCK_BYTES * random.range(1..=4) as usize + random.index(3)).saturating_sub(1),
        _ => {
            let bits = usize::BITS - max.leading_zeros();
            let magnitude = random.range(0..=u64::from(bits));
            random.range(0..=(1u64 << magnitude) - 1) as usize
        }
    };
    length.min(max)
}

pub fn topic_name(random: &mut Random) -> TopicName {
    name(random, TOPIC_NAME_BYTES_MAX).parse().expect("a name of allowed characters")
}

pub fn group_name(random: &mut Random) -> GroupName {
    name(random, GROUP_NAME_BYTES_MAX).parse().expect("a name of allowed characters")
}

/// A message whose body has at most `body_bytes_max` bytes.
pub fn message(random: &mut Random, body_bytes_max: usize) -> Message {
    assert!(body_bytes_max <= BODY_BYTES_MAX, "a body of {body_bytes_max} bytes is refused anyway");
    let body_bytes = length(random, body_bytes_max);
    // Text that a broker takes as a key or a tag: see `wire::text`.
    let part = |random: &mut Random| {
        let bytes = if random.chance(0.5) { 0 } else { length(random, 64) };
        (0..bytes).map(|_| *random.pick(b"abcdefghijklmnopqrstuvwxyz0123456789-_.")).collect()
    };
    Message {
        key: text(part(random)),
        tag: text(part(random)),
        properties: properties(random),
        body: random.bytes(body_bytes),
        born_delta_ms: random.range(0..=2_000) as i32 - 1_000,
        attributes: Attributes { committed: random.chance(0.2), ..Attributes::default() },
        origin: origin(random),
    }
}

/// None mostly, else one with an address of either kind.
fn origin(random: &mut Random) -> Option<Origin> {
    let address = match random.index(8) {
        0 => IpAddr::from((random.number() as u32).to_be_bytes()),
        1 => IpAddr::from((u128::from(random.number()) << 64 | 1).to_be_bytes()),
        _ => return None,
    };
    let born = SocketAddr::new(address, random.number() as u16);
    Some(Origin::new(random.number() as u32, random.number() as u16, born))
}

/// Some messages, `count_max` at most and at least one.
pub fn messages(random: &mut Random, count_max: usize, body_bytes_max: usize) -> Vec<Message> {
    let count = length(random, count_max).max(1);
    (0..count).map(|_| message(random, body_bytes_max)).collect()
}

/// The batch that holds these messages, as a client would send it. They have to fit one.
pub fn batch(messages: &[Message], born_time: Timestamp) -> Vec<u8> {
    let mut builder = BatchBuilder::new(born_time);
    for message in messages {
        let record = message.as_record();
        assert!(builder.fits(&record), "{} messages do not fit one batch", messages.len());
        builder.push(&record);
    }
    builder.finish()
}

/// Bytes as a key or a tag may have them: signs that can be seen, and no separator.
fn text(bytes: Vec<u8>) -> Vec<u8> {
    const SIGNS: u8 = b'~' - b'!' + 1;
    let sign = |byte: u8| if byte % SIGNS + b'!' == b'|' { b'-' } else { byte % SIGNS + b'!' };
    bytes.into_iter().map(sign).collect()
}

fn name(random: &mut Random, bytes_max: usize) -> String {
    const CHARACTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789%|_-";
    let bytes = length(random, bytes_max).max(1);
    (0..bytes).map(|_| char::from(*random.pick(CHARACTERS))).collect()
}

/// RocketMQ's text form: name \x01 value \x02, repeated.
fn properties(random: &mut Random) -> Vec<u8> {
    let mut text = Vec::new();
    for _ in 0..random.index(4) {
        text.extend_from_slice(name(random, 12).as_bytes());
        text.push(1);
        text.extend_from_slice(name(random, 40).as_bytes());
        text.push(2);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::batch::CheckedBatch;

    #[test]
    fn generated_batches_are_valid_and_keep_their_messages() {
        let mut random = Random::new(1);
        for _ in 0..100 {
            let messages = messages(&mut random, 20, 10_000);
            let bytes = batch(&messages, Timestamp(1_000_000));
            let checked = CheckedBatch::check(&bytes).expect("a valid batch");
            let bodies: Vec<_> = checked.records().map(|record| record.body().to_vec()).collect();
            assert_eq!(bodies, messages.into_iter().map(|message| message.body).collect::<Vec<_>>());
        }
    }

    #[test]
    fn lengths_reach_every_edge() {
        let mut random = Random::new(2);
        let lengths: Vec<_> = (0..5_000).map(|_| length(&mut random, 20_000)).collect();
        for edge in [0, 1, BLOCK_BYTES - 1, BLOCK_BYTES, BLOCK_BYTES + 1, 20_000] {
            assert!(lengths.contains(&edge), "{edge} never came");
        }
        assert!(lengths.iter().all(|&length| length <= 20_000));
        assert_eq!(length(&mut random, 0), 0);
    }

    #[test]
    fn names_of_all_lengths_are_accepted() {
        let mut random = Random::new(3);
        let lengths: Vec<_> = (0..200).map(|_| topic_name(&mut random).as_str().len()).collect();
        assert!(lengths.contains(&1) && lengths.contains(&TOPIC_NAME_BYTES_MAX));
        assert!((0..200).any(|_| group_name(&mut random).as_str().len() == GROUP_NAME_BYTES_MAX));
    }
}
