//! The `turbopump` program: see `turbopump --help`.

#![deny(unsafe_code)]

use std::process::ExitCode;

use turbopump::runtime::host::CountingAllocator;

/// Counts allocations, so that `status` and `bench` can tell how many a message costs.
#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

fn main() -> ExitCode {
    turbopump::cli::main(std::env::args_os())
}
