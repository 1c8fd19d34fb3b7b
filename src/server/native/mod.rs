//! Connections of the native protocol.

mod connection;

pub(super) use connection::{native_refusal, serve_native};
