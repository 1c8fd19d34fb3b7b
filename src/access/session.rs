//! Who asks, and whether they may.

use std::rc::Rc;

use super::keys::{AccessKey, AccessKeys};

/// What a request needs its sender's key for. Names are as rules have them: `INSTANCE%NAME` in an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need<'a> {
    /// Any key: nothing is told or changed that a key could be kept from.
    AnyKey,
    Publish {
        topic: &'a str,
    },
    /// To consume a topic as a group.
    Consume {
        topic: &'a str,
        group: &'a str,
    },
    /// To read a topic without a group.
    Read {
        topic: &'a str,
    },
    /// To know where a topic is and how long its queues are, which whoever writes to it or reads it must.
    Describe {
        topic: &'a str,
    },
    /// To do something for a group that names no topic.
    ActFor {
        group: &'a str,
    },
    /// What only a key with `admin = true` may: `what` follows "may not".
    Administer {
        what: &'static str,
    },
}

/// Whoever sends requests over a connection, or a single request where each one is proved.
#[derive(Clone, Debug, Default)]
pub enum Session {
    /// The node has no keys: everybody may do everything.
    #[default]
    Open,
    /// No key was proved.
    Stranger,
    /// The holder of a key.
    Key(Rc<AccessKey>),
    /// The holder of a key that has been taken away since, or has another secret.
    Revoked { id: String },
}

/// Why a request is not carried out. The texts hold no secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    #[error(
        "this broker asks for an access key, and none was proved on this connection: set TURBOPUMP_ACCESS_KEY and \
         TURBOPUMP_SECRET_KEY, or connect with a client that takes an access key"
    )]
    NoKey,
    #[error(
        "the access key `{id}` was removed from the broker's keys, or has another secret now: connect again with a key that is \
         there"
    )]
    Revoked { id: String },
    #[error("the access key `{id}` may not {what}: {remedy}")]
    NotAllowed { id: String, what: String, remedy: String },
}

impl Session {
    /// Why its requests are refused whatever they are; `None`: it depends on them.
    pub fn denial(&self) -> Option<Denied> {
        match self {
            Session::Open | Session::Key(_) => None,
            Session::Stranger => Some(Denied::NoKey),
            Session::Revoked { id } => Some(Denied::Revoked { id: id.clone() }),
        }
    }

    /// Whether there is nothing to be checked.
    pub fn is_open(&self) -> bool {
        matches!(self, Session::Open)
    }

    /// Whether a request that needs this may be carried out.
    pub fn check(&self, need: Need<'_>) -> Result<(), Denied> {
        match self {
            Session::Key(key) if !allows(key, need) => {
                let (what, remedy) = missing(need);
                Err(Denied::NotAllowed { id: key.id.clone(), what, remedy })
            }
            session => session.denial().map_or(Ok(()), Err),
        }
    }

    /// Takes over what the keys say now that they were read again. A key that is gone, or has another secret, was proved by
    /// somebody who need not have it any more.
    pub fn renew(&mut self, keys: &AccessKeys) {
        let Session::Key(key) = self else { return };
        *self = match keys.find(&key.id) {
            Some(found) if found.secret == key.secret => Session::Key(found.clone()),
            _ => Session::Revoked { id: key.id.clone() },
        };
    }
}

fn allows(key: &AccessKey, need: Need<'_>) -> bool {
    match need {
        Need::AnyKey => true,
        Need::Publish { topic } => key.may_publish(topic),
        Need::Consume { topic, group } => key.may_consume(topic, group),
        Need::Read { topic } => key.may_read(topic),
        Need::Describe { topic } => key.may_publish(topic) || key.may_read(topic),
        Need::ActFor { group } => key.may_act_for(group),
        Need::Administer { .. } => key.is_admin,
    }
}

/// What the key may not do, and how the operator of the broker would let it.
fn missing(need: Need<'_>) -> (String, String) {
    let rule = |rule: String| format!("its entry in the broker's file of keys needs {rule}");
    let consume =
        |topic: &str, group: &str| format!("consume = [{{ topic = \"{topic}\", group = \"{group}\" }}]");
    match need {
        Need::AnyKey => ("do this".to_owned(), rule("a rule".to_owned())),
        Need::Publish { topic } => (format!("publish to {topic}"), rule(format!("publish = [\"{topic}\"]"))),
        Need::Consume { topic, group } => {
            (format!("consume {topic} as group {group}"), rule(consume(topic, group)))
        }
        Need::Read { topic } => (format!("read {topic}"), rule(consume(topic, "..."))),
        Need::Describe { topic } => {
            let rules = format!("publish = [\"{topic}\"] or {}", consume(topic, "..."));
            (format!("publish to {topic} or read it"), rule(rules))
        }
        Need::ActFor { group } => (format!("act for group {group}"), rule(consume("...", group))),
        Need::Administer { what } => (what.to_owned(), rule("admin = true".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: &str = r#"
        [[keys]]
        id = "shop"
        secret = "hunter2"
        publish = ["orders"]
        consume = [{ topic = "events-*", group = "billing" }]
        [[keys]]
        id = "root"
        secret = "toor"
        admin = true
    "#;

    fn keys(text: &str) -> AccessKeys {
        AccessKeys::parse(text).expect("well formed")
    }

    fn session(keys: &AccessKeys, id: &str) -> Session {
        Session::Key(keys.find(id).expect("it is there").clone())
    }

    fn needs() -> Vec<(Need<'static>, bool)> {
        vec![
            (Need::AnyKey, true),
            (Need::Publish { topic: "orders" }, true),
            (Need::Publish { topic: "events-1" }, false),
            (Need::Consume { topic: "events-1", group: "billing" }, true),
            (Need::Consume { topic: "events-1", group: "other" }, false),
            (Need::Consume { topic: "orders", group: "billing" }, false),
            (Need::Read { topic: "events-1" }, true),
            (Need::Read { topic: "orders" }, false),
            (Need::Describe { topic: "orders" }, true),
            (Need::Describe { topic: "events-1" }, true),
            (Need::Describe { topic: "secret" }, false),
            (Need::ActFor { group: "billing" }, true),
            (Need::ActFor { group: "other" }, false),
            (Need::Administer { what: "list groups" }, false),
        ]
    }

    #[test]
    fn a_key_may_what_its_rules_say_and_the_refusal_says_the_rule() {
        let keys = keys(KEYS);
        for (need, allowed) in needs() {
            assert_eq!(session(&keys, "shop").check(need).is_ok(), allowed, "{need:?}");
            assert_eq!(session(&keys, "root").check(need), Ok(()), "{need:?}");
            assert_eq!(Session::Open.check(need), Ok(()), "{need:?}");
            assert_eq!(Session::Stranger.check(need), Err(Denied::NoKey), "{need:?}");
        }
        let denied = session(&keys, "shop").check(Need::Publish { topic: "a" });
        let text = denied.expect_err("no rule").to_string();
        assert!(text.contains("`shop` may not publish to a") && text.contains("publish = [\"a\"]"), "{text}");
        assert!(!text.contains("hunter2"), "{text}");
    }

    #[test]
    fn the_rule_that_a_refusal_says_is_enough() {
        for (need, _) in needs() {
            let (_, remedy) = missing(need);
            let (_, rule) = remedy.split_once(" needs ").expect("a rule");
            let rule = rule.replace("...", "*");
            if need == Need::AnyKey {
                continue;
            }
            for rule in rule.split(" or ") {
                let text = format!("[[keys]]\nid = \"a\"\nsecret = \"s\"\n{rule}");
                assert_eq!(session(&keys(&text), "a").check(need), Ok(()), "{text}");
            }
        }
    }

    #[test]
    fn what_a_session_may_follows_the_keys() {
        let before = keys(KEYS);
        let publish = Need::Publish { topic: "events-1" };
        let mut session = session(&before, "shop");
        session.renew(&keys(&KEYS.replace("\"orders\"", "\"events-1\"")));
        assert_eq!(session.check(publish), Ok(()), "a rule that was added");
        session.renew(&before);
        assert!(session.check(publish).is_err(), "and taken away");
        let mut other = session.clone();
        session.renew(&keys(&KEYS.replace("hunter2", "hunter3")));
        assert_eq!(session.check(Need::AnyKey), Err(Denied::Revoked { id: "shop".into() }));
        other.renew(&keys(""));
        assert_eq!(other.check(Need::AnyKey), Err(Denied::Revoked { id: "shop".into() }));
        other.renew(&before);
        assert!(other.denial().is_some(), "a key that comes back is to be proved again");
    }
}
