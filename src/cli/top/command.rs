//! `turbopump top`.

use std::io::IsTerminal;
use std::thread;
use std::time::{Duration, Instant};

use clap::Args;

use super::keys::View;
use super::live;
use super::picture::Picture;
use super::sample::{Asked, Sample, Scope};
use super::watcher::{TIMEOUTS, Watcher};
use super::{grids, view};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, print_text, terminal_width, to_json};
use crate::cli::quantity::Span;
use crate::cli::server::{ServerArguments, print_notices};
use crate::client::Client;

/// A broker is not asked more often than this.
const INTERVAL_MIN: Duration = Duration::from_millis(100);
const INTERVAL_MAX: Duration = Duration::from_secs(3_600);
const LIVE_INTERVAL: Duration = Duration::from_secs(2);
/// Somebody waits for the end of it.
pub const ONCE_INTERVAL: Duration = Duration::from_secs(1);

#[derive(Debug, Args)]
#[command(after_help = HELP)]
pub struct TopArguments {
    /// Print topics, groups and shards once, with the rates of one interval, and end
    #[arg(long)]
    pub once: bool,
    #[command(flatten)]
    pub interval: IntervalFlag,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// Between two looks at a broker.
#[derive(Clone, Copy, Debug, Args)]
pub struct IntervalFlag {
    /// Time between two looks at the broker, which rates are of, 100ms to 1h [default: 1s where it is printed once, else 2s]
    #[arg(long, value_name = "DURATION")]
    pub interval: Option<Span>,
}

const HELP: &str = "\
Keys: 1 to 4 or Tab choose topics, groups, shards, or the members of a group; Enter goes from a topic to its groups, and from a \
group to its members, Esc back; a letter sorts by its column, once more reverses; / filters by name; p pauses; ? lists all keys; \
q quits.

LAG of a topic is that of the group that is the furthest behind, UNREAD FOR the age of the oldest message that some group has \
not dealt with. CORE USE and DEVICE are shares of the time: of the shard's core, and in which a write or a flush of its log was \
under way. WAITING of a shard are producers that wait for room in its log.

With -o json it is one object (with --once), or one a line until it is stopped. JSON: interval_ms, node (version, node, level, \
uptime_ms, resident_bytes, connections, disk_bytes, disk_available_bytes, log_bytes, rates, shards), topics, groups (with topics). \
What cannot be told is null, such as the rate of a topic that was made within the interval.

Examples:
  turbopump top
  turbopump top --once
  turbopump top -o json --interval 10s";

impl IntervalFlag {
    pub fn or(self, default: Duration) -> Result<Duration, CommandError> {
        let Some(Span(interval)) = self.interval else { return Ok(default) };
        if (INTERVAL_MIN..=INTERVAL_MAX).contains(&interval) {
            return Ok(interval);
        }
        let (min, max) = (Span(INTERVAL_MIN), Span(INTERVAL_MAX));
        Err(CommandError::usage(format!("--interval is {min} to {max}, not {}", Span(interval))))
    }
}

pub fn run(arguments: &TopArguments, format: OutputFormat) -> Result<(), CommandError> {
    let is_screen = !arguments.once && format == OutputFormat::Text;
    if is_screen && !std::io::stdout().is_terminal() {
        return Err(CommandError::usage(
            "top needs a terminal: --once prints what it shows, and -o json prints it again and again",
        ));
    }
    let asked = Asked {
        node: true,
        topics: Some(Scope { only: None, ages: false }),
        groups: Some(Scope { only: None, ages: true }),
        members_of: None,
    };
    let interval = arguments.interval.or(if is_screen { LIVE_INTERVAL } else { ONCE_INTERVAL })?;
    let mut client = arguments.server.connect_quietly(TIMEOUTS)?;
    if is_screen {
        let watcher = Watcher::start(arguments.server.clone(), client, asked, interval);
        return live::run(&watcher, &arguments.server.server);
    }
    print_notices(&mut client);
    let mut before = Sample::take(&mut client, &asked)?;
    loop {
        let now = next_sample(&mut client, &asked, before.at, interval)?;
        let picture = Picture::of(Some(&before), &now);
        match format {
            OutputFormat::Text => print_text(&render(&picture))?,
            OutputFormat::Json => print_text(&to_json(&picture))?,
        }
        if arguments.once {
            return Ok(());
        }
        before = now;
    }
}

/// A sample `interval` after the one before it.
pub fn next_sample(
    client: &mut Client,
    asked: &Asked,
    before: Instant,
    interval: Duration,
) -> Result<Sample, CommandError> {
    thread::sleep(interval.saturating_sub(before.elapsed()));
    Ok(Sample::take(client, asked)?)
}

fn render(picture: &Picture) -> String {
    let grids = [
        (View::Topics, grids::topics(picture)),
        (View::Groups, grids::groups(picture, None)),
        (View::Shards, grids::shards(picture)),
    ];
    let mut text = view::summary(picture, terminal_width());
    for (view, mut grid) in grids {
        if !grid.rows.is_empty() {
            grid.sort(view.first_sorting());
            text += &format!("\n{}", grid.render(terminal_width()));
        }
    }
    text
}
