//! The raw rates beside a run's figures, measured before and after it, and the run's share of them.

use std::path::PathBuf;
use std::time::Duration;

use serde::Serialize;

use crate::cli::bench::arguments::{Kind, LoadArguments};
use crate::cli::bench::baseline_device::{DeviceOperation, DevicePlan, DeviceSpeed};
use crate::cli::bench::baseline_loopback::LoopbackPlan;
use crate::cli::bench::server_cost::ServerSample;
use crate::cli::error::CommandError;
use crate::limits;

/// The raw loopback is measured for this long, twice.
const LOOPBACK_TIME: Duration = Duration::from_millis(700);
/// Group size where the broker has not flushed anything yet.
const GROUP_BYTES_DEFAULT: u64 = 256 * 1024;

/// One measurement of everything raw.
#[derive(Clone, Copy, Debug)]
pub struct RawSpeed {
    device: DeviceSpeed,
    loopback: f64,
}

/// Measures as often as asked, always the same.
pub struct Baseline {
    kind: Kind,
    directory: PathBuf,
    device_time: Duration,
    server_core: Option<usize>,
    client_core: Option<usize>,
}

/// What a report says of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct BaselineReport {
    pub device_bytes_per_second: f64,
    pub loopback_bytes_per_second: f64,
    /// The run's stored bytes per second over the raw rate.
    pub device_share: f64,
    pub loopback_share: f64,
    /// Median of a raw 4 KiB write + fdatasync.
    pub flush_p50_us: f64,
    pub device_operation: &'static str,
    /// Bytes per flush of the broker in the run, which the raw device was measured with after it.
    pub group_bytes: u64,
    pub directory: String,
    pub device_before_after: [f64; 2],
    /// Groups that took 50 ms or longer to be written and flushed, or windows to be read, and the longest one.
    pub device_stalls_before_after: [u64; 2],
    pub device_longest_ms_before_after: [f64; 2],
    pub loopback_before_after: [f64; 2],
}

impl Baseline {
    pub fn new(kind: Kind, arguments: &LoadArguments, sample: &ServerSample) -> Self {
        Self {
            kind,
            directory: arguments.baseline_dir.clone(),
            device_time: arguments.baseline_duration.0,
            server_core: sample.cores.first().copied(),
            client_core: arguments.pin.as_ref().and_then(|cores| cores.0.first().copied()),
        }
    }

    /// Measures now. `group_bytes` is what the broker flushed at once, as far as it is known.
    pub fn measure(&self, group_bytes: Option<u64>) -> Result<RawSpeed, CommandError> {
        let operation = match self.kind {
            Kind::Consume => DeviceOperation::Read,
            Kind::Produce | Kind::EndToEnd => {
                DeviceOperation::WriteAndFlush { group_bytes: group_bytes.unwrap_or(GROUP_BYTES_DEFAULT) }
            }
        };
        let device = DevicePlan {
            directory: self.directory.clone(),
            core: self.server_core,
            operation,
            duration: self.device_time,
        };
        let device = device.measure().map_err(CommandError::failed)?;
        // In the direction in which most bytes go.
        let (sender_core, receiver_core) = match self.kind {
            Kind::Consume => (self.server_core, self.client_core),
            Kind::Produce | Kind::EndToEnd => (self.client_core, self.server_core),
        };
        let loopback = LoopbackPlan { sender_core, receiver_core, duration: LOOPBACK_TIME };
        let loopback = loopback
            .measure()
            .map_err(|error| CommandError::failed(format!("the raw loopback cannot be measured: {error}")))?;
        Ok(RawSpeed { device, loopback })
    }

    /// Puts two measurements and a run's rate together.
    pub fn report(
        &self,
        [before, after]: [RawSpeed; 2],
        group_bytes: Option<u64>,
        stored_bytes_per_second: f64,
    ) -> BaselineReport {
        let device = mean(before.device.bytes_per_second, after.device.bytes_per_second);
        let loopback = mean(before.loopback, after.loopback);
        let operation = match self.kind {
            Kind::Consume => DeviceOperation::Read,
            Kind::Produce | Kind::EndToEnd => DeviceOperation::WriteAndFlush { group_bytes: 0 },
        };
        BaselineReport {
            device_bytes_per_second: device.round(),
            loopback_bytes_per_second: loopback.round(),
            device_share: share(stored_bytes_per_second, device),
            loopback_share: share(stored_bytes_per_second, loopback),
            flush_p50_us: (mean(before.device.flush_p50_us, after.device.flush_p50_us) * 100.0).round()
                / 100.0,
            device_operation: operation.name(),
            group_bytes: group_bytes.unwrap_or(GROUP_BYTES_DEFAULT).min(limits::GROUP_BYTES_MAX as u64),
            directory: self.directory.display().to_string(),
            device_before_after: [
                before.device.bytes_per_second.round(),
                after.device.bytes_per_second.round(),
            ],
            device_stalls_before_after: [before.device.stalls, after.device.stalls],
            device_longest_ms_before_after: [before.device.longest_ms(), after.device.longest_ms()],
            loopback_before_after: [before.loopback.round(), after.loopback.round()],
        }
    }
}

fn mean(first: f64, second: f64) -> f64 {
    (first + second) / 2.0
}

/// A share with three decimals; zero where there is nothing to share.
fn share(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { (part / whole * 1000.0).round() / 1000.0 } else { 0.0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_are_of_the_mean_of_both_measurements() {
        let baseline = Baseline {
            kind: Kind::Produce,
            directory: ".".into(),
            device_time: Duration::ZERO,
            server_core: None,
            client_core: None,
        };
        let raw = |bytes_per_second, loopback, flush_p50_us| RawSpeed {
            device: DeviceSpeed { bytes_per_second, flush_p50_us, stalls: 0, longest: Duration::ZERO },
            loopback,
        };
        let report = baseline.report([raw(1e9, 4e9, 140.0), raw(3e9, 2e9, 160.0)], Some(1 << 30), 1e9);
        assert_eq!((report.device_bytes_per_second, report.device_share), (2e9, 0.5));
        assert_eq!((report.loopback_bytes_per_second, report.loopback_share), (3e9, 0.333));
        assert_eq!((report.flush_p50_us, report.group_bytes), (150.0, limits::GROUP_BYTES_MAX as u64));
        assert_eq!(report.device_operation, "write+flush");
        assert_eq!(share(1.0, 0.0), 0.0);
    }
}
