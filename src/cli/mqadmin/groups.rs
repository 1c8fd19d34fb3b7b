//! Groups: their settings.

use clap::Args;
use serde_json::Value;

use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::Admin;
use crate::cli::mqadmin::arguments::{Shared, TargetArguments};
use crate::cli::mqadmin::columns::print;
use crate::cli::mqadmin::topics::{DEAD_LETTERS, RETRIES, attributes_of, attributes_text, remove, removed};
use crate::protocol::remoting::FieldValue;
use crate::protocol::remoting::code::request;

#[derive(Debug, Args)]
pub struct UpdateSubGroupArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[arg(short = 'g', long = "groupName", value_name = "GROUP")]
    pub group: String,
    /// Whether it may consume
    #[arg(short = 's', long = "consumeEnable", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub may_consume: bool,
    /// Whether it begins with the first message
    #[arg(short = 'm', long = "consumeFromMinEnable", value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub from_first: bool,
    /// Whether each of its clients may have all messages
    #[arg(short = 'd', long = "consumeBroadcastEnable", value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub may_broadcast: bool,
    /// Whether it consumes in order
    #[arg(short = 'o', long = "consumeMessageOrderly", value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub ordered: bool,
    /// Queues of each broker for what comes again
    #[arg(short = 'q', long = "retryQueueNums", value_name = "N", default_value_t = 1)]
    pub retry_queues: u32,
    /// How often a message comes again; -1: without end
    #[arg(
        short = 'r',
        long = "retryMaxTimes",
        value_name = "N",
        default_value_t = 16,
        allow_hyphen_values = true
    )]
    pub retries: i32,
    /// Delays of what comes again, as JSON: `{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000]}}`
    #[arg(short = 'p', long = "groupRetryPolicy", value_name = "JSON", value_parser = policy)]
    pub retry_policy: Option<Value>,
    /// Of the broker to consume from
    #[arg(short = 'i', long = "brokerId", value_name = "N", default_value_t = 0)]
    pub broker_id: u32,
    /// Of the broker to consume from when the first one is slow
    #[arg(short = 'w', long = "whichBrokerWhenConsumeSlowly", value_name = "N", default_value_t = 1)]
    pub slow_broker_id: u32,
    /// Whether its clients are told of each other
    #[arg(short = 'a', long = "notifyConsumerIdsChanged", value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub notify: bool,
    /// Attributes that are set and taken away: +a=b,-c
    #[arg(long, value_name = "CHANGES", allow_hyphen_values = true)]
    pub attributes: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct DeleteSubGroupArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[arg(short = 'g', long = "groupName", value_name = "GROUP")]
    pub group: String,
    /// Whether its places go as well
    #[arg(short = 'r', long = "removeOffset", value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub with_places: bool,
    #[command(flatten)]
    pub shared: Shared,
}

fn policy(text: &str) -> Result<Value, String> {
    let value: Value = serde_json::from_str(text).map_err(|error| format!("it is no JSON: {error}"))?;
    match &value {
        Value::Object(_) => Ok(value),
        _ => Err("it is to be an object".to_owned()),
    }
}

impl UpdateSubGroupArguments {
    /// What is sent to brokers.
    fn settings(&self) -> Value {
        let mut settings = serde_json::json!({
            "groupName": self.group.trim(),
            "consumeEnable": self.may_consume,
            "consumeFromMinEnable": self.from_first,
            "consumeBroadcastEnable": self.may_broadcast,
            "consumeMessageOrderly": self.ordered,
            "retryQueueNums": self.retry_queues,
            "retryMaxTimes": self.retries,
            "brokerId": self.broker_id,
            "whichBrokerWhenConsumeSlowly": self.slow_broker_id,
            "notifyConsumerIdsChangedEnable": self.notify,
            "groupSysFlag": 0,
            "consumeTimeoutMinute": 15,
        });
        settings["attributes"] = serde_json::json!(attributes_of(self.attributes.as_deref()));
        let policy = self.retry_policy.clone();
        settings["groupRetryPolicy"] = policy.unwrap_or_else(|| serde_json::json!({ "type": "CUSTOMIZED" }));
        settings
    }

    /// The same as `mqadmin` prints it.
    fn text(&self) -> String {
        format!(
            "SubscriptionGroupConfig{{groupName={}, consumeEnable={}, consumeFromMinEnable={}, consumeBroadcastEnable={}, \
             consumeMessageOrderly={}, retryQueueNums={}, retryMaxTimes={}, groupRetryPolicy={}, brokerId={}, \
             whichBrokerWhenConsumeSlowly={}, notifyConsumerIdsChangedEnable={}, groupSysFlag=0, consumeTimeoutMinute=15, \
             subscriptionDataSet=null, attributes={}}}",
            self.group.trim(),
            self.may_consume,
            self.from_first,
            self.may_broadcast,
            self.ordered,
            self.retry_queues,
            self.retries,
            policy_text(&self.settings()["groupRetryPolicy"]),
            self.broker_id,
            self.slow_broker_id,
            self.notify,
            attributes_text(&attributes_of(self.attributes.as_deref()))
        )
    }
}

/// As RocketMQ's tools write it.
fn policy_text(policy: &Value) -> String {
    let part = |name: &str, of: &str, parts: &[&str]| match policy.get(name) {
        Some(Value::Object(values)) => {
            let parts: Vec<_> = parts
                .iter()
                .map(|part| match values.get(*part) {
                    Some(Value::Array(items)) => {
                        let items: Vec<_> = items.iter().map(Value::to_string).collect();
                        format!("{part}=[{}]", items.join(", "))
                    }
                    value => format!("{part}={}", value.unwrap_or(&Value::Null)),
                })
                .collect();
            format!("{name}={of}{{{}}}", parts.join(", "))
        }
        _ => format!("{name}=null"),
    };
    format!(
        "GroupRetryPolicy{{type={}, {}, {}}}",
        policy["type"].as_str().unwrap_or("CUSTOMIZED"),
        part("exponentialRetryPolicy", "ExponentialRetryPolicy", &["initial", "max", "multiplier"]),
        part("customizedRetryPolicy", "CustomizedRetryPolicy", &["next"])
    )
}

pub fn update(of: &UpdateSubGroupArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let mut settings = of.settings();
    let body = settings.to_string();
    let mut done = Vec::new();
    for broker in admin.targets(&of.target)? {
        admin.tell(&broker.address, request::UPDATE_AND_CREATE_SUBSCRIPTIONGROUP, &[], body.as_bytes())?;
        done.push(broker.address);
    }
    settings["brokers"] = done.clone().into();
    print(of.shared.output, &settings, |_| {
        let lines = done.iter().map(|address| format!("create subscription group to {address} success.\n"));
        lines.collect::<String>() + &of.text()
    })
}

pub fn delete(of: &DeleteSubGroupArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let group = of.group.trim();
    let fields =
        [("groupName", FieldValue::Text(group)), ("cleanOffset", FieldValue::Boolean(of.with_places))];
    let (mut text, mut done) = (String::new(), Vec::new());
    for broker in admin.targets(&of.target)? {
        admin.tell(&broker.address, request::DELETE_SUBSCRIPTIONGROUP, &fields, b"")?;
        text += &match &of.target.cluster {
            Some(cluster) => format!(
                "delete subscription group [{group}] from broker [{}] in cluster [{cluster}] success.\n",
                broker.address
            ),
            None => {
                format!("delete subscription group [{group}] from broker [{}] success.\n", broker.address)
            }
        };
        done.push(broker.address);
    }
    if let Some(cluster) = of.target.cluster.as_deref().map(str::trim) {
        for prefix in [RETRIES, DEAD_LETTERS] {
            let topic = format!("{prefix}{group}");
            remove(&mut admin, cluster, &topic)?;
            text += &removed(cluster, &topic);
        }
    }
    let view = serde_json::json!({ "group": group, "brokers": done, "done": "deleted" });
    print(of.shared.output, &view, |_| text)
}
