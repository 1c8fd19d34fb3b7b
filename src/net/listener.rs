//! Listening sockets. glommio's own `bind` sets no SO_REUSEADDR, so that a restart within a minute would fail; these are
//! made here and handed to it.

use std::io;
use std::net::{SocketAddr, TcpListener};

use socket2::{Domain, Protocol, Socket, Type};

/// Connections that the kernel keeps until they are accepted.
const BACKLOG: i32 = 1024;

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
    #[error("{address} is in use by another program: stop it, or choose another address with --listen")]
    InUse { address: SocketAddr },
    #[error("{address} is none of this machine's addresses: choose one with --listen")]
    NotOurs { address: SocketAddr },
    #[error("this user may not listen on {address}: choose a port from 1024 on with --listen")]
    Forbidden { address: SocketAddr },
    #[error("cannot listen on {address}: {source}")]
    Other { address: SocketAddr, source: io::Error },
}

/// Opens a listening socket.
pub fn bind(address: SocketAddr, sharing: Sharing) -> Result<TcpListener, ListenError> {
    let open = || -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        socket.set_reuse_port(sharing == Sharing::Shared)?;
        socket.bind(&address.into())?;
        socket.listen(BACKLOG)?;
        Ok(socket.into())
    };
    open().map_err(|source| match source.kind() {
        io::ErrorKind::AddrInUse => ListenError::InUse { address },
        io::ErrorKind::AddrNotAvailable => ListenError::NotOurs { address },
        io::ErrorKind::PermissionDenied => ListenError::Forbidden { address },
        _ => ListenError::Other { address, source },
    })
}
