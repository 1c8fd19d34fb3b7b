//! What a running broker tells its operator, on standard error.

use std::io;

use tracing::Subscriber;
use tracing_appender::non_blocking::{NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::{LookupSpan, Registry};
use tracing_subscriber::reload;
use tracing_subscriber::util::SubscriberInitExt;

use crate::cli::log_level::{LogFormat, LogLevels};

/// Lines that wait for a standard error that is not read; further ones are dropped, so that no core waits for it.
const LINES_WAITING_MAX: usize = 1024;

/// The way to standard error. What was told before this is dropped is written before its drop returns.
pub struct Notices {
    levels: LevelHandle,
    _writer: WorkerGuard,
}

/// Changes which events are written while the broker runs; works from any thread.
#[derive(Clone)]
pub struct LevelHandle(reload::Handle<Targets, Registry>);

impl Notices {
    /// Writes events of these levels from here on, one line each: time, level, target, text and fields.
    pub fn to_standard_error(levels: &LogLevels, format: LogFormat) -> Self {
        let builder = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(LINES_WAITING_MAX);
        let (writer, guard) = builder.finish(io::stderr());
        // The filter stands below all else: what it leaves out is not formatted, and costs one load where it is told.
        let (filter, handle) = reload::Layer::new(levels.filter());
        let lines = tracing_subscriber::registry().with(filter).with(lines(writer, format));
        // A second broker in one process, as tests may have, tells through the first one's.
        let _ = lines.try_init();
        Self { levels: LevelHandle(handle), _writer: guard }
    }

    pub fn levels(&self) -> LevelHandle {
        self.levels.clone()
    }
}

impl LevelHandle {
    /// Writes events of these levels from now on.
    pub fn set(&self, levels: &LogLevels) {
        // It fails when nothing is written any more.
        let _ = self.0.reload(levels.filter());
    }
}

fn lines<S>(writer: NonBlocking, format: LogFormat) -> Box<dyn Layer<S> + Send + Sync>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let lines = tracing_subscriber::fmt::layer().with_writer(writer).with_ansi(false);
    match format {
        LogFormat::Text => lines.boxed(),
        LogFormat::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).boxed()
        }
    }
}
