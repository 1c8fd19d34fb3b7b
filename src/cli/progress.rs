//! The progress bar of long commands: on a terminal only, so that logs stay clean.

use std::io::IsTerminal;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::cli::output::{grouped, on_one_line, tell};

/// A bar over bytes, or a counter where the end is not known; nothing when standard error is no terminal.
#[derive(Clone)]
pub struct Progress {
    bar: Option<ProgressBar>,
}

impl Progress {
    pub fn new(total_bytes: Option<u64>) -> Self {
        if !std::io::stderr().is_terminal() {
            return Self { bar: None };
        }
        let (bar, template) = match total_bytes {
            Some(bytes) => {
                (ProgressBar::new(bytes), "{wide_bar} {percent}% {bytes_per_sec} {msg} {eta} left")
            }
            None => (ProgressBar::new_spinner(), "{spinner} {bytes} {bytes_per_sec} {msg}"),
        };
        let style = ProgressStyle::with_template(template).expect("a template that a test has read");
        bar.set_style(style);
        bar.enable_steady_tick(Duration::from_millis(200));
        Self { bar: Some(bar) }
    }

    pub fn show(&self, bytes: u64, messages: u64) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(format!("{} acknowledged", grouped(messages)));
        }
    }

    /// Shows how much of what is stored was checked, and the shard that is being checked.
    pub fn show_checked(&self, bytes: u64, shard: u16) {
        if let Some(bar) = &self.bar {
            bar.set_position(bytes);
            bar.set_message(format!("shard {shard}"));
        }
    }

    /// Prints a line on standard error without disturbing the bar. A server's words may be in it.
    pub fn print(&self, line: &str) {
        let line = on_one_line(line);
        match &self.bar {
            Some(bar) => bar.suspend(|| tell(line)),
            None => tell(line),
        }
    }

    pub fn finish(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn templates_are_valid() {
        for template in [
            "{wide_bar} {percent}% {bytes_per_sec} {msg} {eta} left",
            "{spinner} {bytes} {bytes_per_sec} {msg}",
        ] {
            assert!(ProgressStyle::with_template(template).is_ok(), "{template}");
        }
    }
}
