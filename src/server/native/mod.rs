//! Connections of the native protocol.

mod connection;
mod read_ahead;

pub(super) use connection::{native_refusal, serve_native};
