//! Lists of names, and tables of texts (`remoting/.../protocol/body/TopicList.java`, `KVTable.java`,
//! `GetConsumerListByGroupResponseBody.java`).

use crate::protocol::remoting::json_writer::write_object;

pub fn write_topics<'a>(topics: impl IntoIterator<Item = &'a str>, output: &mut Vec<u8>) {
    write_names("topicList", topics, output);
}

/// The same, with the address of a broker that knows more.
pub fn write_topics_at<'a>(address: &str, topics: impl IntoIterator<Item = &'a str>, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.text("brokerAddr", address);
        body.array("topicList", |list| topics.into_iter().for_each(|name| list.text(name)));
    });
}

pub fn write_groups<'a>(groups: impl IntoIterator<Item = &'a str>, output: &mut Vec<u8>) {
    write_names("groupList", groups, output);
}

pub fn write_client_ids<'a>(ids: impl IntoIterator<Item = &'a str>, output: &mut Vec<u8>) {
    write_names("consumerIdList", ids, output);
}

pub fn write_table<'a>(entries: impl IntoIterator<Item = (&'a str, &'a str)>, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.object("table", |table| entries.into_iter().for_each(|(name, value)| table.text(name, value)));
    });
}

fn write_names<'a>(member: &str, names: impl IntoIterator<Item = &'a str>, output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.array(member, |list| names.into_iter().for_each(|name| list.text(name)));
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_and_tables_are_objects_of_one_member() {
        let written = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut output = Vec::new();
            write(&mut output);
            String::from_utf8(output).expect("text")
        };
        assert_eq!(written(&|output| write_topics(["a", "b"], output)), "{\"topicList\":[\"a\",\"b\"]}");
        assert_eq!(written(&|output| write_client_ids([], output)), "{\"consumerIdList\":[]}");
        assert_eq!(written(&|output| write_table([("k", "v\"")], output)), "{\"table\":{\"k\":\"v\\\"\"}}");
    }
}
