//! What can be typed. Scripts rely on these spellings.

use clap::{Parser, Subcommand};

use crate::cli::backup::{BackupArguments, RestoreArguments};
use crate::cli::bench::BenchArguments;
use crate::cli::bundle::BundleArguments;
use crate::cli::check::CheckArguments;
use crate::cli::completion::CompletionArguments;
use crate::cli::configure::ConfigArguments;
use crate::cli::consume::ConsumeArguments;
use crate::cli::context::ContextArguments;
use crate::cli::delayed::DelayedArguments;
use crate::cli::dlq::DlqArguments;
use crate::cli::generate::GenerateArguments;
use crate::cli::group::GroupArguments;
use crate::cli::import::ImportArguments;
use crate::cli::instance::InstanceArguments;
use crate::cli::latency::{HELP as LATENCY_HELP, LatencyArguments};
use crate::cli::log::LogArguments;
use crate::cli::manual::ManualArguments;
use crate::cli::message::MessageArguments;
use crate::cli::mirror::MirrorArguments;
use crate::cli::mqadmin::MqadminWords;
use crate::cli::output::OutputFormat;
use crate::cli::produce::ProduceArguments;
use crate::cli::serve::ServeArguments;
use crate::cli::slow::{HELP as SLOW_HELP, SlowArguments};
use crate::cli::status::StatusArguments;
use crate::cli::top::TopArguments;
use crate::cli::topic::TopicArguments;

/// A RocketMQ-compatible message broker for Linux, one shard per core
#[derive(Debug, Parser)]
#[command(name = "turbopump", version, max_term_width = 110, arg_required_else_help = true)]
#[command(after_help = "Exit codes: 0 done, 1 the operation failed, 2 the command line is wrong.")]
pub struct Arguments {
    /// How to print results, and errors on standard error; in JSON, what ends in _ms is milliseconds: a span, or since 1970
    #[arg(short, long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    pub output: OutputFormat,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the broker on a data directory
    Serve(Box<ServeArguments>),
    /// Create, list, describe, alter, purge and delete topics
    Topic(TopicArguments),
    /// Send every line of a file or of standard input as a message
    Produce(ProduceArguments),
    /// Publish, receive, acknowledge and find single messages
    Message(MessageArguments),
    /// Print messages
    Consume(ConsumeArguments),
    /// Copy topics from one broker to another, and keep the copies up to date
    Mirror(MirrorArguments),
    /// List, describe, create, alter, clone, reset and delete consumer groups
    Group(GroupArguments),
    /// List messages that wait for their time, and take them back
    Delayed(DelayedArguments),
    /// List, show, export and redrive the dead letters of a group
    Dlq(DlqArguments),
    /// Create, list and delete instances: name spaces of topics and groups
    Instance(InstanceArguments),
    /// Measure a broker: throughput, latency, and whether every message arrives once and in order
    Bench(BenchArguments),
    /// Show and change the settings of a broker that runs
    Config(ConfigArguments),
    /// Print rates, sizes and the state of every shard, and with --all its counters and latencies
    Status(StatusArguments),
    /// Watch topics, groups and shards: rates, lag, ages, and what cores and device have to do
    Top(TopArguments),
    /// Put what a report of a fault needs into one archive, without secrets
    Bundle(BundleArguments),
    /// Make the topics and groups that a broker of Apache's has in its files
    ImportRocketmq(ImportArguments),
    /// Look whether this machine runs a broker well, and say what to type where it does not
    Check(CheckArguments),
    /// Write a Grafana board, a Prometheus scrape configuration or alert rules
    Generate(GenerateArguments),
    /// Print the slowest requests of the last ten minutes, where their time went, and what the shard did meanwhile
    #[command(after_help = SLOW_HELP)]
    Slow(SlowArguments),
    /// Look for a while where the time of a topic's requests goes, and draw it
    #[command(after_help = LATENCY_HELP)]
    Latency(LatencyArguments),
    /// Check, repair or print the files of a broker that does not run
    Log(LogArguments),
    /// Copy everything that a broker has stored, while it runs or after
    Backup(BackupArguments),
    /// Make a data directory of a backup
    Restore(RestoreArguments),
    /// Keep addresses, access keys and TLS of brokers by name
    Context(ContextArguments),
    /// Print a completion script for a shell
    Completion(CompletionArguments),
    /// Write the manual pages of all commands
    Man(ManualArguments),
    /// Commands of RocketMQ's mqadmin, for any broker of its protocol: `turbopump mqadmin --help` lists them
    Mqadmin(MqadminWords),
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;
    use clap::error::ErrorKind;

    fn parse(line: &str) -> Result<Arguments, clap::Error> {
        Arguments::try_parse_from(line.split_whitespace())
    }

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_spellings_that_scripts_rely_on() {
        for line in [
            "turbopump serve --data DIR",
            "turbopump serve --data DIR --listen 127.0.0.1:10911 --shards 2 --cores 0,1 --level durable",
            "turbopump serve --config FILE --level written --buffered-io",
            "turbopump topic create TOPIC",
            "turbopump topic create TOPIC --queues 4 --server 127.0.0.1:10911",
            "turbopump topic create TOPIC --retention 72h --level accepted -o json",
            "turbopump topic list",
            "turbopump topic describe TOPIC",
            "turbopump topic alter TOPIC --queues 8 --retention 1h30m",
            "turbopump topic alter TOPIC --retention none",
            "turbopump topic alter TOPIC --retention default",
            "turbopump topic delete TOPIC",
            "turbopump produce TOPIC",
            "turbopump produce TOPIC -",
            "turbopump produce TOPIC FILE --queue 3 --skip 1000000 -o json",
            "turbopump produce TOPIC FILE --key-field 2 --tag-field 1 --key-delimiter , --rate 1000 --batch 10 --linger 1ms",
            "turbopump produce TOPIC - --level written",
            "turbopump consume TOPIC",
            "turbopump consume TOPIC --queue 0 --group G --from first --count 10 --follow",
            "turbopump consume TOPIC --from last",
            "turbopump consume TOPIC --from 12345",
            "turbopump consume TOPIC --from 2024-05-06T07:08:09Z",
            "turbopump consume TOPIC --from @1700000000000",
            "turbopump consume TOPIC --from -10m -o json",
            "turbopump consume TOPIC -f %t\\n --until -1m --grep a|b",
            "turbopump produce TOPIC FILE --format json --any-queue --retry-for 5m",
            "turbopump mirror --from a:1 --to b:1 TOPIC OTHER --follow --rate 1000 --start -1h --append --leave-out --retry-for 1h",
            "turbopump mirror --from a:1 --from-access-key K --to b:1 --to-tls-ca FILE TOPIC --dry-run -o json",
            "turbopump message find TOPIC --key K",
            "turbopump message find TOPIC --key K --count 64 --after 1f8.2-ffffffffffffffff.ffff",
            "turbopump message find TOPIC --id 7F00000100002A9F0000000000000065 --count 1 -o json",
            "turbopump message find --id 7F00000100002A9F0000000000000065",
            "turbopump message publish TOPIC",
            "turbopump message publish TOPIC -",
            "turbopump message publish TOPIC BODY --tag T --key K --key L --property A=B --property C= -o json",
            "turbopump message publish TOPIC BODY --sharding-key K --level durable",
            "turbopump message publish TOPIC BODY --stages -o json",
            "turbopump message publish TOPIC BODY --queue 0 --delay 1m30s",
            "turbopump message publish TOPIC BODY --deliver-at 2024-05-06T07:08:09Z",
            "turbopump message publish TOPIC BODY --deliver-at @1700000000000",
            "turbopump message publish TOPIC BODY --transaction --immunity 10s",
            "turbopump message receive TOPIC --group G",
            "turbopump message receive TOPIC --group G --count 32 --filter a||b --queue 0 --ordered --lease 10s --wait 5m --ack",
            "turbopump message ack TOPIC m.3.7.1234.1700000000000.1700000300000.2446a12c m.3.7.1234.1700000000000.1700000300000.2446a12c --group G -o json",
            "turbopump message extend TOPIC m.3.7.1234.1700000000000.1700000300000.2446a12c --group G --lease 1m",
            "turbopump message extend TOPIC m.3.7.1234.1700000000000.1700000300000.2446a12c --group G --lease 0",
            "turbopump message commit TOPIC t.3.7.4096.da3308c5 --group G",
            "turbopump message rollback TOPIC t.3.7.4096.da3308c5 t.3.7.4096.da3308c5 -o json",
            "turbopump message undecided TOPIC --group G --count 1 --wait 10s",
            "turbopump group alter G --deliveries 3 --lease 1m --ordered-lease 10s",
            "turbopump group list",
            "turbopump group describe G",
            "turbopump group reset G TOPIC --to first",
            "turbopump group reset G TOPIC --to 17 --queue 2",
            "turbopump group reset G TOPIC --to -1h",
            "turbopump group describe G --instance I -o json",
            "turbopump group list --instance I",
            "turbopump group reset G TOPIC --to first --instance I",
            "turbopump topic create TOPIC --instance I",
            "turbopump topic list --instance I",
            "turbopump topic describe TOPIC --instance I",
            "turbopump topic alter TOPIC --instance I --queues 8",
            "turbopump topic delete TOPIC --instance I",
            "turbopump topic purge TOPIC --before -24h --yes",
            "turbopump topic purge TOPIC --before 2024-05-06T07:08:09Z --instance I -y",
            "turbopump topic alter TOPIC --permission read-only",
            "turbopump topic delete TOPIC --yes",
            "turbopump group create G --deliveries 3 --consume false",
            "turbopump group clone G H",
            "turbopump group delete G --yes",
            "turbopump group reset G TOPIC --to first --dry-run",
            "turbopump delayed list TOPIC --key K --count 5",
            "turbopump delayed recall TOPIC 7F00000100002A9F0000000000000065 ID -o json",
            "turbopump dlq list G",
            "turbopump dlq list G --key K --topic T --from -1h --until 2024-05-06T07:08:09Z --count 5 -o json",
            "turbopump dlq show G --id 7F00000100002A9F0000000000000065",
            "turbopump dlq export G --instance I",
            "turbopump dlq redrive G --to T --key K --from -1h --until -5m --rate 100 --dry-run",
            "turbopump instance create I",
            "turbopump instance list -o json",
            "turbopump instance delete I",
            "turbopump status -o json",
            "turbopump generate grafana",
            "turbopump generate prometheus --target a:5557 --target b:5557 --file FILE",
            "turbopump generate alerts --file FILE",
            "turbopump status --count-syscalls --server example.org:10911",
            "turbopump top --once --interval 500ms",
            "turbopump top -o json --server example.org:10911",
            "turbopump topic stats",
            "turbopump topic stats TOPIC --instance I --interval 1s -o json",
            "turbopump group lag",
            "turbopump group lag G -o json",
            "turbopump bench produce TOPIC",
            "turbopump bench produce TOPIC --body 100 --batch 500 --connections 4 --in-flight 8 --rate 100000 --duration 10s",
            "turbopump bench produce TOPIC --existing",
            "turbopump bench produce TOPIC --protocol remoting --batch 1 --server-pid 4711",
            "turbopump bench consume TOPIC --protocol remoting --pull-messages 32",
            "turbopump bench consume TOPIC --level durable --baseline --hgrm FILE --plot FILE -o json",
            "turbopump bench end-to-end TOPIC --body 1KiB --queues 16 --pin 1 --verify --baseline-dir DIR",
            "turbopump serve --data DIR --print-config -o json",
            "turbopump check",
            "turbopump check --data DIR --cores 0,1 -o json",
            "turbopump slow",
            "turbopump slow --topic TOPIC --shard 1 --protocol remoting --count 100 -o json",
            "turbopump latency TOPIC --for 30s --svg FILE",
            "turbopump log verify --data DIR",
            "turbopump log dump --data DIR",
            "turbopump backup DIR --data DATA",
            "turbopump backup DIR --data DATA --copy --server 127.0.0.1:10911 -o json",
            "turbopump backup verify DIR",
            "turbopump restore DIR --data NEW",
            "turbopump restore DIR --data NEW --new-node",
            "turbopump context add C --server example.org:10911 --tls --access-key K --secret-key-file FILE",
            "turbopump context use C",
            "turbopump context use none",
            "turbopump context ls",
            "turbopump context rm C",
            "turbopump topic rm TOPIC",
            "turbopump completion bash",
            "turbopump man DIR",
            "turbopump bundle",
            "turbopump bundle FILE --config FILE --data DIR --log FILE --log FILE -o json",
            "turbopump config get",
            "turbopump config get level lease -o json",
            "turbopump config set level=written retention-age=7d --server example.org:10911",
            "turbopump config unset level",
            "turbopump import-rocketmq DIR --dry-run -o json",
            "turbopump mqadmin consumerProgress -n a:9876 -g G",
            "turbopump mqadmin updateTopic -b a:1 -t T -o true",
            "turbopump -o json topic list",
            "turbopump --output=json topic list",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_refused_before_anything_is_done() {
        let cases = [
            ("turbopump frobnicate", ErrorKind::InvalidSubcommand),
            ("turbopump topic", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("turbopump topic create", ErrorKind::MissingRequiredArgument),
            ("turbopump topic create a/b", ErrorKind::ValueValidation),
            ("turbopump serve --data D --level safe", ErrorKind::ValueValidation),
            ("turbopump serve --data D --segment-bytes 1,5GiB", ErrorKind::ValueValidation),
            ("turbopump produce T F --queue 1 --key-field 2", ErrorKind::ArgumentConflict),
            ("turbopump produce T F --key-field 0", ErrorKind::ValueValidation),
            ("turbopump produce T F --rate 0", ErrorKind::ValueValidation),
            ("turbopump consume T --from sometime", ErrorKind::ValueValidation),
            ("turbopump consume T -f %Q", ErrorKind::ValueValidation),
            ("turbopump consume T --grep (", ErrorKind::ValueValidation),
            ("turbopump consume T --until 7", ErrorKind::ValueValidation),
            ("turbopump consume T --until -1h --follow", ErrorKind::ArgumentConflict),
            ("turbopump produce T F --queue 1 --any-queue", ErrorKind::ArgumentConflict),
            ("turbopump mirror --from a:1 --to b:1", ErrorKind::MissingRequiredArgument),
            ("turbopump mirror --from a:1 T", ErrorKind::MissingRequiredArgument),
            ("turbopump message find T", ErrorKind::MissingRequiredArgument),
            ("turbopump message find --key K", ErrorKind::MissingRequiredArgument),
            ("turbopump message find T --key K --id I", ErrorKind::ArgumentConflict),
            ("turbopump message find T --key K --count 65", ErrorKind::ValueValidation),
            ("turbopump message publish T B --delay 1s --transaction", ErrorKind::ArgumentConflict),
            ("turbopump message publish T B --delay 1s --deliver-at @1", ErrorKind::ArgumentConflict),
            ("turbopump message publish T B --immunity 1s", ErrorKind::MissingRequiredArgument),
            ("turbopump message publish T B --queue 1 --sharding-key K", ErrorKind::ArgumentConflict),
            ("turbopump message publish T B --property A", ErrorKind::ValueValidation),
            ("turbopump message publish T B --property KEYS=K", ErrorKind::ValueValidation),
            ("turbopump message receive T", ErrorKind::MissingRequiredArgument),
            ("turbopump message receive T --group G --count 33", ErrorKind::ValueValidation),
            ("turbopump message ack T --group G", ErrorKind::MissingRequiredArgument),
            (
                "turbopump message ack T m.3.7.1234.1700000000000.1700000300000.2446a12 --group G",
                ErrorKind::ValueValidation,
            ),
            (
                "turbopump message extend T m.3.7.1234.1700000000000.1700000300000.2446a12c --group G",
                ErrorKind::MissingRequiredArgument,
            ),
            ("turbopump dlq redrive", ErrorKind::MissingRequiredArgument),
            ("turbopump dlq redrive G --rate 0", ErrorKind::ValueValidation),
            ("turbopump dlq list G --from first", ErrorKind::ValueValidation),
            ("turbopump group alter G --deliveries 0", ErrorKind::ValueValidation),
            ("turbopump group reset G T", ErrorKind::MissingRequiredArgument),
            ("turbopump bench T", ErrorKind::InvalidSubcommand),
            ("turbopump backup DIR", ErrorKind::MissingRequiredArgument),
            ("turbopump backup --data DATA", ErrorKind::MissingRequiredArgument),
            ("turbopump backup verify", ErrorKind::MissingRequiredArgument),
            ("turbopump restore DIR", ErrorKind::MissingRequiredArgument),
            ("turbopump instance create a%b", ErrorKind::ValueValidation),
            ("turbopump topic list --instance a|b", ErrorKind::ValueValidation),
            ("turbopump generate", ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand),
            ("turbopump generate prometheus --target a", ErrorKind::ValueValidation),
            ("turbopump status -o yaml", ErrorKind::InvalidValue),
            ("turbopump slow --count 0", ErrorKind::ValueValidation),
            ("turbopump slow --protocol grpc", ErrorKind::InvalidValue),
            ("turbopump latency TOPIC --for 2m", ErrorKind::ValueValidation),
        ];
        for (line, kind) in cases {
            let error = parse(line).map(|_| ()).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}: {error}");
        }
    }
}
