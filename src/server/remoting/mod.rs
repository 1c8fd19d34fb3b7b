//! RocketMQ's own protocol on one shard, which its clients and tools see as a broker and a name server.

mod answer;
mod connection;
mod consumers;
mod expressions;
mod groups;
mod locks;
mod names;
mod offsets;
mod port;
mod pulling;
mod queries;
mod questions;
mod rates;
mod recalls;
mod records;
mod replying;
mod requests;
mod retries;
mod runtime_info;
mod sending;
mod sessions;
mod settings;
mod signed;
mod topics;
mod transactions;

pub(crate) use connection::{remoting_refusal, serve_remoting};
pub(crate) use port::{RemotingOptions, RemotingPort};
