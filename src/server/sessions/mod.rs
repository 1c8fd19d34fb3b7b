//! Who is connected to a shard.

mod connection;

pub(super) use connection::Connection;
