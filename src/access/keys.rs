//! Keys and their rules, as a TOML text says them:
//!
//! ```toml
//! [[keys]]
//! id = "shop"
//! secret = "..."
//! publish = ["orders", "events-*"]
//! consume = [{ topic = "orders", group = "GID-shop-*" }]
//!
//! [[keys]]
//! id = "root"
//! secret = "..."
//! admin = true
//! ```
//!
//! What no rule allows is refused; `admin` allows everything. A topic of an instance is named `INSTANCE%TOPIC`.

use std::collections::HashMap;
use std::rc::Rc;

use serde::Deserialize;

use super::pattern::{Pattern, PatternError};
use crate::limits;
use crate::types::Secret;

/// Keys in one file; the file is read by every shard.
pub const KEYS_MAX: usize = 10_000;
/// Rules of one key, all of which may be looked at for one request.
pub const KEY_RULES_MAX: usize = 1_000;
const KEY_ID_BYTES_MAX: usize = limits::ACCESS_KEY_ID_BYTES_MAX;
/// What an error shows: TOML on one line, which means the same as the text above.
const EXAMPLE: &str = r#"keys = [{ id = "shop", secret = "...", publish = ["orders"], consume = [{ topic = "orders", group = "billing" }] }]"#;

/// Why a text says no keys. None of the messages holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AccessError {
    #[error("{path} cannot be read: {reason}")]
    Unreadable { path: String, reason: String },
    #[error("{path} cannot be read: it is {what}, and must be a regular file")]
    NotAFile { path: String, what: &'static str },
    #[error("{path} has {bytes} bytes, {most} are the most")]
    TooLarge { path: String, bytes: u64, most: u64 },
    #[error("line {line}: {reason}; a key is written like {EXAMPLE}")]
    Syntax { line: usize, reason: String },
    #[error("it names {count} keys, {KEYS_MAX} are the most")]
    TooManyKeys { count: usize },
    #[error("key `{id}`: {reason}")]
    Key { id: String, reason: String },
}

/// One key, and what its holder may do.
#[derive(Debug)]
pub struct AccessKey {
    pub id: String,
    pub secret: Secret,
    pub is_admin: bool,
    publish: Vec<Pattern>,
    consume: Vec<ConsumeRule>,
}

#[derive(Debug)]
struct ConsumeRule {
    topic: Pattern,
    group: Pattern,
}

/// All keys of a node.
#[derive(Debug, Default)]
pub struct AccessKeys(HashMap<String, Rc<AccessKey>>);

impl AccessKey {
    /// What it may publish to; whatever there is where it is an administrator's.
    pub fn publishes(&self) -> impl Iterator<Item = &Pattern> {
        self.publish.iter()
    }

    /// The topics that it may consume, and as which groups, likewise.
    pub fn consumes(&self) -> impl Iterator<Item = (&Pattern, &Pattern)> {
        self.consume.iter().map(|rule| (&rule.topic, &rule.group))
    }

    pub fn may_publish(&self, topic: &str) -> bool {
        self.is_admin || self.publish.iter().any(|pattern| pattern.matches(topic))
    }

    pub fn may_consume(&self, topic: &str, group: &str) -> bool {
        let allows = |rule: &ConsumeRule| rule.topic.matches(topic) && rule.group.matches(group);
        self.is_admin || self.consume.iter().any(allows)
    }

    /// Whether it may consume the topic as some group: who may do that may read it without a group as well.
    pub fn may_read(&self, topic: &str) -> bool {
        self.is_admin || self.consume.iter().any(|rule| rule.topic.matches(topic))
    }

    /// Whether it may consume some topic as the group.
    pub fn may_act_for(&self, group: &str) -> bool {
        self.is_admin || self.consume.iter().any(|rule| rule.group.matches(group))
    }
}

impl AccessKeys {
    /// The keys that a file's text says.
    pub fn parse(text: &str) -> Result<Self, AccessError> {
        let stored: StoredKeys = toml::from_str(text).map_err(|error| AccessError::Syntax {
            line: error.span().map_or(0, |span| text[..span.start].matches('\n').count() + 1),
            reason: without_values(error.message()),
        })?;
        if stored.keys.len() > KEYS_MAX {
            return Err(AccessError::TooManyKeys { count: stored.keys.len() });
        }
        let mut keys = HashMap::with_capacity(stored.keys.len());
        for key in stored.keys {
            let key = key.check()?;
            let id = key.id.clone();
            if keys.insert(id.clone(), Rc::new(key)).is_some() {
                return Err(AccessError::Key { id, reason: "it is there twice".into() });
            }
        }
        Ok(Self(keys))
    }

    /// All of them, by their ids.
    pub fn all(&self) -> Vec<&Rc<AccessKey>> {
        let mut keys: Vec<_> = self.0.values().collect();
        keys.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        keys
    }

    pub fn find(&self, id: &str) -> Option<&Rc<AccessKey>> {
        self.0.get(id)
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// A parser's reason without what it quotes of the file, since a secret may stand there: not the error's whole text, which
/// shows the line, and not the value of another type, like "string "hunter2"".
fn without_values(message: &str) -> String {
    let of_type = |rest: &str| rest.split([' ', ',']).next().unwrap_or_default().to_owned();
    for kind in ["invalid type: ", "invalid value: "] {
        if let (Some(rest), Some((_, expected))) =
            (message.strip_prefix(kind), message.rsplit_once(", expected "))
        {
            return format!("{kind}{}, expected {expected}", of_type(rest));
        }
    }
    message.to_owned()
}

// What is expected is said in the file's words: the error would name the Rust type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a list of [[keys]]")]
struct StoredKeys {
    #[serde(default)]
    keys: Vec<StoredKey>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a key with `id` and `secret`")]
struct StoredKey {
    id: String,
    #[serde(default)]
    secret: Option<StoredSecret>,
    #[serde(default)]
    admin: bool,
    #[serde(default)]
    publish: Vec<String>,
    #[serde(default)]
    consume: Vec<StoredConsumeRule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, expecting = "a rule like { topic = \"orders\", group = \"billing\" }")]
struct StoredConsumeRule {
    topic: String,
    group: String,
}

/// A value of another type would be quoted in the error.
struct StoredSecret(String);

impl<'de> Deserialize<'de> for StoredSecret {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer);
        text.map(Self).map_err(|_| serde::de::Error::custom("a secret is a text in quotes"))
    }
}

impl StoredKey {
    fn check(self) -> Result<AccessKey, AccessError> {
        let shown: String = self.id.chars().take(KEY_ID_BYTES_MAX).collect();
        let refuse = |reason: String| AccessError::Key { id: shown.clone(), reason };
        let is_plain = |byte: u8| byte.is_ascii_graphic() && byte != b':';
        if self.id.is_empty() || self.id.len() > KEY_ID_BYTES_MAX || !self.id.bytes().all(is_plain) {
            let reason = format!("an id has 1 to {KEY_ID_BYTES_MAX} visible ASCII characters and no colon");
            return Err(refuse(reason));
        }
        let secret = self.secret.filter(|secret| !secret.0.is_empty());
        let secret = secret.ok_or_else(|| refuse("it has no secret".into()))?;
        let rules = self.publish.len() + self.consume.len();
        if rules > KEY_RULES_MAX {
            return Err(refuse(format!("it has {rules} rules, {KEY_RULES_MAX} are the most")));
        }
        let pattern = |text: &str| text.parse().map_err(|error: PatternError| refuse(error.to_string()));
        let publish = self.publish.iter().map(|topic| pattern(topic)).collect::<Result<_, _>>()?;
        let rule = |rule: &StoredConsumeRule| {
            Ok(ConsumeRule { topic: pattern(&rule.topic)?, group: pattern(&rule.group)? })
        };
        let consume = self.consume.iter().map(rule).collect::<Result<_, AccessError>>()?;
        let secret = Secret::new(secret.0);
        Ok(AccessKey { id: self.id, secret, is_admin: self.admin, publish, consume })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: &str = r#"
        [[keys]]
        id = "shop"
        secret = "hunter2"
        publish = ["orders", "events-*"]
        consume = [{ topic = "orders", group = "GID-*" }, { topic = "inst%*", group = "g" }]
        [[keys]]
        id = "root"
        secret = "toor"
        admin = true
    "#;

    #[test]
    fn rules_allow_what_they_say_and_nothing_else() {
        let keys = AccessKeys::parse(TWO).expect("well formed");
        let shop = keys.find("shop").expect("it is there");
        assert!(shop.may_publish("orders") && shop.may_publish("events-a"));
        assert!(!shop.may_publish("orders2") && !shop.may_publish("inst%t"));
        assert!(shop.may_consume("orders", "GID-1") && shop.may_consume("inst%t", "g"));
        assert!(!shop.may_consume("orders", "g") && !shop.may_consume("events-a", "GID-1"));
        assert!(shop.may_read("orders") && shop.may_read("inst%t") && !shop.may_read("events-a"));
        assert!(shop.may_act_for("GID-1") && shop.may_act_for("g") && !shop.may_act_for("h"));
        let root = keys.find("root").expect("it is there");
        assert!(root.may_publish("x") && root.may_consume("x", "y") && root.may_read("x"));
        assert!(keys.find("Shop").is_none());
        assert_eq!((keys.len(), AccessKeys::parse("").expect("no keys").is_empty()), (2, true));
    }

    #[test]
    fn secrets_are_never_shown() {
        let keys = AccessKeys::parse(TWO).expect("well formed");
        let shown = format!("{keys:?} {keys:#?}");
        assert!(!shown.contains("hunter2") && !shown.contains("toor"), "{shown}");
        for text in [
            "[[keys]]\nid = \"a\"\nsecret = 4711",
            "[[keys]]\nid = \"a\"\nsecret = \"4711\" 1",
            "[[keys]]\nid = \"a\"\nsecret = [\"4711\"]",
            "[[keys]]\nid = \"a\"\nsecret = '4711",
            "[[keys]]\nid = \"a b\"\nsecret = \"4711\"",
        ] {
            let error = AccessKeys::parse(text).expect_err(text);
            assert!(!format!("{error} {error:?}").contains("4711"), "{error}");
        }
    }

    #[test]
    fn errors_say_where() {
        let cases = [
            ("[[keys]]\nid = \"a\"\nsecret = \"s\"\npublsh = []", "line 4: unknown field `publsh`"),
            ("[[keys]]\nid = \"a\"", "key `a`: it has no secret"),
            ("[[keys]]\nid = \"a\"\nsecret = \"\"", "key `a`: it has no secret"),
            ("[[keys]]\nid = \"a\"\nsecret = \"s\"\npublish = [\"a*b\"]", "key `a`: `a*b` is no pattern"),
            ("[[keys]]\nid = \"\"\nsecret = \"s\"", "an id has 1 to 256"),
            (
                "[[keys]]\nid=\"a\"\nsecret=\"s\"\n[[keys]]\nid=\"a\"\nsecret=\"t\"",
                "key `a`: it is there twice",
            ),
            ("keys = 3", "line 1: invalid type: integer, expected a sequence"),
            ("keys = [\"hunter2\"]", "expected a key with `id` and `secret`"),
            ("[[keys]]\nid = \"a\"\nsecret = \"s\"\nconsume = [\"orders\"]", "a rule like { topic"),
            ("shop:hunter2", "line 1: "),
        ];
        for (text, part) in cases {
            let error = AccessKeys::parse(text).expect_err(text).to_string();
            assert!(error.contains(part), "{text}: {error}");
            assert!(!error.contains("struct ") && !error.contains("hunter2"), "{text}: {error}");
        }
    }

    #[test]
    fn the_error_shows_what_is_right() {
        let error = AccessKeys::parse("shop = 1").expect_err("no keys").to_string();
        let (_, example) = error.split_once("like ").expect("an example");
        let keys = AccessKeys::parse(example).expect("the example is a file of keys");
        let shop = keys.find("shop").expect("it is there");
        assert!(shop.may_publish("orders") && shop.may_consume("orders", "billing"));
    }
}
