//! An expression as a tree.

use std::cmp::Ordering;

use super::value::Value;

/// The number of a property among those that an expression names.
pub(super) type Slot = u16;

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    Constant(Constant),
    Property(Slot),
    /// A property where a condition stands: never true, since it is text.
    Condition(Slot),
    Negated(Box<Node>),
    Not(Box<Node>),
    /// Joined by AND.
    All(Vec<Node>),
    /// Joined by OR.
    Any(Vec<Node>),
    Equal(Box<[Node; 2]>),
    IsNull(Box<Node>),
    Ordered(Order, Box<[Node; 2]>),
    /// A value, and its lowest and highest ones.
    Between {
        parts: Box<[Node; 3]>,
        is_not: bool,
    },
    In {
        property: Slot,
        /// Sorted.
        texts: Vec<Box<[u8]>>,
        is_not: bool,
    },
    Search {
        how: Search,
        sought: Box<[u8]>,
        within: Box<Node>,
        is_not: bool,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub(super) enum Constant {
    Null,
    Truth(bool),
    Integer(i32),
    Long(i64),
    Double(f64),
    Text(Box<[u8]>),
}

/// How two numbers are to compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Where in a text another one is looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Search {
    Anywhere,
    Start,
    End,
}

impl Node {
    /// Whether it is true, false or null of every message.
    pub fn is_condition(&self) -> bool {
        match self {
            Node::Constant(constant) => matches!(constant, Constant::Null | Constant::Truth(_)),
            Node::Property(_) | Node::Negated(_) => false,
            Node::Condition(_)
            | Node::Not(_)
            | Node::All(_)
            | Node::Any(_)
            | Node::Equal(_)
            | Node::IsNull(_)
            | Node::Ordered(..)
            | Node::Between { .. }
            | Node::In { .. }
            | Node::Search { .. } => true,
        }
    }

    pub fn constant(&self) -> Option<&Constant> {
        match self {
            Node::Constant(constant) => Some(constant),
            _ => None,
        }
    }
}

impl Constant {
    pub fn value(&self) -> Value<'_> {
        match self {
            Constant::Null => Value::Null,
            Constant::Truth(truth) => Value::Truth(*truth),
            Constant::Integer(number) => Value::Integer(*number),
            Constant::Long(number) => Value::Long(*number),
            Constant::Double(number) => Value::Double(*number),
            Constant::Text(text) => Value::Text(text),
        }
    }

    pub fn is_number(&self) -> bool {
        matches!(self, Constant::Integer(_) | Constant::Long(_) | Constant::Double(_))
    }
}

impl Order {
    pub fn holds(self, ordering: Ordering) -> bool {
        match self {
            Order::Less => ordering.is_lt(),
            Order::LessOrEqual => ordering.is_le(),
            Order::Greater => ordering.is_gt(),
            Order::GreaterOrEqual => ordering.is_ge(),
        }
    }
}

impl Search {
    pub fn finds(self, text: &[u8], sought: &[u8]) -> bool {
        match self {
            Search::Anywhere => memchr::memmem::find(text, sought).is_some(),
            Search::Start => text.starts_with(sought),
            Search::End => text.ends_with(sought),
        }
    }
}
