//! What was looked at, and what was found.

use serde::Serialize;

/// How it stands with one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    Ok,
    /// The broker runs, and would run better.
    Advice,
    /// The broker does not run, or does not keep its promises.
    Repair,
    /// This machine, or this user, cannot tell.
    Unknown,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// What was looked at, in a word.
    pub what: &'static str,
    pub state: State,
    /// What was found, in a sentence.
    pub found: String,
    /// Lines to type, or to write where they say.
    #[serde(rename = "do")]
    pub commands: Vec<String>,
}

impl State {
    pub fn name(self) -> &'static str {
        match self {
            State::Ok => "ok",
            State::Advice => "advice",
            State::Repair => "repair",
            State::Unknown => "unknown",
        }
    }
}

impl Finding {
    pub fn new(what: &'static str, state: State, found: impl Into<String>) -> Self {
        Self { what, state, found: found.into(), commands: Vec::new() }
    }

    pub fn ok(what: &'static str, found: impl Into<String>) -> Self {
        Self::new(what, State::Ok, found)
    }

    /// What to type.
    #[must_use]
    pub fn with(mut self, commands: &[&str]) -> Self {
        self.commands.extend(commands.iter().map(|command| (*command).to_owned()));
        self
    }
}
