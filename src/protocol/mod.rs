//! Protocol adaptors: bytes of a connection to `api` and back.

pub mod http;
pub mod native;
