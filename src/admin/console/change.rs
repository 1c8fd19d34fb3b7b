//! Who may change anything.
//!
//! * Where the node has access keys, the key decides, as for native clients: a request is carried out as its holder's.
//! * Where it has none, nobody, unless the operator has said `--admin-writable`. Then whoever reaches the address may, as long as
//!   they name it by number or as this machine: a page of another site that has its own name lead here does not.
//!
//! In any case a change comes with a header that no form and no simple request of a page can have.

use std::net::IpAddr;

use hyper::header::HeaderName;

use super::asking::Asking;
use crate::admin::request::Request;
use crate::admin::server::Visit;
use crate::api::{Failure, Status};

/// What the console's own page sends along.
const OURS: HeaderName = HeaderName::from_static("x-turbopump-console");

/// Why nobody may change anything here.
const READ_ONLY: &str = "the console only shows: start the broker with --access-keys FILE and use a key with \
    admin = true, or with --admin-writable to let everybody who reaches this address change things";

/// Whether a request that changes something is looked at. What the caller's key may do is checked when it is carried out; that it
/// is one is seen before its body is read, so that strangers do not have the broker wait for theirs.
pub(super) async fn check(asking: Asking<'_>) -> Result<(), Failure> {
    let Asking { visit, request } = asking;
    if request.header(OURS).is_none() {
        let text = "a change needs the header `X-Turbopump-Console: 1`, so that no page of another site can ask for it";
        return Err(Failure::new(Status::PermissionDenied, text));
    }
    match visit.admin.has_keys {
        // Any key may know where the shards are.
        true => asking.addresses().await.map(drop),
        false => refusal_without_keys(visit, request).map_or(Ok(()), Err),
    }
}

/// Why nothing is changed for whoever asks where there are no keys.
pub(super) fn refusal_without_keys(visit: &Visit, request: &Request) -> Option<Failure> {
    let text = match (visit.admin.facts.is_writable, request.authority().is_some_and(is_no_name)) {
        (false, _) => READ_ONLY,
        (true, false) => "without access keys changes are made at an address by number, or at localhost",
        (true, true) => return None,
    };
    Some(Failure::new(Status::PermissionDenied, text))
}

/// Whether an authority is an address by number, or this machine.
fn is_no_name(authority: &str) -> bool {
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host =
        authority.rsplit_once(':').filter(|(_, port)| is_port(port)).map_or(authority, |(host, _)| host);
    let number = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(host);
    number.parse::<IpAddr>().is_ok() || host.eq_ignore_ascii_case("localhost")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_that_anybody_may_have_is_none_of_an_address() {
        for authority in ["127.0.0.1", "127.0.0.1:5557", "[::1]:5557", "[::1]", "192.0.2.7:80", "localhost:1"]
        {
            assert!(is_no_name(authority), "{authority}");
        }
        for authority in
            ["example.org", "example.org:5557", "127.0.0.1.example.org", "", ":80", "localhost.example.org"]
        {
            assert!(!is_no_name(authority), "{authority}");
        }
    }
}
