//! The names of all settings of Apache's broker, and why most of them have nothing to set here.
//!
//! `names.txt` has those that 5.3 takes (the setters of `BrokerConfig`, `BrokerIdentity`, `MessageStoreConfig`, `NettyServerConfig`,
//! `NettyClientConfig`, `AuthConfig` and of the tiered store), and spellings of 4.x.

use super::properties::properties;

/// One on each line, in the order of their bytes.
const NAMES: &str = include_str!("names.txt");

/// Whether Apache's broker has a setting of that name.
pub fn is_known(name: &str) -> bool {
    NAMES.lines().any(|known| known == name)
}

/// Whether a file of settings is one for Apache's broker: no setting has the same name there and here.
pub fn has_names_of_apache(text: &str) -> bool {
    properties(text).iter().any(|property| is_known(&property.name))
}

/// What a part of a name says about why it means nothing here; the first that fits counts.
const REASONS: &[(&[&str], &str)] = &[
    (
        &[
            "ThreadPool",
            "ThreadNum",
            "Threads",
            "threadNums",
            "waitTimeMillsIn",
            "Executor",
            "SemaphoreValue",
        ],
        "each core has one thread, and a producer waits for room in the log, not for a thread",
    ),
    (
        &[
            "haL",
            "haM",
            "haS",
            "haT",
            "haH",
            "haF",
            "lave",
            "nSync",
            "Replicas",
            "dLeger",
            "DLeger",
            "DLedger",
            "ontroller",
            "syncMaster",
            "brokerElection",
            "Acting",
            "duplicationEnable",
            "SyncStateSet",
            "asyncLearner",
            "preferredLeader",
            "MemberGroup",
            "RemoteEscape",
            "syncFlush",
            "EpochFile",
            "BrokerMetadata",
            "skipPreOnline",
        ],
        "a shard has no replicas yet",
    ),
    (
        &["imer", "Delay", "cheduleAsync"],
        "a delay has no levels or slots inside: each message comes when it is due, up to 40 days ahead",
    ),
    (
        &["etric", "Stats", "account", "commercial"],
        "metrics are always kept: `turbopump status` shows them, and --admin serves them",
    ),
    (
        &["pop", "Pop", "revive", "Revive", "ppendAck", "ppendCk", "LongAwaitingAck", "CKRePut"],
        "POP is not spoken yet",
    ),
    (
        &["ocksDB", "ocksdb", "combine", "CombineCQ", "memTable", "ConsumeQueueStore", "storeType"],
        "the index is of this program's own kind",
    ),
    (&["iered"], "there is no second tier of storage"),
    (&["ompaction", "OffsetMap"], "topics are not compacted"),
    (
        &["olddata", "ColdData", "coldData", "cold", "Cold"],
        "old messages are read with fewer shares than new ones, always",
    ),
    (
        &["egister", "amesrv", "ameSrv", "NameServer", "AddressServer", "plitRegistration", "plitMetadata"],
        "the broker is its own name server: give clients the address of --namesrv",
    ),
    (
        &["elete", "clean", "Clean", "disk", "Disk", "destroy", "eserve"],
        "segments go when --retention-age or --retention-bytes says so, at any hour",
    ),
    (&["storePath", "StorePath", "Path"], "all files are below --data"),
    (
        &["ommitLog", "lush", "ransientStore", "apped", "aped", "warm", "swap", "Swap", "Lock", "ynchron"],
        "the log is written past the page cache in groups, and --level says what an answer waits for",
    ),
    (
        &["client", "server", "ocket", "etty", "hannel", "poll", "writeBuffer", "shutdownWait", "connect"],
        "each core looks after its own connections",
    ),
    (&["acl", "auth", "userCache", "stateful"], "who may do what stands in the file of --access-keys"),
    (&["onsumeQueue", "ispatch", "ndex", "HashSlot", "Cq", "CQ"], "the index follows the log by itself"),
];

/// Why a setting that Apache's broker has cannot be set here.
pub(super) fn reason(name: &str) -> &'static str {
    let fits = |parts: &[&str]| parts.iter().any(|part| name.contains(part));
    let found = REASONS.iter().find(|(parts, _)| fits(parts));
    found.map_or("nothing here has it to set", |(_, reason)| reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_in_order_and_each_there_once() {
        let names: Vec<_> = NAMES.lines().collect();
        assert!(names.is_sorted() && names.windows(2).all(|pair| pair[0] != pair[1]));
        assert!(is_known("brokerClusterName") && is_known("fileReservedTime") && !is_known("brokerNam"));
    }

    #[test]
    fn files_are_told_by_their_names() {
        assert!(has_names_of_apache("# a\nbrokerClusterName = DefaultCluster\n"));
        assert!(!has_names_of_apache("data = '/var/lib'\nlisten = '127.0.0.1:1'\n"));
        assert!(!has_names_of_apache(""));
    }

    #[test]
    fn a_reason_is_that_of_the_first_part() {
        assert!(reason("sendMessageThreadPoolNums").contains("one thread"));
        assert!(reason("haListenPort").contains("replicas"));
        assert!(reason("deleteWhen").contains("--retention-age"));
        assert!(reason("regionId").contains("nothing here"));
    }
}
