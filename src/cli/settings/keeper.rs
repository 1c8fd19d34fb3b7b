//! The settings of a broker that runs: shown, and changed as far as they can be.

use std::ffi::OsStr;

use crate::api::{Failure, SettingChange, SettingInfo, Status};
use crate::cli::error::CommandError;
use crate::cli::log_level::LogLevels;
use crate::cli::notices::LevelHandle;
use crate::cli::settings::effective::{Effective, effective};
use crate::cli::settings::environment::{flags, said_as_text};
use crate::cli::settings::kept::{self, LIVE};
use crate::cli::settings::sources::{Origin, Sources};
use crate::node::{Prospect, ServeOptions, SettingsKeeper};

/// What is said where, and what the broker was started with.
pub struct Keeper {
    sources: Sources,
    started: ServeOptions,
    levels: LevelHandle,
}

impl Keeper {
    /// `started` is what `sources` come to.
    pub fn new(sources: Sources, started: ServeOptions, levels: LevelHandle) -> Self {
        Self { sources, started, levels }
    }

    /// What counts by these sources: as started, but for what can be changed since.
    fn options(&self, sources: &Sources) -> Result<ServeOptions, CommandError> {
        let said = sources.settings().into_options()?;
        let options = ServeOptions {
            level: said.level,
            retention_age: said.retention_age,
            retention_bytes: said.retention_bytes,
            auto_create_topics: said.auto_create_topics,
            leases: said.leases,
            transaction_immunity: said.transaction_immunity,
            transaction_check_interval: said.transaction_check_interval,
            ..self.started.clone()
        };
        options.check().map_err(CommandError::usage)?;
        Ok(options)
    }

    /// Has these count from now on.
    fn take(&mut self, sources: Sources) -> Result<ServeOptions, CommandError> {
        let options = self.options(&sources)?;
        self.levels.set(&level_of(&sources));
        self.sources = sources;
        Ok(options)
    }

    /// Whether a setting can be changed while the broker runs, and in this way.
    fn check(&self, change: &SettingChange) -> Result<(), Failure> {
        let name = change.name.as_str();
        let refused = |reason: String| Err(Failure::invalid(reason));
        if !flags().iter().any(|flag| flag == name) {
            return refused(format!("there is no setting `{name}`: `turbopump config get` lists them"));
        }
        if !LIVE.contains(&name) {
            return refused(format!(
                "{name} cannot be changed while the broker runs: settings are flags of `turbopump serve`, or lines of its \
                 configuration file; those that can be changed are {}",
                LIVE.join(", ")
            ));
        }
        let winner = match self.sources.origin(name) {
            Some(Origin::Flag) => format!("--{name}"),
            Some(Origin::Environment { variable }) => variable.clone(),
            _ => return Ok(()),
        };
        refused(format!("{winner} says {name}, and wins over what is set: start the broker without it"))
    }

    /// Says that the level was read again, or why it stays.
    fn tell_level(&self) {
        let level = level_of(&self.sources);
        let winner = match self.sources.origin("log-level") {
            Some(Origin::Flag) => "--log-level".to_owned(),
            Some(Origin::Environment { variable }) => variable.clone(),
            Some(Origin::Kept) => "turbopump config set".to_owned(),
            _ => {
                let config = self.sources.config.as_deref().map(|path| path.display().to_string());
                let config = config.unwrap_or_default();
                tracing::info!(target: "node", "the log level is {level}, as --config {config} says");
                return;
            }
        };
        tracing::info!(target: "node", "the log level stays {level}, as {winner} says");
    }
}

fn level_of(sources: &Sources) -> LogLevels {
    sources.settings().log_level.unwrap_or_default()
}

fn refused(error: CommandError) -> Failure {
    Failure::invalid(error.to_string())
}

impl SettingsKeeper for Keeper {
    fn describe(&self) -> Result<Vec<SettingInfo>, Failure> {
        let failed = |error: String| Failure::new(Status::Internal, error);
        let options = self.options(&self.sources).map_err(|error| failed(error.to_string()))?;
        let prospect = Prospect::of(&options).map_err(|error| failed(error.to_string()))?;
        let format = self.sources.settings().log_format.unwrap_or_default();
        let shown = effective(&options, &level_of(&self.sources), format, &prospect);
        let info = |setting: Effective| {
            let unsaid = setting.unsaid(&prospect);
            let origin = self.sources.origin(setting.name).unwrap_or(&unsaid);
            SettingInfo {
                name: setting.name.to_owned(),
                value: setting.text(),
                origin: origin.in_words(&setting),
                is_live: LIVE.contains(&setting.name),
            }
        };
        Ok(shown.into_iter().map(info).collect())
    }

    fn change(&mut self, changes: &[SettingChange]) -> Result<ServeOptions, Failure> {
        changes.iter().try_for_each(|change| self.check(change))?;
        let mut kept = self.sources.kept().clone();
        for SettingChange { name, value } in changes {
            match value {
                Some(value) => {
                    said_as_text(name, OsStr::new(value)).map_err(Failure::invalid)?;
                    kept.insert(name.clone(), value.clone());
                }
                None => drop(kept.remove(name)),
            }
        }
        // What does not go together is refused before anything is kept.
        let sources = self.sources.with_kept(kept).map_err(Failure::invalid)?;
        self.options(&sources).map_err(refused)?;
        kept::write(&self.started.data, sources.kept()).map_err(|error| {
            let data = self.started.data.display();
            Failure::new(
                Status::StorageFailed,
                format!("nothing was changed: {data} cannot keep it: {error}"),
            )
        })?;
        let options = self.take(sources).map_err(refused)?;
        for SettingChange { name, value } in changes {
            let value = value.as_deref().unwrap_or("not set any more");
            tracing::info!(target: "node", "setting {name} was changed: {value}");
        }
        Ok(options)
    }

    fn read_again(&mut self) -> Option<ServeOptions> {
        if self.sources.config.is_none() {
            match self.sources.origin("log-level") {
                Some(_) => self.tell_level(),
                None => {
                    let text = "the log level stays as it was: there is no --config to read it from";
                    tracing::info!(target: "node", "{text}");
                }
            }
            return None;
        }
        match self.sources.read_again().and_then(|sources| self.take(sources)) {
            Ok(options) => {
                self.tell_level();
                Some(options)
            }
            Err(error) => {
                tracing::error!(target: "node", "the log level stays as it was: {error}");
                None
            }
        }
    }
}
