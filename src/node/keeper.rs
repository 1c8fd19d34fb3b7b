//! Who knows the settings of a node by their names.

use super::options::ServeOptions;
use crate::api::{Failure, SettingChange, SettingInfo};

/// Keeps what is set while a node runs, so that it counts at later starts as well. Asked by the threads of the node, never by a core.
pub trait SettingsKeeper: Send {
    /// All settings, as they are now.
    fn describe(&self) -> Result<Vec<SettingInfo>, Failure>;

    /// Makes all of the changes or none. When this returns they are kept; the options are what counts from now on, of which the node
    /// takes over what can be changed.
    fn change(&mut self, changes: &[SettingChange]) -> Result<ServeOptions, Failure>;

    /// The configuration file is to be read again; `None`: nothing has changed by that.
    fn read_again(&mut self) -> Option<ServeOptions>;
}
