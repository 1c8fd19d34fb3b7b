//! Where requests' time goes: of a topic's, for a moment, and of the slowest ones that the broker keeps.
//!
//! The node measures few topics at a time ([`MEASUREMENTS_MAX`](crate::limits::MEASUREMENTS_MAX)), so the console takes one of these
//! places at most, and leaves the other to `turbopump latency`: whoever looks at the same topic meanwhile sees the same, and whoever
//! looks at another one waits until it is its turn.

use std::rc::Rc;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use super::asking::Asking;
use super::parameters::{number, optional, required};
use crate::admin::answer::Answer;
use crate::api::{Failure, ListSlow, MeasureLatency, RequestProtocol, Status};
use crate::types::{ShardId, TopicName};
use crate::views::{LatencyView, SlowView};

/// How long one call measures: a page asks again and again while somebody looks at it, and nothing is measured any more soon after.
const TIME_MS_MAX: u64 = 5_000;
const TIME_MS_USUAL: u64 = 2_000;
/// Whose turn has not come within this time is told so.
const TURN_PATIENCE: Duration = Duration::from_secs(10);
const SLOW_MAX: u32 = 200;
const SLOW_USUAL: u32 = 20;

/// What was measured last.
#[derive(Default)]
pub(super) struct Measurements(Mutex<Option<Measured>>);

struct Measured {
    of: MeasureLatency,
    ended: Instant,
    view: Rc<LatencyView>,
}

impl Measurements {
    /// What a measurement finds, or one of the same that ended after this was asked for.
    async fn look(
        &self,
        of: MeasureLatency,
        find: impl AsyncFnOnce(MeasureLatency) -> Result<LatencyView, Failure>,
    ) -> Result<Rc<LatencyView>, Failure> {
        let asked = Instant::now();
        let Ok(mut last) = timeout(TURN_PATIENCE, self.0.lock()).await else {
            let message = "others look at where the time of other topics goes: try again";
            return Err(Failure::new(Status::Busy, message));
        };
        if let Some(same) = last.as_ref().filter(|last| last.of == of && last.ended > asked) {
            return Ok(same.view.clone());
        }
        let view = Rc::new(find(of.clone()).await?);
        *last = Some(Measured { of, ended: Instant::now(), view: view.clone() });
        Ok(view)
    }
}

/// `GET /api/latency?topic=&ms=`.
pub(super) async fn latency(asking: Asking<'_>) -> Result<Answer, Failure> {
    let topic: TopicName = required(asking.request, "topic")?;
    let time = number(asking.request, "ms", 1..=TIME_MS_MAX, TIME_MS_USUAL)?;
    // Strangers are not to wait for their turn.
    asking.visit.may_administer(asking.request).await?;
    let of = MeasureLatency { topic, time: Duration::from_millis(time) };
    let find = async |of: MeasureLatency| {
        let found = asking.latency(of.clone()).await?;
        Ok(LatencyView::new(&of.topic, of.time, &found))
    };
    let view = asking.visit.admin.console.measurements.look(of, find).await?;
    Ok(Answer::json(&*view))
}

/// `GET /api/slow?topic=&protocol=&shard=&count=`.
pub(super) async fn slow(asking: Asking<'_>) -> Result<Answer, Failure> {
    let request = asking.request;
    let protocol =
        request.parameter("protocol").filter(|text| !text.is_empty()).map(protocol_of).transpose()?;
    let list = ListSlow {
        shard: optional(request, "shard")?.map(ShardId),
        protocol,
        topic: optional(request, "topic")?,
        count: number(request, "count", 1..=SLOW_MAX, SLOW_USUAL)?,
    };
    Ok(Answer::json(&SlowView::new(&asking.slow(list).await?)))
}

fn protocol_of(text: &str) -> Result<RequestProtocol, Failure> {
    let all = [RequestProtocol::Native, RequestProtocol::Http, RequestProtocol::Remoting];
    let found = all.into_iter().find(|protocol| protocol.name() == text);
    found.ok_or_else(|| Failure::invalid("the parameter `protocol` is `native`, `http` or `remoting`"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::LatencyInfo;
    use std::cell::Cell;

    fn run<T>(task: impl Future<Output = T>) -> T {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(task)
    }

    fn of(topic: &str, seconds: u64) -> MeasureLatency {
        let topic = topic.parse().expect("a good name");
        MeasureLatency { topic, time: Duration::from_secs(seconds) }
    }

    #[test]
    fn who_looks_meanwhile_sees_the_same_and_one_topic_is_measured_at_a_time() {
        let (measurements, underway, all) = (Measurements::default(), Cell::new(0), Cell::new(0));
        let look = async |topic: &str, after: u64| {
            tokio::time::sleep(Duration::from_millis(after)).await;
            let find = async |of: MeasureLatency| {
                assert_eq!(underway.replace(1), 0, "two are measured at once");
                tokio::time::sleep(of.time).await;
                underway.set(0);
                all.set(all.get() + 1);
                Ok(LatencyView::new(&of.topic, of.time, &LatencyInfo::default()))
            };
            measurements.look(of(topic, 2), find).await.expect("its turn comes")
        };
        run(async {
            let (first, second) = tokio::join!(look("orders", 0), look("orders", 500));
            assert!(Rc::ptr_eq(&first, &second) && all.get() == 1);
            let (third, _) = tokio::join!(look("orders", 0), look("payments", 100));
            assert!(!Rc::ptr_eq(&first, &third), "what ended before is not of now");
            assert_eq!(all.get(), 3);
        });
    }

    #[test]
    fn whose_turn_does_not_come_is_told() {
        let measurements = Measurements::default();
        run(async {
            let held = measurements.0.lock().await;
            let find = async |_| unreachable!("it is not its turn");
            let refused = measurements.look(of("orders", 2), find).await.err();
            assert_eq!(refused.map(|failure| failure.status), Some(Status::Busy));
            drop(held);
        });
    }
}
