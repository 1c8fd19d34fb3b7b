//! From the process's arguments to its exit code.

use std::ffi::OsString;
use std::io::{self, Write};
use std::process::ExitCode;

use clap::error::ErrorKind;
use clap::{CommandFactory, FromArgMatches};

use crate::cli::arguments::{Arguments, Command};
use crate::cli::error::CommandError;
use crate::cli::mqadmin::MqadminWords;
use crate::cli::output::{ERROR, OutputFormat, check_output, styled, to_json, without_controls};
use crate::cli::{
    backup, bench, bundle, check, completion, configure, consume, context, delayed, dlq, examples, generate,
    group, import, instance, latency, log, manual, meant, message, mirror, mqadmin, produce, serve, slow,
    status, top, topic,
};

/// What a sentence on standard error begins with.
const PREFIX: &str = "turbopump:";

/// Runs the command that `arguments` (the program's name first) describe.
pub fn main(arguments: impl IntoIterator<Item = OsString>) -> ExitCode {
    let arguments: Vec<OsString> = arguments.into_iter().collect();
    if let Some(answered) = completion::answer(&arguments) {
        return answered;
    }
    if arguments.get(1).is_some_and(|word| mqadmin::is_verb(word)) {
        return mqadmin::main("turbopump", &arguments[1..]);
    }
    let parsed = match parse(&arguments) {
        Ok(parsed) => parsed,
        Err(refused) => return refused,
    };
    let format = parsed.output;
    if let Command::Mqadmin(MqadminWords { mut words }) = parsed.command {
        // Its commands have the flag behind their names.
        if format == OutputFormat::Json && !words.is_empty() {
            words.insert(1, "--output=json".into());
        }
        return mqadmin::main("turbopump mqadmin", &words);
    }
    match run(parsed) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            report(format, &error);
            ExitCode::from(error.exit_code())
        }
    }
}

/// What a line says, with what the context in use says beside it; or the exit code of one that is refused.
fn parse(arguments: &[OsString]) -> Result<Arguments, ExitCode> {
    let command = context::applied(examples::added(Arguments::command()), arguments).map_err(|error| {
        report(if asks_for_json(arguments) { OutputFormat::Json } else { OutputFormat::Text }, &error);
        ExitCode::from(error.exit_code())
    })?;
    let parsed = command.try_get_matches_from(arguments);
    let parsed = parsed.and_then(|matches| Arguments::from_arg_matches(&matches));
    parsed.map_err(|error| refuse(error, arguments))
}

fn run(arguments: Arguments) -> Result<(), CommandError> {
    let format = arguments.output;
    // What a command has done is not undone when its result cannot be printed. A broker works whether it can print or not.
    if !matches!(arguments.command, Command::Serve(_)) {
        check_output()?;
    }
    match arguments.command {
        Command::Serve(command) => serve::run(*command, format),
        Command::Topic(command) => topic::run(command, format),
        Command::Produce(command) => produce::run(&command, format),
        Command::Consume(command) => consume::run(&command, format),
        Command::Delayed(command) => delayed::run(command, format),
        Command::Dlq(command) => dlq::run(command, format),
        Command::Mirror(command) => mirror::run(&command, format),
        Command::Group(command) => group::run(command, format),
        Command::Instance(command) => instance::run(command, format),
        Command::Message(command) => message::run(command, format),
        Command::Bench(command) => bench::run(command, format),
        Command::Status(command) => status::run(&command, format),
        Command::Top(command) => top::run(&command, format),
        Command::Generate(command) => generate::run(&command),
        Command::Slow(command) => slow::run(&command, format),
        Command::Latency(command) => latency::run(&command, format),
        Command::Log(command) => log::run(command, format),
        Command::Bundle(command) => bundle::run(&command, format),
        Command::Check(command) => check::run(&command, format),
        Command::ImportRocketmq(command) => import::run(&command, format),
        Command::Config(command) => configure::run(command, format),
        Command::Backup(command) => backup::run(command, format),
        Command::Restore(command) => backup::run_restore(&command, format),
        Command::Context(command) => context::run(command, format),
        Command::Completion(command) => completion::run(&command),
        Command::Man(command) => manual::run(&command),
        Command::Mqadmin(_) => unreachable!("it has a definition of its own"),
    }
}

/// Help and version end here too: clap treats them as errors that go to standard output with code 0.
fn refuse(mut error: clap::Error, arguments: &[OsString]) -> ExitCode {
    let words = arguments.iter().filter_map(|argument| argument.to_str());
    let meant = meant::explain(&mut error, &built(), words);
    let is_help = matches!(error.kind(), ErrorKind::DisplayHelp | ErrorKind::DisplayVersion);
    if asks_for_json(arguments) && !is_help {
        let tip = meant.map_or_else(String::new, |meant| format!("; {}", meant.replace('\n', " ")));
        report(OutputFormat::Json, &CommandError::usage(reason_of(&error) + &tip));
    } else {
        // Nothing can be said about a failure to print.
        let _ = error.print();
    }
    ExitCode::from(if is_help { 0 } else { 2 })
}

/// What is wrong with a command line, on one line.
pub(super) fn reason_of(error: &clap::Error) -> String {
    let text = error.render().to_string();
    // The first paragraph is the reason; usage and tips follow it.
    let reason = text.split("\n\n").next().unwrap_or(&text).trim_start_matches("error: ");
    reason.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The definition with everything filled in, such as the names of values.
fn built() -> clap::Command {
    let mut command = Arguments::command();
    command.build();
    command
}

/// `-o json` in any of its spellings, in a command line that did not parse.
pub(super) fn asks_for_json(arguments: &[OsString]) -> bool {
    let text: Vec<&str> = arguments.iter().filter_map(|argument| argument.to_str()).collect();
    text.windows(2).any(|pair| matches!(pair, ["-o" | "--output", "json"]))
        || text.iter().any(|argument| matches!(*argument, "-ojson" | "-o=json" | "--output=json"))
}

/// One sentence, or one object, on standard error.
pub(super) fn report(format: OutputFormat, error: &CommandError) {
    if matches!(error, CommandError::ReaderGone) {
        return;
    }
    let line = match format {
        OutputFormat::Text => format!("{PREFIX} {error}\n"),
        OutputFormat::Json => to_json(&error.to_json()) + "\n",
    };
    // A server's words may be in it.
    let line = without_controls(&line);
    let line = match line.strip_prefix(PREFIX).filter(|_| format == OutputFormat::Text) {
        Some(sentence) => styled(&io::stderr(), ERROR, PREFIX) + sentence,
        None => line.into_owned(),
    };
    // Nothing can be said about a failure to print.
    let _ = io::stderr().write_all(line.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_recognised_where_parsing_failed() {
        let asks = |line: &str| {
            let arguments: Vec<OsString> = line.split(' ').map(OsString::from).collect();
            asks_for_json(&arguments)
        };
        for line in ["t topic -o json", "t --output json x", "t --output=json", "t -ojson", "t -o=json"] {
            assert!(asks(line), "{line}");
        }
        for line in ["t topic", "t -o text json", "t json -o"] {
            assert!(!asks(line), "{line}");
        }
    }
}
