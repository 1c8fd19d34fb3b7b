//! `turbopump context`: brokers by name, so that neither their addresses nor their keys are typed again and again.
//!
//! Contexts are in `turbopump/contexts.toml` of the user's configuration directory (`XDG_CONFIG_HOME`, or `.config` at home), which
//! only the user may read. A command takes what it was not told from the context in use, before its defaults: but all of it or
//! nothing, so that no key is proved to a broker that it is not for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, print};
use crate::cli::server::ServerArguments;
use crate::types::{SettingsFile, SettingsFileError};

const FILE: &str = "turbopump/contexts.toml";
/// A thousand contexts have less.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
const NAME_CHARACTERS_MAX: usize = 64;
/// Commands that talk to no broker by these flags, or set one up.
const WITHOUT: [&str; 9] =
    ["context", "serve", "completion", "log", "help", "man", "check", "generate", "restore"];

#[derive(Debug, Args)]
pub struct ContextArguments {
    #[command(subcommand)]
    pub command: ContextCommand,
}

#[derive(Debug, Subcommand)]
pub enum ContextCommand {
    /// Keep a broker's address, access key and TLS under a name; one of that name is replaced
    #[command(after_help = ADD_HELP)]
    Add(AddArguments),
    /// Use a context for all commands that are not told otherwise, or none
    #[command(after_help = "Example:\n  turbopump context use production")]
    Use(UseArguments),
    /// List all contexts; the one in use is marked
    #[command(visible_alias = "ls", after_help = "Example:\n  turbopump context list")]
    List,
    /// Forget a context
    #[command(visible_alias = "rm", after_help = "Example:\n  turbopump context remove staging")]
    Remove(NameArguments),
}

const ADD_HELP: &str = "\
What is kept is what the flags and the environment say now. Contexts are in turbopump/contexts.toml of the configuration directory \
($XDG_CONFIG_HOME, or ~/.config), which only its user may read; a secret that comes as --secret-key or TURBOPUMP_SECRET_KEY is kept \
there, of --secret-key-file the path. A command that is told --server or has TURBOPUMP_SERVER takes nothing from a context, unless \
it is told --context.

Examples:
  turbopump context add production --server broker.example.org:10911 --access-key ops --secret-key-file /etc/ops.key --tls
  turbopump context use production
  turbopump topic list --context staging";

#[derive(Debug, Args)]
pub struct AddArguments {
    pub name: ContextName,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
pub struct NameArguments {
    pub name: ContextName,
}

#[derive(Debug, Args)]
pub struct UseArguments {
    /// Its name, or none
    pub name: ContextName,
}

/// The name of a context: letters, digits, `-`, `_` and `.`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ContextName(String);

impl FromStr for ContextName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_allowed = |character: char| character.is_ascii_alphanumeric() || "-_.".contains(character);
        if text.is_empty() || text.len() > NAME_CHARACTERS_MAX || !text.chars().all(is_allowed) {
            return Err(format!(
                "a context's name has 1 to {NAME_CHARACTERS_MAX} letters, digits, `-`, `_` and `.`"
            ));
        }
        Ok(Self(text.to_owned()))
    }
}

/// The file.
#[derive(Debug, Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Contexts {
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<String>,
    contexts: BTreeMap<String, Context>,
}

/// What a command is told by one. There is no `Debug`: the secret is in it.
#[derive(Clone, Default, Deserialize, Serialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
struct Context {
    server: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    access_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    secret_key_file: Option<PathBuf>,
    tls: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_ca: Option<PathBuf>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_server_name: Option<String>,
}

impl std::fmt::Debug for Context {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Context({})", self.server)
    }
}

#[derive(Serialize)]
struct ListView {
    file: String,
    current: Option<String>,
    contexts: Vec<ContextView>,
}

#[derive(Serialize)]
struct ContextView {
    name: String,
    is_current: bool,
    server: String,
    access_key: Option<String>,
    /// `none`, `kept`, or the file that has it.
    secret: String,
    tls: bool,
    tls_ca: Option<String>,
    tls_server_name: Option<String>,
}

#[derive(Serialize)]
struct DoneView {
    context: String,
    done: &'static str,
}

pub fn run(arguments: ContextArguments, format: OutputFormat) -> Result<(), CommandError> {
    let path = path()?;
    let mut all = Contexts::read(&path)?;
    let (context, done) = match arguments.command {
        ContextCommand::List => return print(format, &all.view(&path), render),
        ContextCommand::Add(command) => {
            let context = Context::of(&command.server)?;
            let replaced = all.contexts.insert(command.name.0.clone(), context);
            (command.name.0, if replaced.is_some() { "replaced" } else { "added" })
        }
        ContextCommand::Use(UseArguments { name }) if name.0 == "none" => {
            all.current = None;
            (name.0, "used")
        }
        ContextCommand::Use(UseArguments { name }) => {
            all.find(&name.0)?;
            all.current = Some(name.0.clone());
            (name.0, "used")
        }
        ContextCommand::Remove(NameArguments { name }) => {
            all.find(&name.0)?;
            all.contexts.remove(&name.0);
            all.current = all.current.filter(|current| *current != name.0);
            (name.0, "removed")
        }
    };
    all.write(&path)?;
    print(format, &DoneView { context, done }, |view| match (view.context.as_str(), view.done) {
        ("none", "used") => "no context is used\n".to_owned(),
        (context, done) => format!("context {context} {done}\n"),
    })
}

fn render(view: &ListView) -> String {
    if view.contexts.is_empty() {
        return "no contexts: turbopump context add NAME --server HOST:PORT makes one\n".to_owned();
    }
    let none = || "-".to_owned();
    let mut table = Table::new(["", "CONTEXT", "SERVER", "ACCESS KEY", "SECRET", "TLS"]);
    for context in &view.contexts {
        table.row([
            if context.is_current { "*" } else { "" }.to_owned(),
            context.name.clone(),
            context.server.clone(),
            context.access_key.clone().unwrap_or_else(none),
            context.secret.clone(),
            if context.tls { "yes" } else { "no" }.to_owned(),
        ]);
    }
    table.render()
}

/// Where contexts are kept.
fn path() -> Result<PathBuf, CommandError> {
    let named = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let directory = named("XDG_CONFIG_HOME").or_else(|| named("HOME").map(|home| home.join(".config")));
    let directory = directory.ok_or_else(|| {
        CommandError::usage("contexts are kept in a configuration directory: set HOME or XDG_CONFIG_HOME")
    })?;
    Ok(directory.join(FILE))
}

impl Contexts {
    /// None where there is no file.
    fn read(path: &Path) -> Result<Self, CommandError> {
        let refused = |reason: String| {
            CommandError::usage(format!("cannot use the contexts in {}: {reason}", path.display()))
        };
        let (text, metadata) = match SettingsFile::read_text(path, FILE_BYTES_MAX) {
            Ok(read) => read,
            Err(SettingsFileError::System(error))
                if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) =>
            {
                return Ok(Self::default());
            }
            Err(error) => return Err(refused(error.to_string())),
        };
        // What is wrong is told without the line that it is in, which may be the one with a secret.
        let all: Self = toml::from_str(&text).map_err(|error| refused(error.message().to_owned()))?;
        let has_secret = all.contexts.values().any(|context| context.secret_key.is_some());
        let mode = metadata.mode() & 0o777;
        if has_secret && mode & 0o077 != 0 {
            return Err(refused(format!(
                "it can be read by others (mode {mode:o}), and has a secret: chmod 600 {}",
                path.display()
            )));
        }
        Ok(all)
    }

    /// Writes another file beside it and gives that its name, so that no half of one is ever read.
    fn write(&self, path: &Path) -> Result<(), CommandError> {
        let failed = |error: std::io::Error| {
            CommandError::failed(format!("cannot write {}: {error}; nothing was changed", path.display()))
        };
        let text = toml::to_string_pretty(self).map_err(CommandError::failed)?;
        let directory = path.parent().unwrap_or(Path::new("."));
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(failed)?;
        let beside = path.with_extension(format!("toml.{}", std::process::id()));
        let written = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&beside)
            .and_then(|mut file| {
                file.set_permissions(Permissions::from_mode(0o600))?;
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .and_then(|()| fs::rename(&beside, path));
        written.map_err(|error| {
            // What is left of it has secrets in it; that it cannot be removed is the same trouble.
            let _ = fs::remove_file(&beside);
            failed(error)
        })
    }

    fn find(&self, name: &str) -> Result<&Context, CommandError> {
        self.contexts.get(name).ok_or_else(|| {
            CommandError::usage(format!(
                "there is no context {name}: `turbopump context list` tells which there are"
            ))
        })
    }

    fn view(&self, path: &Path) -> ListView {
        let text = |path: &PathBuf| path.display().to_string();
        let view = |(name, context): (&String, &Context)| ContextView {
            name: name.clone(),
            is_current: self.current.as_ref() == Some(name),
            server: context.server.clone(),
            access_key: context.access_key.clone(),
            secret: match (&context.secret_key_file, &context.secret_key) {
                (Some(file), _) => text(file),
                (None, Some(_)) => "kept".to_owned(),
                (None, None) => "none".to_owned(),
            },
            tls: context.tls || context.tls_ca.is_some() || context.tls_server_name.is_some(),
            tls_ca: context.tls_ca.as_ref().map(text),
            tls_server_name: context.tls_server_name.clone(),
        };
        ListView {
            file: path.display().to_string(),
            current: self.current.clone(),
            contexts: self.contexts.iter().map(view).collect(),
        }
    }
}

impl Context {
    /// What flags and environment say now, checked as when they are used.
    fn of(server: &ServerArguments) -> Result<Self, CommandError> {
        let key = server.key.key()?;
        server.tls.tls()?;
        let absolute = |path: &Path| std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let secret_key_file =
            server.key.secret_key_file.as_deref().filter(|path| !path.as_os_str().is_empty());
        let kept = match (secret_key_file, &key) {
            (None, Some((_, secret))) => Some(String::from_utf8(secret.bytes().to_vec()).map_err(|_| {
                CommandError::usage(
                    "a secret that is no text is kept in a file: name it with --secret-key-file",
                )
            })?),
            _ => None,
        };
        Ok(Self {
            server: server.server.clone(),
            access_key: key.map(|(id, _)| id.to_owned()),
            secret_key: kept,
            secret_key_file: secret_key_file.map(absolute),
            tls: server.tls.tls,
            tls_ca: server
                .tls
                .tls_ca
                .as_ref()
                .filter(|path| !path.is_empty())
                .map(|path| absolute(Path::new(path))),
            tls_server_name: server.tls.tls_server_name.clone().filter(|name| !name.is_empty()),
        })
    }

    /// The values that take the place of the flags' defaults, by the flags' names.
    fn defaults(&self) -> Vec<(&'static str, OsString)> {
        let mut defaults = vec![("server", OsString::from(&self.server))];
        defaults.extend(self.access_key.as_ref().map(|key| ("access_key", key.into())));
        defaults.extend(self.secret_key.as_ref().map(|key| ("secret_key", key.into())));
        defaults.extend(self.secret_key_file.as_ref().map(|path| ("secret_key_file", path.into())));
        defaults.extend(self.tls_ca.as_ref().map(|path| ("tls_ca", path.into())));
        defaults.extend(self.tls_server_name.as_ref().map(|name| ("tls_server_name", name.into())));
        defaults.extend(self.tls.then(|| ("tls", "true".into())));
        defaults
    }
}

/// The definition with the context's values as defaults, where one is to be used by this command line.
pub fn applied(command: clap::Command, words: &[OsString]) -> Result<clap::Command, CommandError> {
    let command = command.arg(flag());
    let Some(context) = used(words)? else { return Ok(command) };
    Ok(with_defaults(command, &context.defaults()))
}

/// Read before the line is parsed, since it says what other flags' defaults are.
fn flag() -> clap::Arg {
    let argument = clap::Arg::new("context").long("context").global(true).value_name("NAME");
    argument
        .env("TURBOPUMP_CONTEXT")
        .help("Context whose broker is meant, or none [default: the one in use, see turbopump context]")
}

fn used(words: &[OsString]) -> Result<Option<Context>, CommandError> {
    let words: Vec<&str> = words.iter().skip(1).map_while(|word| word.to_str()).collect();
    let command = words.iter().find(|word| !word.starts_with('-'));
    if command.is_none_or(|command| WITHOUT.contains(command)) {
        return Ok(None);
    }
    let named = value_of(&words, "--context").map(str::to_owned);
    let named = named.or_else(|| std::env::var("TURBOPUMP_CONTEXT").ok().filter(|name| !name.is_empty()));
    let is_told = || {
        let variable = std::env::var_os("TURBOPUMP_SERVER").is_some_and(|server| !server.is_empty());
        variable || value_of(&words, "--server").is_some()
    };
    match named.as_deref() {
        Some("none") => Ok(None),
        Some(name) => Contexts::read(&path()?)?.find(name).cloned().map(Some),
        None if is_told() => Ok(None),
        None => {
            // Without a home there are none.
            let Ok(path) = path() else { return Ok(None) };
            let all = Contexts::read(&path)?;
            all.current.as_ref().map(|current| all.find(current).cloned()).transpose()
        }
    }
}

/// What a flag was given, in either of its spellings.
pub fn value_of<'a>(words: &[&'a str], flag: &str) -> Option<&'a str> {
    let separate = words.windows(2).find(|pair| pair[0] == flag).map(|pair| pair[1]);
    let joined = words.iter().find_map(|word| word.strip_prefix(flag)?.strip_prefix('='));
    separate.or(joined)
}

fn with_defaults(command: clap::Command, defaults: &[(&'static str, OsString)]) -> clap::Command {
    let command = command.mut_args(|argument| {
        let Some((_, value)) = defaults.iter().find(|(name, _)| argument.get_id() == name) else {
            return argument;
        };
        // A secret is no part of a help text, nor of what its default is.
        let is_hidden = argument.get_id() == "secret_key";
        argument.default_value(value.clone()).hide_default_value(is_hidden)
    });
    command.mut_subcommands(|subcommand| with_defaults(subcommand, defaults))
}
