//! The native protocol's envelope: FlatBuffers (`wire/turbopump.fbs`) to `api` and back. Both directions live here, so
//! that server and client cannot drift: a server uses [`decode_request`] and [`ReplyEncoder`], a client
//! [`RequestEncoder`] and [`decode_reply`]. Frames and the preface are `wire::frame`; what is inside a batch is
//! `wire::batch`.
//!
//! An envelope is verified once, where it is decoded; a batch's payload is passed on untouched. Decoding and answering a
//! produce request allocates nothing.

mod by_hand;
mod dead_letters;
mod envelope;
mod group_info;
mod instances;
mod locations;
mod proof;
mod properties;
mod receipts;
mod reply_decoder;
mod reply_encoder;
mod request_decoder;
mod request_encoder;
mod settings;
mod slow;
mod stats;
mod status;
#[cfg(test)]
mod tests;

pub use envelope::MalformedReply;
pub use proof::{NONCE_BYTES, PROOF_BYTES, ProofContext, Prove};
pub use properties::check_properties;
pub use reply_decoder::{DecodedReply, FetchedView, decode_proved, decode_reply, reply_stages};
pub use reply_encoder::{FetchedHead, ReplyEncoder};
pub use request_decoder::{DecodedRequest, decode_request, decode_request_and_wish};
pub use request_encoder::RequestEncoder;
