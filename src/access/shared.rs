//! The keys of a shard, as all its protocols share them.

use std::cell::RefCell;
use std::path::Path;
use std::rc::Rc;

use super::file::{AccessFile, FileWarning, Refreshed};
use super::keys::{AccessError, AccessKeys};
use crate::types::MonotonicTime;

/// The file of keys behind everything on a shard that asks for one.
#[derive(Debug)]
pub struct SharedKeys(RefCell<AccessFile>);

impl SharedKeys {
    /// Reads the file for the first time.
    pub fn open(path: &Path, now: MonotonicTime) -> Result<(Self, Option<FileWarning>), AccessError> {
        let (file, warning) = AccessFile::open(path, now)?;
        Ok((Self(RefCell::new(file)), warning))
    }

    /// Reads the file again if it has changed, at most once a second. To be called about as often.
    pub fn refresh(&self, now: MonotonicTime) -> Refreshed {
        self.0.borrow_mut().refresh(now)
    }

    /// Reads the file now, whether it has changed or not.
    pub fn read_again(&self, now: MonotonicTime) -> Refreshed {
        self.0.borrow_mut().read_again(now)
    }

    /// The keys of now.
    pub fn keys(&self) -> Rc<AccessKeys> {
        self.0.borrow().keys().clone()
    }
}
