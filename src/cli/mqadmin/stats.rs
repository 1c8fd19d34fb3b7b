//! `statsAll`: how much comes and goes.

use clap::Args;
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, Broker, brokers_of};
use crate::cli::mqadmin::arguments::Shared;
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::{cut, print};
use crate::cli::mqadmin::progress::progress_on;
use crate::cli::mqadmin::topics::{DEAD_LETTERS, RETRIES};
use crate::protocol::remoting::FieldValue;
use crate::protocol::remoting::body::ToldCounts;
use crate::protocol::remoting::code::request;

#[derive(Debug, Args)]
pub struct StatsArguments {
    /// Only topics that messages came to or were taken from
    #[arg(short = 'a', long = "activeTopic")]
    pub active: bool,
    /// One topic only
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

/// A topic and a group that consumes it, or a topic that nobody consumes.
#[derive(Serialize)]
struct RowView {
    topic: String,
    group: Option<String>,
    accumulated: i64,
    in_per_second: f64,
    out_per_second: f64,
    in_day: i64,
    out_day: i64,
}

#[derive(Serialize)]
struct StatsView {
    rows: Vec<RowView>,
}

pub fn run(of: &StatsArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let mut topics = admin.topics()?;
    topics.retain(|topic| !topic.starts_with(RETRIES) && !topic.starts_with(DEAD_LETTERS));
    if let Some(wanted) = of.topic.as_deref().map(str::trim) {
        topics.retain(|topic| topic == wanted);
        if topics.is_empty() {
            return Err(CommandError::failed(format!("topic {wanted} does not exist")));
        }
    }
    let mut rows = Vec::new();
    for topic in topics {
        // Names of clusters and brokers are listed as well, and have no route.
        let Some(route) = admin.route_if_any(&topic)? else { continue };
        rows.extend(rows_of(&mut admin, &topic, &brokers_of(&route))?);
    }
    if of.active {
        rows.retain(|row| row.in_day > 0 || row.out_day > 0);
    }
    print(of.shared.output, &StatsView { rows }, StatsView::render)
}

fn rows_of(admin: &mut Admin, topic: &str, brokers: &[Broker]) -> Result<Vec<RowView>, CallError> {
    let [in_per_second, in_day] = counted(admin, brokers, "TOPIC_PUT_NUMS", topic)?;
    let row = |group: Option<String>| RowView {
        topic: topic.to_owned(),
        group,
        accumulated: 0,
        in_per_second,
        out_per_second: 0.0,
        in_day: in_day as i64,
        out_day: 0,
    };
    let groups = match brokers.first() {
        Some(broker) => match admin.groups_of(&broker.address, topic) {
            Err(error) if error.code().is_some() => Vec::new(),
            groups => groups?,
        },
        None => Vec::new(),
    };
    if groups.is_empty() {
        return Ok(vec![row(None)]);
    }
    let mut rows = Vec::new();
    for group in groups {
        let [out_per_second, out_day] =
            counted(admin, brokers, "GROUP_GET_NUMS", &format!("{topic}@{group}"))?;
        let mut accumulated: i64 = 0;
        for broker in brokers {
            match progress_on(admin, &broker.address, &group, Some(topic)) {
                Err(error) if error.code().is_some() => {}
                told => accumulated = accumulated.saturating_add(told?.missing()),
            }
        }
        let accumulated = accumulated.max(0);
        rows.push(RowView { accumulated, out_per_second, out_day: out_day as i64, ..row(Some(group)) });
    }
    Ok(rows)
}

/// What all brokers have counted: a second, and in the longest span that there is of the last day.
fn counted(admin: &mut Admin, brokers: &[Broker], name: &str, key: &str) -> Result<[f64; 2], CallError> {
    let fields = [("statsName", FieldValue::Text(name)), ("statsKey", FieldValue::Text(key))];
    let mut sums = [0.0, 0.0];
    for broker in brokers {
        let told = admin.ask(&broker.address, request::VIEW_BROKER_STATS_DATA, &fields, b"", |answer| {
            ToldCounts::read(answer.body)
        });
        let counts = match told {
            // Nothing was counted.
            Err(error) if error.code().is_some() => continue,
            told => told?,
        };
        let spans = [counts.day, counts.hour, counts.minute];
        let sum = spans.iter().map(|count| count.sum).find(|sum| *sum != 0).unwrap_or(0);
        sums = [sums[0] + counts.minute.rate, sums[1] + sum as f64];
    }
    Ok(sums)
}

impl StatsView {
    fn render(&self) -> String {
        let mut text = format!(
            "{:<64}  {:<64} {:>12} {:>11} {:>11} {:>14} {:>14}\n",
            "#Topic",
            "#Consumer Group",
            "#Accumulation",
            "#InTPS",
            "#OutTPS",
            "#InMsg24Hour",
            "#OutMsg24Hour"
        );
        for of in &self.rows {
            let (group, rate, day) = match &of.group {
                Some(group) => (cut(group, 64), format!("{:.2}", of.out_per_second), of.out_day.to_string()),
                None => ("".into(), String::new(), "NO_CONSUMER".to_owned()),
            };
            text += &format!(
                "{:<64}  {group:<64} {:>12} {:>11.2} {rate:>11} {:>14} {day:>14}\n",
                cut(&of.topic, 64),
                of.accumulated,
                of.in_per_second,
                of.in_day
            );
        }
        text
    }
}
