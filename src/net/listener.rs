//! Listening sockets. glommio's own `bind` sets no SO_REUSEADDR, so that a restart within a minute would fail; these are
//! made here and handed to it.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, TcpKeepalive, Type};

/// How long an address in use is tried again. The rings of a process that was killed hold its listening sockets for some
/// milliseconds after its end, until the kernel has taken them apart.
pub const IN_USE_PATIENCE: Duration = Duration::from_secs(2);
const IN_USE_PAUSE: Duration = Duration::from_millis(10);
/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;
/// A connection that is silent for so long is probed, and ends when nobody answers. It keeps what stands in between,
/// which forgets silent connections, from doing so.
const KEEPALIVE_AFTER: Duration = Duration::from_secs(60);

/// Whether other sockets of this program listen on the same address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    Exclusive,
    /// SO_REUSEPORT: the kernel spreads connections over all of them.
    Shared,
}

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    #[error("{address} is in use by another program: stop it, or choose another address with {flag}")]
    InUse { address: SocketAddr, flag: &'static str },
    #[error("{address} is none of this machine's addresses: choose one with {flag}")]
    NotOurs { address: SocketAddr, flag: &'static str },
    #[error("this user may not listen on {address}: choose a port from 1024 on with {flag}")]
    Forbidden { address: SocketAddr, flag: &'static str },
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// Opens a listening socket; blocks for up to `patience` when the address is in use. `flag` is the one that chose the address,
/// for whoever has to choose another.
pub fn bind(
    address: SocketAddr,
    sharing: Sharing,
    patience: Duration,
    flag: &'static str,
) -> Result<TcpListener, ListenError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(sharing == Sharing::Shared)?;
        // Connections inherit it.
        socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE_AFTER))?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    let started = Instant::now();
    let opened = loop {
        match open() {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && started.elapsed() < patience => {
                std::thread::sleep(IN_USE_PAUSE);
            }
            opened => break opened,
        }
    };
    opened.map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address, flag },
        io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { address, flag },
        io::ErrorKind::PermissionDenied => ListenError::Forbidden { address, flag },
        _ => ListenError::Other { address, source },
    })
}

/// Opens several listening sockets for one address, over which the kernel spreads connections. Another program's socket
/// there is an error, although sharing would let this user's programs join each other unseen. Returns the address with
/// the port that a port of 0 became.
pub fn bind_shared(
    address: SocketAddr,
    count: usize,
    patience: Duration,
    flag: &'static str,
) -> Result<(Vec<TcpListener>, SocketAddr), ListenError> {
    let probe = bind(address, Sharing::Exclusive, patience, flag)?;
    let bound = probe.local_addr().map_err(|source| ListenError::Other { address, source })?;
    // Nobody was told of the address yet, so no connection is lost between the two.
    drop(probe);
    let listeners =
        (0..count).map(|_| bind(bound, Sharing::Shared, IN_USE_PATIENCE, flag)).collect::<Result<_, _>>()?;
    Ok((listeners, bound))
}
