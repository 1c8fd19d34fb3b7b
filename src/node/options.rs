//! What `serve` is told: where the data lies, where to listen, and the few values worth changing. The defaults are the
//! documentation of what a start without flags does.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use crate::broker::LeaseDefaults;
use crate::limits;
use crate::server::TlsMode;
use crate::types::{DelayLevels, Level};

/// Step between the ports of two neighbouring shards. RocketMQ clients derive ports at minus 2 and plus 1 from a
/// broker's port, so neighbours keep clear of each other.
pub const SHARD_PORT_STEP: u16 = 10;

/// A connection that is dropped just when its client sends a request costs that client an error, and clients that send
/// now and then are many: an idle connection holds a few kilobytes only, so it is kept for long.
const HTTP_IDLE_DEFAULT: Duration = Duration::from_secs(10 * 60);
const HTTP_IDLE_MIN: Duration = Duration::from_secs(1);
const HTTP_IDLE_MAX: Duration = Duration::from_secs(24 * 3600);

/// Where HTTP is spoken unless something else is said.
const HTTP_PORT: u16 = 8080;
/// Where RocketMQ's clients look for a name server.
const NAME_SERVER_PORT: u16 = 9876;
/// Where RocketMQ's brokers and its exporter show their metrics, so that whoever scrapes them knows it.
pub const ADMIN_PORT: u16 = 5557;
/// The cluster of brokers that nobody has named one for.
const CLUSTER: &str = "DefaultCluster";

/// Where something listens that a node can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nothing was said: on its usual port of loopback, beside a `listen` on loopback, unless that port is taken.
    Usual,
    Nowhere,
    At(SocketAddr),
}

/// An address to be listened on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wanted {
    pub address: SocketAddr,
    /// Somebody has asked for it: a node that cannot have it does not start.
    pub is_asked_for: bool,
}

/// Everything a node needs to start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServeOptions {
    /// Data directory; made when missing.
    pub data: PathBuf,
    /// Where shard 0 listens; shard `s` listens `s * SHARD_PORT_STEP` higher. With port 0 each shard gets a free port.
    pub listen: SocketAddr,
    /// One more address for the whole node, whose shard forwards what belongs to others. `None`: there is none, and
    /// clients bootstrap from any shard.
    pub node_listen: Option<SocketAddr>,
    /// Where HTTP is spoken, by every core.
    pub http: Place,
    /// Where the name server for RocketMQ's clients listens.
    pub namesrv: Place,
    /// Where health and metrics are.
    pub admin: Place,
    /// Whoever reaches that may change things, without access keys.
    pub admin_writable: bool,
    /// RocketMQ's own protocol is spoken at the shards' addresses, and everywhere else unless protocols are separate.
    pub remoting: bool,
    /// What the names of the shards begin with, as RocketMQ's clients know them: NAME-0 and so on. `None`: what the data
    /// directory was made with, and the host's name when it is made.
    pub node: Option<String>,
    /// The cluster that RocketMQ's tools show the shards in.
    pub cluster: String,
    /// The file of access keys, of which every request needs one. `None`: everybody may do everything.
    pub access_keys: Option<PathBuf>,
    /// Lets everybody do everything, without access keys, on an address that other machines reach.
    pub open_to_everybody: bool,
    /// Each address speaks its own protocol only: HTTP at `http`, the native one at the others. Otherwise each speaks all
    /// that are spoken at all.
    pub separate_protocols: bool,
    /// PEM files of the certificate and its private key. `None`, both: TLS is not spoken.
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    /// Who is let in without TLS. `None`: with a certificate, whoever speaks the native protocol, and nobody over HTTP.
    pub tls_mode: Option<TlsMode>,
    /// How long a connection over HTTP is kept that carries no request.
    pub http_idle_timeout: Duration,
    /// Host name or address that clients are told in routes. `None`: the address of `listen`.
    pub advertise: Option<String>,
    /// Shards of a data directory that is being created. `None`: one per core used. An existing directory keeps the
    /// number it was made with; another one is refused.
    pub shards: Option<u16>,
    /// Cores to run shards on, round robin. `None`: every core that this process may use.
    pub cores: Option<Vec<usize>>,
    /// Level of produce requests that name none, on topics that have none.
    pub level: Level,
    /// Size of a segment file of the commit log.
    pub segment_bytes: u64,
    /// Age at which messages of topics without a retention of their own may go. `None`: never by age.
    pub retention_age: Option<Duration>,
    /// Size of a shard's log beyond which its oldest segments go. `None`: never by size.
    pub retention_bytes: Option<u64>,
    /// Queues of a topic that is made because something is written to it. `None`: topics are made by command only.
    pub auto_create_topics: Option<u32>,
    /// Nor are they over RocketMQ's protocol, where its clients expect it.
    pub no_auto_create_topics: bool,
    /// How groups without settings of their own are treated.
    pub leases: LeaseDefaults,
    /// Written buffers that each shard keeps for readers at the tail. `None`: as the memory of the machine allows.
    pub tail_cache_bytes: Option<u64>,
    /// What clients may cause of memory on the whole node. `None`: as the memory of the machine allows.
    pub client_memory_bytes: Option<u64>,
    /// A group that nobody has used while the node ran for this long is forgotten. `None`: never.
    pub group_idle: Option<Duration>,
    /// How long a client that consumes in order has a queue to itself after it has asked for it last.
    pub lock_lease: Duration,
    /// How long messages of RocketMQ's levels wait.
    pub delay_levels: DelayLevels,
    /// How long producers have to decide on a half message before they are asked, how often they are asked, and how
    /// many times.
    pub transaction_immunity: Duration,
    pub transaction_check_interval: Duration,
    pub transaction_checks: u32,
    /// Goes through the page cache where the file system has no direct I/O: for trying things out, never for figures.
    pub buffered_io: bool,
}

/// Longer than anybody's holidays.
const GROUP_IDLE_DEFAULT: Duration = Duration::from_secs(30 * 24 * 3600);
/// RocketMQ's.
const LOCK_LEASE_DEFAULT: Duration = Duration::from_secs(60);

/// Why options cannot be what is meant.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OptionsError {
    #[error("--shards is 1 to {max}, not {given}", max = limits::SHARDS_MAX)]
    Shards { given: u16 },
    #[error("--cores names no core: write it like --cores 0,1")]
    NoCores,
    #[error("--cores names core {core} twice")]
    CoreTwice { core: usize },
    #[error(
        "--segment-bytes is {min} to {max} and a multiple of {block}, not {given}",
        min = limits::SEGMENT_BYTES_MIN,
        max = limits::SEGMENT_BYTES_MAX,
        block = limits::BLOCK_BYTES
    )]
    SegmentBytes { given: u64 },
    #[error(
        "--retention-bytes is at least two segments ({least} bytes), not {given}: the newest segment never goes"
    )]
    RetentionBytes { given: u64, least: u64 },
    #[error(
        "--retention-age is at least 1s, not {given:?}: after less nobody has read a message; `none` keeps them without limit"
    )]
    RetentionAge { given: Duration },
    #[error(
        "--{flag} is {min} s to {max} s, not {given} s",
        min = limits::LEASE_MS_MIN / 1000,
        max = limits::LEASE_MS_MAX / 1000,
        given = .given.as_secs_f64()
    )]
    Lease { flag: &'static str, given: Duration },
    #[error(
        "--client-memory is at least {min} bytes for each shard, which is what the largest requests need, not {given}",
        min = limits::SHARD_CLIENT_MEMORY_BYTES_MIN
    )]
    ClientMemory { given: u64 },
    #[error("--group-idle is at least {min:?}, or none, not {given:?}", min = limits::GROUP_IDLE_MIN)]
    GroupIdle { given: Duration },
    #[error("--lock-lease is at least {min:?}, not {given:?}", min = limits::LOCK_LEASE_MIN)]
    LockLease { given: Duration },
    #[error("--deliveries is at least 1")]
    Deliveries,
    #[error("--auto-create-topics gives a topic 1 to {max} queues, not {given}", max = limits::TOPIC_QUEUES_MAX)]
    AutoCreate { given: u32 },
    #[error("--auto-create-topics and --no-auto-create-topics contradict each other: leave one of them out")]
    AutoCreateBoth,
    #[error(
        "--advertise is the host name or address by which clients reach this machine, without a port, like \
         broker.example.org, not `{given}`"
    )]
    Advertise { given: String },
    #[error(
        "--{flag} {address} is every address of this machine, which no client can be told: say by which host name or \
         address clients reach it with --advertise, like --advertise broker.example.org"
    )]
    Wildcard { flag: &'static str, address: SocketAddr },
    #[error(
        "--{flag} {address} can be reached from other machines, and without access keys everybody may do everything there: \
         name a file of keys with --access-keys FILE, or say --open-to-everybody if that is meant"
    )]
    Open { flag: &'static str, address: SocketAddr },
    #[error(
        "--{flag} is 1 to {max} letters, digits, `.`, `_` and `-`, not `{given}`",
        max = limits::NODE_NAME_BYTES_MAX
    )]
    Name { flag: &'static str, given: String },
    #[error(
        "--namesrv needs RocketMQ's protocol, which --remoting=false switches off: leave one of them out"
    )]
    NameServerWithoutRemoting,
    #[error("--{given} needs --{missing}: name both, the certificate and its private key, each a PEM file")]
    HalfOfTls { given: &'static str, missing: &'static str },
    #[error(
        "--tls-mode {mode} needs a certificate: name it and its private key with --tls-certificate FILE --tls-key FILE, each a PEM file"
    )]
    WithoutCertificate { mode: &'static str },
    #[error("--http-idle-timeout is {min:?} to {max:?}, not {given:?}", min = HTTP_IDLE_MIN, max = HTTP_IDLE_MAX)]
    HttpIdle { given: Duration },
    #[error("--listen port {port} leaves no room for {shards} shards, whose ports step by {SHARD_PORT_STEP}")]
    Ports { port: u16, shards: u16 },
}

impl ServeOptions {
    /// A node over `data` with the default of everything else.
    pub fn new(data: PathBuf) -> Self {
        Self {
            data,
            listen: SocketAddr::from(([127, 0, 0, 1], 10911)),
            node_listen: None,
            http: Place::Usual,
            namesrv: Place::Usual,
            admin: Place::Usual,
            admin_writable: false,
            remoting: true,
            node: None,
            cluster: CLUSTER.to_owned(),
            access_keys: None,
            open_to_everybody: false,
            separate_protocols: false,
            tls_certificate: None,
            tls_key: None,
            tls_mode: None,
            http_idle_timeout: HTTP_IDLE_DEFAULT,
            advertise: None,
            shards: None,
            cores: None,
            level: Level::Durable,
            segment_bytes: limits::SEGMENT_BYTES_DEFAULT,
            retention_age: Some(Duration::from_secs(72 * 3600)),
            retention_bytes: None,
            auto_create_topics: None,
            no_auto_create_topics: false,
            leases: LeaseDefaults::default(),
            tail_cache_bytes: None,
            client_memory_bytes: None,
            group_idle: Some(GROUP_IDLE_DEFAULT),
            lock_lease: LOCK_LEASE_DEFAULT,
            delay_levels: DelayLevels::default(),
            transaction_immunity: Duration::from_secs(6),
            transaction_check_interval: Duration::from_secs(30),
            transaction_checks: 15,
            buffered_io: false,
        }
    }

    /// Whether the values make sense, together and each alone. What the machine says about them is found out later.
    pub fn check(&self) -> Result<(), OptionsError> {
        if let Some(given) = self.shards
            && !(1..=limits::SHARDS_MAX).contains(&given)
        {
            return Err(OptionsError::Shards { given });
        }
        self.check_cores()?;
        let bounds = limits::SEGMENT_BYTES_MIN..=limits::SEGMENT_BYTES_MAX;
        if !bounds.contains(&self.segment_bytes)
            || !self.segment_bytes.is_multiple_of(limits::BLOCK_BYTES as u64)
        {
            return Err(OptionsError::SegmentBytes { given: self.segment_bytes });
        }
        let least = 2 * self.segment_bytes;
        if let Some(given) = self.group_idle.filter(|idle| *idle < limits::GROUP_IDLE_MIN) {
            return Err(OptionsError::GroupIdle { given });
        }
        if let Some(given) = self.retention_age.filter(|age| *age < limits::RETENTION_MIN) {
            return Err(OptionsError::RetentionAge { given });
        }
        if let Some(given) = self.retention_bytes
            && given < least
        {
            return Err(OptionsError::RetentionBytes { given, least });
        }
        if let Some(given) = self.client_memory_bytes
            && given / u64::from(self.shards.unwrap_or(1)) < limits::SHARD_CLIENT_MEMORY_BYTES_MIN as u64
        {
            return Err(OptionsError::ClientMemory { given });
        }
        self.check_leases()?;
        if let Some(given) = self.auto_create_topics
            && !(1..=limits::TOPIC_QUEUES_MAX).contains(&given)
        {
            return Err(OptionsError::AutoCreate { given });
        }
        if self.auto_create_topics.is_some() && self.no_auto_create_topics {
            return Err(OptionsError::AutoCreateBoth);
        }
        if let Some(given) = &self.advertise
            && !is_host(given)
        {
            return Err(OptionsError::Advertise { given: given.clone() });
        }
        self.check_names()?;
        self.check_told()?;
        self.check_openness()?;
        self.check_tls_and_http()?;
        self.check_ports()
    }

    /// Whether clients can be told where to connect to.
    fn check_told(&self) -> Result<(), OptionsError> {
        let namesrv = self.namesrv_wanted().map(|wanted| wanted.address);
        let told = [("listen", Some(self.listen)), ("namesrv", namesrv)];
        let everywhere = told.into_iter().find_map(|(flag, address)| {
            let address = address.filter(|address| address.ip().is_unspecified())?;
            Some(OptionsError::Wildcard { flag, address })
        });
        everywhere.filter(|_| self.advertise.is_none()).map_or(Ok(()), Err)
    }

    /// Whether everybody on the network may do everything without anybody having said so.
    fn check_openness(&self) -> Result<(), OptionsError> {
        if self.access_keys.is_some() || self.open_to_everybody {
            return Ok(());
        }
        let http = self.http_wanted().map(|wanted| wanted.address);
        let namesrv = self.namesrv_wanted().map(|wanted| wanted.address);
        let admin = self.admin_wanted().map(|wanted| wanted.address);
        let addresses = [
            ("listen", Some(self.listen)),
            ("node-listen", self.node_listen),
            ("http", http),
            ("namesrv", namesrv),
            ("admin", admin),
        ];
        let reached = addresses.into_iter().find_map(|(flag, address)| {
            // An IPv4 address may be written as one of IPv6.
            let address = address.filter(|address| !address.ip().to_canonical().is_loopback())?;
            Some(OptionsError::Open { flag, address })
        });
        reached.map_or(Ok(()), Err)
    }

    fn check_tls_and_http(&self) -> Result<(), OptionsError> {
        let (certificate, key) = ("tls-certificate", "tls-key");
        match (&self.tls_certificate, &self.tls_key) {
            (Some(_), None) => return Err(OptionsError::HalfOfTls { given: certificate, missing: key }),
            (None, Some(_)) => return Err(OptionsError::HalfOfTls { given: key, missing: certificate }),
            (None, None) => {
                if let Some(mode) = self.tls_mode.filter(|mode| *mode != TlsMode::Disabled) {
                    return Err(OptionsError::WithoutCertificate { mode: mode.name() });
                }
            }
            (Some(_), Some(_)) => {}
        }
        if !(HTTP_IDLE_MIN..=HTTP_IDLE_MAX).contains(&self.http_idle_timeout) {
            return Err(OptionsError::HttpIdle { given: self.http_idle_timeout });
        }
        Ok(())
    }

    /// Where HTTP is to be spoken.
    pub fn http_wanted(&self) -> Option<Wanted> {
        self.wanted(self.http, HTTP_PORT)
    }

    /// Where a name server is to listen.
    pub fn namesrv_wanted(&self) -> Option<Wanted> {
        self.wanted(self.namesrv, NAME_SERVER_PORT).filter(|_| self.remoting)
    }

    /// Where the admin address is to be.
    pub fn admin_wanted(&self) -> Option<Wanted> {
        self.wanted(self.admin, ADMIN_PORT)
    }

    fn check_names(&self) -> Result<(), OptionsError> {
        let names = [("node", self.node.as_ref()), ("cluster", Some(&self.cluster))];
        if let Some((flag, Some(given))) =
            names.into_iter().find(|(_, name)| name.is_some_and(|name| !is_node_name(name)))
        {
            return Err(OptionsError::Name { flag, given: given.clone() });
        }
        match self.namesrv {
            Place::At(_) if !self.remoting => Err(OptionsError::NameServerWithoutRemoting),
            _ => Ok(()),
        }
    }

    fn wanted(&self, place: Place, usual_port: u16) -> Option<Wanted> {
        match place {
            Place::At(address) => Some(Wanted { address, is_asked_for: true }),
            Place::Usual if self.listen.ip().to_canonical().is_loopback() => {
                Some(Wanted { address: (Ipv4Addr::LOCALHOST, usual_port).into(), is_asked_for: false })
            }
            Place::Usual | Place::Nowhere => None,
        }
    }

    /// Certificate and key, where TLS is spoken.
    pub fn tls_files(&self) -> Option<(PathBuf, PathBuf)> {
        let is_spoken = self.tls_mode != Some(TlsMode::Disabled);
        self.tls_certificate.clone().zip(self.tls_key.clone()).filter(|_| is_spoken)
    }

    fn check_leases(&self) -> Result<(), OptionsError> {
        let range = Duration::from_millis(limits::LEASE_MS_MIN)..=Duration::from_millis(limits::LEASE_MS_MAX);
        let leases = [("lease", self.leases.lease), ("ordered-lease", self.leases.ordered_lease)];
        if let Some((flag, given)) = leases.into_iter().find(|(_, lease)| !range.contains(lease)) {
            return Err(OptionsError::Lease { flag, given });
        }
        if self.lock_lease < limits::LOCK_LEASE_MIN {
            return Err(OptionsError::LockLease { given: self.lock_lease });
        }
        if self.leases.deliveries_max == 0 { Err(OptionsError::Deliveries) } else { Ok(()) }
    }

    fn check_cores(&self) -> Result<(), OptionsError> {
        let Some(cores) = &self.cores else { return Ok(()) };
        if cores.is_empty() {
            return Err(OptionsError::NoCores);
        }
        match cores.iter().enumerate().find(|&(index, core)| cores[..index].contains(core)) {
            Some((_, &core)) => Err(OptionsError::CoreTwice { core }),
            None => Ok(()),
        }
    }

    fn check_ports(&self) -> Result<(), OptionsError> {
        let (port, shards) = (self.listen.port(), self.shards.unwrap_or(1));
        let last = u32::from(port) + u32::from(shards - 1) * u32::from(SHARD_PORT_STEP);
        if port != 0 && last > u32::from(u16::MAX) {
            return Err(OptionsError::Ports { port, shards });
        }
        Ok(())
    }
}

/// Whether a node, or a cluster, can have the name: clients make file names and lists of it.
pub(super) fn is_node_name(name: &str) -> bool {
    let is_allowed = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    (1..=limits::NODE_NAME_BYTES_MAX).contains(&name.len()) && name.chars().all(is_allowed)
}

/// An IPv6 address has colons too, so a port is told by what parses, not by the colon.
fn is_host(text: &str) -> bool {
    let name = |character: char| character.is_ascii_alphanumeric() || "-._".contains(character);
    match text.parse::<std::net::IpAddr>() {
        Ok(address) => !address.is_unspecified(),
        Err(_) => !text.is_empty() && text.chars().all(name),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(change: impl FnOnce(&mut ServeOptions)) -> Result<(), OptionsError> {
        let mut options = ServeOptions::new("data".into());
        change(&mut options);
        options.check()
    }

    #[test]
    fn the_defaults_are_valid() {
        assert_eq!(options(|_| ()), Ok(()));
    }

    #[test]
    fn values_outside_their_bounds_are_named() {
        assert_eq!(options(|o| o.shards = Some(0)), Err(OptionsError::Shards { given: 0 }));
        assert_eq!(options(|o| o.shards = Some(257)), Err(OptionsError::Shards { given: 257 }));
        assert_eq!(options(|o| o.cores = Some(vec![])), Err(OptionsError::NoCores));
        assert_eq!(options(|o| o.cores = Some(vec![1, 0, 1])), Err(OptionsError::CoreTwice { core: 1 }));
        assert_eq!(options(|o| o.segment_bytes = 4096), Err(OptionsError::SegmentBytes { given: 4096 }));
        let odd = limits::SEGMENT_BYTES_MIN + 1;
        assert_eq!(options(|o| o.segment_bytes = odd), Err(OptionsError::SegmentBytes { given: odd }));
        let least = 2 * limits::SEGMENT_BYTES_DEFAULT;
        assert_eq!(
            options(|o| o.retention_bytes = Some(1)),
            Err(OptionsError::RetentionBytes { given: 1, least })
        );
        let given = std::time::Duration::from_millis(999);
        assert_eq!(options(|o| o.retention_age = Some(given)), Err(OptionsError::RetentionAge { given }));
    }

    #[test]
    fn an_advertised_host_has_no_port() {
        for host in ["broker-1.example.org", "10.0.0.1", "::1", "fe80::1"] {
            assert_eq!(options(|o| o.advertise = Some(host.into())), Ok(()), "{host}");
        }
        for host in ["", "host:10911", "a b", "http://host", "0.0.0.0", "::", "0:0:0:0:0:0:0:0"] {
            assert!(options(|o| o.advertise = Some(host.into())).is_err(), "{host}");
        }
    }

    #[test]
    fn no_client_is_told_every_address() {
        for wildcard in ["0.0.0.0:10911", "[::]:10911"] {
            let address: SocketAddr = wildcard.parse().expect("an address");
            assert_eq!(
                options(|o| o.listen = address),
                Err(OptionsError::Wildcard { flag: "listen", address })
            );
            let named = options(|o| o.namesrv = Place::At(address));
            assert_eq!(named, Err(OptionsError::Wildcard { flag: "namesrv", address }));
            let named = options(|o| {
                o.listen = address;
                o.advertise = Some("broker.example.org".into());
                o.open_to_everybody = true;
            });
            assert_eq!(named, Ok(()));
            let node = options(|o| {
                o.node_listen = Some(address);
                o.open_to_everybody = true;
            });
            assert_eq!(node, Ok(()), "nobody is told that one");
        }
    }

    #[test]
    fn an_address_for_other_machines_needs_keys_or_a_word() {
        let change = |flag: &str, options: &mut ServeOptions, address: SocketAddr| match flag {
            "listen" => options.listen = address,
            "node-listen" => options.node_listen = Some(address),
            "namesrv" => options.namesrv = Place::At(address),
            "admin" => options.admin = Place::At(address),
            _ => options.http = Place::At(address),
        };
        for flag in ["listen", "node-listen", "http", "namesrv", "admin"] {
            for text in [
                "192.0.2.1:8080",
                "0.0.0.0:8080",
                "[::]:8080",
                "[2001:db8::1]:8080",
                "[::ffff:10.0.0.1]:8080",
            ] {
                let address: SocketAddr = text.parse().expect("an address");
                let with = |more: fn(&mut ServeOptions)| {
                    options(|o| {
                        // Who is told a wildcard is another question.
                        o.advertise = Some("broker.example.org".into());
                        change(flag, o, address);
                        more(o);
                    })
                };
                assert_eq!(with(|_| ()), Err(OptionsError::Open { flag, address }));
                assert_eq!(with(|o| o.open_to_everybody = true), Ok(()));
                assert_eq!(with(|o| o.access_keys = Some("keys".into())), Ok(()));
            }
            for text in ["127.0.0.1:8080", "127.0.1.77:8080", "[::1]:8080", "[::ffff:127.0.0.1]:8080"] {
                let address: SocketAddr = text.parse().expect("an address");
                assert_eq!(options(|o| change(flag, o, address)), Ok(()), "--{flag} {text}");
            }
        }
    }

    #[test]
    fn usual_addresses_are_those_of_loopback_beside_one_of_loopback() {
        let wanted = |listen: &str, http| {
            let listen = listen.parse().expect("an address");
            ServeOptions { listen, http, ..ServeOptions::new("data".into()) }.http_wanted()
        };
        let usual = Wanted { address: ([127, 0, 0, 1], 8080).into(), is_asked_for: false };
        assert_eq!(wanted("127.0.0.1:10911", Place::Usual), Some(usual));
        assert_eq!(wanted("[::1]:0", Place::Usual), Some(usual));
        assert_eq!(wanted("10.0.0.1:10911", Place::Usual), None);
        assert_eq!(wanted("127.0.0.1:10911", Place::Nowhere), None);
        let asked = Wanted { is_asked_for: true, ..usual };
        assert_eq!(wanted("10.0.0.1:10911", Place::At(usual.address)), Some(asked));
    }

    #[test]
    fn names_are_such_that_clients_can_keep_them() {
        for name in ["broker", "broker-1.example.org", "a_b"] {
            assert_eq!(options(|o| o.node = Some(name.into())), Ok(()));
        }
        for name in ["", "a b", "a;b", "a:1", "%x", &"n".repeat(limits::NODE_NAME_BYTES_MAX + 1)] {
            let given = name.to_owned();
            assert_eq!(
                options(|o| o.cluster = name.into()),
                Err(OptionsError::Name { flag: "cluster", given })
            );
        }
        let without = options(|o| {
            o.remoting = false;
            o.namesrv = Place::At(([127, 0, 0, 1], 9876).into());
        });
        assert_eq!(without, Err(OptionsError::NameServerWithoutRemoting));
        assert_eq!(options(|o| o.remoting = false), Ok(()));
    }

    #[test]
    fn the_last_shards_port_must_exist() {
        let listen = |port| SocketAddr::from(([127, 0, 0, 1], port));
        let with = |port, shards| {
            options(|o| {
                o.listen = listen(port);
                o.shards = Some(shards);
            })
        };
        assert_eq!(with(65_525, 2), Ok(()));
        assert_eq!(with(65_526, 2), Err(OptionsError::Ports { port: 65_526, shards: 2 }));
        assert_eq!(with(0, 256), Ok(()));
    }
}
