//! Requests that took long, and the stages of one, as `turbopump slow -o json` and the console have them.

use serde::{Serialize, Serializer};
use serde_json::{Map, Value};

use super::time::nanoseconds;
use crate::api::{SlowRequest, StageTimes};
use crate::types::TopicName;
use crate::types::calendar::rfc3339;

/// The slowest requests; programs rely on these names.
#[derive(Serialize)]
pub struct SlowView {
    requests: Vec<RequestView>,
}

#[derive(Serialize)]
struct RequestView {
    answered: String,
    shard: u16,
    protocol: &'static str,
    request: String,
    topic: Option<String>,
    queue: Option<u32>,
    offset: Option<u64>,
    client: Option<String>,
    /// The broker's part.
    total_ns: u64,
    stages_ns: StagesView,
    meanwhile_ns: Map<String, Value>,
}

/// Each stage with its nanoseconds, in the order of a request's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StagesView(pub StageTimes);

impl Serialize for StagesView {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(stage, time)| (stage.name(), nanoseconds(time))))
    }
}

impl SlowView {
    pub fn new(slow: &[SlowRequest]) -> Self {
        Self { requests: slow.iter().map(RequestView::new).collect() }
    }
}

impl RequestView {
    fn new(slow: &SlowRequest) -> Self {
        let meanwhile = slow.meanwhile.iter();
        Self {
            answered: rfc3339(slow.answered),
            shard: slow.shard.0,
            protocol: slow.protocol.name(),
            request: slow.kind.clone(),
            topic: slow.topic.as_ref().map(TopicName::to_string),
            queue: slow.queue.map(|queue| queue.0),
            offset: slow.offset.map(|offset| offset.0),
            client: slow.client.map(|client| client.to_string()),
            total_ns: nanoseconds(slow.times.brokers()),
            stages_ns: StagesView(slow.times),
            meanwhile_ns: meanwhile
                .map(|(activity, time)| (activity.name().to_owned(), nanoseconds(*time).into()))
                .collect(),
        }
    }
}
