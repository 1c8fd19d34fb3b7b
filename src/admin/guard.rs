//! Keeps pages of other sites, open in an operator's browser, from using what the browser can reach: the admin address on
//! loopback, where no key is asked for, or one for which the browser keeps a key.
//!
//! * A page of another site can have its own name lead to 127.0.0.1 (DNS rebinding) and read answers as its own. So where the
//!   address is one of loopback, a request has to name it as such.
//! * A page can send a form anywhere. So what changes something has to come from a page of this server, or from no page.
//! * A page can have pictures and scripts loaded from anywhere, and sees whether that worked and how long it took. So browsers that
//!   say so (`Sec-Fetch-Site`) are given nothing for a page of another site, but when their user goes here from there.

use std::net::IpAddr;

use hyper::StatusCode;
use hyper::header::{HeaderName, ORIGIN};

use super::answer::Answer;
use super::request::Request;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");
const SEC_FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Why a request is not looked at; `None`: it is.
pub(super) fn refusal(request: &Request, is_loopback: bool) -> Option<Answer> {
    let authority = request.authority();
    if is_loopback && !authority.is_none_or(names_loopback) {
        let text = "this address answers to names of this machine only: ask 127.0.0.1 or localhost";
        return Some(Answer::text(StatusCode::MISDIRECTED_REQUEST, text));
    }
    let is_of_own_site = matches!(request.header(SEC_FETCH_SITE), None | Some("same-origin" | "none"));
    if request.only_reads() {
        // A link of a board or of a mail leads here; a frame does not.
        let is_visit = request.header(SEC_FETCH_MODE) == Some("navigate")
            && request.header(SEC_FETCH_DEST).is_none_or(|dest| dest == "document");
        let text = "a page of another site is given nothing here";
        return (!is_of_own_site && !is_visit).then(|| Answer::text(StatusCode::FORBIDDEN, text));
    }
    let is_own = is_own_origin(request.header(ORIGIN), authority) && is_of_own_site;
    (!is_own).then(|| Answer::text(StatusCode::FORBIDDEN, "a page of another site may change nothing here"))
}

/// Whether an authority, `HOST` or `HOST:PORT`, is a name of the machine itself.
fn names_loopback(authority: &str) -> bool {
    let host = host_of(authority);
    let address = host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>();
    match address {
        Ok(address) => address.to_canonical().is_loopback(),
        Err(_) => {
            let host = host.trim_end_matches('.').to_ascii_lowercase();
            host == "localhost" || host.ends_with(".localhost")
        }
    }
}

fn host_of(authority: &str) -> &str {
    match authority.rsplit_once(':') {
        // Not a colon within an IPv6 address.
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    }
}

/// Whether a page of `origin` is one of this server's; requests that no page has made have none.
fn is_own_origin(origin: Option<&str>, authority: Option<&str>) -> bool {
    let Some(origin) = origin else { return true };
    let Some((_, from)) = origin.split_once("://") else { return false };
    authority.is_some_and(|authority| authority.eq_ignore_ascii_case(from))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_machine_itself_are_known() {
        for authority in [
            "localhost",
            "LocalHost:5557",
            "a.localhost",
            "127.0.0.1:5557",
            "127.9.9.9",
            "[::1]:5557",
            "[::1]",
        ] {
            assert!(names_loopback(authority), "{authority}");
        }
        for authority in
            ["example.org", "localhost.example.org:5557", "192.0.2.1", "[2001:db8::1]:1", "", ":1"]
        {
            assert!(!names_loopback(authority), "{authority}");
        }
    }

    #[test]
    fn only_pages_of_this_server_are_its_own() {
        let authority = Some("127.0.0.1:5557");
        assert!(is_own_origin(None, authority));
        assert!(is_own_origin(Some("http://127.0.0.1:5557"), authority));
        for other in
            ["http://127.0.0.1:8080", "https://example.org", "null", "http://127.0.0.1:5557.example.org"]
        {
            assert!(!is_own_origin(Some(other), authority), "{other}");
        }
        assert!(!is_own_origin(Some("http://a"), None));
    }
}
