//! Who gets a data directory, and what is left of one that nobody has made.

use super::*;

/// With so many shards, if any number is asked for.
fn open(path: &Path, shards: Option<u16>) -> Result<DataDirectory, DirectoryError> {
    let mut directory = DataDirectory::open(path, &Making { shards, shards_default: 1, node: None })?;
    directory.make()?;
    Ok(directory)
}

#[test]
fn a_directory_keeps_its_shards_and_its_lock() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    let first = open(&path, Some(3)).expect("it is made");
    assert!(first.is_new());
    assert!(matches!(open(&path, None), Err(DirectoryError::InUse { .. })));
    drop(first);
    let again = open(&path, None).expect("it is there");
    assert_eq!((again.shard_count(), again.is_new()), (3, false));
    drop(again);
    let other = open(&path, Some(2));
    assert!(matches!(other, Err(DirectoryError::Shards { made: 3, asked: 2, .. })));
}

/// Clients keep the name in files and handles.
#[test]
fn a_directory_keeps_its_name() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    let named = |node| {
        let making = Making { node, shards_default: 1, ..Making::default() };
        let mut directory = DataDirectory::open(&path, &making)?;
        directory.make().map(|()| directory)
    };
    assert_eq!(named(Some("broker-a")).expect("it is made").node_name(), "broker-a");
    assert_eq!(named(None).expect("it is there").node_name(), "broker-a");
    assert_eq!(named(Some("broker-a")).expect("it is there").node_name(), "broker-a");
    assert!(matches!(named(Some("broker-b")), Err(DirectoryError::Name { .. })));
    let other = root.path().join("other");
    assert!(is_node_name(open(&other, None).expect("it is made").node_name()), "the host's");
}

#[test]
fn one_that_was_taken_and_not_made_leaves_nothing_behind() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    let take = || DataDirectory::open(&path, &Making { shards_default: 2, ..Making::default() });
    let taken = take().expect("it is free");
    assert!(taken.is_new() && matches!(take(), Err(DirectoryError::InUse { .. })));
    drop(taken);
    assert!(!path.exists());
    // What was there stays.
    fs::create_dir(&path).expect("the name is free");
    drop(take().expect("it is free"));
    assert_eq!(fs::read_dir(&path).expect("it is there").count(), 0);
    fs::write(path.join("letter.txt"), "dear").expect("a file");
    assert!(matches!(take(), Err(DirectoryError::NotOurs { .. })));
    assert_eq!(fs::read_dir(&path).expect("it is there").count(), 1);
    fs::remove_file(path.join("letter.txt")).expect("it is there");
    let mut taken = take().expect("it is free");
    taken.make().expect("it can be made");
    drop(taken);
    assert!(path.join(DESCRIPTION).is_file() && path.join("shard-1").is_dir());
}

#[test]
fn a_lock_that_is_gone_keeps_nobody_in() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    let mut first = open(&path, Some(1)).expect("it is made");
    fs::remove_file(path.join(LOCK)).expect("it is there");
    assert!(matches!(open(&path, None), Err(DirectoryError::InUse { .. })));
    assert!(matches!(DataDirectory::open_existing(&path), Err(DirectoryError::InUse { .. })));
    // The one that was refused may have made it.
    assert!(first.check().expect("the directory is the same").is_some());
    assert!(first.check().expect("the directory is the same").is_none());
    assert!(path.join(LOCK).is_file());
}

#[test]
fn another_directory_in_the_place_of_the_locked_one_is_seen() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    let mut first = open(&path, Some(1)).expect("it is made");
    fs::rename(&path, root.path().join("moved")).expect("it can be moved");
    assert!(matches!(first.check(), Err(DirectoryError::Replaced { .. })));
    fs::create_dir(&path).expect("the name is free");
    assert!(matches!(first.check(), Err(DirectoryError::Replaced { .. })));
    assert!(!path.join(LOCK).exists(), "nothing is written to it");
}

#[test]
fn a_lock_that_is_no_file_is_refused_and_what_it_leads_to_is_left_alone() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let (path, letter) = (root.path().join("data"), root.path().join("letter.txt"));
    fs::create_dir(&path).expect("a directory");
    fs::write(&letter, "dear").expect("a file");
    std::os::unix::fs::symlink(&letter, path.join(LOCK)).expect("a link");
    assert!(matches!(open(&path, None), Err(DirectoryError::LockFile { .. })));
    assert_eq!(fs::read(&letter).expect("a file"), b"dear");
    fs::remove_file(path.join(LOCK)).expect("a link");
    let described = path.join(format!("{DESCRIPTION}.new"));
    std::os::unix::fs::symlink(&letter, &described).expect("a link");
    assert!(matches!(open(&path, None), Err(DirectoryError::Io { .. })));
    assert_eq!(fs::read(&letter).expect("a file"), b"dear");
    fs::remove_file(described).expect("a link");
    fs::remove_file(path.join(LOCK)).expect("a file");
    fs::create_dir(path.join(LOCK)).expect("a directory");
    assert!(matches!(open(&path, None), Err(DirectoryError::LockFile { .. })));
    fs::remove_dir(path.join(LOCK)).expect("a directory");
    drop(open(&path, None).expect("it is made"));
    // Who only looks does so, and knows.
    fs::remove_file(path.join(LOCK)).expect("a file");
    fs::create_dir(path.join(LOCK)).expect("a directory");
    let looked_at = DataDirectory::open_existing(&path).expect("to be looked at");
    assert!(matches!(looked_at.lock_refusal(), Some(DirectoryError::LockFile { .. })));
    assert!(matches!(DataDirectory::open_existing(&path), Err(DirectoryError::InUse { .. })));
}

#[test]
fn a_shard_that_is_missing_is_refused() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    drop(open(&path, Some(2)).expect("it is made"));
    fs::rename(path.join("shard-1"), root.path().join("elsewhere")).expect("it is there");
    assert!(matches!(open(&path, None), Err(DirectoryError::ShardMissing { .. })));
    fs::rename(root.path().join("elsewhere"), path.join("shard-1")).expect("it is there");
    let mut again = open(&path, None).expect("all is there");
    assert!(!again.is_started());
    again.note_started().expect("it can be written");
    drop(again);
    assert!(open(&path, None).expect("all is there").is_started());
}

#[test]
fn a_first_start_that_was_cut_off_is_made_again() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    drop(open(&path, Some(2)).expect("it is made"));
    fs::remove_file(path.join(DESCRIPTION)).expect("it is there");
    assert!(open(&path, Some(2)).expect("nothing was in it").is_new());
    fs::remove_file(path.join(DESCRIPTION)).expect("it is there");
    fs::write(path.join("shard-1/log/manifest"), "something").expect("a file");
    assert!(matches!(open(&path, Some(2)), Err(DirectoryError::NotOurs { .. })));
}

#[test]
fn a_directory_of_an_older_format_goes_on_as_one_of_the_present_when_it_is_used() {
    let root = tempfile::tempdir().expect("a temporary directory");
    let path = root.path().join("data");
    drop(open(&path, Some(2)).expect("it is made"));
    let description = path.join(DESCRIPTION);
    let older = "format = 2\nshards = 2\nstarted = true\n";
    fs::write(&description, older).expect("a file");
    drop(DataDirectory::open_existing(&path).expect("it is only looked at"));
    assert_eq!(fs::read_to_string(&description).expect("a file"), older);
    let mut used = open(&path, None).expect("it is read");
    assert!(used.is_started());
    assert_eq!(fs::read_to_string(&description).expect("a file"), older, "before it is taken up");
    let (secret, _) = used.secret().expect("random bytes");
    used.take_up(&secret).expect("it can be written");
    let described = fs::read_to_string(&description).expect("a file");
    let named = format!("format = 3\nshards = 2\nnode = \"{}\"\nstarted = true\n", used.node_name());
    assert_eq!(described, named);
}

#[test]
fn foreign_and_newer_directories_are_refused() {
    let root = tempfile::tempdir().expect("a temporary directory");
    fs::write(root.path().join("letter.txt"), "dear").expect("a file");
    assert!(matches!(open(root.path(), None), Err(DirectoryError::NotOurs { .. })));
    fs::write(root.path().join(DESCRIPTION), "format = 99\nshards = 1\n").expect("a file");
    assert!(matches!(open(root.path(), None), Err(DirectoryError::Newer { found: 99, .. })));
    fs::write(root.path().join(DESCRIPTION), "format = 1\nshards = 1\n").expect("a file");
    assert!(matches!(open(root.path(), None), Err(DirectoryError::Older { found: 1, .. })));
    fs::write(root.path().join(DESCRIPTION), "nonsense").expect("a file");
    assert!(matches!(open(root.path(), None), Err(DirectoryError::Description { .. })));
}
