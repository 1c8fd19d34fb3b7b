//! The slowest requests of the node, for whoever asks where the time went.

use std::cmp::Reverse;
use std::time::Duration;

use super::client_requests::unexpected;
use super::peers::{PeerReply, PeerRequest, TimeRequest};
use super::shard_broker::Broker;
use super::topics::Others;
use crate::api::{
    Activity, Failure, LatencyInfo, ListSlow, MeasureLatency, RequestTopic, SlowRequest, Status,
};
use crate::disk::Disk;
use crate::limits;
use crate::metrics::{Measured, Measurement, Recorded, Underway};
use crate::types::{MonotonicTime, Timestamp, TopicName};

impl<D: Disk> Broker<D> {
    /// The slowest requests of all shards, the slowest first.
    pub(super) async fn list_slow(&self, list: &ListSlow) -> Result<Vec<SlowRequest>, Failure> {
        if let Some(shard) = list.shard.filter(|shard| shard.0 >= self.options.shard_count) {
            let last = self.options.shard_count - 1;
            return Err(Failure::invalid(format!("the node has shards 0 to {last}, not {shard}")));
        }
        let mut slowest = Vec::new();
        let ask = || PeerRequest::Time(TimeRequest::Slow(list.clone()));
        for reply in self.ask_all(ask, Others::AndThis).await? {
            match reply {
                PeerReply::Slow(requests) => slowest.extend(requests),
                other => return Err(unexpected(&other)),
            }
        }
        slowest.sort_by_key(|slow: &SlowRequest| Reverse(slow.times.brokers()));
        slowest.truncate(list.count as usize);
        Ok(slowest)
    }

    /// Answers what another shard asks, or this one.
    pub(super) async fn handle_time(&self, request: TimeRequest) -> Result<PeerReply, Failure> {
        match request {
            TimeRequest::Slow(list) => Ok(PeerReply::Slow(self.slow_here(&list))),
            TimeRequest::Measure { topic, time } => {
                self.measure_here(topic, time).await.map(PeerReply::Measured)
            }
        }
    }

    /// Those of this shard.
    fn slow_here(&self, list: &ListSlow) -> Vec<SlowRequest> {
        if list.shard.is_some_and(|shard| shard != self.options.shard) {
            return Vec::new();
        }
        let (now, wall) = (self.clock.monotonic(), self.clock.now());
        let wanted = |recorded: &Recorded| {
            list.protocol.is_none_or(|protocol| protocol == recorded.protocol)
                && list
                    .topic
                    .as_ref()
                    .is_none_or(|topic| self.topic_of_recorded(recorded).as_ref() == Some(topic))
        };
        let told = |recorded: Recorded| {
            let ago = now.since(recorded.sent).as_millis() as u64;
            let met = Activity::ALL.into_iter().zip(recorded.meanwhile);
            let meanwhile: Vec<(Activity, Duration)> =
                met.filter_map(|(activity, time)| Some((activity, time?))).collect();
            SlowRequest {
                shard: self.options.shard,
                answered: Timestamp(wall.0.saturating_sub(ago)),
                protocol: recorded.protocol,
                kind: recorded.subject.kind.to_owned(),
                topic: self.topic_of_recorded(&recorded),
                queue: recorded.subject.queue,
                offset: recorded.subject.offset,
                client: recorded.client,
                times: recorded.times,
                meanwhile,
            }
        };
        self.metrics.flight.slowest(list.count as usize, now, wanted).into_iter().map(told).collect()
    }

    /// Measures where the time of a topic's requests goes, on all shards, from now on and for as long as is asked.
    pub(super) async fn measure_latency(&self, measure: &MeasureLatency) -> Result<LatencyInfo, Failure> {
        let (id, _) = self.topic_layout(&measure.topic)?;
        let ask = || {
            let topic = Measured { id, name: measure.topic.clone() };
            PeerRequest::Time(TimeRequest::Measure { topic, time: measure.time })
        };
        let mut all = Measurement::default();
        for reply in self.ask_all(ask, Others::AndThis).await? {
            match reply {
                PeerReply::Measured(measurement) => all.merge(*measurement),
                other => return Err(unexpected(&other)),
            }
        }
        Ok(all.info())
    }

    /// Measures on this shard.
    async fn measure_here(&self, topic: Measured, time: Duration) -> Result<Box<Measurement>, Failure> {
        let Some(measuring) = self.metrics.measure(topic) else {
            let message = format!(
                "latencies are being measured by {} already: try again when they have ended",
                limits::MEASUREMENTS_MAX
            );
            return Err(Failure::new(Status::Busy, message));
        };
        self.clock.sleep(time).await;
        Ok(Box::new(measuring.take()))
    }

    /// Takes note of an activity that lasts until what is returned is dropped.
    pub(in crate::broker) fn underway(
        &self,
        activity: Activity,
    ) -> Underway<impl Fn() -> MonotonicTime + use<D>> {
        let clock = self.clock.clone();
        self.metrics.begin(activity, move || clock.monotonic())
    }

    /// The topic of a request, unless it is gone.
    fn topic_of_recorded(&self, recorded: &Recorded) -> Option<TopicName> {
        match &recorded.subject.topic {
            RequestTopic::None => None,
            RequestTopic::Id(id) => self.tables().topic(*id).map(|topic| topic.name.clone()),
            RequestTopic::Name(name) => Some(name.clone()),
        }
    }
}
