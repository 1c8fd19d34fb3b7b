//! An expression that was read, and may be asked of messages.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;

use super::error::ExpressionError;
use super::node::{Node, Slot};
use super::parser::{Parsed, parse};
use super::prefilter;
use super::value::Value;
use crate::wire::properties::{Properties, names};
use crate::wire::record::RecordView;

/// Properties of a message that are found without memory of their own.
const FEW: usize = 16;

/// Which messages are wanted, in SQL92. Two are the same when their texts are.
#[derive(Clone)]
pub struct Expression {
    text: Box<str>,
    root: Node,
    slots: BTreeMap<Box<[u8]>, Slot>,
    parts: usize,
    /// A message must have one of these tags; `None`: any, or none.
    tags: Option<Vec<Box<[u8]>>>,
}

/// What an expression may ask of a message.
#[derive(Clone, Copy, Debug, Default)]
pub struct Subject<'a> {
    /// Its keys: the property `KEYS`.
    pub key: &'a [u8],
    /// The property `TAGS`.
    pub tag: &'a [u8],
    /// All others, see `wire::properties`.
    pub properties: &'a [u8],
}

impl Expression {
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Tags of which a message must have one; `None` when it need not.
    pub fn tags(&self) -> Option<&[Box<[u8]>]> {
        self.tags.as_deref()
    }

    /// What it takes of memory, about.
    pub fn memory_bytes(&self) -> usize {
        size_of::<Self>() + 2 * self.text.len() + self.parts * (size_of::<Node>() + 64)
    }

    /// What it takes to ask it of a message, in steps of some ten nanoseconds, beyond what the message's properties take.
    pub fn steps(&self) -> usize {
        self.parts
    }

    /// Whether it is true of a message. Not so where it is null, or compares what cannot be compared.
    pub fn matches(&self, message: &Subject<'_>) -> bool {
        let mut few = [None; FEW];
        let mut many;
        let values = match few.get_mut(..self.slots.len()) {
            Some(values) => values,
            None => {
                many = vec![None; self.slots.len()];
                &mut many[..]
            }
        };
        self.fill(message, values);
        self.root.evaluate(values) == Ok(Value::Truth(true))
    }

    /// Finds the properties that the expression names. Of several that have one name, the last one counts.
    fn fill<'a>(&self, message: &Subject<'a>, values: &mut [Option<&'a [u8]>]) {
        let own = [(names::TAGS, message.tag), (names::KEYS, message.key)];
        let own = own.into_iter().filter(|(_, value)| !value.is_empty());
        let own = own.map(|(name, value)| (name.as_bytes(), value));
        for (name, value) in Properties::new(message.properties).chain(own) {
            if let Some(slot) = self.slots.get(name) {
                values[usize::from(*slot)] = Some(value);
            }
        }
    }
}

impl FromStr for Expression {
    type Err = ExpressionError;

    fn from_str(text: &str) -> Result<Self, ExpressionError> {
        let Parsed { root, slots, parts } = parse(text)?;
        let tag = slots.get(names::TAGS.as_bytes()).copied();
        let tags = prefilter::tags(&root, tag).map(|tags| tags.into_iter().map(Box::from).collect());
        Ok(Self { text: text.into(), root, slots, parts, tags })
    }
}

impl<'a> From<&RecordView<'a>> for Subject<'a> {
    fn from(record: &RecordView<'a>) -> Self {
        Self { key: record.key(), tag: record.tag(), properties: record.properties() }
    }
}

impl fmt::Debug for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_tuple("Expression").field(&self.text).finish()
    }
}

impl PartialEq for Expression {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Expression {}

impl PartialOrd for Expression {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Expression {
    fn cmp(&self, other: &Self) -> Ordering {
        self.text.cmp(&other.text)
    }
}

impl Hash for Expression {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.text.hash(state);
    }
}

#[cfg(test)]
mod tests;
