//! The names of a faulty disk: directories as they are seen, as they survive for certain, and the changes between.
//!
//! 1. `live` is what callers see; `durable` is `live` as of the directory's last sync.
//! 2. Of one directory's unsynced changes a loss of power keeps those before some point. A rename is one change, also
//!    between two directories: it happens in both or in neither, as on any file system with a journal.
//! 3. After a failed sync of a directory no later one makes names durable: the journal is broken until the restart.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use super::survival::{ChangeNumber, Fates};
use crate::disk::memory::normal_path;
use crate::testing::Random;

/// A file, whatever its names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct FileId(pub(super) u64);

/// Index into [`Tree::directories`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct DirectoryId(usize);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Node {
    File(FileId),
    Directory(DirectoryId),
}

/// An error number of the operating system.
pub(super) type Errno = i32;

#[derive(Clone)]
pub(super) struct Tree {
    /// The root is the first. Directories are never removed.
    directories: Vec<Directory>,
    /// A sync of a directory has failed (invariant 3).
    broken: bool,
}

#[derive(Clone, Default)]
struct Directory {
    live: BTreeMap<String, Node>,
    durable: BTreeMap<String, Node>,
    unsynced: Vec<Change>,
}

#[derive(Clone)]
struct Change {
    number: ChangeNumber,
    edits: Vec<Edit>,
    /// For a rename between directories: the one where the other half is, under the same number.
    partner: Option<DirectoryId>,
}

#[derive(Clone)]
enum Edit {
    Link(String, Node),
    Unlink(String),
}

impl Tree {
    pub(super) const ROOT: DirectoryId = DirectoryId(0);

    pub(super) fn new() -> Self {
        Self { directories: vec![Directory::default()], broken: false }
    }

    pub(super) fn lookup(&self, path: &Path) -> Result<Node, Errno> {
        let mut node = Node::Directory(Self::ROOT);
        for name in normal_path(path).iter() {
            let Node::Directory(directory) = node else { return Err(libc::ENOTDIR) };
            let entries = &self.directories[directory.0].live;
            node = *entries.get(&*name.to_string_lossy()).ok_or(libc::ENOENT)?;
        }
        Ok(node)
    }

    pub(super) fn file(&self, path: &Path) -> Result<FileId, Errno> {
        match self.lookup(path)? {
            Node::File(file) => Ok(file),
            Node::Directory(_) => Err(libc::EISDIR),
        }
    }

    pub(super) fn directory(&self, path: &Path) -> Result<DirectoryId, Errno> {
        match self.lookup(path)? {
            Node::File(_) => Err(libc::ENOTDIR),
            Node::Directory(directory) => Ok(directory),
        }
    }

    /// Sorted.
    pub(super) fn names(&self, directory: DirectoryId) -> Vec<String> {
        self.directories[directory.0].live.keys().cloned().collect()
    }

    /// Makes a directory and its parents, each a change of its own; `number` gives their numbers.
    pub(super) fn create_directory(
        &mut self,
        path: &Path,
        mut number: impl FnMut() -> ChangeNumber,
    ) -> Result<(), Errno> {
        let mut at = Self::ROOT;
        for name in normal_path(path).iter() {
            let name = name.to_string_lossy().into_owned();
            at = match self.directories[at.0].live.get(&name) {
                Some(Node::File(_)) => return Err(libc::ENOTDIR),
                Some(Node::Directory(directory)) => *directory,
                None => {
                    let made = DirectoryId(self.directories.len());
                    self.directories.push(Directory::default());
                    self.change(at, number(), vec![Edit::Link(name, Node::Directory(made))], None);
                    made
                }
            };
        }
        Ok(())
    }

    /// Gives a file its name. Nothing else has this name.
    pub(super) fn link(&mut self, path: &Path, file: FileId, number: ChangeNumber) -> Result<(), Errno> {
        let (directory, name) = self.parent(path)?;
        self.change(directory, number, vec![Edit::Link(name, Node::File(file))], None);
        Ok(())
    }

    /// Renames a file, over another file if there is one.
    pub(super) fn rename(&mut self, from: &Path, to: &Path, number: ChangeNumber) -> Result<(), Errno> {
        let file = self.file(from)?;
        let (from_directory, from_name) = self.parent(from)?;
        let (to_directory, to_name) = self.parent(to)?;
        if matches!(self.lookup(to), Ok(Node::Directory(_))) {
            return Err(libc::EISDIR);
        }
        let unlink = Edit::Unlink(from_name);
        let link = Edit::Link(to_name, Node::File(file));
        if from_directory == to_directory {
            self.change(from_directory, number, vec![unlink, link], None);
        } else {
            self.change(from_directory, number, vec![unlink], Some(to_directory));
            self.change(to_directory, number, vec![link], Some(from_directory));
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, path: &Path, number: ChangeNumber) -> Result<(), Errno> {
        self.file(path)?;
        let (directory, name) = self.parent(path)?;
        self.change(directory, number, vec![Edit::Unlink(name)], None);
        Ok(())
    }

    /// Takes a name away at rest: durably, and with everything below it.
    pub(super) fn lose(&mut self, path: &Path) {
        let (directory, name) = self.parent(path).expect("the name's directory is there");
        let directory = &mut self.directories[directory.0];
        directory.durable = directory.live.clone();
        directory.unsynced.clear();
        assert!(directory.live.remove(&name).is_some(), "{} is not there", path.display());
        directory.durable.remove(&name);
    }

    /// Makes the directory's changes before `end` durable.
    pub(super) fn sync(&mut self, directory: DirectoryId, end: ChangeNumber) {
        if !self.broken {
            self.make_durable(directory, end);
        }
    }

    /// Makes a seeded part durable, and nothing more ever (invariant 3).
    pub(super) fn fail_sync(&mut self, directory: DirectoryId, end: ChangeNumber, random: &mut Random) {
        let numbers: Vec<_> =
            self.directories[directory.0].numbers().filter(|&number| number < end).collect();
        let kept = random.index(numbers.len() + 1);
        self.sync(directory, numbers.get(kept).copied().unwrap_or(end));
        self.broken = true;
    }

    pub(super) fn outstanding(&self) -> impl Iterator<Item = ChangeNumber> {
        self.directories.iter().flat_map(Directory::numbers)
    }

    /// The names after the power has come back.
    pub(super) fn after_power_loss(&self, fates: &mut Fates) -> Self {
        let decide = |directory: &Directory| fates.of_directory(&directory.numbers().collect::<Vec<_>>());
        let mut kept: Vec<usize> = self.directories.iter().map(decide).collect();
        // A rename lost in one directory is lost in the other, with all that came after it there, and so on.
        while let Some((directory, cut)) = self.half_kept(&kept) {
            kept[directory] = cut;
        }
        let survivor = |(directory, kept): (&Directory, usize)| {
            let mut names = directory.durable.clone();
            let edits = directory.unsynced[..kept].iter().flat_map(|change| &change.edits);
            edits.for_each(|edit| edit.apply(&mut names));
            Directory { live: names.clone(), durable: names, unsynced: Vec::new() }
        };
        Self { directories: self.directories.iter().zip(kept).map(survivor).collect(), broken: false }
    }

    /// The names as a new process finds them.
    pub(super) fn after_kill(&self) -> Self {
        self.clone()
    }

    /// Files that can be opened, with their paths, sorted by path.
    pub(super) fn live_files(&self) -> Vec<(PathBuf, FileId)> {
        let mut files = Vec::new();
        let mut directories = vec![(PathBuf::new(), Self::ROOT)];
        while let Some((path, directory)) = directories.pop() {
            for (name, node) in &self.directories[directory.0].live {
                match *node {
                    Node::File(file) => files.push((path.join(name), file)),
                    Node::Directory(directory) => directories.push((path.join(name), directory)),
                }
            }
        }
        files.sort();
        files
    }

    /// Files that have a name or may get one back.
    pub(super) fn known_files(&self) -> BTreeSet<FileId> {
        let mut known = BTreeSet::new();
        for directory in &self.directories {
            let linked = directory.unsynced.iter().flat_map(|change| &change.edits).filter_map(Edit::linked);
            let nodes = directory.live.values().chain(directory.durable.values()).chain(linked);
            known.extend(nodes.filter_map(|node| match node {
                Node::File(file) => Some(*file),
                Node::Directory(_) => None,
            }));
        }
        known
    }

    fn parent(&self, path: &Path) -> Result<(DirectoryId, String), Errno> {
        let normal = normal_path(path);
        let (Some(parent), Some(name)) = (normal.parent(), normal.file_name()) else {
            return Err(libc::EISDIR);
        };
        Ok((self.directory(parent)?, name.to_string_lossy().into_owned()))
    }

    fn change(
        &mut self,
        directory: DirectoryId,
        number: ChangeNumber,
        edits: Vec<Edit>,
        partner: Option<DirectoryId>,
    ) {
        let directory = &mut self.directories[directory.0];
        edits.iter().for_each(|edit| edit.apply(&mut directory.live));
        directory.unsynced.push(Change { number, edits, partner });
    }

    fn make_durable(&mut self, directory: DirectoryId, end: ChangeNumber) {
        let entries = &mut self.directories[directory.0];
        let count = entries.unsynced.partition_point(|change| change.number < end);
        let changes: Vec<_> = entries.unsynced.drain(..count).collect();
        for change in changes {
            let durable = &mut self.directories[directory.0].durable;
            change.edits.iter().for_each(|edit| edit.apply(durable));
            if let Some(partner) = change.partner {
                self.make_durable(partner, ChangeNumber(change.number.0 + 1));
            }
        }
    }

    /// A directory that keeps half of a rename, and how many of its changes it may keep.
    fn half_kept(&self, kept: &[usize]) -> Option<(usize, usize)> {
        for (directory, entries) in self.directories.iter().enumerate() {
            for (index, change) in entries.unsynced[..kept[directory]].iter().enumerate() {
                let Some(partner) = change.partner else { continue };
                let is_kept = |other: &Change| other.number == change.number;
                if !self.directories[partner.0].unsynced[..kept[partner.0]].iter().any(is_kept) {
                    return Some((directory, index));
                }
            }
        }
        None
    }
}

impl Directory {
    fn numbers(&self) -> impl Iterator<Item = ChangeNumber> {
        self.unsynced.iter().map(|change| change.number)
    }
}

impl Edit {
    fn apply(&self, names: &mut BTreeMap<String, Node>) {
        match self {
            Edit::Link(name, node) => _ = names.insert(name.clone(), *node),
            Edit::Unlink(name) => _ = names.remove(name),
        }
    }

    fn linked(&self) -> Option<&Node> {
        match self {
            Edit::Link(_, node) => Some(node),
            Edit::Unlink(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::survival::{Survival, TearUnit};
    use super::*;

    /// A tree in which directories `a` and `b` are durable, and `a` has the durable file `a/old`.
    fn tree() -> Tree {
        let mut tree = Tree::new();
        for (number, path) in (0..).zip(["a", "b"]) {
            tree.create_directory(Path::new(path), || ChangeNumber(number)).expect("create directory");
        }
        tree.link(Path::new("a/old"), FileId(1), ChangeNumber(3)).expect("link");
        for path in ["", "a"] {
            tree.sync(tree.directory(Path::new(path)).expect("a directory"), ChangeNumber(4));
        }
        assert_eq!(tree.outstanding().count(), 0);
        tree
    }

    fn files(tree: &Tree) -> String {
        let files: Vec<_> = tree
            .live_files()
            .into_iter()
            .map(|(path, file)| format!("{}={}", path.display(), file.0))
            .collect();
        files.join(" ")
    }

    /// Every outcome of a loss of power over many seeds.
    fn outcomes(tree: &Tree) -> BTreeSet<String> {
        let outcome = |seed| {
            let survival = [Survival::Prefix, Survival::Torn(TearUnit::Sector)][seed as usize % 2];
            files(&tree.after_power_loss(&mut Fates::new(
                survival,
                Random::new(seed),
                tree.outstanding().collect(),
            )))
        };
        (0..200).map(outcome).collect()
    }

    fn set<const COUNT: usize>(outcomes: [&str; COUNT]) -> BTreeSet<String> {
        outcomes.map(str::to_owned).into()
    }

    #[test]
    fn unsynced_changes_of_a_directory_survive_in_order() {
        let mut tree = tree();
        tree.link(Path::new("a/new"), FileId(2), ChangeNumber(10)).expect("link");
        tree.rename(Path::new("a/new"), Path::new("a/old"), ChangeNumber(11)).expect("rename");
        tree.remove(Path::new("a/old"), ChangeNumber(12)).expect("remove");
        assert_eq!(files(&tree), "");
        assert_eq!(outcomes(&tree), set(["a/old=1", "a/new=2 a/old=1", "a/old=2", ""]));
        assert_eq!(tree.known_files(), [FileId(1), FileId(2)].into());
    }

    #[test]
    fn a_rename_between_directories_is_never_half_done() {
        let mut tree = tree();
        tree.link(Path::new("b/other"), FileId(2), ChangeNumber(10)).expect("link");
        tree.rename(Path::new("a/old"), Path::new("b/moved"), ChangeNumber(11)).expect("rename");
        let possible = ["a/old=1", "a/old=1 b/other=2", "b/moved=1 b/other=2"];
        assert_eq!(outcomes(&tree), set(possible));
        tree.sync(tree.directory(Path::new("b")).expect("a directory"), ChangeNumber(12));
        assert_eq!(
            outcomes(&tree),
            set(possible[2..].try_into().map(|last: [&str; 1]| last).expect("one is left"))
        );
    }

    #[test]
    fn a_directory_that_was_not_synced_takes_its_files_along() {
        let mut tree = tree();
        tree.create_directory(Path::new("a/deep"), || ChangeNumber(10)).expect("create directory");
        tree.link(Path::new("a/deep/file"), FileId(2), ChangeNumber(11)).expect("link");
        tree.sync(tree.directory(Path::new("a/deep")).expect("a directory"), ChangeNumber(12));
        assert_eq!(outcomes(&tree), set(["a/old=1", "a/deep/file=2 a/old=1"]));
    }

    #[test]
    fn a_failed_sync_is_not_made_good_by_a_second() {
        let lost = |seed| {
            let mut tree = tree();
            tree.remove(Path::new("a/old"), ChangeNumber(10)).expect("remove");
            let directory = tree.directory(Path::new("a")).expect("a directory");
            tree.fail_sync(directory, ChangeNumber(11), &mut Random::new(seed));
            tree.sync(directory, ChangeNumber(11));
            let mut fates = Fates::new(Survival::Nothing, Random::new(seed), tree.outstanding().collect());
            files(&tree.after_power_loss(&mut fates)) == "a/old=1"
        };
        let losses = (0..100).filter(|&seed| lost(seed)).count();
        assert!((25..75).contains(&losses), "{losses} of 100");
    }
}
