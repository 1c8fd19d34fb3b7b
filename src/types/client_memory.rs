//! The memory that clients cause on one shard, by what they cause it with.
//!
//! A node has one number for all of it (`serve --client-memory`), which its shards divide. Each shard deals its part out to
//! *accounts* in fixed shares, so that no kind of request can take the room of another one: a shard whose answers are not
//! read still reads requests. What the accounts hold together never exceeds the shard's part by more than one largest
//! thing an account, since what is larger than its whole account is let in when it is alone.
//!
//! How to draw on it:
//!
//! 1. **Before** memory is taken for a client, take room: `memory.budget(account).reserve(bytes).await`, in the order of
//!    arrival, or `try_reserve(bytes)`, which never waits. Keep the [`Reservation`] with the memory and drop both together.
//! 2. Count what comes, not what is announced. Where the size is found out on the way, take the most that it can be, and
//!    `set` it to what it was.
//! 3. Never wait for one account with a share of another in hand that only this wait's end gives back, unless the accounts
//!    are taken in the order of [`Account`]: then nobody waits in a circle.
//! 4. A peer decides how long it holds a share (it may read nothing, or never finish what it began). While somebody waits
//!    ([`ByteBudget::is_waited_for`]) the watch over the connections ends those that make no progress: see
//!    `server/sessions/open.rs`. Whoever holds a share for a peer otherwise needs a time limit of its own.
//! 5. What is small and cannot wait is counted with `count`, and whoever causes it asks `is_full` before the next.

use std::rc::Rc;

use super::budget::{ByteBudget, Reservation};

/// What a client's memory is for, in the order in which shares may be taken one with another in hand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Account {
    /// Open connections: their tasks, and the buffers that each has however little it does.
    Connections,
    /// What has come of requests that are not complete, beyond the small buffer of every connection.
    Received,
    /// Bodies of HTTP requests.
    HttpBodies,
    /// Requests that wait, in tasks of their own or as entries.
    Waits,
    /// Batches copied out of their connection's buffer: on their way to other shards, or to be held.
    Forwarded,
    /// Members of groups.
    Members,
    /// Answers to receives that are being made. Apart from others, which their readers may leave unread for seconds: whoever
    /// receives message after message does not wait for those.
    Receives,
    /// Answers of HTTP that are being made, or not yet read.
    HttpAnswers,
    /// Answers of the native protocol that are being made, or not yet read.
    Answers,
    /// What is read from the disk before it was asked for.
    Ahead,
}

impl Account {
    pub const ALL: [Account; 10] = [
        Account::Connections,
        Account::Received,
        Account::HttpBodies,
        Account::Waits,
        Account::Forwarded,
        Account::Members,
        Account::Receives,
        Account::HttpAnswers,
        Account::Answers,
        Account::Ahead,
    ];

    /// The name in `status`.
    pub fn name(self) -> &'static str {
        match self {
            Account::Connections => "connections",
            Account::Received => "received",
            Account::HttpBodies => "http_bodies",
            Account::Waits => "waits",
            Account::Forwarded => "forwarded",
            Account::Members => "members",
            Account::Receives => "receives",
            Account::HttpAnswers => "http_answers",
            Account::Answers => "answers",
            Account::Ahead => "ahead",
        }
    }

    /// Its part of the shard's, of `PARTS`.
    const fn parts(self) -> usize {
        match self {
            Account::Connections | Account::Received | Account::HttpBodies => 2,
            Account::Waits | Account::Forwarded | Account::Members | Account::Receives | Account::Ahead => 1,
            Account::HttpAnswers | Account::Answers => 3,
        }
    }
}

const PARTS: usize = 17;

const _: () = {
    let (mut sum, mut index) = (0, 0);
    while index < Account::ALL.len() {
        assert!(Account::ALL[index] as usize == index);
        sum += Account::ALL[index].parts();
        index += 1;
    }
    assert!(sum == PARTS);
};

/// A shard's part of the node's memory for clients.
pub struct ClientMemory {
    budgets: [ByteBudget; Account::ALL.len()],
}

impl ClientMemory {
    /// `bytes` for everything that clients cause on this shard.
    pub fn new(bytes: usize) -> Rc<Self> {
        let budget = |account: Account| ByteBudget::new(bytes / PARTS * account.parts());
        Rc::new(Self { budgets: Account::ALL.map(budget) })
    }

    pub fn budget(&self, account: Account) -> &ByteBudget {
        &self.budgets[account as usize]
    }

    /// Counts bytes that are there: see [`ByteBudget::count`].
    pub fn count(&self, account: Account, bytes: usize) -> Reservation {
        self.budget(account).count(bytes)
    }

    /// What all accounts hold.
    pub fn bytes(&self) -> usize {
        self.budgets.iter().map(ByteBudget::bytes).sum()
    }

    /// For `status`: of each account what it holds now, and the most that it ever held.
    pub fn counters(&self) -> Vec<(String, u64)> {
        let of = |account: Account| {
            let (name, budget) = (account.name(), self.budget(account));
            [
                (format!("memory_{name}"), budget.bytes() as u64),
                (format!("memory_{name}_peak"), budget.peak() as u64),
            ]
        };
        let max = self.budgets.iter().map(|budget| budget.bytes_max() as u64).sum();
        let bound = [("memory_clients_max".to_owned(), max)];
        bound.into_iter().chain(Account::ALL.into_iter().flat_map(of)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_do_not_take_from_one_another() {
        let memory = ClientMemory::new(1700);
        let _all = memory.budget(Account::Answers).try_reserve(300).expect("its whole share");
        assert!(memory.budget(Account::Answers).is_full());
        let other = memory.budget(Account::Received).try_reserve(200).expect("its whole share");
        drop(other);
        let counters = memory.counters();
        let of = |name: &str| counters.iter().find(|(counter, _)| counter == name).map(|(_, value)| *value);
        assert_eq!(of("memory_clients_max"), Some(1700));
        assert_eq!((of("memory_answers"), of("memory_answers_peak")), (Some(300), Some(300)));
        assert_eq!((of("memory_received"), of("memory_received_peak")), (Some(0), Some(200)));
    }
}
