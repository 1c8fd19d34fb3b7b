//! Where the settings of `serve` come from, and what they are in the end: flags win over the environment, the environment over
//! the configuration file, and that over the defaults.

mod effective;
mod environment;
mod keeper;
mod kept;
mod print_config;
mod sources;
mod translated;

pub use keeper::Keeper;
pub use print_config::print_config;
pub use sources::Sources;
pub use translated::Tally;
