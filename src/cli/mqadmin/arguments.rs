//! What can be typed: verbs and flags as `mqadmin` has them.
//!
//! Its flags take `-o` in some commands, where ours has the format of what is printed: `entry` gives `--output` that letter in
//! the others.

use std::ffi::OsString;
use std::str::FromStr;

use clap::{Args, Parser, Subcommand};

use crate::cli::calendar;
use crate::cli::mqadmin::brokers::{BrokerNameArguments, BrokerStatusArguments, ClusterListArguments};
use crate::cli::mqadmin::clients::{ConsumerConnectionArguments, ProducerConnectionArguments};
use crate::cli::mqadmin::groups::{DeleteSubGroupArguments, UpdateSubGroupArguments};
use crate::cli::mqadmin::look_up::{ByIdArguments, ByKeyArguments, ByOffsetArguments, ByUniqueKeyArguments};
use crate::cli::mqadmin::places::{CloneArguments, ResetArguments, SkipArguments};
use crate::cli::mqadmin::progress::ProgressArguments;
use crate::cli::mqadmin::reading::{ConsumeArguments, PrintArguments};
use crate::cli::mqadmin::sending::SendArguments;
use crate::cli::mqadmin::stats::StatsArguments;
use crate::cli::mqadmin::topics::{
    DeleteTopicArguments, TopicArguments, TopicListArguments, TopicRouteArguments, TopicStatusArguments,
    UpdatePermArguments, UpdateTopicArguments,
};
use crate::cli::mqadmin::traces::TraceArguments;
use crate::cli::output::OutputFormat;
use crate::cli::server::{KeyArguments, TlsArguments};
use crate::types::Timestamp;

/// `turbopump mqadmin WORD...`: the words are read by the definition below, whose flags are not those of other commands.
#[derive(Debug, Args)]
#[command(disable_help_flag = true)]
pub struct MqadminWords {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub words: Vec<OsString>,
}

/// Commands of RocketMQ's mqadmin, for any name server and broker of RocketMQ's protocol
#[derive(Debug, Parser)]
#[command(name = "turbopump", max_term_width = 110, arg_required_else_help = true, after_help = HELP)]
#[command(disable_help_subcommand = true)]
pub struct MqadminArguments {
    #[command(subcommand)]
    pub verb: Verb,
}

const HELP: &str = "\
Each stands for itself as well: `turbopump consumerProgress -n HOST:PORT -g GROUP`. Flags and columns are mqadmin's; \
docs/mqadmin.md has the differences. Times are UTC.

Exit codes: 0 done, 1 the operation failed, 2 the command line is wrong.";

#[derive(Debug, Subcommand)]
#[command(rename_all = "camelCase")]
pub enum Verb {
    /// List all topics
    TopicList(TopicListArguments),
    /// Show where a topic's queues are, as JSON
    TopicRoute(TopicRouteArguments),
    /// Show where each queue of a topic begins and ends
    TopicStatus(TopicStatusArguments),
    /// List the clusters that a topic is in
    TopicClusterList(TopicArguments),
    /// List all brokers, by their clusters
    ClusterList(ClusterListArguments),
    /// Create a topic, or change one
    UpdateTopic(UpdateTopicArguments),
    /// Delete a topic with its messages
    DeleteTopic(DeleteTopicArguments),
    /// Change whether a topic is read and written
    UpdateTopicPerm(UpdatePermArguments),
    /// Create a consumer group's settings, or change them
    UpdateSubGroup(UpdateSubGroupArguments),
    /// Delete a consumer group's settings
    DeleteSubGroup(DeleteSubGroupArguments),
    /// Show how far consumer groups are, and how far behind
    ConsumerProgress(ProgressArguments),
    /// Show who consumes as a group, and what
    ConsumerConnection(ConsumerConnectionArguments),
    /// Show who produces as a group
    ProducerConnection(ProducerConnectionArguments),
    /// Show messages by the ids that say where they are stored
    QueryMsgById(ByIdArguments),
    /// List the messages of a topic that have a key
    QueryMsgByKey(ByKeyArguments),
    /// Show a message by the id that its producer gave it
    QueryMsgByUniqueKey(ByUniqueKeyArguments),
    /// Show the message at an offset of a queue
    QueryMsgByOffset(ByOffsetArguments),
    /// Show who produced and consumed a message, from the traces that clients left
    QueryMsgTraceById(TraceArguments),
    /// Print the messages of a topic
    PrintMsg(PrintArguments),
    /// Send a message
    SendMessage(SendArguments),
    /// Print some messages of a topic or of one queue; nothing is committed
    ConsumeMessage(ConsumeArguments),
    /// Move a group to a time in a topic, whether it consumes or not
    ResetOffsetByTime(ResetArguments),
    /// Move a group to the end of a topic
    SkipAccumulatedMessage(SkipArguments),
    /// Give a group the places of another one
    CloneGroupOffset(CloneArguments),
    /// Show what a broker counts
    BrokerStatus(BrokerStatusArguments),
    /// Show a broker's settings
    GetBrokerConfig(BrokerStatusArguments),
    /// Have name servers close a broker to producers
    WipeWritePerm(BrokerNameArguments),
    /// Have name servers open a broker to producers again
    AddWritePerm(BrokerNameArguments),
    /// Show how much comes and goes, by topics and groups
    StatsAll(StatsArguments),
}

/// What every command takes.
#[derive(Clone, Debug, Args)]
pub struct Shared {
    /// Name servers, separated by semicolons; a broker of turbopump's answers as one at each of its ports
    #[arg(short = 'n', long = "namesrvAddr", value_name = "HOST:PORT", env = "NAMESRV_ADDR")]
    #[arg(default_value = "127.0.0.1:9876")]
    pub name_servers: String,
    #[command(flatten)]
    pub key: KeyArguments,
    #[command(flatten)]
    pub tls: TlsArguments,
    /// How to print results, and errors on standard error
    #[arg(long, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputFormat,
}

/// The brokers that a command is for.
#[derive(Clone, Debug, Args)]
#[group(required = true, multiple = false)]
pub struct TargetArguments {
    /// Address of one broker
    #[arg(short = 'b', long = "brokerAddr", value_name = "HOST:PORT")]
    pub broker: Option<String>,
    /// All masters of a cluster
    #[arg(short = 'c', long = "clusterName", value_name = "CLUSTER")]
    pub cluster: Option<String>,
}

/// A time as `mqadmin` takes it: milliseconds since 1970, or `2026-11-30#14:03:05:123`, which is UTC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    /// As it was typed.
    pub text: String,
    pub milliseconds: i64,
}

/// A text that is no time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no time: write milliseconds since 1970, or a time in UTC like 2026-11-30#14:03:05:000")]
pub struct TimeError(String);

impl FromStr for Time {
    type Err = TimeError;

    fn from_str(text: &str) -> Result<Self, TimeError> {
        let typed = text.trim();
        let milliseconds = match typed.parse() {
            Ok(milliseconds) => Some(milliseconds),
            Err(_) => named(typed).and_then(|time| i64::try_from(time.0).ok()),
        };
        let milliseconds = milliseconds.ok_or_else(|| TimeError(text.to_owned()))?;
        Ok(Self { text: typed.to_owned(), milliseconds })
    }
}

/// `2026-11-30#14:03:05:123`, or RFC 3339.
fn named(text: &str) -> Option<Timestamp> {
    let Some((date, clock)) = text.split_once('#') else { return calendar::parse_timestamp(text) };
    let clock = match clock.rsplit_once(':') {
        Some((seconds, milliseconds)) if clock.matches(':').count() == 3 => {
            format!("{seconds}.{milliseconds}")
        }
        _ => clock.to_owned(),
    };
    calendar::parse_timestamp(&format!("{date}T{clock}"))
}

impl Verb {
    /// How its result and its errors are printed.
    pub fn output(&self) -> OutputFormat {
        self.shared().output
    }

    fn shared(&self) -> &Shared {
        match self {
            Verb::TopicList(of) => &of.shared,
            Verb::TopicRoute(of) => &of.shared,
            Verb::TopicClusterList(of) => &of.shared,
            Verb::TopicStatus(of) => &of.shared,
            Verb::ClusterList(of) => &of.shared,
            Verb::UpdateTopic(of) => &of.shared,
            Verb::DeleteTopic(of) => &of.shared,
            Verb::UpdateTopicPerm(of) => &of.shared,
            Verb::UpdateSubGroup(of) => &of.shared,
            Verb::DeleteSubGroup(of) => &of.shared,
            Verb::ConsumerProgress(of) => &of.shared,
            Verb::ConsumerConnection(of) => &of.shared,
            Verb::ProducerConnection(of) => &of.shared,
            Verb::QueryMsgById(of) => &of.shared,
            Verb::QueryMsgByKey(of) => &of.shared,
            Verb::QueryMsgByUniqueKey(of) => &of.shared,
            Verb::QueryMsgByOffset(of) => &of.shared,
            Verb::QueryMsgTraceById(of) => &of.shared,
            Verb::PrintMsg(of) => &of.shared,
            Verb::SendMessage(of) => &of.shared,
            Verb::ConsumeMessage(of) => &of.shared,
            Verb::ResetOffsetByTime(of) => &of.shared,
            Verb::SkipAccumulatedMessage(of) => &of.shared,
            Verb::CloneGroupOffset(of) => &of.shared,
            Verb::BrokerStatus(of) | Verb::GetBrokerConfig(of) => &of.shared,
            Verb::WipeWritePerm(of) | Verb::AddWritePerm(of) => &of.shared,
            Verb::StatsAll(of) => &of.shared,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_numbers_or_dates() {
        let of = |text: &str| Time::from_str(text).map(|time| time.milliseconds);
        assert_eq!(of("0"), Ok(0));
        assert_eq!(of(" 1700000000000 "), Ok(1_700_000_000_000));
        for text in ["2023-11-14#22:13:20:000", "2023-11-14#22:13:20", "2023-11-14T22:13:20Z"] {
            assert_eq!(of(text), Ok(1_700_000_000_000), "{text}");
        }
        assert_eq!(of("2023-11-14#22:13:20:007"), Ok(1_700_000_000_007));
        for text in ["", "tomorrow", "2023-11-14#", "2023-11-14#22:13:20:"] {
            assert!(of(text).is_err(), "{text}");
        }
    }
}
