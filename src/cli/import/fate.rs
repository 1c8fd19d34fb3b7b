//! What each line of the files becomes.

use serde::Serialize;

use crate::cli::import::files::TopicLine;

/// Topics that Apache's broker makes for itself.
const TOPICS_OF_ITS_OWN: [&str; 5] =
    ["TBW102", "SELF_TEST_TOPIC", "BenchmarkTest", "OFFSET_MOVED_EVENT", "TRANS_CHECK_MAX_TIME_TOPIC"];
const BEGINNINGS_OF_ITS_OWN: [&str; 4] = ["SCHEDULE_TOPIC_", "RMQ_SYS_", "rmq_sys_", "CID_RMQ_SYS_"];
/// Groups that every broker of Apache's has.
const GROUPS_OF_ITS_OWN: [&str; 11] = [
    "TOOLS_CONSUMER",
    "FILTERSRV_CONSUMER",
    "SELF_TEST_C_GROUP",
    "SELF_TEST_P_GROUP",
    "CLIENT_INNER_PRODUCER",
    "__MONITOR_CONSUMER",
    "CID_ONS-HTTP-PROXY",
    "CID_ONSAPI_PERMISSION",
    "CID_ONSAPI_OWNER",
    "CID_ONSAPI_PULL",
    "CID_SYS_RMQ_TRANS",
];

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Outcome {
    /// `topic`, `group` or `place`.
    pub kind: &'static str,
    pub name: String,
    pub fate: Fate,
    /// What differs, or why nothing was done.
    pub note: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Fate {
    /// Made, or would be.
    Made,
    /// Made, with something that differs.
    Approximated,
    /// It was there before, and stays as it is.
    Present,
    /// There is nothing to be made here.
    LeftOut,
    Failed,
}

impl Fate {
    pub fn word(self) -> &'static str {
        match self {
            Fate::Made => "made",
            Fate::Approximated => "approximated",
            Fate::Present => "present",
            Fate::LeftOut => "left out",
            Fate::Failed => "FAILED",
        }
    }
}

impl Outcome {
    pub fn new(kind: &'static str, name: &str, fate: Fate, note: impl Into<Option<String>>) -> Self {
        Self { kind, name: name.to_owned(), fate, note: note.into() }
    }
}

/// Why a topic of Apache's broker has none here; `None` where it has.
pub fn topic_of_its_own(topic: &TopicLine, names: &[String]) -> Option<&'static str> {
    let name = topic.name.as_str();
    let is_own =
        TOPICS_OF_ITS_OWN.contains(&name) || BEGINNINGS_OF_ITS_OWN.iter().any(|own| name.starts_with(own));
    if is_own {
        return Some("the broker's own");
    }
    if name.starts_with("%RETRY%") || name.starts_with("%DLQ%") {
        return Some("made anew when its group needs it");
    }
    // Brokers and clusters are topics to Apache's broker.
    let is_name = names.iter().any(|own| own == name || name.strip_suffix("_REPLY_TOPIC") == Some(own));
    is_name.then_some("the name of a broker or of a cluster")
}

pub fn group_of_its_own(name: &str) -> Option<&'static str> {
    let is_own = GROUPS_OF_ITS_OWN.contains(&name) || name.starts_with("CID_RMQ_SYS_");
    is_own.then_some("the broker's own")
}

/// What topics of RocketMQ are called that stand for a broker or a cluster: the names in front of `_REPLY_TOPIC`, and those that a
/// broker makes with permission 7 and one queue.
pub fn names_of_brokers(topics: &[TopicLine]) -> Vec<String> {
    let clusters = topics.iter().filter_map(|topic| topic.name.strip_suffix("_REPLY_TOPIC"));
    // PERM_INHERIT | PERM_READ | PERM_WRITE, which no tool gives.
    let marked = topics.iter().filter(|topic| topic.permission == 7 && topic.name != "TBW102");
    clusters.chain(marked.map(|topic| topic.name.as_str())).map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_apaches_broker_has_for_itself_is_left_out() {
        let line = |name: &str, permission| TopicLine {
            name: name.into(),
            read: 1,
            write: 1,
            permission,
            ordered: false,
            attributes: Vec::new(),
            changed: Vec::new(),
        };
        let topics = [
            line("DefaultCluster_REPLY_TOPIC", 6),
            line("DefaultCluster", 7),
            line("broker-a", 7),
            line("TBW102", 7),
            line("RMQ_SYS_TRANS_HALF_TOPIC", 6),
            line("rmq_sys_REVIVE_LOG_DefaultCluster", 6),
            line("%RETRY%billing", 6),
            line("orders", 6),
        ];
        let names = names_of_brokers(&topics);
        let kept: Vec<_> = topics.iter().filter(|topic| topic_of_its_own(topic, &names).is_none()).collect();
        assert_eq!(kept.iter().map(|topic| topic.name.as_str()).collect::<Vec<_>>(), ["orders"]);
        assert!(group_of_its_own("TOOLS_CONSUMER").is_some() && group_of_its_own("billing").is_none());
    }
}
