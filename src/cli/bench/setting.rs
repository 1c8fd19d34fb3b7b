//! What a run is made of, whichever protocol it speaks, and the report that it ends with.

use std::time::Duration;

use crate::api::TopicInfo;
use crate::cli::bench::arguments::{Kind, LoadArguments};
use crate::cli::bench::clock::BenchClock;
use crate::cli::bench::evenness::Evenness;
use crate::cli::bench::load::{LoadPlan, LoadResult, Speech, measured};
use crate::cli::bench::message::RunId;
use crate::cli::bench::plot::{PlotData, write_plot};
use crate::cli::bench::report::Report;
use crate::cli::bench::verdict::Verdict;
use crate::cli::error::CommandError;
use crate::types::Level;

/// What was asked for, and what tells this run from others.
#[derive(Clone, Copy)]
pub struct Setting<'a> {
    pub kind: Kind,
    pub arguments: &'a LoadArguments,
    pub clock: BenchClock,
    pub seed: u64,
}

impl Setting<'_> {
    pub fn plan<'p>(
        &'p self,
        topic: &'p TopicInfo,
        speech: Speech<'p>,
        stretch: u64,
        duration: Duration,
    ) -> LoadPlan<'p> {
        LoadPlan {
            kind: self.kind,
            arguments: self.arguments,
            clock: self.clock,
            run: self.run_id(stretch),
            duration,
            topic,
            speech,
            lines: stretch == 0,
        }
    }

    /// The load before the measured part; `load` carries out a stretch of a length.
    pub fn warm_up(
        &self,
        load: impl FnOnce(Duration) -> Result<LoadResult, CommandError>,
    ) -> Result<(), CommandError> {
        if self.arguments.warmup.0.is_zero() {
            return Ok(());
        }
        let result = load(self.arguments.warmup.0)?;
        match result.workers.into_iter().find_map(|worker| worker.failure) {
            Some(failure) => Err(failure.into()),
            None => Ok(()),
        }
    }

    /// Runs with other seeds, and the stretches of one run, have messages that cannot be confused.
    pub fn run_id(&self, stretch: u64) -> RunId {
        let mixed = (self.seed ^ stretch << 63).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        RunId((mixed >> 32) as u32)
    }

    pub fn report(&self, topic: &TopicInfo, verdict: &Verdict) -> Report {
        let result = verdict.result();
        let tally = measured(self.kind, &result.total);
        let elapsed_ns = tally.last_ns.saturating_sub(result.start_ns).max(1);
        let seconds = elapsed_ns as f64 / 1e9;
        let faults = verdict.faults();
        let sends = self.kind != Kind::Consume;
        let mean_body = tally.body_bytes.checked_div(tally.messages).unwrap_or(0);
        Report {
            messages_per_second: (tally.messages as f64 / seconds).round(),
            bytes_per_second: (tally.body_bytes as f64 / seconds).round(),
            latency_us: tally.latencies.summary(),
            lost: faults.lost,
            duplicated: faults.duplicated,
            disordered: faults.disordered,
            damaged: faults.damaged,
            seconds: Evenness::of(&result.intervals),
            level: verdict.level().map(Level::name),
            server: Default::default(),
            baseline: None,
            bench: self.kind.name(),
            topic: self.arguments.topic.to_string(),
            body: if sends { self.arguments.shape().body_bytes as u64 } else { mean_body },
            batch: sends.then_some(self.arguments.batch),
            queues: topic.queue_count,
            connections: result.connections,
            in_flight: sends.then(|| self.arguments.in_flight()),
            rate: self.arguments.rate,
            overloaded: verdict.overloaded(),
            duration_seconds: (seconds * 1000.0).round() / 1000.0,
            messages: tally.messages,
            errors: result.total.errors,
            unanswered: verdict.unanswered(),
            stored_bytes_per_second: (tally.stored_bytes as f64 / seconds).round(),
            latency_of: match self.kind {
                Kind::Produce => "acknowledgement",
                Kind::Consume => "fetch",
                Kind::EndToEnd => "delivery",
            },
            acknowledgement_us: (self.kind == Kind::EndToEnd)
                .then(|| result.total.produced.latencies.summary()),
            verified: verdict.verified(),
            passes: verdict.passes(),
            threads: self.arguments.threads(),
            pin: self.arguments.pin.as_ref().map(|cores| cores.0.clone()),
            seed: self.seed,
            server_address: self.arguments.server.server.clone(),
            version: env!("CARGO_PKG_VERSION"),
        }
    }

    pub fn write_files(&self, report: &Report, verdict: &Verdict) -> Result<(), CommandError> {
        let result = verdict.result();
        let latencies = &measured(self.kind, &result.total).latencies;
        if let Some(path) = &self.arguments.hgrm {
            std::fs::write(path, latencies.to_hgrm())
                .map_err(|error| CommandError::failed(format!("cannot write {}: {error}", path.display())))?;
        }
        if let Some(path) = &self.arguments.plot {
            let [title, subtitle] = report.headlines();
            let data = PlotData { title, subtitle, latencies, intervals: &result.intervals };
            write_plot(path, &data).map_err(CommandError::failed)?;
        }
        Ok(())
    }
}
