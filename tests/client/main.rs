//! The client library against a broker that exists for these tests only: it keeps everything in memory and misbehaves
//! when told to. The native protocol's codec is the product's own; what is under test is everything above it.

mod asynchronous;
mod asynchronous_group;
mod connection;
mod consumer;
mod fake_broker;
mod group;
mod producer;
mod shared;
