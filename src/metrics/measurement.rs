//! Where the time of a topic's requests goes, for as long as somebody looks: every request of it is entered, slow or not.

use std::collections::BTreeMap;
use std::time::Duration;

use hdrhistogram::Histogram;

use super::flight_recorder::Recorded;
use super::{LATENCY_NS_MAX, summary};
use crate::api::{KindLatency, LatencyInfo, RequestProtocol, RequestStage, RequestTopic, StageTimes};
use crate::limits;
use crate::types::{TopicId, TopicName};

/// Two digits of a latency are kept: what differs by a hundredth is the same.
const DIGITS: u8 = 2;
/// Points of a curve for each step towards 100 % that is one nine more.
const POINTS_PER_NINE: u32 = 10;

/// What a share may be off by.
const ROUNDING: f64 = 1e-6;

/// The topic that is looked at.
#[derive(Clone, Debug)]
pub struct Measured {
    pub id: TopicId,
    pub name: TopicName,
}

/// What was entered so far.
#[derive(Clone, Debug, Default)]
pub struct Measurement {
    /// At most `limits::MEASURED_KINDS_MAX`; further ones are left out.
    kinds: BTreeMap<(RequestProtocol, &'static str), Kind>,
}

/// Requests of one kind.
#[derive(Clone, Debug)]
struct Kind {
    total: Spread,
    /// In the order of `RequestStage::ALL`.
    stages: Vec<Spread>,
}

/// One latency of all of them. Counters of 32 bits: a minute has fewer requests.
#[derive(Clone, Debug)]
struct Spread {
    histogram: Histogram<u32>,
    sum_ns: u64,
}

impl Measured {
    fn is_of(&self, topic: &RequestTopic) -> bool {
        match topic {
            RequestTopic::None => false,
            RequestTopic::Id(id) => *id == self.id,
            RequestTopic::Name(name) => *name == self.name,
        }
    }
}

impl Measurement {
    pub(super) fn enter(&mut self, of: &Measured, recorded: &Recorded) {
        if !of.is_of(&recorded.subject.topic) {
            return;
        }
        let key = (recorded.protocol, recorded.subject.kind);
        if self.kinds.len() < limits::MEASURED_KINDS_MAX || self.kinds.contains_key(&key) {
            self.kinds.entry(key).or_default().enter(&recorded.times);
        }
    }

    /// Takes in what another shard has.
    pub fn merge(&mut self, other: Measurement) {
        for (key, kind) in other.kinds {
            if self.kinds.len() < limits::MEASURED_KINDS_MAX || self.kinds.contains_key(&key) {
                self.kinds.entry(key).or_default().merge(&kind);
            }
        }
    }

    pub fn info(&self) -> LatencyInfo {
        let kinds = self.kinds.iter().map(|((protocol, kind), latencies)| KindLatency {
            protocol: *protocol,
            kind: (*kind).to_owned(),
            total: summary("total", &latencies.total.histogram),
            mean: latencies.total.mean(),
            curve: latencies.total.curve(),
            stages: RequestStage::ALL
                .into_iter()
                .zip(&latencies.stages)
                .map(|(stage, spread)| (spread.mean(), summary(stage.name(), &spread.histogram)))
                .collect(),
        });
        LatencyInfo { kinds: kinds.collect() }
    }
}

impl Default for Kind {
    fn default() -> Self {
        Self { total: Spread::default(), stages: vec![Spread::default(); RequestStage::ALL.len()] }
    }
}

impl Kind {
    fn enter(&mut self, times: &StageTimes) {
        self.total.enter(times.brokers());
        self.stages.iter_mut().zip(times.iter()).for_each(|(spread, (_, time))| spread.enter(time));
    }

    fn merge(&mut self, other: &Kind) {
        self.total.merge(&other.total);
        self.stages.iter_mut().zip(&other.stages).for_each(|(spread, other)| spread.merge(other));
    }
}

impl Default for Spread {
    fn default() -> Self {
        // Its memory grows with the largest latency, up to 15 KiB.
        let mut histogram = Histogram::new(DIGITS).expect("two digits");
        histogram.auto(true);
        Self { histogram, sum_ns: 0 }
    }
}

impl Spread {
    fn enter(&mut self, time: Duration) {
        let time = u64::try_from(time.as_nanos()).unwrap_or(LATENCY_NS_MAX).min(LATENCY_NS_MAX);
        // It grows up to `LATENCY_NS_MAX`: to saturate would keep it from that.
        let _ = self.histogram.record(time);
        self.sum_ns = self.sum_ns.saturating_add(time);
    }

    fn merge(&mut self, other: &Spread) {
        self.histogram.add(&other.histogram).expect("the histogram grows as it has to");
        self.sum_ns = self.sum_ns.saturating_add(other.sum_ns);
    }

    fn mean(&self) -> Duration {
        Duration::from_nanos(self.sum_ns / self.histogram.len().max(1))
    }

    /// Shares of all of them, and what each took no longer than: as many nines as there are requests for.
    fn curve(&self) -> Vec<(f64, Duration)> {
        let count = self.histogram.len() as f64;
        let share = |step: u32| 1.0 - 10_f64.powf(-f64::from(step) / f64::from(POINTS_PER_NINE));
        let told = (0..).map(share).take_while(|share| (1.0 - share) * count >= 1.0 - ROUNDING);
        let at = |share: f64| (share, Duration::from_nanos(self.histogram.value_at_quantile(share)));
        told.map(at).chain([(1.0, Duration::from_nanos(self.histogram.max()))]).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::RequestSubject;
    use crate::types::MonotonicTime;

    fn recorded(kind: &'static str, topic: RequestTopic, flush_us: u64) -> Recorded {
        let mut times = StageTimes::default();
        times.set(RequestStage::Flush, Duration::from_micros(flush_us));
        times.set(RequestStage::Wait, Duration::from_secs(1));
        Recorded {
            protocol: RequestProtocol::Native,
            subject: RequestSubject { topic, ..RequestSubject::of(kind) },
            client: None,
            sent: MonotonicTime(0),
            times,
            meanwhile: Default::default(),
        }
    }

    #[test]
    fn requests_of_the_topic_are_entered_by_their_kinds() {
        let name: TopicName = "orders".parse().expect("a good name");
        let of = Measured { id: TopicId(7), name: name.clone() };
        let (mut here, mut there) = (Measurement::default(), Measurement::default());
        for flush in 1..=1_000 {
            here.enter(&of, &recorded("produce", RequestTopic::Id(TopicId(7)), flush));
        }
        there.enter(&of, &recorded("produce", RequestTopic::Name(name), 5_000));
        there.enter(&of, &recorded("fetch", RequestTopic::Id(TopicId(7)), 1));
        there.enter(&of, &recorded("fetch", RequestTopic::Id(TopicId(8)), 1));
        there.enter(&of, &recorded("fetch", RequestTopic::None, 1));
        here.merge(there);
        let info = here.info();
        let kinds: Vec<_> = info.kinds.iter().map(|kind| (kind.kind.as_str(), kind.total.count)).collect();
        assert_eq!(kinds, [("fetch", 1), ("produce", 1_001)]);
        let produce = &info.kinds[1];
        assert!((495_000..=515_000).contains(&produce.total.p50_ns), "{:?}", produce.total);
        assert_eq!(produce.mean, Duration::from_nanos((500_500_000 + 5_000_000) / 1_001));
        assert!(produce.total.max_ns >= 5_000_000 && produce.total.max_ns < 5_100_000);
        let (mean, flush) = &produce.stages[RequestStage::Flush as usize];
        assert_eq!((*mean, flush.stage.as_str(), flush.count), (produce.mean, "flush", 1_001));
        // Three nines, and the last point.
        assert_eq!(produce.curve.len(), 32);
        assert!(produce.curve.is_sorted_by(|one, other| one.0 < other.0 && one.1 <= other.1));
    }

    #[test]
    fn kinds_are_bounded() {
        let names: Vec<&'static str> = (0..20).map(|number| &*format!("kind-{number}").leak()).collect();
        let of = Measured { id: TopicId(7), name: "orders".parse().expect("a good name") };
        let mut measurement = Measurement::default();
        for name in names {
            measurement.enter(&of, &recorded(name, RequestTopic::Id(TopicId(7)), 1));
        }
        assert_eq!(measurement.info().kinds.len(), limits::MEASURED_KINDS_MAX);
    }
}
