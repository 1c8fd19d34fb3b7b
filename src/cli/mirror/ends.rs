//! The two brokers of a mirror: how each is reached, with a key and TLS of its own, and what they are to each other.

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::api::Status;
use crate::cli::error::CommandError;
use crate::cli::server::{KeyArguments, ServerArguments, TlsArguments};
use crate::client::{Client, ClientError};
use crate::types::{GroupName, NodeId, Secret};

/// The broker that is copied from.
#[derive(Clone, Debug, Args)]
pub struct FromArguments {
    /// Address of any shard of the broker to copy from
    #[arg(long, value_name = "HOST:PORT", env = "TURBOPUMP_FROM")]
    pub from: String,
    /// Access key there
    #[arg(long, value_name = "ID", env = "TURBOPUMP_FROM_ACCESS_KEY")]
    pub from_access_key: Option<String>,
    /// Its secret; other users of this machine can see it here, and neither in the environment nor in a file
    #[arg(long, value_name = "SECRET", env = "TURBOPUMP_FROM_SECRET_KEY", hide_env_values = true)]
    pub from_secret_key: Option<Secret>,
    /// File that holds its secret, and wins over the secret itself
    #[arg(long, value_name = "FILE", env = "TURBOPUMP_FROM_SECRET_KEY_FILE")]
    pub from_secret_key_file: Option<PathBuf>,
    /// Speak TLS to it
    #[arg(long, env = "TURBOPUMP_FROM_TLS", value_parser = FalseyValueParser::new())]
    pub from_tls: bool,
    /// PEM file of the authorities to be trusted there
    #[arg(long, value_name = "FILE", env = "TURBOPUMP_FROM_TLS_CA")]
    pub from_tls_ca: Option<OsString>,
    /// Name that its certificate is to have
    #[arg(long, value_name = "NAME", env = "TURBOPUMP_FROM_TLS_SERVER_NAME")]
    pub from_tls_server_name: Option<String>,
}

/// The broker that is copied to.
#[derive(Clone, Debug, Args)]
pub struct ToArguments {
    /// Address of any shard of the broker to copy to
    #[arg(long, value_name = "HOST:PORT", env = "TURBOPUMP_TO")]
    pub to: String,
    /// Access key there
    #[arg(long, value_name = "ID", env = "TURBOPUMP_TO_ACCESS_KEY")]
    pub to_access_key: Option<String>,
    /// Its secret; other users of this machine can see it here, and neither in the environment nor in a file
    #[arg(long, value_name = "SECRET", env = "TURBOPUMP_TO_SECRET_KEY", hide_env_values = true)]
    pub to_secret_key: Option<Secret>,
    /// File that holds its secret, and wins over the secret itself
    #[arg(long, value_name = "FILE", env = "TURBOPUMP_TO_SECRET_KEY_FILE")]
    pub to_secret_key_file: Option<PathBuf>,
    /// Speak TLS to it
    #[arg(long, env = "TURBOPUMP_TO_TLS", value_parser = FalseyValueParser::new())]
    pub to_tls: bool,
    /// PEM file of the authorities to be trusted there
    #[arg(long, value_name = "FILE", env = "TURBOPUMP_TO_TLS_CA")]
    pub to_tls_ca: Option<OsString>,
    /// Name that its certificate is to have
    #[arg(long, value_name = "NAME", env = "TURBOPUMP_TO_TLS_SERVER_NAME")]
    pub to_tls_server_name: Option<String>,
}

/// One of the two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Source,
    Target,
}

/// Both, reached, with the names under which the places of this mirror are kept.
pub struct Ends {
    pub source: Client,
    pub target: Client,
    pub source_node: NodeId,
    pub target_node: NodeId,
}

impl FromArguments {
    fn server(&self) -> ServerArguments {
        ServerArguments {
            server: self.from.clone(),
            key: KeyArguments {
                access_key: self.from_access_key.clone(),
                secret_key: self.from_secret_key.clone(),
                secret_key_file: self.from_secret_key_file.clone(),
            },
            tls: TlsArguments {
                tls: self.from_tls,
                tls_ca: self.from_tls_ca.clone(),
                tls_server_name: self.from_tls_server_name.clone(),
            },
        }
    }
}

impl ToArguments {
    fn server(&self) -> ServerArguments {
        ServerArguments {
            server: self.to.clone(),
            key: KeyArguments {
                access_key: self.to_access_key.clone(),
                secret_key: self.to_secret_key.clone(),
                secret_key_file: self.to_secret_key_file.clone(),
            },
            tls: TlsArguments {
                tls: self.to_tls,
                tls_ca: self.to_tls_ca.clone(),
                tls_server_name: self.to_tls_server_name.clone(),
            },
        }
    }
}

impl End {
    /// What its flags and variables begin with.
    fn prefix(self) -> &'static str {
        match self {
            End::Source => "from",
            End::Target => "to",
        }
    }

    /// Names this end in an error.
    pub fn failed(self, error: impl Into<CommandError>) -> CommandError {
        match error.into() {
            CommandError::Usage(message) => CommandError::Usage(self.renamed(&message)),
            CommandError::Failed { message, details } => {
                let message = format!("the broker to copy {}: {}", self.prefix(), self.renamed(&message));
                CommandError::Failed { message, details }
            }
            gone @ CommandError::ReaderGone => gone,
        }
    }

    /// The flags and variables of commands that have one broker, as those of this end.
    fn renamed(self, message: &str) -> String {
        let prefix = self.prefix();
        message
            .replace("TURBOPUMP_", &format!("TURBOPUMP_{}_", prefix.to_uppercase()))
            .replace("with --server", &format!("with --{prefix}"))
            .replace("--secret-key", &format!("--{prefix}-secret-key"))
            .replace("--access-key", &format!("--{prefix}-access-key"))
            .replace("--tls-ca", &format!("--{prefix}-tls-ca"))
            .replace("leave --tls out", &format!("leave --{prefix}-tls out"))
    }
}

impl fmt::Display for End {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            End::Source => "source",
            End::Target => "target",
        })
    }
}

impl Ends {
    /// Reaches both, and refuses one that would be copied onto itself.
    pub fn connect(from: &FromArguments, to: &ToArguments) -> Result<Self, CommandError> {
        let source = from.server().connect().map_err(|error| End::Source.failed(error))?;
        let target = to.server().connect().map_err(|error| End::Target.failed(error))?;
        let source_node = node_of(End::Source, &source)?;
        let target_node = node_of(End::Target, &target)?;
        if source_node == target_node {
            return Err(CommandError::usage(format!(
                "{} and {} lead to the same broker, node {source_node}: a topic is not copied onto itself",
                from.from, to.to
            )));
        }
        Ok(Self { source, target, source_node, target_node })
    }

    /// The group at the source whose places say how far topics were copied to the target.
    pub fn source_group(&self) -> GroupName {
        group(&format!("mirror-to-{}", self.target_node))
    }

    /// The group at the target whose places say where the copies end.
    pub fn target_group(&self) -> GroupName {
        group(&format!("mirror-from-{}", self.source_node))
    }

    /// The group at the target that would be there if it was mirrored to the source.
    pub fn backward_group(&self) -> GroupName {
        group(&format!("mirror-to-{}", self.source_node))
    }

    /// Connections of its own to both.
    pub fn another(&self) -> Result<Self, CommandError> {
        Ok(Self {
            source: self.source.another().map_err(|error| End::Source.failed(error))?,
            target: self.target.another().map_err(|error| End::Target.failed(error))?,
            ..*self
        })
    }
}

/// What one end has answered, or that it is away.
#[derive(Debug)]
pub struct EndError {
    pub end: End,
    pub error: ClientError,
}

impl EndError {
    pub fn source(error: ClientError) -> Self {
        Self { end: End::Source, error }
    }

    pub fn target(error: ClientError) -> Self {
        Self { end: End::Target, error }
    }

    /// Whether it may be over soon.
    pub fn is_passing(&self) -> bool {
        match &self.error {
            ClientError::Refused(failure) => failure.status.is_transient(),
            error => error.is_connection_loss(),
        }
    }
}

impl From<EndError> for CommandError {
    fn from(failed: EndError) -> Self {
        failed.end.failed(failed.error)
    }
}

/// Who says who it is can be told from the other end.
fn node_of(end: End, client: &Client) -> Result<NodeId, CommandError> {
    let release = "it is of an earlier release, and does not say which node it is";
    client.node().ok_or_else(|| end.failed(CommandError::failed(release)))
}

fn group(name: &str) -> GroupName {
    name.parse().expect("letters, digits and dashes")
}

/// Whether a refusal has this status.
pub fn is_refused(error: &ClientError, status: Status) -> bool {
    matches!(error, ClientError::Refused(failure) if failure.status == status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_names_the_flags_of_its_end() {
        let text = "the secret is missing: set TURBOPUMP_SECRET_KEY, or name a file with --secret-key-file";
        let error = End::Source.failed(CommandError::usage(text));
        assert_eq!(
            error.to_string(),
            "the secret is missing: set TURBOPUMP_FROM_SECRET_KEY, or name a file with --from-secret-key-file"
        );
        let error = End::Target.failed(CommandError::failed("no broker answers: name another with --server"));
        assert_eq!(error.to_string(), "the broker to copy to: no broker answers: name another with --to");
    }
}
