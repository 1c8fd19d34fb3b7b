//! The loop of `top` in a terminal: keys, news of the broker, and signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crossterm::event::{self, Event, KeyEventKind};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::grid::Grid;
use super::keys::{Looks, Outcome};
use super::picture::Picture;
use super::screen::Screen;
use super::view;
use super::watcher::{News, Watcher};
use crate::cli::error::CommandError;

/// How long a signal, or news of the broker, may wait to be seen.
const LOOK_INTERVAL: Duration = Duration::from_millis(100);

/// All that is shown.
pub struct Shown {
    pub looks: Looks,
    /// The address that was named.
    pub server: String,
    pub picture: Option<Box<Picture>>,
    /// When it came.
    pub taken: Instant,
    /// Rows of the view.
    pub grid: Grid,
    /// Why there is no newer one.
    pub lost: Option<String>,
    pub is_coloured: bool,
}

impl Shown {
    pub fn new(server: &str) -> Self {
        Self {
            looks: Looks::default(),
            server: server.to_owned(),
            picture: None,
            taken: Instant::now(),
            grid: Grid::default(),
            lost: None,
            is_coloured: std::env::var_os("NO_COLOR").is_none_or(|set| set.is_empty()),
        }
    }

    pub fn take(&mut self, news: News) {
        match news {
            // It goes on from the newest one when it is let.
            News::Picture(_) if self.looks.is_paused => self.lost = None,
            News::Picture(picture) => {
                (self.picture, self.taken, self.lost) = (Some(picture), Instant::now(), None);
                self.renew();
            }
            News::Lost(reason) => self.lost = Some(reason),
        }
    }

    /// Makes the rows anew, after a key or a new picture.
    pub fn renew(&mut self) {
        if let Some(picture) = &self.picture {
            self.grid = self.looks.grid(picture);
        }
    }
}

/// Shows until somebody quits, or a signal ends it.
pub fn run(watcher: &Watcher, server: &str) -> Result<(), CommandError> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ends))
            .map_err(|error| CommandError::failed(format!("cannot handle signals: {error}")))?;
    }
    let failed = |error| CommandError::failed(format!("cannot use the terminal: {error}"));
    let mut shown = Shown::new(server);
    let mut screen = Screen::open().map_err(failed)?;
    while !ends.load(Ordering::SeqCst) {
        while let Some(news) = watcher.news() {
            shown.take(news);
        }
        screen.draw(|frame| view::draw(frame, &shown)).map_err(failed)?;
        if !event::poll(LOOK_INTERVAL).map_err(failed)? {
            continue;
        }
        let Event::Key(key) = event::read().map_err(failed)? else { continue };
        if key.kind == KeyEventKind::Release {
            continue;
        }
        match shown.looks.press(key, &shown.grid) {
            Outcome::Quit => break,
            Outcome::Watch(group) => watcher.watch_group(group),
            Outcome::Nothing => {}
        }
        shown.renew();
    }
    Ok(())
}
