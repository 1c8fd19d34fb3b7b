//! The connection of a command to its broker.

use std::time::Duration;

use clap::Args;

use crate::cli::error::CommandError;
use crate::cli::quantity::Span;
use crate::client::{Client, ClientError, Timeouts};
use crate::limits;

/// The broker that a command talks to.
#[derive(Clone, Debug, Args)]
pub struct ServerArguments {
    /// Address of any shard of the broker
    #[arg(long, value_name = "HOST:PORT", env = "TURBOPUMP_SERVER", default_value = "127.0.0.1:10911")]
    pub server: String,
}

impl ServerArguments {
    pub fn connect(&self) -> Result<Client, CommandError> {
        let mut client = Client::connect(&self.server, Timeouts::default())?;
        print_notices(&mut client);
        Ok(client)
    }
}

/// Tells the user what the client noticed, once.
pub fn print_notices(client: &mut Client) {
    for notice in client.take_notices() {
        eprintln!("turbopump: {notice}");
    }
}

impl From<ClientError> for CommandError {
    fn from(error: ClientError) -> Self {
        let refused = match &error {
            ClientError::Refused(failure) => Some(format!("{:?}", failure.status)),
            _ => None,
        };
        // The refusal's sentence says what to do; its status is for programs.
        match (&error, refused) {
            (ClientError::Refused(failure), Some(status)) => {
                CommandError::failed(&failure.message).with("status", status)
            }
            _ => CommandError::failed(error),
        }
    }
}

/// The length of a lease, when one was named.
pub fn lease_of(span: Option<Span>) -> Result<Option<Duration>, CommandError> {
    let range = Duration::from_millis(limits::LEASE_MS_MIN)..=Duration::from_millis(limits::LEASE_MS_MAX);
    match span {
        Some(Span(lease)) if !range.contains(&lease) => {
            let (least, most) = (Span(*range.start()), Span(*range.end()));
            Err(CommandError::usage(format!("a lease lasts {least} to {most}, not {}", Span(lease))))
        }
        span => Ok(span.map(|span| span.0)),
    }
}

/// A time-out or retention for people and programs: `1h30m`, and in JSON milliseconds.
pub fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
