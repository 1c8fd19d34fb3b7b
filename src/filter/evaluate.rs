//! What a tree comes to for one message. Conditions are true, false or null, and a whole expression holds only when it is
//! true. Comparisons with a property that is not there are null, with exceptions that are RocketMQ's: see the table in
//! `tests/data/sql92`.

use super::node::{Node, Order, Slot};
use super::value::{Incomparable, Value};

/// A message's properties by their slots.
pub(super) type Values<'a, 'b> = &'b [Option<&'a [u8]>];

fn property<'a>(slot: Slot, values: Values<'a, '_>) -> Value<'a> {
    values[usize::from(slot)].map_or(Value::Null, Value::Text)
}

fn condition<'a>(truth: Option<bool>) -> Value<'a> {
    truth.map_or(Value::Null, Value::Truth)
}

impl Node {
    pub fn evaluate<'a>(&'a self, values: Values<'a, '_>) -> Result<Value<'a>, Incomparable> {
        Ok(match self {
            Node::Constant(constant) => constant.value(),
            Node::Property(slot) => property(*slot, values),
            Node::Condition(slot) => match property(*slot, values) {
                Value::Null => Value::Null,
                _ => Value::Truth(false),
            },
            Node::Negated(inner) => inner.evaluate(values)?.negated(),
            Node::Not(inner) => condition(inner.evaluate(values)?.truth().map(|truth| !truth)),
            Node::All(nodes) => condition(joined(nodes, false, values)?),
            Node::Any(nodes) => condition(joined(nodes, true, values)?),
            Node::Equal(sides) => condition(equal(sides, values)?),
            Node::IsNull(inner) => Value::Truth(inner.evaluate(values)? == Value::Null),
            Node::Ordered(order, sides) => {
                let [left, right] = &**sides;
                condition(ordered(left.evaluate(values)?, *order, right, values)?)
            }
            Node::Between { parts, is_not } => condition(between(parts, *is_not, values)?),
            Node::In { property: slot, texts, is_not } => match property(*slot, values) {
                Value::Text(text) => {
                    let is_there = texts.binary_search_by(|known| (**known).cmp(text)).is_ok();
                    Value::Truth(is_there != *is_not)
                }
                _ => Value::Null,
            },
            Node::Search { how, sought, within, is_not } => {
                if sought.is_empty() {
                    return Ok(Value::Truth(false));
                }
                match within.evaluate(values)? {
                    Value::Text(text) => Value::Truth(how.finds(text, sought) != *is_not),
                    _ => Value::Truth(false),
                }
            }
        })
    }
}

/// `decides` as soon as one of the nodes is that, null if one of them is null, and otherwise the other.
fn joined(nodes: &[Node], decides: bool, values: Values<'_, '_>) -> Result<Option<bool>, Incomparable> {
    let mut outcome = Some(!decides);
    for node in nodes {
        match node.evaluate(values)?.truth() {
            Some(truth) if truth == decides => return Ok(Some(decides)),
            Some(_) => {}
            None => outcome = None,
        }
    }
    Ok(outcome)
}

fn equal(sides: &[Node; 2], values: Values<'_, '_>) -> Result<Option<bool>, Incomparable> {
    let (left, right) = (sides[0].evaluate(values)?, sides[1].evaluate(values)?);
    Ok(match (left, right) {
        (Value::Null, Value::Null) => Some(true),
        // Only what stands on the left makes it null.
        (Value::Null, _) => None,
        (_, Value::Null) => Some(false),
        _ => Some(left.compare(right)?.is_eq()),
    })
}

/// Null when one of the two is; `right` is not looked at when the left one is.
fn ordered(
    left: Value<'_>,
    order: Order,
    right: &Node,
    values: Values<'_, '_>,
) -> Result<Option<bool>, Incomparable> {
    if left == Value::Null {
        return Ok(None);
    }
    match right.evaluate(values)? {
        Value::Null => Ok(None),
        right => left.compare_numbers(right).map(|ordering| Some(order.holds(ordering))),
    }
}

fn between(parts: &[Node; 3], is_not: bool, values: Values<'_, '_>) -> Result<Option<bool>, Incomparable> {
    let [value, low, high] = parts;
    let value = value.evaluate(values)?;
    let (first, second) = match is_not {
        false => (Order::GreaterOrEqual, Order::LessOrEqual),
        true => (Order::Less, Order::Greater),
    };
    let first = ordered(value, first, low, values)?;
    // What the first comparison decides, the second one is not made for.
    if first == Some(is_not) {
        return Ok(first);
    }
    match ordered(value, second, high, values)? {
        Some(truth) if truth == is_not => Ok(Some(truth)),
        Some(truth) => Ok(first.map(|_| truth)),
        None => Ok(None),
    }
}
