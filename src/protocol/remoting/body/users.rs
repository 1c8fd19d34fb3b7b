//! Who may do what, as tools are told (`remoting/.../protocol/body/UserInfo.java`, `AclInfo.java`). Secrets are in none of it.

use crate::protocol::remoting::json_writer::{ArrayWriter, ObjectWriter, write_array, write_object};

/// A user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UserShown<'a> {
    pub name: &'a str,
    /// Whether it may do everything.
    pub is_super: bool,
}

/// What a user may do, by resources and actions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesShown<'a> {
    pub user: &'a str,
    pub entries: Vec<(String, &'static str)>,
}

impl UserShown<'_> {
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |body| self.write_members(body));
    }

    fn write_members(&self, body: &mut ObjectWriter<'_>) {
        body.text("userStatus", "enable");
        body.text("userType", if self.is_super { "Super" } else { "Normal" });
        body.text("username", self.name);
    }
}

impl RulesShown<'_> {
    pub fn write(&self, output: &mut Vec<u8>) {
        write_object(output, |body| self.write_members(body));
    }

    fn write_members(&self, body: &mut ObjectWriter<'_>) {
        body.array("policies", |policies| {
            policies.object(|policy| {
                policy.array("entries", |entries| {
                    for (resource, action) in &self.entries {
                        entries.object(|entry| {
                            entry.array("actions", |actions| actions.text(action));
                            entry.text("decision", "Allow");
                            entry.text("resource", resource);
                            entry.array("sourceIps", |_| {});
                        });
                    }
                });
                policy.text("policyType", "Custom");
            });
        });
        body.text("subject", &format!("User:{}", self.user));
    }
}

pub fn write_users<'a>(users: impl IntoIterator<Item = UserShown<'a>>, output: &mut Vec<u8>) {
    let items = |list: &mut ArrayWriter<'_>| {
        users.into_iter().for_each(|user| list.object(|members| user.write_members(members)));
    };
    write_array(output, items);
}

pub fn write_rules<'a>(users: impl IntoIterator<Item = RulesShown<'a>>, output: &mut Vec<u8>) {
    let items = |list: &mut ArrayWriter<'_>| {
        users.into_iter().for_each(|user| list.object(|members| user.write_members(members)));
    };
    write_array(output, items);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_rules_are_lists() {
        let mut output = Vec::new();
        write_users([UserShown { name: "root", is_super: true }], &mut output);
        let entries = vec![("Topic:orders".to_owned(), "Pub")];
        write_rules([RulesShown { user: "shop", entries }], &mut output);
        assert_eq!(
            String::from_utf8(output).expect("text"),
            "[{\"userStatus\":\"enable\",\"userType\":\"Super\",\"username\":\"root\"}]\
             [{\"policies\":[{\"entries\":[{\"actions\":[\"Pub\"],\"decision\":\"Allow\",\"resource\":\"Topic:orders\",\
             \"sourceIps\":[]}],\"policyType\":\"Custom\"}],\"subject\":\"User:shop\"}]"
        );
    }
}
