//! What `consume -f` prints of a message: text with letters in it that stand for its parts, as `kcat` has it.

use std::io::{self, Write};
use std::str::FromStr;

use crate::cli::calendar::rfc3339;
use crate::cli::message_id::MessageIds;
use crate::cli::output::without_controls;
use crate::client::{MessageBatch, ReceivedMessage};
use crate::wire::properties::{self, Properties, names};

/// Help for an argument of this type.
pub const TEMPLATE_HELP: &str = "\
A FORMAT is printed for each message as it is, with nothing behind it; these stand for parts of the message:
  %t  topic                        %k  key, or keys separated by blanks
  %q  queue                        %T  tag
  %o  offset in its queue          %p  properties: name=value,name=value
  %i  id: where it is stored       %b  body, as its producer had it
  %u  unique id of its producer    %s  bytes of the body
  %d  when it was stored           %D  when its producer made it
  %%  a percent sign
  \\n newline, \\t tab, \\r carriage return, \\0 zero byte, \\xHH byte HH in hexadecimal, \\\\ backslash
Times are RFC 3339 in UTC. What a message has not is empty.";

const LETTERS: [(char, Part); 12] = [
    ('t', Part::Topic),
    ('q', Part::Queue),
    ('o', Part::Offset),
    ('i', Part::Id),
    ('u', Part::UniqueId),
    ('d', Part::StoreTime),
    ('D', Part::BornTime),
    ('k', Part::Key),
    ('T', Part::Tag),
    ('p', Part::Properties),
    ('b', Part::Body),
    ('s', Part::BodyBytes),
];

/// A format that was understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(Vec<u8>),
    Part(Part),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Topic,
    Queue,
    Offset,
    Id,
    UniqueId,
    StoreTime,
    BornTime,
    Key,
    Tag,
    Properties,
    Body,
    BodyBytes,
}

/// Where a message is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shown {
    /// Every byte.
    AsItIs,
    /// Control characters of the message are escaped: a terminal would obey whoever wrote them. Those of the format stay.
    OnTerminal,
}

/// A text that is no format.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    #[error("`%{0}` stands for nothing: use {letters}, and %% for a percent sign", letters = letters())]
    Letter(char),
    #[error("a format ends in `%`: use {letters}, and %% for a percent sign", letters = letters())]
    EndOfLetter,
    #[error("`\\{0}` stands for nothing: use \\n, \\t, \\r, \\0, \\xHH, and \\\\ for a backslash")]
    Escape(String),
}

fn letters() -> String {
    LETTERS.map(|(letter, _)| format!("%{letter}")).join(" ")
}

impl FromStr for Template {
    type Err = TemplateError;

    fn from_str(text: &str) -> Result<Self, TemplateError> {
        let mut pieces = Vec::new();
        let mut plain = Vec::new();
        let mut rest = text.chars();
        while let Some(character) = rest.next() {
            match character {
                '%' => match rest.next() {
                    Some('%') => plain.push(b'%'),
                    Some(letter) => {
                        let known = LETTERS.iter().find(|(known, _)| *known == letter);
                        let part = known.ok_or(TemplateError::Letter(letter))?.1;
                        if !plain.is_empty() {
                            pieces.push(Piece::Text(std::mem::take(&mut plain)));
                        }
                        pieces.push(Piece::Part(part));
                    }
                    None => return Err(TemplateError::EndOfLetter),
                },
                '\\' => plain.push(escaped(&mut rest)?),
                character => plain.extend_from_slice(character.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }
}

/// The byte that stands behind a backslash.
fn escaped(rest: &mut std::str::Chars<'_>) -> Result<u8, TemplateError> {
    Ok(match rest.next() {
        Some('n') => b'\n',
        Some('t') => b'\t',
        Some('r') => b'\r',
        Some('0') => 0,
        Some('\\') => b'\\',
        Some('x') => {
            let digits: String = rest.by_ref().take(2).collect();
            let is_hexadecimal = digits.len() == 2 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
            let byte = u8::from_str_radix(&digits, 16).ok().filter(|_| is_hexadecimal);
            byte.ok_or_else(|| TemplateError::Escape(format!("x{digits}")))?
        }
        other => return Err(TemplateError::Escape(other.map(String::from).unwrap_or_default())),
    })
}

impl Template {
    /// Writes a message of a batch.
    pub fn write(
        &self,
        output: &mut impl Write,
        batch: &MessageBatch<'_>,
        message: &ReceivedMessage<'_>,
        ids: &MessageIds,
        shown: Shown,
    ) -> io::Result<()> {
        let mut bytes = Vec::new();
        for piece in &self.0 {
            match (piece, shown) {
                (Piece::Text(text), _) => output.write_all(text)?,
                (Piece::Part(part), Shown::AsItIs) => part.write(output, batch, message, ids)?,
                (Piece::Part(part), Shown::OnTerminal) => {
                    bytes.clear();
                    part.write(&mut bytes, batch, message, ids)?;
                    output.write_all(without_controls(&String::from_utf8_lossy(&bytes)).as_bytes())?;
                }
            }
        }
        Ok(())
    }

    /// Whether ids are printed, which take the addresses of the broker's shards.
    pub fn has_ids(&self) -> bool {
        self.0.contains(&Piece::Part(Part::Id))
    }
}

impl Part {
    fn write(
        self,
        output: &mut impl Write,
        batch: &MessageBatch<'_>,
        message: &ReceivedMessage<'_>,
        ids: &MessageIds,
    ) -> io::Result<()> {
        // A body that cannot be read is shown as it is stored, as without a format.
        let body = || message.plain_body().unwrap_or(message.body().into());
        match self {
            Part::Topic => output.write_all(batch.topic().as_str().as_bytes()),
            Part::Queue => write!(output, "{}", batch.queue()),
            Part::Offset => write!(output, "{}", message.offset),
            Part::Id => {
                let id = ids.id(batch.queue().shard(ids.shard_count()), message.location);
                id.map_or(Ok(()), |id| output.write_all(id.as_bytes()))
            }
            Part::UniqueId => {
                let id = properties::get(message.properties(), names::UNIQUE_ID);
                output.write_all(id.unwrap_or_default())
            }
            Part::StoreTime => output.write_all(rfc3339(message.store_time).as_bytes()),
            Part::BornTime => output.write_all(rfc3339(message.born_time).as_bytes()),
            Part::Key => output.write_all(message.key()),
            Part::Tag => output.write_all(message.tag()),
            Part::Properties => write_properties(output, message.properties()),
            Part::Body => output.write_all(&body()),
            Part::BodyBytes => write!(output, "{}", body().len()),
        }
    }
}

fn write_properties(output: &mut impl Write, text: &[u8]) -> io::Result<()> {
    for (index, (name, value)) in Properties::new(text).enumerate() {
        let separator: &[u8] = if index == 0 { b"" } else { b"," };
        for part in [separator, name, b"=", value] {
            output.write_all(part)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Vec<Piece>, TemplateError> {
        text.parse::<Template>().map(|template| template.0)
    }

    #[test]
    fn letters_and_escapes_are_told_from_text() {
        let text = |text: &[u8]| Piece::Text(text.to_vec());
        let expected = vec![
            text(b"100% of "),
            Piece::Part(Part::Topic),
            text(b"\t"),
            Piece::Part(Part::Tag),
            Piece::Part(Part::Body),
            text(b"\n\0\xff\\x"),
        ];
        assert_eq!(parse("100%% of %t\\t%T%b\\n\\0\\xfF\\\\x"), Ok(expected));
        assert_eq!(parse(""), Ok(vec![]));
        assert_eq!(parse("sch\u{f6}n"), Ok(vec![text("sch\u{f6}n".as_bytes())]));
    }

    #[test]
    fn what_stands_for_nothing_is_refused_with_all_that_do() {
        let error = parse("%Q").expect_err("no such letter");
        let all = "%t %q %o %i %u %d %D %k %T %p %b %s";
        assert!(error.to_string().contains(all), "{error}");
        assert_eq!(parse("a%"), Err(TemplateError::EndOfLetter));
        for (escape, shown) in
            [("\\q", "q"), ("\\", ""), ("\\x", "x"), ("\\x1", "x1"), ("\\x+1", "x+1"), ("\\xg0", "xg0")]
        {
            assert_eq!(parse(escape), Err(TemplateError::Escape(shown.to_owned())), "{escape}");
        }
    }

    #[test]
    fn the_help_has_every_letter() {
        for (letter, _) in LETTERS {
            assert!(TEMPLATE_HELP.contains(&format!("%{letter} ")), "%{letter}");
        }
    }

    #[test]
    fn properties_have_their_form() {
        let written = |write: &dyn Fn(&mut Vec<u8>) -> io::Result<()>| {
            let mut output = Vec::new();
            write(&mut output).expect("writing into memory");
            String::from_utf8(output).expect("text")
        };
        assert_eq!(written(&|output| write_properties(output, b"a\x01b\x02c\x01\x02")), "a=b,c=");
        assert_eq!(written(&|output| write_properties(output, b"")), "");
    }
}
