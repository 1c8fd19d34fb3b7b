//! SQL92 expressions over HTTP, in a parameter that no SDK has a word for.

use crate::support::directory::test_directory;
use crate::support::http_connection::Connection;
use crate::support::node::{Node, Setup};

const TOPIC: &str = "/topics/orders/messages";

fn publish(connection: &mut Connection, number: u32, tag: &str) {
    let body = format!(
        "<Message><MessageBody>{number}</MessageBody><MessageTag>{tag}</MessageTag>\
         <Properties>n:{number}|</Properties></Message>"
    );
    let length = body.len();
    connection.send(format!("POST {TOPIC} HTTP/1.1\r\nHost: h\r\nContent-Length: {length}\r\n\r\n{body}"));
    let answer = connection.next().expect("an answer");
    assert_eq!(answer.status, 201, "{}", answer.body);
}

/// The bodies that a receive is given, or the code and the words of its refusal.
fn receive(connection: &mut Connection, parameters: &str) -> Result<Vec<String>, (u16, String)> {
    connection.send(format!("GET {TOPIC}?numOfMessages=16&{parameters} HTTP/1.1\r\nHost: h\r\n\r\n"));
    let answer = connection.next().expect("an answer");
    if answer.status != 200 {
        return Err((answer.status, answer.body));
    }
    let bodies = answer.body.split("<MessageBody>").skip(1);
    let mut bodies: Vec<_> =
        bodies.map(|rest| rest.split("</MessageBody>").next().expect("it is closed").to_owned()).collect();
    bodies.sort();
    Ok(bodies)
}

/// All that there is: one answer has what one shard has.
fn receive_all(connection: &mut Connection, parameters: &str) -> Vec<String> {
    let mut all = Vec::new();
    loop {
        match receive(connection, parameters) {
            Ok(bodies) => all.extend(bodies),
            Err((404, _)) => break,
            Err(refused) => panic!("{parameters}: {refused:?}"),
        }
    }
    all.sort();
    all
}

fn filled(directory: &tempfile::TempDir, shards: &str) -> Node {
    let node = Setup::new(directory.path()).with(&["--http", "127.0.0.1:0", "--shards", shards]).start();
    node.run_well(&["topic", "create", "orders", "--queues", "4"]);
    let mut connection = Connection::open(&node);
    for number in 0..8 {
        publish(&mut connection, number, if number % 2 == 0 { "even" } else { "odd" });
    }
    node
}

#[test]
fn an_expression_picks_messages_over_http_as_it_does_natively() {
    for shards in ["1", "4"] {
        let directory = test_directory();
        let node = filled(&directory, shards);
        let mut connection = Connection::open(&node);
        let picked = receive_all(&mut connection, "consumer=a&filterSql=n+%3E%3D+4+AND+TAGS+%3D+'even'");
        assert_eq!(picked, ["4", "6"], "{shards} shards");
        let natively = ["message", "receive", "orders", "--group", "b", "--count", "16"];
        let sql = ["--filter-sql", "n >= 4 AND TAGS = 'even'", "-o", "json"];
        let said: String = (0..4).map(|_| node.run_well(&[&natively[..], &sql[..]].concat())).collect();
        let count = |text: &str| said.matches(text).count();
        assert_eq!(
            (count("\"body\":"), count("\"body\":\"4\""), count("\"body\":\"6\"")),
            (2, 1, 1),
            "{said}"
        );
        // What it left out is there for whoever asks for it.
        let picked = receive(&mut connection, "consumer=c&filterSql=n+IS+NULL&tag=*");
        assert!(matches!(&picked, Err((404, said)) if said.contains("MessageNotExist")), "{picked:?}");
        let described = node.run_well(&["group", "describe", "c", "-o", "json"]);
        assert!(described.contains("n IS NULL"), "{described}");
    }
}

#[test]
fn an_expression_that_is_none_is_refused_with_its_place() {
    let directory = test_directory();
    let node = filled(&directory, "1");
    let mut connection = Connection::open(&node);
    for (parameters, words) in [
        ("consumer=a&filterSql=n+%3E", "at character 4: "),
        ("consumer=a&filterSql=", "at character 1: "),
        ("consumer=a&filterSql=n+%3E+5&tag=odd", "by `tag` or by `filterSql`"),
        ("consumer=a&filterSql=n+%3E+5&trans=pop", "undecided transactions are not filtered"),
    ] {
        let refused = receive(&mut connection, parameters).expect_err("no expression");
        assert_eq!(refused.0, 400, "{parameters}: {}", refused.1);
        let is_said = refused.1.contains("<Code>InvalidArgument</Code>") && refused.1.contains(words);
        assert!(is_said, "{parameters}: {}", refused.1);
    }
}
