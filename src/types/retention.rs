//! How long messages are kept.

use std::time::Duration;

/// How long the messages of a topic are kept.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Retention {
    /// As long as those of the node that name nothing.
    #[default]
    Inherited,
    /// For ever, as far as age goes.
    Unlimited,
    /// Until they are this old.
    Age(Duration),
}

impl Retention {
    /// The age at which messages may go on a node with this default; `None`: never.
    pub fn age(self, inherited: Option<Duration>) -> Option<Duration> {
        match self {
            Retention::Inherited => inherited,
            Retention::Unlimited => None,
            Retention::Age(age) => Some(age),
        }
    }
}
