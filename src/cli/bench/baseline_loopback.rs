//! What loopback TCP can carry between the broker's core and the bench's, without a protocol.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crate::cli::bench::worker::prepare_thread;

/// Per call of either side: what the broker and the bench use under load.
const CALL_BYTES: usize = 128 * 1024;

/// Cores of the two ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LoopbackPlan {
    pub sender_core: Option<usize>,
    pub receiver_core: Option<usize>,
    pub duration: Duration,
}

impl LoopbackPlan {
    /// Bytes per second from one thread to the other.
    pub fn measure(&self) -> io::Result<f64> {
        let listener = TcpListener::bind(("127.0.0.1", 0))?;
        let address = listener.local_addr()?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || -> io::Result<()> {
                prepare_thread(self.sender_core)?;
                let mut stream = TcpStream::connect(address)?;
                let bytes = vec![0xA5; CALL_BYTES];
                let begin = Instant::now();
                while begin.elapsed() < self.duration {
                    stream.write_all(&bytes)?;
                }
                Ok(())
            });
            let receiver = scope.spawn(move || receive(listener, self.receiver_core));
            sender.join().expect("the sender does not panic")?;
            receiver.join().expect("the receiver does not panic")
        })
    }
}

fn receive(listener: TcpListener, core: Option<usize>) -> io::Result<f64> {
    prepare_thread(core)?;
    let (mut stream, _) = listener.accept()?;
    let mut bytes = vec![0; CALL_BYTES];
    let begin = Instant::now();
    let mut total = 0_u64;
    loop {
        let count = stream.read(&mut bytes)?;
        if count == 0 {
            return Ok(total as f64 / begin.elapsed().as_secs_f64());
        }
        total += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive() {
        let plan =
            LoopbackPlan { sender_core: None, receiver_core: None, duration: Duration::from_millis(20) };
        assert!(plan.measure().expect("loopback") > 1e6);
    }
}
