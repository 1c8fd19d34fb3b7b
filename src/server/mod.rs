//! What stands between a socket and a shard: accepting, telling protocols apart, TLS, access keys, memory for what clients send and are
//! sent, and the connections of each protocol.

mod access;
mod asked;
mod called;
mod connection;
mod context;
mod core_turns;
mod costly_steps;
mod descriptors;
mod doors;
mod framed;
mod handshakes;
mod http;
mod idle_memory;
mod native;
mod parked;
mod receipts;
mod refused_connections;
mod relief;
mod remoting;
pub mod sessions;
mod stream;
mod tls;
mod tls_handshake;

pub(crate) use access::Access;
pub(crate) use connection::{Connections, Doors, ShardBroker};
pub(crate) use core_turns::CoreTurns;
pub(crate) use costly_steps::{CostlyStep, CostlyStepSender};
pub(crate) use descriptors::ConnectionDescriptors;
pub use doors::TlsMode;
pub(crate) use doors::{Door, DoorRules};
pub(crate) use http::{HttpOptions, HttpPort};
pub(crate) use remoting::{RemotingOptions, RemotingPort};
pub(crate) use tls::{HandshakeMakers, Tls};
