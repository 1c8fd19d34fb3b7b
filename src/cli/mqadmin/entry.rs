//! From the words of a line to its exit code.

use std::ffi::{OsStr, OsString};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{Command, CommandFactory, FromArgMatches};

use crate::cli::entry::{asks_for_json, reason_of, report};
use crate::cli::error::CommandError;
use crate::cli::examples;
use crate::cli::mqadmin::arguments::{MqadminArguments, Verb};
use crate::cli::mqadmin::{
    brokers, clients, groups, look_up, places, progress, reading, sending, stats, topics, traces,
};
use crate::cli::output::{OutputFormat, check_output};

/// Whether a word is one of `mqadmin`'s that stands for itself.
pub fn is_verb(word: &OsStr) -> bool {
    word.to_str().is_some_and(|word| MqadminArguments::command().find_subcommand(word).is_some())
}

/// Runs the verb that `words` begin with; `called` is what was typed before it.
pub fn main(called: &'static str, words: &[OsString]) -> ExitCode {
    let line: Vec<OsString> = std::iter::once(called.into()).chain(words.iter().cloned()).collect();
    let parsed = definition(called)
        .try_get_matches_from(&line)
        .and_then(|matches| MqadminArguments::from_arg_matches(&matches));
    let verb = match parsed {
        Ok(arguments) => arguments.verb,
        Err(error) => return refuse(&error, &line),
    };
    let format = verb.output();
    match check_output().and_then(|()| run(verb)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(format, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// All verbs, with examples; `called` is what is typed before them.
pub fn definition(called: &'static str) -> Command {
    examples::added(command(called))
}

/// The definition; `-o` is `--output` where `mqadmin` has no flag of that letter.
fn command(called: &'static str) -> Command {
    let mut command = MqadminArguments::command().bin_name(called);
    for verb in command.get_subcommands_mut() {
        if verb.get_arguments().all(|argument| argument.get_short() != Some('o')) {
            *verb = std::mem::take(verb).mut_arg("output", |output| output.short('o'));
        }
    }
    command
}

fn refuse(error: &clap::Error, line: &[OsString]) -> ExitCode {
    let is_help =
        matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand);
    if asks_for_json(line) && !is_help {
        report(OutputFormat::Json, &CommandError::usage(reason_of(error)));
    } else {
        // Nothing can be said about a failure to print.
        let _ = error.print();
    }
    ExitCode::from(if error.kind() == ErrorKind::DisplayHelp { 0 } else { 2 })
}

fn run(verb: Verb) -> Result<(), CommandError> {
    match verb {
        Verb::TopicList(of) => topics::list(&of),
        Verb::TopicRoute(of) => topics::route(&of),
        Verb::TopicStatus(of) => topics::status(&of),
        Verb::TopicClusterList(of) => topics::clusters(&of),
        Verb::ClusterList(of) => brokers::list(&of),
        Verb::UpdateTopic(of) => topics::update(&of),
        Verb::DeleteTopic(of) => topics::delete(&of),
        Verb::UpdateTopicPerm(of) => topics::update_permission(&of),
        Verb::UpdateSubGroup(of) => groups::update(&of),
        Verb::DeleteSubGroup(of) => groups::delete(&of),
        Verb::ConsumerProgress(of) => progress::run(&of),
        Verb::ConsumerConnection(of) => clients::consumers(&of),
        Verb::ProducerConnection(of) => clients::producers(&of),
        Verb::QueryMsgById(of) => look_up::by_id(&of),
        Verb::QueryMsgByKey(of) => look_up::by_key(&of),
        Verb::QueryMsgByUniqueKey(of) => look_up::by_unique_key(&of),
        Verb::QueryMsgByOffset(of) => look_up::by_offset(&of),
        Verb::QueryMsgTraceById(of) => traces::run(&of),
        Verb::PrintMsg(of) => reading::print_all(&of),
        Verb::SendMessage(of) => sending::run(&of),
        Verb::ConsumeMessage(of) => reading::consume(&of),
        Verb::ResetOffsetByTime(of) => places::reset(&of),
        Verb::SkipAccumulatedMessage(of) => places::skip(&of),
        Verb::CloneGroupOffset(of) => places::clone(&of),
        Verb::BrokerStatus(of) => brokers::status(&of),
        Verb::GetBrokerConfig(of) => brokers::settings(&of),
        Verb::WipeWritePerm(of) => brokers::close(&of),
        Verb::AddWritePerm(of) => brokers::open(&of),
        Verb::StatsAll(of) => stats::run(&of),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Result<Verb, clap::Error> {
        let matches = command("turbopump").try_get_matches_from(line.split_whitespace())?;
        MqadminArguments::from_arg_matches(&matches).map(|arguments| arguments.verb)
    }

    #[test]
    fn the_definition_is_consistent() {
        command("turbopump").debug_assert();
    }

    /// As `mqadmin` 5.5.0 takes them.
    #[test]
    fn the_spellings_that_scripts_rely_on() {
        for line in [
            "t topicList -n a:9876",
            "t topicList -n a:9876;b:9876 -c",
            "t topicRoute -t T -n a:9876",
            "t topicRoute -l -t T",
            "t topicStatus -t T -c C",
            "t topicClusterList -t T",
            "t clusterList -m",
            "t clusterList -i 5 -c C",
            "t updateTopic -b a:1 -t T -r 4 -w 4 -p 6 -o true -u false -s false",
            "t updateTopic -c C -t T -a +message.type=FIFO,-reserve.time",
            "t updateTopic --clusterName C --topic T --readQueueNums 8 --output json",
            "t deleteTopic -c C -t T",
            "t updateTopicPerm -b a:1 -t T -p 4",
            "t updateSubGroup -c C -g G -s false -m true -d false -o true -q 1 -r -1 -i 0 -w 1 -a true",
            "t updateSubGroup -b a:1 -g G --attributes +a=b -p {\"type\":\"CUSTOMIZED\"}",
            "t deleteSubGroup -b a:1 -g G -r true",
            "t deleteSubGroup -c C -g G",
            "t consumerProgress",
            "t consumerProgress -g G -t T -s true -c C -n a:9876 -o json",
            "t consumerConnection -g G -b a:1",
            "t producerConnection -g G -t T",
            "t queryMsgById -i 7F0000010000271100000000000003E8 -t T -c C",
            "t queryMsgById -i 7F0000010000271100000000000003E8,7F0000010000271100000000000003E9 -f UTF-8",
            "t queryMsgByKey -t T -k K -b 0 -e 1700000000000 -m 10 -c C -p K",
            "t queryMsgByUniqueKey -t T -i 7F0000010000271100000000000003E8 -a -s 0 -e 1700000000000 -c C",
            "t queryMsgByOffset -t T -b broker-a -i 0 -o 5 -f UTF-8 -r T",
            "t queryMsgTraceById -i 7F0000010000271100000000000003E8 -t RMQ_SYS_TRACE_TOPIC -b 0 -e 1 -c 10",
            "t printMsg -t T -l U -c UTF-8 -s TagA||TagB -b 0 -e 2026-11-30#14:03:05:000 -d false",
            "t sendMessage -t T -p body -k K -c TagA -b broker-a -i 0 -m false",
            "t consumeMessage -t T -b broker-a -i 0 -o 5 -g G -s 0 -e 1 -c 10",
            "t resetOffsetByTime -g G -t T -s now -f true -c C -b broker-a -q 0 -o 5",
            "t resetOffsetByTime -g G -t T -s -1",
            "t skipAccumulatedMessage -g G -t T -f true",
            "t cloneGroupOffset -s G -d H -t T -o true",
            "t brokerStatus -b a:1",
            "t brokerStatus -c C -o json",
            "t getBrokerConfig -b a:1",
            "t wipeWritePerm -b broker-a",
            "t addWritePerm -b broker-a",
            "t statsAll -a -t T",
        ] {
            if let Err(error) = parse(line) {
                panic!("{line}: {error}");
            }
        }
    }

    #[test]
    fn what_is_wrong_is_refused_before_anything_is_done() {
        for (line, kind) in [
            ("t updateTopic -t T", ErrorKind::MissingRequiredArgument),
            ("t updateTopic -t T -b a:1 -c C", ErrorKind::ArgumentConflict),
            ("t updateTopic -t T -b a:1 -w x", ErrorKind::ValueValidation),
            ("t updateTopic -t T -b a:1 -o maybe", ErrorKind::InvalidValue),
            ("t updateTopicPerm -t T -b a:1 -p 9", ErrorKind::ValueValidation),
            ("t topicRoute", ErrorKind::MissingRequiredArgument),
            ("t queryMsgById -i nothing", ErrorKind::ValueValidation),
            ("t resetOffsetByTime -g G -t T -s tomorrow", ErrorKind::ValueValidation),
            ("t sendMessage -t T -p b -i 3", ErrorKind::MissingRequiredArgument),
            ("t consumeMessage -t T -c 0", ErrorKind::ValueValidation),
            ("t topicLists", ErrorKind::InvalidSubcommand),
        ] {
            let error = parse(line).map(|_| ()).expect_err(line);
            assert_eq!(error.kind(), kind, "{line}: {error}");
        }
    }

    #[test]
    fn verbs_are_told_from_other_commands() {
        for (word, is) in [("consumerProgress", true), ("statsAll", true), ("topic", false), ("help", false)]
        {
            assert_eq!(is_verb(OsStr::new(word)), is, "{word}");
        }
    }
}
