//! Brokers: which there are, what they count, how they are set up, and whether they take messages.

use std::collections::BTreeMap;
use std::time::Duration;

use clap::Args;
use serde::Serialize;

use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::Admin;
use crate::cli::mqadmin::arguments::{Shared, TargetArguments};
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::print;
use crate::cli::output::on_one_line;
use crate::protocol::remoting::FieldValue;
use crate::protocol::remoting::body::{BrokerAddresses, read_table};
use crate::protocol::remoting::client::Answer;
use crate::protocol::remoting::code::request;

#[derive(Debug, Args)]
pub struct ClusterListArguments {
    /// Show how many messages came and went, yesterday and today
    #[arg(short = 'm', long = "moreStats")]
    pub with_counts: bool,
    /// Show it again and again, with so many seconds in between
    #[arg(short = 'i', long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub interval: Option<u64>,
    /// One cluster only
    #[arg(short = 'c', long = "clusterName", value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct BrokerStatusArguments {
    #[command(flatten)]
    pub target: TargetArguments,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct BrokerNameArguments {
    /// Name of the broker, as `clusterList` shows it
    #[arg(short = 'b', long = "brokerName", value_name = "NAME")]
    pub broker: String,
    #[command(flatten)]
    pub shared: Shared,
}

/// A broker, and what it counts; nothing of one that does not answer.
#[derive(Serialize)]
struct BrokerView {
    cluster: String,
    broker: String,
    id: i64,
    address: String,
    #[serde(flatten)]
    counts: Counts,
    error: Option<String>,
}

#[derive(Default, Serialize)]
struct Counts {
    version: String,
    in_per_second: f64,
    out_per_second: f64,
    hours_kept: f64,
    disk_used: f64,
    active: bool,
    in_yesterday: i64,
    out_yesterday: i64,
    in_today: i64,
    out_today: i64,
    /// What threads have before them, which Apache's brokers tell.
    #[serde(skip)]
    waits: [String; 7],
    #[serde(skip)]
    timer: [f64; 5],
}

#[derive(Serialize)]
struct ClusterView {
    brokers: Vec<BrokerView>,
}

impl Counts {
    fn of(table: &BTreeMap<String, String>) -> Self {
        let text = |name: &str| table.get(name).cloned().unwrap_or_default();
        let number =
            |name: &str| text(name).split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
        let whole = |name: &str| text(name).parse::<i64>().unwrap_or(0);
        let counted = |from: &str, to: &str| whole(to).saturating_sub(whole(from));
        let earliest = text("earliestMessageTimeStamp").parse::<u64>().ok();
        let age_ms = earliest.map_or(0, |earliest| calendar::now().0.saturating_sub(earliest));
        Self {
            version: text("brokerVersionDesc"),
            in_per_second: number("putTps"),
            out_per_second: number("getTransferredTps"),
            hours_kept: age_ms as f64 / 3_600_000.0,
            disk_used: number("commitLogDiskRatio"),
            active: text("brokerActive") == "true",
            in_yesterday: counted("msgPutTotalYesterdayMorning", "msgPutTotalTodayMorning"),
            out_yesterday: counted("msgGetTotalYesterdayMorning", "msgGetTotalTodayMorning"),
            in_today: counted("msgPutTotalTodayMorning", "msgPutTotalTodayNow"),
            out_today: counted("msgGetTotalTodayMorning", "msgGetTotalTodayNow"),
            waits: WAITS.map(|name| table.get(name).cloned().unwrap_or_else(|| "null".to_owned())),
            timer: TIMER.map(number),
        }
    }
}

/// What waits for threads to send, to pull and to acknowledge, and the page cache.
const WAITS: [&str; 7] = [
    "sendThreadPoolQueueSize",
    "sendThreadPoolQueueHeadWaitTimeMills",
    "pullThreadPoolQueueSize",
    "pullThreadPoolQueueHeadWaitTimeMills",
    "ackThreadPoolQueueSize",
    "ackThreadPoolQueueHeadWaitTimeMills",
    "pageCacheLockTimeMills",
];
const TIMER: [&str; 5] =
    ["timerReadBehind", "timerOffsetBehind", "timerCongestNum", "timerEnqueueTps", "timerDequeueTps"];

pub fn list(of: &ClusterListArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    loop {
        let view = cluster_view(&mut admin, of.cluster.as_deref().map(str::trim))?;
        print(of.shared.output, &view, |view| view.render(of.with_counts))?;
        let silent = view.brokers.iter().find_map(|broker| broker.error.as_ref());
        match (of.interval, silent) {
            (Some(seconds), _) => std::thread::sleep(Duration::from_secs(seconds)),
            (None, Some(error)) => return Err(CommandError::failed(error)),
            (None, None) => return Ok(()),
        }
    }
}

fn cluster_view(admin: &mut Admin, cluster: Option<&str>) -> Result<ClusterView, CommandError> {
    let info = admin.cluster()?;
    let is_asked = |broker: &&BrokerAddresses| cluster.is_none_or(|cluster| broker.cluster == cluster);
    let mut asked: Vec<_> = info.brokers().iter().filter(is_asked).cloned().collect();
    if let (Some(cluster), true) = (cluster, asked.is_empty()) {
        return Err(CommandError::failed(format!(
            "there is no cluster `{cluster}`: `turbopump clusterList` without -c shows all"
        )));
    }
    asked.sort_by(|one, other| (&one.cluster, &one.broker).cmp(&(&other.cluster, &other.broker)));
    let mut brokers = Vec::new();
    for BrokerAddresses { cluster, broker, addresses, .. } in asked {
        for (id, address) in addresses {
            let (counts, error) = match runtime_info(admin, &address) {
                Ok(table) => (Counts::of(&table), None),
                Err(error) => (Counts::of(&BTreeMap::new()), Some(error.to_string())),
            };
            brokers.push(BrokerView {
                cluster: cluster.clone(),
                broker: broker.clone(),
                id,
                address,
                counts,
                error,
            });
        }
    }
    Ok(ClusterView { brokers })
}

fn runtime_info(admin: &mut Admin, broker: &str) -> Result<BTreeMap<String, String>, CallError> {
    admin.ask(broker, request::GET_BROKER_RUNTIME_INFO, &[], b"", |answer| read_table(answer.body))
}

impl ClusterView {
    fn render(&self, with_counts: bool) -> String {
        if with_counts { self.render_counts() } else { self.render_rates() }
    }

    fn render_counts(&self) -> String {
        let mut text = format!(
            "{:<16}  {:<32} {:>14} {:>14} {:>14} {:>14}\n",
            "#Cluster Name",
            "#Broker Name",
            "#InTotalYest",
            "#OutTotalYest",
            "#InTotalToday",
            "#OutTotalToday"
        );
        for BrokerView { cluster, broker, counts, .. } in &self.brokers {
            let [cluster, broker] = [cluster, broker].map(|name| on_one_line(name));
            text += &format!(
                "{cluster:<16}  {broker:<32} {:>14} {:>14} {:>14} {:>14}\n",
                counts.in_yesterday, counts.out_yesterday, counts.in_today, counts.out_today
            );
        }
        text
    }

    fn render_rates(&self) -> String {
        let mut text = format!(
            "{:<22}  {:<22}  {:<4}  {:<22} {:<16}  {:>16}  {:>30}  {:<22}  {:<11}  {:<12}  {:<8}  {:<10}\n",
            "#Cluster Name",
            "#Broker Name",
            "#BID",
            "#Addr",
            "#Version",
            "#InTPS(LOAD)",
            "#OutTPS(LOAD)",
            "#Timer(Progress)",
            "#PCWait(ms)",
            "#Hour",
            "#SPACE",
            "#ACTIVATED"
        );
        for BrokerView { cluster, broker, id, address, counts, .. } in &self.brokers {
            let [cluster, broker, address] = [cluster, broker, address].map(|name| on_one_line(name));
            let [send, send_wait, pull, pull_wait, ack, ack_wait, page_wait] = &counts.waits;
            let incoming = format!("{:>9.2}({send},{send_wait}ms)", counts.in_per_second);
            let outgoing = format!("{:>9.2}({pull},{pull_wait}ms|{ack},{ack_wait}ms)", counts.out_per_second);
            let [read_behind, offset_behind, waiting, enqueued, dequeued] = counts.timer;
            let timer = format!(
                "{read_behind}-{offset_behind}({:.1}w, {enqueued:.1}, {dequeued:.1})",
                waiting / 10_000.0
            );
            text += &format!(
                "{cluster:<22}  {broker:<22}  {id:<4}  {address:<22} {:<16}  {incoming:>16}  {outgoing:>30}  {timer:<22}  \
                 {page_wait:>11}  {:<12}  {:<8}  {:>10}\n",
                on_one_line(&counts.version),
                format!("{:.2}", counts.hours_kept),
                format!("{:.4}", counts.disk_used),
                counts.active
            );
        }
        text
    }
}

pub fn status(of: &BrokerStatusArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let mut tables = BTreeMap::new();
    for broker in admin.targets(&of.target)? {
        let table = runtime_info(&mut admin, &broker.address)?;
        tables.insert(broker.address, table);
    }
    print(of.shared.output, &tables, |tables| {
        let is_one = of.target.broker.is_some();
        let line = |address: &str, name: &str, value: &str| match is_one {
            true => format!("{name:<32}: {value}\n"),
            false => format!("{address:<24} {name:<32}: {value}\n"),
        };
        let mut text = String::new();
        for (address, table) in tables {
            let table = table.iter().map(|(name, value)| (on_one_line(name), on_one_line(value)));
            text.extend(table.map(|(name, value)| line(address, &name, &value)));
        }
        text
    })
}

pub fn settings(of: &BrokerStatusArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let mut tables = BTreeMap::new();
    for broker in admin.targets(&of.target)? {
        let table = admin.ask(&broker.address, request::GET_BROKER_CONFIG, &[], b"", |answer| {
            let table = read_properties(answer.body);
            // Every broker has a name.
            if table.contains_key("brokerName") { Ok(table) } else { Err("it has no `brokerName`") }
        })?;
        tables.insert(broker.address, table);
    }
    print(of.shared.output, &tables, |tables| {
        let master = if of.target.broker.is_some() { "" } else { "Master: " };
        let mut text = String::new();
        for (address, table) in tables {
            text += &format!("============{master}{address}============\n");
            text.extend(table.iter().map(|(name, value)| format!("{name:<50}=  {value}\n")));
            text.push('\n');
        }
        text
    })
}

/// Settings as Java writes them: a line each, `name=value`.
fn read_properties(body: &[u8]) -> BTreeMap<String, String> {
    let text = String::from_utf8_lossy(body);
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let entries = lines.filter_map(|line| line.split_once('='));
    entries.map(|(name, value)| (name.trim().to_owned(), value.trim().to_owned())).collect()
}

pub fn close(of: &BrokerNameArguments) -> Result<(), CommandError> {
    change_permission(of, request::WIPE_WRITE_PERM_OF_BROKER, "wipe", "wipeTopicCount")
}

pub fn open(of: &BrokerNameArguments) -> Result<(), CommandError> {
    change_permission(of, request::ADD_WRITE_PERM_OF_BROKER, "add", "addTopicCount")
}

/// Has every name server change it; one that fails does not keep the others from it.
fn change_permission(
    of: &BrokerNameArguments,
    code: i32,
    verb: &str,
    counted: &'static str,
) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let broker = of.broker.trim();
    // A name server does as it is told of a broker that it has never heard of.
    admin.broker(broker)?;
    let fields = [("brokerName", FieldValue::Text(broker))];
    let (mut text, mut done, mut failed) = (String::new(), BTreeMap::new(), None);
    for address in admin.name_servers() {
        let read = |answer: &Answer<'_>| answer.header.fields.required_number::<i64>(counted);
        match admin.ask(&address, code, &fields, b"", read) {
            Ok(topics) => {
                text += &format!(
                    "{verb} write perm of broker[{broker}] in name server[{address}] OK, {topics}\n"
                );
                done.insert(address, topics);
            }
            Err(error) => {
                text += &format!("{verb} write perm of broker[{broker}] in name server[{address}] Failed\n");
                failed.get_or_insert(error);
            }
        }
    }
    print(of.shared.output, &done, |_| text)?;
    failed.map_or(Ok(()), |error| Err(error.into()))
}
