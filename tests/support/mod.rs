//! What the black-box tests share: the real binary on a real directory, started, stopped and killed.
//!
//! Every test binary uses its own part of this.
#![allow(dead_code)]

pub mod command;
pub mod copies;
pub mod directory;
pub mod forbidden;
pub mod http_connection;
pub mod load;
pub mod machine;
pub mod node;
pub mod terminal;
