//! Where consumers are, as they say it themselves (`remoting/.../protocol/body/GetConsumerStatusBody.java`).

use super::consumption::QueueKeyed;
use crate::protocol::remoting::JsonError;
use crate::protocol::remoting::json::Value;
use crate::protocol::remoting::json_writer::write_object;

/// A queue of any broker, and where a client is in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsumerPlace {
    pub topic: String,
    pub broker: String,
    pub queue: u32,
    pub offset: i64,
}

impl ConsumerPlace {
    /// The places that a client has answered with.
    pub fn read_all(body: &[u8]) -> Result<Vec<Self>, JsonError> {
        let value = Value::parse(body)?;
        let places = value.get("messageQueueTable").entries().iter().filter_map(|(key, offset)| {
            let text = |name| key.get(name).as_text().map(str::to_owned);
            let queue = key.get("queueId").as_number().and_then(|queue| u32::try_from(queue).ok())?;
            Some(Self {
                topic: text("topic")?,
                broker: text("brokerName")?,
                queue,
                offset: offset.as_number()?,
            })
        });
        Ok(places.collect())
    }
}

/// Clients with their places.
pub fn write_consumer_places(clients: &[(String, Vec<ConsumerPlace>)], output: &mut Vec<u8>) {
    write_object(output, |body| {
        body.object("consumerTable", |table| {
            for (client, places) in clients {
                table.object(client, |queues| {
                    for place in places {
                        let queue =
                            QueueKeyed { topic: &place.topic, broker: &place.broker, queue: place.queue };
                        queues.entry(
                            |key| queue.write(key),
                            |value| value.extend_from_slice(place.offset.to_string().as_bytes()),
                        );
                    }
                });
            }
        });
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_passed_on_as_clients_say_them() {
        let said =
            b"{\"messageQueueTable\":{{\"brokerName\":\"b-0\",\"queueId\":1,\"topic\":\"t\"}:7,\"odd\":1}}";
        let places = ConsumerPlace::read_all(said).expect("JSON");
        assert_eq!(places.len(), 1);
        let mut output = Vec::new();
        write_consumer_places(&[("c@1".to_owned(), places)], &mut output);
        assert_eq!(
            String::from_utf8(output).expect("text"),
            "{\"consumerTable\":{\"c@1\":{{\"brokerName\":\"b-0\",\"queueId\":1,\"topic\":\"t\"}:7}}}"
        );
        assert!(ConsumerPlace::read_all(b"{").is_err());
    }
}
