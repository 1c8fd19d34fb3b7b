//! Ctrl-C, SIGTERM and the end of the terminal (SIGHUP) for commands that have something to finish.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use crate::cli::error::CommandError;

/// A flag that the first signal sets. The second ends the process at once.
pub fn stop_flag() -> Result<Arc<AtomicBool>, CommandError> {
    let flag = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        // The order matters: the shutdown looks at the flag before the same signal sets it.
        signal_hook::flag::register_conditional_shutdown(signal, 130, Arc::clone(&flag))
            .and_then(|_| signal_hook::flag::register(signal, Arc::clone(&flag)))
            .map_err(|error| CommandError::failed(format!("cannot handle signals: {error}")))?;
    }
    Ok(flag)
}
