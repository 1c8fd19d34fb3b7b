//! `turbopump mirror`: topics of one broker, kept up to date on another.
//!
//! Queue by queue, in order, each message once: see `lane` for what makes that so, and `alignment` for what is found out after a
//! death. The places are groups' places: `mirror-to-NODE` at the source, whose lag is the mirror's, and `mirror-from-NODE` at the
//! target.

mod alignment;
mod copying;
mod ends;
mod lane;
mod outgoing;
mod sending;
mod topic;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Args;
use serde::Serialize;

use self::copying::Copying;
use self::ends::{Ends, FromArguments, ToArguments};
use self::sending::Counts;
use self::topic::{Existing, Found, MirroredTopic};
use crate::cli::error::CommandError;
use crate::cli::offset_argument::{OffsetArgument, SentOffsetSpec};
use crate::cli::output::{OutputFormat, Table, grouped, print};
use crate::cli::progress::Progress;
use crate::cli::quantity::Span;
use crate::cli::signals::stop_flag;
use crate::types::TopicName;

/// Between attempts at a broker that is away or takes nothing.
const PAUSE: Duration = Duration::from_millis(500);
/// Between looks at the stop flag.
const LOOK: Duration = Duration::from_millis(50);
/// How long a broker is waited for, where the command ends by itself.
const RETRY_FOR: Duration = Duration::from_secs(5 * 60);
/// Topics of one command: each has a thread, and connections to every shard of both brokers.
const TOPICS_MAX: usize = 128;

const NOTES: &str = "\
Every part of a message is copied, and its order in its queue: queue 3 to queue 3. Topics that are missing are made, with as many \
queues, and the source's retention and level. How far each queue is both brokers keep, as the place of a group: \
`turbopump group describe mirror-to-NODE` at the source shows the lag. So the same command goes on where it was, from any machine. \
Killed at any moment, or with either broker killed, nothing is left out and order is kept; nothing is copied twice, unless others \
write to the topic at the target, or messages that follow one another are the same in every part.

Delayed messages are copied once they are delivered, halves of transactions once they are committed. Places of groups, and the \
topics of groups (%RETRY%, %DLQ%) unless they are named, stay where they are.

Each end has a key and TLS of its own. Secrets belong into TURBOPUMP_FROM_SECRET_KEY and TURBOPUMP_TO_SECRET_KEY, or into files.";

#[derive(Debug, Args)]
#[command(after_help = NOTES)]
pub struct MirrorArguments {
    /// Topics to copy
    #[arg(required = true, value_name = "TOPIC")]
    pub topics: Vec<TopicName>,
    #[command(flatten)]
    pub source: FromArguments,
    #[command(flatten)]
    pub target: ToArguments,
    /// Go on with what comes, until stopped; survives restarts of both brokers
    #[arg(long)]
    pub follow: bool,
    /// Messages per second at most, of all topics
    #[arg(long, value_name = "R", value_parser = clap::value_parser!(u64).range(1..))]
    pub rate: Option<u64>,
    /// Where to begin in a queue that was not copied before: first, last, or a time like 2024-05-06T07:08:09Z or -1h
    #[arg(long, value_name = "OFFSET", default_value = "first", allow_hyphen_values = true)]
    pub start: OffsetArgument,
    /// Copy behind the messages that a topic has at the target, where this mirror has copied nothing before
    #[arg(long)]
    pub append: bool,
    /// Leave out messages that the target would refuse for what they are, such as a key that an earlier release took
    #[arg(long)]
    pub leave_out: bool,
    /// Say what would be copied, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// How long to wait for a broker that goes away or takes nothing, each time [default: 5m; with --follow, for ever]
    #[arg(long, value_name = "DURATION")]
    pub retry_for: Option<Span>,
}

/// What all topics of a mirror have in common.
struct Shared {
    stop: Arc<AtomicBool>,
    /// A topic has failed: the others end as well.
    failed: AtomicBool,
    follow: bool,
    existing: Existing,
    start: OffsetArgument,
    leave_out: bool,
    /// `None`: for ever.
    retry_for: Option<Duration>,
    rate: Option<u64>,
    started: Instant,
    sent: AtomicU64,
    copied: AtomicU64,
    bytes: AtomicU64,
    progress: Progress,
}

/// What was copied, or would be.
#[derive(Serialize)]
struct MirrorView {
    from_node: String,
    to_node: String,
    topics: Vec<TopicView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
}

#[derive(Serialize)]
struct TopicView {
    topic: String,
    queues: u32,
    #[serde(flatten)]
    what: WhatView,
}

#[derive(Serialize)]
#[serde(untagged)]
enum WhatView {
    /// What `--dry-run` has found.
    Planned {
        /// Messages.
        to_copy: u64,
        /// What is done about the topic at the target: `make`, `add queues`, or nothing, as it `is there`.
        target: &'static str,
    },
    Done {
        copied: u64,
        /// Copied before, and not counted then.
        found: u64,
        expired: u64,
        damaged: u64,
        left_out: u64,
    },
}

pub fn run(arguments: &MirrorArguments, format: OutputFormat) -> Result<(), CommandError> {
    arguments.check()?;
    let stop = stop_flag()?;
    let mut ends = Ends::connect(&arguments.source, &arguments.target)?;
    let mut topics = Vec::new();
    for name in &arguments.topics {
        topics.push(MirroredTopic::look(&mut ends, name)?);
    }
    // What cannot be copied is found out before anything is made.
    let plan = plan(arguments, &mut ends, &topics)?;
    if arguments.dry_run {
        return print(format, &plan, MirrorView::render);
    }
    let shared = Shared {
        stop,
        failed: AtomicBool::new(false),
        follow: arguments.follow,
        existing: arguments.existing(),
        start: arguments.start,
        leave_out: arguments.leave_out,
        retry_for: match arguments.retry_for {
            Some(Span(span)) => Some(span),
            None => (!arguments.follow).then_some(RETRY_FOR),
        },
        rate: arguments.rate,
        started: Instant::now(),
        sent: AtomicU64::new(0),
        copied: AtomicU64::new(0),
        bytes: AtomicU64::new(0),
        progress: Progress::new(None),
    };
    let (views, outcome) = copy_all(&shared, &ends, topics);
    shared.progress.finish();
    let seconds = (shared.started.elapsed().as_secs_f64() * 1e3).round() / 1e3;
    let view = MirrorView::new(&ends, views, Some(seconds));
    print(format, &view, MirrorView::render)?;
    outcome?;
    if shared.stop.load(Ordering::Relaxed) && !arguments.follow {
        return Err(CommandError::failed("interrupted: the same command goes on"));
    }
    view.check_whole()
}

/// Copies all topics at once. The first error ends the others, which keep what they have.
fn copy_all(
    shared: &Shared,
    ends: &Ends,
    topics: Vec<MirroredTopic>,
) -> (Vec<TopicView>, Result<(), CommandError>) {
    let copy = |topic: MirroredTopic| {
        let begun = ends.another().and_then(|ends| Copying::begin(shared, ends, topic));
        let (counts, copied) = match begun {
            Ok(copying) => copying.run(),
            Err(error) => (Counts::default(), Err(error)),
        };
        if copied.is_err() {
            shared.failed.store(true, Ordering::Relaxed);
        }
        (counts, copied)
    };
    let named: Vec<_> =
        topics.iter().map(|topic| (topic.name.to_string(), topic.source.queue_count)).collect();
    let outcomes: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = topics.into_iter().map(|topic| scope.spawn(move || copy(topic))).collect();
        while threads.iter().any(|thread| !thread.is_finished()) {
            let (bytes, copied) =
                (shared.bytes.load(Ordering::Relaxed), shared.copied.load(Ordering::Relaxed));
            shared.progress.show(bytes, copied);
            std::thread::sleep(LOOK);
        }
        threads
            .into_iter()
            .map(|thread| thread.join().expect("a thread that panics ends the process"))
            .collect()
    });
    let mut views = Vec::new();
    let mut outcome = Ok(());
    for ((topic, queues), (counts, copied)) in named.into_iter().zip(outcomes) {
        let Counts { copied: count, found, expired, damaged, left_out } = counts;
        let what = WhatView::Done { copied: count, found, expired, damaged, left_out };
        views.push(TopicView { topic, queues, what });
        outcome = outcome.and(copied);
    }
    (views, outcome)
}

fn plan(
    arguments: &MirrorArguments,
    ends: &mut Ends,
    topics: &[MirroredTopic],
) -> Result<MirrorView, CommandError> {
    let mut views = Vec::new();
    for topic in topics {
        let mut to_copy = 0;
        for queue in topic.queues() {
            let place = match topic.place(ends, queue, arguments.start, arguments.existing())? {
                Found::New(place) => place,
                Found::Kept(kept) => {
                    let aligned = topic.align(ends, queue, kept)?;
                    topic.check_kept(ends, queue, &aligned, arguments.existing())?;
                    aligned.place
                }
            };
            to_copy += topic.left(queue, place.source);
        }
        let queues = topic.source.queue_count;
        let target = match &topic.target {
            None => "make",
            Some(target) if target.queue_count < queues => "add queues",
            Some(_) => "is there",
        };
        let what = WhatView::Planned { to_copy, target };
        views.push(TopicView { topic: topic.name.to_string(), queues, what });
    }
    Ok(MirrorView::new(ends, views, None))
}

impl MirrorArguments {
    fn check(&self) -> Result<(), CommandError> {
        let distinct: BTreeSet<_> = self.topics.iter().collect();
        if distinct.len() < self.topics.len() {
            return Err(CommandError::usage("a topic is named twice"));
        }
        if distinct.len() > TOPICS_MAX {
            let message =
                format!("one command mirrors up to {TOPICS_MAX} topics: begin another one for the others");
            return Err(CommandError::usage(message));
        }
        if let SentOffsetSpec::Offset(_) = self.start.sent() {
            return Err(CommandError::usage(
                "--start is first, last or a time: offsets differ from queue to queue",
            ));
        }
        Ok(())
    }

    fn existing(&self) -> Existing {
        if self.append { Existing::Append } else { Existing::Refuse }
    }
}

impl Shared {
    fn tell(&self, topic: &TopicName, line: &str) {
        self.progress.print(&format!("turbopump: {topic}: {line}"));
    }

    /// What is said of a broker that is waited for.
    fn patience(&self) -> String {
        match self.retry_for {
            Some(span) => format!("trying again, for up to {}", Span(span)),
            None => "trying again".to_owned(),
        }
    }

    fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed) || self.failed.load(Ordering::Relaxed)
    }

    /// Sleeps, unless the command is to stop.
    fn pause(&self, span: Duration) {
        let until = Instant::now() + span;
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            if self.is_stopped() {
                return;
            }
            std::thread::sleep(left.min(LOOK));
        }
    }

    /// How long until another message may leave.
    fn wait_for_rate(&self) -> Duration {
        let Some(rate) = self.rate else { return Duration::ZERO };
        let sent = u128::from(self.sent.load(Ordering::Relaxed));
        let due = u64::try_from(sent * 1_000_000_000 / u128::from(rate)).unwrap_or(u64::MAX);
        Duration::from_nanos(due).saturating_sub(self.started.elapsed())
    }

    fn note_sent(&self, messages: u64) {
        self.sent.fetch_add(messages, Ordering::Relaxed);
    }

    fn note_copied(&self, messages: u64, bytes: u64) {
        self.copied.fetch_add(messages, Ordering::Relaxed);
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
    }
}

impl MirrorView {
    fn new(ends: &Ends, topics: Vec<TopicView>, seconds: Option<f64>) -> Self {
        Self {
            from_node: ends.source_node.to_string(),
            to_node: ends.target_node.to_string(),
            topics,
            seconds,
        }
    }

    /// What was not copied is an error, though everything else was.
    fn check_whole(&self) -> Result<(), CommandError> {
        let (mut lost, mut refused) = (0, 0);
        for topic in &self.topics {
            if let WhatView::Done { expired, damaged, left_out, .. } = topic.what {
                lost += expired + damaged;
                refused += left_out;
            }
        }
        if lost + refused == 0 {
            return Ok(());
        }
        let message = format!(
            "{} messages were not copied: {} could not be read at the source any more, and {} were left out",
            grouped(lost + refused),
            grouped(lost),
            grouped(refused)
        );
        Err(CommandError::failed(message).with("not_copied", lost + refused))
    }

    fn render(&self) -> String {
        let mut planned = Table::new(["TOPIC", "QUEUES", "TO COPY", "TARGET"]);
        let mut done = Table::new(["TOPIC", "QUEUES", "COPIED", "FOUND", "NOT COPIED"]);
        let mut is_plan = false;
        for TopicView { topic, queues, what } in &self.topics {
            let (topic, queues) = (topic.clone(), queues.to_string());
            match what {
                WhatView::Planned { to_copy, target } => {
                    is_plan = true;
                    planned.row([topic, queues, grouped(*to_copy), (*target).to_owned()]);
                }
                WhatView::Done { copied, found, expired, damaged, left_out } => {
                    let not_copied = grouped(expired + damaged + left_out);
                    done.row([topic, queues, grouped(*copied), grouped(*found), not_copied]);
                }
            }
        }
        if is_plan { planned.render() } else { done.render() }
    }
}
