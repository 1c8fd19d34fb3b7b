//! A message as brokers hand it out, and as `mqadmin` shows it.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use serde_json::{Map, Value};

use crate::cli::message_json::insert_bytes;
use crate::cli::mqadmin::columns::time;
use crate::cli::output::{on_one_line, set_in};
use crate::limits;
use crate::protocol::remoting::message::{ReadRecord, read_record};
use crate::types::OffsetMessageId;
use crate::wire::inflate::inflate;
use crate::wire::origin::BodyEncoding;
use crate::wire::properties::{Properties, names};

/// Where values stand, beside their names.
const VALUE_COLUMN: usize = 21;

/// A stored message.
#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    /// Says where it is stored.
    pub id: String,
    pub broker: String,
    pub topic: String,
    pub queue: u32,
    pub queue_offset: i64,
    pub physical_offset: i64,
    pub stored_bytes: usize,
    pub system_flag: u32,
    pub flag: u32,
    pub born_time: i64,
    pub born_host: SocketAddr,
    pub store_time: i64,
    pub store_host: SocketAddr,
    pub deliveries_before: u32,
    pub body_crc: u32,
    pub properties: BTreeMap<String, String>,
    /// As its producer had it, where that can be had.
    pub body: Vec<u8>,
}

impl Message {
    /// Reads messages back to back, of a broker with that name.
    pub fn read_all(broker: &str, bytes: &[u8]) -> Result<Vec<Self>, String> {
        let (mut found, mut rest) = (Vec::new(), bytes);
        while !rest.is_empty() {
            let (record, after) = read_record(rest).ok_or("what it sends as messages is none")?;
            found.push(Self::of(broker, &record, rest.len() - after.len()));
            rest = after;
        }
        Ok(found)
    }

    fn of(broker: &str, record: &ReadRecord<'_>, stored_bytes: usize) -> Self {
        let encoding = record.attributes().map_or(BodyEncoding::Plain, |attributes| attributes.encoding);
        let body = inflate(record.body, encoding, limits::BODY_BYTES_MAX);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let id = OffsetMessageId { address: record.store_host, physical_offset: record.physical_offset };
        Self {
            id: id.text().to_string(),
            broker: broker.to_owned(),
            topic: text(record.topic),
            queue: record.queue,
            queue_offset: record.queue_offset,
            physical_offset: record.physical_offset,
            stored_bytes,
            system_flag: record.system_flag,
            flag: record.flag,
            born_time: record.born_time,
            born_host: record.born_host,
            store_time: record.store_time,
            store_host: record.store_host,
            deliveries_before: record.deliveries_before,
            body_crc: record.body_crc,
            properties: Properties::new(record.properties)
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
            body: body.map_or_else(|_| record.body.to_vec(), |body| body.into_owned()),
        }
    }

    pub fn property(&self, name: &str) -> Option<&str> {
        self.properties.get(name).map(String::as_str)
    }

    /// The id that its producer gave it, or else the one that says where it is stored.
    pub fn shown_id(&self) -> &str {
        self.property(names::UNIQUE_ID).unwrap_or(&self.id)
    }

    /// Whether that is one of its keys.
    pub fn has_key(&self, key: &str) -> bool {
        self.property(names::KEYS).is_some_and(|keys| keys.split(' ').any(|of| of == key))
    }

    fn properties_text(&self) -> String {
        let pairs: Vec<_> = self.properties.iter().map(|(name, value)| format!("{name}={value}")).collect();
        format!("{{{}}}", on_one_line(&pairs.join(", ")))
    }

    /// A part a line. `mqadmin` puts the body into a file and shows that one's path.
    pub fn lines(&self, with_id: bool) -> String {
        let in_brackets = |name| format!("[{}]", on_one_line(self.property(name).unwrap_or("null")));
        let mut lines = vec![
            ("OffsetID:", self.id.clone()),
            ("Topic:", on_one_line(&self.topic).into()),
            ("Tags:", in_brackets(names::TAGS)),
            ("Keys:", in_brackets(names::KEYS)),
            ("Queue ID:", self.queue.to_string()),
            ("Queue Offset:", self.queue_offset.to_string()),
            ("CommitLog Offset:", self.physical_offset.to_string()),
            ("Reconsume Times:", self.deliveries_before.to_string()),
            ("Born Timestamp:", time(self.born_time)),
            ("Store Timestamp:", time(self.store_time)),
            ("Born Host:", self.born_host.to_string()),
            ("Store Host:", self.store_host.to_string()),
            ("System Flag:", self.system_flag.to_string()),
            ("Properties:", self.properties_text()),
            ("Message Body:", set_in(&String::from_utf8_lossy(&self.body), VALUE_COLUMN)),
        ];
        if !with_id {
            lines.remove(0);
        }
        lines.iter().map(|(name, value)| format!("{name:<20} {value}\n")).collect()
    }

    /// All on one line.
    pub fn line(&self, with_body: bool) -> String {
        let body = if with_body { String::from_utf8_lossy(&self.body) } else { "NOT PRINT BODY".into() };
        let body = on_one_line(&body);
        format!("MSGID: {} {} BODY: {body}\n", on_one_line(self.shown_id()), self.parts())
    }

    /// As RocketMQ's client for Java writes a message.
    fn parts(&self) -> String {
        let bytes: Vec<_> = self.body.iter().map(|byte| (*byte as i8).to_string()).collect();
        format!(
            "MessageExt [brokerName={}, queueId={}, storeSize={}, queueOffset={}, sysFlag={}, bornTimestamp={}, bornHost=/{}, \
             storeTimestamp={}, storeHost=/{}, msgId={}, commitLogOffset={}, bodyCRC={}, reconsumeTimes={}, \
             preparedTransactionOffset=0, toString()=Message{{topic='{}', flag={}, properties={}, body=[{}], \
             transactionId='null'}}]",
            self.broker,
            self.queue,
            self.stored_bytes,
            self.queue_offset,
            self.system_flag,
            self.born_time,
            self.born_host,
            self.store_time,
            self.store_host,
            self.id,
            self.physical_offset,
            self.body_crc,
            self.deliveries_before,
            on_one_line(&self.topic),
            self.flag,
            self.properties_text(),
            bytes.join(", ")
        )
    }

    /// For programs.
    pub fn object(&self, with_body: bool) -> Map<String, Value> {
        let Value::Object(mut object) = serde_json::json!({
            "id": self.id,
            "unique_id": self.property(names::UNIQUE_ID),
            "topic": self.topic,
            "broker": self.broker,
            "queue": self.queue,
            "offset": self.queue_offset,
            "tag": self.property(names::TAGS),
            "keys": self.property(names::KEYS),
            "physical_offset": self.physical_offset,
            "deliveries_before": self.deliveries_before,
            "born_time_ms": self.born_time,
            "born_host": self.born_host.to_string(),
            "store_time_ms": self.store_time,
            "store_host": self.store_host.to_string(),
            "system_flag": self.system_flag,
            "properties": self.properties,
        }) else {
            return Map::new();
        };
        if with_body {
            insert_bytes(&mut object, "body", &self.body);
        }
        object
    }
}
