//! Pulling: `PULL_MESSAGE`, and `LITE_PULL_MESSAGE`, which asks for the same
//! (`remoting/.../header/PullMessageRequestHeader.java`). Checks and their answers follow
//! `broker/.../processor/PullMessageProcessor.java`.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{Filter, TagFilter};
use crate::filter::{Expression, ExpressionError};
use crate::limits;
use crate::protocol::remoting::code::{ResponseCode, request};
use crate::protocol::remoting::consumer_group;
use crate::protocol::remoting::fields::{FieldError, FieldValue, Fields};
use crate::protocol::remoting::refusal::Refusal;
use crate::protocol::remoting::{Head, Header, HeaderForm, STAGES};
use crate::types::{GroupName, QueueOffset, TopicName};

/// In a pull's system flag: where the group is stands in `commitOffset`, the pull may wait, and it brings its subscription.
const COMMITS: i32 = 1;
const WAITS: i32 = 1 << 1;
const SUBSCRIBES: i32 = 1 << 2;
/// The kinds of expressions that are understood.
pub const TAG: &str = "TAG";
pub const SQL92: &str = "SQL92";

/// A pull.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PullRequest {
    pub group: GroupName,
    pub topic: TopicName,
    /// Of this broker; it may be below zero.
    pub queue: i32,
    /// It may be outside the queue, and below zero.
    pub offset: i64,
    /// 1 to `limits::PULL_MESSAGES_MAX`.
    pub message_count: usize,
    /// Of all messages but the first; at most `limits::PULL_BYTES_MAX`.
    pub bytes_max: usize,
    /// Where the group is, of which the reader tells by the way.
    pub committed: Option<u64>,
    /// How long it may wait where there is nothing.
    pub wait: Duration,
    pub wants: Wants,
}

/// Which messages are wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wants {
    These(Rc<Filter>),
    /// Those of the group's subscription, as its clients have said it, of this version or a later one.
    OfGroup {
        version: i64,
    },
}

/// What a pull came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PullOutcome {
    Found,
    /// There is nothing at the offset yet.
    Nothing,
    /// Nothing of what was looked at is wanted, or readable.
    Passed,
    /// The offset is before the queue's first message.
    Before,
    /// The offset is after the queue's end.
    After,
}

/// The answer to a pull, without its messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PullAnswer {
    pub outcome: PullOutcome,
    /// Where the next pull goes on.
    pub next: QueueOffset,
    /// The queue's.
    pub first: QueueOffset,
    pub end: QueueOffset,
}

/// Why a pull is not carried out, in RocketMQ's words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PullRefusal<'a> {
    #[error("subscription group [{group}] does not exist: {why}")]
    NoGroup { group: &'a str, why: &'a str },
    #[error("subscription group no permission, {group}")]
    GroupClosed { group: &'a str },
    #[error("the consumer group[{group}] can not consume by broadcast way")]
    BroadcastClosed { group: &'a str },
    #[error("topic[{topic}] not exist, apply first please!")]
    NoTopic { topic: &'a str },
    #[error("the topic[{topic}] pulling message is forbidden")]
    TopicClosed { topic: &'a str },
    #[error("queueId[{queue}] is illegal, topic:[{topic}] topicConfig.readQueueNums:[{read_queues}]")]
    NoQueue { queue: i32, topic: &'a str, read_queues: u32 },
    #[error("parse the consumer's subscription failed: {why}")]
    Subscription { why: &'a str },
    /// What the group's clients have said is no expression.
    #[error("The broker's consumer filter data is not exist!Your expression may be wrong! {why}")]
    GroupExpression { why: &'a str },
    #[error("The broker does not support consumer to filter message by {kind}")]
    Expression { kind: &'a str },
    #[error("the consumer's group info not exist")]
    NoConsumer,
    #[error("the consumer's subscription not exist")]
    NotSubscribed,
    #[error("the consumer's subscription not latest")]
    NotLatest,
}

impl From<PullRefusal<'_>> for Refusal {
    fn from(refusal: PullRefusal<'_>) -> Self {
        let code = match refusal {
            PullRefusal::NoGroup { .. } => ResponseCode::SubscriptionGroupNotExist,
            PullRefusal::GroupClosed { .. }
            | PullRefusal::TopicClosed { .. }
            | PullRefusal::BroadcastClosed { .. } => ResponseCode::NoPermission,
            PullRefusal::NoTopic { .. } => ResponseCode::TopicNotExist,
            PullRefusal::NoQueue { .. } => ResponseCode::InvalidParameter,
            PullRefusal::Subscription { .. } => ResponseCode::SubscriptionParseFailed,
            PullRefusal::GroupExpression { .. } => ResponseCode::FilterDataNotExist,
            PullRefusal::Expression { .. } => ResponseCode::SystemError,
            PullRefusal::NoConsumer | PullRefusal::NotSubscribed => ResponseCode::SubscriptionNotExist,
            PullRefusal::NotLatest => ResponseCode::SubscriptionNotLatest,
        };
        Refusal::new(code, refusal.to_string())
    }
}

/// Whether a request of this code is a pull.
pub fn is_pull(code: i32) -> bool {
    matches!(code, request::PULL_MESSAGE | request::LITE_PULL_MESSAGE)
}

/// A number that is 0 when it is not there, as in RocketMQ, and refused when it is none.
fn number<T: std::str::FromStr + Default>(fields: &Fields<'_>, name: &'static str) -> Result<T, FieldError> {
    match fields.bytes(name) {
        Some(_) => fields.required_number(name),
        None => Ok(T::default()),
    }
}

impl PullRequest {
    pub fn read(header: &Header<'_>) -> Result<Self, Refusal> {
        let fields = &header.fields;
        let group = fields.required_text("consumerGroup")?;
        let topic = fields.required_text("topic")?;
        let (queue, offset) = (fields.required_number("queueId")?, number(fields, "queueOffset")?);
        let message_count: i32 = number(fields, "maxMsgNums")?;
        let flag: i32 = number(fields, "sysFlag")?;
        let committed: i64 = number(fields, "commitOffset")?;
        let wait: i64 = number(fields, "suspendTimeoutMillis")?;
        let version = number(fields, "subVersion")?;
        let bytes_max = fields.number("maxMsgBytes").filter(|bytes| *bytes > 0).unwrap_or(i32::MAX);
        let group = consumer_group(&group).map_err(|error| {
            Refusal::from(PullRefusal::NoGroup { group: &group, why: &format!("{error}") })
        })?;
        let topic = topic.parse().map_err(|_| Refusal::from(PullRefusal::NoTopic { topic: &topic }))?;
        let wants = match flag & SUBSCRIBES {
            0 => Wants::OfGroup { version },
            _ => {
                let expression = fields.text("subscription").unwrap_or_default();
                let kind = fields.text("expressionType").unwrap_or_default();
                let filter = read_subscription(&expression, &kind, |text| text.parse().map(Arc::new))?;
                Wants::These(Rc::new(filter))
            }
        };
        Ok(Self {
            group,
            topic,
            queue,
            offset,
            message_count: message_count.clamp(1, limits::PULL_MESSAGES_MAX as i32) as usize,
            bytes_max: bytes_max.min(limits::PULL_BYTES_MAX as i32) as usize,
            committed: u64::try_from(committed).ok().filter(|_| flag & COMMITS != 0),
            wait: match flag & WAITS {
                0 => Duration::ZERO,
                _ => Duration::from_millis(u64::try_from(wait).unwrap_or(0)),
            },
            wants,
        })
    }

    /// What the request takes of memory while it waits, beyond a few hundred bytes.
    pub fn carried_bytes(&self) -> usize {
        match &self.wants {
            Wants::These(filter) => filter.memory_bytes(),
            Wants::OfGroup { .. } => 0,
        }
    }
}

/// Reads a subscription (`common/.../filter/FilterAPI.java`); `read` is how an SQL92 expression becomes one.
pub fn read_subscription(
    expression: &str,
    kind: &str,
    read: impl FnOnce(&str) -> Result<Arc<Expression>, ExpressionError>,
) -> Result<Filter, Refusal> {
    match kind {
        "" | TAG => Ok(read_tags(expression)?.into()),
        SQL92 => match read(expression) {
            Ok(expression) => Ok(Filter::Expression(expression)),
            Err(error) => Err(PullRefusal::Subscription { why: &error.to_string() }.into()),
        },
        kind => Err(PullRefusal::Expression { kind }.into()),
    }
}

fn read_tags(expression: &str) -> Result<TagFilter, Refusal> {
    let unreadable = |why: &str| Err(PullRefusal::Subscription { why }.into());
    if expression.len() > limits::FILTER_BYTES_MAX {
        return unreadable(&format!("it has more than {} bytes", limits::FILTER_BYTES_MAX));
    }
    let filter = TagFilter::parse(Some(expression));
    if filter.is_everything() && !matches!(expression.trim(), "" | "*") {
        return unreadable("it names no tag");
    }
    if filter.tags().len() > limits::FILTER_TAGS_MAX {
        return unreadable(&format!("it has more than {} tags", limits::FILTER_TAGS_MAX));
    }
    Ok(filter)
}

impl PullOutcome {
    fn code(self) -> ResponseCode {
        match self {
            PullOutcome::Found => ResponseCode::Success,
            PullOutcome::Nothing => ResponseCode::PullNotFound,
            PullOutcome::Passed => ResponseCode::PullRetryImmediately,
            PullOutcome::Before | PullOutcome::After => ResponseCode::PullOffsetMoved,
        }
    }
}

impl PullAnswer {
    /// What people are told: RocketMQ's words for it (`store/.../GetMessageStatus.java`).
    fn remark(&self) -> &'static str {
        match self.outcome {
            PullOutcome::Found => "FOUND",
            PullOutcome::Passed => "NO_MATCHED_MESSAGE",
            _ if self.end == QueueOffset::ZERO => "NO_MESSAGE_IN_QUEUE",
            PullOutcome::Nothing => "OFFSET_OVERFLOW_ONE",
            PullOutcome::After => "OFFSET_OVERFLOW_BADLY",
            PullOutcome::Before => "OFFSET_TOO_SMALL",
        }
    }

    /// Appends the answer up to its messages, of which the caller appends exactly `body_bytes`. All fields are there whatever
    /// happened: clients look at none of them for null. `stages`: where its time went, if that was asked for.
    pub fn begin(
        &self,
        opaque: i32,
        form: HeaderForm,
        body_bytes: usize,
        stages: Option<&str>,
        output: &mut Vec<u8>,
    ) {
        let number = |offset: QueueOffset| FieldValue::Number(offset.0 as i64);
        let fields = [
            ("nextBeginOffset", number(self.next)),
            ("minOffset", number(self.first)),
            ("maxOffset", number(self.end)),
            // There is no replica to go to.
            ("suggestWhichBrokerId", FieldValue::Number(0)),
            (STAGES, FieldValue::Text(stages.unwrap_or_default())),
        ];
        let fields = if stages.is_some() { &fields[..] } else { &fields[..fields.len() - 1] };
        let head = Head::answer_to(opaque, self.outcome.code());
        Head { fields, remark: Some(self.remark()), ..head }.begin(form, body_bytes, output);
    }
}

mod client;

pub use client::{PullCall, PullPlace};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::{Cut, cut};

    /// Reads a pull whose fields are these.
    fn read(fields: &[(&str, &str)]) -> Result<PullRequest, Refusal> {
        let fields: Vec<_> = fields.iter().map(|(name, value)| (*name, FieldValue::Text(value))).collect();
        let mut bytes = Vec::new();
        let head = Head { code: request::PULL_MESSAGE, fields: &fields, ..Head::default() };
        head.write(HeaderForm::Json, b"", &mut bytes);
        let Ok(Cut::Frame(frame)) = cut(&bytes) else { panic!("a frame") };
        PullRequest::read(&Header::read(frame.form, frame.header).expect("a header"))
    }

    const NAMED: [(&str, &str); 3] = [("consumerGroup", "g"), ("topic", "t"), ("queueId", "3")];

    fn with(more: &[(&str, &str)]) -> Result<PullRequest, Refusal> {
        read(&[&NAMED[..], more].concat())
    }

    #[test]
    fn what_a_pull_does_not_say_is_nothing() {
        let pull = with(&[]).expect("a pull");
        let expected = PullRequest {
            group: "g".parse().expect("a group"),
            topic: "t".parse().expect("a topic"),
            queue: 3,
            offset: 0,
            message_count: 1,
            bytes_max: limits::PULL_BYTES_MAX,
            committed: None,
            wait: Duration::ZERO,
            wants: Wants::OfGroup { version: 0 },
        };
        assert_eq!(pull, expected);
        for (missing, name) in ["consumerGroup", "topic", "queueId"].iter().enumerate() {
            let mut fields = NAMED.to_vec();
            fields.remove(missing);
            let refusal = read(&fields).expect_err("a refusal");
            assert_eq!(refusal.code, ResponseCode::SystemError);
            assert!(refusal.remark.contains(name), "{}", refusal.remark);
        }
    }

    #[test]
    fn flags_say_what_counts() {
        let fields = [
            ("commitOffset", "7"),
            ("suspendTimeoutMillis", "1500"),
            ("subscription", "b || a"),
            ("subVersion", "9"),
        ];
        let flagged = |flag: &str| with(&[&fields[..], &[("sysFlag", flag)]].concat()).expect("a pull");
        let nothing = flagged("0");
        assert_eq!((nothing.committed, nothing.wait), (None, Duration::ZERO));
        assert_eq!(nothing.wants, Wants::OfGroup { version: 9 });
        let all = flagged("7");
        assert_eq!((all.committed, all.wait), (Some(7), Duration::from_millis(1500)));
        assert_eq!(all.wants, Wants::These(Rc::new(TagFilter::parse(Some("a||b")).into())));
        // Lite pulls have a flag of their own, which means nothing.
        assert_eq!(flagged("20").wants, all.wants);
    }

    #[test]
    fn numbers_beyond_what_there_is_are_bounded_and_those_that_are_none_are_refused() {
        let one = |name, value| with(&[("sysFlag", "3"), (name, value)]);
        for (count, expected) in [("0", 1), ("-1", 1), ("32", 32), ("2147483647", limits::PULL_MESSAGES_MAX)]
        {
            assert_eq!(one("maxMsgNums", count).expect(count).message_count, expected);
        }
        for (bytes, expected) in [("-1", limits::PULL_BYTES_MAX), ("0", limits::PULL_BYTES_MAX), ("300", 300)]
        {
            assert_eq!(one("maxMsgBytes", bytes).expect(bytes).bytes_max, expected);
        }
        assert_eq!(one("queueOffset", "-9223372036854775808").expect("a pull").offset, i64::MIN);
        assert_eq!(one("commitOffset", "-5").expect("a pull").committed, None);
        assert_eq!(one("suspendTimeoutMillis", "-1").expect("a pull").wait, Duration::ZERO);
        for name in ["queueOffset", "commitOffset", "suspendTimeoutMillis", "subVersion", "maxMsgNums"] {
            let refusal = one(name, "9223372036854775808").expect_err("a refusal");
            assert!(refusal.code == ResponseCode::SystemError && refusal.remark.contains(name));
        }
    }

    #[test]
    fn subscriptions_are_read_as_rocketmq_reads_them() {
        let read = |expression: &str, kind: &str| {
            read_subscription(expression, kind, |text| text.parse().map(Arc::new))
        };
        for everything in ["", "*", " * "] {
            assert!(read(everything, "TAG").is_ok_and(|filter| filter.is_everything()));
        }
        let tags = vec!["x"; limits::FILTER_TAGS_MAX + 1];
        let many: Vec<_> = tags.iter().enumerate().map(|(number, tag)| format!("{tag}{number}")).collect();
        let long = "x".repeat(limits::FILTER_BYTES_MAX + 1);
        for unreadable in ["||", " || ", &many.join("||"), &long] {
            let refusal = read(unreadable, "").expect_err("a refusal");
            assert_eq!(refusal.code, ResponseCode::SubscriptionParseFailed, "{}", refusal.remark);
        }
        assert_eq!(
            read("a > 1", "SQL92").expect("a filter"),
            Filter::Expression(Arc::new("a > 1".parse().expect("an expression")))
        );
        let refusal = read("a >", "SQL92").expect_err("a refusal");
        assert_eq!(refusal.code, ResponseCode::SubscriptionParseFailed);
        assert!(refusal.remark.contains("at character 4"), "{}", refusal.remark);
        let refusal = read("a > 1", "SQL").expect_err("a refusal");
        assert_eq!(refusal.code, ResponseCode::SystemError);
    }

    #[test]
    fn an_answer_has_all_its_fields() {
        let place = |first, next, end| (QueueOffset(first), QueueOffset(next), QueueOffset(end));
        for (outcome, (first, next, end), code, remark) in [
            (PullOutcome::Found, place(2, 7, 9), 0, "FOUND"),
            (PullOutcome::Nothing, place(2, 9, 9), 19, "OFFSET_OVERFLOW_ONE"),
            (PullOutcome::Nothing, place(0, 0, 0), 19, "NO_MESSAGE_IN_QUEUE"),
            (PullOutcome::Passed, place(2, 9, 9), 20, "NO_MATCHED_MESSAGE"),
            (PullOutcome::Before, place(2, 2, 9), 21, "OFFSET_TOO_SMALL"),
            (PullOutcome::Before, place(9, 9, 9), 21, "OFFSET_TOO_SMALL"),
            (PullOutcome::After, place(2, 9, 9), 21, "OFFSET_OVERFLOW_BADLY"),
            (PullOutcome::After, place(0, 0, 0), 21, "NO_MESSAGE_IN_QUEUE"),
        ] {
            let mut bytes = Vec::new();
            PullAnswer { outcome, next, first, end }.begin(42, HeaderForm::Json, 4, None, &mut bytes);
            bytes.extend_from_slice(b"body");
            let Ok(Cut::Frame(frame)) = cut(&bytes) else { panic!("a frame") };
            let expected = format!(
                "{{\"code\":{code},\"extFields\":{{\"nextBeginOffset\":\"{next}\",\"minOffset\":\"{first}\",\"maxOffset\":\"{end}\",\
                 \"suggestWhichBrokerId\":\"0\"}},\"flag\":1,\"language\":\"JAVA\",\"opaque\":42,\"remark\":\"{remark}\",\
                 \"version\":479}}"
            );
            assert_eq!(String::from_utf8_lossy(frame.header), expected);
            assert_eq!(frame.body, b"body");
        }
    }
}
