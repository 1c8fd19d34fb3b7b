//! Counters by their names, as tools ask for them (`store/.../stats/BrokerStatsManager.java`): those that dashboards and exporters
//! show, of this broker.

use std::rc::Rc;

use crate::api::Status;
use crate::broker::SPANS;
use crate::protocol::remoting::body::write_counts;
use crate::protocol::remoting::{Header, ResponseCode};
use crate::server::remoting::answer::{Answer, Asker};
use crate::server::remoting::connection::Remoting;
use crate::server::remoting::requests::Refused;
use crate::server::remoting::signed::Sender;
use crate::types::{GroupName, TopicName};

/// What is counted, and of what.
enum Counter {
    /// Messages that were stored of a topic, by the times at which they were.
    Stored(TopicName),
    /// What clients of a group were given of a topic.
    Given { topic: TopicName, group: GroupName, is_of_bytes: bool },
    /// Messages that the broker has stored, or given.
    OfBroker { is_given: bool },
}

impl Counter {
    fn read(name: &str, key: &str, cluster: &str) -> Option<Self> {
        Some(match name {
            "TOPIC_PUT_NUMS" => Counter::Stored(key.parse().ok()?),
            "GROUP_GET_NUMS" | "GROUP_GET_SIZE" => {
                let (topic, group) = key.rsplit_once('@')?;
                let (topic, group) = (topic.parse().ok()?, group.parse().ok()?);
                Counter::Given { topic, group, is_of_bytes: name == "GROUP_GET_SIZE" }
            }
            "BROKER_PUT_NUMS" | "BROKER_GET_NUMS" if key == cluster => {
                Counter::OfBroker { is_given: name == "BROKER_GET_NUMS" }
            }
            _ => return None,
        })
    }
}

impl Remoting {
    /// Begins to answer how much was counted of late.
    pub(super) async fn counted_of_late(
        self: &Rc<Self>,
        asker: Asker,
        sender: &Sender,
        header: &Header<'_>,
    ) -> Result<Option<Answer>, Refused> {
        self.check_admin(sender, "read the broker's counters")?;
        let (name, key) =
            (header.fields.required_text("statsName")?, header.fields.required_text("statsKey")?);
        let remark = format!("The stats <{name}> <{key}> not exist");
        let counter = Counter::read(&name, &key, &self.port().node.cluster);
        let remoting = self.clone();
        let counted = async move {
            let counts = match counter {
                Some(counter) => remoting.counted(counter).await?,
                None => None,
            };
            let [minute, hour, day] =
                counts.ok_or_else(|| Refused::new(ResponseCode::SystemError, remark))?;
            let spans = [
                ("statsDay", day, SPANS[2]),
                ("statsHour", hour, SPANS[1]),
                ("statsMinute", minute, SPANS[0]),
            ];
            Ok(Answer::body(|output| write_counts(&spans, output)))
        };
        self.begin(asker, counted).await
    }

    /// `None` of what has never been counted.
    async fn counted(&self, counter: Counter) -> Result<Option<[u64; 3]>, Refused> {
        let broker = &self.connections.broker;
        match counter {
            Counter::Stored(topic) => match broker.stored_within(&topic, SPANS).await {
                Ok(counts) => Ok(Some(counts)),
                Err(failure) if failure.status == Status::TopicNotExist => Ok(None),
                Err(failure) => Err(Refused::failed(failure)),
            },
            Counter::Given { topic, group, is_of_bytes } => {
                let given = broker.given_of_late(&group, &topic);
                Ok(given.map(|given| if is_of_bytes { given.bytes } else { given.messages }))
            }
            Counter::OfBroker { is_given } => {
                let [stored, _, given, _] = broker.counted_of_late();
                Ok(Some(if is_given { given } else { stored }))
            }
        }
    }
}
