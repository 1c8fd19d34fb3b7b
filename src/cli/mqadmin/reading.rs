//! Messages that are read from queues: `printMsg` and `consumeMessage`. Nothing is committed.

use clap::Args;

use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, Broker, READABLE, brokers_of};
use crate::cli::mqadmin::arguments::{Shared, Time};
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::print_text;
use crate::cli::mqadmin::look_up::charset;
use crate::cli::mqadmin::message::Message;
use crate::cli::output::{OutputFormat, to_json};
use crate::protocol::remoting::call::pull::{PullCall, PullPlace};
use crate::protocol::remoting::client::Answer;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, ResponseCode};
use crate::types::QueueOffset;
use crate::wire::properties::names;

/// The group that RocketMQ's tools read as, which its brokers know from the start.
pub const TOOLS_GROUP: &str = "TOOLS_CONSUMER";
/// As many messages are asked for at once.
const PULL_MESSAGES: u32 = 32;

#[derive(Debug, Args)]
pub struct PrintArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// How bodies are read
    #[arg(short = 'c', long = "charsetName", value_name = "CHARSET", value_parser = charset)]
    pub charset: Option<String>,
    /// Tags that are asked for: TagA || TagB
    #[arg(short = 's', long = "subExpression", value_name = "TAGS", default_value = "*")]
    pub tags: String,
    /// Only what was stored then or later
    #[arg(short = 'b', long = "beginTimestamp", value_name = "TIME")]
    pub from: Option<Time>,
    /// Only what was stored before
    #[arg(short = 'e', long = "endTimestamp", value_name = "TIME")]
    pub to: Option<Time>,
    /// Another topic, by whose route the queues are found
    #[arg(short = 'l', long = "lmqParentTopic", value_name = "TOPIC")]
    pub route: Option<String>,
    /// Whether to show bodies
    #[arg(short = 'd', long = "printBody", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub with_body: bool,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct ConsumeArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// Name of the broker of the queue
    #[arg(short = 'b', long = "brokerName", value_name = "NAME")]
    pub broker: Option<String>,
    #[arg(short = 'i', long = "queueId", value_name = "N", requires = "broker")]
    pub queue: Option<u32>,
    /// Of the queue, to begin at
    #[arg(short = 'o', long, value_name = "N", requires = "queue")]
    pub offset: Option<u64>,
    /// Read as this group
    #[arg(short = 'g', long = "consumerGroup", value_name = "GROUP", default_value = TOOLS_GROUP)]
    pub group: String,
    /// Only what was stored then or later
    #[arg(short = 's', long = "beginTimestamp", value_name = "TIME")]
    pub from: Option<Time>,
    /// Only what was stored before
    #[arg(short = 'e', long = "endTimestamp", value_name = "TIME")]
    pub to: Option<Time>,
    /// At most so many messages
    #[arg(short = 'c', long = "MessageNumber", value_name = "N", default_value_t = 128, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    #[command(flatten)]
    pub shared: Shared,
}

/// What became of a pull.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullState {
    Found,
    /// Nothing is there yet.
    End,
    /// Nothing of what is asked for.
    Other,
    /// The queue does not reach to there.
    Outside,
}

pub struct Pulled {
    pub state: PullState,
    pub messages: Vec<Message>,
    pub next: i64,
}

impl PullState {
    fn name(self) -> &'static str {
        match self {
            PullState::Found => "FOUND",
            PullState::End => "NO_NEW_MSG",
            PullState::Other => "NO_MATCHED_MSG",
            PullState::Outside => "OFFSET_ILLEGAL",
        }
    }

    fn of(code: i32) -> Option<Self> {
        let states = [
            (ResponseCode::Success, PullState::Found),
            (ResponseCode::PullNotFound, PullState::End),
            (ResponseCode::PullRetryImmediately, PullState::Other),
            (ResponseCode::PullOffsetMoved, PullState::Outside),
        ];
        states.into_iter().find(|(of, _)| of.number() == code).map(|(_, state)| state)
    }
}

/// Pulls once, without waiting for messages.
pub fn pull(admin: &mut Admin, broker: &Broker, call: &PullCall<'_>) -> Result<Pulled, CallError> {
    let read = |answer: &Answer<'_>| {
        let Some(state) = PullState::of(answer.header.code) else {
            let remark = answer.header.remark.as_deref().unwrap_or_default();
            let remark = remark.lines().next().unwrap_or_default().to_owned();
            return Ok(Err((answer.header.code, remark)));
        };
        let place = PullPlace::read(answer).map_err(|error| error.to_string())?;
        let mut messages = match state {
            PullState::Found => Message::read_all(&broker.name, answer.body)?,
            PullState::End | PullState::Other | PullState::Outside => Vec::new(),
        };
        // As RocketMQ's clients note them in each message.
        let noted = [(names::MIN_OFFSET, place.first), (names::MAX_OFFSET, place.end)];
        for message in &mut messages {
            message.properties.extend(noted.map(|(name, offset)| (name.to_owned(), offset.to_string())));
        }
        Ok(Ok(Pulled { state, messages, next: i64::try_from(place.next.0).unwrap_or(i64::MAX) }))
    };
    let pulled = admin.call(&broker.address, request::PULL_MESSAGE, &call.fields(), b"", read)?;
    let refused = |(code, remark)| CallError::Refused { address: broker.address.clone(), code, remark };
    pulled.map_err(refused)
}

/// A queue of a broker's that is read.
struct Queue<'a> {
    topic: &'a str,
    broker: Broker,
    queue: u32,
}

/// Offsets of a queue, up to one that is not meant any more.
#[derive(Clone, Copy)]
struct Range {
    first: i64,
    end: i64,
}

impl Queue<'_> {
    /// As RocketMQ's client for Java writes it.
    fn text(&self) -> String {
        format!(
            "MessageQueue [topic={}, brokerName={}, queueId={}]",
            self.topic, self.broker.name, self.queue
        )
    }

    fn offset(&self, admin: &mut Admin, code: i32, time: Option<i64>) -> Result<i64, CallError> {
        let mut fields =
            vec![("topic", FieldValue::Text(self.topic)), ("queueId", FieldValue::Number(self.queue.into()))];
        fields.extend(time.map(|time| ("timestamp", FieldValue::Number(time))));
        let offset: i64 = admin.ask(&self.broker.address, code, &fields, b"", |answer| {
            answer.header.fields.required_number("offset")
        })?;
        // Brokers of Apache's say -1 where a queue has never had a message.
        if offset >= -1 {
            return Ok(offset);
        }
        let reason = format!("it says that {} has an offset {offset}", self.text());
        Err(CallError::Protocol { address: self.broker.address.clone(), reason })
    }

    /// What was stored between two times, or the whole queue.
    fn range(&self, admin: &mut Admin, from: Option<&Time>, to: Option<&Time>) -> Result<Range, CallError> {
        let mut offset = |time: Option<&Time>, code| match time {
            Some(time) => self.offset(admin, request::SEARCH_OFFSET_BY_TIMESTAMP, Some(time.milliseconds)),
            None => self.offset(admin, code, None),
        };
        Ok(Range { first: offset(from, request::GET_MIN_OFFSET)?, end: offset(to, request::GET_MAX_OFFSET)? })
    }

    fn call<'a>(&'a self, group: &'a str, tags: &'a str, offset: i64, messages: u32) -> PullCall<'a> {
        let offset = QueueOffset(u64::try_from(offset).unwrap_or(0));
        PullCall { group, topic: self.topic, queue: self.queue, offset, messages, tags }
    }
}

/// The queues of a topic that are read, of one broker or of all in the order of their names.
fn queues<'a>(
    admin: &mut Admin,
    topic: &'a str,
    by: &str,
    wanted: Option<&str>,
) -> Result<impl Iterator<Item = Queue<'a>> + use<'a>, CommandError> {
    let route = admin.route(by)?;
    let mut found = Vec::new();
    for broker in brokers_of(&route) {
        let of_broker = route.queues.iter().find(|queues| queues.broker == broker.name);
        let readable = of_broker.filter(|queues| queues.permission & READABLE != 0);
        let count = readable.map_or(0, |queues| queues.read);
        if count > 0 && wanted.is_none_or(|wanted| broker.name == wanted) {
            found.push((broker, count));
        }
    }
    if found.is_empty() {
        let on = wanted.map_or_else(String::new, |broker| format!(" on broker {broker}"));
        return Err(CommandError::failed(format!(
            "topic {by} has no queue that is read{on}: `turbopump topicRoute -t {by}` shows its brokers and permissions"
        )));
    }
    let of_broker = move |(broker, count): (Broker, u32)| {
        (0..count).map(move |queue| Queue { topic, broker: broker.clone(), queue })
    };
    Ok(found.into_iter().flat_map(of_broker))
}

/// Prints what people read; programs get messages only.
fn say(format: OutputFormat, text: &str) -> Result<(), CommandError> {
    if format == OutputFormat::Text { print_text(text) } else { Ok(()) }
}

fn print_messages(format: OutputFormat, messages: &[Message], with_body: bool) -> Result<(), CommandError> {
    let line = |message: &Message| match format {
        OutputFormat::Text => message.line(with_body),
        OutputFormat::Json => to_json(&message.object(with_body)) + "\n",
    };
    print_text(&messages.iter().map(line).collect::<String>())
}

pub fn print_all(of: &PrintArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let format = of.shared.output;
    let topic = of.topic.trim();
    for queue in queues(&mut admin, topic, of.route.as_deref().unwrap_or(topic).trim(), None)? {
        let Range { first, end } = queue.range(&mut admin, of.from.as_ref(), of.to.as_ref())?;
        let name = queue.text();
        say(format, &format!("minOffset={first}, maxOffset={end}, {name}"))?;
        let mut offset = first;
        while offset < end {
            let call = queue.call(TOOLS_GROUP, of.tags.trim(), offset, PULL_MESSAGES);
            let mut pulled = pull(&mut admin, &queue.broker, &call)?;
            let state = pulled.state.name();
            let next = progress(&queue, offset, &pulled)?;
            pulled.messages.retain(|message| message.queue_offset < end);
            match pulled.state {
                PullState::Found => print_messages(format, &pulled.messages, of.with_body)?,
                PullState::Other => {
                    say(format, &format!("{name} no matched msg. status={state}, offset={next}"))?;
                }
                PullState::End | PullState::Outside => {
                    say(format, &format!("{name} print msg finished. status={state}, offset={next}"))?;
                    break;
                }
            }
            offset = next;
        }
        say(format, "--------------------------------------------------------")?;
    }
    Ok(())
}

/// Where the next pull begins: a broker that does not say so would be asked for ever.
fn progress(queue: &Queue<'_>, offset: i64, pulled: &Pulled) -> Result<i64, CommandError> {
    let is_last = matches!(pulled.state, PullState::End | PullState::Outside);
    if pulled.next > offset || is_last {
        return Ok(pulled.next);
    }
    let reason = format!("a pull at offset {offset} of {} leads nowhere", queue.text());
    Err(CallError::Protocol { address: queue.broker.address.clone(), reason }.into())
}

impl ConsumeArguments {
    fn check_times(&self) -> Result<(), CommandError> {
        let now = i64::try_from(calendar::now().0).unwrap_or(i64::MAX);
        let of = |time: &Option<Time>| time.as_ref().map(|time| time.milliseconds);
        let (from, to) = (of(&self.from), of(&self.to));
        if from.is_some_and(|from| from > now) || to.is_some_and(|to| to > now) {
            return Err(CommandError::usage(
                "a time is in the future: -s and -e name times that have passed",
            ));
        }
        match (from, to) {
            (Some(from), Some(to)) if from > to => {
                Err(CommandError::usage("-s is after -e: nothing was stored in between"))
            }
            _ => Ok(()),
        }
    }
}

pub fn consume(of: &ConsumeArguments) -> Result<(), CommandError> {
    of.check_times()?;
    let mut admin = Admin::new(&of.shared)?;
    let (topic, format) = (of.topic.trim(), of.shared.output);
    let count = i64::from(of.count);
    if let (Some(name), Some(queue)) = (&of.broker, of.queue) {
        let queue = Queue { topic, broker: admin.broker(name.trim())?, queue };
        let Range { first, end } = queue.range(&mut admin, of.from.as_ref(), of.to.as_ref())?;
        let offset = of.offset.map_or(0, |offset| i64::try_from(offset).unwrap_or(i64::MAX));
        if offset > end {
            return say(format, &format!("{} no matched msg, offset={offset}", queue.text()));
        }
        let first = first.max(offset);
        let end = match end.saturating_sub(first) > count {
            true => {
                say(format, &format!("The older {count} message will be provided"))?;
                first.saturating_add(count - 1)
            }
            false => end,
        };
        return consume_queue(&mut admin, of, &queue, Range { first, end });
    }
    let mut left = count;
    for queue in queues(&mut admin, topic, topic, of.broker.as_deref().map(str::trim))? {
        if left <= 0 {
            break;
        }
        let Range { first, end } = queue.range(&mut admin, of.from.as_ref(), of.to.as_ref())?;
        let there = end.saturating_sub(first);
        let has_more = there > left;
        if has_more {
            let number = queue.queue;
            say(format, &format!("The older {left} message of the {number} queue will be provided"))?;
        }
        let end = if has_more { first.saturating_add(left - 1) } else { end };
        left = if has_more { 0 } else { left.saturating_sub(there).saturating_sub(1) };
        consume_queue(&mut admin, of, &queue, Range { first, end })?;
    }
    Ok(())
}

/// Prints a queue's messages up to and with the offset `range.end`.
fn consume_queue(
    admin: &mut Admin,
    of: &ConsumeArguments,
    queue: &Queue<'_>,
    range: Range,
) -> Result<(), CommandError> {
    let (format, name) = (of.shared.output, queue.text());
    let mut offset = range.first;
    while offset <= range.end {
        let wanted = u32::try_from(range.end.saturating_sub(offset).saturating_add(1));
        let wanted = wanted.unwrap_or(u32::MAX).min(PULL_MESSAGES);
        let call = queue.call(of.group.trim(), "*", offset, wanted);
        let pulled = pull(admin, &queue.broker, &call)?;
        let state = pulled.state.name();
        let next = progress(queue, offset, &pulled)?;
        match pulled.state {
            PullState::Found => {
                say(format, "Consume ok")?;
                print_messages(format, &pulled.messages, true)?;
            }
            PullState::Other => {
                say(format, &format!("{name} no matched msg. status={state}, offset={next}"))?;
            }
            PullState::End | PullState::Outside => {
                say(format, &format!("{name} print msg finished. status={state}, offset={next}"))?;
                break;
            }
        }
        offset = next;
    }
    Ok(())
}
