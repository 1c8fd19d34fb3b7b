//! Examples in the help of every command: what somebody types who reads it at night. A test parses each of them, and demands one of
//! every command.

use clap::Command;

/// Commands, and what follows `turbopump` in each of their examples.
const EXAMPLES: &[(&str, &[&str])] = &[
    (
        "serve",
        &[
            "serve --data /var/lib/turbopump",
            "serve --data /tmp/laptop --segment-bytes 16MiB",
            "serve --config /etc/turbopump/turbopump.toml",
        ],
    ),
    (
        "topic create",
        &["topic create orders --queues 8", "topic create events --retention 24h --level written"],
    ),
    ("topic list", &["topic list", "topic list -o json"]),
    ("topic describe", &["topic describe orders"]),
    (
        "topic alter",
        &[
            "topic alter orders --queues 16",
            "topic alter orders --retention default",
            "topic alter orders --permission read-only",
        ],
    ),
    ("topic delete", &["topic delete orders"]),
    (
        "produce",
        &[
            "produce orders lines.txt",
            "produce orders export.csv --key-field 2 --key-delimiter ,",
            "produce orders - --rate 1000",
            "produce copies orders.jsonl --format json",
        ],
    ),
    (
        "message publish",
        &[
            "message publish orders three-apples --tag fruit --key 4711",
            "message publish orders later --delay 10m",
        ],
    ),
    (
        "message receive",
        &[
            "message receive orders --group packing --wait 10s",
            "message receive orders --group packing --ack",
        ],
    ),
    ("message ack", &["message ack orders m.3.7.1234.1700000000000.1700000300000.2446a12c --group packing"]),
    (
        "message extend",
        &["message extend orders m.3.7.1234.1700000000000.1700000300000.2446a12c --group packing --lease 1m"],
    ),
    ("message commit", &["message commit orders t.3.7.4096.da3308c5"]),
    ("message rollback", &["message rollback orders t.3.7.4096.da3308c5"]),
    ("message undecided", &["message undecided orders --group shop"]),
    (
        "message find",
        &["message find orders --key 4711", "message find --id 7F00000100002A9F0000000000000065"],
    ),
    (
        "consume",
        &[
            "consume orders --count 3",
            "consume orders --group billing",
            "consume orders --from -10m --follow -o json",
            "consume orders -f '%d %q/%o %b\\n' --grep 'refund|chargeback' --until -1h",
        ],
    ),
    (
        "mirror",
        &[
            "mirror --from 10.0.0.1:10911 --to 10.0.0.2:10911 orders payments --dry-run",
            "mirror --from 10.0.0.1:10911 --to 10.0.0.2:10911 orders payments --follow --rate 50000",
        ],
    ),
    ("group list", &["group list"]),
    ("group describe", &["group describe billing"]),
    ("group reset", &["group reset billing orders --to -1h", "group reset billing orders --to 17 --queue 2"]),
    ("group alter", &["group alter billing --deliveries 3 --lease 1m"]),
    ("group delete", &["group delete billing"]),
    ("instance create", &["instance create MQ_INST_1"]),
    ("instance list", &["instance list"]),
    ("instance delete", &["instance delete MQ_INST_1"]),
    ("bench produce", &["bench produce load --body 1KiB --duration 10s --baseline"]),
    ("bench consume", &["bench consume load --duration 10s"]),
    ("bench end-to-end", &["bench end-to-end load --rate 100000 --verify"]),
    ("generate grafana", &["generate grafana --file turbopump.json"]),
    ("generate prometheus", &["generate prometheus --target broker.example.org:5557"]),
    ("generate alerts", &["generate alerts --file turbopump-alerts.yml"]),
    ("log verify", &["log verify --data /var/lib/turbopump"]),
    ("log dump", &["log dump --data /var/lib/turbopump --count 10"]),
    ("log repair", &["log repair --data /var/lib/turbopump", "log repair --data /var/lib/turbopump --yes"]),
    ("mqadmin", &["mqadmin consumerProgress -g billing", "mqadmin topicList -n broker.example.org:9876"]),
    ("topicList", &["topicList -n 127.0.0.1:9876"]),
    ("topicRoute", &["topicRoute -t orders"]),
    ("topicStatus", &["topicStatus -t orders"]),
    ("topicClusterList", &["topicClusterList -t orders"]),
    ("clusterList", &["clusterList -m"]),
    ("updateTopic", &["updateTopic -c DefaultCluster -t orders -r 8 -w 8"]),
    ("deleteTopic", &["deleteTopic -c DefaultCluster -t orders"]),
    ("updateTopicPerm", &["updateTopicPerm -c DefaultCluster -t orders -p 4"]),
    ("updateSubGroup", &["updateSubGroup -c DefaultCluster -g billing -r 3"]),
    ("deleteSubGroup", &["deleteSubGroup -c DefaultCluster -g billing"]),
    ("consumerProgress", &["consumerProgress -g billing"]),
    ("consumerConnection", &["consumerConnection -g billing"]),
    ("producerConnection", &["producerConnection -g shop -t orders"]),
    ("queryMsgById", &["queryMsgById -i 7F0000010000271100000000000003E8"]),
    ("queryMsgByKey", &["queryMsgByKey -t orders -k 4711"]),
    ("queryMsgByUniqueKey", &["queryMsgByUniqueKey -t orders -i 7F0000010000271100000000000003E8"]),
    ("queryMsgByOffset", &["queryMsgByOffset -t orders -b broker-a -i 0 -o 5"]),
    ("queryMsgTraceById", &["queryMsgTraceById -i 7F0000010000271100000000000003E8"]),
    ("printMsg", &["printMsg -t orders -d false"]),
    ("sendMessage", &["sendMessage -t orders -p body -k 4711"]),
    ("consumeMessage", &["consumeMessage -t orders -c 10"]),
    ("resetOffsetByTime", &["resetOffsetByTime -g billing -t orders -s now"]),
    ("skipAccumulatedMessage", &["skipAccumulatedMessage -g billing -t orders"]),
    ("cloneGroupOffset", &["cloneGroupOffset -s billing -d audit -t orders"]),
    ("brokerStatus", &["brokerStatus -b 127.0.0.1:10911"]),
    ("getBrokerConfig", &["getBrokerConfig -b 127.0.0.1:10911"]),
    ("wipeWritePerm", &["wipeWritePerm -b broker-a"]),
    ("addWritePerm", &["addWritePerm -b broker-a"]),
    ("statsAll", &["statsAll -t orders"]),
];

/// The definition with examples at the end of each help text that has none.
pub fn added(command: Command) -> Command {
    below(command, "")
}

fn below(command: Command, path: &str) -> Command {
    let command = match examples_of(path) {
        Some(examples) => with_examples(command, examples),
        None => command,
    };
    command.mut_subcommands(|subcommand| {
        let name = subcommand.get_name().to_owned();
        below(subcommand, if path.is_empty() { name } else { format!("{path} {name}") }.as_str())
    })
}

fn examples_of(path: &str) -> Option<&'static [&'static str]> {
    EXAMPLES.iter().find(|(command, _)| *command == path).map(|(_, examples)| *examples)
}

fn with_examples(command: Command, examples: &[&str]) -> Command {
    let title = if examples.len() == 1 { "Example" } else { "Examples" };
    let lines: String = examples.iter().map(|example| format!("\n  turbopump {example}")).collect();
    let after = |before: Option<String>| {
        let before = before.map(|text| text.trim_end().to_owned() + "\n\n").unwrap_or_default();
        format!("{before}{title}:{lines}")
    };
    let (short, long) = (
        command.get_after_help().map(ToString::to_string),
        command.get_after_long_help().map(ToString::to_string),
    );
    let command = match &long {
        Some(_) => command.after_long_help(after(long)),
        None => command,
    };
    command.after_help(after(short))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;
    use crate::cli::arguments::Arguments;
    use crate::cli::mqadmin;

    /// Help texts of all commands that do something, by their names.
    fn helps(command: &mut Command, path: &str) -> Vec<(String, String)> {
        let mut found = Vec::new();
        for subcommand in command.get_subcommands_mut() {
            let name = format!("{path} {}", subcommand.get_name()).trim().to_owned();
            if subcommand.has_subcommands() {
                found.extend(helps(subcommand, &name));
            } else {
                found.push((name, subcommand.render_long_help().to_string()));
            }
        }
        found
    }

    #[test]
    fn every_command_has_an_example_in_its_help() {
        let mut all = helps(&mut added(Arguments::command()), "");
        all.extend(helps(&mut mqadmin::definition("turbopump"), ""));
        assert!(all.len() > 60, "{}", all.len());
        let has_example = |help: &str| help.contains("xample") && help.contains("turbopump ");
        let names: Vec<_> = all.iter().filter(|(_, help)| !has_example(help)).map(|(name, _)| name).collect();
        assert!(names.is_empty(), "no example in the help of {names:?}");
    }

    #[test]
    fn every_example_can_be_typed() {
        for example in EXAMPLES.iter().flat_map(|(_, examples)| *examples) {
            let words = words(example);
            let line: Vec<_> = std::iter::once("turbopump").chain(words.iter().map(String::as_str)).collect();
            let command = match mqadmin::is_verb(std::ffi::OsStr::new(line[1])) {
                true => mqadmin::definition("turbopump"),
                false => Arguments::command(),
            };
            if let Err(error) = command.try_get_matches_from(&line) {
                panic!("{example}: {error}");
            }
        }
    }

    /// As a shell has them: what is between single quotes is in one word.
    fn words(example: &str) -> Vec<String> {
        let mut words = vec![String::new()];
        let mut is_quoted = false;
        for character in example.chars() {
            match character {
                '\'' => is_quoted = !is_quoted,
                ' ' if !is_quoted => words.push(String::new()),
                character => words.last_mut().expect("there is one").push(character),
            }
        }
        assert!(!is_quoted, "{example}");
        words
    }

    #[test]
    fn no_example_is_of_a_command_that_is_not_there() {
        let mut all: Vec<_> =
            helps(&mut Arguments::command(), "").into_iter().map(|(name, _)| name).collect();
        all.extend(helps(&mut mqadmin::definition("turbopump"), "").into_iter().map(|(name, _)| name));
        for (command, _) in EXAMPLES {
            assert!(all.iter().any(|name| name == command), "{command}");
        }
    }
}
