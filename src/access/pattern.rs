//! Names of topics and groups in rules.

use std::fmt;
use std::str::FromStr;

/// A name, or the beginning of names: `orders`, `orders-*`, `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    Exact(Box<str>),
    Prefix(Box<str>),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern must not be empty: `*` matches every name")]
    Empty,
    #[error("`{pattern}` is no pattern: a `*` stands at the end only")]
    Star { pattern: String },
}

impl Pattern {
    pub fn matches(&self, name: &str) -> bool {
        match self {
            Pattern::Exact(exact) => **exact == *name,
            Pattern::Prefix(prefix) => name.starts_with(&**prefix),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let (name, make): (_, fn(Box<str>) -> Pattern) = match text.strip_suffix('*') {
            Some(prefix) => (prefix, Pattern::Prefix),
            None => (text, Pattern::Exact),
        };
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if name.contains('*') {
            return Err(PatternError::Star { pattern: text.to_owned() });
        }
        Ok(make(name.into()))
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Pattern::Exact(name) => formatter.write_str(name),
            Pattern::Prefix(prefix) => write!(formatter, "{prefix}*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_matches_any_end() {
        let cases = [
            ("orders", "orders", true),
            ("orders", "orders-1", false),
            ("orders-*", "orders-1", true),
            ("orders-*", "orders-", true),
            ("orders-*", "orders", false),
            ("*", "anything", true),
            ("*", "", true),
            ("%DLQ%*", "%DLQ%g", true),
        ];
        for (pattern, name, expected) in cases {
            let pattern: Pattern = pattern.parse().expect(pattern);
            assert_eq!(pattern.matches(name), expected, "{pattern} and {name}");
        }
        assert_eq!("".parse::<Pattern>(), Err(PatternError::Empty));
        for pattern in ["*a", "a*b", "**"] {
            assert!(matches!(pattern.parse::<Pattern>(), Err(PatternError::Star { .. })), "{pattern}");
        }
    }
}
