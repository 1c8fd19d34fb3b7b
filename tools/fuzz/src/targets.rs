//! One program for all targets; TURBOPUMP_FUZZ_TARGET names the one to run.

#![no_main]

use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use turbopump::testing::fuzz::{BYTE_TARGETS, ByteTarget};

static TARGET: OnceLock<ByteTarget> = OnceLock::new();

fn chosen() -> ByteTarget {
    let name = std::env::var("TURBOPUMP_FUZZ_TARGET").unwrap_or_default();
    let found = BYTE_TARGETS.iter().find(|(known, _)| *known == name);
    let names = BYTE_TARGETS.map(|(known, _)| known).join(", ");
    found.unwrap_or_else(|| panic!("TURBOPUMP_FUZZ_TARGET is `{name}`, and must be one of {names}")).1
}

fuzz_target!(|bytes: &[u8]| TARGET.get_or_init(chosen)(bytes));
