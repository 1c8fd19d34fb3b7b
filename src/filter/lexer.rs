//! The words of an expression (the tokens of `filter/.../parser/SelectorParser.jj`).

use super::error::Fault;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Token<'a> {
    Not,
    And,
    Or,
    Between,
    In,
    Is,
    Contains,
    StartsWith,
    EndsWith,
    True,
    False,
    Null,
    /// Digits, without the `L` that may stand behind them.
    Integer(&'a str),
    Double(&'a str),
    /// Between its quotes; a quote within it stands there twice.
    Text(&'a str),
    Name(&'a str),
    Equal,
    NotEqual,
    Greater,
    GreaterOrEqual,
    Less,
    LessOrEqual,
    Plus,
    Minus,
    Open,
    Close,
    Comma,
    End,
}

const WORDS: [(&str, Token<'static>); 12] = [
    ("NOT", Token::Not),
    ("AND", Token::And),
    ("OR", Token::Or),
    ("BETWEEN", Token::Between),
    ("IN", Token::In),
    ("IS", Token::Is),
    ("CONTAINS", Token::Contains),
    ("STARTSWITH", Token::StartsWith),
    ("ENDSWITH", Token::EndsWith),
    ("TRUE", Token::True),
    ("FALSE", Token::False),
    ("NULL", Token::Null),
];

/// Longer ones first, where one begins with another.
const SIGNS: [(&str, Token<'static>); 11] = [
    ("<>", Token::NotEqual),
    ("<=", Token::LessOrEqual),
    (">=", Token::GreaterOrEqual),
    ("<", Token::Less),
    (">", Token::Greater),
    ("=", Token::Equal),
    ("+", Token::Plus),
    ("-", Token::Minus),
    ("(", Token::Open),
    (")", Token::Close),
    (",", Token::Comma),
];

/// Reads a text word by word.
pub(super) struct Lexer<'a> {
    text: &'a str,
    at: usize,
}

/// A word, and the byte at which it begins.
#[derive(Clone, Copy, Debug)]
pub(super) struct Word<'a> {
    pub token: Token<'a>,
    pub at: usize,
}

impl<'a> Lexer<'a> {
    pub fn new(text: &'a str) -> Self {
        Self { text, at: 0 }
    }

    /// Where the last word ends.
    pub fn at(&self) -> usize {
        self.at
    }

    /// The next word; [`Token::End`] after the last one. A fault comes with the byte at which it is.
    pub fn next(&mut self) -> Result<Word<'a>, (usize, Fault)> {
        self.pass_blanks()?;
        let at = self.at;
        let rest = &self.text[at..];
        let Some(first) = rest.chars().next() else { return Ok(Word { token: Token::End, at }) };
        let (token, bytes) = match first {
            '\'' => text(rest).ok_or((at, Fault::OpenText))?,
            '0'..='9' => number(rest),
            '.' if rest[1..].starts_with(|next: char| next.is_ascii_digit()) => number(rest),
            'a'..='z' | 'A'..='Z' | '_' | '$' => name(rest),
            _ => {
                let sign = SIGNS.iter().find(|(sign, _)| rest.starts_with(sign));
                let (sign, token) = sign.ok_or((at, Fault::Character(first)))?;
                (*token, sign.len())
            }
        };
        self.at += bytes;
        Ok(Word { token, at })
    }

    /// Passes over blanks and comments.
    fn pass_blanks(&mut self) -> Result<(), (usize, Fault)> {
        loop {
            let rest = &self.text[self.at..];
            let blanks = rest.len() - rest.trim_start_matches([' ', '\t', '\n', '\r', '\x0c']).len();
            let rest = &rest[blanks..];
            self.at += blanks;
            if rest.starts_with("--") {
                self.at += rest.find(['\n', '\r']).unwrap_or(rest.len());
            } else if let Some(comment) = rest.strip_prefix("/*") {
                let end = comment.find("*/").ok_or((self.at, Fault::OpenComment))?;
                self.at += end + 4;
            } else {
                return Ok(());
            }
        }
    }
}

/// A text at the start of `rest`, and how many bytes it takes.
fn text(rest: &str) -> Option<(Token<'_>, usize)> {
    let mut end = 1;
    loop {
        end += rest[end..].find('\'')?;
        if !rest[end + 1..].starts_with('\'') {
            return Some((Token::Text(&rest[1..end]), end + 1));
        }
        end += 2;
    }
}

/// The same of a name, or of a word that has a meaning.
fn name(rest: &str) -> (Token<'_>, usize) {
    let is_part = |byte: &u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$');
    let bytes = rest.bytes().take_while(|byte| is_part(byte)).count();
    let name = &rest[..bytes];
    let known = WORDS.iter().find(|(word, _)| word.eq_ignore_ascii_case(name));
    (known.map_or(Token::Name(name), |(_, token)| *token), bytes)
}

/// The same of a number, which begins with a digit or with a point before one.
fn number(rest: &str) -> (Token<'_>, usize) {
    let digits = |from: usize| rest[from..].bytes().take_while(u8::is_ascii_digit).count();
    let whole = digits(0);
    let mut end = whole;
    if rest[end..].starts_with('.') {
        end += 1 + digits(end + 1);
    }
    if rest[end..].starts_with(['e', 'E']) {
        let sign = usize::from(rest[end + 1..].starts_with(['+', '-']));
        let exponent = digits(end + 1 + sign);
        if exponent > 0 {
            end += 1 + sign + exponent;
        }
    }
    if end > whole {
        return (Token::Double(&rest[..end]), end);
    }
    // Only zero begins with a zero, and it has no suffix.
    if rest.starts_with('0') {
        return (Token::Integer("0"), 1);
    }
    let suffix = usize::from(rest[whole..].starts_with(['l', 'L']));
    (Token::Integer(&rest[..whole]), whole + suffix)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str) -> Result<Vec<Token<'_>>, (usize, Fault)> {
        let mut lexer = Lexer::new(text);
        let mut words = Vec::new();
        loop {
            match lexer.next()?.token {
                Token::End => return Ok(words),
                token => words.push(token),
            }
        }
    }

    #[test]
    fn words_and_names_are_told_apart() {
        let expected =
            [Token::Name("nothing"), Token::Not, Token::In, Token::Name("$a_1"), Token::Name("In2")];
        assert_eq!(words("nothing Not iN $a_1 In2"), Ok(expected.to_vec()));
        assert_eq!(words("a>=b<>c"), words("a >= b <> c"));
        assert_eq!(words(" \t\r\n\x0c"), Ok(vec![]));
    }

    #[test]
    fn numbers_are_read_as_long_as_they_go() {
        let (integer, double) = (Token::Integer, Token::Double);
        for (text, expected) in [
            ("12", vec![integer("12")]),
            ("12L", vec![integer("12")]),
            ("007", vec![integer("0"), integer("0"), integer("7")]),
            ("0L", vec![integer("0"), Token::Name("L")]),
            ("5.", vec![double("5.")]),
            (".5e-3", vec![double(".5e-3")]),
            ("00.5", vec![double("00.5")]),
            ("5E10", vec![double("5E10")]),
            ("5E+", vec![integer("5"), Token::Name("E"), Token::Plus]),
            ("1.e", vec![double("1."), Token::Name("e")]),
        ] {
            assert_eq!(words(text), Ok(expected), "{text}");
        }
        assert_eq!(words("."), Err((0, Fault::Character('.'))));
    }

    #[test]
    fn texts_hold_whatever_stands_between_their_quotes() {
        assert_eq!(words("'it''s'"), Ok(vec![Token::Text("it''s")]));
        assert_eq!(words("'' 'a'"), Ok(vec![Token::Text(""), Token::Text("a")]));
        assert_eq!(words("'-- \u{e9}\n/*'"), Ok(vec![Token::Text("-- \u{e9}\n/*")]));
        assert_eq!(words("a = 'b"), Err((4, Fault::OpenText)));
        assert_eq!(words("'a'''b"), Ok(vec![Token::Text("a''"), Token::Name("b")]));
        assert_eq!(words("'''"), Err((0, Fault::OpenText)));
    }

    #[test]
    fn comments_count_as_blanks() {
        for text in ["a/**/=/* 'x' ***/1", "a-- b\n=1", "a\n--\r=1 -- end", "a=1--"] {
            assert_eq!(words(text), words("a = 1"), "{text}");
        }
        assert_eq!(words("a /* b"), Err((2, Fault::OpenComment)));
        assert_eq!(words("a /*/"), Err((2, Fault::OpenComment)));
    }

    #[test]
    fn what_has_no_meaning_is_refused_where_it_stands() {
        for (text, at, character) in [("a ! b", 2, '!'), ("\u{e9}", 0, '\u{e9}'), ("a = \"b\"", 4, '"')] {
            assert_eq!(words(text), Err((at, Fault::Character(character))));
        }
    }
}
