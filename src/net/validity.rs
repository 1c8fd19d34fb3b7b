//! From when until when a certificate is valid. rustls presents any: it is the clients who refuse one that has expired, each
//! with words of its own, and the broker would be the last to know.

use rustls::pki_types::CertificateDer;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Time;

use crate::limits;
use crate::types::Timestamp;

/// When a chain of certificates can be used.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Validity {
    /// The latest beginning and the earliest end of all certificates. `None`: no certificate's times could be read.
    span: Option<(Moment, Moment)>,
}

/// A point in time and how it is written.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Moment {
    time: Timestamp,
    text: String,
}

/// Why clients refuse a certificate, or soon will.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CertificateWarning {
    #[error(
        "expired at {at}, and clients refuse it: put a renewed certificate in its place, which is used without a restart"
    )]
    Expired { at: String },
    #[error(
        "is not valid before {at}, and clients refuse it until then: check this machine's clock, and whether it is the right file"
    )]
    NotYet { at: String },
    #[error("expires at {at}: put a renewed one in its place before, which is used without a restart")]
    Soon { at: String },
    #[error("has times of validity that cannot be read, so nobody is warned before it expires")]
    Unreadable,
}

impl Validity {
    /// That of the certificate and all that vouch for it: clients refuse a chain with any that is not valid.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Self {
        let mut span: Option<(Moment, Moment)> = None;
        for certificate in chain {
            let Ok(certificate) = Certificate::from_der(certificate) else { return Self { span: None } };
            let validity = certificate.tbs_certificate().validity();
            let (begin, end) = (Moment::of(validity.not_before), Moment::of(validity.not_after));
            span = Some(match span {
                Some((latest, earliest)) => (
                    if begin.time > latest.time { begin } else { latest },
                    if end.time < earliest.time { end } else { earliest },
                ),
                None => (begin, end),
            });
        }
        Self { span }
    }

    /// What is to be said at a time.
    pub fn at(&self, now: Timestamp) -> Option<CertificateWarning> {
        let Some((begin, end)) = &self.span else { return Some(CertificateWarning::Unreadable) };
        // A certificate of six days is renewed every four, one of a year perhaps by hand.
        let soon_ms = limits::CERTIFICATE_SOON_MS.min(end.time.0.saturating_sub(begin.time.0) / 3);
        let at = |moment: &Moment| moment.text.clone();
        if now > end.time {
            Some(CertificateWarning::Expired { at: at(end) })
        } else if now < begin.time {
            Some(CertificateWarning::NotYet { at: at(begin) })
        } else if end.time.0 - now.0 < soon_ms {
            Some(CertificateWarning::Soon { at: at(end) })
        } else {
            None
        }
    }
}

impl Moment {
    fn of(time: Time) -> Self {
        let millis = u64::try_from(time.to_unix_duration().as_millis()).unwrap_or(u64::MAX);
        Self { time: Timestamp(millis), text: time.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::pem::PemObject;

    const CERTIFICATE: &str = include_str!("../../tests/data/tls/certificate.pem");
    const EXPIRED: &str = include_str!("../../tests/data/tls/expired.pem");
    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn chain(pem: &str) -> Vec<CertificateDer<'static>> {
        CertificateDer::pem_slice_iter(pem.as_bytes()).collect::<Result<_, _>>().expect("certificates")
    }

    #[test]
    fn a_certificate_is_told_of_before_and_after_its_time_and_near_its_end() {
        let validity = Validity::of_chain(&chain(EXPIRED));
        // 2020-01-01 up to 2020-12-31.
        let (begin, end) = (1_577_836_800_000, 1_609_372_800_000);
        let at = |time| validity.at(Timestamp(time));
        let (early, late) = ("2020-01-01T00:00:00Z".to_owned(), "2020-12-31T00:00:00Z".to_owned());
        assert_eq!(at(begin - 1), Some(CertificateWarning::NotYet { at: early }));
        assert_eq!((at(begin), at(end - 14 * DAY)), (None, None));
        assert_eq!(at(end - 14 * DAY + 1), Some(CertificateWarning::Soon { at: late.clone() }));
        assert_eq!(at(end), Some(CertificateWarning::Soon { at: late.clone() }));
        assert_eq!(at(end + 1), Some(CertificateWarning::Expired { at: late }));
        assert_eq!(at(0), at(begin - 1), "a clock before 1970 reads as 1970");
    }

    #[test]
    fn a_chain_ends_with_its_first_certificate_to_end() {
        let now = Timestamp(1_700_000_000_000);
        let expired = Some(CertificateWarning::Expired { at: "2020-12-31T00:00:00Z".to_owned() });
        for text in [[CERTIFICATE, EXPIRED].concat(), [EXPIRED, CERTIFICATE].concat()] {
            assert_eq!(Validity::of_chain(&chain(&text)).at(now), expired);
        }
        let unreadable = Validity::of_chain(&[CertificateDer::from(vec![0x30, 0x03, 1, 2, 3])]);
        assert_eq!(unreadable.at(now), Some(CertificateWarning::Unreadable));
    }
}
