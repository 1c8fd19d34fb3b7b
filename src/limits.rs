//! Every bound in the system, and how the bounds relate. Reaching one has a named outcome where it is enforced.

/// Unit of alignment of everything on disk. Devices with 512-byte sectors take it as well; 4096 is the physical sector.
pub const BLOCK_BYTES: usize = 4096;
/// A group is written in pieces of this size, in parallel: the device is at its best with a few of them in flight, and
/// each costs an operation.
pub const PIECE_BYTES: usize = 256 * 1024;
/// A group of this much is worth a write beside the flush of the one before it; a smaller one is written and flushed in
/// one operation. Up to here a device's time for a write is that of the operation, beyond it that of the bytes.
pub const GROUP_OVERLAP_BYTES: usize = 128 * 1024;
/// A write or a flush that takes this long is told as a stall of the disk: a hundred times what one takes, and what the slowest
/// message in ten thousand may take at most.
pub const DISK_STALL: std::time::Duration = std::time::Duration::from_millis(50);
/// A core that looks at its rings no earlier than after this much of its time is told as a long turn: the longest single thing
/// that it does for a client, a step of a handshake with a large RSA key, takes half of it.
pub const LONG_TURN: std::time::Duration = std::time::Duration::from_millis(10);
/// Of the slowest requests, as many are kept of each of the last minutes.
pub const SLOW_REQUESTS_KEPT: usize = 100;
pub const SLOW_REQUESTS_MINUTES: usize = 10;
/// And so many are told at once, over all shards.
pub const SLOW_REQUESTS_MAX: u32 = 1_000;
/// So many look at a topic's latencies at once, on each shard, each at so many kinds of requests, and for so long.
pub const MEASUREMENTS_MAX: usize = 2;
pub const MEASURED_KINDS_MAX: usize = 6;
pub const MEASURED_MS_MAX: u32 = 60_000;
/// So many long polls that become due at once are a storm.
pub const WAKE_STORM: usize = 64;
/// Bytes of the index that are written at once.
pub const INDEX_PIECE_BYTES: usize = 128 * 1024;
/// A group that holds this much takes no further batch; its producers wait for the swap. A single larger batch makes
/// a group of its own.
pub const GROUP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Body of one message: RocketMQ's `maxMessageSize`.
pub const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Key, tag and properties of one message: each is counted in 16 bits; RocketMQ stops at 32,767 for properties.
pub const KEY_BYTES_MAX: usize = 32_767;
pub const TAG_BYTES_MAX: usize = 32_767;
pub const PROPERTIES_BYTES_MAX: usize = 32_767;
/// A batch as stored, header included: one message of the largest size fits with all its properties.
pub const BATCH_BYTES_MAX: usize = BODY_BYTES_MAX + 128 * 1024;
/// What is placed in the log in one step: a batch, and the change of state that belongs to it.
pub const PLACED_BYTES_MAX: usize = BATCH_BYTES_MAX + 64 * 1024;
/// Messages in one batch.
pub const BATCH_RECORDS_MAX: u32 = 65_536;
/// How long a single message waits for space in the log before it is refused: a device that has taken no group for so long
/// will not take the next one soon, and whoever sends can still tell that nothing is stored.
pub const PUBLISH_WAIT_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Connections to the admin address. A newcomer takes the place of the one that has said nothing for longest.
pub const ADMIN_CONNECTIONS_MAX: usize = 64;
/// The body of a request to the admin address.
pub const ADMIN_BODY_BYTES_MAX: usize = 1024 * 1024;

/// Topics that metrics have series of, and pairs of a group and a topic: a scrape of so many has some 10 MiB.
pub const METRICS_TOPICS_MAX: usize = 2_048;
pub const METRICS_PAIRS_MAX: usize = 4_096;

/// The configuration file; one has a few hundred bytes.
pub const CONFIG_FILE_BYTES_MAX: u64 = 1024 * 1024;
/// A certificate is warned of when a third of its life is left, and at least this long before its end.
pub const CERTIFICATE_SOON_MS: u64 = 14 * 24 * 60 * 60 * 1000;

/// Envelope of a frame. The largest are answers: a topic described with 65,536 queues takes 1.5 MiB, a list of 40,000
/// topics about 3. A list that does not fit is refused as a whole.
pub const ENVELOPE_BYTES_MAX: usize = 3 * 1024 * 1024;
/// What the description of a group or a topic has room for of those who consume.
pub const SHOWN_CONSUMERS_BYTES_MAX: usize = ENVELOPE_BYTES_MAX / 4;
/// A frame: envelope and payload.
pub const FRAME_BYTES_MAX: usize = 8 * 1024 * 1024;
/// What one fetch returns at most, beyond the first batch.
pub const FETCH_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Fetches of one connection that read the disk at the same time ask for `FETCH_BYTES_MAX` together, where each counts for
/// at least this.
pub const FETCH_SHARE_BYTES_MIN: usize = 1024 * 1024;
/// The longest wait of a fetch, milliseconds.
pub const FETCH_WAIT_MS_MAX: u32 = 60_000;
/// Queues of one watch: 16 KiB.
pub const WATCH_QUEUES_MAX: usize = 1_024;

/// Messages that one receive leases: RocketMQ's bound for POP; the HTTP protocol stops at 16.
pub const RECEIVE_MESSAGES_MAX: u32 = 32;
/// What one receive returns at most, beyond the first message.
pub const RECEIVE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Topics of one page of figures, and groups; of pages that tell ages, which take looks into the index for each queue, fewer.
pub const STATS_TOPICS_MAX: usize = 2_048;
pub const STATS_GROUPS_MAX: usize = 1_024;
pub const STATS_AGED_MAX: usize = 256;
/// Topics of all groups of one page together.
pub const STATS_GROUP_TOPICS_MAX: usize = 4_096;
/// Filters that are remembered of the receivers of one group in one topic.
pub const RECEIVER_FILTERS_MAX: usize = 16;
pub const ACKNOWLEDGE_RECEIPTS_MAX: usize = 256;
/// The longest wait of a receive, milliseconds.
pub const RECEIVE_WAIT_MS_MAX: u32 = 60_000;
/// Batches that a shard keeps because a receive took only some of their messages.
pub const RECEIVE_CACHE_BYTES: usize = 8 * 1024 * 1024;
/// Leases, milliseconds.
pub const LEASE_MS_MIN: u64 = 1_000;
pub const LEASE_MS_MAX: u64 = 43_200_000;
/// Messages of one shard that were delivered to some group and not acknowledged, within their lease or after its end.
/// Each costs up to about 140 bytes of memory, when it was received alone.
pub const SHARD_LEASED_MESSAGES_MAX: usize = 262_144;
/// Pairs of a group and a queue of one shard from which it has received: one costs 150 to 500 bytes of memory, and its
/// name and 60 bytes in each checkpoint.
pub const SHARD_LEASE_PAIRS_MAX: usize = 262_144;
/// Pairs of a group that has received nothing yet and a queue, of which a shard remembers how far a filter has looked.
pub const SHARD_PASSED_MAX: usize = 65_536;
/// Pairs of a group and a queue in which the group was moved while RocketMQ's clients read, and these have not heard of it.
pub const SHARD_RESETS_MAX: usize = 16_384;
/// Pairs of a group and a queue of which a shard remembers how far RocketMQ's clients were given messages.
pub const SHARD_GIVEN_MAX: usize = 65_536;
/// Pairs of a group and a topic of which a shard counts what RocketMQ's clients were given of late.
pub const SHARD_RATES_MAX: usize = 4_096;
/// Messages of one shard that wait for a producer's decision, or for a time that the clock had passed once.
pub const SHARD_HALVES_MAX: usize = 262_144;
/// Delayed messages of one shard that were taken back, and whose time has not come.
pub const SHARD_RECALLS_MAX: usize = 65_536;
/// Whoever has less than this of a table that all share gets more until the table is full; the others share three
/// quarters of it, and nobody has more of those than is left.
pub const SHARE_GUARANTEED: usize = 64;
/// The same of memory that all share.
pub const SHARE_BYTES_GUARANTEED: usize = 16 * 1024;
/// How far ahead a delivery time may lie: forty days, milliseconds.
pub const DELAY_MS_MAX: u64 = 40 * 24 * 3_600_000;
/// Levels of delays that a node can have.
pub const DELAY_LEVELS_MAX: usize = 1_024;
pub const FIND_MESSAGES_MAX: u32 = 64;

pub const TOPIC_NAME_BYTES_MAX: usize = 127;
pub const GROUP_NAME_BYTES_MAX: usize = 255;
pub const MEMBER_NAME_BYTES_MAX: usize = 255;
pub const TOPIC_QUEUES_MAX: u32 = 65_536;
pub const TOPICS_MAX: usize = 65_536;
/// Topics of a node beyond which none is made by first use; by command there can be more.
pub const AUTO_CREATE_TOPICS_MAX: usize = 1_024;
/// Topics of groups' retries and dead letters, which clients cause to be made: two of each group, and half of all topics.
pub const GROUP_TOPICS_MAX: usize = 2 * GROUPS_MAX;
/// Queues of all topics on one shard: each costs memory even when empty.
pub const SHARD_QUEUES_MAX: usize = 131_072;
pub const GROUPS_MAX: usize = 16_384;
/// The shortest retention that an operator can ask for: after less nobody has read a message.
pub const RETENTION_MIN: std::time::Duration = std::time::Duration::from_secs(1);
/// A group that was not used for less than this is never forgotten: its clients may be between two calls.
pub const GROUP_IDLE_MIN: std::time::Duration = std::time::Duration::from_secs(60);
pub const GROUP_MEMBERS_MAX: usize = 1_024;
/// Topics that one member of a group consumes, and those of all members of a group, each counted for every member.
pub const MEMBER_TOPICS_MAX: usize = 1_024;
pub const GROUP_MEMBER_TOPICS_MAX: usize = 65_536;
/// What a member counts for beyond its names, a topic of a member beyond its name, and a queue of a group's topics: who is to
/// have it, who has it, and whether receivers may.
pub const MEMBER_BYTES: usize = 512;
pub const MEMBER_TOPIC_BYTES: usize = 64;
pub const GROUP_QUEUE_BYTES: usize = 160;
/// Committed offsets over all groups on one shard.
pub const SHARD_OFFSETS_MAX: usize = 524_288;
/// Commits of readers that a shard stores together.
pub const READER_COMMITS_MAX: usize = 4_096;
/// Queues that clients have to themselves, over all groups on one shard, and how many of them are given in one record.
pub const SHARD_QUEUE_LOCKS_MAX: usize = 131_072;
pub const QUEUE_LOCKS_PLACED_MAX: usize = 1_024;
/// A shorter lease of a queue would end between two words of its client.
pub const LOCK_LEASE_MIN: std::time::Duration = std::time::Duration::from_secs(1);
/// Messages that wait for their time, of one list of them.
pub const DELAYED_TOLD_MAX: usize = 64;
/// Dead letters of one redrive: each takes a flush or three.
pub const REDRIVE_MESSAGES_MAX: usize = 64;
/// Ranges of dead letters that were redriven, over all groups on one shard, and those of one answer. A range is one dead letter, or
/// many that follow each other.
pub const SHARD_REDRIVEN_RANGES_MAX: usize = 131_072;
pub const REDRIVEN_RANGES_TOLD_MAX: usize = 4_096;
/// What a shard remembers of those who receive, and of their filters.
pub const SHARD_RECEIVERS_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Messages of one receive over HTTP, and receipt handles of one acknowledgement: what the vendor's HTTP clients are told.
pub const HTTP_RECEIVE_MESSAGES_MAX: usize = 16;
/// The longest wait of a receive over HTTP, seconds; its clients' sockets time out after 60.
pub const HTTP_RECEIVE_WAIT_SECONDS_MAX: u64 = 30;
pub const RECEIPT_HANDLE_BYTES_MAX: usize = 1_024;
pub const INSTANCE_NAME_BYTES_MAX: usize = 64;
/// Instances that were made by command; a change of them says them all.
pub const INSTANCES_MAX: usize = 1_024;
/// Tags in a filter.
pub const FILTER_TAGS_MAX: usize = 256;
/// The tags of a filter together: what an HTTP request can name.
pub const FILTER_BYTES_MAX: usize = HTTP_HEADER_BYTES_MAX;
/// An SQL92 expression, and what it is made of: properties, constants, comparisons and what joins them. It is evaluated for
/// message after message, so it takes microseconds at most.
pub const EXPRESSION_BYTES_MAX: usize = 8 * 1024;
pub const EXPRESSION_PARTS_MAX: usize = 1_024;
/// Levels of an expression, in brackets or not: each takes a frame of the stack.
pub const EXPRESSION_DEPTH_MAX: usize = 64;
/// Expressions of groups that a shard keeps ready for its pulls.
pub const REMOTING_EXPRESSIONS_MAX: usize = 64;
/// The text of a property that is compared as a number.
pub const EXPRESSION_NUMBER_BYTES_MAX: usize = 1_024;
/// Session time-out of a group member, milliseconds.
pub const SESSION_TIMEOUT_MS_MIN: u32 = 1_000;
pub const SESSION_TIMEOUT_MS_MAX: u32 = 300_000;
/// A member whose connection has ended is waited for this long, milliseconds: clients connect again within a second.
pub const MEMBER_GRACE_MS: u64 = 2_000;
/// Members that consumed before a start are waited for this long, milliseconds: nobody else is taken into their group.
pub const MEMBERS_EXPECTED_MS: u64 = 30_000;
/// Groups whose members joined over one connection and whose sessions end with it; those of further ones time out.
pub const CONNECTION_GROUPS_MAX: usize = 64;
/// A group's receivers keep their share of the queues this long after the end of their last receive.
pub const RECEIVERS_SESSION_MS: u64 = 30_000;

pub const SHARDS_MAX: u16 = 256;
pub const SEGMENT_BYTES_MIN: u64 = 16 * 1024 * 1024;
pub const SEGMENT_BYTES_MAX: u64 = 16 * 1024 * 1024 * 1024;
pub const SEGMENT_BYTES_DEFAULT: u64 = 1024 * 1024 * 1024;

/// Direct reads are cut at this size; a few are in flight at once.
pub const READ_BYTES: usize = 256 * 1024;
pub const READS_IN_FLIGHT_MAX: usize = 4;
/// What a shard keeps of what it has read for those who look into batches, where it has so much for what is read ahead.
pub const STRETCHES_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Written buffers kept for readers at the tail, per shard.
pub const TAIL_CACHE_BYTES: usize = 64 * 1024 * 1024;

/// What clients may cause of memory on one shard, whatever the machine has: see `types/client_memory.rs`. The least lets
/// one largest request and one largest answer in; more than the most would serve nobody.
pub const SHARD_CLIENT_MEMORY_BYTES_MIN: usize = 16 * 1024 * 1024;
pub const SHARD_CLIENT_MEMORY_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// What a machine is taken to have that does not say.
pub const MEMORY_BYTES_UNKNOWN: u64 = 1024 * 1024 * 1024;

/// Files of a shard that are open because they were read: sealed segments, index segments and key runs. Between the two
/// as many as the process's limit of open files allows.
pub const SHARD_FILES_MIN: usize = 4;
pub const SHARD_FILES_MAX: usize = 1_024;
/// Connections for which there was no room, and which are kept for a second, so that the reason reaches the client.
pub const REFUSED_CONNECTIONS_MAX: usize = 4;

/// A shard of which no more than this is read and written in a second is at rest: memory that was freed goes back then, when
/// the process is larger than it was by so much.
pub const REST_BYTES_PER_SECOND_MAX: u64 = 1024 * 1024;
pub const REST_MEMORY_BYTES_MIN: u64 = 8 * 1024 * 1024;

/// What a connection counts for that has not said what it speaks: its task.
pub const CONNECTION_SILENT_BYTES: usize = 4 * 1024;
/// So many of these are let in though there is no memory left for connections: one of them may be somebody else's turn.
pub const CONNECTIONS_SILENT_BESIDE: usize = 64;
/// What an open connection counts for, whatever it does, once it has: its tasks, its small buffers, and the few requests that may
/// wait without a share of their own.
pub const CONNECTION_BYTES: usize = 20 * 1024;
/// Of which: the buffer that requests come into. Larger ones take a share of what the shard has for them.
pub const CONNECTION_BUFFER_BYTES: usize = 8 * 1024;
/// What TLS adds to a connection: its session, a record that has come in part, what the socket does not take.
pub const TLS_CONNECTION_BYTES: usize = 40 * 1024;
/// Requests of a connection that may wait without a share.
pub const CONNECTION_WAITS_FREE: usize = 2;
/// What a waiting request counts for, beyond what it carries.
pub const WAIT_BYTES: usize = 4 * 1024;
/// What one counts for that waits as an entry, without a task: see `server/parked.rs`.
pub const PARKED_BYTES: usize = 1024;
/// What such a request may carry: the receipts of all messages of one receive.
pub const WAIT_CARRIED_BYTES_FREE: usize = 2 * 1024;
/// And what each queue of a watch does.
pub const WATCHED_QUEUE_BYTES: usize = 192;
/// A connection that has received and sent nothing for so many seconds may have to give way to a new one, wherever both come from.
pub const REST_SECONDS_MIN: u64 = 60;
/// Seconds that a request's next bytes wait for memory before the request is refused and its connection ended.
pub const MEMORY_WAIT_SECONDS: u64 = 30;
/// While others wait for memory, who moves less than this in a second, twice in a row, is ended; and a request that has been
/// coming for longer than the seconds below.
pub const SHORTAGE_BYTES_PER_SECOND_MIN: u64 = 64 * 1024;
pub const SHORTAGE_REQUEST_SECONDS_MAX: u64 = 10;
/// Connections of one shard that have not said yet what they speak. With more, the oldest of them goes.
pub const CONNECTIONS_SILENT_MAX: usize = 1_024;
/// New connections that one listener takes in one interval; those beyond wait in the kernel's queue. Each costs as much as
/// dozens of messages, which would wait for it.
pub const ACCEPTS_PER_INTERVAL: u32 = 8;
pub const ACCEPT_INTERVAL_MS: u64 = 4;
/// Connections of one shard.
pub const CONNECTIONS_MAX: usize = 16_384;
/// Characters of an access key's id.
pub const ACCESS_KEY_ID_BYTES_MAX: usize = 256;
/// A native client of a broker with access keys has this long to prove one.
pub const PROOF_SECONDS: u64 = 10;
/// Frame of a native client that has proved no key: its proof is far smaller.
pub const UNPROVED_FRAME_BYTES_MAX: usize = 4 * 1024;
/// Proofs that fail from one address (of IPv6, one network of 64 bits) at once on one shard, signatures
/// over HTTP among them; one more each second. Beyond them no proof from there is looked at.
pub const FAILED_PROOFS_MAX: u32 = 30;
/// Addresses whose failed proofs a shard remembers. With more, the one that failed the longest ago is forgotten.
pub const FAILED_PROOF_ADDRESSES_MAX: usize = 1_024;
/// Requests of one connection that wait for something other than the log's next group.
pub const CONNECTION_WAITING_MAX: usize = 256;
/// Those of them that can do nothing but wait for a message, each an entry: a consumer has one for each of its queues.
pub const CONNECTION_PARKED_MAX: usize = 16_384;
/// Those of a connection's that were called, and could not be answered where they stood, are carried out so many at a time.
pub const CONNECTION_CALLED_MAX: usize = 4;
/// Answers that a connection has not read yet. Beyond it nothing is read from the connection, and a client that reads
/// nothing for `CLIENT_STALL_SECONDS` is dropped.
pub const CONNECTION_ANSWER_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Answers refer to the buffers that were written or read until a connection holds this much that way, all of them counted;
/// what goes beyond is copied. So a slow reader pins no more than this, however small a part of each buffer it gets.
pub const CONNECTION_SHARED_BYTES_MAX: usize = 7 * 1024 * 1024;
/// A part of a buffer that is shorter is copied: that costs less than sending it on its own.
pub const SHARED_SLICE_BYTES_MIN: usize = 16 * 1024;
pub const CLIENT_STALL_SECONDS: u64 = 30;
/// When all answers of a shard that were not read yet hold this much, a connection gets its next one only once it has
/// read the last.
pub const SHARD_ANSWER_BYTES_MAX: usize = 256 * 1024 * 1024;
/// Of the requests waiting in a shard's mailbox, those that may wait there for messages: the rest is for work.
pub const MAILBOX_WAITS_MAX: usize = 512;
/// Requests waiting in a shard's mailbox.
pub const MAILBOX_REQUESTS_MAX: usize = 1_024;

/// Request line and header fields of an HTTP request: a filter of long tags is the largest thing that belongs there.
pub const HTTP_HEADER_BYTES_MAX: usize = 64 * 1024;
/// Header fields of a request. hyper's own bound, which takes no memory as long as it is not changed.
pub const HTTP_HEADER_FIELDS_MAX: usize = 100;
/// Body of an HTTP request: the largest message with half as much again for what XML escapes.
pub const HTTP_BODY_BYTES_MAX: usize = 6 * 1024 * 1024;
/// A frame of RocketMQ's own protocol, its length word included: what stock decoders take.
pub const REMOTING_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Header of such a frame: the properties of a message may take six times their bytes in it, and its other fields little.
pub const REMOTING_HEADER_BYTES_MAX: usize = 512 * 1024;
/// Body of such a frame that is read: one message of the largest size, or a batch of as much. A larger one is passed over.
pub const REMOTING_BODY_BYTES_MAX: usize = BODY_BYTES_MAX;
/// Fields of a header; a send has twenty.
pub const REMOTING_FIELDS_MAX: usize = 1_024;
/// Depth of arrays and objects in JSON; the protocol's have six.
/// Settings that one request may change: as many as there are, and some.
pub const SETTING_CHANGES_MAX: usize = 64;
/// Bytes of a setting's name and value together: the list of delay levels is the longest.
pub const SETTING_CHANGE_BYTES_MAX: usize = 4 * 1024;
pub const REMOTING_JSON_DEPTH_MAX: usize = 32;
/// A connection, or a client, of which nothing comes for this long is gone, as in RocketMQ, whose clients say something every 30
/// seconds.
pub const REMOTING_SILENCE_SECONDS: u64 = 120;
/// Clients of one shard, each known by its id, and of one connection; groups that one of them consumes as.
pub const REMOTING_CLIENTS_MAX: usize = CONNECTIONS_MAX;
pub const REMOTING_CONNECTION_CLIENTS_MAX: usize = 16;
pub const REMOTING_CLIENT_GROUPS_MAX: usize = 64;
/// The name of a group that a client consumes as: with `%RETRY%` before it, it is as long as a topic's.
pub const REMOTING_GROUP_BYTES_MAX: usize = 120;
/// Topics that a client subscribes to, over all of its groups, and the bytes of their names and expressions.
pub const REMOTING_CLIENT_SUBSCRIPTIONS_MAX: usize = 4_096;
pub const REMOTING_CLIENT_SUBSCRIPTION_BYTES_MAX: usize = 256 * 1024;
pub const REMOTING_CLIENT_ID_BYTES_MAX: usize = 512;
/// Requests of the broker's that wait for one client's answer.
pub const REMOTING_ASKED_MAX: usize = 64;
/// What one pull returns at most, beyond the first message: RocketMQ's bound for what is in memory. Its brokers stop at 32
/// messages, however many a client asks for.
pub const PULL_BYTES_MAX: usize = 256 * 1024;
pub const PULL_MESSAGES_MAX: usize = 1_024;
/// The name of a node, or of a cluster.
pub const NODE_NAME_BYTES_MAX: usize = 64;
/// Brokers of others that a name server knows of, and the memory that their topics take together.
pub const NAMESRV_BROKERS_MAX: usize = 1_024;
pub const NAMESRV_TABLE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// The name of a broker, a cluster, a topic or an address that is registered.
pub const NAMESRV_NAME_BYTES_MAX: usize = 512;
/// Topics of one registration, and its bytes once it is no longer compressed.
pub const NAMESRV_TOPICS_MAX: usize = 65_536;
pub const NAMESRV_REGISTRATION_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Settings that a name server keeps, with their names.
pub const NAMESRV_SETTINGS_BYTES_MAX: usize = 1024 * 1024;
/// Values in the JSON of one body: each takes 56 bytes of memory. A topic of a broker that registers takes ten.
pub const REMOTING_JSON_VALUES_MAX: usize = 262_144;
/// TLS handshakes that a shard has under way. One beyond them takes the place of the oldest that comes from where the most do.
pub const SHARD_HANDSHAKES_MAX: usize = 256;
/// Depth of elements in an XML document; the protocol's have three.
pub const XML_DEPTH_MAX: usize = 16;
/// Attributes of one element; the protocol's have none but perhaps a name space.
pub const XML_ATTRIBUTES_MAX: usize = 16;

const _: () = assert!(PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(GROUP_BYTES_MAX.is_multiple_of(PIECE_BYTES));
const _: () = assert!(GROUP_OVERLAP_BYTES <= PIECE_BYTES);
const _: () = assert!(INDEX_PIECE_BYTES.is_multiple_of(BLOCK_BYTES));
const _: () = assert!(READ_BYTES.is_multiple_of(BLOCK_BYTES));
// The largest message fits a batch with its header, key, tag and properties.
const _: () =
    assert!(BODY_BYTES_MAX + KEY_BYTES_MAX + TAG_BYTES_MAX + PROPERTIES_BYTES_MAX + 4096 <= BATCH_BYTES_MAX);
// The largest batch fits a frame with its envelope, and a segment with its header block.
const _: () = assert!(BATCH_BYTES_MAX + ENVELOPE_BYTES_MAX <= FRAME_BYTES_MAX);
const _: () = assert!((PLACED_BYTES_MAX + 2 * BLOCK_BYTES) as u64 <= SEGMENT_BYTES_MIN);
// What is shared, and after it the answers to fetches, each with a batch beyond what was asked for, and one to a receive.
const _: () = assert!(
    CONNECTION_SHARED_BYTES_MAX
        + FETCH_BYTES_MAX
        + (FETCH_BYTES_MAX / FETCH_SHARE_BYTES_MIN + 1) * BATCH_BYTES_MAX
        <= CONNECTION_ANSWER_BYTES_MAX
);
// The answer to a receive is at most one message of the largest size, or several of less; and it fits a frame.
const _: () = assert!(RECEIVE_BYTES_MAX <= BATCH_BYTES_MAX);
const _: () = assert!(KEY_BYTES_MAX <= u16::MAX as usize && PROPERTIES_BYTES_MAX <= u16::MAX as usize);
const _: () = assert!(BODY_BYTES_MAX + TAG_BYTES_MAX + PROPERTIES_BYTES_MAX + 4096 <= HTTP_BODY_BYTES_MAX);
const _: () =
    assert!(HTTP_RECEIVE_MESSAGES_MAX * (RECEIPT_HANDLE_BYTES_MAX + 64) + 4096 <= HTTP_BODY_BYTES_MAX);
const _: () = assert!(CONNECTION_SILENT_BYTES < CONNECTION_BYTES);
const _: () = assert!(BATCH_BYTES_MAX < RECEIVE_CACHE_BYTES);
const _: () = assert!(MAILBOX_WAITS_MAX < MAILBOX_REQUESTS_MAX);
const _: () = assert!(PARKED_BYTES <= WAIT_BYTES && CONNECTION_WAITING_MAX <= CONNECTION_PARKED_MAX);
const _: () = assert!(
    CONNECTION_BUFFER_BYTES + CONNECTION_WAITS_FREE * (WAIT_BYTES + WAIT_CARRIED_BYTES_FREE)
        <= CONNECTION_BYTES
);
// The receipts of one receive are acknowledged without a share, each counted as 64 bytes.
const _: () = assert!(RECEIVE_MESSAGES_MAX as usize * 64 <= WAIT_CARRIED_BYTES_FREE);
const _: () = assert!(GROUP_IDLE_MIN.as_millis() >= RECEIVERS_SESSION_MS as u128);
const _: () = assert!(AUTO_CREATE_TOPICS_MAX <= TOPICS_MAX && 2 * GROUP_TOPICS_MAX <= TOPICS_MAX);
// One group may use every queue of a shard, whichever way.
const _: () = assert!(SHARD_QUEUES_MAX <= SHARD_LEASE_PAIRS_MAX && SHARD_QUEUES_MAX <= SHARD_OFFSETS_MAX);
const _: () = assert!(SHARD_QUEUES_MAX <= SHARD_QUEUE_LOCKS_MAX);
const _: () = assert!(
    QUEUE_LOCKS_PLACED_MAX * (GROUP_NAME_BYTES_MAX + REMOTING_CLIENT_ID_BYTES_MAX + 64) <= BATCH_BYTES_MAX
);
const _: () = assert!(GROUP_NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(REMOTING_GROUP_BYTES_MAX + "%RETRY%".len() == TOPIC_NAME_BYTES_MAX);
// The share of whoever is alone takes a receive, and those who have little find room when all others have their fill.
const _: () = assert!(SHARE_GUARANTEED >= RECEIVE_MESSAGES_MAX as usize);
const _: () = assert!(SHARD_LEASED_MESSAGES_MAX / 4 >= 256 * SHARE_GUARANTEED);
const _: () = assert!(SHARD_HALVES_MAX / 4 >= 256 * SHARE_GUARANTEED);
const _: () = assert!(SHARD_RECALLS_MAX / 4 >= 256 * SHARE_GUARANTEED);
const _: () = assert!(SHARD_QUEUE_LOCKS_MAX / 4 >= 256 * SHARE_GUARANTEED);
// All of them are repeated in one batch, each with 21 bytes.
const _: () = assert!(SHARD_RECALLS_MAX * 21 <= BATCH_BYTES_MAX / 2);
// Each with a byte for its length.
const _: () = assert!(INSTANCE_NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(INSTANCES_MAX * (INSTANCE_NAME_BYTES_MAX + 1) <= BATCH_BYTES_MAX / 2);
const _: () = assert!(INSTANCE_NAME_BYTES_MAX < TOPIC_NAME_BYTES_MAX);
const _: () = assert!(6 * PROPERTIES_BYTES_MAX + 64 * 1024 <= REMOTING_HEADER_BYTES_MAX);
const _: () = assert!(REMOTING_HEADER_BYTES_MAX + REMOTING_BODY_BYTES_MAX < REMOTING_FRAME_BYTES_MAX);
const _: () = assert!(HTTP_RECEIVE_MESSAGES_MAX <= u8::MAX as usize);
const _: () = assert!(HTTP_RECEIVE_MESSAGES_MAX <= RECEIVE_MESSAGES_MAX as usize);
const _: () = assert!(HTTP_RECEIVE_WAIT_SECONDS_MAX * 1_000 <= RECEIVE_WAIT_MS_MAX as u64);
// A page of figures fits an envelope: each entry has its name, and at most 128 bytes beside it; a topic of a group twice that.
const _: () = assert!(STATS_TOPICS_MAX * (TOPIC_NAME_BYTES_MAX + 256) <= ENVELOPE_BYTES_MAX / 2);
const _: () = assert!(
    STATS_GROUPS_MAX * (GROUP_NAME_BYTES_MAX + 128) + STATS_GROUP_TOPICS_MAX * (TOPIC_NAME_BYTES_MAX + 128)
        <= ENVELOPE_BYTES_MAX / 2
);
