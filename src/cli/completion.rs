//! `turbopump completion SHELL`, and what a shell asks for when it completes: commands, flags, values, and the names of topics and
//! groups, which the broker that the line means is asked for.
//!
//! The script that `completion` prints has the shell call this program with `TURBOPUMP_COMPLETE` set and the words after `--`.

use std::any::TypeId;
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Arg, Command, CommandFactory, Parser};
use clap_complete::env::Shells;
use clap_complete::{ArgValueCandidates, CompleteEnv, CompletionCandidate, Shell};

use crate::cli::arguments::Arguments;
use crate::cli::context;
use crate::cli::error::CommandError;
use crate::cli::mqadmin;
use crate::cli::server::ServerArguments;
use crate::client::{Client, Timeouts};
use crate::types::{GroupName, TopicName};

const VARIABLE: &str = "TURBOPUMP_COMPLETE";
const NAME: &str = "turbopump";
/// Somebody has pressed a key, and waits.
const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_millis(500), request: Duration::from_secs(1) };
/// Flags that say which broker is meant, and how to talk to it.
const SERVER_FLAGS: [&str; 6] =
    ["--server", "--access-key", "--secret-key", "--secret-key-file", "--tls-ca", "--tls-server-name"];
/// Where `mqadmin` and its verbs find the broker: a name server of this program answers the native protocol as well.
const NAME_SERVER: &str = "127.0.0.1:9876";

const HELP: &str = "\
The script asks this program, and that the broker, for the names of topics and groups: the broker that --server, TURBOPUMP_SERVER or \
the context in use name.

Examples:
  source <(turbopump completion bash)
  turbopump completion bash > /etc/bash_completion.d/turbopump
  turbopump completion fish > ~/.config/fish/completions/turbopump.fish";

#[derive(Debug, clap::Args)]
#[command(after_help = HELP)]
pub struct CompletionArguments {
    /// The shell to complete in
    pub shell: Shell,
}

/// What is completed with.
#[derive(Clone, Copy)]
enum Named {
    Topics,
    Groups,
}

/// The flags of a line that say which broker is meant.
#[derive(Parser)]
struct Line {
    #[command(flatten)]
    server: ServerArguments,
}

/// Prints the script.
pub fn run(arguments: &CompletionArguments) -> Result<(), CommandError> {
    let name = arguments.shell.to_string();
    let shells = Shells::builtins();
    let shell = shells
        .completer(&name)
        .ok_or_else(|| CommandError::failed(format!("there is no completion for {name}")))?;
    // Into memory first: nothing is printed by halves.
    let mut script = Vec::new();
    shell.write_registration(VARIABLE, NAME, NAME, NAME, &mut script).map_err(CommandError::output)?;
    std::io::stdout().write_all(&script).map_err(CommandError::output)
}

/// Answers a shell, when it is one that asks.
pub fn answer(words: &[OsString]) -> Option<ExitCode> {
    std::env::var_os(VARIABLE)?;
    let line: Vec<_> = words.iter().skip_while(|word| *word != "--").skip(1).cloned().collect();
    let environment = CompleteEnv::with_factory(|| definition(&line)).var(VARIABLE).bin(NAME);
    let directory = std::env::current_dir().ok();
    match environment.try_complete(words.iter().cloned(), directory.as_deref()) {
        Ok(true) => Some(ExitCode::SUCCESS),
        Ok(false) => None,
        Err(error) => {
            // Nothing can be said about a failure to print.
            let _ = error.print();
            Some(ExitCode::FAILURE)
        }
    }
}

/// All that can be typed, `mqadmin`'s verbs among it.
fn definition(line: &[OsString]) -> Command {
    let verbs = mqadmin::definition(NAME);
    let command = Arguments::command().mut_subcommand("mqadmin", |mqadmin| {
        mqadmin
            .disable_help_flag(false)
            .subcommands(verbs.get_subcommands().cloned())
            .mut_args(|words| words.hide(true))
    });
    named(command.subcommands(verbs.get_subcommands().cloned()), line)
}

/// With names for every topic and group that an argument stands for.
fn named(command: Command, line: &[OsString]) -> Command {
    let command = command.mut_args(|argument| {
        let Some(named) = meant(&argument) else { return argument };
        let line = line.to_vec();
        argument.add(ArgValueCandidates::new(move || candidates(named, &line)))
    });
    command.mut_subcommands(|subcommand| named(subcommand, line))
}

/// What the values of an argument are names of. Those of `mqadmin`'s commands are text, since brokers of Apache's take other names.
fn meant(argument: &Arg) -> Option<Named> {
    let (of_type, name) = (argument.get_value_parser().type_id(), argument.get_value_names());
    let is_called = |wanted: &str| name.is_some_and(|names| names.iter().any(|name| name == wanted));
    if of_type == TypeId::of::<TopicName>() || is_called("TOPIC") {
        Some(Named::Topics)
    } else if of_type == TypeId::of::<GroupName>() || is_called("GROUP") {
        Some(Named::Groups)
    } else {
        None
    }
}

/// The names that there are; none where nobody answers in time.
fn candidates(named: Named, line: &[OsString]) -> Vec<CompletionCandidate> {
    let Some(mut client) = connected(line) else { return Vec::new() };
    let names: Vec<String> = match named {
        Named::Topics => {
            let topics = client.list_topics().unwrap_or_default();
            topics.iter().map(|topic| topic.topic.to_string()).collect()
        }
        Named::Groups => client.list_groups().unwrap_or_default().iter().map(ToString::to_string).collect(),
    };
    // The shell takes words apart by what is no part of a name.
    names.into_iter().map(CompletionCandidate::new).collect()
}

fn connected(line: &[OsString]) -> Option<Client> {
    let words: Vec<&str> = line.iter().skip(1).map_while(|word| word.to_str()).collect();
    let mut flags = vec![OsString::from(NAME)];
    flags.extend(SERVER_FLAGS.iter().filter_map(|flag| {
        context::value_of(&words, flag).map(|value| OsString::from(format!("{flag}={value}")))
    }));
    flags.extend(words.contains(&"--tls").then(|| OsString::from("--tls")));
    if let Some(name_servers) = name_servers(&words) {
        let first = name_servers.split(';').next().unwrap_or_default();
        flags.push(OsString::from(format!("--server={first}")));
    }
    let command = context::applied(Line::command(), line).ok()?;
    let matches = command.try_get_matches_from(flags).ok()?;
    let line = <Line as clap::FromArgMatches>::from_arg_matches(&matches).ok()?;
    line.server.connect_quietly(TIMEOUTS).ok()
}

/// Where `mqadmin`'s commands look; `None` for other commands.
fn name_servers(words: &[&str]) -> Option<String> {
    let command = words.iter().find(|word| !word.starts_with('-'))?;
    if *command != "mqadmin" && !mqadmin::is_verb(std::ffi::OsStr::new(command)) {
        return None;
    }
    let named = context::value_of(words, "-n").or_else(|| context::value_of(words, "--namesrvAddr"));
    let named = named.map(str::to_owned).or_else(|| std::env::var("NAMESRV_ADDR").ok());
    Some(named.unwrap_or_else(|| NAME_SERVER.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Arguments without names to choose from, by the commands that they are of, of those that `wanted` says.
    fn without_names(command: &Command, path: &str, wanted: &dyn Fn(&Arg) -> bool) -> Vec<String> {
        let path = format!("{path} {}", command.get_name());
        let lacks = |argument: &&Arg| wanted(argument) && argument.get::<ArgValueCandidates>().is_none();
        let own =
            command.get_arguments().filter(lacks).map(|argument| format!("{path}: {}", argument.get_id()));
        let below = command.get_subcommands().flat_map(|below| without_names(below, &path, wanted));
        own.chain(below).collect()
    }

    #[test]
    fn every_topic_and_group_that_can_be_typed_is_completed() {
        let is_named = |argument: &Arg| {
            let of_type = argument.get_value_parser().type_id();
            let id = argument.get_id().as_str();
            of_type == TypeId::of::<TopicName>()
                || of_type == TypeId::of::<GroupName>()
                || (["topic", "topics", "group", "groups"].contains(&id)
                    && argument.get_action().takes_values())
        };
        let definition = definition(&[]);
        assert_eq!(without_names(&definition, "", &is_named), Vec::<String>::new());
        // Of the verbs, by the letters that they have for them.
        let verbs: Vec<_> = definition.get_subcommands().filter(|of| is_verb(of)).collect();
        assert_eq!(verbs.len(), 29, "{verbs:?}");
        let has_letter = |argument: &Arg| matches!(argument.get_short(), Some('t' | 'g'));
        let lacking: Vec<_> = verbs.iter().flat_map(|verb| without_names(verb, "", &has_letter)).collect();
        assert_eq!(lacking, Vec::<String>::new());
    }

    fn is_verb(command: &Command) -> bool {
        mqadmin::is_verb(std::ffi::OsStr::new(command.get_name()))
    }
}
