//! Why a command failed, and what a script sees of it.

use std::fmt;
use std::io;

use serde_json::{Map, Value};

/// A command that did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// The command line or the configuration file is wrong: exit code 2.
    #[error("{0}")]
    Usage(String),
    /// The operation failed: exit code 1. `details` is added to the error object of `-o json`.
    #[error("{message}")]
    Failed { message: String, details: Map<String, Value> },
    /// Whoever read our output has gone, like `head` once it has its lines: nothing is wrong.
    #[error("nobody reads the output any more")]
    ReaderGone,
}

impl CommandError {
    pub fn usage(message: impl fmt::Display) -> Self {
        CommandError::Usage(message.to_string())
    }

    pub fn failed(message: impl fmt::Display) -> Self {
        CommandError::Failed { message: message.to_string(), details: Map::new() }
    }

    /// A failed write to standard output.
    pub fn output(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => CommandError::ReaderGone,
            _ => CommandError::failed(format!("cannot write to standard output: {error}")),
        }
    }

    /// Adds a member to the error object of `-o json`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        if let CommandError::Failed { details, .. } = &mut self {
            details.insert(name.to_owned(), value.into());
        }
        self
    }

    pub fn exit_code(&self) -> u8 {
        match self {
            CommandError::Usage(_) => 2,
            CommandError::Failed { .. } => 1,
            CommandError::ReaderGone => 0,
        }
    }

    /// The error object of `-o json`.
    pub fn to_json(&self) -> Value {
        let mut object = Map::new();
        object.insert("error".to_owned(), Value::String(self.to_string()));
        object.insert("exit_code".to_owned(), self.exit_code().into());
        if let CommandError::Failed { details, .. } = self {
            object.extend(details.clone());
        }
        Value::Object(object)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_see_code_and_details() {
        let error = CommandError::failed("the server is gone").with("acknowledged", 5_u64);
        assert_eq!(error.exit_code(), 1);
        assert_eq!(
            error.to_json(),
            serde_json::json!({"error": "the server is gone", "exit_code": 1, "acknowledged": 5})
        );
        assert_eq!(CommandError::usage("no").exit_code(), 2);
        let gone = CommandError::output(io::Error::from(io::ErrorKind::BrokenPipe));
        assert_eq!(gone.exit_code(), 0);
        assert_eq!(CommandError::output(io::Error::other("full")).exit_code(), 1);
    }
}
