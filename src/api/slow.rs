//! Where the time of single requests went.

use std::fmt;
use std::net::IpAddr;
use std::time::Duration;

use super::reply::HistogramInfo;
use crate::types::{QueueKey, QueueNumber, QueueOffset, ShardId, Timestamp, TopicId, TopicName};

/// A part of a request's way through a shard. Together they are all of the time from its first byte to its answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestStage {
    /// From its first byte until all of it was there: the peer's time and the network's.
    Receive,
    /// Decoding and checking it.
    Parse,
    /// Waiting for its turn on its connection, for room in the open group or in the index.
    Queue,
    /// Waiting for messages to come, as its client has asked for.
    Wait,
    /// What else was done for it: looking up, reading, asking other shards.
    Work,
    /// In the open group, until the commit task took that.
    Append,
    /// Its group on the way to the device. Where write and flush are one operation, all of that is `Flush`.
    Device,
    /// The flush that made it durable.
    Flush,
    /// From there until its answer was handed to the system.
    Reply,
}

/// Time in each stage.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StageTimes([Duration; RequestStage::ALL.len()]);

/// What a shard does beside requests, and requests may have to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Activity {
    /// The log went on in another segment, and the one after that was made.
    Segment,
    Snapshot,
    /// Segments were removed that are older than anything is kept.
    Retention,
    /// The consume index was built anew.
    IndexRenewal,
    /// Many long polls were called at once.
    WakeStorm,
    /// The core ran nothing of the shard, or one task kept it.
    LateWakeup,
}

/// Over which protocol a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum RequestProtocol {
    Native,
    Http,
    Remoting,
}

/// What a request was about, as far as that is known without looking anything up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestSubject {
    /// What its protocol calls it.
    pub kind: &'static str,
    pub topic: RequestTopic,
    pub queue: Option<QueueNumber>,
    /// The first one that it stored or read.
    pub offset: Option<QueueOffset>,
}

/// The topic of a request, by whatever the request calls it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum RequestTopic {
    #[default]
    None,
    Id(TopicId),
    Name(TopicName),
}

/// A request that was slow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SlowRequest {
    pub shard: ShardId,
    /// When it was answered.
    pub answered: Timestamp,
    pub protocol: RequestProtocol,
    pub kind: String,
    /// `None`: it was about none, or the topic is gone.
    pub topic: Option<TopicName>,
    pub queue: Option<QueueNumber>,
    pub offset: Option<QueueOffset>,
    /// Where it came from, as far as that tells clients apart: of an IPv6 address the network.
    pub client: Option<IpAddr>,
    pub times: StageTimes,
    /// What the shard did meanwhile, and for how long of that time.
    pub meanwhile: Vec<(Activity, Duration)>,
}

/// Which slow requests are asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ListSlow {
    pub shard: Option<ShardId>,
    pub protocol: Option<RequestProtocol>,
    pub topic: Option<TopicName>,
    /// The slowest so many: 1 to `limits::SLOW_REQUESTS_MAX`.
    pub count: u32,
}

/// Where the time of a topic's requests went, by their kinds.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencyInfo {
    pub kinds: Vec<KindLatency>,
}

/// Requests of one kind, over all shards.
#[derive(Clone, Debug, PartialEq)]
pub struct KindLatency {
    pub protocol: RequestProtocol,
    pub kind: String,
    /// The broker's time of each.
    pub total: HistogramInfo,
    pub mean: Duration,
    /// A share of all of them took no longer than this; from few to all.
    pub curve: Vec<(f64, Duration)>,
    /// Each with its mean, in the order of [`RequestStage::ALL`].
    pub stages: Vec<(Duration, HistogramInfo)>,
}

/// What is to be measured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MeasureLatency {
    pub topic: TopicName,
    /// For how long: up to `limits::MEASURED_MS_MAX`.
    pub time: Duration,
}

impl RequestStage {
    /// In the order of a request's way.
    pub const ALL: [RequestStage; 9] = [
        RequestStage::Receive,
        RequestStage::Parse,
        RequestStage::Queue,
        RequestStage::Wait,
        RequestStage::Work,
        RequestStage::Append,
        RequestStage::Device,
        RequestStage::Flush,
        RequestStage::Reply,
    ];

    pub fn name(self) -> &'static str {
        match self {
            RequestStage::Receive => "receive",
            RequestStage::Parse => "parse",
            RequestStage::Queue => "queue",
            RequestStage::Wait => "wait",
            RequestStage::Work => "work",
            RequestStage::Append => "append",
            RequestStage::Device => "device",
            RequestStage::Flush => "flush",
            RequestStage::Reply => "reply",
        }
    }

    /// Whether it is the broker's time: not what the peer took to send, and not what it wanted to wait.
    pub fn is_brokers(self) -> bool {
        !matches!(self, RequestStage::Receive | RequestStage::Wait)
    }
}

impl StageTimes {
    pub fn get(&self, stage: RequestStage) -> Duration {
        self.0[stage as usize]
    }

    pub fn set(&mut self, stage: RequestStage, time: Duration) {
        self.0[stage as usize] = time;
    }

    /// Each stage with its time.
    pub fn iter(&self) -> impl Iterator<Item = (RequestStage, Duration)> + '_ {
        RequestStage::ALL.into_iter().zip(self.0)
    }

    /// The broker's part of the time: what makes a request slow.
    pub fn brokers(&self) -> Duration {
        self.iter().filter(|(stage, _)| stage.is_brokers()).map(|(_, time)| time).sum()
    }
}

/// As HTTP and RocketMQ's protocol say it: `receive=12034,parse=801,...,total=215000`, nanoseconds, where `total` is the broker's
/// part.
impl fmt::Display for StageTimes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (stage, time) in self.iter() {
            write!(formatter, "{}={},", stage.name(), time.as_nanos())?;
        }
        write!(formatter, "total={}", self.brokers().as_nanos())
    }
}

impl Activity {
    pub const ALL: [Activity; 6] = [
        Activity::Segment,
        Activity::Snapshot,
        Activity::Retention,
        Activity::IndexRenewal,
        Activity::WakeStorm,
        Activity::LateWakeup,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Activity::Segment => "segment",
            Activity::Snapshot => "snapshot",
            Activity::Retention => "retention",
            Activity::IndexRenewal => "index-renewal",
            Activity::WakeStorm => "wake-storm",
            Activity::LateWakeup => "late-wakeup",
        }
    }
}

impl RequestProtocol {
    pub const ALL: [RequestProtocol; 3] =
        [RequestProtocol::Native, RequestProtocol::Http, RequestProtocol::Remoting];

    pub fn name(self) -> &'static str {
        match self {
            RequestProtocol::Native => "native",
            RequestProtocol::Http => "http",
            RequestProtocol::Remoting => "remoting",
        }
    }
}

impl RequestSubject {
    /// A request of this kind about nothing in particular.
    pub fn of(kind: &'static str) -> Self {
        Self { kind, ..Self::default() }
    }

    /// One about a queue.
    pub fn of_queue(kind: &'static str, key: QueueKey, offset: Option<QueueOffset>) -> Self {
        Self { kind, topic: RequestTopic::Id(key.topic), queue: Some(key.queue), offset }
    }

    /// One about a topic.
    pub fn of_topic(kind: &'static str, topic: &TopicName) -> Self {
        Self { kind, topic: RequestTopic::Name(topic.clone()), ..Self::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_peer_takes_is_not_the_brokers_time() {
        let mut times = StageTimes::default();
        for (at, stage) in (1..).zip(RequestStage::ALL) {
            times.set(stage, Duration::from_micros(at));
        }
        assert_eq!(times.brokers(), Duration::from_micros(45 - 1 - 4));
        assert_eq!(
            times.to_string(),
            "receive=1000,parse=2000,queue=3000,wait=4000,work=5000,append=6000,device=7000,flush=8000,reply=9000,total=40000"
        );
    }

    #[test]
    fn numbers_of_variants_are_their_places() {
        assert!(RequestStage::ALL.iter().enumerate().all(|(at, stage)| *stage as usize == at));
        assert!(Activity::ALL.iter().enumerate().all(|(at, activity)| *activity as usize == at));
        assert!(RequestProtocol::ALL.iter().enumerate().all(|(at, protocol)| *protocol as usize == at));
    }
}
