//! From words to a tree (`filter/.../parser/SelectorParser.jj`, and what `filter/.../expression` refuses to build).
//!
//! From the loosest to the tightest: OR; AND; `=`, `<>`, IS; comparisons, BETWEEN, IN and searches; signs and NOT. So `NOT a = 1`
//! says that NOT a equals 1, and `NOT a IN ('x')` is nothing.
//!
//! 1. No node has more than `limits::EXPRESSION_DEPTH_MAX` nodes above it, and no call here more than that many levels of
//!    brackets, signs and NOTs: both are bounded before the next one is made.
//! 2. Whatever is wrong is said with the byte at which the wrong part begins.

use std::collections::BTreeMap;

use super::error::{ExpressionError, Fault};
use super::lexer::{Lexer, Token, Word};
use super::node::{Constant, Node, Order, Search, Slot};
use super::value::{Value, read_double, read_whole};
use crate::limits;

/// Bytes of a word that are shown.
const SHOWN_MAX: usize = 32;

/// A tree, and the names of the properties in it by their slots.
pub(super) struct Parsed {
    pub root: Node,
    pub slots: BTreeMap<Box<[u8]>, Slot>,
    /// How many nodes it has.
    pub parts: usize,
}

struct Parser<'a> {
    text: &'a str,
    lexer: Lexer<'a>,
    word: Word<'a>,
    slots: BTreeMap<Box<[u8]>, Slot>,
    parts: usize,
    /// Open brackets, signs and NOTs.
    nesting: usize,
}

/// A node, the levels in it, and where its text begins.
struct Part {
    node: Node,
    depth: usize,
    at: usize,
}

/// A fault, and the byte at which it is.
type Faulty<T> = Result<T, (usize, Fault)>;

pub(super) fn parse(text: &str) -> Result<Parsed, ExpressionError> {
    read(text).map_err(|(at, fault)| ExpressionError { place: text[..at].chars().count() + 1, fault })
}

fn read(text: &str) -> Faulty<Parsed> {
    if text.len() > limits::EXPRESSION_BYTES_MAX {
        return Err((0, Fault::TooLong));
    }
    let mut lexer = Lexer::new(text);
    let word = lexer.next()?;
    let mut parser = Parser { text, lexer, word, slots: BTreeMap::new(), parts: 0, nesting: 0 };
    let root = parser.any()?;
    let root = condition(root)?.node;
    match parser.word.token {
        Token::End => Ok(Parsed { root, slots: parser.slots, parts: parser.parts }),
        _ => Err(parser.unexpected("AND, OR or the end")),
    }
}

/// A part as a condition: a property becomes one.
fn condition(part: Part) -> Faulty<Part> {
    match part.node {
        Node::Property(slot) => Ok(Part { node: Node::Condition(slot), ..part }),
        node if node.is_condition() => Ok(Part { node, ..part }),
        _ => Err((part.at, Fault::NoCondition)),
    }
}

/// Whether something that is compared in order may be a number.
fn check_number(part: &Part) -> Faulty<()> {
    let is_fine = match part.node.constant() {
        Some(constant) => constant.is_number(),
        None => !part.node.is_condition(),
    };
    if is_fine { Ok(()) } else { Err((part.at, Fault::NoNumber)) }
}

fn check_equal(left: &Part, right: &Part) -> Faulty<()> {
    if let Some(null) = [left, right].into_iter().find(|part| part.node == Node::Constant(Constant::Null)) {
        return Err((null.at, Fault::EqualsNull));
    }
    match (left.node.constant(), right.node.constant()) {
        (Some(Constant::Truth(_)), Some(Constant::Truth(_))) => Ok(()),
        (Some(Constant::Truth(_)), Some(_)) => Err((right.at, Fault::TruthWithOther)),
        _ => Ok(()),
    }
}

fn check_bounds(low: &Part, high: &Part) -> Faulty<()> {
    let (Some(lowest), Some(highest)) = (low.node.constant(), high.node.constant()) else { return Ok(()) };
    match highest.value().compare(lowest.value()) {
        Ok(ordering) if ordering.is_ge() => Ok(()),
        _ => Err((low.at, Fault::Bounds)),
    }
}

/// A text as it is meant: its doubled quotes are one.
fn plain(text: &str) -> Box<[u8]> {
    text.replace("''", "'").into_bytes().into()
}

impl<'a> Parser<'a> {
    /// Goes on to the next word, and returns the one before.
    fn advance(&mut self) -> Faulty<Word<'a>> {
        let next = self.lexer.next()?;
        Ok(std::mem::replace(&mut self.word, next))
    }

    /// Goes on if the next word is this one.
    fn passes(&mut self, token: Token<'_>) -> Faulty<bool> {
        let is_there = self.word.token == token;
        if is_there {
            self.advance()?;
        }
        Ok(is_there)
    }

    fn expect(&mut self, token: Token<'_>, wanted: &'static str) -> Faulty<()> {
        if self.passes(token)? { Ok(()) } else { Err(self.unexpected(wanted)) }
    }

    fn unexpected(&self, wanted: &'static str) -> (usize, Fault) {
        let at = self.word.at;
        let found = match self.word.token {
            Token::End => "the end".to_owned(),
            _ => {
                let rest = &self.text[at..];
                let shown = rest.char_indices().map(|(start, _)| start).find(|start| *start >= SHOWN_MAX);
                let end = self.lexer.at() - at;
                format!("`{}`", &rest[..shown.map_or(end, |shown| shown.min(end))])
            }
        };
        (at, Fault::Unexpected { wanted, found })
    }

    /// A node above others that have this many levels.
    fn part(&mut self, node: Node, depth: usize, at: usize) -> Faulty<Part> {
        self.parts += 1;
        if self.parts > limits::EXPRESSION_PARTS_MAX {
            return Err((at, Fault::TooManyParts));
        }
        if depth >= limits::EXPRESSION_DEPTH_MAX {
            return Err((at, Fault::TooDeep));
        }
        Ok(Part { node, depth: depth + 1, at })
    }

    fn above(&mut self, node: impl FnOnce(Box<Node>) -> Node, below: Part) -> Faulty<Part> {
        let Part { node: inner, depth, at } = below;
        self.part(node(Box::new(inner)), depth, at)
    }

    fn above_two(&mut self, node: impl FnOnce(Box<[Node; 2]>) -> Node, parts: [Part; 2]) -> Faulty<Part> {
        let [left, right] = parts;
        let depth = left.depth.max(right.depth);
        self.part(node(Box::new([left.node, right.node])), depth, left.at)
    }

    fn negated_if(&mut self, is_not: bool, part: Part) -> Faulty<Part> {
        if is_not { self.above(Node::Not, part) } else { Ok(part) }
    }

    fn any(&mut self) -> Faulty<Part> {
        self.joined(Token::Or, Node::Any, Self::all)
    }

    fn all(&mut self) -> Faulty<Part> {
        self.joined(Token::And, Node::All, Self::equality)
    }

    /// One part, or several that a word joins.
    fn joined(
        &mut self,
        word: Token<'static>,
        node: fn(Vec<Node>) -> Node,
        mut one: impl FnMut(&mut Self) -> Faulty<Part>,
    ) -> Faulty<Part> {
        let first = one(self)?;
        if self.word.token != word {
            return Ok(first);
        }
        let Part { node: first, mut depth, at } = condition(first)?;
        let mut nodes = vec![first];
        while self.passes(word)? {
            let next = condition(one(self)?)?;
            depth = depth.max(next.depth);
            nodes.push(next.node);
        }
        self.part(node(nodes), depth, at)
    }

    fn equality(&mut self) -> Faulty<Part> {
        let mut left = self.comparison()?;
        loop {
            let is_not = match self.word.token {
                Token::Equal => false,
                Token::NotEqual => true,
                Token::Is => {
                    self.advance()?;
                    let is_not = self.passes(Token::Not)?;
                    self.expect(Token::Null, if is_not { "NULL" } else { "NULL or NOT NULL" })?;
                    let part = self.above(Node::IsNull, left)?;
                    left = self.negated_if(is_not, part)?;
                    continue;
                }
                _ => return Ok(left),
            };
            self.advance()?;
            let right = self.comparison()?;
            check_equal(&left, &right)?;
            let part = self.above_two(Node::Equal, [left, right])?;
            left = self.negated_if(is_not, part)?;
        }
    }

    fn comparison(&mut self) -> Faulty<Part> {
        let mut left = self.unary()?;
        loop {
            left = match self.word.token {
                Token::Greater => self.ordered(left, Order::Greater)?,
                Token::GreaterOrEqual => self.ordered(left, Order::GreaterOrEqual)?,
                Token::Less => self.ordered(left, Order::Less)?,
                Token::LessOrEqual => self.ordered(left, Order::LessOrEqual)?,
                Token::Not => {
                    self.advance()?;
                    self.predicate(left, true)?
                }
                Token::Between | Token::In | Token::Contains | Token::StartsWith | Token::EndsWith => {
                    self.predicate(left, false)?
                }
                _ => return Ok(left),
            };
        }
    }

    fn ordered(&mut self, left: Part, order: Order) -> Faulty<Part> {
        self.advance()?;
        let right = self.unary()?;
        check_number(&left)?;
        check_number(&right)?;
        self.above_two(|parts| Node::Ordered(order, parts), [left, right])
    }

    /// What may stand behind a value, and behind a NOT that follows it.
    fn predicate(&mut self, left: Part, is_not: bool) -> Faulty<Part> {
        let how = match self.word.token {
            Token::Between => return self.between(left, is_not),
            Token::In => return self.within(left, is_not),
            Token::Contains => Search::Anywhere,
            Token::StartsWith => Search::Start,
            Token::EndsWith => Search::End,
            _ => return Err(self.unexpected("BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH")),
        };
        self.advance()?;
        let sought = self.text_literal()?;
        self.above(|within| Node::Search { how, sought, within, is_not }, left)
    }

    fn between(&mut self, value: Part, is_not: bool) -> Faulty<Part> {
        self.advance()?;
        let low = self.unary()?;
        self.expect(Token::And, "AND")?;
        let high = self.unary()?;
        [&value, &low, &high].into_iter().try_for_each(check_number)?;
        if !is_not {
            check_bounds(&low, &high)?;
        }
        let depth = value.depth.max(low.depth).max(high.depth);
        let parts = Box::new([value.node, low.node, high.node]);
        self.part(Node::Between { parts, is_not }, depth, value.at)
    }

    fn within(&mut self, left: Part, is_not: bool) -> Faulty<Part> {
        self.advance()?;
        let Node::Property(property) = left.node else { return Err((left.at, Fault::NoProperty)) };
        self.expect(Token::Open, "( and texts")?;
        let mut texts = vec![self.text_literal()?];
        while self.passes(Token::Comma)? {
            texts.push(self.text_literal()?);
        }
        self.expect(Token::Close, "a comma or )")?;
        texts.sort_unstable();
        texts.dedup();
        self.part(Node::In { property, texts, is_not }, left.depth, left.at)
    }

    fn text_literal(&mut self) -> Faulty<Box<[u8]>> {
        let Token::Text(text) = self.word.token else { return Err(self.unexpected("a text in quotes")) };
        self.advance()?;
        Ok(plain(text))
    }

    /// Signs and NOTs, and what follows them.
    fn unary(&mut self) -> Faulty<Part> {
        let token = self.word.token;
        if !matches!(token, Token::Plus | Token::Minus | Token::Not) {
            return self.primary();
        }
        let at = self.advance()?.at;
        let inner = self.nested(at, Self::unary)?;
        match token {
            Token::Minus => self.above(Node::Negated, Part { at, ..inner }),
            Token::Not => self.above(Node::Not, Part { at, ..condition(inner)? }),
            _ => Ok(inner),
        }
    }

    /// Something one level further in.
    fn nested(&mut self, at: usize, inner: impl FnOnce(&mut Self) -> Faulty<Part>) -> Faulty<Part> {
        if self.nesting >= limits::EXPRESSION_DEPTH_MAX {
            return Err((at, Fault::TooDeep));
        }
        self.nesting += 1;
        let part = inner(self)?;
        self.nesting -= 1;
        Ok(part)
    }

    fn primary(&mut self) -> Faulty<Part> {
        let Word { token, at } = self.word;
        let number = |value: Option<Value<'static>>, digits: &str| match value {
            Some(Value::Integer(number)) => Ok(Constant::Integer(number)),
            Some(Value::Long(number)) => Ok(Constant::Long(number)),
            Some(Value::Double(number)) => Ok(Constant::Double(number)),
            _ => Err((at, Fault::Number(digits.chars().take(SHOWN_MAX).collect()))),
        };
        let constant = match token {
            Token::Open => {
                self.advance()?;
                let inner = self.nested(at, Self::any)?;
                self.expect(Token::Close, ")")?;
                return Ok(Part { at, ..inner });
            }
            Token::Name(name) => {
                self.advance()?;
                let slot = self.slot(name);
                return self.part(Node::Property(slot), 0, at);
            }
            Token::Text(text) => Constant::Text(plain(text)),
            Token::Integer(digits) => number(read_whole(digits), digits)?,
            Token::Double(digits) => number(read_double(digits), digits)?,
            Token::True => Constant::Truth(true),
            Token::False => Constant::Truth(false),
            Token::Null => Constant::Null,
            _ => return Err(self.unexpected("a property or a value")),
        };
        self.advance()?;
        self.part(Node::Constant(constant), 0, at)
    }

    /// The number of a property.
    fn slot(&mut self, name: &str) -> Slot {
        let next = self.slots.len() as Slot;
        *self.slots.entry(name.as_bytes().into()).or_insert(next)
    }
}

const _: () = assert!(limits::EXPRESSION_PARTS_MAX < Slot::MAX as usize);

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(text: &str) -> ExpressionError {
        match parse(text) {
            Ok(parsed) => panic!("{text} is read as {:?}", parsed.root),
            Err(error) => error,
        }
    }

    #[test]
    fn a_fault_is_told_with_its_place() {
        for (text, place, words) in [
            ("", 1, "a property or a value is expected, not the end"),
            ("a =", 4, "a property or a value is expected, not the end"),
            ("a = 1 b", 7, "AND, OR or the end is expected, not `b`"),
            ("'\u{e9}\u{e9}' = a AND AND", 14, "a property or a value is expected, not `AND`"),
            ("a NOT = 1", 7, "BETWEEN, IN, CONTAINS, STARTSWITH or ENDSWITH is expected, not `=`"),
            ("a IS 1", 6, "NULL or NOT NULL is expected, not `1`"),
            ("a IN ()", 7, "a text in quotes is expected, not `)`"),
            ("a IN ('x' 'y')", 11, "a comma or ) is expected, not `'y'`"),
            ("(a = 1", 7, ") is expected, not the end"),
            ("a & b", 3, "`&` has no meaning in an expression"),
            ("a > 'x", 5, "the text that begins here does not end"),
            ("b = 1 AND a > 'x'", 15, "<, <=, >, >= and BETWEEN compare numbers"),
            ("1 < a < 5", 1, "<, <=, >, >= and BETWEEN compare numbers"),
            ("a = NULL", 5, "IS NULL asks for it"),
            ("TRUE = 'x'", 8, "TRUE and FALSE do not equal a text or a number"),
            ("a BETWEEN 2 AND 1", 11, "the lower bound of BETWEEN is above the upper one"),
            ("NOT a IN ('x')", 1, "IN asks for the text of a property"),
            ("a = 1 OR 5", 10, "this is neither true nor false"),
            ("-a", 1, "this is neither true nor false"),
            ("a = 9223372036854775808", 5, "9223372036854775808 is beyond the numbers that there are"),
            ("a > 1e999", 5, "1e999 is beyond the numbers that there are"),
        ] {
            let error = fault(text);
            assert_eq!(error.place, place, "{text}: {error}");
            assert!(error.to_string().contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn depth_is_bounded_in_every_direction() {
        let most = limits::EXPRESSION_DEPTH_MAX;
        let nested = |open: &str, count: usize, close: &str| {
            format!("{}a = 1{}", open.repeat(count), close.repeat(count))
        };
        for (text, too_deep) in [
            (nested("(", most, ")"), nested("(", most + 1, ")")),
            (nested("NOT (", most / 2 - 1, ")"), nested("NOT (", most / 2 + 1, ")")),
            (format!("a = {}1", "-".repeat(20)), format!("a = {}1", "- ".repeat(most + 1))),
            (format!("a = {}1", "+".repeat(most)), format!("a = {}1", "+".repeat(most + 1))),
            (format!("a = 1{}", " = 1".repeat(most - 2)), format!("a = 1{}", " = 1".repeat(most - 1))),
            (format!("a{}", " IS NULL".repeat(most - 1)), format!("a{}", " IS NULL".repeat(most))),
        ] {
            // Two signs in a row would begin a comment.
            let text = text.replace("--", "- - ");
            assert!(parse(&text).is_ok(), "{text}");
            assert_eq!(fault(&too_deep).fault, Fault::TooDeep, "{too_deep}");
        }
    }

    #[test]
    fn size_is_bounded() {
        let many = |count: usize| vec!["a"; count].join(" OR ");
        assert!(parse(&many(limits::EXPRESSION_PARTS_MAX - 1)).is_ok());
        assert_eq!(fault(&many(limits::EXPRESSION_PARTS_MAX)).fault, Fault::TooManyParts);
        let long = |bytes: usize| format!("a = '{}'", "x".repeat(bytes - 6));
        assert!(parse(&long(limits::EXPRESSION_BYTES_MAX)).is_ok());
        assert_eq!(fault(&long(limits::EXPRESSION_BYTES_MAX + 1)).fault, Fault::TooLong);
    }

    #[test]
    fn words_bind_as_in_rocketmq() {
        let same = |text: &str, bracketed: &str| {
            let root = |text: &str| parse(text).expect(text).root;
            assert_eq!(root(text), root(bracketed), "{text}");
        };
        same("a = 1 OR b = 2 AND c = 3", "a = 1 OR (b = 2 AND c = 3)");
        same("NOT a = 1", "(NOT a) = 1");
        same("a = b > 1", "a = (b > 1)");
        same("a BETWEEN 1 AND 2 AND b = 1", "(a BETWEEN 1 AND 2) AND (b = 1)");
        same("- a > 1", "(-a) > 1");
        same("a = b IS NULL", "(a = b) IS NULL");
        same("a IN ('y', 'x', 'y')", "a in ('x','y')");
    }
}
