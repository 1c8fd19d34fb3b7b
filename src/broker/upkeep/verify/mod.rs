//! Checking a stopped shard: everything that is stored against everything else, with nothing changed.
//!
//! | what is read                | what it is held against |
//! | --------------------------- | ----------------------- |
//! | manifest, both copies       | their checksums; each other |
//! | segments' names and sizes   | manifest, snapshots, headers (`check_shard`) |
//! | log, every byte             | checksums; the order of each queue; where it is known to have ended |
//! | snapshots, both             | checksums; whether they can be decoded |
//! | index: its blocks           | checksums; the level above |
//! | index: its entries          | the log's batches, both ways, up to the snapshot's position |
//! | keys: their blocks          | checksums |
//! | keys: their entries         | every key in the log of their range |
//! | offsets and leases          | the ends of their queues |
//!
//! What is wrong is either **damage**, which only a copy can make good, or **derived**: the broker makes it anew by
//! itself.

mod checked;
mod holding;
mod log_pass;

pub use checked::{Checked, Finding, verify_shard};
