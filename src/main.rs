//! The `turbopump` program: see `turbopump --help`.

#![deny(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    turbopump::cli::main(std::env::args_os())
}
