//! What was meant by a word that this program does not have. People come from other brokers' tools and type what they know;
//! the parser's guess goes by letters, and would send who wants `--partitions` to `--retention`.

use clap::Command;
use clap::error::{ContextKind, ContextValue, ErrorKind};

/// Where what was meant is said.
enum Instead {
    /// With the first of these flags that the command has, which takes this.
    Flag(&'static [&'static str]),
    /// With the first of these arguments that the command has, which have no flag.
    Argument(&'static [&'static str]),
    /// Nowhere, or elsewhere.
    Words(&'static str),
}

use Instead::{Argument, Flag, Words};

/// Flags of the tools of Kafka, NATS, RocketMQ and others. Of several rows with a name, the first that the command can do.
const FLAGS: &[(&[&str], Instead)] = &[
    (
        &["--partitions", "--partition-count", "--queue-count", "--queue-num", "--readQueueNums"],
        Flag(&["queues"]),
    ),
    (&["-r", "--writeQueueNums", "-w", "--num-queues"], Flag(&["queues"])),
    (&["--partition", "-p", "--queue-id", "--queueId", "-i"], Flag(&["queue"])),
    (
        &["--replication-factor", "--replicas", "--replication", "--min-insync-replicas"],
        Words("a message is on one broker, there is no replication: leave it out"),
    ),
    (
        &["--bootstrap-server", "--bootstrap-servers", "--broker-list", "--broker", "--brokers"],
        Flag(&["server"]),
    ),
    (
        &["--brokerAddr", "-b", "--host", "--address", "--addr", "--url", "-s", "--endpoint"],
        Flag(&["server", "listen"]),
    ),
    (&["--nameserver", "--namesrv", "--namesrvAddr", "--name-server", "-n"], Flag(&["server"])),
    (&["--zookeeper"], Words("there is no ZooKeeper: name the broker with --server HOST:PORT")),
    (&["--port", "-P"], Flag(&["server", "listen"])),
    (&["--cluster", "--clusterName", "-c", "--brokerName"], Words("a broker stands alone: leave it out")),
    (&["--topic", "--topics", "-t", "--subject", "--stream"], Argument(&["topic"])),
    (&["--group", "--groupName", "--consumer-group", "--group-id", "-g", "--queue-group"], Flag(&["group"])),
    (
        &["--group", "--groupName", "--consumer-group", "--group-id", "-g", "--queue-group"],
        Argument(&["group"]),
    ),
    (&["--from-beginning", "--beginning", "--all", "--deliver"], Flag(&["from", "to"])),
    (
        &["--offset", "--from-offset", "--start", "--to-offset", "--timestamp", "--since", "-o"],
        Flag(&["from", "to"]),
    ),
    (&["--to-earliest", "--to-latest", "--to-datetime", "--shift-by", "--by-duration"], Flag(&["to"])),
    (
        &["--max-messages", "--limit", "--max", "-m", "--msgs", "--num-messages", "-C"],
        Flag(&["count", "duration"]),
    ),
    (&["--num-records", "--messages"], Flag(&["duration", "count"])),
    (&["--record-size", "--size", "--message-size", "--payload"], Flag(&["body"])),
    (&["--throughput", "--tps"], Flag(&["rate"])),
    (&["--batch-size"], Flag(&["batch"])),
    (&["--producers", "--consumers", "--clients", "--pub", "--sub"], Flag(&["connections"])),
    (&["--timeout", "--timeout-ms", "--wait-time"], Flag(&["wait"])),
    (&["--tag", "--tags", "--subExpression", "--selector"], Flag(&["tag", "filter", "tag_field"])),
    (&["--key", "--keys", "-k", "--msgKey"], Flag(&["keys", "key", "key_field"])),
    (&["--msgId", "--message-id"], Flag(&["id"])),
    (&["--body", "--message", "--msg", "--data"], Argument(&["body"])),
    (&["--file", "-f", "--input"], Argument(&["file"])),
    (&["--delay-level", "--delayTimeLevel", "--delay-time", "--delay-seconds"], Flag(&["delay"])),
    (&["--acks", "--ack", "--request-required-acks", "--sync", "--durability"], Flag(&["level"])),
    (
        &["--retention-ms", "--retention-hours", "--max-age", "--ttl", "--expire"],
        Flag(&["retention", "retention_age"]),
    ),
    (&["--config", "--add-config"], Words("what can be set has a flag of its own, see --help")),
    (&["--data-dir", "--datadir", "--store", "--storePathRootDir", "--log-dirs", "--dir"], Flag(&["data"])),
    (&["--config-file", "--conf"], Flag(&["config"])),
    (&["--http-port", "--http-address"], Flag(&["http"])),
    (&["--ca", "--cacert", "--tlsca", "--ca-file", "--tls-ca-file"], Flag(&["tls_ca"])),
    (&["--tlsEnable", "--ssl", "--secure"], Flag(&["tls", "tls_mode"])),
    (&["--cert", "--tlscert", "--tls-cert", "--certificate"], Flag(&["tls_certificate"])),
    (&["--tlskey", "--tls-key"], Flag(&["tls_key"])),
    (&["--max-delivery", "--max-deliver", "--retryMaxTimes", "--max-reconsume-times"], Flag(&["deliveries"])),
    (&["--invisible-time", "--visibility-timeout", "--ack-wait"], Flag(&["lease"])),
    (&["--json", "--format"], Words("say -o json")),
    (
        &["--create", "--list", "--describe", "--alter", "--delete"],
        Words("it is a command and no flag, see --help"),
    ),
];

/// Commands of those tools.
const COMMANDS: &[(&[&str], &str)] = &[
    (&["topics"], "turbopump topic"),
    (&["pub", "publish", "send", "producer"], "turbopump produce, or turbopump message publish"),
    (&["sub", "subscribe", "pull", "consumer", "tail"], "turbopump consume, or turbopump message receive"),
    (&["ack", "receive", "pop"], "turbopump message ack, or receive"),
    (&["find", "get"], "turbopump message find"),
    (&["groups", "consumer-groups"], "turbopump group"),
    (
        &["start", "server", "run", "broker", "mqbroker", "daemon", "namesrv", "mqnamesrv"],
        "turbopump serve --data DIR",
    ),
    (&["info", "stats", "health", "monitor"], "turbopump status"),
    (&["perf", "benchmark", "perf-test"], "turbopump bench"),
    (&["rm", "remove", "drop", "del"], "delete"),
    (&["ls", "show"], "list, or describe"),
    (&["add", "new", "make"], "create"),
    (&["update", "set", "edit", "modify"], "alter"),
];

/// Puts what was meant in the place of the parser's guess, and returns it.
pub fn explain<'a>(
    error: &mut clap::Error,
    root: &Command,
    words: impl Iterator<Item = &'a str>,
) -> Option<String> {
    let of_kind = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    };
    let tip = match error.kind() {
        ErrorKind::UnknownArgument => {
            let given = of_kind(ContextKind::InvalidArg)?;
            let command = called(root, words);
            let tip = flag_meant(given.split('=').next()?, command).or_else(|| number_meant(&given))?;
            // The parser's has its guess in it.
            let usage = command.clone().render_usage();
            error.insert(ContextKind::Usage, ContextValue::StyledStr(usage));
            tip
        }
        ErrorKind::InvalidSubcommand => {
            let given = of_kind(ContextKind::InvalidSubcommand)?;
            let (_, instead) = COMMANDS.iter().find(|(names, _)| names.contains(&given.as_str()))?;
            format!("`{}` may be what is meant", instead.replace(", or ", "`, or `"))
        }
        _ => return None,
    };
    for kind in [ContextKind::SuggestedArg, ContextKind::SuggestedSubcommand, ContextKind::TrailingArg] {
        error.remove(kind);
    }
    error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.clone().into()]));
    Some(tip)
}

/// The command that the words call, and the ones that lead to it.
fn called<'c, 'a>(root: &'c Command, words: impl Iterator<Item = &'a str>) -> &'c Command {
    let mut command = root;
    for word in words.skip(1) {
        command = command.find_subcommand(word).unwrap_or(command);
    }
    command
}

fn flag_meant(given: &str, command: &Command) -> Option<String> {
    let find = |id: &&str| command.get_arguments().find(|argument| argument.get_id() == *id);
    let of_row = |instead: &Instead| match instead {
        Flag(ids) => {
            let argument = ids.iter().find_map(find).filter(|argument| !argument.is_positional())?;
            let names = argument.get_value_names().unwrap_or_default();
            let value = names.first().map_or_else(String::new, |name| format!(" {name}"));
            Some(format!("here it is --{}{value}", argument.get_long()?))
        }
        Argument(ids) => {
            let argument = ids.iter().find_map(find).filter(|argument| argument.is_positional())?;
            let name = argument.get_value_names()?.first()?.to_uppercase();
            Some(format!("{name} stands here without a flag"))
        }
        Words(words) => Some((*words).to_owned()),
    };
    let rows = FLAGS.iter().filter(|(names, _)| names.contains(&given));
    rows.map(|(_, instead)| instead).find_map(of_row)
}

/// A flag's value that begins with a minus looks like a flag to the parser, whose advice is to make an argument of it.
fn number_meant(given: &str) -> Option<String> {
    let is_number = given.strip_prefix('-')?.starts_with(|first: char| first.is_ascii_digit());
    is_number.then(|| format!("`{given}` begins like a negative number, and nothing here can be negative"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::arguments::Arguments;
    use clap::{CommandFactory, Parser};

    /// What is printed for a line, on one line.
    fn explained(line: &str) -> String {
        let words: Vec<&str> = line.split_whitespace().collect();
        let mut error = Arguments::try_parse_from(&words).map(|_| ()).expect_err(line);
        let mut root = Arguments::command();
        root.build();
        explain(&mut error, &root, words.iter().copied());
        error.render().to_string().split_whitespace().collect::<Vec<_>>().join(" ")
    }

    #[test]
    fn words_of_other_tools_lead_to_what_was_meant() {
        for (line, part) in [
            ("turbopump topic create t --partitions 3", "here it is --queues N"),
            ("turbopump topic alter t --partitions=3", "here it is --queues N"),
            ("turbopump topic create t -r 8", "here it is --queues N"),
            ("turbopump topic create t --replication-factor 3", "there is no replication"),
            ("turbopump topic list --bootstrap-server a:1", "here it is --server HOST:PORT"),
            ("turbopump topic list -n a:9876", "here it is --server HOST:PORT"),
            ("turbopump topic create -t orders", "TOPIC stands here without a flag"),
            ("turbopump consume --topic t", "TOPIC stands here without a flag"),
            ("turbopump consume t -g g", "here it is --group GROUP"),
            ("turbopump consume t --from-beginning", "here it is --from OFFSET"),
            ("turbopump consume t --partition 1", "here it is --queue N"),
            ("turbopump consume t --max-messages 1", "here it is --count N"),
            ("turbopump group describe -g g", "GROUP stands here without a flag"),
            ("turbopump group reset g t --to-earliest", "here it is --to OFFSET"),
            ("turbopump produce t --key 2", "here it is --key-field N"),
            ("turbopump message publish t --tags a", "here it is --tag TAG"),
            ("turbopump message receive t --group g --tags a", "here it is --filter"),
            ("turbopump serve --data-dir d", "here it is --data DIR"),
            ("turbopump serve --data d --port 1", "here it is --listen ADDRESS"),
            ("turbopump topic list --json", "say -o json"),
            ("turbopump topics", "turbopump topic"),
            ("turbopump mqbroker", "turbopump serve --data DIR"),
            ("turbopump topic drop t", "`delete` may be what is meant"),
            ("turbopump topic show", "`list`, or `describe` may be what is meant"),
            ("turbopump topic create t --queues -1", "nothing here can be negative"),
            ("turbopump message publish t b --delay -1s", "nothing here can be negative"),
        ] {
            let text = explained(line);
            assert!(text.contains(part), "{line}: {text}");
            assert!(!text.contains("a similar") && !text.contains("'-- "), "{line}: {text}");
        }
        assert!(!explained("turbopump topic create t --partitions 3").contains("--retention"));
        // What is only mistyped is still guessed.
        assert!(explained("turbopump topic create t --qeues 3").contains("--queues"));
    }
}
