//! The addresses of a node: where it listens, and whether clients get there by what they are told.

use std::net::{SocketAddr, TcpListener, TcpStream, ToSocketAddrs};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use super::options::{OptionsError, SHARD_PORT_STEP, ServeOptions, Wanted};
use super::run::NodeError;
use crate::api::ShardAddress;
use crate::net::{IN_USE_PATIENCE, ListenError, Sharing, bind, bind_shared};
use crate::types::ShardId;

/// An address that nobody has asked for is given up sooner than one that was.
const USUAL_PATIENCE: Duration = Duration::from_millis(300);
/// What clients are told is tried for so long.
const REACH_PATIENCE: Duration = Duration::from_secs(2);

/// Every address of the node, bound before anything else is started, so that a port in use is told at once.
pub(super) struct Sockets {
    pub shards: Vec<(TcpListener, SocketAddr)>,
    pub node: Vec<TcpListener>,
    pub http: Vec<TcpListener>,
    /// Of the first core: it has little to say.
    pub namesrv: Option<TcpListener>,
    /// Of a thread of its own.
    pub admin: Option<TcpListener>,
    pub bound: NodeAddresses,
}

/// Where the node listens beside its shards.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeAddresses {
    pub node: Option<SocketAddr>,
    pub http: Option<SocketAddr>,
    pub namesrv: Option<SocketAddr>,
    pub admin: Option<SocketAddr>,
}

impl Sockets {
    /// Also says which addresses were left out that nobody has asked for.
    pub fn bind(
        options: &ServeOptions,
        shard_count: u16,
        cores: &[usize],
    ) -> Result<(Self, Vec<String>), NodeError> {
        let mut shards = Vec::new();
        for shard in 0..shard_count {
            let mut address = options.listen;
            if address.port() != 0 {
                let port = u32::from(address.port()) + u32::from(shard) * u32::from(SHARD_PORT_STEP);
                let too_high = OptionsError::Ports { port: address.port(), shards: shard_count };
                address.set_port(u16::try_from(port).map_err(|_| too_high)?);
            }
            let listener = bind(address, Sharing::Exclusive, IN_USE_PATIENCE, "--listen")?;
            let bound = listener.local_addr().map_err(|source| ListenError::Other { address, source })?;
            shards.push((listener, bound));
        }
        let listening_cores = cores.len().min(usize::from(shard_count));
        let mut left_out = Vec::new();
        let (node, node_address) = match options.node_listen {
            Some(address) => {
                bind_shared(address, listening_cores, IN_USE_PATIENCE, "--node-listen").map(Some)?
            }
            None => None,
        }
        .unzip();
        let (http, http_address) =
            unless_taken(options.http_wanted(), "HTTP", &mut left_out, |wanted, patience| {
                bind_shared(wanted, listening_cores, patience, "--http")
            })?
            .unzip();
        let mut alone = |wanted, what, flag| {
            unless_taken(wanted, what, &mut left_out, |wanted, patience| bind_alone(wanted, patience, flag))
        };
        let (namesrv, namesrv_address) =
            alone(options.namesrv_wanted(), "the name server", "--namesrv")?.unzip();
        let (admin, admin_address) = alone(options.admin_wanted(), "the admin address", "--admin")?.unzip();
        let (node, http) = (node.unwrap_or_default(), http.unwrap_or_default());
        let bound = NodeAddresses {
            node: node_address,
            http: http_address,
            namesrv: namesrv_address,
            admin: admin_address,
        };
        Ok((Self { shards, node, http, namesrv, admin, bound }, left_out))
    }

    /// What clients are told.
    pub fn addresses(&self, options: &ServeOptions) -> Vec<ShardAddress> {
        let address = |(index, (_, bound)): (usize, &(TcpListener, SocketAddr))| {
            let address = match &options.advertise {
                Some(host) if host.contains(':') => format!("[{host}]:{}", bound.port()),
                Some(host) => format!("{host}:{}", bound.port()),
                None => bound.to_string(),
            };
            ShardAddress { shard: ShardId(index as u16), address }
        };
        self.shards.iter().enumerate().map(address).collect()
    }
}

/// One listener, and the address that it has got.
fn bind_alone(
    address: SocketAddr,
    patience: Duration,
    flag: &'static str,
) -> Result<(TcpListener, SocketAddr), ListenError> {
    let listener = bind(address, Sharing::Exclusive, patience, flag)?;
    let bound = listener.local_addr().map_err(|source| ListenError::Other { address, source })?;
    Ok((listener, bound))
}

/// Binds an address that the node can do without; what nobody has asked for is left out when it cannot be had.
fn unless_taken<T>(
    wanted: Option<Wanted>,
    what: &str,
    left_out: &mut Vec<String>,
    bind: impl FnOnce(SocketAddr, Duration) -> Result<T, ListenError>,
) -> Result<Option<T>, NodeError> {
    let Some(wanted) = wanted else { return Ok(None) };
    if wanted.is_asked_for {
        return Ok(Some(bind(wanted.address, IN_USE_PATIENCE)?));
    }
    match bind(wanted.address, USUAL_PATIENCE) {
        Ok(bound) => Ok(Some(bound)),
        Err(error) => {
            left_out.push(format!("{what} is left out: {error}, or `none` to do without it"));
            Ok(None)
        }
    }
}

/// Tries what clients are told to connect to, where that is not what the node itself has bound; says what does not answer. A
/// machine behind a router that does not lead back may be reached all the same, so this is nothing to fail for.
pub(super) fn not_reached(host: &str, addresses: &[ShardAddress]) -> Vec<String> {
    let begin = Instant::now();
    let (sender, tried) = mpsc::channel();
    for (index, told) in addresses.iter().enumerate() {
        let (address, sender) = (told.address.clone(), sender.clone());
        // A name may take longer to be looked up than anybody waits: such a thread ends by itself.
        std::thread::spawn(move || sender.send((index, reach(&address))));
    }
    let late = || Err(format!("nothing has answered within {} s", REACH_PATIENCE.as_secs()));
    let mut outcomes: Vec<_> = addresses.iter().map(|_| late()).collect();
    for _ in addresses {
        let left = REACH_PATIENCE.saturating_sub(begin.elapsed());
        let Ok((index, outcome)) = tried.recv_timeout(left) else { break };
        outcomes[index] = outcome;
    }
    let warning = |(told, outcome): (&ShardAddress, Result<(), String>)| {
        let (address, reason) = (&told.address, outcome.err()?);
        Some(format!(
            "clients are told that shard {} listens on {address}, as --advertise {host} says, and from this machine it is not \
             reached there: {reason}",
            told.shard
        ))
    };
    addresses.iter().zip(outcomes).filter_map(warning).collect()
}

fn reach(address: &str) -> Result<(), String> {
    let resolved = address.to_socket_addrs().map_err(|error| format!("the name is not found ({error})"))?;
    let mut reason = "the name has no address".to_owned();
    for address in resolved {
        match TcpStream::connect_timeout(&address, REACH_PATIENCE) {
            Ok(_) => return Ok(()),
            Err(error) => reason = error.to_string(),
        }
    }
    Err(reason)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A name below `invalid` never exists (RFC 6761, 6.4).
    #[test]
    fn what_is_not_reached_is_named() {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let here = listener.local_addr().expect("it is bound").to_string();
        let told = |address: &str| [ShardAddress { shard: ShardId(1), address: address.to_owned() }];
        assert_eq!(not_reached("127.0.0.1", &told(&here)), Vec::<String>::new());
        drop(listener);
        let warnings = not_reached("127.0.0.1", &told(&here));
        assert!(warnings[0].contains("shard 1") && warnings[0].contains("refused"), "{warnings:?}");
        let nobody = not_reached("nobody.invalid", &told("nobody.invalid:1"));
        assert!(nobody[0].contains("nobody.invalid:1"), "{nobody:?}");
    }

    #[test]
    fn a_usual_address_that_is_taken_is_left_out_and_one_that_was_asked_for_is_not() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = taken.local_addr().expect("it is bound");
        let attempt = |is_asked_for| {
            let mut left_out = Vec::new();
            let bound =
                unless_taken(Some(Wanted { address, is_asked_for }), "HTTP", &mut left_out, |address, _| {
                    bind(address, Sharing::Exclusive, Duration::ZERO, "--http")
                });
            (bound, left_out)
        };
        let (bound, left_out) = attempt(false);
        assert!(matches!(bound, Ok(None)));
        assert!(left_out[0].contains(&address.to_string()) && left_out[0].contains("--http"), "{left_out:?}");
        let (bound, left_out) = attempt(true);
        assert!(matches!(bound, Err(NodeError::Listen(ListenError::InUse { .. }))));
        assert!(left_out.is_empty());
    }
}
