//! Who may do what, as tools ask for it (`broker/.../processor/AdminBrokerProcessor.java`, "ACL 2.0"): users are access keys, and
//! what they may do stands in the file of keys, which nobody changes over a connection.

use std::collections::BTreeSet;
use std::rc::Rc;

use crate::access::{AccessKey, AccessKeys};
use crate::limits;
use crate::protocol::remoting::body::{RulesShown, UserShown, write_rules, write_users};
use crate::protocol::remoting::{Header, ResponseCode};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;

/// What subjects of rules begin with.
const USER: &str = "User:";
/// What an answer takes for each rule, beside its resource.
const ENTRY_BYTES: usize = 96;

impl Remoting {
    /// The keys that there are now; none where everybody may do everything.
    fn known_keys(&self) -> Rc<AccessKeys> {
        self.connections.access.as_ref().map(|access| access.keys().keys()).unwrap_or_default()
    }

    /// One user; nothing of one that is not there, as RocketMQ has it.
    pub(super) fn user(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "see who may do what")?;
        let name = named(header, "username")?;
        let keys = self.known_keys();
        Ok(keys
            .find(&name)
            .map_or_else(Answer::done, |key| Answer::body(|output| user_of(key).write(output))))
    }

    /// What one user may do, likewise.
    pub(super) fn user_rules(&self, sender: &Sender, header: &Header<'_>) -> Result<Answer, Refused> {
        self.check_admin(sender, "see who may do what")?;
        let subject = named(header, "subject")?;
        let keys = self.known_keys();
        let key = subject.strip_prefix(USER).and_then(|name| keys.find(name));
        let rules = key.map(|key| rules_of(key, ""));
        Ok(rules.map_or_else(Answer::done, |rules| Answer::body(|output| rules.write(output))))
    }

    /// Begins to answer with all users whose names have a text in them.
    pub(super) async fn users(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "see who may do what")?;
        let filter = header.fields.text("filter").unwrap_or_default().into_owned();
        let keys = self.known_keys();
        let listed = async move {
            let all = keys.all();
            let users = all.iter().filter(|key| key.id.contains(&filter)).map(|key| user_of(key));
            Ok(Answer::body(|output| write_users(users, output)))
        };
        self.begin_with_room(asker, limits::FRAME_BYTES_MAX, listed).await
    }

    /// Begins to answer with what all may do whose subjects have a text in them, as far as the resources have one.
    pub(super) async fn rules(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "see who may do what")?;
        let filter = |name| header.fields.text(name).unwrap_or_default().into_owned();
        let (subject, resource) = (filter("subjectFilter"), filter("resourceFilter"));
        let keys = self.known_keys();
        let listed = async move {
            let all = keys.all();
            let wanted = all.iter().filter(|key| format!("{USER}{}", key.id).contains(&subject));
            let (mut listed, mut bytes) = (Vec::new(), 0);
            for key in wanted {
                let rules = rules_of(key, &resource);
                bytes +=
                    rules.entries.iter().map(|(resource, _)| resource.len() + ENTRY_BYTES).sum::<usize>();
                if bytes > limits::FRAME_BYTES_MAX {
                    let remark = "there are too many rules for one answer: ask for a subject, or a resource";
                    return Err(Refused::new(ResponseCode::SystemError, remark));
                }
                listed.push(rules);
            }
            let listed = listed.into_iter().filter(|rules| !rules.entries.is_empty());
            Ok(Answer::body(|output| write_rules(listed, output)))
        };
        self.begin_with_room(asker, limits::FRAME_BYTES_MAX, listed).await
    }

    /// Nobody is given or loses a right over a connection.
    pub(super) fn change_users(&self, sender: &Sender) -> Result<Answer, Refused> {
        self.check_admin(sender, "change who may do what")?;
        let remark = match self.connections.access {
            Some(_) => {
                "users and what they may do are the keys of the file that --access-keys names: change it there, the broker reads it \
                 again within two seconds"
            }
            None => {
                "there are no users, everybody may do everything: give the broker a file of keys with --access-keys FILE"
            }
        };
        Err(Refused::new(ResponseCode::NoPermission, remark))
    }
}

fn named(header: &Header<'_>, field: &'static str) -> Result<String, Refused> {
    let name = header.fields.text(field).filter(|name| !name.is_empty());
    let name =
        name.ok_or_else(|| Refused::new(ResponseCode::InvalidParameter, format!("The {field} is blank")))?;
    Ok(name.into_owned())
}

fn user_of(key: &AccessKey) -> UserShown<'_> {
    UserShown { name: &key.id, is_super: key.is_admin }
}

/// The rules of a key about resources that have a text in them. A topic that is consumed as a group is two resources here.
fn rules_of<'a>(key: &'a AccessKey, resource: &str) -> RulesShown<'a> {
    let mut entries = Vec::new();
    if key.is_admin {
        entries.push(("*".to_owned(), "All"));
    }
    entries.extend(key.publishes().map(|topic| (format!("Topic:{topic}"), "Pub")));
    for (topic, group) in key.consumes() {
        entries.push((format!("Topic:{topic}"), "Sub"));
        entries.push((format!("Group:{group}"), "Sub"));
    }
    let mut known = BTreeSet::new();
    entries.retain(|entry| entry.0.contains(resource) && known.insert(entry.clone()));
    RulesShown { user: &key.id, entries }
}
