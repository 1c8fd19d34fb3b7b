use super::*;

fn get(target: &str) -> Result<Consume, HttpError> {
    match Call::parse(&Method::GET, target)? {
        Call::Consume(consume) => Ok(consume),
        other => panic!("{target}: {other:?}"),
    }
}

fn refusal(method: Method, target: &str) -> HttpError {
    match Call::parse(&method, target) {
        Err(error) => error,
        Ok(call) => panic!("{target}: {call:?}"),
    }
}

fn topic(name: &str) -> TopicReference {
    TopicReference { instance: None, topic: name.parse().expect("a topic") }
}

fn in_instance(instance: &str, name: &str) -> TopicReference {
    TopicReference { instance: Some(instance.parse().expect("an instance")), ..topic(name) }
}

#[test]
fn the_python_clients_targets_are_understood() {
    let publish = Call::parse(&Method::POST, "/topics/orders/messages?ns=MQ_INST_1");
    assert_eq!(publish, Ok(Call::Publish { topic: in_instance("MQ_INST_1", "orders") }));
    let consume = get(
        "/topics/orders/messages?consumer=GID-a&numOfMessages=3&ns=I&waitseconds=30&tag=a%7C%7Cb&trans=order",
    );
    let expected = Consume {
        topic: in_instance("I", "orders"),
        group: "GID-a".parse().expect("a group"),
        count: 3,
        wait: Duration::from_secs(30),
        filter: Filter::parse(Some("a||b")),
        mode: ConsumeMode::Order,
    };
    assert_eq!(consume, Ok(expected));
    let acknowledge = Call::parse(&Method::DELETE, "/topics/t/messages?consumer=g&trans=rollback");
    assert_eq!(acknowledge, Ok(Call::Acknowledge { topic: topic("t"), end: LeaseEnd::Rollback }));
}

/// The Go client 1.0.3 sends `consumer=` when it has no instance.
#[test]
fn a_transaction_is_decided_without_a_group() {
    for (mode, end) in [("commit", LeaseEnd::Commit), ("rollback", LeaseEnd::Rollback)] {
        for group in ["&consumer=", "&consumer=GID-a", ""] {
            let call = Call::parse(&Method::DELETE, &format!("/topics/t/messages?trans={mode}{group}"));
            assert_eq!(call, Ok(Call::Acknowledge { topic: topic("t"), end: end.clone() }), "{mode} {group}");
        }
    }
    let error = refusal(Method::DELETE, "/topics/t/messages?consumer=");
    assert!(error.message.contains("`consumer` is missing"), "{error}");
}

#[test]
fn parameters_come_in_any_order_among_unknown_ones() {
    let target = "/topics/t/messages?trans=pop&&x=%zz&numOfMessages=16&consumer&waitseconds=0&consumer2=g";
    assert!(refusal(Method::GET, target).message.contains("`consumer` is missing"));
    let target =
        "/topics/t/messages?trans=pop&&x=%zz&numOfMessages=16&consumer=g&waitseconds=0&ns=#consumer=h";
    let consume = get(target).expect("well formed");
    assert_eq!((consume.count, consume.wait, consume.mode), (16, Duration::ZERO, ConsumeMode::Undecided));
    assert_eq!((consume.topic, consume.group.as_str()), (topic("t"), "g"));
}

#[test]
fn what_is_not_said_has_a_default() {
    let consume = get("/topics/t/messages?consumer=g").expect("well formed");
    assert_eq!((consume.count, consume.wait, consume.filter.is_everything()), (1, Duration::ZERO, true));
    assert_eq!(consume.mode, ConsumeMode::Normal);
}

#[test]
fn escapes_are_undone_where_they_are_escapes() {
    let tags = |tag: &str| match get(&format!("/topics/t/messages?consumer=g&tag={tag}")).expect(tag).filter {
        Filter::Tags(tags) => tags.tags().join(","),
        Filter::Expression(expression) => panic!("{expression:?}"),
    };
    assert_eq!(tags("a%20b+c%2Bd"), "a b c+d");
    assert_eq!(tags("%E4%BD%A0"), "\u{4f60}");
    assert_eq!(tags("100%"), "100%");
    assert_eq!(tags("%7c%7C+a+||b||a||"), "a,b");
    assert_eq!([tags("*"), tags(""), tags("%20*+"), tags("||")], [""; 4]);
    for (path, name) in
        [("%DLQ%ab", "%DLQ%ab"), ("%25DLQ%25ab", "%DLQ%ab"), ("%6frders", "orders"), ("a%7Cb", "a|b")]
    {
        let call = Call::parse(&Method::POST, &format!("/topics/{path}/messages"));
        assert_eq!(call, Ok(Call::Publish { topic: topic(name) }), "{path}");
    }
}

#[test]
fn an_expression_may_stand_in_the_place_of_tags() {
    for query in ["filterSql=n%20%3E+5+AND+TAGS%3D'a'", "tag=*&filterSql=n+>+5+AND+TAGS='a'"] {
        let consume = get(&format!("/topics/t/messages?consumer=g&trans=order&{query}")).expect(query);
        assert_eq!(consume.mode, ConsumeMode::Order, "{query}");
        match consume.filter {
            Filter::Expression(expression) => {
                assert!(expression.text().starts_with("n > 5 AND TAGS"), "{query}")
            }
            Filter::Tags(tags) => panic!("{query}: {tags:?}"),
        }
    }
}

#[test]
fn wrong_arguments_are_named() {
    let cases = [
        ("consumer=g&numOfMessages=0", "`numOfMessages` is a number from 1 to 16, not `0`"),
        ("consumer=g&numOfMessages=17", "not `17`"),
        ("consumer=g&numOfMessages=+3", "not ` 3`"),
        ("consumer=g&numOfMessages=99999999999999999999", "a number from 1 to 16"),
        ("consumer=g&waitseconds=31", "`waitseconds` is a number from 0 to 30"),
        ("consumer=g&waitseconds=-1", "not `-1`"),
        ("consumer=g&waitseconds=", "not ``"),
        ("consumer=g&trans=commit", "`trans` is order or pop here"),
        ("consumer=g&consumer=g", "`consumer` is given twice"),
        ("consumer=a/b", "group name consists of"),
        ("consumer=g&ns=a%25b", "instance name consists of"),
        ("consumer=g&tag=%ff", "no UTF-8"),
        ("consumer=g&filterSql=", "the expression `filterSql` is none: at character 1: "),
        ("consumer=g&filterSql=n+%3E", "at character 4: "),
        ("consumer=g&filterSql=n%3E5&filterSql=n%3E5", "`filterSql` is given twice"),
        ("consumer=g&filterSql=n%3E5&tag=a", "by `tag` or by `filterSql`"),
        ("consumer=g&filterSql=n%3E5&trans=pop", "undecided transactions are not filtered"),
        ("numOfMessages=1", "`consumer` is missing"),
    ];
    for (query, part) in cases {
        let error = refusal(Method::GET, &format!("/topics/t/messages?{query}"));
        assert_eq!(error.code, ErrorCode::InvalidArgument, "{query}");
        assert!(error.message.contains(part), "{query}: {}", error.message);
    }
    let many: Vec<_> = (0..=limits::FILTER_TAGS_MAX).map(|tag| tag.to_string()).collect();
    let error = refusal(Method::GET, &format!("/topics/t/messages?consumer=g&tag={}", many.join("||")));
    assert!(error.message.contains("at most"), "{error}");
}

#[test]
fn other_paths_and_methods_are_told_apart() {
    for path in [
        "/",
        "",
        "*",
        "/topics",
        "/topics//messages",
        "/topics/t",
        "/topics/t/messages/",
        "/queues/t/messages",
        "/topics/a/b/messages",
    ] {
        assert_eq!(refusal(Method::GET, path).code, ErrorCode::PathNotExist, "{path}");
    }
    for method in [Method::PUT, Method::HEAD, Method::OPTIONS, Method::PATCH] {
        let error = refusal(method, "/topics/t/messages?numOfMessages=none");
        assert_eq!(error.code, ErrorCode::MethodNotAllowed);
    }
    assert_eq!(refusal(Method::POST, "/topics/a%20b/messages").code, ErrorCode::InvalidArgument);
}

#[test]
fn an_instance_stands_before_its_topic() {
    assert_eq!(in_instance("i", "t").to_string(), "i%t");
    assert_eq!(in_instance("i", "%DLQ%g").to_string(), "%DLQ%i%g");
    assert_eq!(topic("t").to_string(), "t");
}
