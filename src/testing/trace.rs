//! What happened in a run, to compare two runs of one seed.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::rc::Rc;

/// Lines kept at most; a longer run is compared by its hash.
const LINES_MAX: usize = 1 << 20;

/// Events of a run in their order: always a running hash, and the lines as well once [`record_lines`] was called. A
/// clone is the same trace.
///
/// [`record_lines`]: Trace::record_lines
#[derive(Clone, Default)]
pub struct Trace {
    state: Rc<State>,
}

#[derive(Default)]
struct State {
    hash: Cell<u64>,
    count: Cell<u64>,
    /// `None` until lines are asked for: formatting costs more than most events.
    lines: RefCell<Option<Vec<String>>>,
}

impl Trace {
    pub fn new() -> Self {
        Self::default()
    }

    /// Keeps lines from now on.
    pub fn record_lines(&self) {
        self.state.lines.borrow_mut().get_or_insert_default();
    }

    /// Something happened: a word for it, what it happened to, and numbers. Formats only when lines are kept.
    pub fn event(&self, what: &str, subject: &str, numbers: &[u64]) {
        self.state.mix_bytes(what.as_bytes());
        self.state.mix_bytes(subject.as_bytes());
        numbers.iter().for_each(|&number| self.state.mix(number));
        self.state.keep(|| format!("{what} {subject} {numbers:?}"));
    }

    /// Something happened, told by a text: `trace.note(format_args!("answered {offset}"))`.
    pub fn note(&self, text: fmt::Arguments<'_>) {
        let text = text.to_string();
        self.state.mix_bytes(text.as_bytes());
        self.state.keep(|| text);
    }

    /// Depends on every event and on their order.
    pub fn hash(&self) -> u64 {
        self.state.hash.get()
    }

    /// Number of events.
    pub fn count(&self) -> u64 {
        self.state.count.get()
    }

    /// The recorded lines; empty when none were asked for.
    pub fn lines(&self) -> Vec<String> {
        self.state.lines.borrow().clone().unwrap_or_default()
    }
}

impl State {
    fn mix(&self, number: u64) {
        let mixed = (self.hash.get().rotate_left(5) ^ number).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        self.hash.set(mixed ^ (mixed >> 29));
    }

    fn mix_bytes(&self, bytes: &[u8]) {
        self.mix(bytes.len() as u64);
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn keep(&self, line: impl FnOnce() -> String) {
        self.count.set(self.count.get() + 1);
        if let Some(lines) = self.lines.borrow_mut().as_mut()
            && lines.len() < LINES_MAX
        {
            lines.push(line());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_sees_events_and_their_order() {
        let hash = |events: &[(&str, u64)]| {
            let trace = Trace::new();
            events.iter().for_each(|&(what, number)| trace.event(what, "", &[number]));
            trace.hash()
        };
        assert_eq!(hash(&[("a", 1), ("b", 2)]), hash(&[("a", 1), ("b", 2)]));
        assert_ne!(hash(&[("a", 1), ("b", 2)]), hash(&[("b", 2), ("a", 1)]));
        assert_ne!(hash(&[("a", 1)]), hash(&[("a", 2)]));
        assert_ne!(hash(&[("a", 1)]), hash(&[("a", 1), ("a", 1)]));
    }

    #[test]
    fn lines_are_kept_once_asked_for() {
        let trace = Trace::new();
        trace.event("before", "", &[]);
        assert!(trace.lines().is_empty());
        trace.clone().record_lines();
        trace.event("poll", "task", &[3]);
        trace.note(format_args!("answered {}", 4));
        assert_eq!(trace.lines(), ["poll task [3]", "answered 4"]);
        assert_eq!(trace.count(), 3);
    }
}
