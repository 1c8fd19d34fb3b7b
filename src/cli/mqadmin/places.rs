//! Where groups go on: `resetOffsetByTime`, `skipAccumulatedMessage`, `cloneGroupOffset`.

use clap::Args;
use serde::Serialize;

use crate::cli::calendar;
use crate::cli::error::CommandError;
use crate::cli::mqadmin::admin::{Admin, Broker, brokers_of};
use crate::cli::mqadmin::arguments::{Shared, Time, TimeError};
use crate::cli::mqadmin::caller::CallError;
use crate::cli::mqadmin::columns::{cut, print};
use crate::cli::mqadmin::progress::{progress_of, progress_on};
use crate::cli::mqadmin::topics::stats;
use crate::protocol::remoting::body::{BrokerQueue, read_queue_offsets};
use crate::protocol::remoting::code::request;
use crate::protocol::remoting::{FieldValue, ResponseCode};

/// The time that stands for the end of a queue.
const END: i64 = -1;

#[derive(Debug, Args)]
pub struct ResetArguments {
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub group: String,
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// The first message that was stored then or later: now for the end, or a time
    #[arg(short = 's', long, value_name = "TIME", allow_hyphen_values = true)]
    pub timestamp: ResetTime,
    /// Whether the group may go back; it always may
    #[arg(short = 'f', long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub force: bool,
    /// By whose route the brokers are found
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    /// Name or address of one broker
    #[arg(short = 'b', long, value_name = "BROKER")]
    pub broker: Option<String>,
    /// One queue of that broker
    #[arg(short = 'q', long, value_name = "N", requires = "broker")]
    pub queue: Option<u32>,
    /// Where that queue is to go on, whatever the time is
    #[arg(short = 'o', long, value_name = "N", requires = "queue")]
    pub offset: Option<u64>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct SkipArguments {
    #[arg(short = 'g', long, value_name = "GROUP")]
    pub group: String,
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// Whether the group may go back; the end is behind it
    #[arg(short = 'f', long, value_name = "true|false", default_value_t = true, action = clap::ArgAction::Set)]
    pub force: bool,
    /// By whose route the brokers are found
    #[arg(short = 'c', long, value_name = "CLUSTER")]
    pub cluster: Option<String>,
    #[command(flatten)]
    pub shared: Shared,
}

#[derive(Debug, Args)]
pub struct CloneArguments {
    /// The group whose places these are
    #[arg(short = 's', long = "srcGroup", value_name = "GROUP")]
    pub from: String,
    /// The group that gets them
    #[arg(short = 'd', long = "destGroup", value_name = "GROUP")]
    pub to: String,
    #[arg(short = 't', long, value_name = "TOPIC")]
    pub topic: String,
    /// Not looked at, as in `mqadmin`
    #[arg(short = 'o', long, value_name = "true|false", default_value_t = false, action = clap::ArgAction::Set)]
    pub offline: bool,
    #[command(flatten)]
    pub shared: Shared,
}

/// A time, or the end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResetTime(Time);

impl std::str::FromStr for ResetTime {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let typed = text.trim();
        if typed == "now" {
            let now = i64::try_from(calendar::now().0).unwrap_or(i64::MAX);
            return Ok(Self(Time { text: typed.to_owned(), milliseconds: now }));
        }
        typed.parse().map(Self).map_err(|error: TimeError| error.to_string())
    }
}

/// Where a queue goes on.
#[derive(Clone, Serialize)]
struct PlaceView {
    broker: String,
    queue: i64,
    offset: i64,
    /// Where the group had been, and where the queue ended; of brokers that leave the move to this command.
    #[serde(flatten)]
    before: Option<Before>,
}

#[derive(Clone, Copy, Serialize)]
struct Before {
    broker_offset: i64,
    consumer_offset: i64,
}

/// What is to be moved.
struct Move<'a> {
    group: &'a str,
    topic: &'a str,
    /// Milliseconds; below zero: the end.
    time: i64,
    force: bool,
    queue: Option<(u32, Option<u64>)>,
}

#[derive(Serialize)]
struct MovedView<'a> {
    group: &'a str,
    topic: &'a str,
    queues: Vec<PlaceView>,
}

pub fn reset(of: &ResetArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let ResetTime(Time { text, milliseconds }) = &of.timestamp;
    let (group, topic) = (of.group.trim(), of.topic.trim());
    let queue = of.queue.map(|queue| (queue, of.offset));
    let moved = Move { group, topic, time: *milliseconds, force: of.force, queue };
    let by = of.cluster.as_deref().unwrap_or(topic).trim();
    let queues = move_all(&mut admin, &moved, of.broker.as_deref().map(str::trim), by)?;
    let heading = format!(
        "start reset consumer offset by specified, group[{group}], topic[{topic}], force[{}], timestamp(string)[{text}], \
         timestamp(long)[{milliseconds}]\n",
        of.force
    );
    print(of.shared.output, &MovedView { group, topic, queues }, |view| heading + &table(&view.queues))
}

pub fn skip(of: &SkipArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (group, topic) = (of.group.trim(), of.topic.trim());
    let moved = Move { group, topic, time: END, force: of.force, queue: None };
    let queues = move_all(&mut admin, &moved, None, of.cluster.as_deref().unwrap_or(topic).trim())?;
    print(of.shared.output, &MovedView { group, topic, queues }, |view| table(&view.queues))
}

/// As `mqadmin` prints where queues go on: with more where brokers have left the move to it.
fn table(queues: &[PlaceView]) -> String {
    if queues.iter().all(|place| place.before.is_none()) {
        let mut text = format!("{:<40}  {:<40}  {:<40}\n", "#brokerName", "#queueId", "#offset");
        for of in queues {
            text += &format!("{:<40}  {:<40}  {:<40}\n", cut(&of.broker, 32), of.queue, of.offset);
        }
        return text;
    }
    let row = |cells: [&str; 6]| {
        let cells = cells.map(|cell| format!("{cell:<20}"));
        cells.join("  ") + "\n"
    };
    let names = [
        "#brokerName",
        "#queueId",
        "#brokerOffset",
        "#consumerOffset",
        "#timestampOffset",
        "#rollbackOffset",
    ];
    let mut text = row(names);
    for of in queues {
        let number = |of: Option<i64>| of.map_or_else(String::new, |number| number.to_string());
        let before = of.before;
        text += &row([
            &cut(&of.broker, 32),
            &of.queue.to_string(),
            &number(before.map(|before| before.broker_offset)),
            &number(before.map(|before| before.consumer_offset)),
            &of.offset.to_string(),
            &of.offset.to_string(),
        ]);
    }
    text
}

fn move_all(
    admin: &mut Admin,
    moved: &Move<'_>,
    broker: Option<&str>,
    by: &str,
) -> Result<Vec<PlaceView>, CommandError> {
    let route = admin.route(by)?;
    let mut brokers = brokers_of(&route);
    brokers.retain(|of| broker.is_none_or(|broker| of.name == broker || of.address == broker));
    if brokers.is_empty() {
        let broker = broker.unwrap_or_default();
        return Err(CommandError::failed(format!(
            "broker {broker} has no queue of topic {by}: `turbopump topicRoute -t {by}` shows those that have"
        )));
    }
    let mut places = Vec::new();
    for broker in &brokers {
        places.extend(move_on(admin, moved, broker)?);
    }
    places.sort_by(|one, other| (&one.broker, one.queue).cmp(&(&other.broker, other.queue)));
    Ok(places)
}

/// Has a broker move the group, or does so itself where nobody consumes, which Apache's brokers ask for.
fn move_on(admin: &mut Admin, moved: &Move<'_>, broker: &Broker) -> Result<Vec<PlaceView>, CallError> {
    let mut fields = vec![
        ("topic", FieldValue::Text(moved.topic)),
        ("group", FieldValue::Text(moved.group)),
        ("timestamp", FieldValue::Number(moved.time)),
        ("isForce", FieldValue::Boolean(moved.force)),
    ];
    if let Some((queue, offset)) = moved.queue {
        fields.push(("queueId", FieldValue::Number(queue.into())));
        let offset = offset.map_or(-1, |offset| i64::try_from(offset).unwrap_or(i64::MAX));
        fields.push(("offset", FieldValue::Number(offset)));
    }
    let asked = admin.ask(&broker.address, request::INVOKE_BROKER_TO_RESET_OFFSET, &fields, b"", |answer| {
        read_queue_offsets(answer.body)
    });
    let place = |(queue, offset): (BrokerQueue, i64)| PlaceView {
        broker: queue.broker,
        queue: queue.queue,
        offset,
        before: None,
    };
    match asked {
        Err(error) if error.is_refusal_of(ResponseCode::ConsumerNotOnline) => commit_on(admin, moved, broker),
        asked => Ok(asked?.into_iter().map(place).collect()),
    }
}

/// Commits for the group, queue by queue.
fn commit_on(admin: &mut Admin, moved: &Move<'_>, broker: &Broker) -> Result<Vec<PlaceView>, CallError> {
    let Move { group, topic, time, force, queue: wanted } = *moved;
    let places = progress_on(admin, &broker.address, group, Some(topic))?;
    let queues = stats(admin, &broker.address, topic)?.queues;
    let mut done = Vec::new();
    for (of, bounds) in queues {
        let number = of.queue;
        if wanted.is_some_and(|(queue, _)| i64::from(queue) != number) {
            continue;
        }
        let place = places.queues.get(&of);
        let committed = place.map_or(0, |place| place.committed);
        let offset = match (wanted.and_then(|(_, offset)| offset), time) {
            (Some(offset), _) => i64::try_from(offset).unwrap_or(i64::MAX),
            (None, END) => bounds.end,
            (None, time) => search(admin, broker, &of, time)?,
        };
        // Without force a group only goes back.
        if !force && offset > committed {
            continue;
        }
        commit(admin, &broker.address, group, &of, offset)?;
        done.push(PlaceView {
            broker: broker.name.clone(),
            queue: number,
            offset,
            before: Some(Before { broker_offset: bounds.end, consumer_offset: committed }),
        });
    }
    Ok(done)
}

fn search(admin: &mut Admin, broker: &Broker, queue: &BrokerQueue, time: i64) -> Result<i64, CallError> {
    let fields = [
        ("topic", FieldValue::Text(&queue.topic)),
        ("queueId", FieldValue::Number(queue.queue)),
        ("timestamp", FieldValue::Number(time)),
    ];
    admin.ask(&broker.address, request::SEARCH_OFFSET_BY_TIMESTAMP, &fields, b"", |answer| {
        answer.header.fields.required_number("offset")
    })
}

fn commit(
    admin: &mut Admin,
    broker: &str,
    group: &str,
    queue: &BrokerQueue,
    offset: i64,
) -> Result<(), CallError> {
    let fields = [
        ("consumerGroup", FieldValue::Text(group)),
        ("topic", FieldValue::Text(&queue.topic)),
        ("queueId", FieldValue::Number(queue.queue)),
        ("commitOffset", FieldValue::Number(offset)),
    ];
    admin.tell(broker, request::UPDATE_CONSUMER_OFFSET, &fields, b"")
}

pub fn clone(of: &CloneArguments) -> Result<(), CommandError> {
    let mut admin = Admin::new(&of.shared)?;
    let (from, to, topic) = (of.from.trim(), of.to.trim(), of.topic.trim());
    let told = progress_of(&mut admin, from, Some(topic), Some(topic))?;
    if told.queues.is_empty() {
        return Err(CommandError::failed(format!("group {from} has no place in topic {topic}")));
    }
    let brokers = brokers_of(&admin.route(topic)?);
    let mut places = Vec::new();
    for (queue, place) in told.queues {
        let Some(broker) = brokers.iter().find(|broker| broker.name == queue.broker) else { continue };
        commit(&mut admin, &broker.address, to, &queue, place.committed)?;
        places.push(PlaceView {
            broker: queue.broker,
            queue: queue.queue,
            offset: place.committed,
            before: None,
        });
    }
    print(of.shared.output, &MovedView { group: to, topic, queues: places }, |_| {
        format!("clone group offset success. srcGroup[{from}], destGroup=[{to}], topic[{topic}]")
    })
}
