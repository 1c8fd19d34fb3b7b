//! Who may do what, as tools ask for it over RocketMQ's own protocol: access keys, and no secrets.

use serde_json::json;

use super::remoting::{Remoting, json as body_of};
use super::remoting_pulls::signed;
use crate::support::directory::test_directory;
use crate::support::node::Setup;

const CREATE_USER: i32 = 3001;
const USER: i32 = 3004;
const USERS: i32 = 3005;
const DELETE_RULES: i32 = 3008;
const RULES_OF: i32 = 3009;
const RULES: i32 = 3010;

#[test]
fn users_are_the_keys_and_changed_in_their_file() {
    let directory = test_directory();
    let keys = directory.path().join("keys");
    let text = "[[keys]]\nid = \"root\"\nsecret = \"secret\"\nadmin = true\n[[keys]]\nid = \"shop\"\nsecret = \"secret\"\n\
                publish = [\"orders\"]\nconsume = [{ topic = \"or*\", group = \"g\" }, { topic = \"or*\", group = \"h\" }]\n";
    std::fs::write(&keys, text).expect("a file");
    let setup = Setup::new(directory.path().join("data")).with(&["--namesrv", "127.0.0.1:0"]);
    let node = setup.with(&["--access-keys", keys.to_str().expect("UTF-8")]).start();
    let mut client = Remoting::connect(node.address());
    let ask = |client: &mut Remoting, key: &str, code: i32, fields: &[(&str, &str)]| {
        let mut signature = String::new();
        client.ask(code, &signed(fields, key, &mut signature), b"")
    };
    let users = body_of(&ask(&mut client, "root", USERS, &[("filter", "")]));
    let root = json!({ "userStatus": "enable", "userType": "Super", "username": "root" });
    let shop = json!({ "userStatus": "enable", "userType": "Normal", "username": "shop" });
    assert_eq!(users, json!([root, shop]));
    assert_eq!(body_of(&ask(&mut client, "root", USERS, &[("filter", "sh")])), json!([shop]));
    assert_eq!(body_of(&ask(&mut client, "root", USER, &[("username", "shop")])), shop);
    let nobody = ask(&mut client, "root", USER, &[("username", "nobody")]);
    assert_eq!((nobody.code, nobody.body()), (0, &b""[..]));
    let entry = |resource: &str, action: &str| json!({ "actions": [action], "decision": "Allow", "resource": resource, "sourceIps": [] });
    let policies = |entries: serde_json::Value| json!([{ "entries": entries, "policyType": "Custom" }]);
    let of_shop = [
        entry("Topic:orders", "Pub"),
        entry("Topic:or*", "Sub"),
        entry("Group:g", "Sub"),
        entry("Group:h", "Sub"),
    ];
    let rules = body_of(&ask(&mut client, "root", RULES_OF, &[("subject", "User:shop")]));
    assert_eq!(rules, json!({ "policies": policies(json!(of_shop)), "subject": "User:shop" }));
    let all =
        body_of(&ask(&mut client, "root", RULES, &[("subjectFilter", ""), ("resourceFilter", "Group")]));
    assert_eq!(all, json!([{ "policies": policies(json!(&of_shop[2..])), "subject": "User:shop" }]));
    for code in [CREATE_USER, DELETE_RULES] {
        let refused = ask(&mut client, "root", code, &[("username", "new"), ("subject", "User:shop")]);
        assert!(refused.code == 16 && refused.remark.contains("--access-keys"), "{refused:?}");
    }
    for code in [CREATE_USER, USER, USERS, RULES_OF, RULES] {
        let denied = ask(&mut client, "shop", code, &[("username", "root"), ("subject", "User:root")]);
        assert!(denied.code == 16 && denied.remark.contains("admin"), "{denied:?}");
    }
    for code in [USER, RULES_OF] {
        assert_eq!(ask(&mut client, "root", code, &[]).code, 29, "of nobody");
    }
}
