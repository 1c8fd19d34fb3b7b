//! The settings of `serve`: one struct is both the flags and the configuration file, so their names cannot drift apart.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;

use serde::de::{self, Deserialize, Deserializer};

use crate::broker::LeaseDefaults;
use crate::cli::error::CommandError;
use crate::cli::log_level::{LogFormat, LogLevels};
use crate::cli::quantity::{ByteSize, CoreList, OrNone, Span};
use crate::node::{Place, ServeOptions, TlsMode};
use crate::types::{DelayLevels, Level};

/// What was said; what was not said keeps the default of [`ServeOptions`].
#[derive(Clone, Debug, Default, PartialEq, clap::Args, serde::Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ServeSettings {
    /// Data directory; made when missing
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Address of shard 0 [default: 127.0.0.1:10911]; shard S listens 10 * S ports higher
    #[arg(long, value_name = "ADDRESS")]
    pub listen: Option<SocketAddr>,
    /// One more address for the whole node: requests are forwarded to the shard they belong to
    #[arg(long, value_name = "ADDRESS")]
    pub node_listen: Option<SocketAddr>,
    /// Address to speak the HTTP access protocol on, by every core, or none [default, beside a --listen on loopback:
    /// 127.0.0.1:8080, if it is free]
    #[arg(long, value_name = "ADDRESS|none")]
    #[serde(deserialize_with = "from_text")]
    pub http: Option<OrNone<SocketAddr>>,
    /// Address of the name server that RocketMQ's clients are given, or none [default, beside a --listen on loopback:
    /// 127.0.0.1:9876, if it is free]; every shard's address is one as well
    #[arg(long, value_name = "ADDRESS|none")]
    #[serde(deserialize_with = "from_text")]
    pub namesrv: Option<OrNone<SocketAddr>>,
    /// Address of health and metrics, over HTTP, or none [default, beside a --listen on loopback:
    /// 127.0.0.1:5557, if it is free]
    #[arg(long, value_name = "ADDRESS|none")]
    #[serde(deserialize_with = "from_text")]
    pub admin: Option<OrNone<SocketAddr>>,
    /// Without access keys, let whoever reaches the admin address publish, reset groups and send dead letters again in its console
    /// [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub admin_writable: Option<bool>,
    /// Speak RocketMQ's own protocol, at every address [default: true]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub remoting: Option<bool>,
    /// Name of this node to RocketMQ's clients, which know shard S as the broker NAME-S; a data directory keeps it
    /// [default: the host's name]
    #[arg(long, value_name = "NAME")]
    pub node: Option<String>,
    /// Cluster that RocketMQ's tools show this node in [default: DefaultCluster]
    #[arg(long, value_name = "NAME")]
    pub cluster: Option<String>,
    /// TOML file of access keys: every request needs one that allows it; read again when it changes
    ///
    /// Each key has an id, a secret, and what it may do; what nothing allows is refused, and `admin = true` allows all:
    ///
    ///   [[keys]]
    ///   id = "shop"
    ///   secret = "a long random text"
    ///   publish = ["orders", "events-*"]
    ///   consume = [{ topic = "orders", group = "billing" }]
    ///
    /// A pattern is a name, with a `*` at its end for all that begin so. A topic of an instance is named INSTANCE%TOPIC.
    // A table of TOML is no link; a backslash would be seen in `--help`.
    #[allow(rustdoc::broken_intra_doc_links)]
    #[arg(long, value_name = "FILE", verbatim_doc_comment)]
    pub access_keys: Option<PathBuf>,
    /// Allow an address that other machines reach without access keys: whoever reaches it may do everything
    #[arg(long, alias = "http-open", value_name = "BOOL", num_args = 0..=1, require_equals = true)]
    #[arg(default_missing_value = "true")]
    #[serde(alias = "http-open")]
    pub open_to_everybody: Option<bool>,
    /// Speak HTTP at --http only, RocketMQ's protocol alone at --namesrv, and it and the native one at the others [default: each
    /// address speaks all]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub separate_protocols: Option<bool>,
    /// PEM file of a certificate (and those that vouch for it): every address speaks TLS; read again when it changes
    #[arg(long, alias = "http-certificate", value_name = "FILE")]
    #[serde(alias = "http-certificate")]
    pub tls_certificate: Option<PathBuf>,
    /// PEM file of the certificate's private key
    #[arg(long, alias = "http-key", value_name = "FILE")]
    #[serde(alias = "http-key")]
    pub tls_key: Option<PathBuf>,
    /// Who is let in without TLS: everybody (permissive), nobody (enforcing), or TLS is not spoken (disabled), as RocketMQ's
    /// tls.server.mode has it [default, with a certificate: the native protocol is spoken either way, HTTP within TLS only]
    #[arg(long, value_name = "disabled|permissive|enforcing")]
    #[serde(deserialize_with = "from_text")]
    pub tls_mode: Option<TlsMode>,
    /// How long a connection over HTTP is kept that carries no request [default: 10m]
    #[arg(long, value_name = "DURATION")]
    pub http_idle_timeout: Option<Span>,
    /// Host that clients are told to connect to [default: the address of --listen]
    #[arg(long, value_name = "HOST")]
    pub advertise: Option<String>,
    /// Shards of a new data directory [default: one per core]; it keeps them for life
    #[arg(long, value_name = "N")]
    pub shards: Option<u16>,
    /// Cores to run on, like 0,1 or 0-3 [default: all that this process may use]
    #[arg(long, value_name = "LIST")]
    pub cores: Option<CoreList>,
    /// Level of messages whose producer and topic name none [default: durable]
    #[arg(long, value_name = "durable|written|accepted")]
    #[serde(deserialize_with = "from_text")]
    pub level: Option<Level>,
    /// Size of a segment file of the log, 16MiB to 16GiB [default: 1GiB]; each shard takes one from the start on, and the next one
    /// once it is half full
    #[arg(long, value_name = "SIZE")]
    pub segment_bytes: Option<ByteSize>,
    /// Age at which messages may go, at least 1s, or none [default: 72h]; a topic can have its own
    #[arg(long, value_name = "DURATION|none")]
    pub retention_age: Option<OrNone<Span>>,
    /// Size of a shard's log beyond which its oldest segments go, or none [default: none]
    #[arg(long, value_name = "SIZE|none")]
    pub retention_bytes: Option<OrNone<ByteSize>>,
    /// Make topics by first use, when something is written to one that does not exist, with this many queues [default: off;
    /// 4 queues when no number is given]; over RocketMQ's protocol they are made anyway, as its clients expect, with as many
    /// queues of each shard as the client says
    #[arg(long, value_name = "QUEUES", num_args = 0..=1, default_missing_value = "4")]
    pub auto_create_topics: Option<u32>,
    /// Make topics by command only, over RocketMQ's protocol as well [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub no_auto_create_topics: Option<bool>,
    /// How long a received message stays invisible to others of its group [default: 300s]; a group can have its own
    #[arg(long, value_name = "DURATION")]
    pub lease: Option<Span>,
    /// The same for messages received in order [default: 60s]
    #[arg(long, value_name = "DURATION")]
    pub ordered_lease: Option<Span>,
    /// Deliveries of a message before it goes to its group's dead letters [default: 16]; a group can have its own
    #[arg(long, value_name = "N")]
    pub deliveries: Option<u32>,
    /// A group that nobody has used while the broker ran for this long, at least 1m, is forgotten, or none [default: 30d]
    #[arg(long, value_name = "DURATION|none")]
    pub group_idle: Option<OrNone<Span>>,
    /// How long a client that consumes in order has a queue to itself after it has asked for it last, at least 1s [default: 60s];
    /// RocketMQ's clients ask every 20 seconds, and count on it for 30
    #[arg(long, value_name = "DURATION")]
    pub lock_lease: Option<Span>,
    /// How long messages of RocketMQ's delay levels wait, from level 1 on, as its messageDelayLevel has it: numbers with s, m, h
    /// or d, and blanks between them [default: 1s 5s 10s 30s 1m 2m 3m 4m 5m 6m 7m 8m 9m 10m 20m 30m 1h 2h]; what a consumer
    /// gives back waits for level 3 at first, then for level 4 and so on
    #[arg(long, value_name = "DELAYS")]
    #[serde(deserialize_with = "from_text")]
    pub delay_levels: Option<DelayLevels>,
    /// Written bytes that each shard keeps in memory for readers at the tail [default: 64MiB, less with little memory]
    #[arg(long, value_name = "SIZE")]
    pub tail_cache_bytes: Option<ByteSize>,
    /// Memory that all clients together may cause on the node: requests, answers, waits [default: half of what the machine
    /// or the container has, at most 1GiB a shard]
    #[arg(long, value_name = "SIZE")]
    pub client_memory: Option<ByteSize>,
    /// How long producers have to decide on a message of a transaction before they are asked [default: 6s]
    #[arg(long, value_name = "DURATION")]
    pub transaction_immunity: Option<Span>,
    /// How often they are asked then [default: 30s]
    #[arg(long, value_name = "DURATION")]
    pub transaction_check_interval: Option<Span>,
    /// How many times they are asked before the message is given up [default: 15]
    #[arg(long, value_name = "N")]
    pub transaction_checks: Option<u32>,
    /// Which events are written to standard error: off, error, warn, info, debug or trace, and others for what events are
    /// about, like info,groups=debug,log=warn [default: info]; read again from the configuration file on SIGHUP
    #[arg(long, value_name = "LEVELS")]
    #[serde(deserialize_with = "from_text")]
    pub log_level: Option<LogLevels>,
    /// How they are written: text, a line for people, or json, an object on a line [default: text]
    #[arg(long, value_name = "text|json")]
    #[serde(deserialize_with = "from_text")]
    pub log_format: Option<LogFormat>,
    /// Allow a file system without direct I/O, for trying things out
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub buffered_io: Option<bool>,
}

/// Once for all settings, so that none can be left out of what goes through them.
macro_rules! every_setting {
    ($($field:ident),*) => {
        impl ServeSettings {
            /// These settings, and those of `below` where nothing is said here.
            pub fn or(self, below: ServeSettings) -> ServeSettings {
                ServeSettings { $($field: self.$field.or(below.$field)),* }
            }

            /// The names of what is said, as the flags have them.
            pub fn said(&self) -> Vec<String> {
                let fields = [$((stringify!($field), self.$field.is_some())),*];
                fields.iter().filter(|(_, is_said)| *is_said).map(|(field, _)| field.replace('_', "-")).collect()
            }
        }
    };
}

every_setting! {
    data, listen, node_listen, http, namesrv, admin, admin_writable, remoting, node, cluster, access_keys, open_to_everybody,
    separate_protocols, tls_certificate, tls_key, tls_mode, http_idle_timeout, advertise, shards, cores,
    level, segment_bytes, retention_age, retention_bytes, auto_create_topics, no_auto_create_topics, lease,
    ordered_lease, deliveries, group_idle, lock_lease, delay_levels, tail_cache_bytes, client_memory,
    transaction_immunity, transaction_check_interval, transaction_checks, log_level, log_format,
    buffered_io
}

fn place(said: OrNone<SocketAddr>) -> Place {
    said.0.map_or(Place::Nowhere, Place::At)
}

/// A value whose only form in the file is the text of the flag.
fn from_text<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: FromStr<Err: std::fmt::Display>,
{
    String::deserialize(deserializer)?.parse().map(Some).map_err(de::Error::custom)
}

/// A parser's reason without the names of Rust's types.
fn in_words(message: &str) -> String {
    message
        .replace("expected u16", &format!("expected a whole number up to {}", u16::MAX))
        .replace("expected u32", &format!("expected a whole number up to {}", u32::MAX))
        .replace("expected path string", "expected a path in quotes")
}

/// The number of the line that a byte of the text is in, from 1 on.
pub fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

impl ServeSettings {
    /// The settings in the text of a TOML file; the error names line and key.
    pub fn parse(text: &str) -> Result<Self, String> {
        toml::from_str(text).map_err(|error| match error.span() {
            // An unknown key's span is the key's, so the line is the one to look at.
            Some(span) => format!("line {}: {}", line_of(text, span.start), in_words(error.message())),
            None => in_words(error.message()),
        })
    }

    /// The options of a node, checked.
    pub fn into_options(self) -> Result<ServeOptions, CommandError> {
        let data = self.data.ok_or_else(|| {
            CommandError::usage("say where the data goes: turbopump serve --data DIR (or `data` in --config)")
        })?;
        let default = ServeOptions::new(data);
        let options = ServeOptions {
            listen: self.listen.unwrap_or(default.listen),
            node_listen: self.node_listen,
            http: self.http.map_or(default.http, place),
            namesrv: self.namesrv.map_or(default.namesrv, place),
            admin: self.admin.map_or(default.admin, place),
            admin_writable: self.admin_writable.unwrap_or(default.admin_writable),
            remoting: self.remoting.unwrap_or(default.remoting),
            node: self.node,
            cluster: self.cluster.unwrap_or(default.cluster),
            access_keys: self.access_keys,
            open_to_everybody: self.open_to_everybody.unwrap_or(default.open_to_everybody),
            separate_protocols: self.separate_protocols.unwrap_or(default.separate_protocols),
            tls_certificate: self.tls_certificate,
            tls_key: self.tls_key,
            tls_mode: self.tls_mode,
            http_idle_timeout: self.http_idle_timeout.map_or(default.http_idle_timeout, |span| span.0),
            advertise: self.advertise,
            shards: self.shards,
            cores: self.cores.map(|cores| cores.0),
            level: self.level.unwrap_or(default.level),
            segment_bytes: self.segment_bytes.map_or(default.segment_bytes, |size| size.0),
            retention_age: self.retention_age.map_or(default.retention_age, |age| age.0.map(|span| span.0)),
            retention_bytes: self
                .retention_bytes
                .map_or(default.retention_bytes, |size| size.0.map(|bytes| bytes.0)),
            auto_create_topics: self.auto_create_topics,
            no_auto_create_topics: self.no_auto_create_topics.unwrap_or(default.no_auto_create_topics),
            leases: LeaseDefaults {
                deliveries_max: self.deliveries.unwrap_or(default.leases.deliveries_max),
                lease: self.lease.map_or(default.leases.lease, |lease| lease.0),
                ordered_lease: self.ordered_lease.map_or(default.leases.ordered_lease, |lease| lease.0),
            },
            tail_cache_bytes: self.tail_cache_bytes.map(|size| size.0),
            client_memory_bytes: self.client_memory.map(|size| size.0),
            group_idle: self.group_idle.map_or(default.group_idle, |idle| idle.0.map(|span| span.0)),
            lock_lease: self.lock_lease.map_or(default.lock_lease, |lease| lease.0),
            delay_levels: self.delay_levels.unwrap_or(default.delay_levels),
            transaction_immunity: self
                .transaction_immunity
                .map_or(default.transaction_immunity, |span| span.0),
            transaction_check_interval: self
                .transaction_check_interval
                .map_or(default.transaction_check_interval, |span| span.0),
            transaction_checks: self.transaction_checks.unwrap_or(default.transaction_checks),
            buffered_io: self.buffered_io.unwrap_or(default.buffered_io),
            data: default.data,
        };
        options.check().map_err(CommandError::usage)?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    const FULL: &str = r#"
        data = "/var/lib/turbopump"
        listen = "0.0.0.0:10911"
        node-listen = "0.0.0.0:9876"
        http = "0.0.0.0:8080"
        namesrv = "0.0.0.0:9877"
        admin = "0.0.0.0:5557"
        admin-writable = true
        remoting = true
        node = "broker-1"
        cluster = "shop"
        access-keys = "/etc/turbopump/keys.toml"
        open-to-everybody = false
        separate-protocols = true
        tls-certificate = "/etc/turbopump/certificate.pem"
        tls-key = "/etc/turbopump/key.pem"
        tls-mode = "enforcing"
        http-idle-timeout = "1m"
        advertise = "broker.example.org"
        shards = 4
        cores = [0, 1]
        level = "written"
        segment-bytes = "64MiB"
        retention-age = "none"
        retention-bytes = "1GiB"
        tail-cache-bytes = 1048576
        client-memory = "256MiB"
        auto-create-topics = 8
        no-auto-create-topics = false
        lease = "30s"
        ordered-lease = "5s"
        deliveries = 3
        group-idle = "90d"
        lock-lease = "45s"
        delay-levels = "2s 1m"
        transaction-immunity = "1s"
        transaction-check-interval = "2s"
        transaction-checks = 3
        log-level = "warn,groups=debug"
        log-format = "json"
        buffered-io = true
    "#;

    #[test]
    fn every_flag_has_a_key_of_its_name() {
        let settings = ServeSettings::parse(FULL).expect("well formed");
        assert_eq!(settings.log_level, "warn,groups=debug".parse().ok());
        assert_eq!(settings.log_format, Some(LogFormat::Json));
        let options = settings.into_options().expect("valid");
        assert_eq!(options.data, PathBuf::from("/var/lib/turbopump"));
        assert_eq!(options.node_listen, Some(([0, 0, 0, 0], 9876).into()));
        assert_eq!(options.http, Place::At(([0, 0, 0, 0], 8080).into()));
        assert_eq!(options.namesrv, Place::At(([0, 0, 0, 0], 9877).into()));
        assert_eq!(options.admin, Place::At(([0, 0, 0, 0], 5557).into()));
        assert!(options.admin_writable);
        assert_eq!((options.remoting, options.node.as_deref()), (true, Some("broker-1")));
        assert_eq!(options.cluster, "shop");
        assert_eq!(options.access_keys, Some(PathBuf::from("/etc/turbopump/keys.toml")));
        assert!(!options.open_to_everybody);
        let files = ("/etc/turbopump/certificate.pem".into(), "/etc/turbopump/key.pem".into());
        assert_eq!(options.tls_files(), Some(files));
        assert_eq!((options.separate_protocols, options.tls_mode), (true, Some(TlsMode::Enforcing)));
        assert_eq!(options.http_idle_timeout, Duration::from_secs(60));
        assert_eq!((options.shards, options.cores), (Some(4), Some(vec![0, 1])));
        assert_eq!((options.level, options.segment_bytes), (Level::Written, 64 << 20));
        assert_eq!((options.retention_age, options.retention_bytes), (None, Some(1 << 30)));
        assert_eq!((options.tail_cache_bytes, options.buffered_io), (Some(1 << 20), true));
        assert_eq!(options.client_memory_bytes, Some(256 << 20));
        assert_eq!((options.auto_create_topics, options.no_auto_create_topics), (Some(8), false));
        let leases = LeaseDefaults {
            deliveries_max: 3,
            lease: Duration::from_secs(30),
            ordered_lease: Duration::from_secs(5),
        };
        assert_eq!(options.leases, leases);
        assert_eq!(options.group_idle, Some(Duration::from_secs(90 * 86_400)));
        assert_eq!(options.lock_lease, Duration::from_secs(45));
        assert_eq!(options.delay_levels.to_string(), "2s 1m");
        let interval = (options.transaction_immunity, options.transaction_check_interval);
        assert_eq!(interval, (Duration::from_secs(1), Duration::from_secs(2)));
        assert_eq!(options.transaction_checks, 3);
        // The keys of the file above are the flags, all of them.
        let command = <ServeSettings as clap::Args>::augment_args(clap::Command::new("serve"));
        for flag in command.get_arguments().filter_map(|argument| argument.get_long()) {
            assert!(FULL.contains(&format!("{flag} =")), "--{flag} is missing above");
        }
    }

    /// What the flag was called while the native port asked nobody for keys.
    #[test]
    fn the_older_name_of_openness_counts() {
        let settings = ServeSettings::parse("http-open = true").expect("well formed");
        assert_eq!(settings.open_to_everybody, Some(true));
    }

    /// What they were called while only HTTP was spoken within TLS.
    #[test]
    fn the_older_names_of_the_certificate_count() {
        let settings = ServeSettings::parse("http-certificate = 'c'\nhttp-key = 'k'").expect("well formed");
        assert_eq!((settings.tls_certificate, settings.tls_key), (Some("c".into()), Some("k".into())));
    }

    #[test]
    fn what_is_not_said_keeps_its_default() {
        let settings = ServeSettings::parse("data = \"d\"").expect("well formed");
        assert_eq!(settings.into_options().expect("valid"), ServeOptions::new("d".into()));
    }

    #[test]
    fn what_is_switched_off_listens_nowhere() {
        let settings = ServeSettings::parse("data = 'd'\nhttp = 'none'").expect("well formed");
        assert_eq!(settings.into_options().expect("valid").http, Place::Nowhere);
    }

    #[test]
    fn flags_win_over_the_file() {
        let file = ServeSettings::parse(FULL).expect("well formed");
        let flags = ServeSettings {
            level: Some(Level::Durable),
            retention_age: Some(OrNone(Some(Span(Duration::from_secs(60))))),
            buffered_io: Some(false),
            ..ServeSettings::default()
        };
        let options = flags.or(file).into_options().expect("valid");
        assert_eq!(options.level, Level::Durable);
        assert_eq!(options.retention_age, Some(Duration::from_secs(60)));
        assert!(!options.buffered_io);
        assert_eq!(options.shards, Some(4), "not said by a flag");
    }

    #[test]
    fn errors_name_line_and_key() {
        let cases = [
            ("shards = 1\nshard = 2", "line 2: unknown field `shard`"),
            ("node_listen = \"1.2.3.4:5\"", "line 1: unknown field `node_listen`"),
            ("\n[log]\nlevel = 1", "unknown field `log`"),
            ("level = \"safe\"", "`safe` is no durability level"),
            ("log-level = \"loud\"", "`loud` is no level"),
            ("log-level = 1", "line 1: "),
            ("segment-bytes = \"64 MB\"", "`64 MB` is no size"),
            ("retention-age = 72", "a duration like \"72h\""),
            ("delay-levels = \"\"", "it names no level"),
            ("delay-levels = \"1s 5\"", "`5` is no delay of a level"),
            ("delay-levels = \"41d\"", "`41d` is longer than a message can wait, which is 40 days"),
            ("cores = \"a\"", "`a` is no list of cores"),
            ("cores = 1", "cores like [0, 1]"),
            ("shards = 70000", "line 1: invalid value: integer `70000`, expected a whole number up to 65535"),
            ("auto-create-topics = \"yes\"", "expected a whole number up to 4294967295"),
            ("data = 1", "expected a path in quotes"),
            ("listen = \"here\"", "line 1: "),
            ("shards = ", "line 1: "),
        ];
        for (text, part) in cases {
            let error = ServeSettings::parse(text).expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn options_without_a_data_directory_say_what_to_type() {
        let error = ServeSettings::default().into_options().expect_err("no data directory");
        assert!(error.to_string().contains("--data DIR"), "{error}");
    }
}
