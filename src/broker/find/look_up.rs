//! Finding stored messages: by a key over all shards, or by their location on one.
//!
//! Whatever the key index or an id says is checked against the log and the consume index: a message is found when a
//! consumer can read it at its offset, and never otherwise.

use std::time::Duration;

use bytes::Bytes;

use crate::api::{Failure, FindMessages, Found, FoundMessage, Reply, Status};
use crate::broker::client_requests::unexpected;
use crate::broker::peers::{PeerReply, PeerRequest};
use crate::broker::reader::MessagesAt;
use crate::broker::shard_broker::Broker;
use crate::broker::topics::topic_unknown;
use crate::disk::Disk;
use crate::index::IndexError;
use crate::index::keys::KeyIndex;
use crate::limits;
use crate::types::{
    Account, LogPosition, RecordLocation, Reservation, ShardId, Timestamp, TopicId, TopicName,
};
use crate::wire::batch::stored_records;
use crate::wire::properties::{self, keys, names};
use crate::wire::record::RecordView;

/// How long a look-up waits for the index to take in what was stored before it.
const INDEX_WAIT: Duration = Duration::from_secs(2);
/// Locations that one shard looks at for one look-up: a key of very many messages ends here.
const LOCATIONS_MAX: usize = 4_096;
/// After damage the part of the index is made again, and the look-up begins anew.
const ATTEMPTS_MAX: usize = 3;

/// What is looked for on one shard.
#[derive(Clone, Debug)]
pub enum FindHere {
    Key {
        topic: TopicId,
        key: String,
        count: usize,
        from: Timestamp,
        to: Timestamp,
        /// Only what is stored before this location.
        before: RecordLocation,
    },
    Location(RecordLocation),
}

/// After everything that is stored, so that a look-up begins with the newest message.
const NEWEST: RecordLocation = RecordLocation { position: LogPosition(u64::MAX), index: u16::MAX };
/// Nothing is stored before it: the end of a look-up.
const OLDEST: RecordLocation = RecordLocation { position: LogPosition(0), index: 0 };

/// A key, or several, as a record must have them.
struct Sought<'a> {
    topic: TopicId,
    key: &'a [u8],
    before: RecordLocation,
    count: usize,
    from: Timestamp,
    to: Timestamp,
}

/// What became of one location.
enum Checked {
    Message(FoundMessage),
    /// It has another key, or can not be delivered.
    Nothing,
    /// Its bytes are damaged or missing, so nobody knows what it is.
    Unreadable,
    /// Everything from here on is older than what was asked for.
    TooOld,
}

impl<D: Disk> Broker<D> {
    /// Looks messages up, over all shards that may have them.
    pub(in crate::broker) async fn find_messages(&self, find: FindMessages) -> Result<Reply, Failure> {
        match find {
            FindMessages::Key { topic, key, count, from, to, before } => {
                let topic = self.check_find(&topic, &key, count)?;
                let before = self.check_before(before)?;
                let count = count as usize;
                let mut merge = Merge::new(before.clone(), count);
                let here = |shard: ShardId| {
                    let before = before[usize::from(shard.0)];
                    FindHere::Key { topic, key: key.clone(), count, from, to, before }
                };
                self.find_everywhere(here, &mut merge).await?;
                Ok(Reply::Found(merge.finish()))
            }
            FindMessages::Position { shard, position, index } => {
                if shard.0 >= self.options.shard_count {
                    let last = self.options.shard_count - 1;
                    return Err(Failure::invalid(format!("the node has shards 0 to {last}, not {shard}")));
                }
                let here = FindHere::Location(RecordLocation { position, index });
                self.find_on(shard, here).await.map(Reply::Found)
            }
        }
    }

    /// Looks messages up among those of this shard, for protocols whose clients ask every shard.
    pub async fn find_own(&self, find: FindMessages) -> Result<Found, Failure> {
        let here = match find {
            FindMessages::Key { topic, key, count, from, to, before } => {
                let topic = self.check_find(&topic, &key, count)?;
                let before = self.check_before(before)?[usize::from(self.options.shard.0)];
                FindHere::Key { topic, key, count: count as usize, from, to, before }
            }
            FindMessages::Position { shard: _, position, index } => {
                FindHere::Location(RecordLocation { position, index })
            }
        };
        self.find_here(here).await
    }

    fn check_find(&self, topic: &TopicName, key: &str, count: u32) -> Result<TopicId, Failure> {
        if key.is_empty() || key.len() > limits::KEY_BYTES_MAX {
            let max = limits::KEY_BYTES_MAX;
            return Err(Failure::invalid(format!("a key has 1 to {max} bytes, not {}", key.len())));
        }
        if keys(key.as_bytes()).next().is_none() {
            return Err(Failure::invalid("a key has more than blanks, which separate keys"));
        }
        if !(1..=limits::FIND_MESSAGES_MAX).contains(&count) {
            let max = limits::FIND_MESSAGES_MAX;
            return Err(Failure::invalid(format!("a look-up returns 1 to {max} messages, not {count}")));
        }
        let tables = self.tables();
        let found = tables.topic_named(topic).map(|topic| topic.id);
        found.ok_or_else(|| topic_unknown(&tables, topic))
    }

    /// The location before which each shard looks.
    fn check_before(&self, before: Vec<RecordLocation>) -> Result<Vec<RecordLocation>, Failure> {
        let shards = usize::from(self.options.shard_count);
        if before.is_empty() {
            return Ok(vec![NEWEST; shards]);
        }
        if before.len() != shards {
            let message = format!(
                "the place to go on from is that of another broker: it has {} shards, this one {shards}",
                before.len()
            );
            return Err(Failure::invalid(message));
        }
        Ok(before)
    }

    /// What one shard has found.
    async fn find_on(&self, shard: ShardId, here: FindHere) -> Result<Found, Failure> {
        match self.peers()?.ask(shard, PeerRequest::FindHere(here)).await? {
            PeerReply::Found(found) => Ok(found),
            other => Err(unexpected(&other)),
        }
    }

    /// What all shards have found, in their order. As many are asked at once as there is room for: whoever asks has taken
    /// room for one answer of a shard beside what the others have found (see `answer_bytes_max`), each more takes its own
    /// while there is plenty.
    async fn find_everywhere(
        &self,
        here: impl Fn(ShardId) -> FindHere,
        merge: &mut Merge,
    ) -> Result<(), Failure> {
        let mut shards = (0..self.options.shard_count).map(ShardId);
        let ask = |shard| self.find_on(shard, here(shard));
        while let Some(first) = shards.next() {
            let mut asked = vec![ask(first)];
            let mut reservations = Vec::new();
            while shards.len() > 0 {
                let Some(reservation) = self.reserve_one_more() else { break };
                reservations.push(reservation);
                asked.extend(shards.next().map(ask));
            }
            for found in futures_util::future::join_all(asked).await {
                merge.add(found?);
            }
        }
        Ok(())
    }

    /// Memory for another shard's answer, if half of what there is for answers is left to others.
    fn reserve_one_more(&self) -> Option<Reservation> {
        let answers = self.memory.budget(Account::Answers);
        let is_plenty = answers.bytes() + limits::BATCH_BYTES_MAX <= answers.bytes_max() / 2;
        is_plenty.then(|| answers.try_reserve(limits::BATCH_BYTES_MAX)).flatten()
    }

    /// Looks messages up on this shard.
    pub(in crate::broker) async fn find_here(&self, find: FindHere) -> Result<Found, Failure> {
        match find {
            FindHere::Location(location) => {
                let location = location.in_log(self.log.watermarks().durable_end());
                let found =
                    self.message_at(location, None).await.map_err(|error| self.lookup_failed(&error))?;
                let complete = !matches!(found, Checked::Unreadable);
                let messages = match found {
                    Checked::Message(message) => vec![message],
                    Checked::Nothing | Checked::Unreadable | Checked::TooOld => Vec::new(),
                };
                Ok(Found { messages, complete, next: Vec::new() })
            }
            FindHere::Key { topic, key, count, from, to, before } => {
                let sought = Sought { topic, key: key.as_bytes(), before, count, from, to };
                self.find_key(&sought).await
            }
        }
    }

    async fn find_key(&self, sought: &Sought<'_>) -> Result<Found, Failure> {
        let mut found = Found::default();
        for _ in 0..ATTEMPTS_MAX {
            // What lies in a hole may have the key as well.
            let complete = self.keys_are_indexed(INDEX_WAIT).await && !self.log.has_holes();
            let Some(index) = self.keys.index() else { return Ok(found) };
            found = Found { messages: Vec::new(), complete, next: Vec::new() };
            match self.search_keys(&index, sought, &mut found).await {
                Ok(()) => return Ok(found),
                Err(error @ IndexError::Damaged { .. }) if !index.owns(&error) => {
                    return Err(self.lookup_failed(&error));
                }
                Err(IndexError::Damaged { file, position, reason }) => {
                    found.complete = false;
                    self.note_keys(&IndexError::Damaged { file: file.clone(), position, reason });
                    self.metrics.key_runs_damaged.add(1);
                    let removed = index.distrust(&file).await;
                    removed.map_err(|error| self.lookup_failed(&error.into()))?;
                }
                Err(error) => return Err(self.lookup_failed(&error)),
            }
        }
        Ok(found)
    }

    /// Goes through all locations of a key, newest first. Of several keys the first one is looked up; the records say whether
    /// they have the others.
    async fn search_keys(
        &self,
        index: &KeyIndex<D>,
        sought: &Sought<'_>,
        found: &mut Found,
    ) -> Result<(), IndexError> {
        let first = keys(sought.key).next().unwrap_or_default();
        // One moment: what is in memory now is in no run of the search.
        let mut in_memory = self.keys.collected(sought.topic, first);
        let mut search = index.search_before(sought.topic, first, sought.before);
        in_memory.reverse();
        let mut stored = search.next(index).await?;
        let (mut bytes, mut looked_at, mut last) = (0, 0, sought.before);
        let mut slice = self.time_slice();
        loop {
            slice.yield_if_over().await;
            // Both come newest first; what is in memory may be an old part that is indexed again.
            let next = match (in_memory.last(), stored) {
                (Some(recent), stored) if stored.is_none_or(|stored| stored < *recent) => in_memory.pop(),
                (_, Some(location)) => {
                    stored = search.next(index).await?;
                    Some(location)
                }
                (_, None) => None,
            };
            let Some(location) = next else { return Ok(()) };
            if location >= sought.before {
                continue;
            }
            if looked_at == LOCATIONS_MAX {
                found.next = vec![last];
                return Ok(());
            }
            looked_at += 1;
            match self.message_at(location, Some(sought)).await? {
                // One too many: so there are more.
                Checked::Message(_)
                    if found.messages.len() >= sought.count || bytes > limits::FETCH_BYTES_MAX =>
                {
                    found.next = vec![last];
                    return Ok(());
                }
                // No more than one answer holds is there at once.
                Checked::Message(message)
                    if !found.messages.is_empty()
                        && bytes + message.record.len() > limits::FETCH_BYTES_MAX =>
                {
                    found.next = vec![last];
                    return Ok(());
                }
                Checked::Message(message) => {
                    bytes += message.record.len();
                    found.messages.push(message);
                }
                Checked::Nothing => {}
                Checked::Unreadable => found.complete = false,
                Checked::TooOld => return Ok(()),
            }
            last = location;
        }
    }

    /// The message at a location, when a consumer could read it, and when it is what is sought.
    async fn message_at(
        &self,
        location: RecordLocation,
        sought: Option<&Sought<'_>>,
    ) -> Result<Checked, IndexError> {
        let (header, bytes) = match self.messages_at(location.position).await? {
            MessagesAt::Batch(header, bytes) => (header, bytes),
            MessagesAt::Unreadable => return Ok(Checked::Unreadable),
            MessagesAt::Nothing => return Ok(Checked::Nothing),
        };
        if u32::from(location.index) >= header.record_count {
            return Ok(Checked::Nothing);
        }
        // Store times never fall within a log.
        if sought.is_some_and(|sought| header.store_time < sought.from) {
            return Ok(Checked::TooOld);
        }
        if sought.is_some_and(|sought| header.key.topic != sought.topic || header.store_time > sought.to) {
            return Ok(Checked::Nothing);
        }
        let Some(record) = stored_records(&bytes).nth(usize::from(location.index)) else {
            return Ok(Checked::Nothing);
        };
        if sought.is_some_and(|sought| !has_keys(&record, sought.key)) {
            return Ok(Checked::Nothing);
        }
        let topic = self.tables().topic(header.key.topic).map(|topic| topic.name.clone());
        let Some(topic) = topic else { return Ok(Checked::Nothing) };
        let offset = header.base_offset.advance(u64::from(location.index));
        if !self.is_readable(&header, offset).await? {
            return Ok(Checked::Nothing);
        }
        let born_ms = header.born_time.0.saturating_add_signed(i64::from(record.born_delta_ms()));
        Ok(Checked::Message(FoundMessage {
            topic,
            key: header.key,
            offset,
            shard: self.options.shard,
            position: location.position,
            index: location.index,
            record: Bytes::copy_from_slice(record.as_bytes()),
            born_time: Timestamp(born_ms),
            store_time: header.store_time,
        }))
    }

    fn lookup_failed(&self, error: &IndexError) -> Failure {
        match error {
            // Of the consume index: damage of the key index is dealt with on the way.
            IndexError::Damaged { .. } => self.index_damaged(error),
            IndexError::Disk(error) => self.read_failed(error),
            error => Failure::new(Status::StorageFailed, error.without_path()),
        }
    }
}

/// Whether a record has the key, or all of several: among its keys, or as its unique id.
fn has_keys(record: &RecordView<'_>, sought: &[u8]) -> bool {
    keys(sought).all(|key| keys(record.key()).any(|found| found == key))
        || properties::get(record.properties(), names::UNIQUE_ID) == Some(sought)
}

/// Where a message stands among those that are found: the newest is the greatest, and no two are equal.
type Rank = (Timestamp, LogPosition, u16, ShardId);

fn rank(found: &FoundMessage) -> Rank {
    (found.store_time, found.position, found.index, found.shard)
}

/// The newest messages of all shards, as many as one answer holds, and where each shard goes on after them. What a shard
/// has found comes from its newest location on, and is taken in this order, so that nothing is left out between two answers.
///
/// What the shards have found is added shard by shard, and is the same as if it were all there at once: of the shards
/// before, no more is kept than one answer holds.
struct Merge {
    /// Where each shard began.
    before: Vec<RecordLocation>,
    count: usize,
    /// The newest of those that were added, the newest first.
    messages: Vec<FoundMessage>,
    /// The newest that found no room: what is older is for the next answer.
    left_out: Option<Rank>,
    /// For each shard that was added: how many messages it has found, and where it goes on after them.
    added: Vec<(usize, RecordLocation)>,
    complete: bool,
}

impl Merge {
    fn new(before: Vec<RecordLocation>, count: usize) -> Self {
        Self { before, count, messages: Vec::new(), left_out: None, added: Vec::new(), complete: true }
    }

    /// Adds what the next shard has found.
    fn add(&mut self, found: Found) {
        self.complete &= found.complete;
        self.added.push((found.messages.len(), found.next.first().copied().unwrap_or(OLDEST)));
        let mut kept = std::mem::take(&mut self.messages).into_iter().peekable();
        let mut new = found.messages.into_iter().peekable();
        let mut bytes = 0;
        loop {
            let source = match (kept.peek().map(rank), new.peek().map(rank)) {
                (Some(one), other) if other.is_none_or(|other| one > other) => &mut kept,
                (_, Some(_)) => &mut new,
                (_, None) => return,
            };
            let Some(message) = source.next() else { return };
            // The first message always fits.
            let is_full = self.messages.len() == self.count
                || bytes > 0 && bytes + message.record.len() > limits::FETCH_BYTES_MAX;
            if is_full || self.left_out.is_some_and(|newest| rank(&message) < newest) {
                self.left_out = self.left_out.max(Some(rank(&message)));
                return;
            }
            bytes += message.record.len();
            self.messages.push(message);
        }
    }

    fn finish(self) -> Found {
        let mut next = self.before;
        let mut taken = vec![0; next.len()];
        for message in &self.messages {
            let shard = usize::from(message.shard.0);
            next[shard] = RecordLocation { position: message.position, index: message.index };
            taken[shard] += 1;
        }
        for (shard, (found, end)) in self.added.into_iter().enumerate() {
            if taken[shard] == found {
                next[shard] = end;
            }
        }
        if next.iter().all(|location| *location == OLDEST) {
            next.clear();
        }
        Found { messages: self.messages, complete: self.complete && next.is_empty(), next }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::Random;
    use crate::types::{QueueKey, QueueNumber, QueueOffset};

    fn message(shard: u16, position: u64, time: u64, bytes: usize) -> FoundMessage {
        FoundMessage {
            topic: "t".parse().expect("a name"),
            key: QueueKey { topic: TopicId(1), queue: QueueNumber(0) },
            offset: QueueOffset(0),
            shard: ShardId(shard),
            position: LogPosition(position),
            index: 0,
            record: Bytes::from(vec![0; bytes]),
            born_time: Timestamp(time),
            store_time: Timestamp(time),
        }
    }

    /// All of it put together, shard by shard.
    fn merge(found: Vec<Found>, before: &[RecordLocation], count: usize) -> Found {
        let mut merge = Merge::new(before.to_vec(), count);
        for found in found {
            merge.add(found);
            let bytes: usize = merge.messages.iter().map(|found| found.record.len()).sum();
            assert!(bytes <= limits::FETCH_BYTES_MAX || merge.messages.len() == 1, "{bytes} bytes are kept");
        }
        merge.finish()
    }

    /// What a shard that stores a message at each of these times, the newest first, answers.
    fn answer(shard: u16, times: &[u64], before: RecordLocation, count: usize) -> Found {
        let all = times.iter().map(|time| message(shard, time * 8, *time, 10));
        let left: Vec<_> = all.filter(|found| found.position < before.position).collect();
        let messages: Vec<_> = left.iter().take(count).cloned().collect();
        let more = left.len() > messages.len();
        let last =
            messages.last().map_or(before, |found| RecordLocation { position: found.position, index: 0 });
        Found { messages, complete: true, next: if more { vec![last] } else { Vec::new() } }
    }

    #[test]
    fn pages_of_all_shards_leave_nothing_out_and_tell_nothing_twice() {
        let stored: [&[u64]; 4] = [&[90, 70, 50, 30, 10], &[95], &[], &[80, 79, 78, 77, 76, 75, 20]];
        for count in 1..15 {
            let mut before = vec![NEWEST; 4];
            let mut told = Vec::new();
            loop {
                let asked = stored
                    .iter()
                    .enumerate()
                    .map(|(shard, times)| answer(shard as u16, times, before[shard], count));
                let page = merge(asked.collect(), &before, count);
                told.extend(page.messages.iter().map(|found| found.store_time.0));
                assert_eq!(page.complete, page.next.is_empty());
                if page.next.is_empty() {
                    break;
                }
                assert_eq!(page.messages.len(), count, "more is told of only when there is more");
                before = page.next;
            }
            assert_eq!(told, [95, 90, 80, 79, 78, 77, 76, 75, 70, 50, 30, 20, 10], "{count} at once");
        }
    }

    /// Shard by shard the same comes out as from all at once: the newest, up to the first that does not fit, even if older
    /// ones of other shards would.
    #[test]
    fn the_order_of_asking_makes_no_difference() {
        let mut random = Random::new(3);
        for round in 0..2_000 {
            let count = random.range(1..=8) as usize;
            let shards = random.range(1..=5) as u16;
            let mut found = Vec::new();
            for shard in 0..shards {
                let mut times: Vec<u64> = (0..random.range(0..6)).map(|_| random.range(1..60)).collect();
                times.sort_unstable_by(|one, other| other.cmp(one));
                times.dedup();
                let sizes = [10, limits::FETCH_BYTES_MAX / 3, limits::FETCH_BYTES_MAX - 30];
                let size = |random: &mut Random| *random.pick(&sizes);
                let messages =
                    times.into_iter().map(|time| message(shard, 8 * time, time, size(&mut random))).collect();
                found.push(Found { messages, complete: true, next: Vec::new() });
            }
            let mut all: Vec<_> = found.iter().flat_map(|found| found.messages.clone()).collect();
            all.sort_by_key(|found| std::cmp::Reverse(rank(found)));
            let mut bytes = 0;
            let fits = |found: &FoundMessage| {
                bytes += found.record.len();
                bytes == found.record.len() || bytes <= limits::FETCH_BYTES_MAX
            };
            let expected: Vec<_> = all.iter().take(count).cloned().take_while(fits).collect();
            let page = merge(found, &vec![NEWEST; usize::from(shards)], count);
            assert_eq!(page.messages, expected, "round {round}");
            assert_eq!(page.complete, expected.len() == all.len(), "round {round}");
        }
    }

    #[test]
    fn an_answer_ends_where_the_next_message_does_not_fit() {
        let large = limits::FETCH_BYTES_MAX / 2 + 1;
        let found = |locations: &[u64]| Found {
            messages: locations.iter().map(|location| message(0, *location, *location, large)).collect(),
            complete: true,
            next: Vec::new(),
        };
        let page = merge(vec![found(&[16, 8])], &[NEWEST], 10);
        assert_eq!((page.messages.len(), page.complete), (1, false));
        assert_eq!(page.next, [RecordLocation { position: LogPosition(16), index: 0 }]);
        let page = merge(vec![found(&[8])], &page.next, 10);
        assert_eq!((page.messages.len(), page.complete, page.next.len()), (1, true, 0));
    }
}
