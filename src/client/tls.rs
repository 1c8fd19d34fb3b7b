//! TLS to a broker: whom to trust, and what it means when it fails.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, ClientConnection, Error, OtherError, RootCertStore,
    StreamOwned,
};

use super::core::{CoreError, ProtocolCore};
use super::error::ClientError;
use super::stream::Socket;
use crate::wire::frame::{ALPN_NATIVE, PREFACE_MAGIC};

/// Where systems keep the certificates of public authorities: Debian and Alpine, Fedora, openSUSE, others.
const SYSTEM_AUTHORITIES: [&str; 5] = [
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
];

/// Connections within TLS, to a broker with a certificate that is trusted. The handshake is 1.2 or 1.3.
///
/// ```no_run
/// use turbopump::client::{Client, ConnectOptions, Tls};
///
/// let authority = std::fs::read("authority.pem")?;
/// let options = ConnectOptions { tls: Some(Tls::trusting(&authority)?), ..ConnectOptions::default() };
/// let client = Client::connect("broker.example.org:10911", options)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Tls {
    config: Arc<ClientConfig>,
    /// `None`: the host of each address.
    server_name: Option<ServerName<'static>>,
}

/// Why TLS cannot be spoken, before anybody was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsOptionsError {
    #[error("it holds no certificate: name the PEM file that begins with -----BEGIN CERTIFICATE-----")]
    NoCertificate,
    #[error("a certificate in it cannot be read: {0}")]
    Certificate(String),
    #[error(
        "this system keeps no certificates of public authorities where they are looked for: name those to be trusted, \
         with --tls-ca FILE or `Tls::trusting`"
    )]
    NoAuthorities,
    #[error(
        "`{0}` is no name that a certificate could have: it is a host name or an address, without a port"
    )]
    ServerName(String),
}

impl Tls {
    /// Trusts who has a certificate from one of these authorities, PEM text; for a certificate that nobody signed, these are
    /// that certificate.
    pub fn trusting(authorities: &[u8]) -> Result<Self, TlsOptionsError> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(authorities) {
            let damaged = |error: &dyn std::fmt::Display| TlsOptionsError::Certificate(error.to_string());
            let certificate = certificate.map_err(|error| damaged(&error))?;
            roots.add(certificate).map_err(|error| damaged(&error))?;
        }
        if roots.is_empty() { Err(TlsOptionsError::NoCertificate) } else { Ok(Self::of(roots)) }
    }

    /// Trusts whom this system trusts: the authorities in the file that the variable SSL_CERT_FILE names, or else in the one
    /// that the system has.
    pub fn trusting_the_system() -> Result<Self, TlsOptionsError> {
        let named = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty());
        let paths = named.iter().map(Path::new).chain(SYSTEM_AUTHORITIES.iter().map(Path::new));
        let found = paths
            .take(if named.is_some() { 1 } else { usize::MAX })
            .find_map(|path| std::fs::read(path).ok());
        let mut roots = RootCertStore::empty();
        // Old ones that cannot be used are among them on every system.
        let certificates = CertificateDer::pem_slice_iter(found.as_deref().unwrap_or_default());
        roots.add_parsable_certificates(certificates.filter_map(Result::ok));
        if roots.is_empty() { Err(TlsOptionsError::NoAuthorities) } else { Ok(Self::of(roots)) }
    }

    fn of(roots: RootCertStore) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("the provider has both versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![ALPN_NATIVE.to_vec()];
        Self { config: Arc::new(config), server_name: None }
    }

    /// The name that every broker's certificate is to have, where it is not that of the address: behind a tunnel.
    pub fn with_server_name(mut self, name: &str) -> Result<Self, TlsOptionsError> {
        let parsed = ServerName::try_from(name.to_owned());
        self.server_name = Some(parsed.map_err(|_| TlsOptionsError::ServerName(name.to_owned()))?);
        Ok(self)
    }

    /// A connection of another protocol than the native one. Reads and writes wait as long as the socket's time-outs have it; the
    /// first of them make the handshake.
    pub fn over(&self, socket: TcpStream, address: &str) -> Result<TlsStream, ClientError> {
        let mut config = (*self.config).clone();
        // Not all who speak such a protocol within TLS have a name for it.
        config.alpn_protocols.clear();
        let other = Self { config: Arc::new(config), server_name: self.server_name.clone() };
        Ok(TlsStream(StreamOwned::new(other.begin(address)?, socket)))
    }

    /// The client's side of one connection.
    pub(super) fn begin(&self, address: &str) -> Result<ClientConnection, ClientError> {
        let failed = |reason: String| ClientError::Tls { address: address.to_owned(), reason };
        let name = match &self.server_name {
            Some(name) => name.clone(),
            None => {
                let host = host_of(address);
                let unusable = |_| failed(TlsOptionsError::ServerName(host.to_owned()).to_string());
                ServerName::try_from(host.to_owned()).map_err(unusable)?
            }
        };
        ClientConnection::new(self.config.clone(), name).map_err(|error| failed(error.to_string()))
    }
}

/// Equal when they are one object: sessions are resumed from what it remembers.
impl PartialEq for Tls {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.config, &other.config) && self.server_name == other.server_name
    }
}

impl Eq for Tls {}

/// An address without its port, and without the brackets of IPv6.
fn host_of(address: &str) -> &str {
    let host = address.rsplit_once(':').map_or(address, |(host, _)| host);
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A blocking socket within TLS, see [`Tls::over`].
#[derive(Debug)]
pub struct TlsStream(StreamOwned<ClientConnection, TcpStream>);

impl TlsStream {
    pub fn socket(&self) -> &TcpStream {
        &self.0.sock
    }

    /// What an error of reading or writing says of TLS; `None` when it is of something else.
    pub fn explain(address: &str, error: &io::Error) -> Option<ClientError> {
        explain(address, error)
    }
}

impl Read for TlsStream {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        match self.0.read(output) {
            // Every answer says how long it is.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(0),
            read => read,
        }
    }
}

impl Write for TlsStream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// What a record of TLS begins with that is an alert (RFC 8446, 5.1), and how long one is before there are keys.
const ALERT: u8 = 0x15;
const ALERT_BYTES: usize = 7;

/// A session over a socket; never waits.
pub(super) struct Session<S> {
    pub socket: S,
    tls: ClientConnection,
    first: FirstBytes,
}

/// What the peer has said first.
enum FirstBytes {
    ToCome,
    OfTls,
    /// The native protocol without TLS, which a broker speaks to whom it does not let in.
    Clear(Vec<u8>),
}

/// The socket as rustls reads it.
struct Reading<'a, S>(&'a S, &'a mut FirstBytes);

impl<S: Socket> Read for Reading<'_, S> {
    fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        let count = self.0.read_now(output)?;
        match self.1 {
            FirstBytes::ToCome => {
                let first = &output[..count];
                // After an alert, which says nothing to a client of another kind than that there will be no handshake.
                let after_alert = first.strip_prefix(&[ALERT]).and_then(|rest| rest.get(ALERT_BYTES - 1..));
                let clear = [Some(first), after_alert].into_iter().flatten();
                *self.1 = match clear.into_iter().find(|bytes| bytes.starts_with(&PREFACE_MAGIC)) {
                    Some(clear) => FirstBytes::Clear(clear.to_vec()),
                    None => FirstBytes::OfTls,
                };
            }
            FirstBytes::OfTls | FirstBytes::Clear(_) => {}
        }
        Ok(count)
    }
}

/// The socket as rustls writes it.
struct Ready<'a, S>(&'a S);

impl<S: Socket> Write for Ready<'_, S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write_now(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<S: Socket> Session<S> {
    pub fn new(socket: S, tls: ClientConnection) -> Self {
        Self { socket, tls, first: FirstBytes::ToCome }
    }

    pub fn read(&mut self, output: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.tls.reader().read(output) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // A connection that was cut ends like one without TLS does: every answer says how long it is.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            let count = self.tls.read_tls(&mut Reading(&self.socket, &mut self.first))?;
            if let FirstBytes::Clear(bytes) = &self.first {
                return Err(io::Error::other(refusal(bytes)));
            }
            let processed = self.tls.process_new_packets();
            // The next step of the handshake, or what is wrong, for the broker to log.
            let pushed = self.push();
            processed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))?;
            if let Err(error) = pushed
                && error.kind() != io::ErrorKind::WouldBlock
            {
                return Err(error);
            }
            if count == 0 && self.tls.is_handshaking() {
                let reason = "the end of the connection within the handshake of TLS";
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, reason));
            }
        }
    }

    /// Takes some of these bytes, none only when there are none.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.push()?;
        let count = self.tls.writer().write(bytes)?;
        match self.push() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            // Its room is taken by what waits for the handshake.
            _ if count == 0 && !bytes.is_empty() => Err(io::ErrorKind::WouldBlock.into()),
            _ => Ok(count),
        }
    }

    /// Sends what was taken.
    fn push(&mut self) -> io::Result<()> {
        while self.tls.wants_write() {
            self.tls.write_tls(&mut Ready(&self.socket))?;
        }
        Ok(())
    }

    pub fn has_unsent(&self) -> bool {
        self.tls.wants_write()
    }

    /// Whether more can be read without asking the socket.
    pub fn has_more(&mut self) -> bool {
        self.tls.process_new_packets().is_ok_and(|state| state.plaintext_bytes_to_read() > 0)
    }
}

/// Why a broker does not let a connection in, as it says it without TLS.
fn refusal(bytes: &[u8]) -> String {
    let mut core = ProtocolCore::new();
    core.feed(bytes);
    match core.next_reply() {
        Err(CoreError::Closing(failure)) => failure.to_string(),
        _ => "the broker answered without TLS".to_owned(),
    }
}

/// What an error of TLS means for the user; `None` when it is none.
pub(super) fn explain(address: &str, error: &io::Error) -> Option<ClientError> {
    let error = error.get_ref()?.downcast_ref::<Error>()?;
    let address = address.to_owned();
    Some(match error {
        // A broker without a certificate says this, and whatever speaks no TLS says something that is none.
        Error::AlertReceived(AlertDescription::UnexpectedMessage) | Error::InvalidMessage(_) => {
            ClientError::NoTls { address }
        }
        Error::AlertReceived(AlertDescription::NoApplicationProtocol) => {
            ClientError::NotTurbopump { address }
        }
        Error::InvalidCertificate(reason) => {
            ClientError::Certificate { address, reason: explain_certificate(reason) }
        }
        error => ClientError::Tls { address, reason: error.to_string() },
    })
}

fn explain_certificate(error: &CertificateError) -> String {
    match error {
        // Bad: by one who has the name of somebody trusted, as two that nobody has signed may have.
        CertificateError::UnknownIssuer | CertificateError::BadSignature => "nobody whom this client trusts has signed it: name the certificate of its \
            authority, or itself if nobody has, with --tls-ca FILE (`Tls::trusting`)"
            .to_owned(),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
            "it has expired: put a renewed one in its place at the broker; or this machine's clock is wrong".to_owned()
        }
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
            "it is not valid yet: this machine's clock is wrong, or the certificate is".to_owned()
        }
        CertificateError::NotValidForNameContext { expected, presented } => format!(
            "it is not for {}, but for {}: connect to one of these names, or say with --tls-server-name NAME \
             (`Tls::with_server_name`) which is the broker's",
            expected.to_str(),
            if presented.is_empty() { "no name".to_owned() } else { names_text(presented) }
        ),
        CertificateError::NotValidForName => "it is for another name: say with --tls-server-name NAME \
            (`Tls::with_server_name`) which is the broker's"
            .to_owned(),
        CertificateError::Other(OtherError(reason)) if reason.to_string().contains("CaUsedAsEndEntity") => {
            "it is that of an authority, and no broker's: make one without CA:TRUE, with `openssl req -x509 -addext \
             basicConstraints=critical,CA:FALSE ...`"
                .to_owned()
        }
        error => error.to_string(),
    }
}

/// Names that rustls gives as `DnsName("broker.example.org")` and `IpAddress(127.0.0.1)`, as they are typed.
fn names_text(presented: &[String]) -> String {
    let plain = |name: &String| match name.split_once('(') {
        Some(("DnsName" | "IpAddress", rest)) => rest.trim_end_matches(')').trim_matches('"').to_owned(),
        _ => name.clone(),
    };
    presented.iter().map(plain).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_in_a_certificate_are_told_as_they_are_typed() {
        let presented = ["DnsName(\"broker.example.org\")", "IpAddress(127.0.0.1)", "Unsupported(0x81)"];
        let names = names_text(&presented.map(str::to_owned));
        assert_eq!(names, "broker.example.org, 127.0.0.1, Unsupported(0x81)");
    }

    #[test]
    fn a_host_is_an_address_without_port_and_brackets() {
        for (address, host) in [
            ("broker.example.org:10911", "broker.example.org"),
            ("127.0.0.1:1", "127.0.0.1"),
            ("[::1]:10911", "::1"),
            ("localhost", "localhost"),
        ] {
            assert_eq!(host_of(address), host);
        }
    }

    #[test]
    fn what_cannot_be_trusted_is_named() {
        assert_eq!(Tls::trusting(b"").err(), Some(TlsOptionsError::NoCertificate));
        assert_eq!(
            Tls::trusting(include_bytes!("../../tests/data/tls/key.pem")).err(),
            Some(TlsOptionsError::NoCertificate)
        );
        let damaged = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        assert!(matches!(Tls::trusting(damaged), Err(TlsOptionsError::Certificate(_))));
        let tls =
            Tls::trusting(include_bytes!("../../tests/data/tls/certificate.pem")).expect("a certificate");
        assert!(matches!(tls.clone().with_server_name("a b"), Err(TlsOptionsError::ServerName(_))));
        assert_ne!(tls.clone().with_server_name("a").expect("a name"), tls);
    }
}
