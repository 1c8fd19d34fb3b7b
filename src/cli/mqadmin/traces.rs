//! `queryMsgTraceById`: what clients have noted of a message (`client/.../trace/TraceDataEncoder.java`).

use clap::Args;
use serde::Serialize;

use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::Admin;
use crate::cli::mqadmin::arguments::{Shared, Time};
use crate::cli::mqadmin::columns::{print, second};
use crate::cli::mqadmin::look_up::{Sought, look_for};
use crate::cli::mqadmin::message::Message;
use crate::cli::output::on_one_line;

const NOTE_END: char = '\u{2}';
const PART_END: char = '\u{1}';

#[derive(Debug, Args)]
pub struct TraceArguments {
    /// The id that the message's producer gave it
    #[arg(short = 'i', long = "msgId", value_name = "ID")]
    pub id: String,
    /// Where clients leave their traces
    #[arg(short = 't', long = "traceTopic", value_name = "TOPIC", default_value = "RMQ_SYS_TRACE_TOPIC")]
    pub topic: String,
    /// Only traces that were stored then or later
    #[arg(short = 'b', long = "beginTimestamp", value_name = "TIME")]
    pub from: Option<Time>,
    /// Only traces that were stored until then
    #[arg(short = 'e', long = "endTimestamp", value_name = "TIME")]
    pub to: Option<Time>,
    /// At most so many traces of each broker
    #[arg(short = 'c', long = "maxNum", value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..))]
    pub count: u32,
    #[command(flatten)]
    pub shared: Shared,
}

/// That a client has sent or consumed the message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Note {
    kind: Kind,
    group: String,
    client_host: String,
    time_ms: i64,
    cost_ms: i64,
    success: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Sent,
    Consumed,
}

pub fn run(of: &TraceArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (id, topic) = (of.id.trim(), of.topic.trim());
    let sought = Sought {
        topic,
        by: topic,
        key: id,
        is_unique: false,
        kind: None,
        last: None,
        count: of.count,
        from: of.from.as_ref().map_or(0, |time| time.milliseconds),
        to: of.to.as_ref().map_or(i64::MAX, |time| time.milliseconds),
    };
    let found = look_for(&mut admin, &sought)?;
    let notes: Vec<_> = found.iter().flat_map(|message| notes_in(message, id)).collect();
    if notes.is_empty() {
        return Err(CommandError::failed(format!(
            "no client has left a trace of message {id} in topic {topic}: they do so where they are told to"
        )));
    }
    print(of.shared.output, &notes, |notes| render(notes))
}

/// What the body of a trace says of a message.
fn notes_in(message: &Message, id: &str) -> Vec<Note> {
    let text = String::from_utf8_lossy(&message.body);
    let host = message.born_host.ip().to_string();
    let notes = text.split(NOTE_END).map(|note| note.split(PART_END).collect::<Vec<_>>());
    notes.filter_map(|parts| Note::of(&parts, id, &host)).collect()
}

impl Note {
    /// A note of that message. Releases append parts, so what comes later may not be there.
    fn of(parts: &[&str], id: &str, host: &str) -> Option<Self> {
        let part = |index: usize| parts.get(index).copied().unwrap_or_default();
        let number = |index: usize| part(index).parse().unwrap_or(0);
        let (kind, id_at, group_at, time_at, cost_at, success_at) = match part(0) {
            // Before a release that says where the message was stored, its success stands there.
            "Pub" => (Kind::Sent, 5, 3, 1, 10, if parts.len() < 14 { 12 } else { 13 }),
            "SubAfter" => (Kind::Consumed, 2, 8, 7, 3, 4),
            _ => return None,
        };
        (part(id_at) == id).then(|| Self {
            kind,
            group: part(group_at).to_owned(),
            client_host: host.to_owned(),
            time_ms: number(time_at),
            cost_ms: number(cost_at),
            success: part(success_at).eq_ignore_ascii_case("true"),
        })
    }

    fn line(&self) -> String {
        let kind = if self.kind == Kind::Sent { "Pub" } else { "Sub" };
        let status = if self.success { "success" } else { "failed" };
        let cost = format!("{}ms", self.cost_ms);
        row([kind, &on_one_line(&self.group), &self.client_host, &second(self.time_ms), &cost, status])
    }
}

fn row([kind, group, host, time, cost, status]: [&str; 6]) -> String {
    format!("{kind:<10} {group:<20} {host:<20} {time:<20} {cost:<10} {status:<10}\n")
}

fn render(notes: &[Note]) -> String {
    let mut text = String::new();
    for note in notes.iter().filter(|note| note.kind == Kind::Sent) {
        text += &row(["#Type", "#ProducerGroup", "#ClientHost", "#SendTime", "#CostTimes", "#Status"]);
        text += &(note.line() + "\n");
    }
    let mut groups: Vec<_> = notes.iter().filter(|note| note.kind == Kind::Consumed).collect();
    groups.sort_by(|one, other| one.group.cmp(&other.group));
    for of_group in groups.chunk_by(|one, other| one.group == other.group) {
        text += &row(["#Type", "#ConsumerGroup", "#ClientHost", "#ConsumerTime", "#CostTimes", "#Status"]);
        text.extend(of_group.iter().map(|note| note.line()));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_of_every_release_are_read() {
        let of = |text: &str| Note::of(&text.split(',').collect::<Vec<_>>(), "ID", "10.0.0.1");
        let sent =
            of("Pub,1700000000000,R,producers,t,ID,tag,key,10.0.0.2:1,5,3,0,OFFSETID,true,").expect("a note");
        assert_eq!(
            (sent.kind, sent.group.as_str(), sent.cost_ms, sent.success),
            (Kind::Sent, "producers", 3, true)
        );
        let older = of("Pub,1700000000000,R,producers,t,ID,tag,key,10.0.0.2:1,5,3,0,false").expect("a note");
        assert_eq!((older.time_ms, older.success), (1_700_000_000_000, false));
        let consumed = of("SubAfter,R,ID,7,true,key,0,1700000000009,consumers").expect("a note");
        assert_eq!(
            (consumed.kind, consumed.group.as_str(), consumed.time_ms),
            (Kind::Consumed, "consumers", 1_700_000_000_009)
        );
        assert_eq!(of("SubBefore,1,R,consumers,R,ID,0,key"), None);
        assert_eq!(of("Pub,1,R,producers,t,OTHER,,,,5,3,0,true"), None);
        assert_eq!(of(""), None);
    }
}
