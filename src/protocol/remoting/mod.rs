//! RocketMQ's own protocol ("remoting"), as its clients for Java, C++, Python and Go and its tools speak it. Nothing here
//! opens a socket or waits: a frame comes in, requests of `api` and answers go out.
//!
//! | file | what it knows |
//! | --- | --- |
//! | `frame` | length word and header word: where a frame ends, and how large it may be |
//! | `header`, `language` | what stands in a header, whichever form it has |
//! | `header_json`, `header_binary` | the two forms, read and written |
//! | `head` | what goes out ahead of a body: an answer's header, or a request's to a client |
//! | `fields` | a header's fields as numbers, truth values and text |
//! | `scanner`, `json`, `json_writer` | JSON as these clients write and read it, in headers and bodies |
//! | `message` | a message's properties in and out; batches |
//! | `call` | requests, a family each, to `api` and back |
//! | `client` | the other end: requests out, answers in |
//! | `refusal` | requests that are not carried out |
//! | `body` | what bodies say, as types of their own |
//! | `broker_conf` | the settings of Apache's broker, and what each means here |
//! | `signature` | who has signed a request |
//! | `consumer_group` | which groups these clients can consume as |
//! | `subject` | what requests are about, in words that all protocols have |
//! | `code`, `status` | numbers of requests and answers; which one an outcome has |
//!
//! What is read is read tolerantly, since every client writes it differently; what is written is what all of them read.

pub mod body;
pub mod broker_conf;
pub mod call;
pub mod client;
pub mod code;
mod consumer_group;
mod fields;
pub mod frame;
mod head;
mod header;
mod header_binary;
mod header_json;
pub mod json;
pub mod json_writer;
mod language;
pub mod message;
mod refusal;
mod scanner;
pub mod signature;
mod status;
mod subject;
#[cfg(test)]
mod tests;

pub use code::ResponseCode;
pub use consumer_group::{ConsumerGroupError, consumer_group};
pub use fields::{FieldError, FieldValue, Fields};
pub use frame::{Cut, Frame, FrameError, cut};
pub use head::{BROKER_VERSION, Head};
pub use header::{Header, HeaderError, HeaderForm};
pub use language::{Language, release_name};
pub use refusal::Refusal;
pub use scanner::JsonError;
pub use status::{Asked, code_of, remark_of};
pub use subject::{STAGES, kind_of, subject_of, wants_stages};
