use super::*;
use crate::filter::value::Incomparable;
use crate::wire::properties::append;

/// Where Apache's code and this one differ on purpose: the expression, and what it comes to here for each message.
/// `refused` stands for an expression that is not read.
const DIFFERENT: &[(&str, &str)] = &[
    // Apache's parser stops at the first word that it has no use for, and takes what came before for the whole.
    ("a = 5 b = 'y'", "refused"),
    ("a = 5 AN b = 'y'", "refused"),
    ("a = 5)", "refused"),
    ("a = 5 NULL", "refused"),
    ("a = 007", "refused"),
    ("a = 0L", "refused"),
    ("a = 0x5", "refused"),
    ("a = 5.5f", "refused"),
    ("a = 5 + 1", "refused"),
    ("a + 1 = 6", "refused"),
    ("a-1 = 5", "refused"),
    ("a 5", "refused"),
    ("a = 5))", "refused"),
    ("a = 'it's'", "refused"),
    ("a LIKE 'x%'", "refused"),
    ("NOW() = 5", "refused"),
    ("exists(a)", "refused"),
    // Without a line's end behind them, these are two signs to Apache's, and a comment here.
    ("a = --5", "refused"),
    ("- --5 = 5", "refused"),
    ("- --a = 5", "refused"),
    // Zero is below the smallest number above zero, which Apache's takes for the smallest one.
    ("a > 0.0", "nttteeetfttetfe"),
    ("a = 0.", "nfffeeeffffefte"),
    ("a = 1e-999", "nfffeeeffffefte"),
];

fn read(name: &str) -> String {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/sql92").join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands for line ends, tabs and backslashes in the table.
fn unescaped(text: &str) -> String {
    text.replace("\\n", "\n").replace("\\t", "\t").replace("\\r", "\r").replace("\\\\", "\\")
}

/// Key, tag and properties of the messages of the table.
fn messages() -> Vec<(String, String, Vec<u8>)> {
    let mut messages = Vec::new();
    for line in read("messages.tsv").lines() {
        let (mut key, mut tag, mut properties) = (String::new(), String::new(), Vec::new());
        for property in line.split('\t').skip(1) {
            let (name, value) = property.split_once('=').expect("a name and a value");
            match name {
                "KEYS" => key = value.to_owned(),
                "TAGS" => tag = value.to_owned(),
                _ => append(&mut properties, name.as_bytes(), value.as_bytes()).expect("a property"),
            }
        }
        messages.push((key, tag, properties));
    }
    messages
}

fn letter(outcome: Result<Value<'_>, Incomparable>) -> char {
    match outcome {
        Ok(Value::Truth(true)) => 't',
        Ok(Value::Truth(false)) => 'f',
        Ok(Value::Null) => 'n',
        Ok(_) => '?',
        Err(Incomparable) => 'e',
    }
}

/// What an expression comes to for each message, as the table has it.
fn outcomes(text: &str, messages: &[(String, String, Vec<u8>)]) -> String {
    let Ok(expression) = text.parse::<Expression>() else { return "refused".to_owned() };
    let outcome = |(key, tag, properties): &(String, String, Vec<u8>)| {
        let subject = Subject { key: key.as_bytes(), tag: tag.as_bytes(), properties };
        let mut values = vec![None; expression.slots.len()];
        expression.fill(&subject, &mut values);
        let letter = letter(expression.root.evaluate(&values));
        assert_eq!(expression.matches(&subject), letter == 't', "{text}");
        // What the tags let through is all that is true.
        let may_match = expression.tags().is_none_or(|tags| tags.iter().any(|known| **known == *subject.tag));
        assert!(may_match || letter != 't', "{text} is true without one of its tags");
        letter
    };
    messages.iter().map(outcome).collect()
}

#[test]
fn everything_comes_to_what_apaches_own_code_says() {
    let messages = messages();
    let table = read("table.tsv");
    let (mut differences, mut wrong) = (0, Vec::new());
    for line in table.lines() {
        let (apaches, text) = line.split_once('\t').expect("a verdict and an expression");
        let text = unescaped(text);
        let ours = outcomes(&text, &messages);
        match DIFFERENT.iter().find(|(different, _)| *different == text) {
            Some((_, expected)) => {
                differences += 1;
                if ours != *expected || ours == apaches {
                    wrong.push(format!("{text}: {ours} instead of {expected}; Apache's says {apaches}"));
                }
            }
            None if ours != apaches => wrong.push(format!("{text}: {ours}, and Apache's says {apaches}")),
            None => {}
        }
    }
    assert!(wrong.is_empty(), "{} of {}:\n{}", wrong.len(), table.lines().count(), wrong.join("\n"));
    assert_eq!(differences, DIFFERENT.len(), "all differences are in the table");
    assert!(table.lines().count() >= 300);
}

#[test]
fn tags_that_a_message_must_have_are_found() {
    let tags = |text: &str| {
        let expression: Expression = text.parse().expect(text);
        let text = |tag: &[u8]| String::from_utf8(tag.to_vec()).expect("UTF-8");
        expression.tags().map(|tags| tags.iter().map(|tag| text(tag)).collect::<Vec<_>>().join(","))
    };
    let some = |text: &str| Some(text.to_owned());
    for (text, expected) in [
        ("TAGS = 'x'", some("x")),
        ("'x' = TAGS AND a > 1", some("x")),
        ("a > 1 AND (TAGS IN ('y', 'x') AND b = 'c')", some("x,y")),
        ("TAGS IN ('x', 'y') AND TAGS IN ('y', 'z')", some("y")),
        ("TAGS = 'x' AND TAGS = 'y'", some("")),
        ("TAGS = 'x' OR TAGS = 'y' AND a = 1", some("x,y")),
        ("TAGS = 'x' OR a = 1", None),
        ("NOT (TAGS = 'x')", None),
        ("TAGS <> 'x'", None),
        ("TAGS NOT IN ('x')", None),
        ("TAGS CONTAINS 'x'", None),
        ("TAGS = 5", None),
        ("tags = 'x'", None),
        ("a = 'x'", None),
    ] {
        assert_eq!(tags(text), expected, "{text}");
    }
}

#[test]
fn keys_and_tags_are_properties_and_the_last_of_several_counts() {
    let matches =
        |text: &str, subject: Subject<'_>| text.parse::<Expression>().expect(text).matches(&subject);
    let subject = Subject { key: b"k1 k2", tag: b"t", properties: b"a\x011\x02a\x012\x02b\x01\x02" };
    for (text, expected) in [
        ("KEYS = 'k1 k2' AND TAGS = 't'", true),
        ("KEYS CONTAINS 'k2'", true),
        ("a = 2", true),
        ("a = 1", false),
        ("b IS NOT NULL AND b = ''", true),
    ] {
        assert_eq!(matches(text, subject), expected, "{text}");
    }
    assert!(matches("KEYS IS NULL AND TAGS IS NULL", Subject::default()));
}

#[test]
fn any_number_of_properties_is_looked_up() {
    let mut properties = Vec::new();
    let names: Vec<_> = (0..3 * FEW).map(|number| format!("p{number}")).collect();
    names.iter().for_each(|name| append(&mut properties, name.as_bytes(), b"1").expect("a property"));
    let all: Vec<_> = names.iter().map(|name| format!("{name} = 1")).collect();
    let expression: Expression = all.join(" AND ").parse().expect("an expression");
    assert!(expression.matches(&Subject { properties: &properties, ..Subject::default() }));
    let fewer = &properties[..properties.len() - 1 - 3];
    assert!(!expression.matches(&Subject { properties: &fewer[..fewer.len() - 3], ..Subject::default() }));
}

#[test]
fn expressions_are_told_apart_by_their_text() {
    let read = |text: &str| text.parse::<Expression>().expect(text);
    assert_eq!(read("a = 1"), read("a = 1"));
    assert_ne!(read("a = 1"), read("a =  1"));
    assert!(read("a = 1") < read("b = 1"));
    assert!(read("a = 1").memory_bytes() > 5 && read("a = 1").steps() == 3);
}
