//! What a running broker tells its operator, on standard error.

use std::io;

use tracing::Level;
use tracing_appender::non_blocking::{NonBlockingBuilder, WorkerGuard};

/// Lines that wait for a standard error that is not read; further ones are dropped, so that no core waits for it.
const LINES_WAITING_MAX: usize = 1024;

/// Writes events to standard error from here on, one line each: time, level, target, text and fields. What was told
/// before the guard is dropped is written before its drop returns.
pub fn to_standard_error() -> WorkerGuard {
    let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX);
    let (writer, guard) = builder.finish(io::stderr());
    let lines = tracing_subscriber::fmt().with_writer(writer).with_ansi(false).with_max_level(Level::INFO);
    // A second broker in one process, as tests may have, tells through the first one's.
    let _ = lines.try_init();
    guard
}
