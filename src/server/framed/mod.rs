//! Pipelined requests of a framed protocol on a connection: requests in, answers out.
//!
//! Two tasks per connection. The reader cuts frames and has their requests taken as they come; where one has to wait for room,
//! so does the connection, which is the back-pressure that a client feels. The writer sleeps until a group is published or an
//! answer is ready, and sends everything that is due with one call. What cannot be answered or placed at once is a *call*, in a
//! task of its own, or, while it can do nothing but wait, an entry without one (`server/parked.rs`).
//!
//! Memory: what comes goes into a buffer that grows with the bytes that came, and takes a share of the shard's for requests;
//! answers take a share before they are made; and between any two requests the reader looks whether the peer reads its
//! answers. Every wait ends with the connection.
//!
//! What a frame is, and how requests and answers are written, a [`Protocol`] knows, and only it.

mod calls;
mod engine;
mod frame_memory;
mod protocol;
mod reader;
mod sender;
#[cfg(test)]
pub(super) mod tests;
mod writer;

pub(super) use calls::{Call, CallTerms, Calls, Waited};
pub(super) use engine::Framed;
pub(super) use protocol::{Cut, Protocol, Taken};
pub(super) use sender::SendHalf;
