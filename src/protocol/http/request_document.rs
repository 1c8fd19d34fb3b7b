//! The documents that clients send: a message to publish, and receipt handles to acknowledge.

use super::answer_document::HandleFailure;
use super::error::{ErrorCode, HttpError};
use super::properties::Properties;
use super::xml::{DocumentError, read_children};
use crate::limits;

/// A message as its publisher wrote it, within the limits of a stored one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublishRequest {
    /// Never empty: the clients refuse to send nothing, and the Python one cannot read it back.
    pub body: String,
    /// Never empty.
    pub tag: Option<String>,
    pub properties: Properties,
}

const MESSAGE_FIELDS: [&str; 3] = ["MessageBody", "MessageTag", "Properties"];

/// Reads a `Message` document.
pub fn parse_publish(bytes: &[u8]) -> Result<PublishRequest, HttpError> {
    let mut fields: [Option<String>; 3] = Default::default();
    read_children(bytes, "Message", &MESSAGE_FIELDS, |index, text| match fields[index].replace(text) {
        None => Ok(()),
        Some(_) => Err(DocumentError::Twice { name: MESSAGE_FIELDS[index] }),
    })?;
    let [body, tag, properties] = fields.map(|field| field.filter(|text| !text.is_empty()));
    let body = body.ok_or_else(|| HttpError::invalid("the message has no MessageBody, or an empty one"))?;
    check_bytes("MessageBody", body.len(), limits::BODY_BYTES_MAX)?;
    check_bytes("MessageTag", tag.as_ref().map_or(0, String::len), limits::TAG_BYTES_MAX)?;
    let properties = properties.unwrap_or_default();
    check_bytes("Properties", properties.len(), limits::PROPERTIES_BYTES_MAX)?;
    let properties = Properties::parse(&properties).map_err(HttpError::invalid)?;
    Ok(PublishRequest { body, tag, properties })
}

fn check_bytes(name: &str, bytes: usize, most: usize) -> Result<(), HttpError> {
    if bytes <= most {
        return Ok(());
    }
    Err(HttpError::invalid(format!("{name} has {bytes} bytes, {most} are the most")))
}

/// What an acknowledgement names: handles that may be some, and those that cannot be any. One that is wrong fails alone,
/// since the others' messages would be delivered again for it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReceiptHandles {
    pub handles: Vec<String>,
    pub failures: Vec<HandleFailure>,
}

impl ReceiptHandles {
    fn push(&mut self, handle: &str) {
        let most = limits::RECEIPT_HANDLE_BYTES_MAX;
        let reason = match handle.len() {
            0 => "it is empty".to_owned(),
            bytes if bytes > most => {
                format!("it has {bytes} bytes, {most} are the most; its beginning is repeated here")
            }
            _ => return self.handles.push(handle.to_owned()),
        };
        self.failures.push(HandleFailure {
            receipt_handle: beginning(handle, most).to_owned(),
            code: ErrorCode::ReceiptHandleError,
            message: reason,
        });
    }
}

/// As much of a text as fits, in whole characters.
fn beginning(text: &str, bytes_max: usize) -> &str {
    let end = (0..=bytes_max.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    &text[..end.unwrap_or(0)]
}

/// Reads a `ReceiptHandles` document: 1 to [`limits::HTTP_RECEIVE_MESSAGES_MAX`] handles, blanks around them ignored.
pub fn parse_receipt_handles(bytes: &[u8]) -> Result<ReceiptHandles, HttpError> {
    let mut handles = ReceiptHandles::default();
    let mut count = 0;
    read_children(bytes, "ReceiptHandles", &["ReceiptHandle"], |_, text| {
        count += 1;
        // A document full of handles is counted, not kept.
        if count <= limits::HTTP_RECEIVE_MESSAGES_MAX {
            handles.push(text.trim());
        }
        Ok(())
    })?;
    if !(1..=limits::HTTP_RECEIVE_MESSAGES_MAX).contains(&count) {
        let most = limits::HTTP_RECEIVE_MESSAGES_MAX;
        return Err(HttpError::invalid(format!(
            "an acknowledgement has 1 to {most} receipt handles, not {count}"
        )));
    }
    Ok(handles)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::http::ErrorCode;

    fn publish(document: &str) -> Result<PublishRequest, HttpError> {
        parse_publish(document.as_bytes())
    }

    fn body(document: &str) -> String {
        publish(document).unwrap_or_else(|error| panic!("{document}: {error}")).body
    }

    /// As Python's `xml.dom.minidom` writes it for the client 1.0.3.
    #[test]
    fn the_python_clients_documents_are_understood() {
        let document = "<?xml version=\"1.0\" encoding=\"utf-8\"?><Message xmlns=\"http://mq.aliyuncs.com/doc/v1/\">\
            <MessageBody>a &amp; b &lt;c&gt; \"d\"\r\n</MessageBody><Properties>KEYS:k1|a:1|</Properties>\
            <MessageTag>tag</MessageTag></Message>";
        let message = publish(document).expect("well formed");
        assert_eq!(message.body, "a & b <c> \"d\"\r\n");
        assert_eq!(message.tag.as_deref(), Some("tag"));
        assert_eq!(message.properties.get("KEYS"), Some("k1"));
        let document = "<?xml version=\"1.0\" encoding=\"utf-8\"?><ReceiptHandles xmlns=\"http://mq.aliyuncs.com/doc/v1/\">\
            <ReceiptHandle>h1</ReceiptHandle><ReceiptHandle>h2</ReceiptHandle></ReceiptHandles>";
        let read = parse_receipt_handles(document.as_bytes()).expect("well formed");
        assert_eq!((read.handles, read.failures), (vec!["h1".to_owned(), "h2".to_owned()], Vec::new()));
    }

    #[test]
    fn namespaces_order_and_strangers_do_not_matter() {
        let document = "\u{feff}<!-- hello --><?php ?>\n<mq:Message xmlns:mq='urn:x'>\n <Unknown><Deep><MessageBody>no</MessageBody></Deep>text</Unknown>\
            <mq:MessageTag/> <MessageBody>yes</MessageBody>\n</mq:Message>\n";
        let message = publish(document).expect("well formed");
        assert_eq!((message.body.as_str(), message.tag), ("yes", None));
    }

    #[test]
    fn text_is_put_together_from_its_parts() {
        let around = |inner: &str| body(&format!("<Message><MessageBody>{inner}</MessageBody></Message>"));
        assert_eq!(around("a<![CDATA[<b>&amp;]]>c"), "a<b>&amp;c");
        assert_eq!(around("&#65;&#x42;&lt;&quot;&apos;&#13;&#x1F600;"), "AB<\"'\r\u{1F600}");
        assert_eq!(around("x<!-- between -->y"), "xy");
        assert_eq!(around("  kept \n"), "  kept \n");
    }

    #[test]
    fn what_is_not_well_formed_is_malformed() {
        let documents = [
            "",
            "  \n",
            "hello",
            "<Message>",
            "<Message><MessageBody>a</MessageBody>",
            "<Message><MessageBody>a</Message></MessageBody>",
            "<Message><MessageBody>a</MessageBody></Message><Message/>",
            "<Message><MessageBody>a</MessageBody></Message>tail",
            "<Message><MessageBody>a<b/></MessageBody></Message>",
            "<Message><MessageBody>a</MessageBody><MessageBody>b</MessageBody></Message>",
            "<Message>stray<MessageBody>a</MessageBody></Message>",
            "<Message><MessageBody>&unknown;</MessageBody></Message>",
            "<Message><MessageBody>&#1;</MessageBody></Message>",
            "<Message><MessageBody>&#0;&#xD800;&#x110000;</MessageBody></Message>",
            "<Message><MessageBody>a & b</MessageBody></Message>",
            "<Message><MessageBody><![CDATA[a ]]> b]]></MessageBody></Message>",
            "<Message><MessageBody>\u{1}</MessageBody></Message>",
            "<Message><MessageBody>\u{ffff}</MessageBody></Message>",
            "<?xml version='1.0' encoding='latin1'?><Message><MessageBody>a</MessageBody></Message>",
            "<!DOCTYPE Message [<!ENTITY a 'aaaa'>]><Message><MessageBody>&a;</MessageBody></Message>",
            "<!DOCTYPE Message SYSTEM 'file:///etc/passwd'><Message><MessageBody>a</MessageBody></Message>",
            "<ReceiptHandles/>",
            "</Message>",
        ];
        for document in documents {
            let error = publish(document).expect_err(document);
            assert_eq!(error.code, ErrorCode::MalformedXml, "{document}: {error}");
        }
        let error =
            parse_publish(b"<Message><MessageBody>\xff</MessageBody></Message>").expect_err("no UTF-8");
        assert_eq!(error.code, ErrorCode::MalformedXml);
    }

    #[test]
    fn depth_is_bounded() {
        let deep = |depth: usize| {
            format!(
                "<Message>{}{}<MessageBody>a</MessageBody></Message>",
                "<x>".repeat(depth),
                "</x>".repeat(depth)
            )
        };
        assert_eq!(body(&deep(limits::XML_DEPTH_MAX - 1)), "a");
        assert_eq!(publish(&deep(limits::XML_DEPTH_MAX)), Err(DocumentError::Depth.into()));
        assert_eq!(publish(&"<Message>".repeat(100_000)), Err(DocumentError::Depth.into()));
    }

    #[test]
    fn sizes_are_those_of_a_stored_message() {
        let with = |body: usize, tag: usize| {
            publish(&format!(
                "<Message><MessageBody>{}</MessageBody><MessageTag>{}</MessageTag></Message>",
                "b".repeat(body),
                "t".repeat(tag)
            ))
        };
        assert!(with(limits::BODY_BYTES_MAX, limits::TAG_BYTES_MAX).is_ok());
        for (body, tag) in [(limits::BODY_BYTES_MAX + 1, 1), (1, limits::TAG_BYTES_MAX + 1), (0, 1)] {
            assert_eq!(with(body, tag).expect_err("out of bounds").code, ErrorCode::InvalidArgument);
        }
    }

    #[test]
    fn handles_are_counted_before_they_are_kept() {
        let handles = |count: usize, handle: &str| {
            let one = format!("<ReceiptHandle>{handle}</ReceiptHandle>");
            parse_receipt_handles(
                format!("<ReceiptHandles>{}</ReceiptHandles>", one.repeat(count)).as_bytes(),
            )
        };
        assert_eq!(handles(16, " h\n").expect("16 are fine").handles, vec!["h"; 16]);
        for (count, handle) in [(0, "h"), (17, "h"), (50_000, "h"), (17, " ")] {
            assert_eq!(
                handles(count, handle).expect_err("wrong").code,
                ErrorCode::InvalidArgument,
                "{count}"
            );
        }
    }

    #[test]
    fn a_handle_that_cannot_be_one_fails_alone() {
        let long = "\u{e9}".repeat(1_000);
        let document =
            ["h", " ", &long, "i"].map(|handle| format!("<ReceiptHandle>{handle}</ReceiptHandle>"));
        let document = format!("<ReceiptHandles>{}</ReceiptHandles>", document.concat());
        let read = parse_receipt_handles(document.as_bytes()).expect("it has four");
        assert_eq!(read.handles, ["h", "i"]);
        let failed: Vec<_> = read.failures.iter().map(|failure| &failure.receipt_handle[..]).collect();
        assert_eq!(failed, ["", &long[..1_024]]);
    }
}
