//! The settings of a running node, as tools see and change them. Their names and values are those of `serve`'s flags.

/// One setting.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingInfo {
    pub name: String,
    /// As its flag takes it; `None`: it has no value.
    pub value: Option<String>,
    /// Where it was said, in a few words: `default`, `--level`, a file with its line.
    pub origin: String,
    /// Whether it can be changed while the node runs.
    pub is_live: bool,
}

/// A setting that is to have another value, now and at later starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingChange {
    pub name: String,
    /// As its flag takes it; `None`: what was set is forgotten, and what is said elsewhere counts.
    pub value: Option<String>,
}
