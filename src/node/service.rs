//! What a service manager is told, where one has started this process and listens: systemd's `Type=notify` and `WatchdogSec=`.

use std::time::Duration;

use sd_notify::NotifyState;

/// The manager that `NOTIFY_SOCKET` names, if it does. What it cannot be told is not said: the broker works without it.
#[derive(Debug)]
pub(super) struct ServiceManager {
    /// How often it is to hear that all shards turn. `None`: it does not watch.
    watchdog: Option<Duration>,
}

impl ServiceManager {
    /// Looks at the environment, and tells whoever listens that the node begins.
    pub fn of_process() -> Self {
        tell(&[NotifyState::Status("recovering")]);
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// A third of the time after which a silent process is ended: two words may be late.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|after| (after / 3).max(Duration::from_millis(1)))
    }

    /// Requests are taken; the text is shown by `systemctl status`.
    pub fn ready(&self, text: &str) {
        tell(&[NotifyState::Ready, NotifyState::Status(text)]);
    }

    /// Files of settings are read again; `ready` ends it.
    pub fn reloading(&self) {
        let now = NotifyState::monotonic_usec_now().ok();
        tell(&[NotifyState::Reloading].into_iter().chain(now).collect::<Vec<_>>());
    }

    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping, NotifyState::Status("stopping")]);
    }

    /// All shards turn.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }
}

fn tell(states: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(states) {
        tracing::debug!(target: "node", "the service manager cannot be told: {error}");
    }
}
