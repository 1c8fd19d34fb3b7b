//! What a rule sees of a Rust source: its text without comments and strings, the paths in it, and its functions.
//!
//! This is no parser. It relies on formatted sources that compile, which the same run of CI asks for.

/// The text with every comment, and what stands in strings and character literals, replaced by spaces. Lines and columns
/// stay where they were.
pub fn without_comments_and_strings(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut bare = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        let end = match literal_end(bytes, at) {
            Some(end) => end,
            None => {
                bare.push(bytes[at]);
                at += 1;
                continue;
            }
        };
        bare.extend(bytes[at..end].iter().map(|&byte| if byte == b'\n' { b'\n' } else { b' ' }));
        at = end;
    }
    String::from_utf8(bare).expect("what was taken out was replaced by spaces")
}

/// Where the comment or literal ends that begins at `at`; `None` when none begins there.
fn literal_end(bytes: &[u8], at: usize) -> Option<usize> {
    let rest = &bytes[at..];
    let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
    if rest.starts_with(b"//") {
        return Some(at + rest.iter().position(|&byte| byte == b'\n').unwrap_or(rest.len()));
    }
    if rest.starts_with(b"/*") {
        return Some(at + block_comment_length(rest));
    }
    // The `r` of a raw string begins a word: `for"` does not exist in formatted sources, `bar` does.
    let begins_word = at == 0 || !is_name(&bytes[at - 1]);
    let prefix = if rest.starts_with(b"br") { 2 } else { usize::from(rest.starts_with(b"r")) };
    if prefix > 0 && begins_word {
        let hashes = rest[prefix..].iter().take_while(|&&byte| byte == b'#').count();
        if rest.get(prefix + hashes) == Some(&b'"') {
            let closing = [&b"\""[..], &vec![b'#'; hashes]].concat();
            let body = &rest[prefix + hashes + 1..];
            let length = body.windows(closing.len()).position(|window| window == closing);
            return Some(
                length.map_or(bytes.len(), |length| at + prefix + hashes + 1 + length + closing.len()),
            );
        }
    }
    match rest {
        [b'"', ..] => Some(at + quoted_length(rest, b'"')),
        // A lifetime has no second quote after one character.
        [b'\'', b'\\', ..] => Some(at + quoted_length(rest, b'\'')),
        [b'\'', _, b'\'', ..] => Some(at + 3),
        _ => None,
    }
}

fn block_comment_length(rest: &[u8]) -> usize {
    let (mut depth, mut at) = (0, 0);
    while at < rest.len() {
        match &rest[at..] {
            [b'/', b'*', ..] => (depth, at) = (depth + 1, at + 2),
            [b'*', b'/', ..] => (depth, at) = (depth - 1, at + 2),
            _ => at += 1,
        }
        if depth == 0 {
            break;
        }
    }
    at
}

/// Of a literal that begins with its quote, both quotes included.
fn quoted_length(rest: &[u8], quote: u8) -> usize {
    let mut at = 1;
    while at < rest.len() && rest[at] != quote {
        at += if rest[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(rest.len())
}

/// A path that a source names, in a `use` or in an expression; a group is taken apart into one path for each member.
#[derive(Debug, PartialEq, Eq)]
pub struct NamedPath {
    /// The first line is 1.
    pub line: usize,
    /// Like `crate::log::Damage`; a glob ends in `*`, a renamed member is named as it was before.
    pub path: String,
}

/// All paths of a text without comments and strings that begin with one of `roots`, such as `crate` or `std`.
pub fn paths(bare: &str, roots: &[&str]) -> Vec<NamedPath> {
    let mut found = Vec::new();
    for (at, _) in bare.match_indices("::") {
        let before = &bare[..at];
        let start = before.rfind(|letter| !is_word(letter)).map_or(0, |index| index + 1);
        let root = &before[start..];
        // `foo::std::x` and `$crate::x` begin elsewhere.
        let begins_path = !before[..start].ends_with("::") || before[..start].trim_end().ends_with("use ::");
        if begins_path && roots.contains(&root) {
            let line = before.matches('\n').count() + 1;
            read_tree(bare, at + 2, root.to_owned(), line, &mut found);
        }
    }
    found
}

/// Lines on which a variant of one of these enums stands as a pattern: in the arm of a `match`, left of a `=`, or in a
/// `matches!`.
pub fn matched(bare: &str, enums: &[&str]) -> Vec<usize> {
    let mut found = Vec::new();
    for (at, _) in bare.match_indices("::") {
        let before = &bare[..at];
        let start = before.rfind(|letter| !is_word(letter)).map_or(0, |index| index + 1);
        if !enums.contains(&&before[start..]) {
            continue;
        }
        let rest = bare[at + 2..].trim_start_matches(is_word).trim_start();
        let rest = after_group(rest).trim_start();
        let statement = before.rsplit([';', '{']).next().unwrap_or_default();
        let is_pattern = ["=>", "| ", "if ", "= "].iter().any(|next| rest.starts_with(next));
        if is_pattern || statement.contains("matches!(") {
            found.push(before.matches('\n').count() + 1);
        }
    }
    found
}

/// Lines on which `what` begins, a name or a call such as `.read(`, however its line is broken: blanks count in neither. A name
/// that is a part of a longer one is another one.
pub fn named(bare: &str, what: &str) -> Vec<usize> {
    let mut squeezed = String::with_capacity(bare.len());
    let mut lines = Vec::with_capacity(bare.len());
    // Whether the letter begins a word, by what stands before it.
    let mut begins = Vec::with_capacity(bare.len() + 1);
    let (mut line, mut before) = (1, ' ');
    for letter in bare.chars() {
        line += usize::from(letter == '\n');
        if !letter.is_whitespace() {
            squeezed.push(letter);
            lines.extend(std::iter::repeat_n(line, letter.len_utf8()));
            begins.extend(std::iter::repeat_n(!is_word(before) || !is_word(letter), letter.len_utf8()));
        }
        before = letter;
    }
    begins.push(true);
    let is_whole = |at: &usize| begins[*at] && begins[*at + what.len()];
    squeezed.match_indices(what).map(|(at, _)| at).filter(is_whole).map(|at| lines[at]).collect()
}

/// The text behind the parentheses or braces that it begins with.
fn after_group(text: &str) -> &str {
    if !text.starts_with(['(', '{']) {
        return text;
    }
    let mut depth = 0;
    for (at, letter) in text.char_indices() {
        match letter {
            '(' | '{' | '[' => depth += 1,
            ')' | '}' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return &text[at + 1..];
        }
    }
    ""
}

fn is_word(letter: char) -> bool {
    letter.is_ascii_alphanumeric() || letter == '_'
}

/// Reads what follows `prefix::` at `at`: a name and perhaps more of the path, a glob, or a group. Returns where it ends.
fn read_tree(bare: &str, at: usize, prefix: String, line: usize, found: &mut Vec<NamedPath>) -> usize {
    let skipped = bare[at..].len() - bare[at..].trim_start().len();
    let line = line + bare[at..at + skipped].matches('\n').count();
    let at = at + skipped;
    let rest = &bare[at..];
    if rest.starts_with('*') {
        found.push(NamedPath { line, path: format!("{prefix}::*") });
        return at + 1;
    }
    if rest.starts_with('{') {
        return read_group(bare, at + 1, &prefix, line, found);
    }
    let name = rest.split(|letter| !is_word(letter)).next().unwrap_or_default();
    let end = at + name.len();
    let path = if name == "self" { prefix } else { format!("{prefix}::{name}") };
    if bare[end..].starts_with("::") && !bare[end..].starts_with("::<") {
        return read_tree(bare, end + 2, path, line, found);
    }
    found.push(NamedPath { line, path });
    end
}

fn read_group(bare: &str, mut at: usize, prefix: &str, line: usize, found: &mut Vec<NamedPath>) -> usize {
    let begin = at;
    loop {
        let rest = bare[at..].trim_start();
        at = bare.len() - rest.len();
        if rest.is_empty() || rest.starts_with('}') {
            return (at + 1).min(bare.len());
        }
        let line = line + bare[begin..at].matches('\n').count();
        at = read_tree(bare, at, prefix.to_owned(), line, found);
        // ` as other`, then the comma.
        at += bare[at..].find([',', '}']).unwrap_or(bare.len() - at);
        at += usize::from(bare[at..].starts_with(','));
    }
}

/// A function with a body.
#[derive(Debug, PartialEq, Eq)]
pub struct Function {
    pub name: String,
    /// Of its `fn`; the first line is 1.
    pub line: usize,
    /// Lines of code from its `fn` to its closing brace; comments and blank lines do not count.
    pub length: usize,
}

/// All functions of a text without comments and strings, those inside of others too.
pub fn functions(bare: &str) -> Vec<Function> {
    let mut found = Vec::new();
    for (at, _) in bare.match_indices("fn ") {
        let begins_word = !bare[..at].ends_with(is_word);
        let name: String = bare[at + 3..].chars().take_while(|&letter| is_word(letter)).collect();
        // `fn` of a function's type has no name.
        if !begins_word || name.is_empty() {
            continue;
        }
        let Some(length) = body_end(&bare[at..]) else { continue };
        let length = bare[at..at + length].lines().filter(|line| !line.trim().is_empty()).count();
        found.push(Function { name, line: bare[..at].matches('\n').count() + 1, length });
    }
    found
}

/// Length up to the brace that closes the body; `None` for a declaration. A `;` inside of brackets is an array's.
fn body_end(function: &str) -> Option<usize> {
    let (mut braces, mut brackets) = (0_usize, 0_usize);
    for (at, letter) in function.char_indices() {
        match letter {
            '(' | '[' => brackets += 1,
            ')' | ']' => brackets = brackets.saturating_sub(1),
            '{' => braces += 1,
            '}' if braces == 1 => return Some(at + 1),
            '}' => braces = braces.saturating_sub(1),
            ';' if braces == 0 && brackets == 0 => return None,
            _ => {}
        }
    }
    None
}
