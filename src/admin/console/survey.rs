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
use super::latency::Measurements;
use super::publish::Publisher;
use crate::api::{Failure, GroupStats, StatsAsked, StatsOf, StatsPage, TopicInfo, TopicStats};

const LOOK_INTERVAL: Duration = Duration::from_millis(1_500);
/// A rate over a longer stretch says nothing of now.
const RATE_STRETCH_MAX: Duration = Duration::from_secs(30);
const ENTRIES_MAX: usize = 4_096;

/// What the console keeps between two calls.
#[derive(Default)]
pub(in crate::admin) struct Survey {
    topics: Kept<TopicsLook>,
    groups: Kept<Vec<GroupStats>>,
    pub(super) publisher: Publisher,
    pub(super) measurements: Measurements,
}

/// What was found of topics, each list in the order of their names.
#[derive(Debug)]
pub(super) struct TopicsLook {
    pub infos: Vec<TopicInfo>,
    pub figures: Vec<TopicStats>,
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
    /// What there was before, and how long ago that was.
    pub fn before(&self) -> Option<(&T, Duration)> {
        self.before.as_ref().map(|(before, stretch)| (&**before, *stretch))
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
    /// Figures of topics, for somebody who may read them.
    pub(super) async fn topics(&self, asking: Asking<'_>) -> Result<Looks<TopicsLook>, Failure> {
        asking.visit.may_administer(asking.request).await?;
        let find = async || {
            let infos = asking.topic_list().await?;
            let figures = pages(async |asked| asking.topic_figures(asked).await).await?;
            Ok(TopicsLook { infos, figures })
        };
        self.topics.look(find).await
    }

    /// And of groups.
    pub(super) async fn groups(&self, asking: Asking<'_>) -> Result<Looks<Vec<GroupStats>>, Failure> {
        asking.visit.may_administer(asking.request).await?;
        self.groups.look(async || pages(async |asked| asking.group_figures(asked).await).await).await
    }
}

/// Page after page, as far as the bound.
async fn pages<Entry, Name>(
    ask: impl AsyncFn(StatsAsked<Name>) -> Result<StatsPage<Entry, Name>, Failure>,
) -> Result<Vec<Entry>, Failure> {
    let (mut entries, mut after) = (Vec::new(), None);
    loop {
        let mut page = ask(StatsAsked { of: StatsOf::After(after), ages: false }).await?;
        entries.append(&mut page.entries);
        after = page.next;
        if after.is_none() || entries.len() >= ENTRIES_MAX {
            entries.truncate(ENTRIES_MAX);
            return Ok(entries);
        }
    }
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
            assert_eq!((*later.now, later.before()), (5, Some((&1, Duration::from_secs(2)))));
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
    fn pages_follow_one_another() {
        let ask = async |asked: StatsAsked<u64>| {
            let StatsOf::After(after) = asked.of else { unreachable!("pages are asked for") };
            let first = after.map_or(0, |after| after + 1);
            let next = (first < 4).then_some(first + 1);
            Ok(StatsPage { entries: vec![first, first + 1], next })
        };
        assert_eq!(run(pages(ask)), Ok(vec![0, 1, 2, 3, 4, 5]));
    }
}
