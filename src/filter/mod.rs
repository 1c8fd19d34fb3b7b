//! SQL92 expressions that say which messages somebody wants, with RocketMQ's grammar and meaning (`filter/` in its sources).
//!
//! * `lexer`, `parser`: text to a tree. Depth and size are bounded, so that whatever comes from a socket can be read, and
//!   evaluated, without more than a few kilobytes of stack. What is wrong is said with its place.
//! * `value`, `evaluate`: what a tree says of a message. A property is text, and becomes a number or a truth where it is compared
//!   with one, as Java reads them. What cannot be compared makes the whole expression untrue.
//! * `prefilter`: the tags of which a message must have one, so that most messages are left out by the index.
//!
//! What Apache's own code says of a table of expressions and messages is in `tests/data/sql92`, and a test holds this against it.

mod error;
mod evaluate;
mod expression;
mod lexer;
mod node;
mod parser;
mod prefilter;
mod value;

pub use error::{ExpressionError, Fault};
pub use expression::{Expression, Subject};
