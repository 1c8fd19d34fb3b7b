//! The durability promises of log, index and broker, over a disk that fails on a seeded plan and an executor whose
//! order a seed picks. Everything a run does follows from its seed; a failure names it.
//!
//! `TURBOPUMP_SWEEP=full` crashes at every step instead of a sample.

mod bounds;
mod check_sweep;
mod checks;
mod clocks;
mod crash_sweep;
mod damage;
mod determinism;
mod disk_faults;
mod first_use;
mod gathering;
mod groups;
mod held;
mod held_sweep;
mod holes;
mod index_health;
mod instances;
mod keys;
mod lease_sweep;
mod leases;
mod ledger;
mod locks;
mod lost_ends;
mod matrix;
mod model;
mod node;
mod one_state;
mod pairs;
mod properties;
mod purges;
mod readers;
mod reading;
mod redrive_sweep;
mod redrives;
mod restarts;
mod retained;
mod send_back_sweep;
mod sharing;
mod stages;
mod stretches;
mod supply;
mod sweep;
mod table;
mod workload;
mod writing;
