//! What a configuration file for Apache's broker became, for people and programs.

use std::fmt;

use serde::Serialize;

use crate::cli::output::on_one_line;
use crate::protocol::remoting::broker_conf::{Fate, Translation};

/// A line of the file.
#[derive(Serialize)]
pub struct TranslationView {
    pub line: usize,
    pub name: String,
    /// Without what is secret.
    pub value: String,
    /// `taken`, `approximated`, `meaningless` (here), or `unknown` (to Apache's broker as well).
    pub fate: &'static str,
    /// Ours, which it sets.
    pub settings: Vec<&'static str>,
    /// What differs, or why nothing is set.
    pub note: Option<String>,
}

/// How many lines became what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub taken: usize,
    pub approximated: usize,
    pub meaningless: usize,
    pub unknown: usize,
}

impl TranslationView {
    pub fn new(translation: &Translation) -> Self {
        let Translation { line, name, value, fate } = translation;
        let note = match fate {
            Fate::Taken(_) => None,
            Fate::Approximated(_, how) => Some(how.clone()),
            Fate::Wants { setting, why } => Some(format!("--{setting} says it: {why}")),
            Fate::Meaningless(why) => Some(why.clone()),
            Fate::Unknown => Some("Apache's broker has no such setting either: is it a slip?".to_owned()),
        };
        let settings = fate.said().iter().map(|said| said.setting).collect();
        Self { line: *line, name: name.clone(), value: value.clone(), fate: word(fate), settings, note }
    }

    /// Its line of the report.
    pub fn render(&self) -> String {
        let mut parts = vec![];
        if !self.settings.is_empty() {
            parts.push(self.settings.join(", "));
        }
        parts.extend(self.note.clone());
        let said = format!("{}={}", on_one_line(&self.name), on_one_line(&self.value));
        format!("line {:<3} {said:<40} {:<12} {}", self.line, self.fate, parts.join(": "))
    }
}

fn word(fate: &Fate) -> &'static str {
    match fate {
        Fate::Taken(_) => "taken",
        Fate::Approximated(..) | Fate::Wants { .. } => "approximated",
        Fate::Meaningless(_) => "meaningless",
        Fate::Unknown => "unknown",
    }
}

impl Tally {
    pub fn of(translations: &[Translation]) -> Self {
        let mut tally = Self::default();
        for translation in translations {
            *match translation.fate {
                Fate::Taken(_) => &mut tally.taken,
                Fate::Approximated(..) | Fate::Wants { .. } => &mut tally.approximated,
                Fate::Meaningless(_) => &mut tally.meaningless,
                Fate::Unknown => &mut tally.unknown,
            } += 1;
        }
        tally
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { taken, approximated, meaningless, unknown } = self;
        write!(
            formatter,
            "{taken} taken, {approximated} approximated, {meaningless} without a meaning here, {unknown} unknown"
        )
    }
}
