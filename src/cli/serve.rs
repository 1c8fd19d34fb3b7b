//! `turbopump serve`.

use std::path::PathBuf;

use crate::cli::config::ServeSettings;
use crate::cli::error::CommandError;
use crate::shard::ServeOptions;

#[derive(Debug, clap::Args)]
#[command(after_help = "SIGTERM and Ctrl-C stop the broker: what was taken is finished and flushed first.")]
pub struct ServeArguments {
    /// TOML file with the same names as the flags below; flags win over it
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    #[command(flatten)]
    pub settings: ServeSettings,
}

/// Flags and configuration file together, checked.
pub fn options(arguments: ServeArguments) -> Result<ServeOptions, CommandError> {
    let settings = match &arguments.config {
        Some(path) => arguments.settings.or(ServeSettings::read(path)?),
        None => arguments.settings,
    };
    settings.into_options()
}

/// Runs the broker until it is told to stop.
pub fn run(arguments: ServeArguments) -> Result<(), CommandError> {
    let options = options(arguments)?;
    // The server itself is not in this tree yet; saying so beats pretending.
    Err(CommandError::failed(format!(
        "this build has no server: cannot serve {}; build turbopump with its shard module",
        options.data.display()
    )))
}
