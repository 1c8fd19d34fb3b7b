//! Topics and groups as tools want them (`common/.../TopicConfig.java`, `common/.../attribute/AttributeParser.java`,
//! `remoting/.../protocol/subscription/SubscriptionGroupConfig.java`). Numbers of queues are those of one broker.

use std::time::Duration;

use crate::api::{RetryGrowth, RetryPolicy};
use crate::protocol::remoting::Fields;
use crate::protocol::remoting::body::{CUSTOMIZED, EXPONENTIAL};
use crate::protocol::remoting::code::ResponseCode;
use crate::protocol::remoting::consumer_group;
use crate::protocol::remoting::fields::FieldError;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::refusal::Refusal;
use crate::types::{GroupName, TopicName};

/// Bits of a permission.
const PERMISSION_MAX: u8 = 7;
/// Retries that a group has when nothing else is said.
pub const RETRIES_DEFAULT: i64 = 16;
/// A group's own delays are as many as this at most.
const DELAYS_MAX: usize = 64;

/// `UPDATE_AND_CREATE_TOPIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicAsked {
    pub topic: TopicName,
    pub read: u32,
    pub write: u32,
    pub permission: u8,
    pub ordered: bool,
    pub attributes: Vec<AttributeChange>,
}

/// An attribute of a topic that gets a value, or loses it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttributeChange {
    pub name: String,
    pub value: Option<String>,
}

/// `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP`. What stands in it and not here has no meaning for this broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupAsked {
    pub group: GroupName,
    pub may_consume: bool,
    pub may_broadcast: bool,
    pub ordered: bool,
    pub retry_queues: u32,
    /// Retries of a message; below zero: without end.
    pub retries_max: i64,
    pub retries: RetryPolicy,
}

fn invalid(remark: impl Into<String>) -> Refusal {
    Refusal::new(ResponseCode::InvalidParameter, remark)
}

fn topic_named(name: &str) -> Result<TopicName, Refusal> {
    name.parse().map_err(|error| invalid(format!("{error}")))
}

impl TopicAsked {
    pub fn read(fields: &Fields<'_>) -> Result<Self, Refusal> {
        let number = |name| fields.required_number::<i64>(name);
        Ok(Self {
            topic: topic_named(&fields.required_text("topic")?)?,
            read: queues(number("readQueueNums")?)?,
            write: queues(number("writeQueueNums")?)?,
            permission: permission(number("perm")?)?,
            ordered: fields.boolean("order"),
            attributes: AttributeChange::read(&fields.text("attributes").unwrap_or_default())?,
        })
    }

    /// One of a list of them, as JSON.
    pub fn of(value: &Value<'_>) -> Result<Self, Refusal> {
        let number = |name: &'static str| value.get(name).as_number().ok_or(FieldError(name));
        let change = |(name, of): &(Value<'_>, Value<'_>)| {
            AttributeChange::of(name.as_text().unwrap_or_default(), of.as_text().unwrap_or_default())
        };
        let attributes = value.get("attributes").entries().iter().map(change);
        Ok(Self {
            topic: topic_named(value.get("topicName").as_text().unwrap_or_default())?,
            read: queues(number("readQueueNums")?)?,
            write: queues(number("writeQueueNums")?)?,
            permission: permission(number("perm")?)?,
            ordered: value.get("order").as_boolean().unwrap_or(false),
            attributes: attributes.collect::<Result<_, _>>()?,
        })
    }
}

fn queues(number: i64) -> Result<u32, Refusal> {
    u32::try_from(number).map_err(|_| invalid(format!("a topic cannot have {number} queues")))
}

fn permission(number: i64) -> Result<u8, Refusal> {
    let permission = u8::try_from(number).ok().filter(|permission| *permission <= PERMISSION_MAX);
    permission.ok_or_else(|| invalid(format!("there is no permission {number}: 2 is to write, 4 to read")))
}

impl AttributeChange {
    /// `+name=value` and `-name`, with commas between them.
    fn read(text: &str) -> Result<Vec<Self>, Refusal> {
        let parts = text.split(',').map(str::trim).filter(|part| !part.is_empty());
        let change = |part: &str| match part.split_once('=') {
            Some((name, value)) => Self::of(name, value),
            None => Self::of(part, ""),
        };
        parts.map(change).collect()
    }

    fn of(name: &str, value: &str) -> Result<Self, Refusal> {
        let wrong = || {
            let remark = format!("`{name}` is no change of an attribute: it is `+name=value`, or `-name`");
            Refusal::new(ResponseCode::SystemError, remark)
        };
        let (sign, rest) = name.trim().split_at_checked(1).ok_or_else(wrong)?;
        let value = match sign {
            "+" if !value.is_empty() => Some(value.trim().to_owned()),
            "-" => None,
            _ => return Err(wrong()),
        };
        let name = rest.to_owned();
        if name.is_empty() { Err(wrong()) } else { Ok(Self { name, value }) }
    }
}

impl GroupAsked {
    /// The one that a body describes.
    pub fn one(value: &Value<'_>) -> Result<Vec<Self>, Refusal> {
        Self::of(value).map(|asked| vec![asked])
    }

    /// Those of a body's list.
    pub fn list(value: &Value<'_>) -> Result<Vec<Self>, Refusal> {
        value.get("groupConfigList").items().iter().map(Self::of).collect()
    }

    pub fn of(value: &Value<'_>) -> Result<Self, Refusal> {
        let name = value.get("groupName").as_text().unwrap_or_default();
        let group = consumer_group(name)
            .map_err(|error| invalid(format!("`{name}` is no name of a group: {error}")))?;
        let flag = |name, default| value.get(name).as_boolean().unwrap_or(default);
        let retry_queues = value.get("retryQueueNums").as_number().unwrap_or(1);
        Ok(Self {
            group,
            may_consume: flag("consumeEnable", true),
            may_broadcast: flag("consumeBroadcastEnable", true),
            ordered: flag("consumeMessageOrderly", false),
            retry_queues: queues(retry_queues.max(0))?,
            retries_max: value.get("retryMaxTimes").as_number().unwrap_or(RETRIES_DEFAULT),
            retries: retries(value.get("groupRetryPolicy"))?,
        })
    }
}

/// How long a group's messages wait before they come again.
fn retries(policy: &Value<'_>) -> Result<RetryPolicy, Refusal> {
    let is_exponential = match policy.get("type").as_text() {
        None | Some(CUSTOMIZED) => false,
        Some(EXPONENTIAL) => true,
        Some(other) => {
            let remark =
                format!("there is no groupRetryPolicy of type {other}: it is {CUSTOMIZED} or {EXPONENTIAL}");
            return Err(invalid(remark));
        }
    };
    let next = policy.get("customizedRetryPolicy").get("next").items();
    let delay = |value: &Value<'_>| {
        let milliseconds = value.as_number().and_then(|ms| u32::try_from(ms).ok());
        milliseconds.map(|ms| Duration::from_millis(ms.into()))
    };
    let delays: Option<Vec<_>> = next.iter().map(delay).collect();
    let delays = delays.filter(|delays| delays.len() <= DELAYS_MAX);
    let delays =
        delays.ok_or_else(|| invalid(format!("a group has up to {DELAYS_MAX} delays in milliseconds")))?;
    Ok(RetryPolicy { is_exponential, delays, growth: growth(policy.get("exponentialRetryPolicy"))? })
}

/// Delays that grow; what is left out is as RocketMQ has it.
fn growth(of: &Value<'_>) -> Result<Option<RetryGrowth>, Refusal> {
    if of.is_null() {
        return Ok(None);
    }
    let number = |name: &str, usual: u64| match of.get(name) {
        value if value.is_null() => Ok(usual),
        value => value.as_number().and_then(|number| u64::try_from(number).ok()).ok_or_else(|| {
            invalid(format!("`{name}` of an exponentialRetryPolicy is a whole number, and not below zero"))
        }),
    };
    Ok(Some(RetryGrowth {
        initial_ms: number("initial", 5_000)?,
        max_ms: number("max", 7_200_000)?,
        multiplier: number("multiplier", 2)?,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn topic(text: &str) -> Result<TopicAsked, ResponseCode> {
        let value = Value::parse(text.as_bytes()).expect("JSON");
        TopicAsked::of(&value).map_err(|refusal| refusal.code)
    }

    #[test]
    fn a_topic_is_what_a_broker_can_have() {
        let text = |read: &str, perm: &str| {
            format!(
                "{{\"topicName\":\"t\",\"readQueueNums\":{read},\"writeQueueNums\":4,\"perm\":{perm},\"order\":true,\
                 \"attributes\":{{\"+message.type\":\"FIFO\",\"-reserve.time\":\"\"}}}}"
            )
        };
        let asked = topic(&text("8", "6")).expect("it is one");
        assert_eq!((asked.read, asked.write, asked.permission, asked.ordered), (8, 4, 6, true));
        assert_eq!(
            asked.attributes,
            [
                AttributeChange { name: "message.type".into(), value: Some("FIFO".into()) },
                AttributeChange { name: "reserve.time".into(), value: None }
            ]
        );
        for (read, perm) in [("-1", "6"), ("5000000000", "6"), ("8", "8"), ("8", "-1")] {
            assert_eq!(topic(&text(read, perm)), Err(ResponseCode::InvalidParameter), "{read} {perm}");
        }
        assert_eq!(topic("{\"topicName\":\"a b\"}"), Err(ResponseCode::InvalidParameter));
    }

    #[test]
    fn attributes_are_added_and_taken_away() {
        let read = |text: &str| AttributeChange::read(text).map_err(|refusal| refusal.code);
        assert_eq!(read(""), Ok(Vec::new()));
        assert_eq!(read("+a=1, -b").map(|changes| changes.len()), Ok(2));
        for wrong in ["a=1", "+", "+a", "+=1", "-"] {
            assert_eq!(read(wrong), Err(ResponseCode::SystemError), "{wrong}");
        }
    }

    #[test]
    fn a_group_has_what_is_left_out_as_rocketmq_has_it() {
        let group = |text: &str| GroupAsked::of(&Value::parse(text.as_bytes()).expect("JSON"));
        let plain = group("{\"groupName\":\"g\"}").expect("a group");
        assert!(plain.may_consume && plain.may_broadcast && !plain.ordered);
        assert_eq!((plain.retry_queues, plain.retries_max, plain.retries), (1, 16, RetryPolicy::default()));
        let text = "{\"groupName\":\"g\",\"consumeEnable\":false,\"retryMaxTimes\":-1,\"groupRetryPolicy\":{\"type\":\"CUSTOMIZED\",\
                    \"customizedRetryPolicy\":{\"next\":[1000,2000]}}}";
        let other = group(text).expect("a group");
        assert_eq!((other.may_consume, other.retries_max), (false, -1));
        assert_eq!(other.retries.delays, [Duration::from_secs(1), Duration::from_secs(2)]);
        let growing = |members: &str| {
            let text = format!(
                "{{\"groupName\":\"g\",\"groupRetryPolicy\":{{\"type\":\"EXPONENTIAL\",\"exponentialRetryPolicy\":{members}}}}}"
            );
            group(&text).map(|group| group.retries)
        };
        let grows = |initial_ms, max_ms, multiplier| {
            let growth = Some(RetryGrowth { initial_ms, max_ms, multiplier });
            Ok(RetryPolicy { is_exponential: true, growth, ..RetryPolicy::default() })
        };
        assert_eq!(growing("{\"initial\":7,\"max\":8,\"multiplier\":9}"), grows(7, 8, 9));
        assert_eq!(growing("{\"multiplier\":3}"), grows(5_000, 7_200_000, 3));
        assert_eq!(growing("null"), Ok(RetryPolicy { is_exponential: true, ..RetryPolicy::default() }));
        assert!(growing("{\"max\":-1}").is_err());
        for wrong in [
            "{\"groupName\":\"a b\"}",
            "{\"groupName\":\"g\",\"groupRetryPolicy\":{\"type\":\"LINEAR\"}}",
            "{\"groupName\":\"g\",\"groupRetryPolicy\":{\"customizedRetryPolicy\":{\"next\":[-1]}}}",
        ] {
            assert_eq!(
                group(wrong).map_err(|refusal| refusal.code),
                Err(ResponseCode::InvalidParameter),
                "{wrong}"
            );
        }
    }
}
