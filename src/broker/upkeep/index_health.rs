//! Whether the consume index can be trusted, and what is done when it cannot.
//!
//! ```text
//! damage is met -> noted in memory -> marked beside the index's files -> built anew -> in a durable snapshot -> mark gone
//! ```
//!
//! From the mark on no start trusts what a snapshot says of the index, whatever happens in between.

use std::cell::{Cell, RefCell};
use std::path::PathBuf;

use super::index_renewal::{Renewal, RenewalStep, TAIL_BATCHES_MAX};
use crate::api::{Activity, Failure, Status};
use crate::broker::shard_broker::Broker;
use crate::disk::{Disk, DiskError};
use crate::index::{IndexError, clear_distrust, mark_distrust};
use crate::log::Placed;

/// What is known against the index.
#[derive(Default)]
pub(in crate::broker) struct IndexHealth {
    /// Why it must be built anew.
    distrust: RefCell<Option<String>>,
    /// The mark is on the disk.
    is_marked: Cell<bool>,
    /// Why it cannot be built anew before the next start.
    impossible: RefCell<Option<String>>,
    /// How much of that is done.
    percent: Cell<u64>,
    /// What was published during the last step of building it; `None` when nobody wants to know.
    tail: RefCell<Option<Vec<Placed>>>,
    /// What keeps it from being saved for now, a full disk for one.
    failure: RefCell<Option<IndexError>>,
}

impl IndexHealth {
    /// `rebuilt`: of an index that was built anew at this start, because of a mark or with one made for it.
    pub fn new(rebuilt: bool) -> Self {
        Self { is_marked: Cell::new(rebuilt), ..Self::default() }
    }

    pub fn is_distrusted(&self) -> bool {
        self.distrust.borrow().is_some()
    }

    /// What keeps it from being saved for now, as clients are told.
    pub fn failure(&self) -> Option<String> {
        self.failure.borrow().as_ref().map(IndexError::without_path)
    }

    /// A group is durable.
    pub fn note_published(&self, batches: &[Placed]) {
        let mut tail = self.tail.borrow_mut();
        let Some(noted) = &mut *tail else { return };
        if noted.len() + batches.len() <= TAIL_BATCHES_MAX {
            noted.extend_from_slice(batches);
        } else {
            *tail = None;
        }
    }

    /// From here on what is published is noted.
    pub fn note_tail(&self) {
        *self.tail.borrow_mut() = Some(Vec::new());
    }

    /// What was published since; `None` when that was too much.
    pub fn take_tail(&self) -> Option<Vec<Placed>> {
        self.tail.borrow_mut().take()
    }

    /// What the operator is told is done about it.
    fn remedy(&self) -> String {
        match &*self.impossible.borrow() {
            Some(reason) => {
                format!("it cannot be built anew while the broker runs ({reason}): restart the broker")
            }
            None => self.progress(),
        }
    }

    /// And clients, for whom the reason names too much.
    fn remedy_without_path(&self) -> String {
        match self.impossible.borrow().is_some() {
            true => "it cannot be built anew while the broker runs: restart the broker".to_owned(),
            false => self.progress(),
        }
    }

    fn progress(&self) -> String {
        format!("the shard builds it anew from the log, {} % are done", self.percent.get())
    }
}

impl<D: Disk> Broker<D> {
    fn index_directory(&self) -> PathBuf {
        self.options.directory.join("index")
    }

    /// The index cannot be read. The operator is told, and whoever asked.
    pub(in crate::broker) fn index_damaged(&self, error: &IndexError) -> Failure {
        self.distrust_index(error);
        let health = &self.index_health;
        let is_waiting = health.impossible.borrow().is_none();
        // What is answered with `Busy` is asked for again.
        let status = if is_waiting { Status::Busy } else { Status::StorageFailed };
        let (shard, why) = (self.options.shard, error.without_path());
        let remedy = health.remedy_without_path();
        Failure::new(status, format!("the consume index of shard {shard} is damaged: {why}; {remedy}"))
    }

    fn distrust_index(&self, error: &IndexError) {
        let health = &self.index_health;
        if health.is_distrusted() {
            return;
        }
        health.percent.set(0);
        let shard = self.options.shard.0;
        tracing::error!(target: "index", shard, "the consume index is damaged: {error}; {}", health.remedy());
        *health.distrust.borrow_mut() = Some(error.to_string());
        // For housekeeping, which does it.
        self.published.wake();
    }

    /// What `status` says of the index; `None` when nothing is wrong with it.
    pub(in crate::broker) fn index_state(&self) -> Option<String> {
        let health = &self.index_health;
        if let Some(reason) = &*health.distrust.borrow() {
            return Some(format!("the consume index is damaged: {reason}; {}", health.remedy()));
        }
        let failure = health.failure.borrow();
        failure.as_ref().map(|error| {
            format!("the consume index cannot be saved: {error}; it is tried on, and a start without it takes longer")
        })
    }

    /// Makes durable that the index is not to be trusted, once that is known, and builds it anew, a step at a time.
    pub(in crate::broker) async fn heal_index(
        &self,
        renewal: &mut Option<Renewal<D>>,
    ) -> Result<(), IndexError> {
        let health = &self.index_health;
        if !health.is_distrusted() {
            return Ok(());
        }
        let _underway = self.underway(Activity::IndexRenewal);
        self.mark_index().await?;
        if health.impossible.borrow().is_some() {
            return Ok(());
        }
        let current = match renewal.take() {
            Some(current) => Some(current),
            None => Renewal::begin(&self.index, self.options.transaction_checks_max),
        };
        let Some(mut current) = current else {
            self.index_is_lost("there are no numbers for its files left".to_owned());
            return Ok(());
        };
        let step = match self.renew_step(&mut current).await {
            Ok(step) => step,
            Err(error) => {
                // It is begun again.
                let _ = current.abandon().await;
                return Err(error);
            }
        };
        match step {
            RenewalStep::More => {
                let (first, end) = (self.log.first_position().0, self.log.watermarks().durable_end().0);
                let done = current.reached().0.saturating_sub(first);
                health.percent.set(done.saturating_mul(100) / end.saturating_sub(first).max(1));
                *renewal = Some(current);
            }
            RenewalStep::Done => {
                health.distrust.borrow_mut().take();
                self.metrics.index_renewals.add(1);
                tracing::info!(target: "index", shard = self.options.shard.0, "the consume index was built anew");
                // Until it is in a snapshot a start would build it once more.
                self.take_snapshot().await?;
            }
            RenewalStep::Impossible(reason) => {
                self.index_is_lost(reason);
                current.abandon().await?;
            }
        }
        Ok(())
    }

    fn index_is_lost(&self, reason: String) {
        let health = &self.index_health;
        *health.impossible.borrow_mut() = Some(reason);
        let shard = self.options.shard.0;
        tracing::error!(target: "index", shard, "the consume index is damaged; {}", health.remedy());
    }

    async fn mark_index(&self) -> Result<(), DiskError> {
        let health = &self.index_health;
        let reason = health.distrust.borrow().clone().filter(|_| !health.is_marked.get());
        let Some(reason) = reason else { return Ok(()) };
        mark_distrust(&self.disk, &self.index_directory(), &reason).await?;
        health.is_marked.set(true);
        Ok(())
    }

    /// An index that is trusted is in a durable snapshot: neither the mark nor what it has replaced is needed any more.
    pub(in crate::broker) async fn note_snapshot(&self) -> Result<(), IndexError> {
        let health = &self.index_health;
        if health.is_distrusted() {
            return Ok(());
        }
        self.index.remove_replaced().await?;
        if health.is_marked.get() {
            clear_distrust(&self.disk, &self.index_directory()).await?;
            health.is_marked.set(false);
        }
        Ok(())
    }

    /// What housekeeping has met. Damage is for good, everything else may pass.
    pub(in crate::broker) fn note_index_error(&self, error: &IndexError) {
        let health = &self.index_health;
        if !matches!(error, IndexError::Disk(_)) {
            self.distrust_index(error);
            return;
        }
        if health.failure.borrow_mut().replace(error.clone()).is_none() {
            let shard = self.options.shard.0;
            tracing::error!(target: "index", shard, "the consume index cannot be saved, which is tried on: {error}");
        }
    }

    /// Housekeeping has done its round.
    pub(in crate::broker) fn note_index_saved(&self) {
        if self.index_health.failure.borrow_mut().take().is_some() {
            tracing::info!(target: "index", shard = self.options.shard.0, "the consume index can be saved again");
        }
    }
}
