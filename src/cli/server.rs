//! The connection of a command to its broker.

use std::ffi::OsString;
use std::fmt::Display;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use clap::builder::FalseyValueParser;

use crate::cli::error::CommandError;
use crate::cli::output::warn;
use crate::cli::quantity::Span;
use crate::client::{Client, ClientError, ConnectOptions, Credentials, Timeouts, Tls};
use crate::limits;
use crate::types::{Secret, SettingsFile};

/// All public authorities together have a few hundred kilobytes.
const AUTHORITIES_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// A file that holds a secret holds little else.
const SECRET_FILE_BYTES_MAX: u64 = 64 * 1024;

/// The broker that a command talks to.
#[derive(Clone, Debug, Args)]
pub struct ServerArguments {
    /// Address of any shard of the broker
    #[arg(long, value_name = "HOST:PORT", env = "TURBOPUMP_SERVER", default_value = "127.0.0.1:10911")]
    pub server: String,
    #[command(flatten)]
    pub key: KeyArguments,
    #[command(flatten)]
    pub tls: TlsArguments,
}

/// Who asks.
#[derive(Clone, Debug, Args)]
pub struct KeyArguments {
    /// Access key, for a broker that asks for one; its secret is proved and never sent
    #[arg(long, value_name = "ID", env = "TURBOPUMP_ACCESS_KEY")]
    pub access_key: Option<String>,
    /// The access key's secret; other users of this machine can see it here, and neither in the environment nor in a file
    #[arg(long, value_name = "SECRET", env = "TURBOPUMP_SECRET_KEY", hide_env_values = true)]
    pub secret_key: Option<Secret>,
    /// File that holds the access key's secret, and wins over the secret itself; line ends after it do not count
    #[arg(long, value_name = "FILE", env = "TURBOPUMP_SECRET_KEY_FILE")]
    pub secret_key_file: Option<PathBuf>,
}

/// Whether to speak TLS, and whom to trust.
#[derive(Clone, Debug, Args)]
pub struct TlsArguments {
    /// Speak TLS to the broker, which is to have a certificate that this system trusts
    #[arg(long, env = "TURBOPUMP_TLS", value_parser = FalseyValueParser::new())]
    pub tls: bool,
    /// PEM file of the authorities to be trusted instead, or of the certificate itself where nobody has signed it; with --tls or
    /// without
    #[arg(long, value_name = "FILE", env = "TURBOPUMP_TLS_CA")]
    pub tls_ca: Option<OsString>,
    /// Name that the broker's certificate is to have [default: the host of each address]; with --tls or without
    #[arg(long, value_name = "NAME", env = "TURBOPUMP_TLS_SERVER_NAME")]
    pub tls_server_name: Option<String>,
}

impl ServerArguments {
    pub fn connect(&self) -> Result<Client, CommandError> {
        let mut client = Client::connect(&self.server, self.options()?)?;
        print_notices(&mut client);
        Ok(client)
    }

    /// The same within other times, and without a word on standard error.
    pub fn connect_quietly(&self, timeouts: Timeouts) -> Result<Client, CommandError> {
        let options = ConnectOptions { timeouts, ..self.options()? };
        Ok(Client::connect(&self.server, options)?)
    }

    fn options(&self) -> Result<ConnectOptions, CommandError> {
        let (credentials, tls) = (self.credentials()?, self.tls.tls()?);
        Ok(ConnectOptions { credentials, tls, ..ConnectOptions::default() })
    }

    /// The same as variables of the environment, for another process of ours: a secret is not seen there.
    pub fn variables(&self) -> Vec<(&'static str, OsString)> {
        let Self { server, key: KeyArguments { access_key, secret_key, secret_key_file }, tls } = self;
        let mut variables = vec![("TURBOPUMP_SERVER", OsString::from(server))];
        variables.extend(access_key.iter().map(|id| ("TURBOPUMP_ACCESS_KEY", id.into())));
        let secret = secret_key.iter().map(|secret| OsString::from_vec(secret.bytes().to_vec()));
        variables.extend(secret.map(|secret| ("TURBOPUMP_SECRET_KEY", secret)));
        variables.extend(secret_key_file.iter().map(|path| ("TURBOPUMP_SECRET_KEY_FILE", path.into())));
        variables.extend(tls.tls.then(|| ("TURBOPUMP_TLS", "true".into())));
        variables.extend(tls.tls_ca.iter().map(|path| ("TURBOPUMP_TLS_CA", path.clone())));
        variables.extend(tls.tls_server_name.iter().map(|name| ("TURBOPUMP_TLS_SERVER_NAME", name.into())));
        variables
    }

    /// Whether TLS is wanted; files are not looked at.
    pub fn asks_for_tls(&self) -> bool {
        self.tls.is_asked_for()
    }

    fn credentials(&self) -> Result<Option<Credentials>, CommandError> {
        let key = self.key.key()?;
        key.map(|(id, secret)| Credentials::new(id, secret).map_err(CommandError::usage)).transpose()
    }
}

impl TlsArguments {
    /// Whether TLS is wanted; files are not looked at.
    fn is_asked_for(&self) -> bool {
        let names_authorities = self.tls_ca.as_ref().is_some_and(|path| !path.is_empty());
        let names_server = self.tls_server_name.as_ref().is_some_and(|name| !name.is_empty());
        self.tls || names_authorities || names_server
    }

    /// Whoever names an authority or a name wants TLS. An empty variable of the environment is one that is not set.
    pub fn tls(&self) -> Result<Option<Tls>, CommandError> {
        let authorities = self.tls_ca.as_ref().filter(|path| !path.is_empty()).map(Path::new);
        let name = self.tls_server_name.as_ref().filter(|name| !name.is_empty());
        if !self.is_asked_for() {
            return Ok(None);
        }
        let tls = match authorities {
            Some(path) => {
                let named = |error: &dyn Display| {
                    CommandError::usage(format!("cannot use --tls-ca {}: {error}", path.display()))
                };
                let file = SettingsFile::read(path, AUTHORITIES_BYTES_MAX).map_err(|error| named(&error))?;
                Tls::trusting(&file.bytes).map_err(|error| named(&error))?
            }
            None => Tls::trusting_the_system().map_err(CommandError::usage)?,
        };
        match name {
            Some(name) => tls.with_server_name(name).map(Some).map_err(CommandError::usage),
            None => Ok(Some(tls)),
        }
    }
}

impl KeyArguments {
    /// The key's id and its secret. An empty variable of the environment is one that is not set.
    pub fn key(&self) -> Result<Option<(&str, Secret)>, CommandError> {
        let secret = match &self.secret_key_file {
            Some(path) if !path.as_os_str().is_empty() => Some(read_secret(path)?),
            _ => self.secret_key.clone().filter(|secret| !secret.bytes().is_empty()),
        };
        match (self.access_key.as_deref().filter(|key| !key.is_empty()), secret) {
            (None, None) => Ok(None),
            (Some(key), Some(secret)) => Ok(Some((key, secret))),
            (Some(key), None) => Err(CommandError::usage(format!(
                "the secret of access key `{key}` is missing: set TURBOPUMP_SECRET_KEY, or name a file with --secret-key-file"
            ))),
            (None, Some(_)) => Err(CommandError::usage(
                "a secret is given, and not whose: set TURBOPUMP_ACCESS_KEY, or name the access key with --access-key",
            )),
        }
    }
}

/// The secret in a file, without the line end that editors and `echo` put after it.
fn read_secret(path: &Path) -> Result<Secret, CommandError> {
    let file = SettingsFile::read(path, SECRET_FILE_BYTES_MAX).map_err(|error| {
        CommandError::usage(format!("cannot read --secret-key-file {}: {error}", path.display()))
    })?;
    let end = file.bytes.iter().rposition(|byte| !matches!(byte, b'\r' | b'\n')).map_or(0, |last| last + 1);
    if end == 0 {
        let message = format!("--secret-key-file {} is empty: it is to hold the secret", path.display());
        return Err(CommandError::usage(message));
    }
    Ok(Secret::new(&file.bytes[..end]))
}

/// Tells the user what the client noticed, once.
pub fn print_notices(client: &mut Client) {
    for notice in client.take_notices() {
        warn(notice);
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
