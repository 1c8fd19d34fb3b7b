//! Where the copies of a queue end, as the target's own messages tell: after a loss, and at the start.
//!
//! A place is kept by both brokers, first by the target and then by the source, once what it counts is durable. So after a
//! death what is kept may be behind what was copied in two ways:
//!
//! 1. More was stored than the target's place says. What is there from that place on is compared, message by message, with what
//!    the source has from its own: as long as they are the same, they were copied.
//! 2. The target's place is newer than the source's: the mirror died between the two. Then what is before the target's place is
//!    no copy of what is before the source's, and is looked for behind it.
//!
//! And a broker may have been brought back to an earlier state, as by a backup:
//!
//! 3. The target has less than the source's place says. What it has last is looked for at the source, however far back.
//! 4. The source has less than the target: what it has last before its place is looked for at the target.
//!
//! Where neither is found nothing is known, and nothing is copied unless somebody says so.
//!
//! Messages are the same when every part is: key, tag, properties, body, attributes, origin, and time of birth. Only where all of
//! them are the same for messages in a row can the second and third case not be told to the message; then some of them are copied
//! twice. Nothing is ever left out.

use std::collections::VecDeque;
use std::time::Duration;

use sha2::{Digest, Sha256};

use super::ends::{EndError, Ends};
use super::lane::{Place, UNKEPT_MESSAGES_MAX};
use crate::api::OffsetSpec;
use crate::client::{
    Client, ClientError, Consumer, ConsumerOptions, Delivery, OutOfRange, ReceivedMessage, Start, Until,
};
use crate::types::{QueueKey, QueueNumber, QueueOffset, TopicName};

/// How long a broker may take to hand out the next messages of those that it has.
const READ_PATIENCE: Duration = Duration::from_secs(30);
/// More than this was never copied ahead of a place.
const LOOKED_THROUGH_MAX: u64 = 2 * UNKEPT_MESSAGES_MAX;

/// All that a message says, in short.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Fingerprint([u8; 32]);

/// What the target's queue was found to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Aligned {
    pub place: Place,
    /// Where the target's queue ends.
    pub end: QueueOffset,
    /// Messages that were found there, and are copied.
    pub found: u64,
    /// Messages there that are no copies: others write to it.
    pub foreign: u64,
    pub kept: Kept,
}

/// What the two places that were kept turned out to be to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// What is before one is a copy of what is before the other, or the target's is the newer one by a little.
    Together,
    /// The target has less than it had.
    TargetBehind,
    /// The source has less than it had.
    SourceBehind,
    /// Neither has what the other has last.
    Unknown,
}

/// A queue of one of the brokers, over connections of its own.
struct History<'a> {
    client: &'a Client,
    topic: &'a TopicName,
    queue: QueueNumber,
}

/// Finds out how far a queue was copied, beginning with what is kept.
pub fn align(ends: &Ends, topic: &TopicName, queue: QueueNumber, kept: Place) -> Result<Aligned, EndError> {
    let source = History { client: &ends.source, topic, queue };
    let target = History { client: &ends.target, topic, queue };
    let (place, kept) = together(&source, &target, kept)?;
    let end = target.end().map_err(EndError::target)?;
    let mut aligned = Aligned { place, end, found: 0, foreign: 0, kept };
    let behind = end.0.saturating_sub(place.target.0);
    if behind == 0 {
        return Ok(aligned);
    }
    let mut copied = VecDeque::new();
    source
        .read(place.source, behind.min(LOOKED_THROUGH_MAX), &mut |offset, fingerprint| {
            copied.push_back((offset, fingerprint));
        })
        .map_err(EndError::source)?;
    let mut compare = |offset: QueueOffset, fingerprint| match copied.front() {
        Some((source, wanted)) if *wanted == fingerprint => {
            aligned.place = Place { source: source.advance(1), target: offset.advance(1) };
            aligned.found += 1;
            copied.pop_front();
        }
        _ => aligned.foreign += 1,
    };
    target.read(place.target, behind, &mut compare).map_err(EndError::target)?;
    Ok(aligned)
}

/// Where the source's queue was copied up to, by what the target has before its place.
fn together(source: &History<'_>, target: &History<'_>, kept: Place) -> Result<(Place, Kept), EndError> {
    if let Pair::Matches = pair(source, target, kept)? {
        return Ok((kept, Kept::Together));
    }
    let from = |source| Place { source, ..kept };
    if let Some(count) = later(source, target, kept)? {
        return Ok((from(kept.source.advance(count)), Kept::Together));
    }
    if let Some(copy) = target.before(kept.target).map_err(EndError::target)? {
        if let Some(offset) = source.find_back(kept.source, copy).map_err(EndError::source)? {
            return Ok((from(offset.advance(1)), Kept::TargetBehind));
        }
        if let Some(offset) = source.find_ahead(kept.source, copy).map_err(EndError::source)? {
            return Ok((from(offset.advance(1)), Kept::Together));
        }
    }
    let Some(copied) = source.before(kept.source).map_err(EndError::source)? else {
        // There is nothing that could be left out.
        return Ok((kept, Kept::Together));
    };
    let found = target.find_back(kept.target, copied).map_err(EndError::target)?;
    Ok((kept, if found.is_some() { Kept::SourceBehind } else { Kept::Unknown }))
}

/// Whether what is before a place at one broker is a copy of what is before it at the other.
enum Pair {
    /// It is, or one of the two is not there any more.
    Matches,
    Differs,
}

fn pair(source: &History<'_>, target: &History<'_>, kept: Place) -> Result<Pair, EndError> {
    let Some(copy) = target.before(kept.target).map_err(EndError::target)? else { return Ok(Pair::Matches) };
    let copied = source.before(kept.source).map_err(EndError::source)?;
    let matches = match copied {
        Some(copied) => copied == copy,
        // It was deleted; or nothing was copied, as the place says, and others wrote what is at the target.
        None => kept.source > QueueOffset::ZERO,
    };
    Ok(if matches { Pair::Matches } else { Pair::Differs })
}

/// How many messages from the source's place on are those right before the target's.
fn later(source: &History<'_>, target: &History<'_>, kept: Place) -> Result<Option<u64>, EndError> {
    let from = QueueOffset(kept.target.0.saturating_sub(LOOKED_THROUGH_MAX));
    let count = kept.target.0 - from.0;
    let mut before = Vec::new();
    target
        .read(from, count, &mut |offset, fingerprint| {
            if offset < kept.target {
                before.push(fingerprint);
            }
        })
        .map_err(EndError::target)?;
    let mut behind = Vec::new();
    source
        .read(kept.source, before.len() as u64, &mut |_, fingerprint| behind.push(fingerprint))
        .map_err(EndError::source)?;
    Ok(overlap(&before, &behind).map(|count| count as u64))
}

/// The least count of which the last ones of `before` are the first ones of `behind`.
fn overlap(before: &[Fingerprint], behind: &[Fingerprint]) -> Option<usize> {
    let most = before.len().min(behind.len());
    (1..=most).find(|&count| before[before.len() - count..] == behind[..count])
}

impl History<'_> {
    /// Where the queue ends.
    fn end(&self) -> Result<QueueOffset, ClientError> {
        let mut client = self.client.another()?;
        let topic = client.topic(self.topic)?.id;
        client.find_offset(QueueKey { topic, queue: self.queue }, OffsetSpec::Last)
    }

    /// The message right before an offset, if it can be read.
    fn before(&self, offset: QueueOffset) -> Result<Option<Fingerprint>, ClientError> {
        let Some(wanted) = offset.0.checked_sub(1) else { return Ok(None) };
        let mut found = None;
        self.read(QueueOffset(wanted), 1, &mut |at, fingerprint| {
            if at.0 == wanted {
                found = Some(fingerprint);
            }
        })?;
        Ok(found)
    }

    /// The last place of a message before an offset; of equal ones in a row, the first one.
    fn find_back(
        &self,
        before: QueueOffset,
        wanted: Fingerprint,
    ) -> Result<Option<QueueOffset>, ClientError> {
        let (mut end, mut found) = (before, None);
        while end > QueueOffset::ZERO {
            let from = QueueOffset(end.0.saturating_sub(LOOKED_THROUGH_MAX));
            let window = self.window(from, end)?;
            for (offset, fingerprint) in window.iter().rev() {
                match (*fingerprint == wanted, found) {
                    (true, _) => found = Some(*offset),
                    (false, Some(_)) => return Ok(found),
                    (false, None) => {}
                }
            }
            // What is before the queue's first message was deleted.
            if window.first().is_none_or(|(first, _)| *first > from) {
                break;
            }
            end = from;
        }
        Ok(found)
    }

    /// The first place of a message from an offset on.
    fn find_ahead(&self, from: QueueOffset, wanted: Fingerprint) -> Result<Option<QueueOffset>, ClientError> {
        let (mut from, end) = (from, self.end()?);
        while from < end {
            let to = end.min(from.advance(LOOKED_THROUGH_MAX));
            let window = self.window(from, to)?;
            if let Some((offset, _)) = window.iter().find(|(_, fingerprint)| *fingerprint == wanted) {
                return Ok(Some(*offset));
            }
            from = to;
        }
        Ok(None)
    }

    fn window(
        &self,
        from: QueueOffset,
        to: QueueOffset,
    ) -> Result<Vec<(QueueOffset, Fingerprint)>, ClientError> {
        let mut window = Vec::new();
        self.read(from, to.0 - from.0, &mut |offset, fingerprint| {
            if offset < to {
                window.push((offset, fingerprint));
            }
        })?;
        Ok(window)
    }

    /// Tells of messages from an offset on, up to the queue's end or so many. What was deleted or is damaged is passed over.
    fn read(
        &self,
        from: QueueOffset,
        most: u64,
        each: &mut dyn FnMut(QueueOffset, Fingerprint),
    ) -> Result<(), ClientError> {
        let options = ConsumerOptions {
            start: Start::Offset(from),
            until: Until::End,
            out_of_range: OutOfRange::First,
            fetch_wait: Duration::ZERO,
            ..ConsumerOptions::default()
        };
        let client = self.client.another()?;
        let mut consumer =
            Consumer::assign(client, self.topic.clone(), Some(vec![self.queue]), None, options)?;
        let mut left = most;
        loop {
            match consumer.poll(READ_PATIENCE)? {
                Some(Delivery::Messages(batch)) => {
                    for message in batch.messages() {
                        if left == 0 {
                            return Ok(());
                        }
                        each(message.offset, Fingerprint::of(&message));
                        left -= 1;
                    }
                }
                Some(Delivery::Damaged(_) | Delivery::Moved { .. } | Delivery::Rebalanced { .. }) => {}
                Some(Delivery::End) => return Ok(()),
                None => {
                    let address = self.client.server().to_owned();
                    return Err(ClientError::Timeout { address, waited: READ_PATIENCE });
                }
            }
        }
    }
}

impl Fingerprint {
    fn of(message: &ReceivedMessage<'_>) -> Self {
        let mut hash = Sha256::new();
        for part in [message.key(), message.tag(), message.properties(), message.body()] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        let (attributes, origin) = (message.attributes(), message.origin());
        hash.update([attributes.encoding as u8, u8::from(attributes.committed)]);
        let origin =
            origin.map(|origin| format!("{} {} {}", origin.born, origin.flag, origin.deliveries_before));
        hash.update(origin.unwrap_or_default());
        hash.update(message.born_time.0.to_le_bytes());
        Self(hash.finalize().into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn prints(text: &str) -> Vec<Fingerprint> {
        text.bytes().map(|byte| Fingerprint([byte; 32])).collect()
    }

    #[test]
    fn what_was_copied_between_two_places_is_found() {
        for (before, behind, count) in [
            ("abcde", "defg", Some(2)),
            ("abcde", "efg", Some(1)),
            ("abc", "abc", Some(3)),
            ("xaa", "aab", Some(1)),
            ("abcde", "fgh", None),
            ("", "abc", None),
            ("abc", "", None),
        ] {
            assert_eq!(overlap(&prints(before), &prints(behind)), count, "{before} {behind}");
        }
    }
}
