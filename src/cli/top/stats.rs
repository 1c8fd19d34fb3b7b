//! `turbopump topic stats` and `turbopump group lag`: what `top` shows of topics and groups, with ages, and without a screen.

use clap::Args;
use serde::Serialize;

use super::command::{IntervalFlag, ONCE_INTERVAL, next_sample};
use super::grid::{Cell, Column, Grid};
use super::grids::{age, byte_rate, count, rate};
use super::picture::{GroupFigures, LagFigures, Picture, TopicFigures};
use super::sample::{Asked, Sample, Scope};
use crate::cli::error::CommandError;
use crate::cli::instance::InstanceFlag;
use crate::cli::output::{OutputFormat, print, terminal_width};
use crate::cli::server::ServerArguments;
use crate::types::{GroupName, TopicName};

const TOPIC_COLUMNS: [Column; 11] = [
    Column::text("TOPIC", 'n', 0),
    Column::number("IN/S", 'i', 0),
    Column::number("OUT/S", 'o', 0),
    Column::number("IN B/S", 'b', 2),
    Column::number("OUT B/S", 'd', 3),
    Column::number("MINUTE", 'x', 4),
    Column::number("HOUR", 'y', 4),
    Column::number("DAY", 'z', 5),
    Column::number("MESSAGES", 'm', 1),
    Column::number("OLDEST", 'a', 2),
    Column::number("NEWEST", 'e', 1),
];

const LAG_COLUMNS: [Column; 8] = [
    Column::text("GROUP", 'n', 0),
    Column::text("TOPIC", 't', 0),
    Column::number("LAG", 'l', 0),
    Column::number("UNREAD FOR", 'a', 0),
    Column::number("OUT/S", 'o', 1),
    Column::number("LEASED", 'e', 2),
    Column::number("WAITING", 'w', 2),
    Column::number("DEAD", 'd', 1),
];

const TOPIC_HELP: &str = "\
Rates are of the interval. MINUTE, HOUR and DAY count the messages that were stored within the last one, as far as they are still \
there; OLDEST and NEWEST are ages.

JSON: interval_ms, topics (topic, id, queues, messages, messages_in_per_second, bytes_in_per_second, messages_out_per_second, \
bytes_out_per_second, oldest_age_ms, newest_age_ms, within_minute, within_hour, within_day).

Examples:
  turbopump topic stats
  turbopump topic stats orders --interval 10s -o json";

const LAG_HELP: &str = "\
LAG counts what the group has not dealt with: messages that were never delivered, and those that are leased or waiting. UNREAD \
FOR is the age of the oldest of them, OUT/S how many the group has dealt with in a second of the interval.

JSON: interval_ms, groups (group, members, receivers, readers, lag, leased, waiting, dead_letters, messages_per_second, \
oldest_unread_age_ms, topics (topic, and the same figures), topics_left_out).

Examples:
  turbopump group lag
  turbopump group lag billing -o json";

#[derive(Debug, Args)]
#[command(after_help = TOPIC_HELP)]
pub struct TopicStatsArguments {
    /// The topic [default: all topics]
    pub topic: Option<TopicName>,
    #[command(flatten)]
    pub interval: IntervalFlag,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
#[command(after_help = LAG_HELP)]
pub struct GroupLagArguments {
    /// The group [default: all groups]
    pub group: Option<GroupName>,
    #[command(flatten)]
    pub interval: IntervalFlag,
    #[command(flatten)]
    pub instance: InstanceFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Serialize)]
struct TopicsView {
    interval_ms: u64,
    topics: Vec<TopicFigures>,
}

#[derive(Serialize)]
struct GroupsView {
    interval_ms: u64,
    groups: Vec<GroupFigures>,
}

pub fn topic_stats(arguments: &TopicStatsArguments, format: OutputFormat) -> Result<(), CommandError> {
    let only = arguments.topic.as_ref().map(|topic| arguments.instance.topic(topic)).transpose()?;
    let asked = Asked { topics: Some(Scope { only, ages: true }), ..Asked::default() };
    let (before, mut now) = samples(&arguments.server, arguments.interval, &asked)?;
    now.topics.retain(|topic| arguments.instance.shows(topic.topic.instance().as_ref()));
    let picture = Picture::of(Some(&before), &now);
    let view = TopicsView { interval_ms: picture.interval_ms, topics: picture.topics };
    print(format, &view, |view| {
        let mut grid = Grid::new(&TOPIC_COLUMNS);
        view.topics.iter().for_each(|topic| grid.row(topic_row(topic)));
        grid.render(terminal_width())
    })
}

pub fn group_lag(arguments: &GroupLagArguments, format: OutputFormat) -> Result<(), CommandError> {
    let only = arguments.group.as_ref().map(|group| arguments.instance.group(group)).transpose()?;
    let asked = Asked { groups: Some(Scope { only, ages: true }), ..Asked::default() };
    let (before, mut now) = samples(&arguments.server, arguments.interval, &asked)?;
    now.groups.retain(|group| arguments.instance.shows(group.group.instance().as_ref()));
    let picture = Picture::of(Some(&before), &now);
    let view = GroupsView { interval_ms: picture.interval_ms, groups: picture.groups };
    print(format, &view, |view| {
        let mut grid = Grid::new(&LAG_COLUMNS);
        for group in &view.groups {
            group.topics.iter().for_each(|of| grid.row(lag_row(&group.group, &of.topic, &of.lag)));
            if group.topics.is_empty() {
                grid.row(lag_row(&group.group, "-", &group.lag));
            }
        }
        grid.render(terminal_width())
    })
}

/// Two samples, an interval apart.
fn samples(
    server: &ServerArguments,
    interval: IntervalFlag,
    asked: &Asked,
) -> Result<(Sample, Sample), CommandError> {
    let interval = interval.or(ONCE_INTERVAL)?;
    let mut client = server.connect()?;
    let before = Sample::take(&mut client, asked)?;
    let now = next_sample(&mut client, asked, before.at, interval)?;
    Ok((before, now))
}

fn topic_row(topic: &TopicFigures) -> Vec<Cell> {
    vec![
        Cell::text(&*topic.topic),
        rate(topic.messages_in_per_second),
        rate(topic.messages_out_per_second),
        byte_rate(topic.bytes_in_per_second),
        byte_rate(topic.bytes_out_per_second),
        count(topic.within_minute),
        count(topic.within_hour),
        count(topic.within_day),
        count(topic.messages),
        age(topic.oldest_age_ms),
        age(topic.newest_age_ms),
    ]
}

fn lag_row(group: &str, topic: &str, lag: &LagFigures) -> Vec<Cell> {
    vec![
        Cell::text(group),
        Cell::text(topic),
        count(lag.lag),
        age(lag.oldest_unread_age_ms),
        rate(lag.messages_per_second),
        count(lag.leased),
        count(lag.waiting),
        count(lag.dead_letters),
    ]
}
