//! Requests, a family each: fields in, what is to be done out; and their answers.

pub mod inquiry;
pub mod lock;
pub mod offsets;
pub mod pull;
pub mod query;
pub mod recall;
pub mod reply;
pub mod resets;
pub mod send;
pub mod send_back;
pub mod set_up;
pub mod transaction;
