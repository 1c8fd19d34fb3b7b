//! What each address speaks: one function for all of them, asked once for the first bytes of a connection and, when those were
//! a TLS handshake, once more for the first bytes within.

use std::str::FromStr;

use super::native::native_refusal;
use crate::api::Status;
use crate::net::{ALPN_HTTP_1_1, Detected};
use crate::wire::frame::ALPN_NATIVE;

/// What a listener is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    /// `--listen` and `--node-listen`.
    Native,
    /// `--http`.
    Http,
    /// `--namesrv`.
    NameServer,
}

impl Door {
    /// Each at the place that its number has.
    pub const ALL: [Self; 3] = [Self::Native, Self::Http, Self::NameServer];
}

/// Who is let in without TLS, where there is a certificate; RocketMQ's `tls.server.mode`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsMode {
    /// TLS is not spoken, whatever certificate is named.
    Disabled,
    /// Whoever comes, with TLS and without.
    Permissive,
    /// Nobody.
    Enforcing,
}

impl TlsMode {
    pub fn name(self) -> &'static str {
        match self {
            TlsMode::Disabled => "disabled",
            TlsMode::Permissive => "permissive",
            TlsMode::Enforcing => "enforcing",
        }
    }
}

impl FromStr for TlsMode {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let modes = [TlsMode::Disabled, TlsMode::Permissive, TlsMode::Enforcing];
        let found = modes.into_iter().find(|mode| mode.name() == text);
        found.ok_or_else(|| "it is disabled, permissive or enforcing".to_owned())
    }
}

/// What the operator has said of protocols and TLS, for all doors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct DoorRules {
    /// HTTP is spoken at all.
    pub has_http: bool,
    /// RocketMQ's own protocol is.
    pub has_remoting: bool,
    /// Each door has its own protocol only.
    pub is_separate: bool,
    /// There is a certificate.
    pub has_tls: bool,
    /// `None`: HTTP only within TLS where there is a certificate, as whoever gives one to HTTP expects; native either way.
    pub tls_mode: Option<TlsMode>,
}

/// What is spoken over a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Native,
    Http,
    Remoting,
}

/// What is to become of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// A TLS handshake; then the first bytes within are looked at.
    Handshake,
    Native,
    /// HTTP; with `lacks_tls` each request is answered that it is to come within TLS.
    Http {
        lacks_tls: bool,
    },
    Remoting,
    /// The end, after these bytes, which the peer's own program can show. Empty: nothing would be understood.
    Refuse(Vec<u8>),
    /// The peer has gone before it has said anything.
    Gone,
}

/// A fatal alert `unexpected_message` (RFC 8446, 6.2), in the record version that every client takes.
const TLS_ALERT: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 10];
/// A fatal alert `internal_error` (RFC 8446, 6.2): the reason is the broker's, and no fault of the client's.
const TLS_ALERT_NO_ROOM: [u8; 7] = [0x15, 3, 3, 0, 2, 2, 80];
const NATIVE_PORT: &str = "This port speaks turbopump's native protocol and no HTTP. HTTP is spoken at the address that the broker \
    was given with --http, if it was.\n";
const HTTP_PORT: &str = "This port speaks HTTP/1.1, with TLS only if the broker has a certificate. turbopump's native protocol is \
    spoken at the address that the broker was given with --listen.\n";
const NAME_SERVER_PORT: &str = "This is a name server for RocketMQ's clients, and speaks their protocol only. HTTP is spoken at the \
    address that the broker was given with --http, turbopump's native protocol at that of --listen.\n";
const NATIVE_WITHOUT_TLS: &str = "this address is spoken to within TLS only: say --tls, and --tls-ca FILE if the certificate is not \
    signed by a public authority (for a program: `ConnectOptions::tls`)";

impl DoorRules {
    /// The names of what a door speaks, for handshakes (RFC 7301), the preferred one first.
    pub fn protocol_names(&self, door: Door) -> Vec<&'static [u8]> {
        let names = [(Protocol::Http, ALPN_HTTP_1_1), (Protocol::Native, ALPN_NATIVE)];
        names.into_iter().filter(|&(protocol, _)| self.has(door, protocol)).map(|(_, name)| name).collect()
    }

    fn has(&self, door: Door, protocol: Protocol) -> bool {
        let is_own = match door {
            Door::Native => protocol != Protocol::Http,
            Door::Http => protocol == Protocol::Http,
            Door::NameServer => protocol == Protocol::Remoting,
        };
        let is_spoken = match protocol {
            Protocol::Native => true,
            Protocol::Http => self.has_http,
            Protocol::Remoting => self.has_remoting,
        };
        is_spoken && (is_own || !self.is_separate)
    }

    /// Whether a protocol is spoken within TLS only.
    fn needs_tls(&self, protocol: Protocol) -> bool {
        let is_needed = match self.tls_mode {
            Some(TlsMode::Disabled | TlsMode::Permissive) => false,
            Some(TlsMode::Enforcing) => true,
            None => protocol == Protocol::Http,
        };
        self.has_tls && is_needed
    }

    /// Whether who comes to this door without TLS is told in clear what is wrong: a client of TLS could not read it.
    pub fn is_told_in_clear(&self, door: Door) -> bool {
        door != Door::Http || !self.needs_tls(Protocol::Http)
    }

    /// What is to become of a connection to this door that begins so. The rules of access keys are the same behind every door,
    /// so nothing about them is looked at here.
    pub(super) fn judge(&self, door: Door, detected: Detected, is_within_tls: bool) -> Verdict {
        let lacks_tls = |protocol| !is_within_tls && self.needs_tls(protocol);
        match detected {
            Detected::NeedMore => Verdict::Gone,
            Detected::Tls if is_within_tls => Verdict::Refuse(Vec::new()),
            Detected::Tls if self.has_tls => Verdict::Handshake,
            Detected::Tls => Verdict::Refuse(TLS_ALERT.to_vec()),
            Detected::Native if !self.has(door, Protocol::Native) => {
                Verdict::Refuse(bad_request(other_port(door)))
            }
            Detected::Native if lacks_tls(Protocol::Native) => {
                Verdict::Refuse(native_refusal(Status::UnsupportedRequest, NATIVE_WITHOUT_TLS))
            }
            Detected::Native => Verdict::Native,
            Detected::Http1 if self.has(door, Protocol::Http) => {
                Verdict::Http { lacks_tls: lacks_tls(Protocol::Http) }
            }
            // A native client tells from any such answer that this is not its broker's port.
            Detected::Http1 | Detected::Http2 => Verdict::Refuse(bad_request(other_port(door))),
            Detected::Remoting if self.has(door, Protocol::Remoting) && !lacks_tls(Protocol::Remoting) => {
                Verdict::Remoting
            }
            Detected::Remoting if door == Door::Http && !self.has(door, Protocol::Remoting) => {
                Verdict::Refuse(bad_request(HTTP_PORT))
            }
            // What is no request line is answered as such, where it can only be meant as one.
            Detected::Unknown if door == Door::Http && !lacks_tls(Protocol::Http) => {
                Verdict::Http { lacks_tls: false }
            }
            Detected::Remoting | Detected::Unknown => Verdict::Refuse(Vec::new()),
        }
    }
}

/// What is said at a door to who speaks what is not spoken there.
fn other_port(door: Door) -> &'static str {
    match door {
        Door::Native => NATIVE_PORT,
        Door::Http => HTTP_PORT,
        Door::NameServer => NAME_SERVER_PORT,
    }
}

/// What a client of TLS is told for which there is no room, before anything is agreed with it: the alert, which every client
/// understands, and the reason for our own, which finds it after that.
pub(super) fn tls_refusal(reason: &str) -> Vec<u8> {
    [&TLS_ALERT_NO_ROOM[..], &native_refusal(Status::LimitReached, reason)].concat()
}

fn bad_request(text: &str) -> Vec<u8> {
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain\r\nConnection: close\r\nContent-Length:";
    format!("{head} {}\r\n\r\n{text}", text.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rules(has_http: bool, is_separate: bool, has_tls: bool, tls_mode: Option<TlsMode>) -> DoorRules {
        DoorRules { has_http, has_remoting: true, is_separate, has_tls, tls_mode }
    }

    fn refuses_with(verdict: &Verdict, part: &str) -> bool {
        matches!(verdict, Verdict::Refuse(bytes) if String::from_utf8_lossy(bytes).contains(part))
    }

    #[test]
    fn every_door_takes_every_protocol_unless_told_otherwise() {
        for door in Door::ALL {
            let rules = rules(true, false, false, None);
            assert_eq!(rules.judge(door, Detected::Native, false), Verdict::Native);
            assert_eq!(rules.judge(door, Detected::Http1, false), Verdict::Http { lacks_tls: false });
            assert_eq!(rules.judge(door, Detected::Remoting, false), Verdict::Remoting);
            assert_eq!(rules.protocol_names(door), [ALPN_HTTP_1_1, ALPN_NATIVE]);
        }
        let separate = rules(true, true, false, None);
        assert_eq!(separate.judge(Door::Native, Detected::Native, false), Verdict::Native);
        assert!(refuses_with(&separate.judge(Door::Native, Detected::Http1, false), "and no HTTP"));
        assert!(refuses_with(&separate.judge(Door::Http, Detected::Native, false), "--listen"));
        assert_eq!(separate.judge(Door::Native, Detected::Remoting, false), Verdict::Remoting);
        assert!(refuses_with(&separate.judge(Door::Http, Detected::Remoting, false), "HTTP/1.1"));
        assert_eq!(separate.judge(Door::NameServer, Detected::Remoting, false), Verdict::Remoting);
        for other in [Detected::Native, Detected::Http1] {
            assert!(refuses_with(&separate.judge(Door::NameServer, other, false), "name server"));
        }
        let mute = DoorRules { has_remoting: false, ..separate };
        assert_eq!(mute.judge(Door::Native, Detected::Remoting, false), Verdict::Refuse(Vec::new()));
        assert_eq!(separate.protocol_names(Door::Native), [ALPN_NATIVE]);
        assert_eq!(separate.protocol_names(Door::Http), [ALPN_HTTP_1_1]);
        let without_http = rules(false, false, true, None);
        assert!(refuses_with(&without_http.judge(Door::Native, Detected::Http1, true), "--http"));
    }

    #[test]
    fn the_mode_says_who_comes_without_tls() {
        use TlsMode::{Disabled, Enforcing, Permissive};
        for door in Door::ALL {
            for (mode, native, http) in
                [(None, false, true), (Some(Permissive), false, false), (Some(Enforcing), true, true)]
            {
                let rules = rules(true, false, true, mode);
                let plain = rules.judge(door, Detected::Native, false);
                assert_eq!(refuses_with(&plain, "--tls"), native, "{mode:?}: {plain:?}");
                let plain = rules.judge(door, Detected::Http1, false);
                assert_eq!(plain, Verdict::Http { lacks_tls: http }, "{mode:?}");
                let plain = rules.judge(door, Detected::Remoting, false);
                assert_eq!(plain == Verdict::Refuse(Vec::new()), native, "{mode:?}: {plain:?}");
                assert_eq!(rules.judge(door, Detected::Remoting, true), Verdict::Remoting);
                assert_eq!(rules.judge(door, Detected::Tls, false), Verdict::Handshake);
                assert_eq!(rules.judge(door, Detected::Native, true), Verdict::Native);
                assert_eq!(rules.judge(door, Detected::Http1, true), Verdict::Http { lacks_tls: false });
                // Not a second time.
                assert_eq!(rules.judge(door, Detected::Tls, true), Verdict::Refuse(Vec::new()));
            }
            let disabled = rules(true, false, false, Some(Disabled));
            assert_eq!(disabled.judge(door, Detected::Tls, false), Verdict::Refuse(TLS_ALERT.to_vec()));
            assert_eq!(disabled.judge(door, Detected::Native, false), Verdict::Native);
        }
    }

    #[test]
    fn what_nobody_understands_is_answered_where_it_can_only_be_meant_as_http() {
        let judge = |rules: DoorRules, door, within| rules.judge(door, Detected::Unknown, within);
        let plain = rules(true, false, false, None);
        assert_eq!(judge(plain, Door::Http, false), Verdict::Http { lacks_tls: false });
        assert_eq!(judge(plain, Door::Native, false), Verdict::Refuse(Vec::new()));
        let secured = rules(true, false, true, None);
        assert_eq!(judge(secured, Door::Http, false), Verdict::Refuse(Vec::new()));
        assert_eq!(judge(secured, Door::Http, true), Verdict::Http { lacks_tls: false });
        assert_eq!(judge(secured, Door::Native, true), Verdict::Refuse(Vec::new()));
    }
}
