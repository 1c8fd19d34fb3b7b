//! What a client says of itself every 30 seconds (`remoting/.../protocol/heartbeat/HeartbeatData.java`).

use crate::protocol::remoting::JsonError;
use crate::protocol::remoting::json::Value;

/// A client, and the groups that it produces and consumes as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Heartbeat {
    pub client: String,
    pub producers: Vec<String>,
    pub consumers: Vec<Consumer>,
    /// Subscriptions are left out: those from before stay.
    pub lacks_subscriptions: bool,
}

/// A group that the client consumes as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    pub group: String,
    pub kind: &'static str,
    pub model: &'static str,
    pub start: &'static str,
    pub subscriptions: Vec<Subscription>,
}

/// What it wants of a topic. Hashes of tags are left out: clients in C++ send wrong ones.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscription {
    pub topic: String,
    pub expression: String,
    /// `TAG` or `SQL92`.
    pub kind: String,
    pub version: i64,
}

/// In the order of their numbers, which clients in C++ send.
const KINDS: [&str; 3] = ["CONSUME_ACTIVELY", "CONSUME_PASSIVELY", "CONSUME_POP"];
const MODELS: [&str; 2] = ["BROADCASTING", "CLUSTERING"];
const STARTS: [&str; 6] = [
    "CONSUME_FROM_LAST_OFFSET",
    "CONSUME_FROM_LAST_OFFSET_AND_FROM_MIN_WHEN_BOOT_FIRST",
    "CONSUME_FROM_MIN_OFFSET",
    "CONSUME_FROM_MAX_OFFSET",
    "CONSUME_FROM_FIRST_OFFSET",
    "CONSUME_FROM_TIMESTAMP",
];

impl Heartbeat {
    /// `None` when it names no client.
    pub fn read(body: &[u8]) -> Result<Option<Self>, JsonError> {
        let value = Value::parse(body)?;
        let Some(client) = value.get("clientID").as_text().filter(|client| !client.is_empty()) else {
            return Ok(None);
        };
        let name = |item: &Value<'_>| item.get("groupName").as_text().map(str::to_owned);
        let consumer = |item: &Value<'_>| Some(Consumer::of(name(item)?, item));
        Ok(Some(Self {
            client: client.to_owned(),
            producers: value.get("producerDataSet").items().iter().filter_map(name).collect(),
            consumers: value.get("consumerDataSet").items().iter().filter_map(consumer).collect(),
            lacks_subscriptions: value.get("withoutSub").as_boolean().unwrap_or(false),
        }))
    }
}

impl Consumer {
    fn of(group: String, item: &Value<'_>) -> Self {
        let subscriptions = item.get("subscriptionDataSet").items();
        Self {
            group,
            kind: variant(item.get("consumeType"), &KINDS, 1),
            model: variant(item.get("messageModel"), &MODELS, 1),
            start: variant(item.get("consumeFromWhere"), &STARTS, 0),
            subscriptions: subscriptions.iter().filter_map(Subscription::of).collect(),
        }
    }
}

impl Subscription {
    fn of(item: &Value<'_>) -> Option<Self> {
        let text = |name, default: &str| item.get(name).as_text().unwrap_or(default).to_owned();
        Some(Self {
            topic: item.get("topic").as_text()?.to_owned(),
            expression: text("subString", "*"),
            kind: text("expressionType", "TAG"),
            version: item.get("subVersion").as_number().unwrap_or(0),
        })
    }
}

/// What a client asks before it consumes: whether the broker understands a subscription
/// (`remoting/.../protocol/body/CheckClientRequestBody.java`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientCheck {
    pub group: String,
    pub subscription: Subscription,
}

impl ClientCheck {
    /// `None` when it asks nothing.
    pub fn read(body: &[u8]) -> Result<Option<Self>, JsonError> {
        if body.is_empty() {
            return Ok(None);
        }
        let value = Value::parse(body)?;
        let group = value.get("group").as_text().unwrap_or_default().to_owned();
        let subscription = Subscription::of(value.get("subscriptionData"));
        Ok(subscription.map(|subscription| Self { group, subscription }))
    }
}

/// A variant by its name or its number; `default` for what is neither.
fn variant(value: &Value<'_>, names: &[&'static str], default: usize) -> &'static str {
    let named = value.as_text().and_then(|text| names.iter().find(|name| **name == text));
    let number = || value.as_number().and_then(|number| usize::try_from(number).ok());
    named.or_else(|| names.get(number()?)).unwrap_or(&names[default])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heartbeats_of_java_and_of_cpp_say_the_same() {
        let java = br#"{"clientID":"10.0.0.9@4711#17","consumerDataSet":[{"consumeFromWhere":"CONSUME_FROM_FIRST_OFFSET",
            "consumeType":"CONSUME_PASSIVELY","groupName":"CG","messageModel":"CLUSTERING","subscriptionDataSet":[{
            "classFilterMode":false,"codeSet":[2598919],"expressionType":"TAG","subString":"TagA","subVersion":17,
            "tagsSet":["TagA"],"topic":"T"}],"unitMode":false}],"heartbeatFingerprint":0,"producerDataSet":[{"groupName":
            "PG"}],"withoutSub":false}"#;
        let cpp =
            br#"{"clientID":"10.0.0.9@4711#17","consumerDataSet":[{"consumeFromWhere":4,"consumeType":1,
            "groupName":"CG","messageModel":1,"subscriptionDataSet":[{"codeSet":["0"],"subString":"TagA",
            "subVersion":"17","topic":"T"}]}],"producerDataSet":[{"groupName":"PG"}]}
"#;
        let read = |body: &[u8]| Heartbeat::read(body).expect("JSON").expect("it names a client");
        let heartbeat = read(java);
        assert_eq!(heartbeat, read(cpp));
        let consumer = &heartbeat.consumers[0];
        assert_eq!((consumer.kind, consumer.model), ("CONSUME_PASSIVELY", "CLUSTERING"));
        assert_eq!(consumer.start, "CONSUME_FROM_FIRST_OFFSET");
        assert_eq!(consumer.subscriptions[0].version, 17);
        assert_eq!(heartbeat.producers, ["PG"]);
        assert_eq!(Heartbeat::read(b"{}"), Ok(None));
        assert!(Heartbeat::read(b"{").is_err());
    }

    #[test]
    fn a_client_asks_about_one_subscription() {
        let asked = br#"{"clientId":"c","group":"CG","namespace":"","subscriptionData":{"classFilterMode":false,"codeSet":[],
            "expressionType":"SQL92","subString":"a > 1","subVersion":17,"tagsSet":[],"topic":"T"}}"#;
        let subscription = Subscription {
            topic: "T".to_owned(),
            expression: "a > 1".to_owned(),
            kind: "SQL92".to_owned(),
            version: 17,
        };
        assert_eq!(ClientCheck::read(asked), Ok(Some(ClientCheck { group: "CG".to_owned(), subscription })));
        for nothing in [&b""[..], b"{}", br#"{"clientId":"c","group":"CG"}"#, br#"{"subscriptionData":{}}"#] {
            assert_eq!(ClientCheck::read(nothing), Ok(None));
        }
        assert!(ClientCheck::read(b"{").is_err());
    }
}
