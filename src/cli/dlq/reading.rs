//! Reading the dead letters of a group, queue by queue.

use std::ops::Range;
use std::time::Duration;

use crate::api::{Failure, OffsetSpec, Status, TopicInfo};
use crate::cli::dlq::selection::SelectionArguments;
use crate::cli::error::CommandError;
use crate::cli::message_id::MessageIds;
use crate::cli::output::warn;
use crate::client::{
    Client, ClientError, Consumer, ConsumerOptions, Delivery, OutOfRange, ReceivedMessage, Start, Until,
};
use crate::types::{GroupName, GroupTopic, IdText, QueueKey, QueueNumber, QueueOffset};
use crate::wire::properties::{self, names};

/// How long one look for more may take.
const POLL: Duration = Duration::from_secs(1);

/// One dead letter.
pub struct DeadLetter<'a> {
    pub queue: QueueNumber,
    pub message: ReceivedMessage<'a>,
    /// Of the node.
    pub ids: &'a MessageIds,
    /// It is on its way to another shard.
    pub is_moving: bool,
}

/// The dead letters of one queue that a command is about.
struct Span {
    key: QueueKey,
    from: QueueOffset,
    /// Exclusive.
    until: QueueOffset,
    /// No dead letters any more.
    redriven: Vec<Range<QueueOffset>>,
    moving: Option<QueueOffset>,
}

/// What whoever is given a dead letter says to the next one.
pub enum Next {
    More,
    Enough,
}

impl<'a> DeadLetter<'a> {
    /// Where it is stored.
    pub fn id(&self) -> Option<IdText> {
        self.ids.id(self.queue.shard(self.ids.shard_count()), self.message.location)
    }

    /// The topic that it was sent to first, if it says so.
    pub fn topic(&self) -> Option<&'a str> {
        self.text(names::RETRY_TOPIC).or_else(|| self.text(names::DEAD_LETTER_TOPIC))
    }

    /// How often it was delivered, if it says so.
    pub fn deliveries(&self) -> Option<u64> {
        self.text(names::RECONSUME_TIMES)?.parse().ok()
    }

    /// The id that its producer gave it.
    pub fn unique_id(&self) -> Option<&'a [u8]> {
        properties::get(self.message.properties(), names::UNIQUE_ID)
    }

    fn text(&self, name: &str) -> Option<&'a str> {
        let value = properties::get(self.message.properties(), name)?;
        std::str::from_utf8(value).ok().filter(|text| !text.is_empty())
    }
}

/// Gives `take` each dead letter of a group that is selected, in the order of the queues and of their offsets.
pub fn each_dead_letter(
    mut client: Client,
    group: &GroupName,
    selection: &SelectionArguments,
    mut take: impl FnMut(&DeadLetter<'_>) -> Result<Next, CommandError>,
) -> Result<(), CommandError> {
    let Some(topic) = dead_letter_topic(&mut client, group)? else { return Ok(()) };
    let ids = MessageIds::of(client.shards());
    for queue in 0..topic.queue_count {
        let key = QueueKey { topic: topic.id, queue: QueueNumber(queue) };
        let span = span(&mut client, group, key, selection)?;
        if span.from >= span.until {
            continue;
        }
        let options = ConsumerOptions {
            start: Start::Offset(span.from),
            until: Until::End,
            out_of_range: OutOfRange::First,
            ..ConsumerOptions::default()
        };
        let mut consumer =
            Consumer::assign(client, topic.topic.clone(), Some(vec![key.queue]), None, options)?;
        let next = read(&mut consumer, &span, &ids, selection, &mut take)?;
        client = consumer.close()?;
        if let Next::Enough = next {
            break;
        }
    }
    Ok(())
}

fn read(
    consumer: &mut Consumer,
    span: &Span,
    ids: &MessageIds,
    selection: &SelectionArguments,
    take: &mut impl FnMut(&DeadLetter<'_>) -> Result<Next, CommandError>,
) -> Result<Next, CommandError> {
    loop {
        let batch = match consumer.poll(POLL)? {
            Some(Delivery::Messages(batch)) => batch,
            Some(Delivery::End) => return Ok(Next::More),
            Some(Delivery::Damaged(range)) => {
                let (from, to) = (range.from, range.to);
                warn(format_args!("dead letters {from} to {to} of queue {} cannot be read", span.key.queue));
                continue;
            }
            Some(Delivery::Moved { .. } | Delivery::Rebalanced { .. }) | None => continue,
        };
        for message in batch.messages() {
            if message.offset >= span.until {
                return Ok(Next::More);
            }
            if span.is_redriven(message.offset) {
                continue;
            }
            let is_moving = span.moving == Some(message.offset);
            let letter = DeadLetter { queue: span.key.queue, message, ids, is_moving };
            if selection.wants(&letter)
                && let Next::Enough = take(&letter)?
            {
                return Ok(Next::Enough);
            }
        }
    }
}

impl Span {
    fn is_redriven(&self, offset: QueueOffset) -> bool {
        let at = self.redriven.partition_point(|range| range.end <= offset);
        self.redriven.get(at).is_some_and(|range| range.contains(&offset))
    }
}

/// What is said where a command is about nothing.
pub fn none_selected(group: &GroupName) -> CommandError {
    CommandError::failed(format!("group {group} has no such dead letter"))
}

/// The topic of a group's dead letters; `None` for a group that has never had any. One that nobody knows was mistyped.
fn dead_letter_topic(client: &mut Client, group: &GroupName) -> Result<Option<TopicInfo>, CommandError> {
    let name = GroupTopic::DeadLetters.of(group);
    match client.topic(&name) {
        Err(ClientError::Refused(failure)) if failure.status == Status::TopicNotExist => {}
        found => return Ok(Some(found?)),
    }
    let (status, why) = match client.describe_group(group) {
        Ok(_) => return Ok(None),
        Err(ClientError::Refused(failure)) if failure.status == Status::GroupNotExist => {
            (failure.status, "nobody knows such a group".to_owned())
        }
        // An access key that may not ask this.
        Err(ClientError::Refused(_)) => (Status::TopicNotExist, format!("there is no topic {name}")),
        Err(error) => return Err(error.into()),
    };
    let message = format!("group {group} has no dead letters: {why}");
    Err(ClientError::from(Failure::new(status, message)).into())
}

/// Where a queue's dead letters of the selected time begin and end, and which of them are none any more.
fn span(
    client: &mut Client,
    group: &GroupName,
    key: QueueKey,
    selection: &SelectionArguments,
) -> Result<Span, CommandError> {
    let from = selection.from.map_or(OffsetSpec::First, |time| time.spec());
    let until = selection.until.map_or(OffsetSpec::Last, |time| time.spec());
    let (from, until) = (client.find_offset(key, from)?, client.find_offset(key, until)?);
    let mut span = Span { key, from, until, redriven: Vec::new(), moving: None };
    let mut next = Some(from);
    while let Some(from) = next {
        let told = client.redriven_ranges(group, key.queue, from)?;
        span.redriven.extend(told.ranges);
        span.moving = told.moving;
        // A broker that sends one backwards would keep us for ever.
        next = told.next.filter(|next| *next > from);
    }
    Ok(span)
}
