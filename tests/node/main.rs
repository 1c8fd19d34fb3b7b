//! The broker as its users meet it: the real binary on a real disk, its command line, its signals and its sockets.

#[path = "../support/mod.rs"]
mod support;

mod access;
mod bounds;
mod catch_up;
mod command_line;
mod command_refusals;
mod damage;
mod descriptors;
mod doors;
mod encoded;
mod examples;
mod first_use;
mod formats;
mod full_disk;
mod group_describe;
mod groups;
mod handshakes;
mod http;
mod http_connections;
mod http_framing;
mod https;
mod identity;
mod instances;
mod layouts;
mod logging;
mod lost_files;
mod messages;
mod odd_files;
mod polling;
mod readme;
mod receiving;
mod refusals;
mod remoting;
mod remoting_sends;
mod retention;
mod sessions;
mod settings_files;
mod shared_client;
mod sizes;
mod standard_streams;
mod start;
mod strangers;
mod tls_clients;
mod verify;
