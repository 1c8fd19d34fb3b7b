//! The `turbopump` program: see `turbopump --help`.

#![deny(unsafe_code)]

use std::process::ExitCode;

use turbopump::shard::host::CountingAllocator;

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    turbopump::cli::main(std::env::args_os())
}
