use super::*;

fn at(seconds: u64) -> MonotonicTime {
    MonotonicTime(seconds * 1_000_000_000)
}

fn join(groups: &mut Groups, member: &str, generation: u64, seconds: u64) -> Assignment {
    let request = JoinGroup {
        group: "g".parse().expect("a name"),
        member: member.to_owned(),
        topics: vec!["t".parse().expect("a name")],
        session_timeout: Duration::from_secs(10),
        generation,
        life: SessionLife::Timed,
    };
    groups.join(&request, at(seconds), |_| Some((TopicId(1), 4))).expect("within the limits");
    close_gates(groups, &[]);
    groups.grant(&request.group, member).expect("it has joined");
    close_gates(groups, &[]);
    groups.assignment(&request.group, member).expect("it has joined")
}

/// The only shard carries out what it is told; some queues have leases.
fn close_gates(groups: &mut Groups, draining: &[u32]) {
    let group = "g".parse().expect("a name");
    if let Some(grants) = groups.unsettled_grants(&group) {
        let key = |queue: &u32| QueueKey { topic: TopicId(1), queue: QueueNumber(*queue) };
        groups.carried_out(&group, &grants, &[Some(draining.iter().map(key).collect())]);
    }
}

fn numbers(assignment: &Assignment) -> Vec<u32> {
    assignment.queues.iter().map(|key| key.queue.0).collect()
}

#[test]
fn a_queue_is_handed_over_only_after_its_holder_has_confirmed() {
    let mut groups = Groups::default();
    let alone = join(&mut groups, "a", 0, 0);
    assert_eq!((numbers(&alone), alone.settled), (vec![0, 1, 2, 3], true));
    let waiting = join(&mut groups, "b", 0, 1);
    assert_eq!((numbers(&waiting), waiting.settled), (vec![], false));
    // The first member learns that it has two queues less, but has not stopped reading them yet.
    let shrunk = join(&mut groups, "a", alone.generation, 2);
    assert_eq!((numbers(&shrunk), shrunk.generation), (vec![0, 1], waiting.generation));
    assert_eq!(numbers(&join(&mut groups, "b", waiting.generation, 2)), Vec::<u32>::new());
    join(&mut groups, "a", shrunk.generation, 3);
    let granted = join(&mut groups, "b", waiting.generation, 3);
    assert_eq!((numbers(&granted), granted.settled), (vec![2, 3], true));
}

/// What the receivers may take.
fn open(groups: &Groups) -> Vec<u32> {
    let group: GroupName = "g".parse().expect("a name");
    groups.groups[&group].grants.open.iter().map(|key| key.queue.0).collect()
}

#[test]
fn receivers_are_one_more_member() {
    let mut groups = Groups::default();
    let group = "g".parse().expect("a name");
    let alone = join(&mut groups, "a", 0, 0);
    assert_eq!((numbers(&alone), open(&groups)), (vec![0, 1, 2, 3], vec![]));
    groups.note_receivers(&group, TopicId(1), at(1));
    assert_eq!(open(&groups), Vec::<u32>::new(), "the member has not given them up");
    let shrunk = join(&mut groups, "a", alone.generation, 2);
    assert_eq!((numbers(&shrunk), open(&groups)), (vec![2, 3], vec![]));
    join(&mut groups, "a", shrunk.generation, 2);
    assert_eq!(open(&groups), [0, 1]);
    // They are heard of no more.
    for second in [10, 19, 28] {
        join(&mut groups, "a", shrunk.generation, second);
    }
    assert_eq!(open(&groups), [0, 1]);
    let request = |generation| JoinGroup {
        group: "g".parse().expect("a name"),
        member: "a".to_owned(),
        topics: vec!["t".parse().expect("a name")],
        session_timeout: Duration::from_secs(10),
        generation,
        life: SessionLife::Timed,
    };
    let waiting = groups.join(&request(shrunk.generation), at(32), |_| Some((TopicId(1), 4)));
    assert_eq!(open(&groups), Vec::<u32>::new());
    let waiting = waiting.expect("a member");
    assert_eq!((numbers(&waiting), waiting.settled), (vec![2, 3], false), "no shard has closed them");
    close_gates(&mut groups, &[1]);
    assert_eq!(groups.grant(&group, "a"), Ok(true));
    let untold = groups.assignment(&group, "a").expect("a member");
    assert_eq!(numbers(&untold), [2, 3], "the shard of queue 0 does not know whose it is");
    close_gates(&mut groups, &[1]);
    let partly = groups.assignment(&group, "a").expect("a member");
    assert_eq!((numbers(&partly), partly.settled), (vec![0, 2, 3], false), "a lease runs in one");
    close_gates(&mut groups, &[]);
    assert_eq!(groups.grant(&group, "a"), Ok(true));
    close_gates(&mut groups, &[]);
    assert_eq!(groups.grant(&group, "a"), Ok(false));
    assert_eq!(numbers(&groups.assignment(&group, "a").expect("a member")), [0, 1, 2, 3]);
    assert_eq!(groups.leave(&group, "a"), Ok(()));
    let ended = groups.take_ended();
    assert!(ended[0].1.topics.is_empty() && ended[0].1.version > 0);
}

#[test]
fn a_dead_member_loses_its_queues_within_its_session_timeout() {
    let mut groups = Groups::default();
    join(&mut groups, "a", 0, 0);
    join(&mut groups, "b", 0, 1);
    assert_eq!(numbers(&join(&mut groups, "b", 2, 9)), Vec::<u32>::new());
    assert_eq!(numbers(&join(&mut groups, "b", 2, 11)), vec![0, 1, 2, 3]);
}

fn check(groups: &mut Groups, member: &str, generation: u64, queue: u32, seconds: u64) -> Result<(), Status> {
    let acting = ActingMember { member: member.to_owned(), generation };
    let key = QueueKey { topic: TopicId(1), queue: QueueNumber(queue) };
    let check = HolderCheck { group: "g".parse().expect("a name"), acting, key };
    groups.check_holder(&check, at(seconds), |key| key.to_string()).map_err(|failure| failure.status)
}

#[test]
fn a_queue_s_holder_alone_may_commit() {
    let mut groups = Groups::default();
    let alone = join(&mut groups, "a", 0, 0);
    assert_eq!(check(&mut groups, "a", alone.generation, 3, 0), Ok(()));
    let waiting = join(&mut groups, "b", 0, 1);
    // What is to be given up may be committed until it was.
    assert_eq!(check(&mut groups, "a", alone.generation, 3, 1), Ok(()));
    assert_eq!(check(&mut groups, "b", waiting.generation, 3, 1), Err(Status::GenerationStale));
    let shrunk = join(&mut groups, "a", alone.generation, 2);
    join(&mut groups, "a", shrunk.generation, 2);
    assert_eq!(check(&mut groups, "a", shrunk.generation, 3, 2), Err(Status::GenerationStale));
    join(&mut groups, "b", waiting.generation, 3);
    assert_eq!(check(&mut groups, "b", waiting.generation, 3, 3), Ok(()));
    assert_eq!(check(&mut groups, "c", waiting.generation, 3, 3), Err(Status::MemberUnknown));
    assert_eq!(check(&mut groups, "b", waiting.generation, 3, 14), Err(Status::MemberUnknown));
}

/// Another member may have read and committed between the two lives of the first, and be gone as well.
#[test]
fn a_member_that_comes_back_under_its_name_starts_anew() {
    let mut groups = Groups::default();
    let before = join(&mut groups, "a", 0, 0);
    join(&mut groups, "b", 0, 20);
    let late = JoinGroup {
        group: "g".parse().expect("a name"),
        member: "a".to_owned(),
        topics: vec!["t".parse().expect("a name")],
        session_timeout: Duration::from_secs(10),
        generation: before.generation,
        life: SessionLife::Timed,
    };
    let refused = groups.join(&late, at(40), |_| Some((TopicId(1), 4)));
    assert_eq!(refused.map_err(|failure| failure.status), Err(Status::MemberUnknown));
    assert!(!groups.has_members(&late.group));
    let after = join(&mut groups, "a", 0, 40);
    assert_eq!(numbers(&after).len(), 4);
    assert_eq!(check(&mut groups, "a", before.generation, 0, 40), Err(Status::GenerationStale));
    assert_eq!(check(&mut groups, "a", after.generation, 0, 40), Ok(()));
}

fn connected(groups: &mut Groups, member: &str, connection: u64, seconds: u64) -> Assignment {
    let connection = ConnectionId { shard: crate::types::ShardId(0), number: connection };
    let request = JoinGroup {
        group: "g".parse().expect("a name"),
        member: member.to_owned(),
        topics: vec!["t".parse().expect("a name")],
        session_timeout: Duration::from_secs(100),
        generation: 0,
        life: SessionLife::Connected(Some(connection)),
    };
    groups.join(&request, at(seconds), |_| Some((TopicId(1), 4))).expect("within the limits");
    close_gates(groups, &[]);
    groups.grant(&request.group, member).expect("it has joined");
    close_gates(groups, &[]);
    groups.assignment(&request.group, member).expect("it has joined")
}

fn end_connection(groups: &mut Groups, connection: u64, seconds: u64) {
    let connection = ConnectionId { shard: crate::types::ShardId(0), number: connection };
    groups.connection_ended(&["g".parse().expect("a name")], connection, at(seconds));
}

#[test]
fn a_session_ends_soon_after_its_connection() {
    let mut groups = Groups::default();
    assert_eq!(numbers(&connected(&mut groups, "a", 1, 0)).len(), 4);
    end_connection(&mut groups, 1, 1);
    let waiting = connected(&mut groups, "b", 2, 1);
    assert_eq!((numbers(&waiting), waiting.settled), (vec![], false));
    let late = 1 + limits::MEMBER_GRACE_MS.div_ceil(1000) + 1;
    let alone = connected(&mut groups, "b", 2, late);
    assert_eq!((numbers(&alone), alone.settled), (vec![0, 1, 2, 3], true), "long before the time-out");
}

#[test]
fn a_member_that_joins_over_another_connection_stays() {
    let mut groups = Groups::default();
    let before = connected(&mut groups, "a", 1, 0);
    end_connection(&mut groups, 1, 1);
    assert!(!groups.groups.values().all(|group| group.assignment("a").settled));
    assert_eq!(connected(&mut groups, "a", 2, 1), before, "the same session");
    end_connection(&mut groups, 1, 2);
    assert_eq!(connected(&mut groups, "a", 2, 50), before, "the end of the old one is late news");
}

/// With fewer queues than members there is nothing that a newcomer waits for but the end of a member that is gone.
#[test]
fn nothing_is_settled_while_a_member_may_be_gone() {
    let mut groups = Groups::default();
    for member in ["a", "b", "c", "d"] {
        connected(&mut groups, member, 1, 0);
    }
    let spare = connected(&mut groups, "e", 2, 0);
    assert_eq!((numbers(&spare), spare.settled), (vec![], true));
    end_connection(&mut groups, 1, 1);
    assert!(!connected(&mut groups, "e", 2, 1).settled);
    assert_eq!(numbers(&connected(&mut groups, "e", 2, 60)), [0, 1, 2, 3]);
}

#[test]
fn no_session_comes_twice() {
    let mut first = Groups::new(1, ByteBudget::new(usize::MAX));
    let mut sessions: Vec<u64> = Vec::new();
    for (name, second) in [("a", 0), ("b", 0), ("a", 40)] {
        sessions.push(join(&mut first, name, 0, second).session);
    }
    sessions.push(join(&mut Groups::new(2, ByteBudget::new(usize::MAX)), "a", 0, 0).session);
    sessions.sort_unstable();
    sessions.dedup();
    assert_eq!(sessions.len(), 4);
}

#[test]
fn members_that_leave_free_their_queues_at_once() {
    let mut groups = Groups::default();
    join(&mut groups, "a", 0, 0);
    join(&mut groups, "b", 0, 0);
    let group = "g".parse().expect("a name");
    assert_eq!(groups.leave(&group, "a"), Ok(()));
    assert_eq!(groups.leave(&group, "a").map_err(|failure| failure.status), Err(Status::MemberUnknown));
    assert_eq!(numbers(&join(&mut groups, "b", 0, 1)), vec![0, 1, 2, 3]);
    assert_eq!(groups.leave(&group, "b"), Ok(()));
    assert!(!groups.has_members(&group));
}

#[test]
fn queues_are_divided_evenly_in_contiguous_ranges() {
    let mut groups = Groups::default();
    for member in ["a", "b", "c"] {
        join(&mut groups, member, 0, 0);
    }
    let generation = join(&mut groups, "a", 0, 0).generation;
    for _ in 0..2 {
        for member in ["a", "b", "c"] {
            join(&mut groups, member, generation, 0);
        }
    }
    let shares: Vec<_> =
        ["a", "b", "c"].map(|member| numbers(&join(&mut groups, member, generation, 0))).into();
    assert_eq!(shares, vec![vec![0, 1], vec![2], vec![3]]);
}

/// A request of a few kilobytes once named one topic 65,536 times, and cost the broker megabytes for minutes.
#[test]
fn what_members_take_is_bounded_and_given_back() {
    let request = |member: &str, topics: &[&str], session: u64| JoinGroup {
        group: "g".parse().expect("a name"),
        member: member.to_owned(),
        topics: topics.iter().map(|topic| topic.parse().expect("a name")).collect(),
        session_timeout: Duration::from_secs(session),
        generation: 0,
        life: SessionLife::Timed,
    };
    let memory = ByteBudget::new(100_000);
    let mut groups = Groups::new(1, memory.clone());
    let layout = |topic: &TopicName| {
        let queues = if topic.as_str() == "wide" { 1_000 } else { 4 };
        Some((TopicId(topic.as_str().len() as u32), queues))
    };
    assert_eq!(groups.join(&request("a", &["t"], 10), at(0), layout).map(drop), Ok(()));
    let one = memory.bytes();
    assert!(one > limits::MEMBER_BYTES + 4 * limits::GROUP_QUEUE_BYTES, "{one}");
    // It lives; nothing is added.
    assert_eq!(groups.join(&request("a", &["t"], 10), at(1), layout).map(drop), Ok(()));
    assert_eq!(memory.bytes(), one);
    // Too much for this node: refused, and nothing has changed.
    let refused = groups.join(&request("b", &["t", "wide"], 10), at(1), layout);
    assert_eq!(refused.map(drop).map_err(|failure| failure.status), Err(Status::LimitReached));
    assert_eq!((memory.bytes(), groups.groups.values().next().expect("one").members.len()), (one, 1));
    assert_eq!(groups.join(&request("b", &["t"], 10), at(1), layout).map(drop), Ok(()));
    assert!(memory.bytes() > one);
    assert_eq!(groups.leave(&"g".parse().expect("a name"), "b"), Ok(()));
    assert_eq!(memory.bytes(), one);
    groups.expire(at(20));
    assert_eq!(memory.bytes(), 0);
}

#[test]
fn a_group_s_members_name_so_many_topics_and_no_more() {
    let mut groups = Groups::default();
    let topics: Vec<TopicName> =
        (0..1_000).map(|index| format!("t{index}").parse().expect("a name")).collect();
    let mut join = |member: usize| {
        let request = JoinGroup {
            group: "g".parse().expect("a name"),
            member: format!("m{member}"),
            topics: topics.clone(),
            session_timeout: Duration::from_secs(10),
            generation: 0,
            life: SessionLife::Timed,
        };
        let id = |topic: &TopicName| topic.as_str()[1..].parse().ok().map(|id| (TopicId(id), 4));
        groups.join(&request, at(0), id).map(drop).map_err(|failure| failure.status)
    };
    let most = limits::GROUP_MEMBER_TOPICS_MAX / 1_000;
    (0..most).for_each(|member| assert_eq!(join(member), Ok(()), "{member}"));
    assert_eq!(join(most), Err(Status::LimitReached));
    assert_eq!(join(0), Ok(()), "who is in stays in");
}
