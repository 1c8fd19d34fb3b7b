//! Topics: listed, shown, set up and removed.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use clap::Args;
use serde::Serialize;
use serde_json::Value;
use serde_json::ser::{Formatter, PrettyFormatter};

use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, Broker, brokers_of};
use crate::cli::mqadmin::arguments::{Shared, TargetArguments};
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::{cut, print, time};
use crate::cli::output::on_one_line;
use crate::protocol::remoting::body::{BrokerQueue, QueueNumbers, ToldTopic, TopicRoute, read_queue_numbers};
use crate::protocol::remoting::client::Answer;
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, ResponseCode};

/// Topics of RocketMQ's own for each group.
pub const RETRIES: &str = "%RETRY%";
pub const DEAD_LETTERS: &str = "%DLQ%";
/// Where name servers keep which queues an ordered topic has.
const ORDERED_TOPICS: &str = "ORDER_TOPIC_CONFIG";

#[derive(Debug, Args)]
pub struct TopicListArguments {
    /// With the cluster of each topic, and the groups that consume it
    #[arg(short = 'c', long = "clusterModel")]
    pub with_groups: bool,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct TopicRouteArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// As a table, a broker a line
    #[arg(short = 'l', long)]
    pub list: bool,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct TopicArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct TopicStatusArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// Another topic, or a cluster, by whose route the brokers are found
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct UpdateTopicArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// Attributes that are set and taken away: +a=b,-c
    #[arg(short = 'a', long, value_name = "CHANGES", allow_hyphen_values = true)]
    pub attributes: Option<String>,
    /// Queues of each broker that are read
    #[arg(short = 'r', long = "readQueueNums", value_name = "N", default_value_t = 8)]
    pub read: u32,
    /// Queues of each broker that are written to
    #[arg(short = 'w', long = "writeQueueNums", value_name = "N", default_value_t = 8)]
    pub write: u32,
    /// 2: it is written to, 4: it is read, 6: both
    #[arg(short = 'p', long = "perm", value_name = "N", default_value_t = 6,
        value_parser = clap::value_parser!(u32).range(0..=7))]
    pub permission: u32,
    /// Whether its messages keep their order
    #[arg(short = 'o', long, value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub order: bool,
    /// Whether it is of a unit
    #[arg(short = 'u', long, value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub unit: bool,
    /// Whether it is consumed by units
    #[arg(short = 's', long = "hasUnitSub", value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub unit_consumers: bool,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct DeleteTopicArguments {
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    #[arg(short = 'c', long = "clusterName", value_name = "CLUSTER")]
    pub cluster: String,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct UpdatePermArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// 2: it is written to, 4: it is read, 6: both
    #[arg(short = 'p', long = "perm", value_name = "N", value_parser = clap::value_parser!(u32).range(0..=7))]
    pub permission: u32,
    #[command(flatten)]
    pub shared: Shared,
}

/// How a topic is set up on one broker.
#[derive(Clone, Debug, Serialize)]
struct TopicView {
    topic: String,
    read_queues: u32,
    write_queues: u32,
    permission: u32,
    order: bool,
    system_flag: u32,
    attributes: BTreeMap<String, String>,
    brokers: Vec<String>,
}

#[derive(Serialize)]
struct ListedView {
    topic: String,
    cluster: String,
    groups: Vec<String>,
}

#[derive(Serialize)]
struct ListView<T> {
    topics: Vec<T>,
}

#[derive(Serialize)]
struct QueueView {
    broker: String,
    queue: i64,
    min_offset: i64,
    max_offset: i64,
    last_stored_ms: Option<i64>,
}

#[derive(Serialize)]
struct StatusView {
    topic: String,
    queues: Vec<QueueView>,
    put_per_second: f64,
}

pub fn list(of: &TopicListArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let topics = admin.topics()?;
    if !of.with_groups {
        let view = ListView { topics };
        return print(of.shared.output, &view, |view| {
            view.topics.iter().map(|topic| on_one_line(topic) + "\n").collect()
        });
    }
    let is_listed = |topic: &String| !topic.starts_with(RETRIES) && !topic.starts_with(DEAD_LETTERS);
    let mut listed = Vec::new();
    for topic in topics.into_iter().filter(is_listed) {
        // Names of clusters and brokers are listed as well, and have no route.
        let route = admin.route_if_any(&topic)?.unwrap_or_default();
        let cluster = route.brokers.first().map_or_else(String::new, |broker| broker.cluster.clone());
        let groups = match brokers_of(&route).first() {
            Some(broker) => admin.groups_of(&broker.address, &topic)?,
            None => Vec::new(),
        };
        listed.push(ListedView { topic, cluster, groups });
    }
    print(of.shared.output, &ListView { topics: listed }, |view| {
        let line =
            |cluster: &str, topic: &str, group: &str| format!("{cluster:<20}  {topic:<48}  {group:<48}\n");
        let mut text = line("#Cluster Name", "#Topic", "#Consumer Group");
        for of in &view.topics {
            let nobody = [String::new()];
            let groups = if of.groups.is_empty() { &nobody[..] } else { &of.groups };
            for group in groups {
                text += &line(&cut(&of.cluster, 20), &cut(&of.topic, 48), &cut(group, 48));
            }
        }
        text
    })
}

pub fn route(of: &TopicRouteArguments) -> Result<(), CommandError> {
    let route = Admin::new(&of.shared)?.route(of.topic.trim())?;
    let mut body = Vec::new();
    route.write(&mut body);
    let value: Value = serde_json::from_slice(&body).map_err(CommandError::failed)?;
    print(of.shared.output, &value, |value| if of.list { route_table(&route) } else { pretty(value) })
}

/// A broker a line, and the sums.
fn route_table(route: &TopicRoute) -> String {
    let line = |cells: [&str; 6]| {
        let [cluster, broker, addresses, read, write, permission] = cells.map(on_one_line);
        format!("{cluster:<45} {broker:<32} {addresses:<50} {read:<10} {write:<11} {permission:<5}\n")
    };
    let mut text =
        line(["#ClusterName", "#BrokerName", "#BrokerAddrs", "#ReadQueue", "#WriteQueue", "#Perm"]);
    let (mut read, mut write) = (0_u64, 0_u64);
    for queues in &route.queues {
        let broker = route.brokers.iter().find(|broker| broker.broker == queues.broker);
        let cluster = broker.map_or("", |broker| &broker.cluster);
        let addresses = broker.iter().flat_map(|broker| &broker.addresses);
        let addresses: Vec<_> = addresses.map(|(id, address)| format!("{id}={address}")).collect();
        text += &line([
            cluster,
            &queues.broker,
            &format!("{{{}}}", addresses.join(", ")),
            &queues.read.to_string(),
            &queues.write.to_string(),
            &queues.permission.to_string(),
        ]);
        read += u64::from(queues.read);
        write += u64::from(queues.write);
    }
    let count = route.queues.len().to_string();
    text + &"-".repeat(158) + "\n" + &line(["Total:", &count, "", &read.to_string(), &write.to_string(), ""])
}

/// As `mqadmin` writes it, with a tab for each depth and nothing after a colon, but in JSON that every program reads.
fn pretty(value: &Value) -> String {
    let mut output = Vec::new();
    let formatter = Tabs(PrettyFormatter::with_indent(b"\t"));
    value
        .serialize(&mut serde_json::Serializer::with_formatter(&mut output, formatter))
        .expect("memory takes everything");
    String::from_utf8_lossy(&output).into_owned()
}

struct Tabs<'a>(PrettyFormatter<'a>);

impl Formatter for Tabs<'_> {
    fn begin_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_array(writer)
    }

    fn end_array<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array(writer)
    }

    fn begin_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_array_value(writer, first)
    }

    fn end_array_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_array_value(writer)
    }

    fn begin_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.begin_object(writer)
    }

    fn end_object<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object(writer)
    }

    fn begin_object_key<W: ?Sized + io::Write>(&mut self, writer: &mut W, first: bool) -> io::Result<()> {
        self.0.begin_object_key(writer, first)
    }

    fn begin_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        writer.write_all(b":")
    }

    fn end_object_value<W: ?Sized + io::Write>(&mut self, writer: &mut W) -> io::Result<()> {
        self.0.end_object_value(writer)
    }
}

pub fn status(of: &TopicStatusArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let topic = of.topic.trim();
    let route = admin.route(of.cluster.as_deref().map_or(topic, str::trim))?;
    let mut told = ToldTopic::default();
    for broker in brokers_of(&route) {
        let of_broker = stats(&mut admin, &broker.address, topic)?;
        told.queues.extend(of_broker.queues);
        told.rate += of_broker.rate;
    }
    let queues = told.queues.into_iter().map(|(BrokerQueue { broker, queue, .. }, bounds)| QueueView {
        broker,
        queue,
        min_offset: bounds.first,
        max_offset: bounds.end,
        last_stored_ms: (bounds.stored > 0).then_some(bounds.stored),
    });
    let queues = queues.collect();
    let view = StatusView { topic: topic.to_owned(), queues, put_per_second: told.rate };
    print(of.shared.output, &view, |view| {
        let mut text = format!(
            "{:<32}  {:<4}  {:<20}  {:<20}    {}\n",
            "#Broker Name", "#QID", "#Min Offset", "#Max Offset", "#Last Updated"
        );
        for of in &view.queues {
            text += &format!(
                "{:<32}  {:<4}  {:<20}  {:<20}    {}\n",
                cut(&of.broker, 32),
                of.queue,
                of.min_offset,
                of.max_offset,
                of.last_stored_ms.map_or_else(String::new, time)
            );
        }
        text + &format!("\nTopic Put TPS: {:?}\n", view.put_per_second)
    })
}

/// What a broker has of a topic.
pub fn stats(admin: &mut Admin, broker: &str, topic: &str) -> Result<ToldTopic, CallError> {
    let fields = [("topic", FieldValue::Text(topic))];
    admin.ask(broker, request::GET_TOPIC_STATS_INFO, &fields, b"", |answer| ToldTopic::read(answer.body))
}

pub fn clusters(of: &TopicArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let route = admin.route(of.topic.trim())?;
    let clusters: BTreeSet<_> = route.brokers.iter().map(|broker| broker.cluster.clone()).collect();
    print(of.shared.output, &clusters, |clusters| {
        clusters.iter().map(|cluster| on_one_line(cluster) + "\n").collect()
    })
}

impl UpdateTopicArguments {
    fn view(&self) -> TopicView {
        let flag = u32::from(self.unit) | u32::from(self.unit_consumers) << 1;
        TopicView {
            topic: self.topic.trim().to_owned(),
            read_queues: self.read,
            write_queues: self.write,
            permission: self.permission,
            order: self.order,
            system_flag: flag,
            attributes: attributes_of(self.attributes.as_deref()),
            brokers: Vec::new(),
        }
    }
}

impl TopicView {
    fn set_up(&mut self, admin: &mut Admin, broker: &Broker) -> Result<(), CallError> {
        let change = |(name, value): (&String, &String)| match value.is_empty() {
            true => name.clone(),
            false => format!("{name}={value}"),
        };
        let attributes: Vec<_> = self.attributes.iter().map(change).collect();
        let attributes = attributes.join(",");
        let fields = [
            ("topic", FieldValue::Text(&self.topic)),
            ("defaultTopic", FieldValue::Text("TBW102")),
            ("readQueueNums", FieldValue::Number(self.read_queues.into())),
            ("writeQueueNums", FieldValue::Number(self.write_queues.into())),
            ("perm", FieldValue::Number(self.permission.into())),
            ("topicFilterType", FieldValue::Text("SINGLE_TAG")),
            ("topicSysFlag", FieldValue::Number(self.system_flag.into())),
            ("order", FieldValue::Boolean(self.order)),
            ("attributes", FieldValue::Text(&attributes)),
        ];
        admin.tell(&broker.address, request::UPDATE_AND_CREATE_TOPIC, &fields, b"")?;
        self.brokers.push(broker.address.clone());
        Ok(())
    }

    /// The settings as `mqadmin` prints them.
    fn settings(&self) -> String {
        format!(
            "TopicConfig [topicName={}, readQueueNums={}, writeQueueNums={}, perm={}, topicFilterType=SINGLE_TAG, \
             topicSysFlag={}, order={}, attributes={}]",
            self.topic,
            self.read_queues,
            self.write_queues,
            permission_text(self.permission),
            self.system_flag,
            self.order,
            attributes_text(&self.attributes)
        )
    }
}

/// Changes of attributes as they are typed: `+name=value` and `-name`, with commas between them.
pub fn attributes_of(typed: Option<&str>) -> BTreeMap<String, String> {
    let changes = typed.unwrap_or_default().split(',').filter(|text| !text.trim().is_empty());
    let change = |text: &str| match text.split_once('=') {
        Some((name, value)) => (name.trim().to_owned(), value.trim().to_owned()),
        None => (text.trim().to_owned(), String::new()),
    };
    changes.map(change).collect()
}

pub fn attributes_text(attributes: &BTreeMap<String, String>) -> String {
    let pairs: Vec<_> = attributes.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{{{}}}", pairs.join(", "))
}

/// `RW-`: read, written to, inherited.
fn permission_text(permission: u32) -> String {
    let letter = |bit: u32, letter: char| if permission & bit == 0 { '-' } else { letter };
    [letter(4, 'R'), letter(2, 'W'), letter(1, 'X')].iter().collect()
}

pub fn update(of: &UpdateTopicArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let mut view = of.view();
    let brokers = admin.targets(&of.target)?;
    for broker in &brokers {
        view.set_up(&mut admin, broker)?;
    }
    let ordered = match of.order {
        true => Some(note_order(&mut admin, of, &brokers)?),
        false => None,
    };
    print(of.shared.output, &view, |view| {
        let mut text = String::new();
        if let (Some(ordered), Some(_)) = (&ordered, &of.target.broker) {
            text += &format!("set broker orderConf. isOrder=true, orderConf=[{ordered}]\n");
        }
        text.extend(view.brokers.iter().map(|address| format!("create topic to {address} success.\n")));
        if let (Some(ordered), None) = (&ordered, &of.target.broker) {
            text += &format!("set cluster orderConf. isOrder=true, orderConf=[{ordered}]\n");
        }
        text + &view.settings()
    })
}

/// Has name servers tell clients how many queues the topic has on each broker, whether these are there at the moment or not.
fn note_order(
    admin: &mut Admin,
    of: &UpdateTopicArguments,
    brokers: &[Broker],
) -> Result<String, CommandError> {
    let topic = of.topic.trim();
    let space = ("namespace", FieldValue::Text(ORDERED_TOPICS));
    let mut noted = BTreeMap::new();
    let mut names = Vec::new();
    if of.target.broker.is_some() {
        let info = admin.cluster()?;
        let is_it = |address: &String| brokers.iter().any(|broker| broker.address == *address);
        let found = info.brokers().iter().filter(|broker| broker.addresses.values().any(is_it));
        names.extend(found.map(|broker| broker.broker.clone()));
        // What was noted of others stays.
        let fields = [space, ("key", FieldValue::Text(topic))];
        let read =
            |answer: &Answer<'_>| Ok::<_, String>(answer.header.fields.text("value").map(String::from));
        match admin.ask_names(request::GET_KV_CONFIG, &fields, read) {
            Ok(value) => {
                let value = value.unwrap_or_default();
                let parts = value.split(';').filter_map(|part| part.split_once(':'));
                noted.extend(parts.map(|(name, count)| (name.to_owned(), count.to_owned())));
            }
            Err(error) if error.is_refusal_of(ResponseCode::QueryNotFound) => {}
            Err(error) => return Err(error.into()),
        }
    } else {
        names.extend(brokers.iter().map(|broker| broker.name.clone()));
    }
    if names.is_empty() {
        return Err(CommandError::failed(
            "the topic is set up, but its order is not noted: the name server does not know the broker at that address",
        ));
    }
    let own: Vec<_> = names.iter().map(|name| format!("{name}:{}", of.write)).collect();
    noted.extend(names.into_iter().map(|name| (name, of.write.to_string())));
    let all: Vec<_> = noted.iter().map(|(name, count)| format!("{name}:{count}")).collect();
    let all = all.join(";");
    let fields = [space, ("key", FieldValue::Text(topic)), ("value", FieldValue::Text(&all))];
    for address in admin.name_servers() {
        admin.tell(&address, request::PUT_KV_CONFIG, &fields, b"")?;
    }
    Ok(own.join(";"))
}

pub fn delete(of: &DeleteTopicArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (topic, cluster) = (of.topic.trim(), of.cluster.trim());
    remove(&mut admin, cluster, topic)?;
    let view = serde_json::json!({ "topic": topic, "cluster": cluster, "done": "deleted" });
    print(of.shared.output, &view, |_| removed(cluster, topic))
}

/// Deletes a topic from all brokers of a cluster, then from the name servers.
pub fn remove(admin: &mut Admin, cluster: &str, topic: &str) -> Result<(), CommandError> {
    let fields = [("topic", FieldValue::Text(topic))];
    for broker in admin.masters(cluster)? {
        admin.tell(&broker.address, request::DELETE_TOPIC_IN_BROKER, &fields, b"")?;
    }
    let fields = [fields[0], ("clusterName", FieldValue::Text(cluster))];
    for address in admin.name_servers() {
        admin.tell(&address, request::DELETE_TOPIC_IN_NAMESRV, &fields, b"")?;
    }
    Ok(())
}

pub fn removed(cluster: &str, topic: &str) -> String {
    format!(
        "delete topic [{topic}] from cluster [{cluster}] success.\ndelete topic [{topic}] from NameServer success.\n"
    )
}

pub fn update_permission(of: &UpdatePermArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let topic = of.topic.trim();
    let route = admin.route(topic)?;
    let brokers = admin.targets(&of.target)?;
    let mut text = String::new();
    let mut changed = Vec::new();
    for broker in &brokers {
        let known = brokers_of(&route).into_iter().find(|known| known.address == broker.address);
        let queues = known.and_then(|known| route.queues.iter().find(|queues| queues.broker == known.name));
        let own = match queues {
            Some(told) => own_numbers(&mut admin, broker, topic, told)?,
            None => None,
        };
        let Some(queues) = own else {
            // A cluster may have brokers without the topic.
            if of.target.cluster.is_some() {
                continue;
            }
            return Err(CommandError::failed(format!(
                "{} is no master that has topic {topic}: `turbopump topicRoute -t {topic}` shows where it is",
                broker.address
            )));
        };
        if queues.permission == of.permission {
            text += "new perm equals to the old one!\n";
            continue;
        }
        let mut view = TopicView::of(topic, &queues, of.permission);
        view.set_up(&mut admin, broker)?;
        text += &format!(
            "update topic perm from {} to {} in {} success.\n",
            queues.permission, of.permission, broker.address
        );
        if of.target.broker.is_some() {
            text += &format!("{}.\n", view.settings());
        }
        changed.push(view);
    }
    print(of.shared.output, &changed, |_| text)
}

/// How the topic is set up on the broker, by its own word: while name servers keep a broker closed, routes say of all its topics
/// that nothing is written to them. `told` counts where a broker is too old to be asked; `None`: it has no such topic.
fn own_numbers(
    admin: &mut Admin,
    broker: &Broker,
    topic: &str,
    told: &QueueNumbers,
) -> Result<Option<QueueNumbers>, CallError> {
    let fields = [("topic", FieldValue::Text(topic))];
    let own = admin.ask(&broker.address, request::GET_TOPIC_CONFIG, &fields, b"", |answer| {
        read_queue_numbers(answer.body)
    });
    match own {
        Err(error) if error.is_refusal_of(ResponseCode::RequestCodeNotSupported) => Ok(Some(told.clone())),
        Err(error) if error.is_refusal_of(ResponseCode::TopicNotExist) => Ok(None),
        own => own.map(Some),
    }
}

impl TopicView {
    fn of(topic: &str, queues: &QueueNumbers, permission: u32) -> Self {
        Self {
            topic: topic.to_owned(),
            read_queues: queues.read,
            write_queues: queues.write,
            permission,
            order: false,
            system_flag: queues.flags.unsigned_abs(),
            attributes: BTreeMap::new(),
            brokers: Vec::new(),
        }
    }
}
