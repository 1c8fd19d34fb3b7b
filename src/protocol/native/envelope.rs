//! What requests and replies share: limits of verification, and an envelope becoming a frame.

use flatbuffers::{FlatBufferBuilder, Follow, InvalidFlatbuffer, Verifiable, VerifierOptions, WIPOffset};

use crate::limits;
use crate::wire::frame;

/// The deepest envelope is a reply's node, shard, counter: four tables.
const DEPTH_MAX: usize = 8;
/// No table takes less than 8 bytes.
const TABLES_MAX: usize = limits::ENVELOPE_BYTES_MAX / 8;
/// Verified bytes, counting what is visited several times: about twice the envelope when tables share their vtables.
/// The factor bounds what an envelope costs whose offsets all point to one place.
const APPARENT_BYTES_MAX: usize = 4 * limits::ENVELOPE_BYTES_MAX;
/// A builder that has grown beyond this is given back after use: large envelopes are rare.
const BUILDER_BYTES_KEPT: usize = 64 * 1024;

/// An answer that does not follow the protocol. What became of the request is not known.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the broker's answer does not follow the protocol: {0}")]
pub struct MalformedReply(pub String);

/// An envelope that is larger than a frame takes.
pub(super) struct TooLarge {
    pub(super) envelope_bytes: usize,
}

/// Verifies `envelope` and returns its root table.
pub(super) fn verified<'a, T>(envelope: &'a [u8]) -> Result<T::Inner, InvalidFlatbuffer>
where
    T: 'a + Follow<'a> + Verifiable,
{
    let options = VerifierOptions {
        max_depth: DEPTH_MAX,
        max_tables: TABLES_MAX,
        max_apparent_size: APPARENT_BYTES_MAX,
        ignore_missing_null_terminator: false,
    };
    flatbuffers::root_with_opts::<T>(&options, envelope)
}

/// The first line of a verifier's report; the others trace the way to it.
pub(super) fn reason(error: &InvalidFlatbuffer) -> String {
    let report = error.to_string();
    report.lines().next().unwrap_or_default().trim_end_matches('.').to_owned()
}

/// Appends the frame's header and envelope to `output` and makes the builder ready for the next one. The caller appends
/// `payload_bytes` of payload.
pub(super) fn append_frame<T>(
    builder: &mut FlatBufferBuilder<'static>,
    output: &mut Vec<u8>,
    correlation: u64,
    root: WIPOffset<T>,
    payload_bytes: usize,
) -> Result<(), TooLarge> {
    builder.finish_minimal(root);
    let envelope = builder.finished_data();
    let envelope_bytes = envelope.len();
    let fits = envelope_bytes <= limits::ENVELOPE_BYTES_MAX
        && frame::FRAME_HEADER_BYTES + envelope_bytes.next_multiple_of(8) + payload_bytes
            <= limits::FRAME_BYTES_MAX;
    if fits {
        frame::begin(output, correlation, envelope, payload_bytes);
    }
    if envelope_bytes > BUILDER_BYTES_KEPT {
        *builder = FlatBufferBuilder::new();
    } else {
        builder.reset();
    }
    if fits { Ok(()) } else { Err(TooLarge { envelope_bytes }) }
}
