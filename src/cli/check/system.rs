//! What the kernel tells in /proc and /sys, below a root that tests make themselves.

use std::fs;
use std::path::{Path, PathBuf};

/// The root of a file system that has `proc` and `sys`.
#[derive(Clone, Debug)]
pub struct System {
    root: PathBuf,
}

impl System {
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    fn path(&self, path: &str) -> PathBuf {
        self.root.join(path.trim_start_matches('/'))
    }

    /// The text of a file, without blanks around it; `None` when it cannot be read.
    pub fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.path(path)).ok().map(|text| text.trim().to_owned())
    }

    pub fn number(&self, path: &str) -> Option<u64> {
        self.read(path)?.parse().ok()
    }

    /// What a link leads to, as an absolute path below the root.
    pub fn leads_to(&self, path: &str) -> Option<String> {
        let found = fs::canonicalize(self.path(path)).ok()?;
        let root = fs::canonicalize(&self.root).ok()?;
        Some(format!("/{}", found.strip_prefix(root).ok()?.display()))
    }

    pub fn exists(&self, path: &str) -> bool {
        Path::exists(&self.path(path))
    }
}

/// A few of many, for a sentence: `0, 1, 2 and 61 more`.
pub fn listed<T: ToString>(items: &[T]) -> String {
    const SHOWN: usize = 8;
    let shown: Vec<_> = items.iter().take(SHOWN).map(T::to_string).collect();
    let more = items.len().saturating_sub(SHOWN);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    shown.join(", ") + &more
}
