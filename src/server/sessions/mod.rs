//! Who is connected to a shard: its connections, whatever they speak, and its clients, where a protocol names them.

mod clients;
mod connection;
mod open;
#[cfg(test)]
mod tests;

pub use clients::{ClientConnection, ClientSessions, Clients, SessionTerms, Unanswered};
pub(super) use connection::Connection;
pub(super) use open::{EXPIRY_GRACE, OpenConnections};
