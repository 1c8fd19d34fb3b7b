//! RocketMQ's own protocol on one shard, which its clients and tools see as a broker and a name server.

mod administration;
mod answer;
mod connection;
mod expressions;
mod locks;
mod names;
mod offsets;
mod port;
mod pulling;
mod queries;
mod questions;
mod recalls;
mod records;
mod replying;
mod requests;
mod retries;
mod sending;
mod sessions;
mod signed;
mod transactions;

pub(crate) use connection::{remoting_refusal, serve_remoting};
pub(crate) use port::{RemotingOptions, RemotingPort};
