//! The SQL92 expressions of groups, read once and not for every pull.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;

use crate::filter::{Expression, ExpressionError};
use crate::limits;

/// Those that were asked for last, the newest first.
#[derive(Default)]
pub(super) struct Expressions {
    known: RefCell<VecDeque<Arc<Expression>>>,
}

impl Expressions {
    pub fn read(&self, text: &str) -> Result<Arc<Expression>, ExpressionError> {
        let mut known = self.known.borrow_mut();
        let found = match known.iter().position(|expression| expression.text() == text) {
            Some(at) => known.remove(at).expect("it was found there"),
            None => Arc::new(text.parse()?),
        };
        known.push_front(found.clone());
        known.truncate(limits::REMOTING_EXPRESSIONS_MAX);
        Ok(found)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_is_read_once_and_what_was_not_asked_for_is_let_go() {
        let expressions = Expressions::default();
        let read = |number: usize| expressions.read(&format!("a = {number}")).expect("an expression");
        let first = read(0);
        for number in 1..limits::REMOTING_EXPRESSIONS_MAX {
            read(number);
        }
        assert!(Arc::ptr_eq(&first, &read(0)));
        read(limits::REMOTING_EXPRESSIONS_MAX);
        assert!(Arc::ptr_eq(&first, &read(0)), "it was asked for of late");
        (0..limits::REMOTING_EXPRESSIONS_MAX).for_each(|number| _ = read(1000 + number));
        assert!(!Arc::ptr_eq(&first, &read(0)));
        assert_eq!(expressions.known.borrow().len(), limits::REMOTING_EXPRESSIONS_MAX);
        assert!(expressions.read("a =").is_err());
    }
}
