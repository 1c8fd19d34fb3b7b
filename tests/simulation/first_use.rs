//! A topic that is made by being written to, for those who come while it is being made.

use std::cell::Cell;
use std::net::IpAddr;
use std::rc::{Rc, Weak};
use std::time::Duration;

use futures_lite::future::zip;
use turbopump::api::{Request, ShardAddress};
use turbopump::broker::{PeerFuture, PeerRequest, Peers, Publish, Single};
use turbopump::clock::SharedClock;
use turbopump::disk::faulty::{FaultPlan, FaultyDisk};
use turbopump::limits::GROUP_TOPICS_MAX;
use turbopump::types::{GroupTopic, ShardId, TopicId};
use turbopump::wire::record::Record;

use super::node::{Node, Setup, TestBroker, group_name, on_node, topic_name};

const STEP: Duration = Duration::from_millis(1);

/// The other shards, as the control shard sees them: the last one hears of topics late.
struct Late {
    shards: Vec<Weak<TestBroker>>,
    clock: SharedClock,
    is_let_through: Rc<Cell<bool>>,
}

impl Peers for Late {
    fn ask(&self, shard: ShardId, request: PeerRequest) -> PeerFuture {
        let broker = self.shards[usize::from(shard.0)].upgrade().expect("the node runs");
        let is_last = usize::from(shard.0) + 1 == self.shards.len();
        let is_late = is_last && matches!(request, PeerRequest::PutTopic(_));
        let (clock, is_let_through) = (self.clock.clone(), self.is_let_through.clone());
        Box::pin(async move {
            while is_late && !is_let_through.get() {
                clock.sleep(STEP).await;
            }
            broker.handle_peer(request).await
        })
    }

    fn arrived(&self, shard: ShardId, topic: TopicId) {
        if let Some(broker) = self.shards[usize::from(shard.0)].upgrade() {
            broker.arrived(topic);
        }
    }

    fn addresses(&self) -> Vec<ShardAddress> {
        let address = |shard| ShardAddress { shard: ShardId(shard), address: format!("localhost:{shard}") };
        (0..self.shards.len() as u16).map(address).collect()
    }
}

async fn publish(node: &Node, broker: &Rc<TestBroker>) -> Result<(), String> {
    let topic = topic_name("t");
    let record = Record { body: b"x", ..Record::default() };
    let publish = Publish {
        topic: &topic,
        sharding_key: None,
        level: None,
        message: Single { born_time: node.clock.now(), record },
        wait_max: Duration::from_secs(60),
        release: None,
        network: IpAddr::from([10, 0, 0, 1]),
    };
    broker.publish_message(publish).await.map(drop).map_err(|failure| failure.to_string())
}

/// Who comes second meets a shard that has the topic already, and chooses a queue of one that has it not yet.
#[test]
fn who_comes_second_to_a_first_use_waits_until_every_shard_has_the_topic() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let setup = Setup { shard_count: 3, auto_create_topics: Some(3), ..Setup::default() };
    let ran = on_node(&disk, &setup, 1, async |node| {
        let is_let_through = Rc::new(Cell::new(false));
        node.broker().set_peers(Rc::new(Late {
            shards: node.brokers.iter().map(Rc::downgrade).collect(),
            clock: node.clock.clone(),
            is_let_through: is_let_through.clone(),
        }));
        let first = publish(node, node.broker());
        let second = async {
            let broker = &node.brokers[1];
            let route = || broker.handle(Request::Route(Some(topic_name("t"))));
            while route().await.is_err() {
                node.clock.sleep(STEP).await;
            }
            let last = node.brokers[2].handle(Request::Route(Some(topic_name("t")))).await;
            assert!(last.is_err(), "the last shard has heard of it");
            let released = async {
                node.clock.sleep(Duration::from_secs(1)).await;
                is_let_through.set(true);
            };
            // One for each queue, whichever comes next.
            let all = async {
                let mut outcomes = Vec::new();
                for _ in 0..3 {
                    outcomes.push(publish(node, broker).await);
                }
                outcomes
            };
            zip(all, released).await.0
        };
        let (first, second) = zip(first, second).await;
        assert_eq!((first, second), (Ok(()), vec![Ok(()); 3]));
    });
    ran.expect("an empty disk");
}

/// Giving back for groups that nobody has ever heard of makes their topics.
#[test]
fn who_makes_groups_up_leaves_room_for_the_topics_of_others() {
    let disk = FaultyDisk::new(1, FaultPlan::none());
    let ran = on_node(&disk, &Setup::default(), 1, async |node| {
        let [one, other] = [1, 2].map(|last| IpAddr::from([10, 0, 0, last]));
        let open = async |number: usize, network| {
            let topic = GroupTopic::Retries.of(&group_name(&format!("g{number}")));
            node.broker().open_group_topic(&topic, network).await.map_err(|failure| failure.message)
        };
        let share = GROUP_TOPICS_MAX / 8 * 3;
        for number in 0..share {
            open(number, one).await.expect("it is within its share");
        }
        let told = open(share, one).await.expect_err("it has its share");
        assert!(told.contains("clients at 10.0.0.1") && told.contains("that is their share"), "{told}");
        open(0, one).await.expect("it is there");
        open(share, other).await.expect("there is room for others");
    });
    ran.expect("an empty disk");
}
