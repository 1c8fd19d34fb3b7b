//! What stands between a socket and a shard: accepting, telling protocols apart, TLS, access keys, room for what clients send and are
//! sent, and the connections of each protocol.

mod access;
mod connection;
mod context;
mod descriptors;
mod foreign;
mod handshakes;
mod http;
mod native;
mod receipts;
mod relief;
mod sender;
mod sessions;
mod turned_away;

pub(crate) use access::Access;
pub(crate) use connection::{Connections, Door, ShardBroker};
pub(crate) use descriptors::ConnectionDescriptors;
pub use http::HttpPortError;
pub(crate) use http::{HttpOptions, HttpPort};
