//! Who is connected.

use clap::Args;
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, brokers_of};
use crate::cli::mqadmin::arguments::Shared;
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::print;
use crate::cli::mqadmin::topics::RETRIES;
use crate::cli::output::on_one_line;
use crate::protocol::remoting::body::{ToldClient, ToldConsumers};
use crate::protocol::remoting::client::Answer;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, ResponseCode, release_name};

#[derive(Debug, Args)]
pub struct ConsumerConnectionArguments {
    #[arg(short = 'g', long = "consumerGroup", value_name = "GROUP")]
    pub group: String,
    /// Address of the broker that is asked, instead of one that the group consumes from
    #[arg(short = 'b', long = "brokerAddr", value_name = "HOST:PORT")]
    pub broker: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct ProducerConnectionArguments {
    #[arg(short = 'g', long = "producerGroup", value_name = "GROUP")]
    pub group: String,
    /// A topic that it sends to
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Serialize)]
struct ClientView {
    client: String,
    address: String,
    language: String,
    version: String,
}

#[derive(Serialize)]
struct SubscriptionView {
    topic: String,
    expression: String,
}

#[derive(Serialize)]
struct ConsumersView {
    group: String,
    clients: Vec<ClientView>,
    subscriptions: Vec<SubscriptionView>,
    kind: String,
    model: String,
    start: String,
}

impl ClientView {
    fn of(client: ToldClient) -> Self {
        let ToldClient { client, address, language, version } = client;
        Self { client, address, language, version: release_name(version) }
    }

    fn on_one_line(&self) -> Self {
        let [client, address, language, version] =
            [&self.client, &self.address, &self.language, &self.version].map(|text| on_one_line(text).into());
        Self { client, address, language, version }
    }
}

/// Who consumes as a group, as a broker that it consumes from tells it, and the broker's address. `None`: nobody does.
pub fn consumers_of(admin: &mut Admin, group: &str) -> Result<Option<(String, ToldConsumers)>, CallError> {
    let Some(route) = admin.route_if_any(&format!("{RETRIES}{group}"))? else { return Ok(None) };
    for broker in brokers_of(&route) {
        if let Some(found) = consumers_on(admin, &broker.address, group)? {
            return Ok(Some((broker.address, found)));
        }
    }
    Ok(None)
}

fn consumers_on(admin: &mut Admin, broker: &str, group: &str) -> Result<Option<ToldConsumers>, CallError> {
    let fields = [("consumerGroup", FieldValue::Text(group))];
    let found = admin.ask(broker, request::GET_CONSUMER_CONNECTION_LIST, &fields, b"", |answer| {
        ToldConsumers::read(answer.body)
    });
    match found {
        Err(error) if error.is_refusal_of(ResponseCode::ConsumerNotOnline) => Ok(None),
        found => found.map(Some),
    }
}

pub fn consumers(of: &ConsumerConnectionArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let group = of.group.trim();
    let told = match &of.broker {
        Some(broker) => consumers_on(&mut admin, broker.trim(), group)?,
        None => consumers_of(&mut admin, group)?.map(|(_, told)| told),
    };
    let told = told.ok_or_else(|| {
        let code = ResponseCode::ConsumerNotOnline.number();
        CommandError::failed(format!("nobody consumes as group {group} at the moment")).with("code", code)
    })?;
    let mut clients = told.clients;
    clients.sort();
    let mut subscriptions: Vec<_> = told
        .subscriptions
        .into_iter()
        .map(|of| SubscriptionView { topic: of.topic, expression: of.expression })
        .collect();
    subscriptions.sort_by(|one, other| one.topic.cmp(&other.topic));
    let view = ConsumersView {
        group: group.to_owned(),
        clients: clients.into_iter().map(ClientView::of).collect(),
        subscriptions,
        kind: told.kind,
        model: told.model,
        start: told.start,
    };
    print(of.shared.output, &view, ConsumersView::render)
}

impl ConsumersView {
    fn render(&self) -> String {
        let mut text =
            format!("{:<36} {:<22} {:<10} {}\n", "#ClientId", "#ClientAddr", "#Language", "#Version");
        for of in self.clients.iter().map(ClientView::on_one_line) {
            text += &format!("{:<36} {:<22} {:<10} {}\n", of.client, of.address, of.language, of.version);
        }
        text += &format!("\nBelow is subscription:\n{:<20} {}\n", "#Topic", "#SubExpression");
        for of in &self.subscriptions {
            text += &format!("{:<20} {}\n", on_one_line(&of.topic), on_one_line(&of.expression));
        }
        let [kind, model, start] = [&self.kind, &self.model, &self.start].map(|text| on_one_line(text));
        text + &format!("\nConsumeType: {kind}\nMessageModel: {model}\nConsumeFromWhere: {start}\n")
    }
}

pub fn producers(of: &ProducerConnectionArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (group, topic) = (of.group.trim(), of.topic.trim());
    let route = admin.route(topic)?;
    let fields = [("producerGroup", FieldValue::Text(group))];
    let (mut clients, mut refusal) = (Vec::new(), None);
    // Those that send to a topic are known to its brokers as soon as they have sent there.
    for broker in brokers_of(&route) {
        let read = |answer: &Answer<'_>| ToldConsumers::read(answer.body);
        match admin.ask(&broker.address, request::GET_PRODUCER_CONNECTION_LIST, &fields, b"", read) {
            Ok(told) => clients.extend(told.clients),
            Err(error) if error.code().is_some() => refusal = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    clients.sort();
    clients.dedup_by(|one, other| one.client == other.client);
    match (clients.is_empty(), refusal) {
        (true, Some(refusal)) => return Err(refusal.into()),
        (true, None) => {
            return Err(CommandError::failed(format!("nobody produces as group {group} at the moment")));
        }
        (false, _) => {}
    }
    let clients: Vec<_> = clients.into_iter().map(ClientView::of).collect();
    print(of.shared.output, &clients, |clients| {
        let line = |(number, of): (usize, &ClientView)| {
            let of = of.on_one_line();
            format!("{number:04}  {:<32} {:<22} {:<8} {}\n", of.client, of.address, of.language, of.version)
        };
        (1..).zip(clients).map(line).collect()
    })
}
