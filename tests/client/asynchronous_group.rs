//! The client for tokio as a member of a group, also beside a blocking one.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::timeout;
use turbopump::api::Status;
use turbopump::client::tokio_driver::{AsyncClient, AsyncConsumer};
use turbopump::client::{ClientError, ConsumerOptions, Delivery, Until};
use turbopump::types::{GroupName, TopicName};

use crate::asynchronous::run;
use crate::fake_broker::{FakeBroker, timeouts};
use crate::group::{QUEUES, member, note, produce, quick, step};

/// A member and what it has seen.
struct Member {
    consumer: AsyncConsumer,
    owned: HashSet<u32>,
}

impl Member {
    async fn join(broker: &FakeBroker, topic: &TopicName, options: ConsumerOptions) -> Self {
        let client = AsyncClient::connect(broker.server(), timeouts()).await.expect("it listens");
        let group: GroupName = "readers".parse().expect("a good name");
        let consumer = AsyncConsumer::subscribe(client, group, vec![topic.clone()], options).await;
        Self { consumer: consumer.expect("the topic is there"), owned: HashSet::new() }
    }

    /// One delivery, if there is one soon: notes messages, and which queues the member has.
    async fn step(&mut self, seen: &mut HashMap<String, u32>) {
        let Ok(delivery) = timeout(Duration::from_millis(10), self.consumer.next()).await else { return };
        match delivery.expect("the broker is there") {
            Delivery::Messages(batch) => {
                assert!(self.owned.contains(&batch.queue().0), "queue {} was not assigned", batch.queue());
                note(batch.messages().map(|message| message.body()), seen);
            }
            Delivery::Rebalanced { assigned, revoked } => {
                for queue in revoked {
                    assert!(self.owned.remove(&queue.queue.0), "it was assigned before");
                }
                for queue in assigned {
                    assert!(self.owned.insert(queue.queue.0), "it was not assigned before");
                }
            }
            _ => panic!("nothing else is to come"),
        }
        self.consumer.commit().await.expect("the broker is there");
    }
}

#[test]
fn members_share_the_queues_with_a_blocking_one_and_every_message_is_read_once() {
    run(async {
        let broker = FakeBroker::start(2);
        let topic = broker.create("orders", QUEUES);
        produce(&broker, &topic, 300);
        let mut seen = HashMap::new();
        let mut one = Member::join(&broker, &topic, quick()).await;
        while one.owned.len() < QUEUES as usize {
            one.step(&mut seen).await;
        }
        let mut other = Member::join(&broker, &topic, quick()).await;
        let mut blocking = member(&broker, &topic, quick());
        let mut owned = HashSet::new();
        loop {
            one.step(&mut seen).await;
            other.step(&mut seen).await;
            step(&mut blocking, &mut owned, &mut seen);
            let counts = [one.owned.len(), other.owned.len(), owned.len()];
            assert!(one.owned.is_disjoint(&other.owned) && owned.is_disjoint(&one.owned));
            if counts == [2, 2, 2] && seen.len() == 300 {
                break;
            }
        }
        assert!(seen.values().all(|&count| count == 1), "what was committed is not read again");
        one.consumer.close().await.expect("it leaves");
        blocking.close().expect("it leaves");
        while other.owned.len() < QUEUES as usize {
            other.step(&mut seen).await;
        }
    });
}

#[test]
fn a_member_whose_session_ended_may_not_commit_and_joins_again() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", QUEUES);
        let mut seen = HashMap::new();
        let mut member = Member::join(&broker, &topic, quick()).await;
        while member.owned.len() < QUEUES as usize {
            member.step(&mut seen).await;
        }
        produce(&broker, &topic, 60);
        let Delivery::Messages(_) = member.consumer.next().await.expect("the broker is there") else {
            panic!("messages are there");
        };
        let name = member.consumer.member().expect("it is a member").to_owned();
        broker.state().forget(&name);
        let refused = member.consumer.commit().await.expect_err("the session has ended");
        assert!(matches!(&refused, ClientError::Refused(failure) if failure.status == Status::MemberUnknown));
        let mut was_revoked = false;
        while !(was_revoked && member.owned.len() == QUEUES as usize && seen.len() == 60) {
            member.step(&mut seen).await;
            was_revoked |= member.owned.is_empty();
        }
        assert_eq!(broker.state().members, [name]);
    });
}

#[test]
fn a_member_that_reads_to_the_end_goes_on_from_there() {
    run(async {
        let broker = FakeBroker::start(2);
        let topic = broker.create("orders", QUEUES);
        for _ in 0..2 {
            produce(&broker, &topic, 60);
            let options = ConsumerOptions { until: Until::End, ..quick() };
            let mut consumer = Member::join(&broker, &topic, options).await.consumer;
            let mut count = 0;
            loop {
                match consumer.next().await.expect("the broker is there") {
                    Delivery::Messages(batch) => count += batch.message_count(),
                    Delivery::Rebalanced { assigned, .. } => assert_eq!(assigned.len(), QUEUES as usize),
                    Delivery::End => break,
                    _ => panic!("nothing else is to come"),
                }
            }
            assert_eq!(count, 60, "what was committed before is not read again");
            consumer.commit().await.expect("the broker is there");
            consumer.close().await.expect("it leaves");
        }
    });
}

/// A member that reads all queues, and whose next heartbeat is far away.
async fn reading_member(broker: &FakeBroker, topic: &TopicName, seen: &mut HashMap<String, u32>) -> Member {
    let options = ConsumerOptions { session_timeout: Duration::from_secs(300), ..ConsumerOptions::default() };
    let mut member = Member::join(broker, topic, options).await;
    while member.owned.len() < QUEUES as usize || broker.state().fetches() < QUEUES as usize {
        member.step(seen).await;
    }
    member
}

#[test]
fn a_member_joins_again_before_it_reads_on_after_a_lost_connection() {
    run(async {
        let broker = FakeBroker::start(2);
        let topic = broker.create("orders", QUEUES);
        let mut seen = HashMap::new();
        let mut member = reading_member(&broker, &topic, &mut seen).await;
        broker.state().forget_groups();
        broker.state().asked.clear();
        broker.hang_up();
        produce(&broker, &topic, 60);
        loop {
            match timeout(Duration::from_millis(10), member.consumer.next()).await {
                Ok(Ok(Delivery::Rebalanced { revoked, .. })) if revoked.len() == QUEUES as usize => break,
                Ok(Ok(Delivery::Messages(_))) => panic!("they may be somebody else's"),
                _ => {}
            }
        }
        let asked = broker.state().asked.clone();
        assert!(!asked.contains(&"fetch"), "{asked:?}");
        while seen.len() < 60 {
            match timeout(Duration::from_millis(10), member.consumer.next()).await {
                Ok(Ok(Delivery::Messages(batch))) => {
                    note(batch.messages().map(|message| message.body()), &mut seen);
                }
                // The other shard's connection has ended as well.
                Ok(Err(error)) => assert!(error.is_connection_loss(), "{error}"),
                _ => {}
            }
        }
    });
}

#[test]
fn a_member_joins_again_when_its_own_connection_ends() {
    run(async {
        let broker = FakeBroker::start(1);
        let topic = broker.create("orders", QUEUES);
        let mut seen = HashMap::new();
        let mut member = reading_member(&broker, &topic, &mut seen).await;
        broker.state().asked.clear();
        let joining = broker.state().joined_over.take().expect("it has joined");
        joining.shutdown(std::net::Shutdown::Both).expect("a socket");
        while !broker.state().asked.contains(&"join") {
            member.step(&mut seen).await;
        }
        assert_eq!(member.owned.len(), QUEUES as usize, "nothing else has changed");
    });
}
