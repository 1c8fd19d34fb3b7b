//! `turbopump serve --print-config`.

use serde::Serialize;
use toml::Value;

use crate::cli::config::ServeSettings;
use crate::cli::error::CommandError;
use crate::cli::log_level::{LogFormat, LogLevels};
use crate::cli::output::{OutputFormat, on_one_line, print};
use crate::cli::settings::effective::{Effective, effective};
use crate::cli::settings::sources::{Origin, Sources};
use crate::cli::settings::translated::TranslationView;
use crate::node::{Prospect, ServeOptions};

/// Origins begin here where values are short.
const ORIGIN_COLUMN: usize = 44;

#[derive(Serialize)]
struct ConfigView {
    version: &'static str,
    settings: Vec<SettingView>,
    /// What each line of a configuration file for Apache's broker became; null when there is none.
    broker_conf: Option<Vec<TranslationView>>,
}

/// One setting. No value is a secret: keys and certificates are named by their files.
#[derive(Serialize)]
struct SettingView {
    name: &'static str,
    /// As in a configuration file; null when it has none.
    value: Option<Value>,
    /// `flag`, `environment`, `kept` (by `config set`), `file`, `directory` or `default`.
    origin: &'static str,
    /// The flag, the variable or the file.
    source: Option<String>,
    /// Of the file.
    line: Option<usize>,
    /// What a default comes from, or what it means that there is no value.
    note: Option<String>,
    /// All of these, for people.
    #[serde(skip)]
    words: String,
}

/// Prints what a start would take, and where each value comes from. Nothing is started or made.
pub fn print_config(sources: &Sources, format: OutputFormat) -> Result<(), CommandError> {
    let settings = sources.settings();
    let (levels, log_format) =
        (settings.log_level.clone().unwrap_or_default(), settings.log_format.unwrap_or_default());
    print(format, &view(sources, settings, &levels, log_format)?, render)
}

fn view(
    sources: &Sources,
    settings: ServeSettings,
    levels: &LogLevels,
    log_format: LogFormat,
) -> Result<ConfigView, CommandError> {
    let options: ServeOptions = settings.into_options()?;
    let prospect = Prospect::of(&options).map_err(CommandError::failed)?;
    let shown = effective(&options, levels, log_format, &prospect);
    let settings = shown.into_iter().map(|setting| {
        let origin = sources.origin(setting.name).cloned();
        let origin = origin.unwrap_or_else(|| setting.unsaid(&prospect));
        SettingView::new(setting, origin)
    });
    let settings = settings.collect();
    let translations: Vec<_> = sources.translations.iter().map(TranslationView::new).collect();
    let broker_conf = Some(translations).filter(|translations| !translations.is_empty());
    Ok(ConfigView { version: env!("CARGO_PKG_VERSION"), settings, broker_conf })
}

impl SettingView {
    fn new(setting: Effective, origin: Origin) -> Self {
        let is_default = origin == Origin::Default;
        let words = origin.in_words(&setting);
        let Effective { name, value, note } = setting;
        let (origin, source, line) = match origin {
            Origin::Flag => ("flag", Some(format!("--{name}")), None),
            Origin::Environment { variable } => ("environment", Some(variable), None),
            Origin::File { path, line } => ("file", Some(path.display().to_string()), Some(line)),
            Origin::Kept => ("kept", None, None),
            Origin::Directory => ("directory", None, None),
            Origin::Default => ("default", None, None),
        };
        let note = Some(note).filter(|note| is_default && !note.is_empty());
        Self { name, value, origin, source, line, note, words }
    }
}

/// A configuration file that says the same: what nobody has said is a comment in it.
fn render(view: &ConfigView) -> String {
    let mut text = format!(
        "# turbopump {}: settings in force, and where each comes from; those that nobody has said are comments\n",
        view.version
    );
    for setting in &view.settings {
        let is_said = !matches!(setting.origin, "default" | "directory");
        let mark = if is_said { "" } else { "# " };
        let value = setting.value.as_ref().map(|value| format!(" = {value}")).unwrap_or_default();
        let line = format!("{mark}{}{value}", setting.name);
        text += &format!("{line:<ORIGIN_COLUMN$}  # {}\n", on_one_line(&setting.words));
    }
    if let Some(lines) = &view.broker_conf {
        text += "\n# what each line of the file became\n";
        lines.iter().for_each(|line| text += &format!("# {}\n", line.render()));
    }
    text
}
