//! What a broker tells a name server of its topics (`remoting/.../protocol/body/RegisterBrokerBody.java`).
//!
//! ```text
//! uncompressed   JSON, see the tests; before version 37 only what stands there as `topicConfigSerializeWrapper`
//! compressed     zlib of  i32 bytes, DataVersion
//!                         i32 topics, each: i32 bytes, `name readQueues writeQueues permission filter attributes`
//!                         what follows is of no use here: filter servers, static topics
//! ```

use std::collections::BTreeMap;

use super::data_version::DataVersion;
use crate::limits;
use crate::protocol::remoting::JsonError;
use crate::protocol::remoting::json::Value;
use crate::wire::inflate::{InflateError, inflate};
use crate::wire::origin::BodyEncoding;

/// The topics of a broker that registers, and which state of them this is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisteredTopics {
    pub version: DataVersion,
    pub topics: BTreeMap<String, RegisteredTopic>,
}

/// A topic's queues on that broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RegisteredTopic {
    pub read: u32,
    pub write: u32,
    pub permission: u32,
    pub flags: i32,
}

/// Why a body is no registration.
#[derive(Debug, thiserror::Error)]
pub enum RegistrationError {
    #[error("the body is no JSON: {0}")]
    Json(#[from] JsonError),
    #[error(transparent)]
    Inflate(#[from] InflateError),
    #[error("the body ends within its {0}")]
    Truncated(&'static str),
    #[error("the name of a topic has more than {max} bytes", max = limits::NAMESRV_NAME_BYTES_MAX)]
    Name,
    #[error("it has more than {max} topics", max = limits::NAMESRV_TOPICS_MAX)]
    Topics,
    /// Clients make as much room as they are told that there are queues.
    #[error("topic {topic} has {queues} queues: a topic has 0 to {max} on a broker", max = limits::TOPIC_QUEUES_MAX)]
    Queues { topic: String, queues: i64 },
}

/// Before this version of a broker's (`common/.../MQVersion.java`) the body was the table of topics alone.
const WRAPPED_FROM: i32 = 37;

impl RegisteredTopics {
    pub fn read(body: &[u8], is_compressed: bool, version: i32) -> Result<Self, RegistrationError> {
        if body.is_empty() {
            return Ok(Self::default());
        }
        if is_compressed {
            let plain = inflate(body, BodyEncoding::Zlib, limits::NAMESRV_REGISTRATION_BYTES_MAX)?;
            return Self::of_bytes(&plain);
        }
        let value = Value::parse(body)?;
        let wrapper = if version < WRAPPED_FROM { &value } else { value.get("topicConfigSerializeWrapper") };
        Self::of_wrapper(wrapper)
    }

    fn of_wrapper(wrapper: &Value<'_>) -> Result<Self, RegistrationError> {
        let mut registered =
            Self { version: DataVersion::of(wrapper.get("dataVersion")), topics: BTreeMap::new() };
        for (name, topic) in wrapper.get("topicConfigTable").entries() {
            let Some(name) = name.as_text() else { continue };
            let number = |member| topic.get(member).as_number().unwrap_or(0);
            let flags = i32::try_from(number("topicSysFlag")).unwrap_or(0);
            let said = [number("readQueueNums"), number("writeQueueNums"), number("perm")];
            registered.add(name, said, flags)?;
        }
        Ok(registered)
    }

    fn of_bytes(bytes: &[u8]) -> Result<Self, RegistrationError> {
        let mut rest = bytes;
        let version = DataVersion::of(&Value::parse(take_text(&mut rest, "data version")?)?);
        let mut registered = Self { version, topics: BTreeMap::new() };
        for _ in 0..take_number(&mut rest, "number of topics")? {
            let text = String::from_utf8_lossy(take_text(&mut rest, "topics")?);
            let mut words = text.split(' ');
            let name = words.next().unwrap_or_default();
            let mut number = || words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
            registered.add(name, [number(), number(), number()], 0)?;
        }
        Ok(registered)
    }

    fn add(
        &mut self,
        name: &str,
        [read, write, permission]: [i64; 3],
        flags: i32,
    ) -> Result<(), RegistrationError> {
        if name.len() > limits::NAMESRV_NAME_BYTES_MAX {
            return Err(RegistrationError::Name);
        }
        if self.topics.len() >= limits::NAMESRV_TOPICS_MAX && !self.topics.contains_key(name) {
            return Err(RegistrationError::Topics);
        }
        let count = |queues| match u32::try_from(queues) {
            Ok(count) if count <= limits::TOPIC_QUEUES_MAX => Ok(count),
            _ => Err(RegistrationError::Queues { topic: name.to_owned(), queues }),
        };
        let (read, write) = (count(read)?, count(write)?);
        let permission = u32::try_from(permission).unwrap_or(0);
        self.topics.insert(name.to_owned(), RegisteredTopic { read, write, permission, flags });
        Ok(())
    }
}

fn take_number(rest: &mut &[u8], what: &'static str) -> Result<usize, RegistrationError> {
    let (number, left) = rest.split_first_chunk().ok_or(RegistrationError::Truncated(what))?;
    *rest = left;
    usize::try_from(i32::from_be_bytes(*number)).map_err(|_| RegistrationError::Truncated(what))
}

fn take_text<'a>(rest: &mut &'a [u8], what: &'static str) -> Result<&'a [u8], RegistrationError> {
    let bytes = take_number(rest, what)?;
    let (text, left) = rest.split_at_checked(bytes).ok_or(RegistrationError::Truncated(what))?;
    *rest = left;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    const BODY: &str = r#"{"filterServerList":[],"topicConfigSerializeWrapper":{"dataVersion":{"counter":5,"stateVersion":0,
        "timestamp":1700000000000},"mappingDataVersion":{"counter":0,"stateVersion":0,"timestamp":1},"topicConfigTable":{
        "T":{"attributes":{},"order":false,"perm":6,"readQueueNums":8,"topicFilterType":"SINGLE_TAG","topicName":"T",
        "topicSysFlag":1,"writeQueueNums":4}},"topicQueueMappingDetailMap":{},"topicQueueMappingInfoMap":{}}}"#;

    fn compressed() -> Vec<u8> {
        compressed_with(b"T 8 4 6 SINGLE_TAG {}")
    }

    fn compressed_with(topic: &[u8]) -> Vec<u8> {
        let mut plain = Vec::new();
        let mut put = |text: &[u8]| {
            plain.extend_from_slice(&(text.len() as i32).to_be_bytes());
            plain.extend_from_slice(text);
        };
        put(br#"{"counter":5,"stateVersion":0,"timestamp":1700000000000}"#);
        plain.extend_from_slice(&1_i32.to_be_bytes());
        let mut put = |text: &[u8]| {
            plain.extend_from_slice(&(text.len() as i32).to_be_bytes());
            plain.extend_from_slice(text);
        };
        put(topic);
        put(b"[]");
        let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::default());
        encoder.write_all(&plain).expect("memory");
        encoder.finish().expect("memory")
    }

    #[test]
    fn every_form_says_the_same() {
        let topic = RegisteredTopic { read: 8, write: 4, permission: 6, flags: 1 };
        let version = DataVersion { counter: 5, state: 0, timestamp: 1_700_000_000_000 };
        let expected = RegisteredTopics { version, topics: [("T".to_owned(), topic)].into() };
        let read = |body: &[u8], is_compressed, version| {
            RegisteredTopics::read(body, is_compressed, version).expect("well formed")
        };
        assert_eq!(read(BODY.as_bytes(), false, 479), expected);
        let bare = &BODY[BODY.find("{\"dataVersion").expect("it is there")..BODY.len() - 1];
        assert_eq!(read(bare.as_bytes(), false, 36), expected);
        // This form has no flags.
        let flagless = RegisteredTopic { flags: 0, ..topic };
        assert_eq!(read(&compressed(), true, 479).topics["T"], flagless);
        assert_eq!(read(b"", false, 479), RegisteredTopics::default());
    }

    #[test]
    fn what_is_none_is_refused() {
        let refused = |body: &[u8], is_compressed| RegisteredTopics::read(body, is_compressed, 479).is_err();
        assert!(refused(b"{nonsense", false));
        assert!(refused(b"nonsense", true));
        let whole = compressed();
        assert!(refused(&whole[..whole.len() - 8], true));
        let long = format!(
            r#"{{"topicConfigSerializeWrapper":{{"topicConfigTable":{{"{}":{{}}}}}}}}"#,
            "x".repeat(limits::NAMESRV_NAME_BYTES_MAX + 1)
        );
        assert!(refused(long.as_bytes(), false));
    }

    /// A client made as many queues as it was told of, 2,147,483,647 for one, until it had no memory left.
    #[test]
    fn a_topic_of_more_queues_than_a_node_gives_one_is_refused() {
        let read = |queues: &str, member: &str| {
            let body = BODY.replace(member, &format!("{}{queues}", &member[..member.len() - 1]));
            RegisteredTopics::read(body.as_bytes(), false, 479).map_err(|error| error.to_string())
        };
        for member in ["\"readQueueNums\":8", "\"writeQueueNums\":4"] {
            for queues in ["65537", "2147483647", "4294967297", "-1"] {
                let refusal = read(queues, member).expect_err("no such topic can be");
                assert_eq!(
                    refusal,
                    format!("topic T has {queues} queues: a topic has 0 to 65536 on a broker")
                );
            }
            assert!(read("65536", member).is_ok());
            assert!(read("0", member).is_ok());
        }
        for topic in [&b"T 65537 4 6 SINGLE_TAG {}"[..], b"T 8 -4 6 SINGLE_TAG {}"] {
            let read = RegisteredTopics::read(&compressed_with(topic), true, 479);
            assert!(matches!(read, Err(RegistrationError::Queues { .. })), "{read:?}");
        }
    }
}
