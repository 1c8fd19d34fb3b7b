//! How far groups are.

use std::collections::BTreeMap;

use clap::Args;
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, brokers_of};
use crate::cli::mqadmin::arguments::Shared;
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::clients::consumers_of;
use crate::cli::mqadmin::columns::{cut, print, second};
use crate::cli::mqadmin::topics::RETRIES;
use crate::protocol::remoting::body::{BrokerQueue, ToldPlace, ToldProgress};
use crate::protocol::remoting::client::Answer;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::{FieldValue, JsonError, ResponseCode, release_name};

#[derive(Debug, Args)]
pub struct ProgressArguments {
    /// One group, queue by queue; without it all groups, one a line
    #[arg(short = 'g', long = "groupName", value_name = "GROUP")]
    pub group: Option<String>,
    /// One topic only
    #[arg(short = 't', long = "topicName", value_name = "TOPIC", requires = "group")]
    pub topic: Option<String>,
    /// Whether to show which client has each queue
    #[arg(short = 's', long = "showClientIP", value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub with_clients: bool,
    /// By whose route the brokers are found
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Serialize)]
struct QueueView {
    topic: String,
    broker: String,
    queue: i64,
    broker_offset: i64,
    consumer_offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    diff: i64,
    in_flight: i64,
    last_consumed_ms: Option<i64>,
}

#[derive(Serialize)]
struct GroupView {
    group: String,
    queues: Vec<QueueView>,
    consumed_per_second: f64,
    diff: i64,
    in_flight: i64,
}

#[derive(Serialize)]
struct SummaryView {
    group: String,
    clients: usize,
    version: Option<String>,
    kind: &'static str,
    model: String,
    consumed_per_second: f64,
    diff: i64,
}

#[derive(Serialize)]
struct SummariesView {
    groups: Vec<SummaryView>,
}

pub fn run(of: &ProgressArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    match &of.group {
        Some(group) => {
            let view = group_view(&mut admin, of, group.trim())?;
            print(of.shared.output, &view, |view| view.render(of.with_clients))
        }
        None => {
            let view = summaries(&mut admin)?;
            print(of.shared.output, &view, SummariesView::render)
        }
    }
}

/// Where a group is, in one topic or in all, on all brokers that have the topic `by`, or else the group's retries.
pub fn progress_of(
    admin: &mut Admin,
    group: &str,
    topic: Option<&str>,
    by: Option<&str>,
) -> Result<ToldProgress, CallError> {
    let retries = format!("{RETRIES}{group}");
    let route = admin.route(by.unwrap_or(&retries))?;
    let mut told = ToldProgress::default();
    for broker in brokers_of(&route) {
        let of_broker = progress_on(admin, &broker.address, group, topic)?;
        told.queues.extend(of_broker.queues);
        told.rate += of_broker.rate;
    }
    Ok(told)
}

/// Where a group is on one broker.
pub fn progress_on(
    admin: &mut Admin,
    broker: &str,
    group: &str,
    topic: Option<&str>,
) -> Result<ToldProgress, CallError> {
    let mut fields = vec![("consumerGroup", FieldValue::Text(group))];
    fields.extend(topic.map(|topic| ("topic", FieldValue::Text(topic))));
    admin.ask(broker, request::GET_CONSUME_STATS, &fields, b"", |answer| ToldProgress::read(answer.body))
}

fn group_view(admin: &mut Admin, of: &ProgressArguments, group: &str) -> Result<GroupView, CommandError> {
    let topic = of.topic.as_deref().map(str::trim);
    // Whose settings are there and who has never consumed has no topic of retries on every broker.
    let by = of.cluster.as_deref().map(str::trim).or(topic);
    let told = match progress_of(admin, group, topic, by) {
        Err(error) if error.is_refusal_of(ResponseCode::TopicNotExist) => {
            return Err(unknown(group, topic));
        }
        told => told?,
    };
    if told.queues.is_empty() {
        return Err(unknown(group, topic));
    }
    let clients = if of.with_clients { clients_by_queue(admin, group)? } else { BTreeMap::new() };
    let queue = |(queue, place): (&BrokerQueue, &ToldPlace)| QueueView {
        topic: queue.topic.clone(),
        broker: queue.broker.clone(),
        queue: queue.queue,
        broker_offset: place.end,
        consumer_offset: place.committed,
        client: clients.get(queue).cloned(),
        diff: place.missing(),
        in_flight: place.given.saturating_sub(place.committed),
        last_consumed_ms: (place.stored != 0).then_some(place.stored),
    };
    let queues: Vec<_> = told.queues.iter().map(queue).collect();
    Ok(GroupView {
        group: group.to_owned(),
        consumed_per_second: told.rate,
        diff: queues.iter().map(|queue| queue.diff).fold(0, i64::saturating_add),
        in_flight: queues.iter().map(|queue| queue.in_flight).fold(0, i64::saturating_add),
        queues,
    })
}

fn unknown(group: &str, topic: Option<&str>) -> CommandError {
    let of_topic = topic.map_or_else(String::new, |topic| format!(" of topic {topic}"));
    CommandError::failed(format!(
        "group {group} has consumed nothing{of_topic}: check its name, `turbopump consumerProgress` without -g lists the groups"
    ))
}

/// The client that has each queue, by the address that its id begins with. Clients say it themselves.
fn clients_by_queue(admin: &mut Admin, group: &str) -> Result<BTreeMap<BrokerQueue, String>, CommandError> {
    let mut found = BTreeMap::new();
    let Some((broker, consumers)) = consumers_of(admin, group)? else { return Ok(found) };
    for client in consumers.clients {
        let fields = [
            ("consumerGroup", FieldValue::Text(group)),
            ("clientId", FieldValue::Text(&client.client)),
            ("jstackEnable", FieldValue::Boolean(false)),
            ("metrics", FieldValue::Boolean(false)),
        ];
        let host = client.client.split('@').next().unwrap_or_default();
        let read = |answer: &Answer<'_>| {
            let value = Value::parse(answer.body)?;
            let text = |of: &Value<'_>, name| of.get(name).as_text().unwrap_or_default().to_owned();
            let queues = value.get("mqTable").entries().iter().map(|(key, _)| BrokerQueue {
                topic: text(key, "topic"),
                broker: text(key, "brokerName"),
                queue: key.get("queueId").as_number().unwrap_or(0),
            });
            Ok::<Vec<_>, JsonError>(queues.collect())
        };
        // One that does not answer has its queues all the same; others are shown.
        match admin.ask(&broker, request::GET_CONSUMER_RUNNING_INFO, &fields, b"", read) {
            Ok(queues) => found.extend(queues.into_iter().map(|queue| (queue, host.to_owned()))),
            Err(error) if error.code().is_some() => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(found)
}

impl GroupView {
    fn render(&self, with_clients: bool) -> String {
        let client = |text: &str| if with_clients { format!("{text:<20} ") } else { String::new() };
        let mut text = format!(
            "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {}{:<20} {:<20}{}\n",
            "#Topic",
            "#Broker Name",
            "#QID",
            "#Broker Offset",
            "#Consumer Offset",
            client("#Client IP"),
            "#Diff",
            "#Inflight",
            "#LastTime"
        );
        for of in &self.queues {
            text += &format!(
                "{:<64}  {:<32}  {:<4}  {:<20}  {:<20}  {}{:<20} {:<20} {}\n",
                cut(&of.topic, 64),
                cut(&of.broker, 32),
                of.queue,
                of.broker_offset,
                of.consumer_offset,
                client(of.client.as_deref().unwrap_or("N/A")),
                of.diff,
                of.in_flight,
                of.last_consumed_ms.map_or_else(|| "N/A".to_owned(), second)
            );
        }
        text + &format!(
            "\nConsume TPS: {:.2}\nConsume Diff Total: {}\nConsume Inflight Total: {}\n",
            self.consumed_per_second, self.diff, self.in_flight
        )
    }
}

fn summaries(admin: &mut Admin) -> Result<SummariesView, CommandError> {
    let topics = admin.topics()?;
    let mut groups = Vec::new();
    for group in topics.iter().filter_map(|topic| topic.strip_prefix(RETRIES)) {
        let told = match progress_of(admin, group, None, None) {
            // It may be gone by now.
            Err(error) if error.code().is_some() => ToldProgress::default(),
            told => told?,
        };
        let consumers = consumers_of(admin, group)?.map(|(_, consumers)| consumers).unwrap_or_default();
        let is_pushed = consumers.kind == "CONSUME_PASSIVELY";
        let version = consumers.clients.iter().map(|client| client.version).min();
        groups.push(SummaryView {
            group: group.to_owned(),
            clients: consumers.clients.len(),
            version: version.map(release_name),
            kind: match (consumers.clients.is_empty(), is_pushed) {
                (true, _) => "",
                (false, true) => "PUSH",
                (false, false) => "PULL",
            },
            model: if is_pushed { consumers.model } else { String::new() },
            consumed_per_second: told.rate,
            diff: told.missing(),
        });
    }
    Ok(SummariesView { groups })
}

impl SummariesView {
    fn render(&self) -> String {
        let mut text = format!(
            "{:<64}  {:<6}  {:<24} {:<5}  {:<14}  {:<7}  {}\n",
            "#Group", "#Count", "#Version", "#Type", "#Model", "#TPS", "#Diff Total"
        );
        for of in &self.groups {
            text += &format!(
                "{:<64}  {:<6}  {:<24} {:<5}  {:<14}  {:<7}  {}\n",
                cut(&of.group, 64),
                of.clients,
                of.version.as_deref().unwrap_or("OFFLINE"),
                of.kind,
                of.model,
                of.consumed_per_second as i64,
                of.diff
            );
        }
        text
    }
}
