//! One group: who consumes for it, over which protocol, and how far it is in each queue.

use serde::Serialize;

use super::asking::Asking;
use super::parameters::name;
use crate::admin::answer::Answer;
use crate::api::{Failure, StatsAsked, StatsOf};
use crate::views::{GroupView, milliseconds};

/// What `turbopump group describe -o json` shows, and what rates and ages are told by.
#[derive(Serialize)]
struct LiveGroupView {
    #[serde(flatten)]
    group: GroupView,
    /// The sum of its places.
    passed: u64,
    /// How long ago the oldest message was stored that it has not dealt with.
    oldest_unread_ms: Option<u64>,
}

/// `GET /api/groups/GROUP`.
pub(super) async fn group(asking: Asking<'_>, group: &str) -> Result<Answer, Failure> {
    let group = asking.group(name(group)?).await?;
    let asked = StatsAsked { of: StatsOf::One(group.group.clone()), ages: true };
    // It may have gone since.
    let figures = asking.group_figures(asked).await.ok().and_then(|mut page| page.entries.pop());
    let oldest_unread = figures.and_then(|figures| figures.total().oldest_unread_age);
    let places = group.queues.iter().filter_map(|queue| queue.committed);
    Ok(Answer::json(&LiveGroupView {
        group: GroupView::new(&group),
        passed: places.fold(0, |sum: u64, place| sum.saturating_add(place.0)),
        oldest_unread_ms: oldest_unread.map(milliseconds),
    }))
}
