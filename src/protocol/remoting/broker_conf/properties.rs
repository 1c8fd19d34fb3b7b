//! Files of properties, as `java.util.Properties` reads them.

/// One setting in such a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Property {
    /// The number of the line that it begins in, from 1 on.
    pub line: usize,
    pub name: String,
    pub value: String,
}

/// All settings of a file, in its order. What stands there is never wrong: a line without a separator is a name without a value.
pub fn properties(text: &str) -> Vec<Property> {
    logical_lines(text).into_iter().map(|(line, text)| property(line, &text)).collect()
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\u{c}')
}

/// Lines that are neither empty nor comments, each joined with those after it that a backslash at its end makes part of it.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut joined = Vec::new();
    let mut lines = text.lines().zip(1..);
    while let Some((line, number)) = lines.next() {
        let line = line.trim_start_matches(is_blank);
        if line.is_empty() || line.starts_with(['#', '!']) {
            continue;
        }
        let mut whole = line.to_owned();
        while ends_with_continuation(&whole) {
            whole.pop();
            let Some((next, _)) = lines.next() else { break };
            whole.push_str(next.trim_start_matches(is_blank));
        }
        joined.push((number, whole));
    }
    joined
}

/// Whether a line ends with a backslash that is not itself escaped.
fn ends_with_continuation(line: &str) -> bool {
    let count = line.chars().rev().take_while(|character| *character == '\\').count();
    count % 2 == 1
}

/// A name ends at the first `=`, `:` or blank that no backslash stands before.
fn property(line: usize, text: &str) -> Property {
    let (mut is_escaped, mut end) = (false, text.len());
    for (at, character) in text.char_indices() {
        if !is_escaped && (matches!(character, '=' | ':') || is_blank(character)) {
            end = at;
            break;
        }
        is_escaped = character == '\\' && !is_escaped;
    }
    let (name, rest) = text.split_at(end);
    let rest = rest.trim_start_matches(is_blank);
    let rest = rest.strip_prefix(['=', ':']).unwrap_or(rest).trim_start_matches(is_blank);
    // Apache's broker takes blanks off texts itself, and takes no number that has them.
    Property { line, name: unescaped(name), value: unescaped(rest).trim_end().to_owned() }
}

fn unescaped(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('t') => plain.push('\t'),
            Some('n') => plain.push('\n'),
            Some('r') => plain.push('\r'),
            Some('f') => plain.push('\u{c}'),
            Some('u') => {
                let digits: String = characters.as_str().chars().take(4).collect();
                let code = u32::from_str_radix(&digits, 16).ok().filter(|_| digits.len() == 4);
                if code.is_some() {
                    characters.by_ref().take(4).for_each(drop);
                }
                plain.push(code.and_then(char::from_u32).unwrap_or(char::REPLACEMENT_CHARACTER));
            }
            Some(other) => plain.push(other),
            None => {}
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_as_java_reads_them() {
        let cases = [
            ("brokerName=broker-a", "brokerName", "broker-a"),
            ("  brokerName = broker-a  ", "brokerName", "broker-a"),
            ("brokerName: broker-a", "brokerName", "broker-a"),
            ("brokerName broker-a b", "brokerName", "broker-a b"),
            ("namesrvAddr=a:9876;b:9876", "namesrvAddr", "a:9876;b:9876"),
            ("a\\=b\\ c=d\\u0041\\t\\\\", "a=b c", "dA\t\\"),
            ("empty=", "empty", ""),
            ("alone", "alone", ""),
            ("a=b=c", "a", "b=c"),
            ("a=\\uD800x", "a", "\u{fffd}x"),
            ("a=\\u12", "a", "\u{fffd}12"),
        ];
        for (text, name, value) in cases {
            let expected = Property { line: 1, name: name.into(), value: value.into() };
            assert_eq!(properties(text), [expected], "{text}");
        }
    }

    #[test]
    fn comments_are_passed_over_and_lines_joined() {
        let text = "# a\n! b\n\n  \nfirst=1, \\\n   2\r\n#x\\\nsecond=\\\\\nlast=\\";
        let found: Vec<_> = properties(text).into_iter().map(|p| (p.line, p.name, p.value)).collect();
        let expected = [(5, "first", "1, 2"), (8, "second", "\\"), (9, "last", "")];
        assert_eq!(found, expected.map(|(line, name, value)| (line, name.to_owned(), value.to_owned())));
    }
}
