//! The places that settings are said in, and which of them counts.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};

use toml::de::DeTable;

use crate::cli::config::{ServeSettings, line_of};
use crate::cli::error::CommandError;
use crate::cli::settings::effective::Effective;
use crate::cli::settings::environment;
use crate::cli::settings::kept::{self, Kept};
use crate::limits;
use crate::protocol::remoting::broker_conf::{Fate, Translation, broker_conf, has_names_of_apache};
use crate::types::SettingsFile;

/// What settings were called in earlier releases, and are called now.
const OLDER_NAMES: [(&str, &str); 3] =
    [("http-open", "open-to-everybody"), ("http-certificate", "tls-certificate"), ("http-key", "tls-key")];

/// Where the value of a setting was said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Origin {
    Flag,
    Environment {
        variable: String,
    },
    /// In the configuration file.
    File {
        path: PathBuf,
        line: usize,
    },
    /// `turbopump config set`, while the broker ran.
    Kept,
    /// The data directory keeps what it was made with.
    Directory,
    Default,
}

/// Settings that were said in one place.
#[derive(Clone, Debug, Default)]
pub struct Layer {
    pub settings: ServeSettings,
    /// Of each setting that is said, by its name.
    pub origins: BTreeMap<String, Origin>,
}

/// All places, first the one that wins.
#[derive(Clone, Debug)]
pub struct Sources {
    flags: Layer,
    environment: Layer,
    /// What was set while the broker ran, and the same as settings.
    kept: (Kept, Layer),
    file: Layer,
    /// The configuration file.
    pub config: Option<PathBuf>,
    /// What each line of it became, where it is one for Apache's broker.
    pub translations: Vec<Translation>,
}

/// A configuration file that was read.
#[derive(Debug, Default)]
pub struct ConfigFile {
    pub said: Layer,
    /// As in [`Sources`].
    pub translations: Vec<Translation>,
}

impl Origin {
    /// In a few words, for people.
    pub fn in_words(&self, setting: &Effective) -> String {
        match self {
            Origin::Flag => format!("--{}", setting.name),
            Origin::Environment { variable } => variable.clone(),
            Origin::File { path, line } => format!("{}, line {line}", path.display()),
            Origin::Kept => "turbopump config set".to_owned(),
            Origin::Directory => "the data directory keeps it".to_owned(),
            Origin::Default if setting.note.is_empty() => "default".to_owned(),
            Origin::Default => format!("default: {}", setting.note),
        }
    }
}

impl Layer {
    /// Adds settings, which win over what is there already.
    pub fn add(&mut self, settings: ServeSettings, origin: impl Fn(&str) -> Origin) {
        for name in settings.said() {
            let origin = origin(&name);
            self.origins.insert(name, origin);
        }
        self.settings = settings.or(std::mem::take(&mut self.settings));
    }
}

impl ConfigFile {
    /// Reads a file of TOML, or one of properties for Apache's broker: one with names that this has, unless it is called `.toml`.
    pub fn read(path: &Path) -> Result<Self, CommandError> {
        let (text, _) = SettingsFile::read_text(path, limits::CONFIG_FILE_BYTES_MAX).map_err(|error| {
            CommandError::usage(format!("cannot read --config {}: {error}", path.display()))
        })?;
        let is_toml = path.extension().is_some_and(|extension| extension == "toml");
        let read = if !is_toml && has_names_of_apache(&text) { Self::of_apache } else { Self::toml };
        read(path, &text)
            .map_err(|error| CommandError::usage(format!("--config {}: {error}", path.display())))
    }

    fn toml(path: &Path, text: &str) -> Result<Self, String> {
        let settings = ServeSettings::parse(text)?;
        let lines = lines_of_keys(text);
        let line = |name: &str| lines.get(name).copied().unwrap_or(1);
        let mut said = Layer::default();
        said.add(settings, |name| Origin::File { path: path.to_owned(), line: line(name) });
        Ok(Self { said, translations: Vec::new() })
    }

    fn of_apache(path: &Path, text: &str) -> Result<Self, String> {
        let translations = broker_conf(text)?;
        let mut all = Layer::default();
        for Translation { line, name, value, fate } in &translations {
            for said in fate.said() {
                let settings = environment::said_as_text(said.setting, OsStr::new(&said.value))
                    .map_err(|reason| format!("line {line}: {name}={value}: {reason}"))?;
                all.add(settings, |_| Origin::File { path: path.to_owned(), line: *line });
            }
        }
        Ok(Self { said: all, translations })
    }
}

/// The line of each key of a TOML file, under its present name.
fn lines_of_keys(text: &str) -> BTreeMap<String, usize> {
    let Ok(table) = DeTable::parse(text) else { return BTreeMap::new() };
    let line = |key: &str, at: usize| {
        let present = OLDER_NAMES.iter().find(|(older, _)| *older == key).map_or(key, |(_, present)| present);
        (present.to_owned(), line_of(text, at))
    };
    table.get_ref().keys().map(|key| line(key.get_ref(), key.span().start)).collect()
}

impl Sources {
    /// Looks at all places. `flags` were parsed already; `config` is what `--config` names.
    pub fn gather(
        flags: ServeSettings,
        config: Option<PathBuf>,
        environment: impl IntoIterator<Item = (OsString, OsString)>,
    ) -> Result<Self, CommandError> {
        let (environment, named) = environment::read(environment)?;
        let config = config.or(named.map(PathBuf::from));
        let mut said = Layer::default();
        said.add(flags, |_| Origin::Flag);
        let file = config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        let (file, translations) = (file.said, file.translations);
        let sources = Self { flags: said, environment, kept: Default::default(), file, config, translations };
        sources.check_wants()?;
        // Whoever has not said where the data goes is told so later.
        let Some(data) = sources.settings().data else { return Ok(sources) };
        let kept = kept::read(&data).and_then(|kept| sources.with_kept(kept));
        kept.map_err(CommandError::usage)
    }

    /// The same with what was set while the broker ran.
    pub fn with_kept(&self, kept: Kept) -> Result<Self, String> {
        let layer = kept::layer(&kept)?;
        Ok(Self { kept: (kept, layer), ..self.clone() })
    }

    pub fn kept(&self) -> &Kept {
        &self.kept.0
    }

    /// The same with what the configuration file says now.
    pub fn read_again(&self) -> Result<Self, CommandError> {
        let file = self.config.as_deref().map(ConfigFile::read).transpose()?.unwrap_or_default();
        Ok(Self { file: file.said, translations: file.translations, ..self.clone() })
    }

    /// First the one that wins.
    fn layers(&self) -> [&Layer; 4] {
        [&self.flags, &self.environment, &self.kept.1, &self.file]
    }

    /// Whether what the file of another broker asks for, and cannot say, is said elsewhere.
    fn check_wants(&self) -> Result<(), CommandError> {
        for Translation { line, name, value, fate } in &self.translations {
            if let Fate::Wants { setting, why } = fate
                && self.origin(setting).is_none()
            {
                let config = self.config.as_deref().unwrap_or(Path::new("")).display();
                return Err(CommandError::usage(format!(
                    "--config {config}: line {line}: {name}={value}: {why}: name one with --{setting} FILE, or take the line out"
                )));
            }
        }
        Ok(())
    }

    /// What counts.
    pub fn settings(&self) -> ServeSettings {
        let said = self.layers().into_iter().map(|layer| layer.settings.clone());
        said.reduce(ServeSettings::or).unwrap_or_default()
    }

    /// Where the value of a setting comes from; `None` when nobody has said one.
    pub fn origin(&self, name: &str) -> Option<&Origin> {
        self.layers().into_iter().find_map(|layer| layer.origins.get(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_have_lines_and_their_present_names() {
        let lines = lines_of_keys("# a\ndata = 'd'\n\nhttp-key = '''\nk'''\nhttp-certificate = 'c'\n");
        let expected = [("data", 2), ("tls-certificate", 6), ("tls-key", 4)];
        assert_eq!(lines, expected.map(|(name, line)| (name.to_owned(), line)).into());
        assert!(lines_of_keys("= 1").is_empty());
    }

    #[test]
    fn the_first_that_says_it_wins() {
        let flags = ServeSettings { deliveries: Some(3), ..ServeSettings::default() };
        let environment = [("TURBOPUMP_DELIVERIES", "4"), ("TURBOPUMP_NODE", "n")]
            .map(|(name, value)| (OsString::from(name), OsString::from(value)));
        let sources = Sources::gather(flags, None, environment).expect("well formed");
        let settings = sources.settings();
        assert_eq!((settings.deliveries, settings.node.as_deref()), (Some(3), Some("n")));
        assert_eq!(sources.origin("deliveries"), Some(&Origin::Flag));
        assert_eq!(sources.origin("node"), Some(&Origin::Environment { variable: "TURBOPUMP_NODE".into() }));
        assert_eq!(sources.origin("data"), None);
    }
}
