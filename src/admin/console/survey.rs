//! Figures of topics and groups, kept for a moment.
//!
//! However many look, and at whatever, the shards are asked once in [`LOOK_INTERVAL`], and only while somebody looks. What was found the
//! time before is kept as well: from the two come rates.
//!
//! Bound: [`ENTRIES_MAX`] topics and as many groups, the first ones by name.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::Instant;

use super::asking::Asking;
use super::publish::Publisher;
use crate::api::{Failure, GroupInfo, GroupQueueInfo, RECEIVERS, Status, TopicInfo};

const LOOK_INTERVAL: Duration = Duration::from_millis(1_500);
/// A rate over a longer stretch says nothing of now.
const RATE_STRETCH_MAX: Duration = Duration::from_secs(30);
/// Each is asked for by a request of its own.
const ENTRIES_MAX: usize = 256;

/// What the console keeps between two calls.
#[derive(Default)]
pub(in crate::admin) struct Survey {
    topics: Kept<Vec<TopicFigures>>,
    groups: Kept<Vec<GroupFigures>>,
    pub(super) publisher: Publisher,
}

/// What a topic has.
#[derive(Debug)]
pub(super) struct TopicFigures {
    /// Without its queues and consumers.
    pub info: TopicInfo,
    pub messages: u64,
    /// All that were ever stored.
    pub stored: u64,
    /// Groups that have a place in it, or whose consumers name it.
    pub groups: usize,
}

/// What a group has, over all of its topics.
#[derive(Debug)]
pub(super) struct GroupFigures {
    pub group: String,
    /// Those who own queues, those who receive, and RocketMQ's own clients.
    pub members: usize,
    pub receivers: u32,
    pub readers: usize,
    pub queues: usize,
    pub lag: u64,
    pub leased: u64,
    pub waiting: u64,
    pub dead_letters: u64,
    /// The sum of its places.
    pub passed: u64,
}

/// The last two looks at something. Whoever looks keeps the others waiting for what it finds.
struct Kept<T>(Mutex<Option<Looks<T>>>);

/// What was found, and what had been found before.
#[derive(Debug)]
pub(super) struct Looks<T> {
    at: Instant,
    pub now: Rc<T>,
    before: Option<(Rc<T>, Duration)>,
}

impl<T> Default for Kept<T> {
    fn default() -> Self {
        Self(Mutex::new(None))
    }
}

impl<T> Clone for Looks<T> {
    fn clone(&self) -> Self {
        Self { at: self.at, now: self.now.clone(), before: self.before.clone() }
    }
}

impl<T> Looks<T> {
    /// What there was so many seconds before.
    pub fn before(&self) -> Option<(&T, f64)> {
        self.before.as_ref().map(|(before, stretch)| (&**before, stretch.as_secs_f64()))
    }
}

impl<T> Kept<T> {
    async fn look(&self, find: impl AsyncFnOnce() -> Result<T, Failure>) -> Result<Looks<T>, Failure> {
        let mut kept = self.0.lock().await;
        if let Some(looks) = kept.as_ref().filter(|looks| looks.at.elapsed() < LOOK_INTERVAL) {
            return Ok(looks.clone());
        }
        let (at, now) = (Instant::now(), Rc::new(find().await?));
        let before = kept.take().map(|looks| (looks.now, at.duration_since(looks.at)));
        let before = before.filter(|(_, stretch)| *stretch <= RATE_STRETCH_MAX);
        Ok(kept.insert(Looks { at, now, before }).clone())
    }
}

impl Survey {
    /// Figures of topics in the order of their names, for somebody who may read them.
    pub(super) async fn topics(&self, asking: Asking<'_>) -> Result<Looks<Vec<TopicFigures>>, Failure> {
        asking.visit.may_administer(asking.request).await?;
        let find = async || {
            let mut listed = asking.topic_list().await?;
            listed.sort_unstable_by(|one, other| one.topic.cmp(&other.topic));
            let mut figures = Vec::new();
            for topic in listed.into_iter().take(ENTRIES_MAX) {
                match asking.topic(topic.topic).await {
                    Ok(info) => figures.push(TopicFigures::of(info)),
                    // It has gone since.
                    Err(failure) if failure.status == Status::TopicNotExist => {}
                    Err(failure) => return Err(failure),
                }
            }
            Ok(figures)
        };
        self.topics.look(find).await
    }

    /// And of groups.
    pub(super) async fn groups(&self, asking: Asking<'_>) -> Result<Looks<Vec<GroupFigures>>, Failure> {
        asking.visit.may_administer(asking.request).await?;
        let find = async || {
            let mut listed = asking.group_list().await?;
            listed.sort_unstable();
            let mut figures = Vec::new();
            for group in listed.into_iter().take(ENTRIES_MAX) {
                match asking.group(group).await {
                    Ok(info) => figures.push(GroupFigures::of(&info)),
                    Err(failure) if failure.status == Status::GroupNotExist => {}
                    Err(failure) => return Err(failure),
                }
            }
            Ok(figures)
        };
        self.groups.look(find).await
    }
}

impl TopicFigures {
    fn of(mut info: TopicInfo) -> Self {
        let queues = std::mem::take(&mut info.queues);
        let groups = info.consumers.take().map_or(0, |consumers| consumers.groups.len());
        let messages = queues.iter().map(|queue| queue.end_offset.0.saturating_sub(queue.first_offset.0));
        let messages = messages.fold(0, u64::saturating_add);
        let stored = queues.iter().map(|queue| queue.end_offset.0).fold(0, u64::saturating_add);
        Self { info, messages, stored, groups }
    }
}

impl GroupFigures {
    fn of(info: &GroupInfo) -> Self {
        let sum = |of: fn(&GroupQueueInfo) -> u64| info.queues.iter().map(of).fold(0, u64::saturating_add);
        Self {
            group: info.group.to_string(),
            members: info.members.iter().filter(|member| member.member != RECEIVERS).count(),
            // Those of the last half minute as well, of whom it is not known how many they were.
            receivers: info.receivers.iter().map(|receiver| receiver.active.max(1)).sum(),
            readers: info.readers.len(),
            queues: info.queues.len(),
            lag: sum(|queue| queue.lag),
            leased: sum(|queue| queue.leased),
            waiting: sum(|queue| queue.waiting),
            dead_letters: sum(|queue| queue.dead_letters),
            passed: sum(|queue| queue.committed.map_or(0, |offset| offset.0)),
        }
    }
}

/// How much a count has grown per second; `None` where it began anew.
pub(super) fn per_second(now: u64, before: u64, seconds: f64) -> Option<f64> {
    let grown = now.checked_sub(before)?;
    (seconds > 0.0).then(|| grown as f64 / seconds)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run<T>(task: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(task)
    }

    #[test]
    fn who_looks_soon_after_another_sees_the_same() {
        run(async {
            let kept = Kept::<u64>::default();
            let first = kept.look(async || Ok(1)).await.expect("found");
            assert!(first.before().is_none());
            let soon = kept.look(async || Ok(2)).await.expect("found");
            assert_eq!(*soon.now, 1);
            tokio::time::advance(Duration::from_secs(2)).await;
            let later = kept.look(async || Ok(5)).await.expect("found");
            assert_eq!((*later.now, later.before()), (5, Some((&1, 2.0))));
            tokio::time::advance(Duration::from_secs(60)).await;
            let much_later = kept.look(async || Ok(9)).await.expect("found");
            assert_eq!(
                (*much_later.now, much_later.before()),
                (9, None),
                "a rate over a minute is none of now"
            );
        });
    }

    #[test]
    fn a_count_that_began_anew_has_no_rate() {
        assert_eq!(per_second(30, 10, 2.0), Some(10.0));
        assert_eq!(per_second(3, 10, 2.0), None);
        assert_eq!(per_second(30, 10, 0.0), None);
    }
}
