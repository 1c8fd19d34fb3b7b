//! Connections of the native protocol.

mod connection;
mod read_ahead;

pub(super) use connection::{OUTBOX_PAUSE_BYTES, native_refusal, serve_native};
