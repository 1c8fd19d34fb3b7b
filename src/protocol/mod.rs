//! Protocol adaptors: bytes of a connection to `api` and back.

#[cfg(feature = "server")]
pub mod http;
pub mod native;
#[cfg(feature = "server")]
pub mod remoting;
