//! The cores that shards run on: how fast they may be, how much of them there is, and who else has them.

use crate::cli::check::finding::{Finding, State};
use crate::cli::check::system::{System, listed};

/// Device interrupts before which nothing can be said about where they go.
const INTERRUPTS_MIN: u64 = 100_000;
/// Of all of them: beyond this share one core has the work of all.
const CROWDED_PERCENT: u64 = 80;
/// Beginnings of the names of devices that messages come and go by.
const DEVICES: [&str; 10] = ["nvme", "virtio", "eth", "en", "mlx", "ahci", "ena", "iavf", "i40e", "ice"];

/// How the cores' clocks are governed.
pub fn governor(system: &System, cores: &[usize]) -> Finding {
    let governor =
        |core: &usize| system.read(&format!("/sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor"));
    let known: Vec<_> = cores.iter().filter_map(|core| Some((*core, governor(core)?))).collect();
    let slow: Vec<_> = known.iter().filter(|(_, governor)| governor != "performance").collect();
    match (known.first(), slow.first()) {
        (None, _) => Finding::ok("governor", "left to the host or the firmware"),
        (Some(_), None) => Finding::ok("governor", "performance"),
        (Some(_), Some((_, governor))) => {
            let slow: Vec<_> = slow.iter().map(|(core, _)| *core).collect();
            Finding::new(
                "governor",
                State::Advice,
                format!("`{governor}` on cores {}: a core that slept starts slowly", listed(&slow)),
            )
            .with(&["cpupower frequency-set --governor performance    # as root"])
        }
    }
}

/// Where the interrupts of disks and networks go.
pub fn interrupts(system: &System, cores: &[usize]) -> Finding {
    let Some(text) = system.read("/proc/interrupts") else {
        return Finding::new("interrupts", State::Unknown, "/proc/interrupts cannot be read");
    };
    let counts = device_interrupts(&text);
    let total: u64 = counts.iter().map(|(_, count)| count).sum();
    let Some((core, most)) = counts.iter().max_by_key(|(_, count)| *count) else {
        return Finding::ok("interrupts", "no device of its own on this machine");
    };
    let share = (most * 100).checked_div(total).unwrap_or(0);
    if total < INTERRUPTS_MIN || counts.len() < 2 || share < CROWDED_PERCENT || !cores.contains(core) {
        return Finding::ok("interrupts", format!("core {core} has most of the devices', {share} %"));
    }
    let others: Vec<_> =
        counts.iter().filter(|(other, _)| other != core).map(|(other, _)| other.to_string()).collect();
    Finding::new(
        "interrupts",
        State::Advice,
        format!("core {core} has {share} % of the devices' interrupts, and a shard besides"),
    )
    .with(&[
        "systemctl enable --now irqbalance    # from the package of that name",
        &format!(
            "echo {} > /proc/irq/N/smp_affinity_list    # for each N of /proc/interrupts, as root",
            others.join(",")
        ),
        &format!("turbopump serve --cores {}    # or: leave that core to them", others.join(",")),
    ])
}

/// Interrupts of the devices that count here, by core.
fn device_interrupts(text: &str) -> Vec<(usize, u64)> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let mut counts: Vec<(usize, u64)> = header
        .split_whitespace()
        .filter_map(|name| Some((name.strip_prefix("CPU")?.parse().ok()?, 0)))
        .collect();
    let mut has_devices = false;
    for line in lines {
        let fields: Vec<_> = line.split_whitespace().collect();
        let is_device =
            fields.last().is_some_and(|name| DEVICES.iter().any(|device| name.starts_with(device)));
        if is_device {
            has_devices = true;
            let numbers = fields.iter().skip(1).map(|field| field.parse::<u64>().unwrap_or(0));
            counts.iter_mut().zip(numbers).for_each(|((_, sum), count)| *sum += count);
        }
    }
    if has_devices { counts } else { Vec::new() }
}

/// Whether a control group takes the cores away when they were used for too long.
pub fn quota(system: &System, cores: &[usize]) -> Finding {
    let groups = system.read("/proc/self/cgroup").unwrap_or_default();
    let path = groups.lines().find_map(|line| line.strip_prefix("0::")).unwrap_or("/").to_owned();
    let mut path = path.trim_end_matches('/');
    loop {
        let limit = system.read(&format!("/sys/fs/cgroup{path}/cpu.max"));
        if let Some(share) =
            limit.as_deref().and_then(cores_of_quota).filter(|share| *share < cores.len() as f64)
        {
            return Finding::new(
                "processor quota",
                State::Advice,
                format!(
                    "the control group has {share:.2} cores' time for {} cores: each time it is used up all shards stand still",
                    cores.len()
                ),
            )
            .with(&["docker run --cpuset-cpus 0,1 ...    # cores of its own instead of --cpus", "AllowedCPUs=0,1    # in the unit, instead of CPUQuota"]);
        }
        match path.rsplit_once('/') {
            Some((parent, _)) => path = parent,
            None => return Finding::ok("processor quota", "none"),
        }
    }
}

/// `200000 100000` is two cores' time; `max 100000` no limit.
fn cores_of_quota(text: &str) -> Option<f64> {
    let (quota, period) = text.split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (period > 0.0).then_some(quota / period)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn write(root: &Path, path: &str, text: &str) {
        let path = root.join(path);
        std::fs::create_dir_all(path.parent().expect("a folder")).expect("ours");
        std::fs::write(path, text).expect("ours");
    }

    #[test]
    fn a_sparing_governor_is_named_with_its_cores() {
        let directory = tempfile::tempdir().expect("a directory");
        let system = System::new(directory.path());
        assert_eq!(governor(&system, &[0, 1]).state, State::Ok, "nothing is governed");
        for (core, name) in [(0, "performance"), (1, "powersave")] {
            let path = format!("sys/devices/system/cpu/cpu{core}/cpufreq/scaling_governor");
            write(directory.path(), &path, name);
        }
        assert_eq!(governor(&system, &[0]).state, State::Ok);
        let finding = governor(&system, &[0, 1]);
        assert!(finding.state == State::Advice && finding.found.contains("cores 1"), "{finding:?}");
    }

    #[test]
    fn a_core_with_all_interrupts_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let system = System::new(directory.path());
        assert_eq!(interrupts(&system, &[0]).state, State::Unknown);
        let text = "           CPU0       CPU1\n  0:   999999999  0  IO-APIC timer\n 24:  900000  10  PCI-MSI nvme0q1\n 25:  100  90  PCI-MSI eth0\nNMI: 1 1 Non-maskable\n";
        write(directory.path(), "proc/interrupts", text);
        let finding = interrupts(&system, &[0, 1]);
        assert!(finding.state == State::Advice && finding.found.contains("core 0 has 99 %"), "{finding:?}");
        assert_eq!(interrupts(&system, &[1]).state, State::Ok, "no shard is there");
    }

    #[test]
    fn a_quota_of_any_group_on_the_way_counts() {
        let directory = tempfile::tempdir().expect("a directory");
        let system = System::new(directory.path());
        assert_eq!(quota(&system, &[0, 1]).state, State::Ok);
        write(directory.path(), "proc/self/cgroup", "0::/outer/inner\n");
        write(directory.path(), "sys/fs/cgroup/outer/inner/cpu.max", "max 100000");
        write(directory.path(), "sys/fs/cgroup/outer/cpu.max", "150000 100000");
        let finding = quota(&system, &[0, 1]);
        assert!(finding.state == State::Advice && finding.found.contains("1.50 cores"), "{finding:?}");
        assert_eq!(quota(&system, &[0]).state, State::Ok);
    }
}
