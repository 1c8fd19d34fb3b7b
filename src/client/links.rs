//! One connection per shard, and what the drivers do with them without waiting. The drivers differ in how they open a
//! connection, write to it and wait for it; everything else about it is here, once.

use std::time::Instant;

use crate::protocol::native::DecodedReply;

use super::core::Correlation;
use super::error::ClientError;
use super::producing::ProducerCore;
use super::reading::{ReadError, Reader, Step};

/// A driver's connection to one shard.
pub(super) trait Link {
    fn address(&self) -> &str;

    /// An answer that has come already. After an error the connection is of no more use.
    fn try_receive(&mut self) -> Result<Option<(Correlation, DecodedReply<'_>)>, ClientError>;

    /// The payload of the answer that was received last, until the next is received.
    fn last_payload(&self) -> &[u8];
}

/// The connections of one producer or consumer, by the number of their shard. Each is opened when it is needed.
pub(super) struct Links<C> {
    open: Vec<Option<C>>,
}

impl<C: Link> Links<C> {
    pub(super) fn new(shard_count: u16) -> Self {
        Self { open: (0..shard_count).map(|_| None).collect() }
    }

    pub(super) fn shard_count(&self) -> usize {
        self.open.len()
    }

    pub(super) fn get(&self, shard: usize) -> Option<&C> {
        self.open[shard].as_ref()
    }

    pub(super) fn get_mut(&mut self, shard: usize) -> Option<&mut C> {
        self.open[shard].as_mut()
    }

    pub(super) fn insert(&mut self, shard: usize, connection: C) -> &mut C {
        self.open[shard].insert(connection)
    }

    /// Those of `shards` that are open.
    pub(super) fn of(&self, shards: &[usize]) -> Vec<&C> {
        shards.iter().filter_map(|&shard| self.get(shard)).collect()
    }

    // ---- A producer's ------------------------------------------------------------------------------------------

    /// Takes the answers that a shard has given.
    pub(super) fn take_results(&mut self, shard: usize, core: &mut ProducerCore) -> Result<(), ClientError> {
        while core.in_flight(shard) > 0 {
            let Some(connection) = &mut self.open[shard] else { return Ok(()) };
            let received = match connection.try_receive() {
                Ok(Some((correlation, reply))) => core.received(shard, correlation, reply, Instant::now()),
                Ok(None) => return Ok(()),
                Err(error) => return Err(self.end_sending(shard, core, error)),
            };
            if let Err(reason) = received {
                let error = ClientError::protocol(connection.address(), reason);
                return Err(self.end_sending(shard, core, error));
            }
        }
        Ok(())
    }

    /// Gives up a connection on which an answer is overdue.
    pub(super) fn end_silent(&mut self, core: &mut ProducerCore, now: Instant) -> Result<(), ClientError> {
        let Some((shard, waited)) = core.overdue(now) else { return Ok(()) };
        let error = ClientError::Timeout { address: self.address(shard), waited };
        Err(self.end_sending(shard, core, error))
    }

    /// Ends a connection: what was in flight on it is unknown.
    pub(super) fn end_sending(
        &mut self,
        shard: usize,
        core: &mut ProducerCore,
        error: ClientError,
    ) -> ClientError {
        self.open[shard] = None;
        core.lost(shard, &error.to_string(), Instant::now());
        error
    }

    // ---- A consumer's ------------------------------------------------------------------------------------------

    /// What is to be handed out now.
    pub(super) fn hand_out(&mut self, reader: &mut Reader) -> Result<Option<Step>, ClientError> {
        let shard = reader.current_shard();
        let connection = shard.and_then(|shard| self.get(shard));
        let step = reader.next_step(connection.map_or(&[], C::last_payload));
        step.map_err(|reason| self.breach(shard.expect("a breach is of a shard"), reader, &reason))
    }

    /// Takes one answer that has come. False when there is none.
    pub(super) fn take_answer(&mut self, reader: &mut Reader) -> Result<bool, ClientError> {
        for shard in reader.waiting_shards() {
            let Some(connection) = &mut self.open[shard] else { continue };
            let (correlation, reply) = match connection.try_receive() {
                Ok(Some(answer)) => answer,
                Ok(None) => continue,
                Err(error) => return Err(self.end_reading(shard, reader, error)),
            };
            return match reader.received(shard, correlation, reply, Instant::now()) {
                Ok(()) => Ok(true),
                Err(ReadError::Refused(failure)) => Err(failure.into()),
                Err(ReadError::Protocol(reason)) => Err(self.breach(shard, reader, &reason)),
            };
        }
        Ok(false)
    }

    /// After a wait: gives up a connection on which an answer is overdue. Not while bytes have come, which may be that
    /// answer.
    pub(super) fn end_overdue(
        &mut self,
        reader: &mut Reader,
        bytes_have_come: bool,
    ) -> Result<(), ClientError> {
        let Some((shard, waited)) = reader.overdue(bytes_have_come, Instant::now()) else { return Ok(()) };
        let error = ClientError::Timeout { address: self.address(shard), waited };
        Err(self.end_reading(shard, reader, error))
    }

    /// Ends a connection: its queues are read again from where the caller has got to.
    pub(super) fn end_reading(
        &mut self,
        shard: usize,
        reader: &mut Reader,
        error: ClientError,
    ) -> ClientError {
        self.open[shard] = None;
        reader.lost(shard);
        error
    }

    fn breach(&mut self, shard: usize, reader: &mut Reader, reason: &str) -> ClientError {
        let error = ClientError::protocol(&self.address(shard), reason);
        self.end_reading(shard, reader, error)
    }

    fn address(&self, shard: usize) -> String {
        self.get(shard).map_or("", C::address).to_owned()
    }
}
