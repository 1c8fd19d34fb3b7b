//! The command.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use crate::cli::check::finding::{Finding, State};
use crate::cli::check::system::System;
use crate::cli::check::{cores, kernel, storage, time};
use crate::cli::error::CommandError;
use crate::cli::output::{OutputFormat, on_one_line, print};
use crate::cli::quantity::CoreList;
use crate::runtime::host;

/// Where the package's unit has its data.
const PACKAGED_DATA: &str = "/var/lib/turbopump";
const WHAT_WIDTH: usize = 15;

#[derive(Debug, clap::Args)]
#[command(
    after_help = "Looks at the kernel, its limits, the clock, the cores and the place of the data, and changes nothing. What \
must be repaired keeps the broker from running or from keeping its promises: the exit code is 1 then. Run it as the user who runs the broker.

Example: sudo -u turbopump turbopump check --data /var/lib/turbopump"
)]
pub struct CheckArguments {
    /// Data directory, there or still to be made [default: /var/lib/turbopump where there is one, else the working directory]
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Cores that the broker is to run on, like 0,1 or 0-3 [default: all that this process may use]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
}

#[derive(Serialize)]
struct CheckView {
    /// Findings that must be repaired.
    to_repair: usize,
    /// Those that the broker runs in spite of.
    advice: usize,
    findings: Vec<Finding>,
}

/// Looks at everything.
fn findings(data: Option<&Path>, on_cores: Option<&[usize]>) -> Vec<Finding> {
    let system = System::new("/");
    let all_cores = host::available_cores();
    let used = on_cores.unwrap_or(&all_cores);
    let mut findings = vec![
        kernel::version(&system),
        kernel::io_uring(),
        kernel::locked_memory(host::memlock_limit()),
        kernel::open_files(),
    ];
    let packaged = Path::new(PACKAGED_DATA);
    let data = data.unwrap_or(if packaged.is_dir() { packaged } else { Path::new(".") });
    match storage::Place::of(data) {
        Some(place) => findings.extend(storage::all(&system, &place, used.len() as u64)),
        None => findings
            .push(Finding::new("data", State::Repair, "the working directory is gone").with(&["cd /"])),
    }
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    findings.push(time::wall_clock(seconds, host::is_clock_synchronised()));
    findings.push(time::source(&system));
    findings.push(usable(used, &all_cores));
    findings.push(cores::governor(&system, used));
    findings.push(cores::interrupts(&system, used));
    findings.push(cores::quota(&system, used));
    findings
}

fn usable(used: &[usize], available: &[usize]) -> Finding {
    match used.iter().find(|core| !available.contains(core)) {
        None => Finding::ok("cores", format!("{} for shards", used.len())),
        Some(core) => Finding::new(
            "cores",
            State::Repair,
            format!("core {core} does not exist, or is not open to this process"),
        )
        .with(&["taskset -cp $$    # which are", "AllowedCPUs=    # in the unit, for others"]),
    }
}

pub fn run(arguments: &CheckArguments, format: OutputFormat) -> Result<(), CommandError> {
    let on_cores = arguments.cores.as_ref().map(|cores| cores.0.as_slice());
    let findings = findings(arguments.data.as_deref(), on_cores);
    let count = |state: State| findings.iter().filter(|finding| finding.state == state).count();
    let view = CheckView { to_repair: count(State::Repair), advice: count(State::Advice), findings };
    print(format, &view, render)?;
    match view.to_repair {
        0 => Ok(()),
        1 => Err(CommandError::failed("one thing must be repaired before the broker runs well here")),
        count => Err(CommandError::failed(format!(
            "{count} things must be repaired before the broker runs well here"
        ))),
    }
}

fn render(view: &CheckView) -> String {
    let mut text = String::new();
    for Finding { what, state, found, commands } in &view.findings {
        text += &format!("{:<8} {what:<WHAT_WIDTH$}  {}\n", state.name(), on_one_line(found));
        for command in commands {
            text += &format!("{:<8} {:<WHAT_WIDTH$}    {}\n", "", "", on_one_line(command));
        }
    }
    text
}
