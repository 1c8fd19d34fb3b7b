//! The clock: store times, delays and retention go by it.

use crate::cli::check::finding::{Finding, State};
use crate::cli::check::system::System;

/// 2024-01-01: no clock of a machine that this program was built for is before it.
const YEAR_2024: u64 = 1_704_067_200;
/// Read without a call into the kernel; the others cost microseconds each time.
const QUICK_SOURCES: [&str; 6] =
    ["tsc", "kvm-clock", "hyperv_clocksource_tsc_page", "arch_sys_counter", "timebase", "tod"];

/// Whether the wall clock is kept right; `synchronised` is the kernel's word, where it gives one.
pub fn wall_clock(seconds: u64, synchronised: Option<bool>) -> Finding {
    if seconds < YEAR_2024 {
        return Finding::new(
            "clock",
            State::Repair,
            "the clock is set to a time before 2024: messages would be of that time",
        )
        .with(&["timedatectl set-ntp true", "date -u    # what it says then"]);
    }
    match synchronised {
        Some(true) => Finding::ok("clock", "kept right by a time server"),
        Some(false) => Finding::new(
            "clock",
            State::Advice,
            "the kernel is not told by any time server whether the clock is right: delays and retention go by it",
        )
        .with(&["timedatectl set-ntp true    # or apt-get install chrony"]),
        None => Finding::new("clock", State::Unknown, "the kernel does not say whether the clock is kept right"),
    }
}

pub fn source(system: &System) -> Finding {
    const FOLDER: &str = "/sys/devices/system/clocksource/clocksource0";
    let Some(source) = system.read(&format!("{FOLDER}/current_clocksource")) else {
        return Finding::new("clock source", State::Unknown, format!("{FOLDER} cannot be read"));
    };
    if QUICK_SOURCES.contains(&source.as_str()) {
        return Finding::ok("clock source", source);
    }
    let available = system.read(&format!("{FOLDER}/available_clocksource")).unwrap_or_default();
    let better = available.split_whitespace().find(|source| QUICK_SOURCES.contains(source));
    let finding = Finding::new(
        "clock source",
        State::Advice,
        format!("{source}: reading the clock is a call into the kernel, at each flush and request"),
    );
    match better {
        Some(better) => {
            finding.with(&[&format!("echo {better} > {FOLDER}/current_clocksource    # as root")])
        }
        None => {
            finding.with(&["dmesg | grep -i clocksource    # why the processor's own counter is not used"])
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_of_the_past_must_be_set() {
        assert_eq!(wall_clock(0, Some(true)).state, State::Repair);
        assert_eq!(wall_clock(YEAR_2024, Some(true)).state, State::Ok);
        assert_eq!(wall_clock(YEAR_2024, Some(false)).state, State::Advice);
        assert_eq!(wall_clock(YEAR_2024, None).state, State::Unknown);
    }

    #[test]
    fn a_slow_source_is_changed_for_one_there_is() {
        let directory = tempfile::tempdir().expect("a directory");
        let folder = directory.path().join("sys/devices/system/clocksource/clocksource0");
        std::fs::create_dir_all(&folder).expect("ours");
        let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).expect("ours");
        let system = System::new(directory.path());
        assert_eq!(source(&system).state, State::Unknown);
        write("current_clocksource", "hpet\n");
        write("available_clocksource", "hpet acpi_pm tsc\n");
        let finding = source(&system);
        assert_eq!(finding.state, State::Advice);
        assert!(finding.commands[0].starts_with("echo tsc >"), "{finding:?}");
        write("current_clocksource", "tsc\n");
        assert_eq!(source(&system).state, State::Ok);
    }
}
