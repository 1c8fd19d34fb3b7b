//! Connections of the HTTP SDK.

mod backend;
mod client;
mod connection;
mod incoming;
mod port;
mod stream;

pub(super) use connection::{http_refusal, serve_http, serve_https};
pub use port::HttpPortError;
pub(crate) use port::{HttpOptions, HttpPort};
