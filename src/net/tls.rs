//! TLS of the doors: where their certificate comes from, and what is spoken within. The one source there is are two PEM
//! files, read again when they change.
//!
//! A renewal writes one file after the other, so for a moment they do not belong together: a change is read only when it
//! has stood for a whole interval, and what cannot be used leaves the certificate from before in its place.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, SignatureAlgorithm, SignatureScheme};

use super::validity::{CertificateWarning, Validity};
use crate::types::{FileStamp, MonotonicTime, SettingsFile, SettingsFileError, Timestamp};

/// The files are looked at no more often than this.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// A chain of certificates has a few kilobytes.
const FILE_BYTES_MAX: u64 = 1024 * 1024;
/// The name of HTTP/1.1 in handshakes (RFC 7301, 6).
pub const ALPN_HTTP_1_1: &[u8] = b"http/1.1";

/// Why a certificate cannot be used. What a key file holds is in none of these.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsError {
    #[error("--tls-certificate {path} cannot be read: {reason}")]
    CertificateUnreadable { path: String, reason: String },
    #[error("--tls-key {path} cannot be read: {reason}")]
    KeyUnreadable { path: String, reason: String },
    #[error("{path} cannot be read: it is {what}, and must be a regular file")]
    NotAFile { path: String, what: &'static str },
    #[error("{path} has more than {} bytes, which no PEM file of this kind has", FILE_BYTES_MAX)]
    TooLarge { path: String },
    #[error(
        "--tls-certificate {path} holds no certificate: name the PEM file that begins with -----BEGIN CERTIFICATE-----"
    )]
    NoCertificate { path: String },
    #[error("--tls-certificate {path} is damaged: {reason}")]
    Certificate { path: String, reason: String },
    #[error(
        "--tls-key {path} holds no private key: name the PEM file that has a line like -----BEGIN PRIVATE KEY-----"
    )]
    NoKey { path: String },
    #[error(
        "the key in --tls-key {path} is protected by a password, which nobody could enter at a start: write it without \
         one with `openssl pkey -in {path} -out NEW.pem`, and name that file"
    )]
    EncryptedKey { path: String },
    #[error(
        "--tls-key {key} is not the key of the certificate in --tls-certificate {certificate}: name the two files that \
         belong together"
    )]
    Mismatch { certificate: String, key: String },
    #[error("--tls-certificate {certificate} and --tls-key {key} cannot be used: {reason}")]
    Unusable { certificate: String, key: String, reason: String },
}

/// What is wrong with files that can be used nevertheless.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TlsWarning {
    #[error("{path} can be read by others (mode {mode:o}), and a private key is in it: chmod 600 {path}")]
    ReadableByOthers { path: String, mode: u32 },
    #[error("--tls-certificate {path} {warning}")]
    Certificate { path: String, warning: CertificateWarning },
}

/// What a look at the files has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TlsRefreshed {
    Unchanged,
    Read,
    /// The certificate is that from before.
    Failed(TlsError),
}

/// Where a certificate comes from: two files, or later one that was made with the data directory.
pub trait CertificateSource {
    /// What handshakes are made with now.
    fn config(&self) -> &Arc<ServerConfig>;

    /// Whether a signature with its key takes a good part of a millisecond, or several.
    fn signs_slowly(&self) -> bool;

    /// Looks whether there is another certificate, at most once a second. To be called now and then.
    fn refresh(&mut self, now: MonotonicTime) -> TlsRefreshed;

    /// Takes what is there now, whether it looks changed or not.
    fn read_again(&mut self, now: MonotonicTime) -> TlsRefreshed;

    /// What is to be told of the certificate in use: once when it is not valid yet, when it will soon end, and when it has
    /// ended, and again after a renewal. Cheap, to be called now and then.
    fn standing(&mut self, now: Timestamp) -> Option<TlsWarning>;
}

/// What handshakes are made with that use a source's certificate and offer these protocols, the preferred one first. A client that
/// names none is let in, one that names only others is not.
pub fn door_config(source: &dyn CertificateSource, protocols: &[&[u8]]) -> Arc<ServerConfig> {
    let mut config = ServerConfig::clone(source.config());
    config.alpn_protocols = protocols.iter().map(|name| name.to_vec()).collect();
    Arc::new(config)
}

/// A certificate with its key, and what they were when last readable. Owned by one shard; reading blocks, which two
/// small files now and then may.
#[derive(Debug)]
pub struct TlsFiles {
    certificate: PathBuf,
    key: PathBuf,
    config: Arc<ServerConfig>,
    signs_slowly: bool,
    /// From when until when clients accept what is in use.
    validity: Validity,
    /// What was last told of it.
    told: Option<CertificateWarning>,
    /// As of the last reading, whether what was found could be used or not: broken files are told once.
    read: Stamps,
    /// As of the last look.
    seen: Stamps,
    looked_at: MonotonicTime,
}

/// Certificate and key; `None` for one that is not there.
type Stamps = [Option<FileStamp>; 2];

impl TlsFiles {
    /// Reads both files for the first time. The warnings are of the key; [`standing`](CertificateSource::standing) tells those of the
    /// certificate.
    pub fn open(
        certificate: &Path,
        key: &Path,
        now: MonotonicTime,
    ) -> Result<(Self, Option<TlsWarning>), TlsError> {
        // Before the files: a change between the two is seen at the next look.
        let stamps = stamps(certificate, key);
        let Pair { config, signs_slowly, validity } = read(certificate, key)?;
        let (certificate, key) = (certificate.to_owned(), key.to_owned());
        let warning = check_mode(&key);
        let files = Self {
            certificate,
            key,
            config: Arc::new(config),
            signs_slowly,
            validity,
            told: None,
            read: stamps,
            seen: stamps,
            looked_at: now,
        };
        Ok((files, warning))
    }
}

impl CertificateSource for TlsFiles {
    fn config(&self) -> &Arc<ServerConfig> {
        &self.config
    }

    fn signs_slowly(&self) -> bool {
        self.signs_slowly
    }

    fn standing(&mut self, now: Timestamp) -> Option<TlsWarning> {
        let found = self.validity.at(now);
        if self.told == found {
            return None;
        }
        self.told.clone_from(&found);
        found.map(|warning| TlsWarning::Certificate { path: self.certificate.display().to_string(), warning })
    }

    fn refresh(&mut self, now: MonotonicTime) -> TlsRefreshed {
        if now.since(self.looked_at) < LOOK_INTERVAL {
            return TlsRefreshed::Unchanged;
        }
        self.looked_at = now;
        let found = stamps(&self.certificate, &self.key);
        let has_settled = std::mem::replace(&mut self.seen, found) == found;
        if !has_settled || found == self.read {
            return TlsRefreshed::Unchanged;
        }
        self.read_again(now)
    }

    /// Settled or not.
    fn read_again(&mut self, now: MonotonicTime) -> TlsRefreshed {
        self.looked_at = now;
        self.read = stamps(&self.certificate, &self.key);
        match read(&self.certificate, &self.key) {
            Ok(Pair { config, signs_slowly, validity }) => {
                self.config = Arc::new(config);
                self.signs_slowly = signs_slowly;
                self.validity = validity;
                self.told = None;
                TlsRefreshed::Read
            }
            Err(error) => TlsRefreshed::Failed(error),
        }
    }
}

fn stamps(certificate: &Path, key: &Path) -> Stamps {
    [certificate, key].map(|path| fs::metadata(path).ok().map(|metadata| FileStamp::of(&metadata)))
}

fn check_mode(key: &Path) -> Option<TlsWarning> {
    let mode = fs::metadata(key).ok()?.mode() & 0o777;
    let path = key.display().to_string();
    (mode & 0o044 != 0).then_some(TlsWarning::ReadableByOthers { path, mode })
}

/// A certificate and its key.
struct Pair {
    config: ServerConfig,
    signs_slowly: bool,
    validity: Validity,
}

fn read(certificate: &Path, key: &Path) -> Result<Pair, TlsError> {
    let chain = read_chain(certificate)?;
    let validity = Validity::of_chain(&chain);
    let secret = read_key(key)?;
    let (certificate, key) = (certificate.display().to_string(), key.display().to_string());
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let signs_slowly = signs_slowly(&provider, &secret);
    let built = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, secret));
    match built {
        Ok(config) => Ok(Pair { config, signs_slowly, validity }),
        Err(rustls::Error::InconsistentKeys(_)) => Err(TlsError::Mismatch { certificate, key }),
        Err(error) => Err(TlsError::Unusable { certificate, key, reason: error.to_string() }),
    }
}

/// Of all keys those of RSA do, and those of the longer curve: 0.7 ms with 2,048 bits, 3.5 ms with 4,096, and 0.03 ms on the usual
/// curve.
fn signs_slowly(provider: &CryptoProvider, secret: &PrivateKeyDer<'static>) -> bool {
    let key = provider.key_provider.load_private_key(secret.clone_key());
    key.is_ok_and(|key| {
        let has_long_curve = key.choose_scheme(&[SignatureScheme::ECDSA_NISTP384_SHA384]).is_some();
        key.algorithm() == SignatureAlgorithm::RSA || has_long_curve
    })
}

fn read_chain(path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let shown = || path.display().to_string();
    let bytes = read_file(path, |path, reason| TlsError::CertificateUnreadable { path, reason })?;
    let chain: Vec<_> = CertificateDer::pem_slice_iter(&bytes)
        .collect::<Result<_, _>>()
        .map_err(|error| TlsError::Certificate { path: shown(), reason: error.to_string() })?;
    if chain.is_empty() { Err(TlsError::NoCertificate { path: shown() }) } else { Ok(chain) }
}

fn read_key(path: &Path) -> Result<PrivateKeyDer<'static>, TlsError> {
    let shown = || path.display().to_string();
    let bytes = read_file(path, |path, reason| TlsError::KeyUnreadable { path, reason })?;
    // The parser's error is not passed on: it quotes what it cannot read.
    PrivateKeyDer::from_pem_slice(&bytes).map_err(|_| {
        let is_encrypted = memchr::memmem::find(&bytes, b"ENCRYPTED").is_some();
        if is_encrypted {
            TlsError::EncryptedKey { path: shown() }
        } else {
            TlsError::NoKey { path: shown() }
        }
    })
}

/// `unreadable` makes the error of a file that the system does not let us read.
fn read_file(path: &Path, unreadable: impl FnOnce(String, String) -> TlsError) -> Result<Vec<u8>, TlsError> {
    let shown = path.display().to_string();
    match SettingsFile::read(path, FILE_BYTES_MAX) {
        Ok(file) => Ok(file.bytes),
        Err(error @ (SettingsFileError::System(_) | SettingsFileError::Dangling { .. })) => {
            Err(unreadable(shown, error.to_string()))
        }
        Err(SettingsFileError::NotRegular { what }) => Err(TlsError::NotAFile { path: shown, what }),
        Err(SettingsFileError::TooLarge { .. }) => Err(TlsError::TooLarge { path: shown }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const CERTIFICATE: &str = include_str!("../../tests/data/tls/certificate.pem");
    const KEY: &str = include_str!("../../tests/data/tls/key.pem");
    const OTHER_KEY: &str = include_str!("../../tests/data/tls/other-key.pem");
    const ENCRYPTED_KEY: &str = include_str!("../../tests/data/tls/encrypted-key.pem");

    struct Files {
        _directory: tempfile::TempDir,
        certificate: PathBuf,
        key: PathBuf,
    }

    fn files(certificate: &str, key: &str) -> Files {
        let directory = tempfile::tempdir().expect("a directory");
        let write = |name: &str, text: &str| {
            let path = directory.path().join(name);
            fs::write(&path, text).expect("writable");
            path
        };
        let (certificate, key) = (write("certificate.pem", certificate), write("key.pem", key));
        Files { _directory: directory, certificate, key }
    }

    fn open(certificate: &str, key: &str) -> Result<Option<TlsWarning>, TlsError> {
        let files = files(certificate, key);
        TlsFiles::open(&files.certificate, &files.key, MonotonicTime(0)).map(|(_, warning)| warning)
    }

    #[test]
    fn what_is_wrong_is_said_with_what_to_do_and_without_the_key() {
        let damaged = KEY.replace("-----END", "=-----END");
        let cases = [
            (CERTIFICATE, OTHER_KEY, "name the two files that belong together"),
            (KEY, KEY, "holds no certificate"),
            ("", KEY, "holds no certificate"),
            (CERTIFICATE, CERTIFICATE, "holds no private key"),
            (CERTIFICATE, "", "holds no private key"),
            (CERTIFICATE, &damaged, "holds no private key"),
            (CERTIFICATE, ENCRYPTED_KEY, "openssl pkey -in"),
        ];
        let secret = KEY.lines().nth(1).expect("a line of the key");
        for (certificate, key, part) in cases {
            let error = open(certificate, key).expect_err(part).to_string();
            assert!(error.contains(part), "{error}");
            assert!(!error.contains(secret), "{error}");
        }
        let missing = Path::new("/nowhere/at/all.pem");
        let files = files(CERTIFICATE, KEY);
        let error = TlsFiles::open(missing, &files.key, MonotonicTime(0)).expect_err("there is none");
        assert!(
            error.to_string().contains("--tls-certificate /nowhere/at/all.pem cannot be read"),
            "{error}"
        );
        let error = TlsFiles::open(&files.certificate, missing, MonotonicTime(0)).expect_err("there is none");
        assert!(error.to_string().contains("--tls-key /nowhere/at/all.pem cannot be read"), "{error}");
        assert!(matches!(open(&"x".repeat(2 << 20), KEY), Err(TlsError::TooLarge { .. })));
    }

    #[test]
    fn a_change_is_read_when_it_has_settled_and_a_broken_one_changes_nothing() {
        let files = files(CERTIFICATE, KEY);
        let (mut tls, warning) =
            TlsFiles::open(&files.certificate, &files.key, MonotonicTime(0)).expect("usable");
        assert!(matches!(warning, Some(TlsWarning::ReadableByOthers { .. })), "{warning:?}");
        let before = tls.config.clone();
        let mut second = 0;
        let mut look = |tls: &mut TlsFiles| {
            second += 1;
            tls.refresh(MonotonicTime(second * SECOND))
        };
        assert_eq!(look(&mut tls), TlsRefreshed::Unchanged);
        fs::write(&files.key, OTHER_KEY).expect("writable");
        assert_eq!(look(&mut tls), TlsRefreshed::Unchanged, "the other file may follow");
        assert!(matches!(look(&mut tls), TlsRefreshed::Failed(TlsError::Mismatch { .. })));
        assert_eq!(look(&mut tls), TlsRefreshed::Unchanged, "told once");
        assert!(Arc::ptr_eq(&tls.config, &before));
        fs::remove_file(&files.key).expect("it is there");
        assert_eq!(look(&mut tls), TlsRefreshed::Unchanged);
        assert!(matches!(look(&mut tls), TlsRefreshed::Failed(TlsError::KeyUnreadable { .. })));
        fs::write(&files.key, KEY).expect("writable");
        assert_eq!(look(&mut tls), TlsRefreshed::Unchanged);
        assert_eq!(look(&mut tls), TlsRefreshed::Read);
        assert!(!Arc::ptr_eq(&tls.config, &before));
        assert_eq!(tls.refresh(MonotonicTime(second * SECOND + 1)), TlsRefreshed::Unchanged);
    }
}
