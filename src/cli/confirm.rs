//! A question before something is done that nobody can take back.

use std::io::{self, BufRead, IsTerminal, Write};

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::output::without_controls;

#[derive(Debug, Args)]
pub struct ConfirmFlag {
    /// Do it without asking; needed where there is no terminal to ask at
    #[arg(short = 'y', long)]
    pub yes: bool,
}

impl ConfirmFlag {
    /// Asks whether to do `what`, unless that is known. An error says that nothing was done.
    pub fn ask(&self, what: &str) -> Result<(), CommandError> {
        if self.yes {
            return Ok(());
        }
        if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
            return Err(CommandError::usage(format!(
                "{what}? Nobody can be asked without a terminal, and nothing was done: add --yes if it is meant"
            )));
        }
        let mut output = io::stderr().lock();
        let question = format!("{what}? [y/N] ");
        let asked = output.write_all(without_controls(&question).as_bytes()).and_then(|()| output.flush());
        let mut answer = String::new();
        let read = asked.and_then(|()| io::stdin().lock().read_line(&mut answer));
        match read {
            Ok(_) if matches!(answer.trim(), "y" | "Y" | "yes" | "YES" | "Yes") => Ok(()),
            Ok(_) => Err(CommandError::failed("nothing was done")),
            Err(error) => {
                Err(CommandError::failed(format!("nothing was done: the terminal cannot be read: {error}")))
            }
        }
    }
}
