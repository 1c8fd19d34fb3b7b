//! Which of a broker's events are written, and in which form: `--log-level` and `--log-format`.

use std::fmt;
use std::str::FromStr;

use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;

/// What events are about; `docs/operations.md` says what belongs to each. Names of their own, so that a module that is
/// renamed breaks nobody's filter.
const TARGETS: [&str; 11] =
    ["access", "clock", "groups", "index", "leases", "log", "net", "node", "storage", "tls", "topics"];
const LEVELS: [(&str, LevelFilter); 6] = [
    ("off", LevelFilter::OFF),
    ("error", LevelFilter::ERROR),
    ("warn", LevelFilter::WARN),
    ("info", LevelFilter::INFO),
    ("debug", LevelFilter::DEBUG),
    ("trace", LevelFilter::TRACE),
];
/// Of targets that are not named.
const LEVEL_DEFAULT: LevelFilter = LevelFilter::INFO;
/// The crate's name may stand before a target, as in the paths of its modules.
const CRATE_PREFIX: &str = "turbopump::";

/// A level, and others for single targets: `info`, or `warn,groups=debug`. In a box, since it is large beside other flags.
#[derive(Clone, Debug, PartialEq)]
pub struct LogLevels(Box<Targets>);

/// How an event is written: a line for people, or an object of JSON on a line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    #[default]
    Text,
    Json,
}

/// Why a text says no levels.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LogLevelError {
    #[error("`{0}` is no level: use off, error, warn, info, debug or trace")]
    Level(String),
    #[error("`{0}` is nothing that events are about: use one of {targets}", targets = TARGETS.join(", "))]
    Target(String),
    #[error("`{0}` stands there twice")]
    Twice(String),
}

impl LogLevels {
    /// What decides whether an event is written.
    pub fn filter(&self) -> Targets {
        (*self.0).clone()
    }
}

impl Default for LogLevels {
    fn default() -> Self {
        Self(Box::new(Targets::new().with_default(LEVEL_DEFAULT)))
    }
}

impl FromStr for LogLevels {
    type Err = LogLevelError;

    fn from_str(text: &str) -> Result<Self, LogLevelError> {
        let mut default = None;
        let mut named: Vec<(&str, LevelFilter)> = Vec::new();
        for part in text.split(',').map(str::trim) {
            let Some((target, level)) = part.split_once('=') else {
                if default.replace(level_named(part)?).is_some() {
                    return Err(LogLevelError::Twice(part.to_owned()));
                }
                continue;
            };
            let name = target.strip_prefix(CRATE_PREFIX).unwrap_or(target);
            if !TARGETS.contains(&name) {
                return Err(LogLevelError::Target(target.to_owned()));
            }
            if named.iter().any(|(known, _)| *known == name) {
                return Err(LogLevelError::Twice(name.to_owned()));
            }
            named.push((name, level_named(level)?));
        }
        let targets = Targets::new().with_default(default.unwrap_or(LEVEL_DEFAULT));
        Ok(Self(Box::new(targets.with_targets(named))))
    }
}

impl fmt::Display for LogLevels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut named: Vec<_> = self.0.iter().map(|(target, level)| format!("{target}={level}")).collect();
        named.sort();
        let default = self.0.default_level().unwrap_or(LEVEL_DEFAULT).to_string();
        named.insert(0, default);
        formatter.write_str(&named.join(","))
    }
}

impl LogFormat {
    pub fn name(self) -> &'static str {
        match self {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        }
    }
}

impl FromStr for LogFormat {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "text" => Ok(LogFormat::Text),
            "json" => Ok(LogFormat::Json),
            _ => Err(format!("`{text}` is no form of a log: use text or json")),
        }
    }
}

fn level_named(text: &str) -> Result<LevelFilter, LogLevelError> {
    let level = LEVELS.iter().find(|(name, _)| *name == text).map(|(_, level)| *level);
    level.ok_or_else(|| LogLevelError::Level(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tracing::Level;

    fn parse(text: &str) -> Result<Targets, String> {
        text.parse::<LogLevels>().map(|levels| levels.filter()).map_err(|error| error.to_string())
    }

    #[test]
    fn a_level_counts_for_everything_but_what_is_named() {
        let levels = parse("warn,groups=debug,turbopump::node=trace,tls=off").expect("well formed");
        for (target, most) in [
            ("log", Some(Level::WARN)),
            ("groups", Some(Level::DEBUG)),
            ("node", Some(Level::TRACE)),
            ("tls", None),
        ] {
            for level in [Level::ERROR, Level::WARN, Level::INFO, Level::DEBUG, Level::TRACE] {
                let is_told = most.is_some_and(|most| level <= most);
                assert_eq!(levels.would_enable(target, &level), is_told, "{target} {level}");
            }
        }
        let only_named = parse("node=debug").expect("well formed");
        assert!(
            only_named.would_enable("log", &Level::INFO) && !only_named.would_enable("log", &Level::DEBUG)
        );
        assert!(LogLevels::default().filter().would_enable("log", &Level::INFO));
    }

    #[test]
    fn what_is_no_level_is_named() {
        for (text, part) in [
            ("", "`` is no level"),
            ("loud", "`loud` is no level: use off, error"),
            (
                "info,group=debug",
                "`group` is nothing that events are about: use one of access, clock, groups",
            ),
            ("info,log=loud", "`loud` is no level"),
            ("info,warn", "`warn` stands there twice"),
            ("log=info,turbopump::log=debug", "`log` stands there twice"),
        ] {
            let error = parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn levels_are_shown_as_they_are_read() {
        for text in ["info", "warn,groups=debug,node=trace"] {
            let levels: LogLevels = text.parse().expect("well formed");
            assert_eq!(levels.to_string(), text);
            assert_eq!(levels.to_string().parse(), Ok(levels));
        }
    }
}
