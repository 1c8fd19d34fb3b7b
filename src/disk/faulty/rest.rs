//! Damage to whole files while nobody looks: what tools, people, mounts and file systems do. Unlike flipped bits it is not
//! laid over clean bytes: it is what is on the disk from then on, durably.

use std::ops::Range;
use std::path::Path;

use super::FaultyDisk;

impl FaultyDisk {
    /// The file or directory is gone.
    pub fn lose(&self, path: &Path) {
        self.state.core.borrow_mut().tree.lose(path);
    }

    /// The file is cut off there, or zeros were added up to there.
    pub fn set_size(&self, path: &Path, bytes: u64) {
        let file = self.existing(path);
        self.state.core.borrow_mut().file_mut(file).set_size_at_rest(bytes);
    }

    /// The two files have each other's contents.
    pub fn swap(&self, one: &Path, other: &Path) {
        let (one, other) = (self.existing(one), self.existing(other));
        self.state.core.borrow_mut().swap_files(one, other);
    }

    /// The file has the contents of another one, which may be on another disk.
    pub fn replace(&self, path: &Path, from: (&FaultyDisk, &Path)) {
        let source = from.0.existing(from.1);
        let image = from.0.state.core.borrow().file(source).clone();
        let file = self.existing(path);
        self.state.core.borrow_mut().file_mut(file).take_contents(&image);
    }

    /// The blocks around these bytes are zeros.
    pub fn zero(&self, path: &Path, bytes: Range<u64>) {
        let file = self.existing(path);
        self.state.core.borrow_mut().file_mut(file).zero(bytes);
    }

    pub fn size(&self, path: &Path) -> u64 {
        let file = self.existing(path);
        self.state.core.borrow().file(file).bytes()
    }

    pub fn exists(&self, path: &Path) -> bool {
        self.state.core.borrow().tree.lookup(path).is_ok()
    }
}
