//! `turbopump completion SHELL`.

use std::io::Write;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::cli::arguments::Arguments;
use crate::cli::error::CommandError;

#[derive(Debug, clap::Args)]
#[command(after_help = "For bash: turbopump completion bash > /etc/bash_completion.d/turbopump")]
pub struct CompletionArguments {
    /// The shell to complete in
    pub shell: Shell,
}

/// Prints the script.
pub fn run(arguments: &CompletionArguments) -> Result<(), CommandError> {
    // Into memory first: the generator panics when a write fails, for example into a closed pipe.
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, &mut Arguments::command(), "turbopump", &mut script);
    std::io::stdout().write_all(&script).map_err(CommandError::output)
}
