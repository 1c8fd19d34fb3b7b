//! The header as JSON, in one pass.
//!
//! Clients differ: values of fields come as strings, numbers or truth values, members in any order, and some that mean
//! nothing. What is written is one line without blanks, with every field as a string: the Go client refuses numbers, and the
//! one for C++ takes them for 0.

use std::borrow::Cow;

use super::fields::Fields;
use super::head::Head;
use super::header::{Header, HeaderError};
use super::json_writer;
use super::language::Language;
use super::scanner::{JsonError, Scanner};
use crate::limits;

/// A send has thirteen, and a few more from clients of later releases.
const FIELDS_USUAL: usize = 18;

pub(super) fn read(bytes: &[u8]) -> Result<Header<'_>, HeaderError> {
    let mut members = Members::default();
    let mut scanner = Scanner::new(bytes);
    scanner.members(|scanner, name| members.read(scanner, &name))?;
    scanner.end()?;
    if members.has_too_many_fields {
        return Err(HeaderError::TooManyFields);
    }
    let required = |name, number: Option<i32>| number.ok_or(HeaderError::Number(name));
    Ok(Header {
        code: required("code", members.code)?,
        language: members.language,
        version: members.version.unwrap_or(0),
        opaque: required("opaque", members.opaque)?,
        flag: members.flag.unwrap_or(0),
        remark: members.remark,
        fields: members.fields,
    })
}

/// What has been read of a header.
#[derive(Default)]
struct Members<'a> {
    code: Option<i32>,
    language: Language,
    version: Option<i32>,
    opaque: Option<i32>,
    flag: Option<i32>,
    remark: Option<Box<str>>,
    fields: Fields<'a>,
    has_too_many_fields: bool,
}

impl<'a> Members<'a> {
    fn read(&mut self, scanner: &mut Scanner<'a>, name: &[u8]) -> Result<(), JsonError> {
        match name {
            b"code" => self.code = number(scanner)?,
            b"language" => self.language = Language::of_text(&value(scanner)?.unwrap_or_default()),
            b"version" => self.version = number(scanner)?,
            b"opaque" => self.opaque = number(scanner)?,
            b"flag" => self.flag = number(scanner)?,
            b"remark" => self.remark = value(scanner)?.map(|text| String::from_utf8_lossy(&text).into()),
            b"extFields" => self.read_fields(scanner)?,
            _ => scanner.skip()?,
        }
        Ok(())
    }

    fn read_fields(&mut self, scanner: &mut Scanner<'a>) -> Result<(), JsonError> {
        if scanner.peek()? != b'{' {
            return scanner.skip();
        }
        let mut fields = Fields::with_capacity(FIELDS_USUAL);
        scanner.members(|scanner, name| {
            if let Some(value) = value(scanner)? {
                // The rest is read, so that an answer can say what is wrong.
                match fields.len() < limits::REMOTING_FIELDS_MAX {
                    true => fields.push(name, value),
                    false => self.has_too_many_fields = true,
                }
            }
            Ok(())
        })?;
        self.fields = fields;
        Ok(())
    }
}

/// A value as text, `None` for `null`. What is no scalar is its own JSON, as Java has it.
fn value<'a>(scanner: &mut Scanner<'a>) -> Result<Option<Cow<'a, [u8]>>, JsonError> {
    match scanner.peek()? {
        b'"' => scanner.string().map(Some),
        b'{' | b'[' => {
            let start = scanner.at();
            scanner.skip()?;
            Ok(Some(Cow::Borrowed(scanner.since(start))))
        }
        _ => Ok(Some(scanner.word()?).filter(|word| *word != b"null").map(Cow::Borrowed)),
    }
}

/// A number, in quotes or not; `None` for what is none.
fn number(scanner: &mut Scanner<'_>) -> Result<Option<i32>, JsonError> {
    let text = value(scanner)?;
    Ok(text.and_then(|text| std::str::from_utf8(&text).ok()?.trim_ascii().parse().ok()))
}

pub(super) fn write(head: &Head<'_>, output: &mut Vec<u8>) {
    output.extend_from_slice(b"{\"code\":");
    json_writer::push_number(output, head.code.into());
    if !head.fields.is_empty() {
        let mut separator: &[u8] = b",\"extFields\":{\"";
        for (name, value) in head.fields {
            output.extend_from_slice(separator);
            separator = b",\"";
            json_writer::push_escaped(output, name.as_bytes());
            output.extend_from_slice(b"\":\"");
            value.append(output, json_writer::push_escaped);
            output.push(b'"');
        }
        output.push(b'}');
    }
    output.extend_from_slice(b",\"flag\":");
    json_writer::push_number(output, head.flag.into());
    output.extend_from_slice(b",\"language\":\"");
    output.extend_from_slice(head.language.name().as_bytes());
    output.extend_from_slice(b"\",\"opaque\":");
    json_writer::push_number(output, head.opaque.into());
    if let Some(remark) = head.remark {
        output.extend_from_slice(b",\"remark\":\"");
        json_writer::push_escaped(output, remark.as_bytes());
        output.push(b'"');
    }
    output.extend_from_slice(b",\"version\":");
    json_writer::push_number(output, head.version.into());
    output.push(b'}');
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::remoting::FieldValue;

    /// As the Python wheel's library writes it: numbers among the fields, a truth value as a number.
    #[test]
    fn fields_may_be_any_scalar() {
        let header = read(
            br#"{"code":10,"extFields":{"queueId":3,"batch":"1","unitMode":true,"none":null,"nested":{"a":[1]}},"flag":0,"language":"CPP","opaque":7,"remark":"","serializeTypeCurrentRPC":"JSON","version":63}
"#,
        )
        .expect("a header");
        assert_eq!((header.code, header.opaque, header.version), (10, 7, 63));
        assert_eq!((header.language, header.remark.as_deref()), (Language::Cpp, Some("")));
        assert_eq!(header.fields.number("queueId"), Some(3));
        assert!(header.fields.boolean("batch") && header.fields.boolean("unitMode"));
        assert_eq!(header.fields.bytes("none"), None);
        assert_eq!(header.fields.bytes("nested"), Some(&br#"{"a":[1]}"#[..]));
    }

    #[test]
    fn members_may_be_missing_but_for_code_and_opaque() {
        let header = read(br#" { "opaque" : "-1" , "code":"310",} "#).expect("a header");
        assert_eq!((header.code, header.opaque, header.flag, header.version), (310, -1, 0, 0));
        assert!(header.fields.is_empty() && header.remark.is_none());
        assert_eq!(read(br#"{"opaque":1}"#), Err(HeaderError::Number("code")));
        assert_eq!(read(br#"{"code":1,"opaque":99999999999}"#), Err(HeaderError::Number("opaque")));
        assert_eq!(
            read(br#"{"code":1,"opaque":2,"extFields":null}"#).map(|header| header.fields.len()),
            Ok(0)
        );
    }

    #[test]
    fn what_is_no_json_is_refused_wherever_it_ends() {
        let text = br#"{"code":1,"extFields":{"a":"b\u0001"},"opaque":2}"#;
        assert!(read(text).is_ok());
        for end in 0..text.len() {
            assert!(matches!(read(&text[..end]), Err(HeaderError::Json(_))), "cut at {end}");
        }
        for text in ["[]", "{}x", r#"{"code":1 "opaque":2}"#, r#"{"code":1,"opaque":2}{"#] {
            assert!(read(text.as_bytes()).is_err(), "{text}");
        }
    }

    #[test]
    fn too_many_fields_are_refused() {
        let many = |count: usize| {
            let fields: Vec<_> = (0..count).map(|number| format!("\"{number}\":1")).collect();
            format!(r#"{{"code":1,"opaque":2,"extFields":{{{}}}}}"#, fields.join(","))
        };
        assert!(read(many(limits::REMOTING_FIELDS_MAX).as_bytes()).is_ok());
        let beyond = many(limits::REMOTING_FIELDS_MAX + 1);
        assert_eq!(read(beyond.as_bytes()), Err(HeaderError::TooManyFields));
    }

    #[test]
    fn what_is_written_is_one_line_of_strings() {
        let fields = [("queueId", FieldValue::Number(3)), ("on", FieldValue::Boolean(true))];
        let head = Head { code: 0, opaque: 9, remark: Some("a \"b\"\n"), fields: &fields, ..Head::default() };
        let mut output = Vec::new();
        write(&head, &mut output);
        assert_eq!(
            String::from_utf8(output).expect("text"),
            r#"{"code":0,"extFields":{"queueId":"3","on":"true"},"flag":0,"language":"JAVA","opaque":9,"remark":"a \"b\"\n","version":479}"#
        );
    }
}
