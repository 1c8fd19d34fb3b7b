//! Connections of the native protocol.

mod connection;

pub(super) use connection::{is_heavy, native_refusal, serve_native, without_consumers};
