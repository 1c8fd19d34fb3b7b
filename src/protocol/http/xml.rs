//! Reading the one shape that the protocol's requests have: a root element whose children hold text.
//!
//! Names count without their prefixes, whatever the namespace, since clients differ there. References are the five
//! predefined ones and numbers; a document type is refused before it can declare any other, so nothing ever expands.
//! Line ends are kept as they came, although XML reads a carriage return and a line feed as one character: a body is
//! bytes to its sender, and the clients' writers do not escape a carriage return.

use quick_xml::Reader;
use quick_xml::escape::resolve_predefined_entity;
use quick_xml::events::{BytesDecl, BytesRef, Event};

use super::error::{ErrorCode, HttpError};
use super::xml_attributes::check_attributes;
use crate::limits;

/// Why a body is not the document it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DocumentError {
    #[error("the body is empty: it should be a {root} document")]
    Empty { root: &'static str },
    #[error("the document is no UTF-8 from byte {position} on")]
    Encoding { position: usize },
    #[error("the document's encoding is `{name}`; only UTF-8 is taken")]
    DeclaredEncoding { name: String },
    #[error("the document is not well formed at byte {position}: {reason}")]
    Syntax { position: u64, reason: String },
    #[error("the document's root is `{found}`, not {root}")]
    Root { found: String, root: &'static str },
    #[error("a document type is not taken")]
    DocumentType,
    #[error("the reference `&{name};` is none of the predefined ones, and no number of a character")]
    Reference { name: String },
    #[error("the character U+{code:04X} is not allowed in XML 1.0")]
    Character { code: u32 },
    #[error("elements are nested deeper than {max}", max = limits::XML_DEPTH_MAX)]
    Depth,
    #[error("the element {name} holds text only")]
    Nested { name: String },
    #[error("the element {name} stands there twice")]
    Twice { name: &'static str },
    #[error("text stands outside of the elements that hold it")]
    StrayText,
    #[error("`]]>` stands in text: its `>` has to be written as `&gt;`, and a CDATA section cannot hold it")]
    SectionEnd,
    #[error("the element {element} has the attribute {name} twice")]
    AttributeTwice { element: String, name: String },
    #[error(
        "the attributes of the element {element} are not well formed: each is NAME=\"VALUE\", after a blank"
    )]
    Attributes { element: String },
    #[error("the element {element} has more than {max} attributes", max = limits::XML_ATTRIBUTES_MAX)]
    ManyAttributes { element: String },
    #[error("the document ends early")]
    Early,
}

impl From<DocumentError> for HttpError {
    fn from(error: DocumentError) -> Self {
        HttpError::new(ErrorCode::MalformedXml, error.to_string())
    }
}

/// Whether XML 1.0 allows the character in a document, in whatever form.
pub(super) fn is_xml_character(character: char) -> bool {
    matches!(character, '\t' | '\n' | '\r' | ' '..='\u{FFFD}' | '\u{10000}'..)
}

/// The first character that XML 1.0 does not allow.
pub(super) fn forbidden_character(text: &str) -> Option<char> {
    // Only control characters and some from U+F000 on are forbidden, and most texts have neither: this looks at all
    // bytes without a branch.
    let suspect = text.bytes().fold(false, |suspect, byte| suspect | (byte < b' ') | (byte == 0xEF));
    if suspect { text.chars().find(|&character| !is_xml_character(character)) } else { None }
}

/// Reads a document whose root is called `root`, and hands every child that is called one of `names` to `take`, in the
/// order in which they stand, as the index of its name and its text. Other children are passed over.
pub(super) fn read_children(
    bytes: &[u8],
    root: &'static str,
    names: &[&'static str],
    mut take: impl FnMut(usize, String) -> Result<(), DocumentError>,
) -> Result<(), DocumentError> {
    let text = std::str::from_utf8(bytes)
        .map_err(|error| DocumentError::Encoding { position: error.valid_up_to() })?;
    let text = text.strip_prefix('\u{FEFF}').unwrap_or(text);
    if text.trim_ascii().is_empty() {
        return Err(DocumentError::Empty { root });
    }
    let mut reader = Reader::from_str(text);
    reader.config_mut().check_comments = true;
    let mut state = Children { root, names, depth: 0, seen_root: false, open: None };
    loop {
        let event = reader.read_event().map_err(|error| DocumentError::Syntax {
            position: reader.error_position(),
            reason: error.to_string(),
        })?;
        match event {
            Event::Start(start) => {
                check_attributes(start.name().into_inner(), start.attributes_raw())?;
                state.start(start.local_name().into_inner())?;
            }
            Event::Empty(start) => {
                check_attributes(start.name().into_inner(), start.attributes_raw())?;
                state.start(start.local_name().into_inner())?;
                state.end(&mut take)?;
            }
            Event::End(_) => state.end(&mut take)?,
            Event::Text(text) => state.text(&text, TextKind::Plain)?,
            Event::CData(text) => state.text(&text, TextKind::Marked)?,
            Event::GeneralRef(reference) => state.reference(&reference)?,
            Event::Decl(declaration) => {
                check_attributes("?xml", declaration.strip_prefix("xml").unwrap_or_default())?;
                check_encoding(&declaration)?;
            }
            Event::DocType(_) => return Err(DocumentError::DocumentType),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Eof => break,
        }
    }
    if state.depth == 0 && state.seen_root { Ok(()) } else { Err(DocumentError::Early) }
}

/// Where the reader is.
struct Children<'a> {
    root: &'static str,
    names: &'a [&'static str],
    /// Elements that are open: 1 within the root, 2 within its children.
    depth: usize,
    seen_root: bool,
    /// The child that is being read, when it is one of `names`.
    open: Option<(usize, String)>,
}

/// Blanks between elements are plain; marked text and references mean something wherever they stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TextKind {
    Plain,
    Marked,
}

impl Children<'_> {
    fn start(&mut self, name: &str) -> Result<(), DocumentError> {
        if self.depth == limits::XML_DEPTH_MAX {
            return Err(DocumentError::Depth);
        }
        if let Some((index, _)) = &self.open {
            return Err(DocumentError::Nested { name: self.names[*index].to_owned() });
        }
        match self.depth {
            0 if self.seen_root => return Err(DocumentError::StrayText),
            0 if name != self.root => {
                let found = name.chars().take(64).collect();
                return Err(DocumentError::Root { found, root: self.root });
            }
            0 => self.seen_root = true,
            1 => {
                let known = self.names.iter().position(|known| *known == name);
                self.open = known.map(|index| (index, String::new()));
            }
            _ => {}
        }
        self.depth += 1;
        Ok(())
    }

    fn end(
        &mut self,
        take: &mut impl FnMut(usize, String) -> Result<(), DocumentError>,
    ) -> Result<(), DocumentError> {
        self.depth = self.depth.checked_sub(1).ok_or(DocumentError::StrayText)?;
        match self.open.take() {
            Some((index, text)) => take(index, text),
            None => Ok(()),
        }
    }

    fn text(&mut self, text: &str, kind: TextKind) -> Result<(), DocumentError> {
        // XML 1.0, 2.4. It is what a body with this in it looks like that a client has put into a CDATA section without a
        // look: taken as it stands, another body would be stored.
        if kind == TextKind::Plain && memchr::memmem::find(text.as_bytes(), b"]]>").is_some() {
            return Err(DocumentError::SectionEnd);
        }
        if let Some(character) = forbidden_character(text) {
            return Err(DocumentError::Character { code: character.into() });
        }
        if let Some((_, open)) = &mut self.open {
            open.push_str(text);
        } else if self.depth < 2 && (kind == TextKind::Marked || !text.trim_ascii().is_empty()) {
            return Err(DocumentError::StrayText);
        }
        Ok(())
    }

    fn reference(&mut self, reference: &BytesRef<'_>) -> Result<(), DocumentError> {
        let unknown = || DocumentError::Reference { name: reference.chars().take(64).collect() };
        if reference.is_char_ref() {
            let character = reference.resolve_char_ref().ok().flatten().ok_or_else(unknown)?;
            return self.text(character.encode_utf8(&mut [0; 4]), TextKind::Marked);
        }
        self.text(resolve_predefined_entity(reference).ok_or_else(unknown)?, TextKind::Marked)
    }
}

fn check_encoding(declaration: &BytesDecl<'_>) -> Result<(), DocumentError> {
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(name)) if name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("utf8") => Ok(()),
        Some(Ok(name)) => Err(DocumentError::DeclaredEncoding { name: name.chars().take(64).collect() }),
        Some(Err(error)) => Err(DocumentError::Syntax { position: 0, reason: error.to_string() }),
    }
}
