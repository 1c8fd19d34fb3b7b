//! The attributes of an element. None means anything here, and a document whose attributes are none is no document all the
//! same (XML 1.0, 3.1): what one reader passes over, another one takes otherwise.

use quick_xml::escape::unescape;

use super::xml::{DocumentError, forbidden_character};
use crate::limits;

const QUOTES: [char; 2] = ['"', '\''];

/// Whether what stands after an element's name is attributes, each of them once.
pub(super) fn check_attributes(element: &str, text: &str) -> Result<(), DocumentError> {
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    let none = || DocumentError::Attributes { element: shown(element) };
    let mut names = [""; limits::XML_ATTRIBUTES_MAX];
    let mut count = 0;
    let mut rest = text;
    loop {
        let begin = skip_blanks(rest);
        if begin.is_empty() {
            return Ok(());
        }
        if begin.len() == rest.len() {
            return Err(none());
        }
        let (name, behind) = begin.split_once('=').ok_or_else(none)?;
        let name = name.trim_end_matches(is_blank);
        if name.is_empty() || name.contains(|character| is_blank(character) || "\"'<&/".contains(character)) {
            return Err(none());
        }
        let behind = skip_blanks(behind);
        let quote = QUOTES.into_iter().find(|quote| behind.starts_with(*quote)).ok_or_else(none)?;
        let (value, behind) = behind[1..].split_once(quote).ok_or_else(none)?;
        if value.contains('<') || unescape(value).is_err() {
            return Err(none());
        }
        if let Some(character) = forbidden_character(value) {
            return Err(DocumentError::Character { code: character.into() });
        }
        if names[..count].contains(&name) {
            return Err(DocumentError::AttributeTwice { element: shown(element), name: shown(name) });
        }
        *names.get_mut(count).ok_or_else(|| DocumentError::ManyAttributes { element: shown(element) })? =
            name;
        (count, rest) = (count + 1, behind);
    }
}

fn skip_blanks(text: &str) -> &str {
    text.trim_start_matches(is_blank)
}

fn is_blank(character: char) -> bool {
    matches!(character, ' ' | '\t' | '\r' | '\n')
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str) -> Result<(), DocumentError> {
        check_attributes("E", text)
    }

    #[test]
    fn attributes_are_names_and_values_each_of_them_once() {
        for text in
            ["", " ", " a=\"1\"", "\na='1' b = \"'&lt;&#65;>\" ", " x:a=\"\" a=\"\"", " a=\"b='c'\" b=''"]
        {
            assert_eq!(check(text), Ok(()), "{text:?}");
        }
        for text in [
            "a=\"1\"",
            " a",
            " a=",
            " a=1",
            " a=\"1",
            " =\"1\"",
            " a=\"1\"b=\"2\"",
            " a=\"<\"",
            " a=\"&b;\"",
            " a b=\"1\"",
            " a=\"1\" /",
        ] {
            assert_eq!(check(text), Err(DocumentError::Attributes { element: "E".to_owned() }), "{text:?}");
        }
        let twice = DocumentError::AttributeTwice { element: "E".to_owned(), name: "a".to_owned() };
        assert_eq!(check(" a=\"1\" b=\"1\" a='2'"), Err(twice));
        assert_eq!(check(" a=\"\u{1}\""), Err(DocumentError::Character { code: 1 }));
    }

    #[test]
    fn an_element_has_so_many() {
        let many = |count| (0..count).map(|number| format!(" a{number}=\"\"")).collect::<String>();
        assert_eq!(check(&many(limits::XML_ATTRIBUTES_MAX)), Ok(()));
        let refused = check(&many(limits::XML_ATTRIBUTES_MAX + 1));
        assert_eq!(refused, Err(DocumentError::ManyAttributes { element: "E".to_owned() }));
    }
}
