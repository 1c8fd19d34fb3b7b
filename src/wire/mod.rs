//! Bytes only: what turbopump stores and sends. [`batch`] and [`record`] are the layout of messages, the same on the
//! wire, on disk and at the consumer; [`frame`] cuts a native connection into requests; [`generated`] is the FlatBuffers
//! envelope of a request, made from `turbopump.fbs`. All integers are little-endian.

pub mod batch;
pub mod bytes;
pub mod frame;
#[allow(
    unsafe_code,
    unsafe_op_in_unsafe_fn,
    dead_code,
    unused_imports,
    mismatched_lifetime_syntaxes,
    non_snake_case,
    clippy::all,
    clippy::undocumented_unsafe_blocks
)]
#[path = "generated/turbopump_generated.rs"]
#[rustfmt::skip]
mod generated_code;
pub mod inflate;
pub mod origin;
pub mod properties;
pub mod record;
pub mod text;

pub use generated_code::turbopump::wire as generated;
