//! The executor, for code that is tested on another one.

use super::tick;

/// What runs the tasks of a connection.
pub(crate) trait Executor {
    /// Starts a task, which goes on whether its end is waited for or not.
    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> impl Future<Output = ()>;

    /// Lets others have the core, and the executor look at what has come.
    fn yield_to_reactor(&self) -> impl Future<Output = ()>;
}

/// The executor of a shard.
#[derive(Clone, Copy)]
pub(crate) struct Glommio;

impl Executor for Glommio {
    fn spawn(&self, task: impl Future<Output = ()> + 'static) -> impl Future<Output = ()> {
        let handle = glommio::spawn_local(task).detach();
        async move {
            handle.await;
        }
    }

    fn yield_to_reactor(&self) -> impl Future<Output = ()> {
        tick::yield_to_reactor()
    }
}
