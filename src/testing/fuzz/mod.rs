//! Fuzz targets: plain functions over bytes. `cargo test` runs each with a few seeds; a fuzzer runs them for hours.

pub mod expressions;
pub mod http;
pub mod native;
pub mod remoting;
pub mod storage;
mod targets;

pub use targets::{BYTE_TARGETS, ByteTarget};
