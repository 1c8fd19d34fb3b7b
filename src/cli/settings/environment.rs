//! The settings of `serve` in the environment: `--listen` is `TURBOPUMP_LISTEN`, and so on for every flag.

use std::ffi::{OsStr, OsString};

use clap::{Args, FromArgMatches};

use crate::cli::config::ServeSettings;
use crate::cli::entry::reason_of;
use crate::cli::error::CommandError;
use crate::cli::settings::sources::{Layer, Origin};

/// Other programs' variables, and those of other commands, begin otherwise or are no flags of `serve`.
const PREFIX: &str = "TURBOPUMP_";
/// Names the configuration file, as `--config` does.
pub const CONFIG_VARIABLE: &str = "TURBOPUMP_CONFIG";

/// The variable that stands for a flag.
pub fn variable_of(flag: &str) -> String {
    format!("{PREFIX}{}", flag.replace('-', "_").to_ascii_uppercase())
}

/// What the environment says. An empty variable is one that is not set, as with the commands that ask a broker.
pub fn read(
    environment: impl IntoIterator<Item = (OsString, OsString)>,
) -> Result<(Layer, Option<OsString>), CommandError> {
    let flags: Vec<String> = flags();
    let (mut layer, mut config) = (Layer::default(), None);
    for (variable, value) in environment.into_iter().filter(|(_, value)| !value.is_empty()) {
        if variable == CONFIG_VARIABLE {
            config = Some(value);
            continue;
        }
        let Some(flag) = flags.iter().find(|flag| variable_of(flag).as_str() == variable) else { continue };
        let variable = variable_of(flag);
        let said = said_as_text(flag, &value)
            .map_err(|reason| CommandError::usage(format!("{variable} in the environment: {reason}")))?;
        layer.add(said, |_| Origin::Environment { variable: variable.clone() });
    }
    Ok((layer, config))
}

/// The names of all flags that are settings.
pub fn flags() -> Vec<String> {
    let command = ServeSettings::augment_args(clap::Command::new("serve"));
    command.get_arguments().filter_map(|argument| argument.get_long().map(str::to_owned)).collect()
}

/// One setting, its value as its flag takes it. The error is a sentence that names the flag.
pub fn said_as_text(flag: &str, value: &OsStr) -> Result<ServeSettings, String> {
    let command = clap::Command::new("serve").no_binary_name(true).disable_help_flag(true);
    let mut word = OsString::from(format!("--{flag}="));
    word.push(value);
    let matches = ServeSettings::augment_args(command).try_get_matches_from([word]);
    let said = matches.and_then(|matches| ServeSettings::from_arg_matches(&matches));
    said.map_err(|error| reason_of(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_pairs(pairs: &[(&str, &str)]) -> Result<(Layer, Option<OsString>), String> {
        let pairs = pairs.iter().map(|(name, value)| (OsString::from(name), OsString::from(value)));
        read(pairs).map_err(|error| error.to_string())
    }

    #[test]
    fn every_flag_has_a_variable() {
        assert!(flags().len() > 30, "{:?}", flags());
        let (layer, config) = read_pairs(&[
            ("TURBOPUMP_DATA", "/var/lib/turbopump"),
            ("TURBOPUMP_NO_AUTO_CREATE_TOPICS", "true"),
            ("TURBOPUMP_CORES", "0-1"),
            ("TURBOPUMP_RETENTION_AGE", "none"),
            ("TURBOPUMP_CONFIG", "/etc/turbopump/turbopump.toml"),
        ])
        .expect("well formed");
        assert_eq!(layer.settings.said(), ["data", "cores", "retention-age", "no-auto-create-topics"]);
        assert_eq!(config, Some("/etc/turbopump/turbopump.toml".into()));
        let origin = Origin::Environment { variable: "TURBOPUMP_CORES".into() };
        assert_eq!(layer.origins.get("cores"), Some(&origin));
    }

    /// A container's template leaves variables empty, and a Kubernetes service of that name makes variables of its own.
    #[test]
    fn what_is_empty_or_somebody_elses_is_nothing() {
        let pairs = [
            ("TURBOPUMP_LISTEN", ""),
            ("TURBOPUMP_CONFIG", ""),
            ("TURBOPUMP_SERVER", "127.0.0.1:10911"),
            ("TURBOPUMP_PORT_10911_TCP", "tcp://10.0.0.1:10911"),
            ("LISTEN", "x"),
        ];
        let (layer, config) = read_pairs(&pairs).expect("nothing is said");
        assert!(layer.settings.said().is_empty() && config.is_none());
    }

    #[test]
    fn what_is_wrong_is_named_by_its_variable() {
        for (variable, value, part) in [
            ("TURBOPUMP_LISTEN", "here", "invalid socket address"),
            ("TURBOPUMP_LEVEL", "safe", "`safe` is no durability level"),
            ("TURBOPUMP_REMOTING", "perhaps", "perhaps"),
        ] {
            let error = read_pairs(&[(variable, value)]).map(|_| ()).expect_err(variable);
            assert!(error.starts_with(&format!("{variable} in the environment: ")), "{error}");
            assert!(error.contains(part), "{error}");
        }
    }
}
