//! Asks a broker again and again, in a thread of its own, and connects again when the connection is lost.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::picture::Picture;
use super::sample::{Asked, Sample};
use crate::cli::error::CommandError;
use crate::cli::server::ServerArguments;
use crate::client::{Client, Timeouts};
use crate::types::GroupName;

/// Rates are wanted soon after the first picture, which has none.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// Somebody waits in front of the screen.
pub const TIMEOUTS: Timeouts = Timeouts { connect: Duration::from_secs(5), request: Duration::from_secs(10) };

/// What was heard of the broker.
pub enum News {
    Picture(Box<Picture>),
    /// The connection is lost, for this reason; another one is being tried.
    Lost(String),
}

pub struct Watcher {
    news: Receiver<News>,
    groups: Sender<GroupName>,
}

impl Watcher {
    /// Asks over `client` every `interval`, for as long as the watcher is there.
    pub fn start(server: ServerArguments, client: Client, asked: Asked, interval: Duration) -> Self {
        let (tell, news) = channel();
        let (groups, wanted) = channel();
        let mut watch = Watch { server, client: Some(client), asked, interval, before: None };
        thread::spawn(move || watch.run(&tell, &wanted));
        Self { news, groups }
    }

    /// What came since the last call; the end of the thread is none, as it ends with the program only.
    pub fn news(&self) -> Option<News> {
        self.news.try_recv().ok()
    }

    /// The members of this group are wanted from now on.
    pub fn watch_group(&self, group: GroupName) {
        // The thread is there for as long as this is.
        let _ = self.groups.send(group);
    }
}

struct Watch {
    server: ServerArguments,
    client: Option<Client>,
    asked: Asked,
    interval: Duration,
    before: Option<Sample>,
}

impl Watch {
    fn run(&mut self, tell: &Sender<News>, wanted: &Receiver<GroupName>) {
        loop {
            let begun = Instant::now();
            let is_first = self.before.is_none();
            let news = match self.look() {
                Ok(picture) => News::Picture(Box::new(picture)),
                Err(error) => {
                    (self.client, self.before) = (None, None);
                    News::Lost(error.to_string())
                }
            };
            if tell.send(news).is_err() {
                return;
            }
            let pause = if is_first { self.interval.min(FIRST_PAUSE) } else { self.interval };
            match wanted.recv_timeout(pause.saturating_sub(begun.elapsed())) {
                Ok(group) => self.asked.members_of = Some(group),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn look(&mut self) -> Result<Picture, CommandError> {
        let client = match &mut self.client {
            Some(client) => client,
            None => self.client.insert(self.server.connect_quietly(TIMEOUTS)?),
        };
        let sample = Sample::take(client, &self.asked)?;
        let picture = Picture::of(self.before.as_ref(), &sample);
        // Rates of less than half an interval would jump.
        let is_new =
            |before: &Sample| sample.at.duration_since(before.at) >= self.interval.min(FIRST_PAUSE) / 2;
        if self.before.as_ref().is_none_or(is_new) {
            self.before = Some(sample);
        }
        Ok(picture)
    }
}
