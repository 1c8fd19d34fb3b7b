//! What was set while a broker ran, in its data directory: it counts at later starts.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::cli::settings::environment::said_as_text;
use crate::cli::settings::sources::{Layer, Origin};
use crate::limits;
use crate::types::{SettingsFile, SettingsFileError};

const FILE: &str = "settings.toml";
const HEADER: &str =
    "# What `turbopump config set` has set, as the flags take it. It wins over the configuration file.\n";

/// Settings that take effect while a broker runs.
pub const LIVE: [&str; 10] = [
    "level",
    "retention-age",
    "retention-bytes",
    "auto-create-topics",
    "lease",
    "ordered-lease",
    "deliveries",
    "transaction-immunity",
    "transaction-check-interval",
    "log-level",
];

/// The values of settings, as their flags take them.
pub type Kept = BTreeMap<String, String>;

/// What is kept in a data directory; nothing when it does not exist. The error is a sentence that names the file.
pub fn read(data: &Path) -> Result<Kept, String> {
    let path = data.join(FILE);
    let named = |reason: String| format!("{}: {reason}", path.display());
    let text = match SettingsFile::read_text(&path, limits::CONFIG_FILE_BYTES_MAX) {
        Ok((text, _)) => text,
        Err(SettingsFileError::System(error))
            if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
        {
            return Ok(Kept::new());
        }
        Err(error) => return Err(named(error.to_string())),
    };
    let table: Kept = toml::from_str(&text).map_err(|error| named(error.message().to_owned()))?;
    match table.keys().find(|name| !LIVE.contains(&name.as_str())) {
        Some(name) => Err(named(format!(
            "`{name}` is no setting that can be set while a broker runs: take the line out"
        ))),
        None => layer(&table).map(|_| table.clone()).map_err(named),
    }
}

/// The same as settings.
pub fn layer(kept: &Kept) -> Result<Layer, String> {
    let mut layer = Layer::default();
    for (name, value) in kept {
        layer.add(said_as_text(name, OsStr::new(value))?, |_| Origin::Kept);
    }
    Ok(layer)
}

/// Keeps them: after a loss of power there are these, or those from before.
pub fn write(data: &Path, kept: &Kept) -> io::Result<()> {
    let text = toml::to_string(kept).map_err(io::Error::other)?;
    let (path, fresh) = (data.join(FILE), data.join(format!("{FILE}.new")));
    let mut options = OpenOptions::new();
    // A link in its place would have the file that it leads to cut and written over.
    options.write(true).create(true).truncate(true).mode(0o640).custom_flags(libc::O_NOFOLLOW);
    let mut made = options.open(&fresh)?;
    made.write_all(HEADER.as_bytes())?;
    made.write_all(text.as_bytes())?;
    made.sync_all()?;
    fs::rename(&fresh, &path)?;
    File::open(data)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let directory = tempfile::tempdir().expect("a directory");
        assert_eq!(read(directory.path()), Ok(Kept::new()));
        assert_eq!(read(&directory.path().join("not/there")), Ok(Kept::new()));
        let kept = Kept::from(
            [("deliveries", "3"), ("log-level", "warn,node=debug")].map(|(n, v)| (n.into(), v.into())),
        );
        write(directory.path(), &kept).expect("ours");
        assert_eq!(read(directory.path()), Ok(kept.clone()));
        assert_eq!(layer(&kept).expect("well formed").settings.said(), ["deliveries", "log-level"]);
        for (text, part) in [
            ("listen = '1.2.3.4:5'", "`listen` is no setting"),
            ("= 1", "settings.toml"),
            ("level = 1", "string"),
        ] {
            fs::write(directory.path().join(FILE), text).expect("ours");
            let error = read(directory.path()).expect_err(text);
            assert!(error.contains(part), "{error}");
        }
    }
}
