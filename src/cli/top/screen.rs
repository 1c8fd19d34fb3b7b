//! The terminal while `top` has it: whatever ends the program, it is as it was afterwards.

use std::io::{self, Stdout};
use std::panic;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

use crossterm::cursor::Show;
use crossterm::execute;
use crossterm::terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode};
use ratatui::backend::CrosstermBackend;
use ratatui::{Frame, Terminal};

/// The terminal is not as it was found.
static IS_TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// A terminal in raw mode, with a screen beside the one that was there. Dropped, it gives both back; a panic does so before its
/// message is printed, since a release build ends by it.
pub struct Screen {
    terminal: Terminal<CrosstermBackend<Stdout>>,
}

impl Screen {
    pub fn open() -> io::Result<Self> {
        HOOK.call_once(|| {
            let report = panic::take_hook();
            panic::set_hook(Box::new(move |panic| {
                give_back();
                report(panic);
            }));
        });
        enable_raw_mode()?;
        IS_TAKEN.store(true, Ordering::SeqCst);
        let opened = execute!(io::stdout(), EnterAlternateScreen)
            .and_then(|()| Terminal::new(CrosstermBackend::new(io::stdout())));
        match opened {
            Ok(terminal) => Ok(Self { terminal }),
            Err(error) => {
                give_back();
                Err(error)
            }
        }
    }

    pub fn draw(&mut self, draw: impl FnOnce(&mut Frame<'_>)) -> io::Result<()> {
        self.terminal.draw(draw).map(|_| ())
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        give_back();
    }
}

/// Nothing can be said about a failure: there is nowhere to say it.
fn give_back() {
    if IS_TAKEN.swap(false, Ordering::SeqCst) {
        let _ = disable_raw_mode();
        let _ = execute!(io::stdout(), LeaveAlternateScreen, Show);
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use pty_process::blocking::{Command, open};
    use rustix::termios::{LocalModes, tcgetattr};

    use super::*;

    #[test]
    #[ignore = "ends badly: the test below runs it, in a terminal of its own"]
    fn panics_while_it_has_the_terminal() {
        let _screen = Screen::open().expect("a terminal");
        panic!("the reason");
    }

    #[test]
    fn a_panic_gives_the_terminal_back_before_it_is_told() {
        let (mut pty, pts) = open().expect("a pseudo-terminal");
        let program = std::env::current_exe().expect("this one");
        let arguments = [
            "--exact",
            "--ignored",
            "--nocapture",
            "cli::top::screen::tests::panics_while_it_has_the_terminal",
        ];
        let mut command = Command::new(program).args(arguments);
        let mut child = command.spawn_borrowed(&pts).expect("it can be run");
        assert!(!child.wait().expect("it is ours").success());
        let modes = tcgetattr(&pty).expect("a terminal").local_modes;
        assert!(modes.contains(LocalModes::ICANON | LocalModes::ECHO));
        drop((pts, command));
        let mut output = Vec::new();
        // It ends with an error, when the other side is closed.
        let _ = pty.read_to_end(&mut output);
        let output = String::from_utf8_lossy(&output);
        let at = |text: &str| output.find(text).unwrap_or_else(|| panic!("no {text:?} in {output:?}"));
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l"));
        assert!(at("\u{1b}[?1049l") < at("the reason"), "{output:?}");
    }
}
