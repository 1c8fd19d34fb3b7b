//! What Apache's broker keeps in `config/*.json` (`broker/.../topic/TopicConfigManager.java`,
//! `broker/.../subscription/SubscriptionGroupManager.java`, `broker/.../offset/ConsumerOffsetManager.java`). fastjson writes them, with
//! keys without quotes where these are numbers.

use std::path::{Path, PathBuf};

use crate::cli::error::CommandError;
use crate::protocol::remoting::json::Value;
use crate::types::{SettingsFile, SettingsFileError};

/// A hundred thousand topics have some thirty million bytes.
const FILE_BYTES_MAX: u64 = 256 * 1024 * 1024;

/// A topic as the file has it; its numbers of queues are those of one broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicLine {
    pub name: String,
    pub read: i64,
    pub write: i64,
    pub permission: i64,
    pub ordered: bool,
    /// `message.type` and others, without signs.
    pub attributes: Vec<(String, String)>,
    /// What the file says that could not be taken as it is, and what stands in its place.
    pub changed: Vec<String>,
}

/// A group as the file has it.
#[derive(Clone, Debug, PartialEq)]
pub struct GroupLine {
    pub name: String,
    /// As `UPDATE_AND_CREATE_SUBSCRIPTIONGROUP` takes it.
    pub settings: serde_json::Value,
    /// As of a topic.
    pub changed: Vec<String>,
}

/// Where a group is in a topic, over all of its queues.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlaceLine {
    pub topic: String,
    pub group: String,
    pub queues: usize,
    pub offsets: i64,
}

/// What was found; `None`: the file is not there.
#[derive(Debug, Default)]
pub struct Found {
    pub topics: Option<Vec<TopicLine>>,
    pub groups: Option<Vec<GroupLine>>,
    pub places: Option<Vec<PlaceLine>>,
}

/// Reads the directory that a broker's `storePathRootDir` names, or the `config` in it. One of the files at least must be there.
pub fn read(directory: &Path) -> Result<Found, CommandError> {
    let inside = directory.join("config");
    let directory = if inside.is_dir() { inside } else { directory.to_owned() };
    let found = Found {
        topics: read_file(&directory.join("topics.json"), topics)?,
        groups: read_file(&directory.join("subscriptionGroup.json"), groups)?,
        places: read_file(&directory.join("consumerOffset.json"), places)?,
    };
    if found.topics.is_none() && found.groups.is_none() && found.places.is_none() {
        return Err(CommandError::failed(format!(
            "{} has neither topics.json nor subscriptionGroup.json: name what storePathRootDir of the broker is, ~/store unless \
             something else was set, or the folder `config` in it; with RocksDB (configManagerVersion, or storeType) these files are \
             not written: take `mqadmin exportMetadata` and `turbopump topic create` then",
            directory.display()
        )));
    }
    Ok(found)
}

fn read_file<T>(path: &Path, lines: impl Fn(&Value<'_>) -> Option<T>) -> Result<Option<T>, CommandError> {
    let failed = |reason: String| CommandError::failed(format!("{}: {reason}", path.display()));
    // The broker writes a new one in two steps, and a copy may have got the one before only.
    let spare = PathBuf::from(format!("{}.bak", path.display()));
    let path_read = if path.exists() || !spare.exists() { path } else { &spare };
    let bytes = match SettingsFile::read(path_read, FILE_BYTES_MAX) {
        Ok(file) => file.bytes,
        Err(SettingsFileError::System(error)) if error.kind() == std::io::ErrorKind::NotFound => {
            return Ok(None);
        }
        Err(error) => return Err(failed(error.to_string())),
    };
    let value =
        Value::parse_file(&bytes).map_err(|error| failed(format!("it is no JSON of a broker's: {error}")))?;
    let found = lines(&value)
        .ok_or_else(|| failed("it has no table of the kind that a broker writes there".to_owned()))?;
    Ok(Some(found))
}

/// The table of that name; `None` where there is none.
fn table<'a, 'b>(value: &'b Value<'a>, name: &str) -> Option<&'b [(Value<'a>, Value<'a>)]> {
    match value.get(name) {
        Value::Object(entries) => Some(entries),
        _ => None,
    }
}

fn text(value: &Value<'_>) -> String {
    value.as_text().unwrap_or_default().to_owned()
}

/// Members of one topic or group, and notes of those that were not what they are to be.
struct Members<'a, 'b> {
    of: &'b Value<'a>,
    changed: Vec<String>,
}

impl<'a, 'b> Members<'a, 'b> {
    fn new(of: &'b Value<'a>) -> Self {
        let changed = match of {
            Value::Object(_) => Vec::new(),
            _ => vec!["nothing is said of it: it gets what a new one has".to_owned()],
        };
        Self { of, changed }
    }

    fn number(&mut self, name: &str, unsaid: i64) -> i64 {
        self.member(name, Value::as_number, unsaid, "whole number")
    }

    fn flag(&mut self, name: &str, unsaid: bool) -> bool {
        self.member(name, Value::as_boolean, unsaid, "truth value")
    }

    /// A member as `read` takes it, or what it has where nothing is said.
    fn member<T: std::fmt::Display>(
        &mut self,
        name: &str,
        read: impl Fn(&Value<'a>) -> Option<T>,
        unsaid: T,
        what: &str,
    ) -> T {
        let said = self.of.entries().iter().find(|(key, _)| key.as_text() == Some(name));
        let Some((_, value)) = said else { return unsaid };
        read(value).unwrap_or_else(|| {
            self.changed.push(format!("{name} is no {what} there, and {unsaid} here"));
            unsaid
        })
    }
}

fn topics(value: &Value<'_>) -> Option<Vec<TopicLine>> {
    let topic = |(key, of): &(Value<'_>, Value<'_>)| {
        let mut members = Members::new(of);
        let attribute = |(name, value): &(Value<'_>, Value<'_>)| {
            (text(name).trim_start_matches('+').to_owned(), text(value))
        };
        TopicLine {
            name: text(key),
            // Those of `TopicConfig`.
            read: members.number("readQueueNums", 16),
            write: members.number("writeQueueNums", 16),
            permission: members.number("perm", 6),
            ordered: members.flag("order", false),
            attributes: of.get("attributes").entries().iter().map(attribute).collect(),
            changed: members.changed,
        }
    };
    Some(table(value, "topicConfigTable")?.iter().map(topic).collect())
}

fn groups(value: &Value<'_>) -> Option<Vec<GroupLine>> {
    let group = |(key, of): &(Value<'_>, Value<'_>)| {
        let mut members = Members::new(of);
        let name = text(key);
        let retries = members.number("retryMaxTimes", 16);
        if retries >= i64::from(u32::MAX) {
            members.changed.push(format!("retryMaxTimes is {retries} there, and without end here"));
        }
        let mut settings = serde_json::json!({
            "groupName": name,
            "consumeEnable": members.flag("consumeEnable", true),
            "consumeBroadcastEnable": members.flag("consumeBroadcastEnable", true),
            "consumeMessageOrderly": members.flag("consumeMessageOrderly", false),
            "retryQueueNums": members.number("retryQueueNums", 1),
            "retryMaxTimes": retries,
        });
        let policy = of.get("groupRetryPolicy");
        if !policy.is_null() {
            settings["groupRetryPolicy"] = plain(policy);
        }
        GroupLine { name, settings, changed: members.changed }
    };
    Some(table(value, "subscriptionGroupTable")?.iter().map(group).collect())
}

fn places(value: &Value<'_>) -> Option<Vec<PlaceLine>> {
    let place = |(key, of): &(Value<'_>, Value<'_>)| {
        let key = text(key);
        let (topic, group) = key.split_once('@').unwrap_or((&key, ""));
        PlaceLine {
            topic: topic.to_owned(),
            group: group.to_owned(),
            queues: of.entries().len(),
            offsets: of
                .entries()
                .iter()
                .filter_map(|(_, offset)| offset.as_number())
                .fold(0, i64::saturating_add),
        }
    };
    Some(table(value, "offsetTable")?.iter().map(place).collect())
}

/// The same as strict JSON. Its depth is bounded by who has read it.
fn plain(value: &Value<'_>) -> serde_json::Value {
    match value {
        Value::Null => serde_json::Value::Null,
        Value::Boolean(value) => (*value).into(),
        Value::Word(word) => word.parse::<i64>().map_or_else(|_| (*word).into(), Into::into),
        Value::Text(text) => text.as_ref().into(),
        Value::Array(items) => items.iter().map(plain).collect(),
        Value::Object(entries) => {
            serde_json::Value::Object(entries.iter().map(|(key, value)| (text(key), plain(value))).collect())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed<T>(text: &str, lines: impl Fn(&Value<'_>) -> Option<T>) -> Option<T> {
        lines(&Value::parse_file(text.as_bytes()).expect("JSON of a kind"))
    }

    #[test]
    fn topics_have_what_the_file_says() {
        let text = r#"{"dataVersion":{"counter":3,"stateVersion":0,"timestamp":1},"topicConfigTable":{
            "orders":{"attributes":{"+message.type":"FIFO"},"order":true,"perm":4,"readQueueNums":8,"topicFilterType":"SINGLE_TAG",
            "topicName":"orders","topicSysFlag":0,"writeQueueNums":6},"bare":{}}}"#;
        let found = parsed(text, topics).expect("a table");
        let attributes = vec![("message.type".to_owned(), "FIFO".to_owned())];
        let orders = TopicLine {
            name: "orders".into(),
            read: 8,
            write: 6,
            permission: 4,
            ordered: true,
            attributes,
            changed: Vec::new(),
        };
        assert_eq!(found[0], orders);
        assert_eq!((found[1].read, found[1].permission), (16, 6));
        assert!(parsed("{}", topics).is_none());
    }

    #[test]
    fn what_is_changed_on_the_way_is_noted() {
        let text = r#"{"topicConfigTable":{"a":null,"b":{"readQueueNums":1e30,"order":7},"c":{"perm":null},"d":{}}}"#;
        let found = parsed(text, topics).expect("a table");
        assert_eq!(found[0].changed, ["nothing is said of it: it gets what a new one has"]);
        let [queues, order] = ["readQueueNums is no whole number", "order is no truth value"];
        assert!(found[1].changed[0].starts_with(queues) && found[1].changed[1].starts_with(order));
        assert_eq!(found[2].changed, ["perm is no whole number there, and 6 here"]);
        assert!(found[3].changed.is_empty());
        let text = r#"{"subscriptionGroupTable":{"a":{"retryMaxTimes":1099511627776},"b":null,"c":{"retryMaxTimes":-1}}}"#;
        let found = parsed(text, groups).expect("a table");
        assert_eq!(found[0].changed, ["retryMaxTimes is 1099511627776 there, and without end here"]);
        assert_eq!((found[1].changed.len(), found[2].changed.len()), (1, 0));
    }

    #[test]
    fn groups_and_places_are_read_with_bare_keys() {
        let text = r#"{"subscriptionGroupTable":{"billing":{"consumeEnable":false,"retryMaxTimes":3,
            "groupRetryPolicy":{"type":"CUSTOMIZED","customizedRetryPolicy":{"next":[1000,5000]}}}}}"#;
        let found = parsed(text, groups).expect("a table");
        assert_eq!(found[0].settings["retryMaxTimes"], 3);
        assert_eq!(found[0].settings["consumeEnable"], false);
        assert_eq!(found[0].settings["groupRetryPolicy"]["customizedRetryPolicy"]["next"][1], 5000);
        let found =
            parsed(r#"{"offsetTable":{"orders@billing":{0:5,1:7,"2":-1}}}"#, places).expect("a table");
        let expected = PlaceLine { topic: "orders".into(), group: "billing".into(), queues: 3, offsets: 11 };
        assert_eq!(found, [expected]);
    }
}
