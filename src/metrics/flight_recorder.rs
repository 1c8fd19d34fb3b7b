//! The flight recorder of a shard: its slowest requests of the last ten minutes, each with where its time went and what the shard
//! did meanwhile.
//!
//! Whoever has answered a request asks first whether it [is slow](FlightRecorder::is_slow), which is two comparisons. Only then
//! is anything put together.
//!
//! 1. Minutes are kept for themselves, each with its slowest [`limits::SLOW_REQUESTS_KEPT`]: what is among the slowest of ten
//!    minutes is among those of its own.
//! 2. `threshold` is what a request of the present minute must exceed: nothing while that is not full.
//! 3. What a shard does is known while it lasts and for some time after. What is noticed only once it is over, such as a late
//!    wake-up, is entered with the requests that had met it.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::poll_fn;
use std::net::IpAddr;
use std::pin::pin;
use std::rc::Rc;
use std::time::Duration;

use super::ShardMetrics;
use super::measurement::{Measured, Measurement};
use super::timeline::{GroupTimes, LogMark, Timeline};
use crate::api::{Activity, RequestProtocol, RequestSubject, StageTimes};
use crate::limits;
use crate::types::{Level, LogPosition, MonotonicTime};

const MINUTE: Duration = Duration::from_secs(60);
/// Minutes that are kept: ten whole ones beside the present one.
const MINUTES_KEPT: usize = limits::SLOW_REQUESTS_MINUTES + 1;
/// Activities that are remembered once they are over.
const ACTIVITIES_KEPT: usize = 64;

/// A request that was answered, before it is known what the shard did meanwhile.
#[derive(Clone, Debug)]
pub struct Answered {
    pub protocol: RequestProtocol,
    pub subject: RequestSubject,
    pub client: Option<IpAddr>,
    pub timeline: Timeline,
    pub at: MonotonicTime,
}

/// A request that is kept.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub protocol: RequestProtocol,
    pub subject: RequestSubject,
    pub client: Option<IpAddr>,
    /// When the system had its answer.
    pub sent: MonotonicTime,
    pub times: StageTimes,
    /// By activity: for how long of the request's time. `None`: not at all.
    pub meanwhile: [Option<Duration>; Activity::ALL.len()],
}

/// See the module.
#[derive(Default)]
pub struct FlightRecorder {
    groups: RefCell<GroupTimes>,
    /// The newest last.
    minutes: RefCell<VecDeque<Minute>>,
    threshold: Cell<Duration>,
    /// What requests are compared with: the threshold, but while somebody measures anything counts.
    compared: Cell<Duration>,
    measured: RefCell<BTreeMap<u64, (Measured, Measurement)>>,
    next_measurement: Cell<u64>,
    /// When the present minute is over.
    minute_end: Cell<MonotonicTime>,
    /// Since when an activity is under way.
    open: [Cell<Option<MonotonicTime>>; Activity::ALL.len()],
    activities: RefCell<VecDeque<Past>>,
    /// The request on whose behalf the shard runs just now.
    traced: Cell<Option<Timeline>>,
    is_tracing: Cell<bool>,
}

#[derive(Default)]
struct Minute {
    requests: Vec<Recorded>,
}

/// An activity that is over.
#[derive(Clone, Copy)]
struct Past {
    activity: Activity,
    from: MonotonicTime,
    to: MonotonicTime,
}

/// A measurement that goes on.
pub struct Measuring {
    metrics: Rc<ShardMetrics>,
    number: u64,
}

/// An activity that is under way until this is dropped.
pub struct Underway<C: Fn() -> MonotonicTime> {
    metrics: Rc<ShardMetrics>,
    activity: Activity,
    from: MonotonicTime,
    clock: C,
}

impl Recorded {
    /// The part of its time that counts: what came before it was its peer's.
    fn from(&self) -> MonotonicTime {
        let own = u64::try_from(self.times.brokers().as_nanos()).unwrap_or(u64::MAX);
        MonotonicTime(self.sent.0.saturating_sub(own))
    }

    fn meet(&mut self, past: Past) {
        let (from, to) = (past.from.max(self.from()), past.to.min(self.sent));
        if from <= to {
            let met = &mut self.meanwhile[past.activity as usize];
            *met = Some(met.unwrap_or_default() + to.since(from));
        }
    }
}

impl Minute {
    /// The fastest one.
    fn last(&self) -> Option<(usize, Duration)> {
        let times = self.requests.iter().map(|request| request.times.brokers()).enumerate();
        times.min_by_key(|(_, time)| *time)
    }
}

impl FlightRecorder {
    /// Whether a request is among the slowest that has taken so much of the broker's time until `now`.
    pub fn is_slow(&self, took: Duration, now: MonotonicTime) -> bool {
        took > self.compared.get() || now >= self.minute_end.get()
    }

    /// Keeps a request whose answer the system had at `sent`, if it is among the slowest.
    pub fn record(&self, answered: Answered, sent: MonotonicTime) {
        self.begin_minute(sent);
        let Answered { protocol, subject, client, timeline, at } = answered;
        let times = self.groups.borrow().stages(&timeline, at, sent);
        let mut recorded = Recorded { protocol, subject, client, sent, times, meanwhile: Default::default() };
        for (of, measurement) in self.measured.borrow_mut().values_mut() {
            measurement.enter(of, &recorded);
        }
        if times.brokers() <= self.threshold.get() {
            return;
        }
        self.activities.borrow().iter().for_each(|past| recorded.meet(*past));
        for (activity, open) in Activity::ALL.into_iter().zip(&self.open) {
            if let Some(from) = open.get() {
                recorded.meet(Past { activity, from, to: sent });
            }
        }
        self.keep(recorded);
    }

    fn keep(&self, recorded: Recorded) {
        let mut minutes = self.minutes.borrow_mut();
        let Some(minute) = minutes.back_mut() else { return };
        if minute.requests.len() < limits::SLOW_REQUESTS_KEPT {
            minute.requests.push(recorded);
        } else if let Some((at, _)) = minute.last() {
            minute.requests[at] = recorded;
        }
        if minute.requests.len() == limits::SLOW_REQUESTS_KEPT
            && let Some((_, time)) = minute.last()
        {
            self.set_threshold(time);
        }
    }

    fn begin_minute(&self, now: MonotonicTime) {
        if now < self.minute_end.get() {
            return;
        }
        let length = MINUTE.as_nanos() as u64;
        let mut minutes = self.minutes.borrow_mut();
        // Of minutes without requests nothing is kept, so their number bounds the memory, and `slowest` the age.
        if minutes.len() == MINUTES_KEPT {
            minutes.pop_front();
        }
        minutes.push_back(Minute::default());
        self.minute_end.set(MonotonicTime((now.0 / length).saturating_add(1).saturating_mul(length)));
        self.set_threshold(Duration::ZERO);
    }

    fn set_threshold(&self, threshold: Duration) {
        self.threshold.set(threshold);
        let is_measured = !self.measured.borrow().is_empty();
        self.compared.set(if is_measured { Duration::ZERO } else { threshold });
    }

    /// The slowest requests that were answered in the last ten minutes and that are `wanted`, the slowest first.
    pub fn slowest(
        &self,
        count: usize,
        now: MonotonicTime,
        wanted: impl Fn(&Recorded) -> bool,
    ) -> Vec<Recorded> {
        let age_max = limits::SLOW_REQUESTS_MINUTES as u32 * MINUTE;
        let minutes = self.minutes.borrow();
        let all = minutes.iter().flat_map(|minute| &minute.requests);
        let young = all.filter(|request| now.since(request.sent) <= age_max && wanted(request));
        let mut slowest: Vec<&Recorded> = young.collect();
        slowest.sort_by_key(|request| std::cmp::Reverse(request.times.brokers()));
        slowest.into_iter().take(count.min(limits::SLOW_REQUESTS_KEPT)).cloned().collect()
    }

    /// Where the time of a request went until `now`, for whoever has asked.
    pub fn stages(&self, timeline: &Timeline, now: MonotonicTime) -> StageTimes {
        self.groups.borrow().stages(timeline, now, now)
    }

    /// What the recorder keeps in memory, names of topics left out.
    pub fn bytes(&self) -> usize {
        let minutes = self.minutes.borrow();
        minutes.iter().map(|minute| minute.requests.capacity() * size_of::<Recorded>()).sum()
    }

    /// A commit group up to `end` was taken and written; with `is_synced`, flushed as well.
    pub fn group_written(
        &self,
        end: LogPosition,
        (taken, written): (MonotonicTime, MonotonicTime),
        is_synced: bool,
    ) {
        self.groups.borrow_mut().written(end, taken, written, is_synced);
    }

    /// Everything below `end` was flushed.
    pub fn groups_flushed(&self, end: LogPosition, now: MonotonicTime) {
        self.groups.borrow_mut().flushed(end, now);
    }

    /// The core has run again at `to`, and was to do so at `from`.
    pub fn woke_late(&self, from: MonotonicTime, to: MonotonicTime) {
        self.note(Activity::LateWakeup, from, to);
    }

    /// Takes note of what is over already.
    pub fn note(&self, activity: Activity, from: MonotonicTime, to: MonotonicTime) {
        let past = Past { activity, from, to };
        self.remember(past);
        // Older minutes cannot have met it: it would have lasted for a whole one.
        let mut minutes = self.minutes.borrow_mut();
        minutes.iter_mut().rev().take(2).flat_map(|minute| &mut minute.requests).for_each(|request| {
            request.meet(past);
        });
    }

    fn remember(&self, past: Past) {
        let mut activities = self.activities.borrow_mut();
        if activities.len() == ACTIVITIES_KEPT {
            activities.pop_front();
        }
        activities.push_back(past);
    }

    /// Polls `future` on behalf of a request: what it waits for in the log, and for messages, is entered in its timeline.
    pub async fn trace<T>(&self, timeline: &Cell<Timeline>, future: impl Future<Output = T>) -> T {
        let mut future = pin!(future);
        poll_fn(|context| {
            let outer = (self.traced.replace(Some(timeline.get())), self.is_tracing.replace(true));
            let polled = future.as_mut().poll(context);
            let traced = self.traced.replace(outer.0);
            self.is_tracing.set(outer.1);
            traced.into_iter().for_each(|traced| timeline.set(traced));
            polled
        })
        .await
    }

    /// The same for what does not wait. Nothing that is entered meanwhile is kept.
    pub fn within<T>(&self, timeline: Timeline, work: impl FnOnce() -> T) -> T {
        let outer = (self.traced.replace(Some(timeline)), self.is_tracing.replace(true));
        let outcome = work();
        self.traced.set(outer.0);
        self.is_tracing.set(outer.1);
        outcome
    }

    /// Where the time of the request went on whose behalf the shard runs, if its client has asked for that.
    pub fn asked(&self, clock: impl FnOnce() -> MonotonicTime) -> Option<StageTimes> {
        if !self.is_tracing.get() {
            return None;
        }
        let timeline = self.traced.get().filter(|timeline| timeline.is_asked)?;
        Some(self.stages(&timeline, clock()))
    }

    /// Whether the shard runs on behalf of a request that is traced: whoever would enter something reads the clock only then.
    pub fn is_tracing(&self) -> bool {
        self.is_tracing.get()
    }

    /// The request waits for what it has placed in the log.
    pub fn placed(&self, end: LogPosition, level: Level, now: MonotonicTime) {
        self.change(|timeline| {
            timeline.placed = now;
            timeline.mark = Some(LogMark { end, level });
        });
    }

    /// The rest of the request has come only now.
    pub fn received(&self, now: MonotonicTime) {
        self.change(|timeline| {
            *timeline = Timeline { is_asked: timeline.is_asked, ..Timeline::new(timeline.begun, now, now) }
        });
    }

    /// The request has waited for room.
    pub fn queued(&self, time: Duration) {
        self.change(|timeline| timeline.queued += time);
    }

    /// The request has waited for messages.
    pub fn waited(&self, time: Duration) {
        self.change(|timeline| timeline.waited += time);
    }

    fn change(&self, change: impl FnOnce(&mut Timeline)) {
        if let Some(mut timeline) = self.traced.get() {
            change(&mut timeline);
            self.traced.set(Some(timeline));
        }
    }
}

impl ShardMetrics {
    /// Enters every request of a topic from now on, until what is returned is taken or dropped. `None`: too many do so already.
    pub fn measure(self: &Rc<Self>, topic: Measured) -> Option<Measuring> {
        let flight = &self.flight;
        if flight.measured.borrow().len() == limits::MEASUREMENTS_MAX {
            return None;
        }
        let number = flight.next_measurement.replace(flight.next_measurement.get() + 1);
        flight.measured.borrow_mut().insert(number, (topic, Measurement::default()));
        flight.set_threshold(flight.threshold.get());
        Some(Measuring { metrics: self.clone(), number })
    }

    /// Takes note of an activity that lasts until what is returned is dropped. `clock` is the monotonic one.
    pub fn begin<C: Fn() -> MonotonicTime>(self: &Rc<Self>, activity: Activity, clock: C) -> Underway<C> {
        let from = clock();
        self.flight.open[activity as usize].set(Some(from));
        Underway { metrics: self.clone(), activity, from, clock }
    }
}

impl Measuring {
    /// What was entered.
    pub fn take(self) -> Measurement {
        let mut measured = self.metrics.flight.measured.borrow_mut();
        measured.get_mut(&self.number).map(|(_, measurement)| std::mem::take(measurement)).unwrap_or_default()
    }
}

impl Drop for Measuring {
    fn drop(&mut self) {
        let flight = &self.metrics.flight;
        flight.measured.borrow_mut().remove(&self.number);
        flight.set_threshold(flight.threshold.get());
    }
}

impl<C: Fn() -> MonotonicTime> Drop for Underway<C> {
    fn drop(&mut self) {
        let flight = &self.metrics.flight;
        flight.open[self.activity as usize].set(None);
        // Requests that were answered meanwhile know of it.
        flight.remember(Past { activity: self.activity, from: self.from, to: (self.clock)() });
    }
}

#[cfg(test)]
mod tests {
    use futures_lite::future::block_on;

    use super::*;
    use crate::api::{RequestStage, RequestTopic};
    use crate::types::TopicId;

    fn at(milliseconds: u64) -> MonotonicTime {
        MonotonicTime(milliseconds * 1_000_000)
    }

    fn ms(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    fn answered(from: u64, to: u64) -> Answered {
        Answered {
            protocol: RequestProtocol::Native,
            subject: RequestSubject::of("fetch"),
            client: None,
            timeline: Timeline::at(at(from)),
            at: at(to),
        }
    }

    /// Milliseconds of the slowest at a time.
    fn slowest(flight: &FlightRecorder, now: u64) -> Vec<u128> {
        let slowest = flight.slowest(usize::MAX, at(now), |_| true);
        slowest.iter().map(|request| request.times.brokers().as_millis()).collect()
    }

    #[test]
    fn the_slowest_of_ten_minutes_are_kept() {
        let flight = FlightRecorder::default();
        let kept = limits::SLOW_REQUESTS_KEPT as u64;
        // In every minute as many as are kept, and as many that are faster.
        for minute in 0..12 {
            for number in 0..2 * kept {
                let (now, took) = (minute * 60_000 + 1_000 + number, 1 + (number * 7919) % (2 * kept));
                if flight.is_slow(ms(took), at(now)) {
                    flight.record(answered(now - took, now), at(now));
                }
            }
        }
        let now = 11 * 60_000 + 5_000;
        let times = slowest(&flight, now);
        assert_eq!(times.len(), limits::SLOW_REQUESTS_KEPT);
        assert!(times.iter().all(|time| *time > u128::from(2 * kept - kept / 10 - 1)), "{times:?}");
        assert!(flight.bytes() <= MINUTES_KEPT * 128 * size_of::<Recorded>());
        assert!(!flight.is_slow(ms(kept), at(now)) && flight.is_slow(ms(2 * kept + 1), at(now)));
        assert!(slowest(&flight, now + 11 * 60_000).is_empty(), "they are forgotten");
        assert!(flight.is_slow(ms(0), at(now + 60_000)), "a minute begins with anything");
    }

    #[test]
    fn what_the_shard_did_meanwhile_is_known_before_during_and_after() {
        let metrics = Rc::new(ShardMetrics::new());
        let clock = Rc::new(Cell::new(at(100)));
        let time = clock.clone();
        let snapshot = metrics.begin(Activity::Snapshot, move || time.get());
        metrics.flight.record(answered(90, 120), at(120));
        clock.set(at(150));
        drop(snapshot);
        metrics.flight.record(answered(140, 160), at(160));
        metrics.flight.record(answered(155, 165), at(165));
        metrics.flight.note(Activity::LateWakeup, at(130), at(160));
        metrics.flight.note(Activity::Segment, at(118), at(118));
        let met = metrics.flight.slowest(10, at(200), |_| true);
        let of = |request: &Recorded| -> Vec<(&str, u64)> {
            let met = Activity::ALL.into_iter().zip(request.meanwhile);
            met.filter_map(|(activity, time)| Some((activity.name(), time?.as_millis() as u64))).collect()
        };
        assert_eq!(of(&met[0]), [("segment", 0), ("snapshot", 20)]);
        assert_eq!(of(&met[1]), [("snapshot", 10), ("late-wakeup", 20)]);
        assert_eq!(of(&met[2]), [("late-wakeup", 5)]);
    }

    #[test]
    fn what_is_entered_goes_to_the_request_that_is_polled() {
        let flight = FlightRecorder::default();
        let (outer, inner) = (Cell::new(Timeline::at(at(1))), Cell::new(Timeline::at(at(2))));
        assert!(!flight.is_tracing());
        flight.waited(ms(9));
        block_on(flight.trace(&outer, async {
            flight.waited(ms(1));
            flight.trace(&inner, async { flight.placed(LogPosition(7), Level::Durable, at(5)) }).await;
            futures_lite::future::yield_now().await;
            flight.waited(ms(2));
        }));
        assert!(!flight.is_tracing());
        assert_eq!((outer.get().waited, outer.get().mark), (ms(3), None));
        assert_eq!(inner.get().mark, Some(LogMark { end: LogPosition(7), level: Level::Durable }));
    }

    #[test]
    fn while_somebody_measures_everything_is_entered() {
        let metrics = Rc::new(ShardMetrics::new());
        let kept = limits::SLOW_REQUESTS_KEPT as u64;
        (0..kept).for_each(|number| metrics.flight.record(answered(number, 100 + number), at(100 + number)));
        assert!(!metrics.flight.is_slow(ms(5), at(300)));
        let topic = || Measured { id: TopicId(3), name: "t".parse().expect("a good name") };
        let measuring: Vec<_> = (0..limits::MEASUREMENTS_MAX).map(|_| metrics.measure(topic())).collect();
        assert!(measuring.iter().all(Option::is_some) && metrics.measure(topic()).is_none());
        assert!(metrics.flight.is_slow(ms(5), at(300)));
        let mut request = answered(300, 305);
        request.subject.topic = RequestTopic::Id(TopicId(3));
        metrics.flight.record(request, at(305));
        assert_eq!(
            slowest(&metrics.flight, 400).len(),
            limits::SLOW_REQUESTS_KEPT,
            "it is not among the slowest"
        );
        for measuring in measuring.into_iter().flatten() {
            assert_eq!(measuring.take().info().kinds[0].total.count, 1);
        }
        assert!(!metrics.flight.is_slow(ms(5), at(300)));
    }

    #[test]
    fn only_the_brokers_time_counts() {
        let flight = FlightRecorder::default();
        let mut slow_peer = answered(5_000, 5_001);
        slow_peer.timeline.begun = at(0);
        flight.record(slow_peer, at(5_001));
        let mut waits = answered(5_000, 9_003);
        waits.timeline.woken(at(9_000));
        flight.record(waits, at(9_003));
        assert_eq!(slowest(&flight, 9_100), [3, 1]);
        let slowest =
            flight.slowest(1, at(9_100), |request| !request.times.get(RequestStage::Receive).is_zero());
        assert_eq!(slowest[0].times.get(RequestStage::Receive), ms(5_000));
    }
}
