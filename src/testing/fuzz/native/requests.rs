//! A request of every kind that the schema has, from a seed: most are understood, some ask for more than there may be.

use std::sync::Arc;
use std::time::Duration;

use super::{some_duration, some_half_receipt, some_key, some_location, some_receipt, some_settings};
use crate::api::{
    Acknowledge, ActingMember, ChangeLease, ClientProtocol, CommitOffset, Decision, DelayedPlace,
    EndTransaction, Fetch, Filter, FindMessages, Hold, JoinGroup, ListDelayed, ListSlow, MeasureLatency,
    OffsetSpec, Presence, Produce, ProduceCopies, PurgeTopic, RecallDelayed, Receive, ReceiveHalves, Redrive,
    Release, Request, RequestProtocol, ResetGroup, ResetTarget, SessionLife, SetUpGroup, SettingChange,
    StatsAsked, StatsOf, TopicChange, Watch,
};
use crate::limits;
use crate::protocol::native::{NONCE_BYTES, PROOF_BYTES, Prove, RequestEncoder};
use crate::testing::{Random, generators};
use crate::types::{
    InstanceName, Level, LogPosition, QueueNumber, QueueOffset, Retention, ShardId, Timestamp,
};
use crate::wire::generated::RequestBody as Kind;

/// What a frame of one kind is made of.
pub(super) enum Generated {
    Request(Request),
    Prove(Prove),
}

impl Generated {
    /// Of any kind.
    pub fn some(random: &mut Random) -> Self {
        // The first value stands for none.
        let kind = *random.pick(&Kind::ENUM_VALUES[1..]);
        Self::of_kind(random, kind).unwrap_or_else(|| panic!("no request of kind {kind:?} is generated here"))
    }

    /// Appends its frame.
    pub fn encode(&self, output: &mut Vec<u8>) {
        let mut encoder = RequestEncoder::new();
        match self {
            Generated::Request(request) => encoder.encode(output, 1, request),
            Generated::Prove(prove) => encoder.encode_prove(output, 1, prove),
        }
        .expect("it is small");
    }

    /// `None`: nobody has said how one of this kind is made.
    fn of_kind(random: &mut Random, kind: Kind) -> Option<Self> {
        if kind == Kind::Prove {
            let key_id = (*random.pick(&["", "root", "a key"])).to_owned();
            let nonce = random.bytes(NONCE_BYTES).try_into().expect("as many bytes");
            let proof = random.bytes(PROOF_BYTES).try_into().expect("as many bytes");
            return Some(Generated::Prove(Prove { key_id, nonce, proof }));
        }
        let request = of_topics(random, kind)
            .or_else(|| of_groups(random, kind))
            .or_else(|| of_receivers(random, kind))
            .or_else(|| of_held(random, kind))
            .or_else(|| of_node(random, kind));
        request.map(Generated::Request)
    }
}

fn of_topics(random: &mut Random, kind: Kind) -> Option<Request> {
    Some(match kind {
        Kind::Produce => Request::Produce(Produce {
            key: some_key(random),
            level: some_level(random),
            batch: generators::batch(&generators::messages(random, 2, 100), Timestamp(1)).into(),
        }),
        Kind::ProduceCopies => Request::ProduceCopies(ProduceCopies {
            produce: Produce {
                key: some_key(random),
                level: some_level(random),
                batch: generators::batch(&generators::messages(random, 2, 100), Timestamp(1)).into(),
            },
            at: random.chance(0.5).then(|| some_offset(random)),
        }),
        Kind::Fetch => Request::Fetch(Fetch {
            key: some_key(random),
            offset: some_offset(random),
            bytes_max: random.number() as u32,
            records_max: random.range(0..100) as u32,
            session: random.number(),
            wait: some_duration(random),
        }),
        Kind::Watch => Request::Watch(Watch {
            queues: (0..random.index(20)).map(|_| (some_key(random), some_offset(random))).collect(),
            wait: some_duration(random),
        }),
        Kind::FindOffset => Request::FindOffset { key: some_key(random), spec: some_spec(random) },
        Kind::CreateTopic => Request::CreateTopic(some_change(random)),
        Kind::AlterTopic => Request::AlterTopic(some_change(random)),
        Kind::DeleteTopic => Request::DeleteTopic(generators::topic_name(random)),
        Kind::DescribeTopic => Request::DescribeTopic(generators::topic_name(random)),
        Kind::ListTopics => Request::ListTopics,
        Kind::Route if random.chance(0.3) => Request::OpenTopic(generators::topic_name(random)),
        Kind::Route => Request::Route(random.chance(0.7).then(|| generators::topic_name(random))),
        Kind::FindByKey => Request::FindMessages(FindMessages::Key {
            topic: generators::topic_name(random),
            key: (*random.pick(&["", "k", "two keys"])).to_owned(),
            count: random.range(0..100) as u32,
            from: Timestamp(random.number()),
            to: Timestamp(random.number()),
            before: (0..random.index(5)).map(|_| some_location(random)).collect(),
        }),
        Kind::FindByPosition => Request::FindMessages(FindMessages::Position {
            shard: ShardId(random.number() as u16),
            position: LogPosition(random.number()),
            index: random.number() as u16,
        }),
        Kind::PermitTopic => {
            let permission = *random.pick(&[0, 2, 4, 6, 255]);
            Request::PermitTopic { topic: generators::topic_name(random), permission }
        }
        Kind::PurgeTopic => {
            let before = some_spec(random);
            Request::PurgeTopic(PurgeTopic { topic: generators::topic_name(random), before })
        }
        _ => return None,
    })
}

fn of_groups(random: &mut Random, kind: Kind) -> Option<Request> {
    let group = generators::group_name(random);
    Some(match kind {
        Kind::CommitOffset => {
            let member = |random: &mut Random| ActingMember {
                member: some_member(random),
                generation: random.number(),
            };
            Request::CommitOffset(CommitOffset {
                group,
                key: some_key(random),
                offset: some_offset(random),
                member: random.chance(0.5).then(|| member(random)),
            })
        }
        Kind::CommittedOffset => Request::CommittedOffset { group, key: some_key(random) },
        Kind::JoinGroup => Request::JoinGroup(JoinGroup {
            group,
            member: some_member(random),
            topics: (0..random.index(4)).map(|_| generators::topic_name(random)).collect(),
            session_timeout: some_duration_to(random, limits::SESSION_TIMEOUT_MS_MAX),
            generation: random.number(),
            life: *random.pick(&[SessionLife::Timed, SessionLife::Connected(None)]),
        }),
        Kind::LeaveGroup => Request::LeaveGroup { group, member: some_member(random) },
        Kind::ListGroups => Request::ListGroups,
        Kind::DescribeGroup => Request::DescribeGroup(group),
        Kind::DeleteGroup => Request::DeleteGroup(group),
        Kind::ResetGroup => {
            let target = match random.index(2) {
                0 => ResetTarget::Every(some_spec(random)),
                _ => ResetTarget::Offset(some_queue(random), some_offset(random)),
            };
            Request::ResetGroup(ResetGroup { group, topic: generators::topic_name(random), target })
        }
        Kind::AlterGroup => Request::AlterGroup(some_settings(random)),
        Kind::SetUpGroup => {
            let switch = |random: &mut Random| *random.pick(&[None, Some(true), Some(false)]);
            Request::SetUpGroup(SetUpGroup {
                settings: some_settings(random),
                may_consume: switch(random),
                may_broadcast: switch(random),
                ordered: switch(random),
                retry_queues: random.chance(0.5).then(|| random.range(0..100_000) as u32),
                presence: *random.pick(&[Presence::Either, Presence::There, Presence::New]),
                like: random.chance(0.5).then_some(group),
            })
        }
        Kind::Redrive => Request::Redrive(Redrive {
            group,
            queue: some_queue(random),
            offsets: (0..random.index(70)).map(|_| some_offset(random)).collect(),
            to: generators::topic_name(random),
        }),
        Kind::ListRedriven => {
            Request::RedrivenRanges { group, queue: some_queue(random), from: some_offset(random) }
        }
        _ => return None,
    })
}

fn of_receivers(random: &mut Random, kind: Kind) -> Option<Request> {
    let group = generators::group_name(random);
    Some(match kind {
        Kind::Receive => Request::Receive(Receive {
            protocol: ClientProtocol::Native,
            group,
            topic: generators::topic_name(random),
            scope: random.chance(0.5).then(|| some_queue(random)).into(),
            filter: match random.index(5) {
                4 => Filter::Expression(Arc::new("n > 5".parse().expect("an expression"))),
                tags => Filter::parse(Some(["", "*||*", "a || b", "| || |c"][tags])),
            },
            count: random.range(0..=34) as u32,
            bytes_max: random.number() as u32,
            wait: some_duration(random),
            lease: random.chance(0.5).then(|| some_duration(random)),
            ordered: random.chance(0.5),
        }),
        Kind::Acknowledge => {
            let count = random.index(20);
            let receipts = (0..count).map(|_| some_receipt(random)).collect();
            Request::Acknowledge(Acknowledge { group, receipts })
        }
        Kind::ChangeLease => {
            let (receipt, lease) = (some_receipt(random), some_duration(random));
            Request::ChangeLease(ChangeLease { group, receipt, lease })
        }
        Kind::ReceiveHalves => Request::ReceiveHalves(ReceiveHalves {
            topic: generators::topic_name(random),
            producer_group: group,
            count: random.range(0..=34) as u32,
            wait: some_duration(random),
        }),
        _ => return None,
    })
}

fn of_held(random: &mut Random, kind: Kind) -> Option<Request> {
    let producer_group = random.chance(0.5).then(|| generators::group_name(random));
    Some(match kind {
        Kind::Hold => {
            let release = match random.index(3) {
                0 => Release::At(Timestamp(random.number())),
                1 => Release::After(some_duration(random)),
                _ => Release::Commit { producer_group, immunity: some_duration(random) },
            };
            let batch = generators::batch(&generators::messages(random, 2, 100), Timestamp(1)).into();
            Request::Hold(Hold { key: some_key(random), level: None, batch, release })
        }
        Kind::EndTransaction => {
            let decision = *random.pick(&[Decision::Commit, Decision::Rollback]);
            let receipt = some_half_receipt(random);
            Request::EndTransaction(EndTransaction { receipt, producer_group, decision })
        }
        Kind::ListDelayed => {
            let place = DelayedPlace { bucket: random.number() as u32, offset: random.number() };
            Request::ListDelayed(ListDelayed {
                topic: generators::topic_name(random),
                shard: ShardId(random.number() as u16),
                from: random.chance(0.5).then_some(place),
            })
        }
        Kind::RecallDelayed => Request::RecallDelayed(RecallDelayed {
            topic: generators::topic_name(random),
            queue: some_queue(random),
            position: LogPosition(random.number()),
            due: Timestamp(random.number()),
        }),
        _ => return None,
    })
}

fn of_node(random: &mut Random, kind: Kind) -> Option<Request> {
    Some(match kind {
        Kind::DescribeNode => Request::DescribeNode { count_syscalls: random.chance(0.5) },
        Kind::CreateInstance => Request::CreateInstance(some_instance(random)),
        Kind::DeleteInstance => Request::DeleteInstance(some_instance(random)),
        Kind::ListInstances => Request::ListInstances,
        Kind::ListSlow => Request::ListSlow(ListSlow {
            shard: random.chance(0.5).then(|| ShardId(random.number() as u16)),
            protocol: random.chance(0.5).then(|| *random.pick(&RequestProtocol::ALL)),
            topic: random.chance(0.5).then(|| generators::topic_name(random)),
            count: random.range(0..=2_000) as u32,
        }),
        Kind::MeasureLatency => {
            let topic = generators::topic_name(random);
            let time = some_duration_to(random, limits::MEASURED_MS_MAX);
            Request::MeasureLatency(MeasureLatency { topic, time })
        }
        Kind::ListTopicStats => Request::TopicStats(some_stats(random, generators::topic_name)),
        Kind::ListGroupStats => Request::GroupStats(some_stats(random, generators::group_name)),
        Kind::Settings => {
            let change = |random: &mut Random| SettingChange {
                name: (*random.pick(&["", "level", "lease"])).to_owned(),
                value: random.chance(0.5).then(|| "written".to_owned()),
            };
            Request::Settings((0..random.index(5)).map(|_| change(random)).collect())
        }
        _ => return None,
    })
}

fn some_stats<Name>(random: &mut Random, name: fn(&mut Random) -> Name) -> StatsAsked<Name> {
    let of = match random.index(3) {
        0 => StatsOf::One(name(random)),
        1 => StatsOf::After(Some(name(random))),
        _ => StatsOf::After(None),
    };
    StatsAsked { of, ages: random.chance(0.5) }
}

fn some_change(random: &mut Random) -> TopicChange {
    let some_age = Retention::Age(some_duration(random));
    TopicChange {
        topic: generators::topic_name(random),
        queues: random.chance(0.5).then(|| random.range(1..100_000) as u32),
        retention: *random.pick(&[
            None,
            Some(Retention::Inherited),
            Some(Retention::Unlimited),
            Some(some_age),
        ]),
        level: some_level(random),
    }
}

fn some_spec(random: &mut Random) -> OffsetSpec {
    match random.index(4) {
        0 => OffsetSpec::First,
        1 => OffsetSpec::Last,
        2 => OffsetSpec::Time(Timestamp(random.number())),
        _ => OffsetSpec::Ago(some_duration(random)),
    }
}

/// Half of them are longer than may be.
fn some_duration_to(random: &mut Random, ms_max: u32) -> Duration {
    Duration::from_millis(random.range(0..=2 * u64::from(ms_max)))
}

fn some_level(random: &mut Random) -> Option<Level> {
    random.chance(0.5).then(|| *random.pick(&Level::ALL))
}

fn some_offset(random: &mut Random) -> QueueOffset {
    QueueOffset(random.number())
}

fn some_queue(random: &mut Random) -> QueueNumber {
    QueueNumber(random.number() as u32)
}

fn some_member(random: &mut Random) -> String {
    (*random.pick(&["", "m", "member 1"])).to_owned()
}

fn some_instance(random: &mut Random) -> InstanceName {
    random.pick(&["MQ_INST-1", "a"]).parse().expect("a name")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::native::decode_request;
    use crate::wire::{frame, generated};

    /// A kind that nobody generates is one whose decoder is never asked anything but noise.
    #[test]
    fn a_request_of_every_kind_is_generated_and_understood() {
        let mut random = Random::new(7);
        for kind in &Kind::ENUM_VALUES[1..] {
            let mut understood = 0;
            for _ in 0..400 {
                let generated = Generated::of_kind(&mut random, *kind);
                let generated = generated.unwrap_or_else(|| panic!("{kind:?} has no generator"));
                let mut bytes = Vec::new();
                generated.encode(&mut bytes);
                let frame = frame::cut(&bytes).expect("it was just made").expect("it is complete");
                let request = flatbuffers::root::<generated::Request<'_>>(frame.envelope);
                assert_eq!(request.expect("a request").body_type(), *kind);
                understood += usize::from(decode_request(&frame).is_ok());
            }
            assert!(understood > 20, "{understood} {kind:?} were understood");
        }
    }
}
