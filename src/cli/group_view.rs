//! What `turbopump group describe` prints.

use std::time::Duration;

use crate::cli::output::{Table, age_for_people, grouped, on_one_line};
use crate::cli::quantity::Span;
use crate::views::{GroupView, SettingsView};

impl GroupView {
    pub fn render(&self) -> String {
        let mut text = format!(
            "group {}, generation {}, {} members, {} messages behind ({} leased, {} waiting), {} dead letters\n",
            self.group,
            self.generation,
            self.members.len(),
            grouped(self.lag),
            grouped(self.leased),
            grouped(self.waiting),
            grouped(self.dead_letters)
        );
        text.push_str(&self.settings.render());
        for refused in &self.refused {
            text.push_str("warning: ");
            text.push_str(&on_one_line(refused));
            text.push('\n');
        }
        for warning in &self.warnings {
            text.push_str(&on_one_line(warning));
            text.push('\n');
        }
        let tables =
            [self.members_table(), self.receivers_table(), self.readers_table(), self.queues_table()];
        for table in tables {
            text.push_str(&table.map(|table| table.render()).unwrap_or_default());
        }
        text
    }

    fn members_table(&self) -> Option<Table> {
        let mut table = Table::new(["MEMBER", "PROTOCOL", "TOPICS", "QUEUES", "LAST SEEN"]);
        for member in &self.members {
            table.row([
                member.member.clone(),
                member.protocol.unwrap_or("-").to_owned(),
                member.topics.join(","),
                member.queues.len().to_string(),
                age_for_people(member.heartbeat_age_ms as f64),
            ]);
        }
        (!self.members.is_empty()).then_some(table)
    }

    fn receivers_table(&self) -> Option<Table> {
        let mut table = Table::new(["RECEIVERS OF", "PROTOCOL", "FILTER", "ORDERED", "ACTIVE", "LAST SEEN"]);
        for receiver in &self.receivers {
            table.row([
                receiver.topic.clone(),
                receiver.protocol.to_owned(),
                receiver.filter.clone(),
                if receiver.ordered { "yes" } else { "no" }.to_owned(),
                receiver.active.to_string(),
                age_for_people(receiver.seen_age_ms as f64),
            ]);
        }
        (!self.receivers.is_empty()).then_some(table)
    }

    fn readers_table(&self) -> Option<Table> {
        let mut table = Table::new(["CLIENT", "LANGUAGE", "VERSION", "ADDRESS", "GETS", "SUBSCRIPTIONS"]);
        for reader in &self.readers {
            let subscriptions = reader.subscriptions.iter();
            let subscriptions: Vec<_> =
                subscriptions.map(|of| format!("{} {}", of.topic, of.expression)).collect();
            table.row([
                reader.client.clone(),
                reader.language.clone(),
                reader.version.to_string(),
                reader.address.clone(),
                if reader.broadcasts { "every message" } else { "its share" }.to_owned(),
                subscriptions.join(", "),
            ]);
        }
        (!self.readers.is_empty()).then_some(table)
    }

    fn queues_table(&self) -> Option<Table> {
        let mut table = Table::new([
            "TOPIC",
            "QUEUE",
            "COMMITTED",
            "END",
            "LAG",
            "LEASED",
            "WAITING",
            "DEAD LETTERS",
            "MEMBER",
        ]);
        for queue in &self.queues {
            table.row([
                queue.topic.clone(),
                queue.queue.to_string(),
                queue.committed.map_or_else(|| "-".to_owned(), |offset| offset.to_string()),
                queue.end_offset.to_string(),
                queue.lag.to_string(),
                queue.leased.to_string(),
                queue.waiting.to_string(),
                queue.dead_letters.to_string(),
                queue.member.clone().unwrap_or_else(|| "-".to_owned()),
            ]);
        }
        (!self.queues.is_empty()).then_some(table)
    }
}

impl SettingsView {
    /// One line, or nothing when all is as the broker has it.
    fn render(&self) -> String {
        let span = |ms: u64| Span(Duration::from_millis(ms)).to_string();
        let settings = [
            self.deliveries_max.map(|max| format!("at most {max} deliveries")),
            self.lease_ms.map(|ms| format!("lease {}", span(ms))),
            self.ordered_lease_ms.map(|ms| format!("ordered lease {}", span(ms))),
        ];
        let settings: Vec<_> = settings.into_iter().flatten().collect();
        if settings.is_empty() { String::new() } else { format!("settings: {}\n", settings.join(", ")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{
        ClientProtocol, Filter, GroupInfo, GroupQueueInfo, GroupSettings, MemberInfo, RECEIVERS, ReceiverInfo,
    };
    use crate::cli::output::to_json;
    use crate::types::{QueueNumber, QueueOffset};

    fn group() -> GroupInfo {
        let queue = |number, committed| GroupQueueInfo {
            topic: "orders".parse().expect("a name"),
            queue: QueueNumber(number),
            committed,
            end_offset: QueueOffset(10),
            lag: 10 - committed.map_or(0, |offset: QueueOffset| offset.0),
            member: None,
            leased: 2,
            waiting: 1,
            dead_letters: 0,
        };
        GroupInfo {
            group: "billing".parse().expect("a name"),
            generation: 4,
            members: Vec::new(),
            receivers: Vec::new(),
            settings: None,
            queues: vec![queue(0, Some(QueueOffset(7))), queue(1, None)],
            refused: Vec::new(),
            readers: Vec::new(),
        }
    }

    fn receiver(filter: &str, protocol: ClientProtocol) -> ReceiverInfo {
        ReceiverInfo {
            topic: "orders".parse().expect("a name"),
            protocol,
            filter: Filter::parse(Some(filter)),
            ordered: false,
            active: 1,
            seen_age: Duration::ZERO,
        }
    }

    fn member(name: &str) -> MemberInfo {
        MemberInfo {
            member: name.to_owned(),
            topics: vec!["orders".parse().expect("a name")],
            queues: Vec::new(),
            heartbeat_age: Duration::from_millis(12),
        }
    }

    #[test]
    fn a_group_prints_what_it_lacks() {
        assert_eq!(
            GroupView::new(&group()).render(),
            "group billing, generation 4, 0 members, 13 messages behind (4 leased, 2 waiting), 0 dead letters\n\
             TOPIC   QUEUE  COMMITTED  END  LAG  LEASED  WAITING  DEAD LETTERS  MEMBER\n\
             orders      0          7   10    3       2        1             0       -\n\
             orders      1          -   10   10       2        1             0       -\n"
        );
    }

    #[test]
    fn a_group_that_gets_nothing_new_says_why() {
        let refused = vec!["group billing gets nothing new from shard 1".to_owned()];
        let view = GroupView::new(&GroupInfo { refused, ..group() });
        assert!(view.render().contains("\nwarning: group billing gets nothing new from shard 1\n"));
        assert!(to_json(&view).contains(r#""refused":["group billing gets nothing new from shard 1"]"#));
    }

    #[test]
    fn consumers_that_do_not_agree_are_warned_of() {
        let receivers = vec![receiver("b||a", ClientProtocol::Http), receiver("c", ClientProtocol::Native)];
        let settings = GroupSettings {
            group: "billing".parse().expect("a name"),
            deliveries_max: Some(3),
            lease: None,
            ordered_lease: Some(Duration::from_secs(90)),
        };
        let described = GroupInfo { receivers, settings: Some(settings), ..group() };
        let view = GroupView::new(&described);
        let text = view.render();
        assert!(text.contains("settings: at most 3 deliveries, ordered lease 1m30s\n"), "{text}");
        assert!(text.contains("of topic orders: `a || b`, `c`. What"), "{text}");
        assert!(text.contains("orders        http      a || b  no            1       0.0s\n"), "{text}");
        let json = to_json(&view);
        assert!(json.contains(r#""inconsistent_topics":["orders"]"#), "{json}");
        assert!(
            json.contains(r#"{"deliveries_max":3,"lease_ms":null,"ordered_lease_ms":90000}"#)
                && json.contains(
                    r#"{"topic":"orders","protocol":"native","filter":"c","ordered":false,"active":1,"seen_age_ms":0}"#
                ),
            "{json}"
        );
    }

    #[test]
    fn a_member_asks_for_everything() {
        for (filter, agrees) in [("a", false), ("*", true)] {
            let described = GroupInfo {
                members: vec![member(RECEIVERS), member("m")],
                receivers: vec![receiver(filter, ClientProtocol::Http)],
                ..group()
            };
            let view = GroupView::new(&described);
            assert_eq!(view.inconsistent_topics.is_empty(), agrees, "{filter}");
            let protocols: Vec<_> = view.members.iter().map(|member| member.protocol).collect();
            assert_eq!(protocols, [None, Some("native")]);
        }
        let receivers = GroupInfo {
            members: vec![member(RECEIVERS)],
            receivers: vec![receiver("a", ClientProtocol::Http), receiver("a", ClientProtocol::Native)],
            ..group()
        };
        assert!(GroupView::new(&receivers).inconsistent_topics.is_empty(), "they agree over any protocol");
    }
}
