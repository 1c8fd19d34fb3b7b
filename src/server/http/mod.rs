//! Connections of the HTTP SDK.

mod backend;
mod chunks;
mod client;
mod connection;
mod incoming;
mod port;
mod stream;

pub(super) use connection::{http_refusal, serve_http};
pub(crate) use port::{HttpOptions, HttpPort};
