//! Protocol adaptors: bytes of a connection to `api` and back.

pub mod native;
