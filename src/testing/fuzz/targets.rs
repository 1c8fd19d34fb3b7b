//! The targets that take any bytes, by name: what the coverage-guided fuzzer in `tools/fuzz` runs, and whose corpus
//! `tests/fuzz.rs` replays. Those that take a seed are not here: no change of a seed leads from one input to a similar one.

use super::{expressions, http, native, remoting, storage};
use crate::protocol::remoting::HeaderForm;

/// Takes any bytes, and fails by a panic.
pub type ByteTarget = fn(&[u8]);

/// A target's name, which is that of its corpus as well, and the target.
pub const BYTE_TARGETS: [(&str, ByteTarget); 15] = [
    ("batches", storage::fuzz_batch),
    ("bodies", http::fuzz_body),
    ("changes", storage::fuzz_changes),
    ("documents", http::fuzz_document),
    ("envelopes", |bytes| native::fuzz_envelope(bytes, &[])),
    ("expressions", expressions::fuzz_expression),
    ("frames", native::fuzz_frame),
    ("http_properties", http::fuzz_properties),
    ("properties", storage::fuzz_properties),
    ("remoting_binary_headers", |bytes| remoting::fuzz_header(HeaderForm::Binary, bytes)),
    ("remoting_bodies", remoting::fuzz_body),
    ("remoting_frames", remoting::fuzz_frame),
    ("remoting_json_headers", |bytes| remoting::fuzz_header(HeaderForm::Json, bytes)),
    ("snapshots", storage::fuzz_snapshot),
    ("targets", http::fuzz_target),
];
