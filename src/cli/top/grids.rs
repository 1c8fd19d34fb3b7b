//! The grids of `top`: topics, groups, shards, and who consumes as a group.

use super::grid::{Cell, Column, Grid};
use super::picture::{GroupFigures, LagFigures, Picture, ShardFigures, TopicFigures};
use crate::api::{GroupInfo, ReaderMode};
use crate::cli::output::{age_for_people, bytes_for_people, grouped, on_one_line, rate_for_people};

/// A core or a device with more to do than this has hardly anything left.
const BUSY: f64 = 0.9;

pub const TOPICS: [Column; 9] = [
    Column::text("TOPIC", 'n', 0),
    Column::number("IN/S", 'i', 0),
    Column::number("OUT/S", 'o', 0),
    Column::number("LAG", 'l', 0),
    Column::number("UNREAD FOR", 'a', 1),
    Column::number("IN B/S", 'b', 2),
    Column::number("OUT B/S", 'd', 4),
    Column::number("MESSAGES", 'm', 3),
    Column::number("QUEUES", 'u', 5),
];

pub const GROUPS: [Column; 9] = [
    Column::text("GROUP", 'n', 0),
    Column::number("OUT/S", 'o', 0),
    Column::number("LAG", 'l', 0),
    Column::number("UNREAD FOR", 'a', 1),
    Column::number("LEASED", 'e', 3),
    Column::number("WAITING", 'w', 4),
    Column::number("DEAD", 'd', 2),
    Column::number("CONSUMERS", 'c', 1),
    Column::number("TOPICS", 't', 5),
];

pub const SHARDS: [Column; 11] = [
    Column::number("SHARD", 'n', 0),
    Column::number("CORE", 'e', 3),
    Column::number("CORE USE", 'c', 0),
    Column::number("DEVICE", 'd', 0),
    Column::number("WAITING", 'w', 0),
    Column::number("IN/S", 'i', 1),
    Column::number("IN B/S", 'b', 2),
    Column::number("OUT/S", 'o', 1),
    Column::number("LOG", 'g', 2),
    Column::number("CLIENTS", 'l', 3),
    Column::text("STATE", 's', 0),
];

pub const MEMBERS: [Column; 6] = [
    Column::text("MEMBER", 'n', 0),
    Column::text("KIND", 'k', 0),
    Column::text("TOPICS", 't', 2),
    Column::number("QUEUES", 'u', 1),
    Column::number("SEEN", 'a', 1),
    Column::text("ADDRESS", 'd', 3),
];

pub fn count(value: u64) -> Cell {
    Cell::number(Some(value as f64), |_| grouped(value))
}

pub fn rate(value: Option<f64>) -> Cell {
    Cell::number(value, rate_for_people)
}

pub fn byte_rate(value: Option<f64>) -> Cell {
    Cell::number(value, bytes_for_people)
}

pub fn age(milliseconds: Option<u64>) -> Cell {
    Cell::number(milliseconds.map(|age| age as f64), age_for_people)
}

fn share(value: Option<f64>) -> Cell {
    let cell = Cell::number(value, |value| format!("{:.0} %", 100.0 * value));
    cell.alarming_if(value.is_some_and(|value| value > BUSY))
}

pub fn topics(picture: &Picture) -> Grid {
    let mut grid = Grid::new(&TOPICS);
    picture.topics.iter().for_each(|topic| grid.row(topic_row(topic)));
    grid
}

fn topic_row(topic: &TopicFigures) -> Vec<Cell> {
    vec![
        Cell::text(&*topic.topic),
        rate(topic.messages_in_per_second),
        rate(topic.messages_out_per_second),
        Cell::number(topic.lag.map(|lag| lag as f64), |_| grouped(topic.lag.unwrap_or(0))),
        age(topic.oldest_unread_age_ms),
        byte_rate(topic.bytes_in_per_second),
        byte_rate(topic.bytes_out_per_second),
        count(topic.messages),
        count(u64::from(topic.queues)),
    ]
}

/// All groups, or those that have a place in a topic, with their figures there.
pub fn groups(picture: &Picture, topic: Option<&str>) -> Grid {
    let mut grid = Grid::new(&GROUPS);
    for group in &picture.groups {
        match topic {
            None => grid.row(group_row(group, &group.lag, group.topics.len())),
            Some(topic) => {
                let of = group.topics.iter().find(|of| of.topic == topic);
                if let Some(of) = of {
                    grid.row(group_row(group, &of.lag, 1));
                }
            }
        }
    }
    grid
}

fn group_row(group: &GroupFigures, lag: &LagFigures, topics: usize) -> Vec<Cell> {
    let consumers = u64::from(group.members) + u64::from(group.receivers) + u64::from(group.readers);
    vec![
        Cell::text(&*group.group),
        rate(lag.messages_per_second),
        count(lag.lag),
        age(lag.oldest_unread_age_ms),
        count(lag.leased),
        count(lag.waiting),
        count(lag.dead_letters).alarming_if(lag.dead_letters > 0),
        // A group that is behind, and nobody is there to go on.
        count(consumers).alarming_if(consumers == 0 && lag.lag > 0),
        count(topics as u64 + u64::from(group.topics_left_out)),
    ]
}

pub fn shards(picture: &Picture) -> Grid {
    let mut grid = Grid::new(&SHARDS);
    let shards = picture.node.iter().flat_map(|node| &node.shards);
    shards.for_each(|shard| grid.row(shard_row(shard)));
    grid
}

fn shard_row(shard: &ShardFigures) -> Vec<Cell> {
    let number = |value: u64| Cell::number(Some(value as f64), |_| value.to_string());
    vec![
        number(u64::from(shard.shard)),
        Cell::number(shard.core.map(f64::from), |core| format!("{core:.0}")),
        share(shard.core_use),
        share(shard.device_use),
        count(shard.producers_waiting).alarming_if(shard.producers_waiting > 0),
        rate(shard.messages_in_per_second),
        byte_rate(shard.bytes_in_per_second),
        rate(shard.messages_out_per_second),
        byte_rate(Some(shard.log_bytes as f64)),
        count(shard.connections),
        Cell::text(on_one_line(&shard.state)).alarming_if(shard.state != "ok"),
    ]
}

/// Who consumes as a group, whichever way.
pub fn members(group: &GroupInfo) -> Grid {
    let mut grid = Grid::new(&MEMBERS);
    for member in &group.members {
        let topics = member.topics.iter().map(|topic| topic.as_str()).collect::<Vec<_>>().join(",");
        grid.row(vec![
            Cell::text(on_one_line(&member.member)),
            Cell::text("native"),
            Cell::text(topics),
            count(member.queues.len() as u64),
            age(u64::try_from(member.heartbeat_age.as_millis()).ok()),
            Cell::text("-"),
        ]);
    }
    for of in &group.receivers {
        grid.row(vec![
            Cell::text(format!("{} receives", of.active)),
            Cell::text(of.protocol.name()),
            Cell::text(of.topic.as_str()),
            Cell::number(None, |_| String::new()),
            age(u64::try_from(of.seen_age.as_millis()).ok()),
            Cell::text("-"),
        ]);
    }
    for of in &group.readers {
        let topics = of.subscriptions.iter().map(|(topic, _)| topic.as_str()).collect::<Vec<_>>().join(",");
        let gets = if of.mode == ReaderMode::Broadcasting { ", all" } else { "" };
        grid.row(vec![
            Cell::text(on_one_line(&of.client)),
            Cell::text(format!("{}{gets}", on_one_line(&of.language))),
            Cell::text(on_one_line(&topics)),
            Cell::number(None, |_| String::new()),
            Cell::number(None, |_| String::new()),
            Cell::text(on_one_line(&of.address)),
        ]);
    }
    grid
}
