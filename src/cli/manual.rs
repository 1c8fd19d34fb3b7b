//! `turbopump man DIR`.

use std::fs;
use std::path::PathBuf;

use clap::CommandFactory;

use crate::cli::arguments::Arguments;
use crate::cli::error::CommandError;
use crate::cli::examples;

#[derive(Debug, clap::Args)]
#[command(after_help = "Example: turbopump man /usr/local/share/man/man1 && man turbopump-serve")]
pub struct ManualArguments {
    /// Where the pages go, one for each command; made when missing
    #[arg(value_name = "DIR")]
    pub directory: PathBuf,
}

/// Writes the pages.
pub fn run(arguments: &ManualArguments) -> Result<(), CommandError> {
    let directory = &arguments.directory;
    let written = fs::create_dir_all(directory)
        .and_then(|()| clap_mangen::generate_to(examples::added(Arguments::command()), directory));
    written.map_err(|error| CommandError::failed(format!("cannot write to {}: {error}", directory.display())))
}
