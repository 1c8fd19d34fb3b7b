//! `turbopump config`: the settings of a broker that runs.

use std::str::FromStr;

use clap::{Args, Subcommand};
use serde::Serialize;

use crate::api::{SettingChange, SettingInfo};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, Table, print};
use crate::cli::server::ServerArguments;

#[derive(Debug, Args)]
pub struct ConfigArguments {
    #[command(subcommand)]
    pub command: ConfigCommand,
}

#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Show settings, where each was said, and whether it can be changed while the broker runs
    Get(GetArguments),
    /// Change settings now and for later starts
    Set(SetArguments),
    /// Forget what was set: what the configuration file says counts again, or the default
    Unset(UnsetArguments),
}

#[derive(Debug, Args)]
#[command(after_help = "Example: turbopump config get retention-age level

JSON: settings, each with setting, value (null: none), origin, live (whether it can be changed while the broker runs).")]
pub struct GetArguments {
    /// Settings to be shown, by the names of `serve`'s flags [default: all]
    #[arg(value_name = "SETTING")]
    pub names: Vec<String>,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
#[command(
    after_help = "What is set is kept in the data directory. It wins over the configuration file, and not over a flag or a variable \
of the environment: a setting that one of these says is refused. Several are changed together or not at all.

Example: turbopump config set retention-age=7d log-level=info,groups=debug"
)]
pub struct SetArguments {
    /// A setting and its value, as its flag takes it
    #[arg(value_name = "SETTING=VALUE", required = true)]
    pub changes: Vec<Assignment>,
    #[command(flatten)]
    pub server: ServerArguments,
}

#[derive(Debug, Args)]
#[command(after_help = "Example: turbopump config unset retention-age")]
pub struct UnsetArguments {
    #[arg(value_name = "SETTING", required = true)]
    pub names: Vec<String>,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// `retention-age=7d`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assignment(SettingChange);

impl FromStr for Assignment {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.split_once('=') {
            Some((name, value)) if !name.is_empty() && !value.is_empty() => {
                let name = name.trim_start_matches('-').to_owned();
                Ok(Self(SettingChange { name, value: Some(value.to_owned()) }))
            }
            _ => {
                Err("write a setting and its value like retention-age=7d; `config unset` forgets one"
                    .to_owned())
            }
        }
    }
}

#[derive(Serialize)]
struct SettingsView {
    settings: Vec<SettingView>,
}

#[derive(Serialize)]
struct SettingView {
    setting: String,
    value: Option<String>,
    origin: String,
    live: bool,
}

pub fn run(arguments: ConfigArguments, format: OutputFormat) -> Result<(), CommandError> {
    match arguments.command {
        ConfigCommand::Get(get) => {
            let settings = get.server.connect()?.settings(Vec::new())?;
            if let Some(unknown) =
                get.names.iter().find(|name| !settings.iter().any(|known| known.name == **name))
            {
                let message = format!("there is no setting `{unknown}`: `turbopump config get` lists them");
                return Err(CommandError::failed(message));
            }
            show(settings, &get.names, format)
        }
        ConfigCommand::Set(set) => {
            let changes: Vec<_> = set.changes.into_iter().map(|assignment| assignment.0).collect();
            change(&set.server, changes, format)
        }
        ConfigCommand::Unset(unset) => {
            let changes = unset.names.into_iter().map(|name| SettingChange { name, value: None }).collect();
            change(&unset.server, changes, format)
        }
    }
}

fn change(
    server: &ServerArguments,
    changes: Vec<SettingChange>,
    format: OutputFormat,
) -> Result<(), CommandError> {
    let names: Vec<_> = changes.iter().map(|change| change.name.clone()).collect();
    let settings = server.connect()?.settings(changes)?;
    show(settings, &names, format)
}

/// Those of these names, or all.
fn show(settings: Vec<SettingInfo>, names: &[String], format: OutputFormat) -> Result<(), CommandError> {
    let is_shown = |setting: &SettingInfo| names.is_empty() || names.contains(&setting.name);
    let view = |setting: SettingInfo| SettingView {
        setting: setting.name,
        value: setting.value,
        origin: setting.origin,
        live: setting.is_live,
    };
    let settings = settings.into_iter().filter(is_shown).map(view).collect();
    print(format, &SettingsView { settings }, render)
}

fn render(view: &SettingsView) -> String {
    let mut table = Table::new(["SETTING", "VALUE", "LIVE", "ORIGIN"]);
    for setting in &view.settings {
        let live = if setting.live { "yes" } else { "no" };
        let value = setting.value.as_deref().unwrap_or("-");
        let cells = [setting.setting.as_str(), value, live, setting.origin.as_str()];
        table.row(cells.map(str::to_owned));
    }
    table.render()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn assignments_are_read_as_flags_are_written() {
        for text in ["level=written", "--level=written"] {
            let expected = SettingChange { name: "level".into(), value: Some("written".into()) };
            assert_eq!(text.parse(), Ok(Assignment(expected)), "{text}");
        }
        let levels: Assignment = "log-level=info,groups=debug".parse().expect("the first sign counts");
        assert_eq!(levels.0.value.as_deref(), Some("info,groups=debug"));
        for text in ["level", "level=", "=x", ""] {
            assert!(text.parse::<Assignment>().is_err(), "{text}");
        }
    }
}
