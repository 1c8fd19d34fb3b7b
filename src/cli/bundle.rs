//! `turbopump bundle`: what whoever looks for a fault asks for first, in one archive.
//!
//! Its parts are what other commands print: each is run by itself, and one that fails says why in its place.

use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use flate2::Compression;
use flate2::write::GzEncoder;
use serde::Serialize;

use crate::cli::admin_page::page_of;
use crate::cli::calendar::{self, Moment};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, print, to_json};
use crate::cli::server::ServerArguments;
use crate::node::ADMIN_PORT;

/// The end of a log that is taken.
const LOG_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Of what a command prints.
const PART_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Of the slowest requests.
const SLOW_REQUESTS: u32 = 500;
/// Lines of the journal.
const JOURNAL_LINES: &str = "20000";

#[derive(Debug, clap::Args)]
#[command(
    after_help = "In the archive: what `check`, `status`, `config get`, `topic list`, `group list` and `slow` say, the metrics, the \
configuration with where each value comes from, the journal of the unit `turbopump` or the end of each --log, and with --data what `log verify` says of a broker \
that does not run. Names of topics and groups are in it; messages, access keys, certificates and other secrets are not.

Example: turbopump bundle --config /etc/turbopump/turbopump.toml --data /var/lib/turbopump"
)]
pub struct BundleArguments {
    /// The archive, which must not be there [default: turbopump-bundle-TIME.tar.gz]
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// Configuration file that the broker is started with
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Data directory: its place is checked, and when no broker runs on it, its files are held against each other
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// File that the broker's standard error goes to; may be given several times
    #[arg(long, value_name = "FILE")]
    pub log: Vec<PathBuf>,
    /// The broker's admin address, for its metrics [default: port 5557 of --server's host]
    #[arg(long, value_name = "HOST:PORT")]
    pub admin: Option<String>,
    #[command(flatten)]
    pub server: ServerArguments,
}

/// One file of the archive.
#[derive(Debug, Serialize)]
struct PartView {
    file: String,
    bytes: usize,
    /// Where it comes from.
    source: String,
    /// Why it is not whole, or only says why it is not there.
    problem: Option<String>,
}

#[derive(Serialize)]
struct BundleView {
    file: String,
    version: &'static str,
    parts: Vec<PartView>,
}

/// The archive while it is made, under another name than its last.
struct Archive {
    tar: tar::Builder<GzEncoder<File>>,
    folder: String,
    seconds: u64,
    parts: Vec<PartView>,
}

impl Archive {
    fn begin(path: &Path, folder: &str) -> io::Result<Self> {
        // Names of topics are in it, which are nobody else's on this machine.
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
        let tar = tar::Builder::new(GzEncoder::new(file, Compression::default()));
        Ok(Self { tar, folder: folder.to_owned(), seconds: calendar::now().0 / 1000, parts: Vec::new() })
    }

    fn add(&mut self, file: &str, source: String, bytes: &[u8], problem: Option<String>) -> io::Result<()> {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(self.seconds);
        self.tar.append_data(&mut header, format!("{}/{file}", self.folder), bytes)?;
        self.parts.push(PartView { file: file.to_owned(), bytes: bytes.len(), source, problem });
        Ok(())
    }

    fn finish(self) -> io::Result<Vec<PartView>> {
        let mut file = self.tar.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()?;
        Ok(self.parts)
    }
}

pub fn run(arguments: &BundleArguments, format: OutputFormat) -> Result<(), CommandError> {
    let name = format!("turbopump-bundle-{}", time_for_a_name());
    let path = arguments.file.clone().unwrap_or_else(|| PathBuf::from(format!("{name}.tar.gz")));
    let failed = |error: io::Error| CommandError::failed(format!("cannot write {}: {error}", path.display()));
    if fs::symlink_metadata(&path).is_ok() {
        return Err(CommandError::failed(format!("{} is there already: name another file", path.display())));
    }
    let unfinished = PathBuf::from(format!("{}.unfinished", path.display()));
    if fs::symlink_metadata(&unfinished).is_ok() {
        let unfinished = unfinished.display();
        return Err(CommandError::failed(format!("{unfinished} is left of an earlier run: remove it first")));
    }
    let made = make(arguments, &unfinished, &name).and_then(|parts| {
        fs::rename(&unfinished, &path)?;
        Ok(parts)
    });
    let parts = made.map_err(|error| {
        if error.kind() != io::ErrorKind::AlreadyExists {
            // What is left of it is of no use.
            let _ = fs::remove_file(&unfinished);
        }
        failed(error)
    })?;
    let view = BundleView { file: path.display().to_string(), version: env!("CARGO_PKG_VERSION"), parts };
    print(format, &view, render)
}

/// `20261130-184500`.
fn time_for_a_name() -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(calendar::now());
    format!("{year}{month:02}{day:02}-{hour:02}{minute:02}{second:02}")
}

/// As in RFC 3339.
fn time_in_words() -> String {
    let Moment { year, month, day, hour, minute, second, .. } = Moment::of(calendar::now());
    format!("{year}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

fn make(arguments: &BundleArguments, path: &Path, folder: &str) -> io::Result<Vec<PartView>> {
    let mut archive = Archive::begin(path, folder)?;
    for (file, words) in commands(arguments) {
        let (bytes, problem) = ask(&arguments.server, &words);
        archive.add(file, format!("turbopump {}", shown(&words)), &bytes, problem)?;
    }
    metrics(arguments, &mut archive)?;
    logs(arguments, &mut archive)?;
    let about = serde_json::json!({
        "version": env!("CARGO_PKG_VERSION"),
        "made": time_in_words(),
        "kernel": fs::read_to_string("/proc/version").unwrap_or_default().trim(),
        "system": fs::read_to_string("/etc/os-release").unwrap_or_default(),
        "server": arguments.server.server,
        "parts": archive.parts,
    });
    archive.add("about.json", "this command".to_owned(), to_json(&about).as_bytes(), None)?;
    archive.finish()
}

fn shown(words: &[OsString]) -> String {
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

/// The files of the archive that a command of ours prints, with its words.
fn commands(arguments: &BundleArguments) -> Vec<(&'static str, Vec<OsString>)> {
    let words = |text: &str| text.split(' ').map(OsString::from).collect::<Vec<_>>();
    let with = |text: &str, flag: &str, path: &Path| {
        let mut words = words(text);
        words.extend([OsString::from(flag), path.into()]);
        words
    };
    let mut commands = vec![
        ("status.json", words("status -o json")),
        ("settings.json", words("config get -o json")),
        ("topics.json", words("topic list -o json")),
        ("groups.json", words("group list -o json")),
        ("slow.json", words(&format!("slow --count {SLOW_REQUESTS} -o json"))),
        (
            "check.json",
            arguments
                .data
                .as_ref()
                .map_or_else(|| words("check -o json"), |data| with("check -o json", "--data", data)),
        ),
    ];
    if let Some(config) = &arguments.config {
        let mut words = with("serve --print-config", "--config", config);
        // A file may leave it to a flag.
        words.extend(arguments.data.iter().flat_map(|data| [OsString::from("--data"), data.into()]));
        commands.push(("configuration.toml", words));
    }
    if let Some(data) = &arguments.data {
        commands.push(("verify.json", with("log verify -o json", "--data", data)));
    }
    commands
}

/// What one of our own commands prints. Keys go to it by the environment, where nobody else sees them.
fn ask(server: &ServerArguments, words: &[OsString]) -> (Vec<u8>, Option<String>) {
    let run = || -> io::Result<(Vec<u8>, Option<String>)> {
        let mut command = Command::new(std::env::current_exe()?);
        command
            .args(words)
            .envs(server.variables())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let output = command.spawn()?.wait_with_output()?;
        let mut printed = output.stdout;
        let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        let is_cut = printed.len() as u64 > PART_BYTES_MAX;
        printed.truncate(PART_BYTES_MAX as usize);
        // What `check` and `log verify` find ends them with 1, and is what was asked for.
        let problem = match (output.status.code(), is_cut) {
            (Some(0), false) => None,
            (Some(0), true) => Some(format!("only its first {PART_BYTES_MAX} bytes")),
            (code, _) => Some(format!(
                "exit code {}: {told}",
                code.map_or_else(|| "none".to_owned(), |code| code.to_string())
            )),
        };
        if printed.is_empty() {
            printed.extend_from_slice(told.as_bytes());
        }
        Ok((printed, problem))
    };
    run().unwrap_or_else(|error| (error.to_string().into_bytes(), Some(error.to_string())))
}

/// What a scrape would see now.
fn metrics(arguments: &BundleArguments, archive: &mut Archive) -> io::Result<()> {
    let address = arguments.admin.clone().unwrap_or_else(|| usual_admin(&arguments.server.server));
    let (bytes, problem) = match page_of(&address, "/metrics", &arguments.server, PART_BYTES_MAX) {
        Ok(page) => (page, None),
        Err(error) => {
            let told = format!("{error}: --admin HOST:PORT says where the broker has its admin address");
            (told.clone().into_bytes(), Some(told))
        }
    };
    archive.add("metrics.txt", format!("http://{address}/metrics"), &bytes, problem)
}

/// The admin address of a broker that was not told another one, on the machine where it listens.
fn usual_admin(server: &str) -> String {
    let host = server.rsplit_once(':').map_or(server, |(host, _)| host);
    format!("{host}:{}", ADMIN_PORT)
}

/// What the broker has written to standard error.
fn logs(arguments: &BundleArguments, archive: &mut Archive) -> io::Result<()> {
    for (number, path) in arguments.log.iter().enumerate() {
        let source = format!("the end of {}", path.display());
        let (bytes, problem) = match tail(path) {
            Ok(bytes) => (bytes, None),
            Err(error) => (error.to_string().into_bytes(), Some(error.to_string())),
        };
        archive.add(&format!("log-{number}.txt"), source, &bytes, problem)?;
    }
    if arguments.log.is_empty() {
        let words =
            ["--unit=turbopump", "--no-pager", "--output=short-iso-precise", "--lines", JOURNAL_LINES];
        let output = Command::new("journalctl").args(words).stdin(Stdio::null()).output();
        let (bytes, problem) = match output {
            Ok(output) if output.status.success() => (output.stdout, None),
            Ok(output) => {
                let told = String::from_utf8_lossy(&output.stderr).trim().to_owned();
                (told.clone().into_bytes(), Some(told))
            }
            Err(error) => {
                let reason = format!(
                    "journalctl cannot be run ({error}): name the file that standard error goes to with --log"
                );
                (reason.clone().into_bytes(), Some(reason))
            }
        };
        archive.add("journal.txt", "journalctl --unit=turbopump".to_owned(), &bytes, problem)?;
    }
    Ok(())
}

/// The last bytes of a regular file.
fn tail(path: &Path) -> io::Result<Vec<u8>> {
    let mut file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path)?;
    let metadata = file.metadata()?;
    if !metadata.is_file() {
        return Err(io::Error::other("it is no regular file"));
    }
    file.seek(SeekFrom::Start(metadata.len().saturating_sub(LOG_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn render(view: &BundleView) -> String {
    let mut text = String::new();
    for PartView { file, bytes, source, problem } in &view.parts {
        let problem = problem.as_ref().map(|problem| format!("  NOT WHOLE: {problem}")).unwrap_or_default();
        text += &format!("{file:<20} {bytes:>10} bytes  {source}{problem}\n");
    }
    text + &format!(
        "{} is made: look through it before you send it, since it names topics and groups\n",
        view.file
    )
}
