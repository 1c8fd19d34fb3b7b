//! The method and target of a request: which call it is, on what, with which parameters.
//!
//! Clients paste names into paths and queries as they are, so decoding is lenient where nothing can be mistaken: a
//! percent sign that begins no escape stands for itself, and a topic that begins with `%DLQ%` or `%RETRY%`, which no
//! escape does, is taken as it came. What is known and said twice is refused, since either could be meant; what is not
//! known is ignored.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use http::Method;

use super::error::{ErrorCode, HttpError};
use crate::api::{Filter, TagFilter};
use crate::filter::Expression;
use crate::limits;
use crate::types::{GroupName, InstanceName, TopicName};

/// The methods of the protocol's one path, for the header `Allow`.
pub const METHODS: &str = "GET, POST, DELETE";

/// Topics that RocketMQ makes for a group; clients write them into paths without escaping.
const GROUP_TOPIC_PREFIXES: [&str; 2] = ["%DLQ%", "%RETRY%"];

/// A topic as requests name it; no instance is the default one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TopicReference {
    pub instance: Option<InstanceName>,
    pub topic: TopicName,
}

/// How messages are received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConsumeMode {
    Normal,
    /// In order, nothing of a queue before all that was taken from it is acknowledged.
    Order,
    /// Undecided transactions, for their producer; `pop` on the wire, which has nothing to do with RocketMQ's POP.
    Undecided,
}

/// What ends the leases that handles stand for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LeaseEnd {
    /// This group has dealt with the messages.
    Acknowledge(GroupName),
    /// A transaction becomes visible. Its handle says which one: the Go client 1.0.3 sends an empty `consumer` here.
    Commit,
    /// A transaction is dropped.
    Rollback,
}

/// The parameters of a consume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consume {
    pub topic: TopicReference,
    pub group: GroupName,
    /// Messages at most, from 1 to [`limits::HTTP_RECEIVE_MESSAGES_MAX`].
    pub count: u8,
    /// How long an answer may wait for a message, at most [`limits::HTTP_RECEIVE_WAIT_SECONDS_MAX`].
    pub wait: Duration,
    pub filter: Filter,
    pub mode: ConsumeMode,
}

/// A request line of the protocol.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// The message is in the body.
    Publish {
        topic: TopicReference,
    },
    Consume(Consume),
    /// The receipt handles are in the body.
    Acknowledge {
        topic: TopicReference,
        end: LeaseEnd,
    },
}

impl Call {
    /// Understands a method and a target as sent: path and query.
    pub fn parse(method: &Method, target: &str) -> Result<Self, HttpError> {
        let target = target.split('#').next().unwrap_or_default();
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let topic = topic_segment(path)?;
        // Before anything else of the request is judged, since none of it would help.
        if ![Method::GET, Method::POST, Method::DELETE].contains(method) {
            let message = format!("{method} is no method of {path}; choose one of {METHODS}");
            return Err(HttpError::new(ErrorCode::MethodNotAllowed, message));
        }
        let query = Query::parse(query)?;
        let topic = TopicReference { instance: query.instance()?, topic: parse_topic(topic)? };
        match *method {
            Method::POST => Ok(Call::Publish { topic }),
            Method::GET => query.consume(topic).map(Call::Consume),
            _ => Ok(Call::Acknowledge { topic, end: query.lease_end()? }),
        }
    }

    pub fn topic(&self) -> &TopicReference {
        match self {
            Call::Publish { topic } | Call::Acknowledge { topic, .. } => topic,
            Call::Consume(consume) => &consume.topic,
        }
    }

    /// The group that the caller consumes for. A publisher acts for none, and a transaction is its publisher's business
    /// until it is decided.
    pub fn group(&self) -> Option<&GroupName> {
        match self {
            Call::Consume(consume) if consume.mode != ConsumeMode::Undecided => Some(&consume.group),
            Call::Acknowledge { end: LeaseEnd::Acknowledge(group), .. } => Some(group),
            Call::Publish { .. } | Call::Consume(_) | Call::Acknowledge { .. } => None,
        }
    }
}

/// The topic's part of a path, as it came.
fn topic_segment(path: &str) -> Result<&str, HttpError> {
    let topic = path.strip_prefix("/topics/").and_then(|rest| rest.strip_suffix("/messages"));
    topic.filter(|topic| !topic.is_empty() && !topic.contains('/')).ok_or_else(|| {
        let message = format!("there is nothing at {path}; messages are at /topics/TOPIC/messages");
        HttpError::new(ErrorCode::PathNotExist, message)
    })
}

fn parse_topic(segment: &str) -> Result<TopicName, HttpError> {
    let is_literal = GROUP_TOPIC_PREFIXES.iter().any(|prefix| segment.starts_with(prefix));
    let name = if is_literal { Cow::Borrowed(segment) } else { decode(segment, Plus::Literal)? };
    name.parse().map_err(HttpError::invalid)
}

/// The parameters that mean something here, decoded.
#[derive(Default)]
struct Query<'a> {
    ns: Option<Cow<'a, str>>,
    consumer: Option<Cow<'a, str>>,
    num_of_messages: Option<Cow<'a, str>>,
    waitseconds: Option<Cow<'a, str>>,
    tag: Option<Cow<'a, str>>,
    /// None of the vendor's: an SQL92 expression in the place of tags.
    filter_sql: Option<Cow<'a, str>>,
    trans: Option<Cow<'a, str>>,
}

impl<'a> Query<'a> {
    fn parse(text: &'a str) -> Result<Self, HttpError> {
        let mut query = Query::default();
        for pair in text.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let slot = match decode(name, Plus::Space)?.as_ref() {
                "ns" => &mut query.ns,
                "consumer" => &mut query.consumer,
                "numOfMessages" => &mut query.num_of_messages,
                "waitseconds" => &mut query.waitseconds,
                "tag" => &mut query.tag,
                "filterSql" => &mut query.filter_sql,
                "trans" => &mut query.trans,
                _ => continue,
            };
            if slot.replace(decode(value, Plus::Space)?).is_some() {
                return Err(HttpError::invalid(format!("the parameter `{name}` is given twice")));
            }
        }
        Ok(query)
    }

    fn instance(&self) -> Result<Option<InstanceName>, HttpError> {
        let given = self.ns.as_deref().filter(|name| !name.is_empty());
        given.map(str::parse).transpose().map_err(HttpError::invalid)
    }

    fn group(&self) -> Result<GroupName, HttpError> {
        let name = self.consumer.as_deref().unwrap_or_default();
        if name.is_empty() {
            return Err(HttpError::invalid("the parameter `consumer` is missing: it names the group"));
        }
        name.parse().map_err(HttpError::invalid)
    }

    fn consume(&self, topic: TopicReference) -> Result<Consume, HttpError> {
        let count =
            number("numOfMessages", &self.num_of_messages, 1..=limits::HTTP_RECEIVE_MESSAGES_MAX as u64)?;
        let wait = number("waitseconds", &self.waitseconds, 0..=limits::HTTP_RECEIVE_WAIT_SECONDS_MAX)?;
        let mode = match self.trans() {
            "" => ConsumeMode::Normal,
            "order" => ConsumeMode::Order,
            "pop" => ConsumeMode::Undecided,
            other => return Err(unknown_mode(other, "order or pop")),
        };
        Ok(Consume {
            topic,
            group: self.group()?,
            count: count.unwrap_or(1) as u8,
            wait: Duration::from_secs(wait.unwrap_or(0)),
            filter: self.filter(mode)?,
            mode,
        })
    }

    /// Tags or an expression. As with RocketMQ's own clients it is one of the two: the expression may ask for `TAGS`.
    fn filter(&self, mode: ConsumeMode) -> Result<Filter, HttpError> {
        let tags = parse_tags(self.tag.as_deref())?;
        let Some(text) = &self.filter_sql else { return Ok(tags.into()) };
        if mode == ConsumeMode::Undecided {
            return Err(HttpError::invalid("undecided transactions are not filtered: leave `filterSql` out"));
        }
        if !tags.is_everything() {
            let message =
                "messages are asked for by `tag` or by `filterSql`: an expression finds tags as `TAGS`";
            return Err(HttpError::invalid(message));
        }
        let expression: Result<Expression, _> = text.parse();
        let expression = expression
            .map_err(|error| HttpError::invalid(format!("the expression `filterSql` is none: {error}")))?;
        Ok(Filter::Expression(Arc::new(expression)))
    }

    fn lease_end(&self) -> Result<LeaseEnd, HttpError> {
        match self.trans() {
            "" => self.group().map(LeaseEnd::Acknowledge),
            "commit" => Ok(LeaseEnd::Commit),
            "rollback" => Ok(LeaseEnd::Rollback),
            other => Err(unknown_mode(other, "commit or rollback")),
        }
    }

    fn trans(&self) -> &str {
        self.trans.as_deref().unwrap_or_default()
    }
}

fn unknown_mode(given: &str, choices: &str) -> HttpError {
    HttpError::invalid(format!("the parameter `trans` is {choices} here, not `{given}`"))
}

/// A number within bounds; digits only, so that neither a sign nor a blank passes.
fn number(
    name: &str,
    text: &Option<Cow<'_, str>>,
    bounds: std::ops::RangeInclusive<u64>,
) -> Result<Option<u64>, HttpError> {
    let Some(text) = text else { return Ok(None) };
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    let value = text.parse::<u64>().ok().filter(|value| digits && bounds.contains(value));
    value.map(Some).ok_or_else(|| {
        let (least, most) = (bounds.start(), bounds.end());
        HttpError::invalid(format!("the parameter `{name}` is a number from {least} to {most}, not `{text}`"))
    })
}

impl fmt::Display for TopicReference {
    /// As the broker knows it: `INSTANCE%TOPIC`, or the topic alone.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.instance {
            Some(instance) => formatter.write_str(&instance.topic_text(&self.topic)),
            None => self.topic.fmt(formatter),
        }
    }
}

/// What a consumer asks for; everything, when it names no tag.
fn parse_tags(expression: Option<&str>) -> Result<TagFilter, HttpError> {
    let filter = TagFilter::parse(expression);
    let most = limits::FILTER_TAGS_MAX;
    if filter.tags().len() > most {
        return Err(HttpError::invalid(format!("a filter names at most {most} tags")));
    }
    Ok(filter)
}

/// What `+` stands for: a blank in a query, itself in a path.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Plus {
    Space,
    Literal,
}

/// Undoes percent-encoding; bytes that are no UTF-8 then are refused.
fn decode(text: &str, plus: Plus) -> Result<Cow<'_, str>, HttpError> {
    if !text.bytes().any(|byte| byte == b'%' || (byte == b'+' && plus == Plus::Space)) {
        return Ok(Cow::Borrowed(text));
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let escaped = match (byte, behind) {
            (b'%', [high, low, ..]) => hex(*high).zip(hex(*low)).map(|(high, low)| high << 4 | low),
            _ => None,
        };
        rest = if escaped.is_some() { &behind[2..] } else { behind };
        decoded.push(match byte {
            b'+' if plus == Plus::Space => b' ',
            byte => escaped.unwrap_or(byte),
        });
    }
    let decoded = String::from_utf8(decoded);
    decoded
        .map(Cow::Owned)
        .map_err(|_| HttpError::invalid(format!("`{text}` decodes to bytes that are no UTF-8")))
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).map(|value| value as u8)
}

#[cfg(test)]
mod tests;
