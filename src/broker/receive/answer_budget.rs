//! How much fits the answer to a receive: a number of messages, and a number of bytes unless it is the first message.

use crate::api::Receive;
use crate::limits;

/// What an answer to a receive still takes.
#[derive(Clone, Copy, Debug)]
pub(in crate::broker) struct AnswerBudget {
    pub messages: usize,
    bytes: usize,
    /// Nothing is in the answer: its first message fits, however large it is.
    is_unused: bool,
}

impl AnswerBudget {
    pub fn of(receive: &Receive) -> Self {
        let bytes = (receive.bytes_max as usize).min(limits::RECEIVE_BYTES_MAX);
        Self { messages: receive.count as usize, bytes, is_unused: true }
    }

    /// Whether the answer takes any message at all.
    pub fn is_full(&self) -> bool {
        self.messages == 0 || (self.bytes == 0 && !self.is_unused)
    }

    /// Takes a record's share; false, and then the answer is full, when it does not fit.
    pub fn take(&mut self, record_bytes: usize) -> bool {
        let fits = self.messages > 0 && (self.is_unused || record_bytes <= self.bytes);
        self.bytes = if fits { self.bytes.saturating_sub(record_bytes) } else { 0 };
        self.messages -= usize::from(fits);
        self.is_unused &= !fits;
        fits
    }
}
