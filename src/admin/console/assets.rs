//! The page, its script and its style sheet, which the program has in itself.

use std::io::Write;
use std::sync::LazyLock;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use hyper::StatusCode;
use hyper::header::{ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, HeaderValue, VARY};

use crate::admin::answer::Answer;
use crate::admin::request::Request;

/// What is served under one name.
struct Asset {
    name: &'static str,
    content_type: &'static str,
    plain: &'static [u8],
    /// The page names the others by what they hold, so a browser may keep them for good.
    is_page: bool,
    compressed: LazyLock<Bytes>,
}

macro_rules! assets {
    ($($name:literal, $content_type:literal, $is_page:literal;)*) => {
        static ASSETS: [Asset; NAMES.len()] = [$({
            const PLAIN: &[u8] = include_bytes!(concat!("../../console/assets/", $name));
            Asset {
                name: $name,
                content_type: $content_type,
                plain: PLAIN,
                is_page: $is_page,
                compressed: LazyLock::new(|| compress(PLAIN)),
            }
        }),*];
        const NAMES: &[&str] = &[$($name),*];
    };
}

assets! {
    "index.html", "text/html; charset=utf-8", true;
    "console.js", "text/javascript; charset=utf-8", false;
    "style.css", "text/css; charset=utf-8", false;
    "icon.svg", "image/svg+xml", false;
}

/// The page itself.
pub(in crate::admin) fn page(request: &Request) -> Answer {
    asset(request, "index.html")
        .unwrap_or_else(Answer::not_found)
        .with(VARY, HeaderValue::from_static("accept, accept-encoding"))
}

/// The answer to a request for one of them; `None` when there is none of that name.
pub(in crate::admin) fn asset(request: &Request, name: &str) -> Option<Answer> {
    let asset = ASSETS.iter().find(|asset| asset.name == name)?;
    let takes_gzip = request.header(ACCEPT_ENCODING).is_some_and(takes_gzip);
    let body = if takes_gzip { asset.compressed.clone() } else { Bytes::from_static(asset.plain) };
    let answer = Answer::new(StatusCode::OK, asset.content_type, body)
        .with(VARY, HeaderValue::from_static("accept-encoding"))
        .told_by_its_content(request);
    // An address that says what it holds never holds anything else.
    let may_be_kept = !asset.is_page && request.parameter("v").is_some();
    let keeping = if may_be_kept { "private, max-age=31536000, immutable" } else { "no-cache" };
    let answer = answer.with(CACHE_CONTROL, HeaderValue::from_static(keeping));
    Some(if takes_gzip { answer.with(CONTENT_ENCODING, HeaderValue::from_static("gzip")) } else { answer })
}

/// Whether a client takes gzip: what it refuses has the weight 0.
fn takes_gzip(accepted: &str) -> bool {
    accepted.split(',').any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_gzip = matches!(parts.next(), Some("gzip" | "*"));
        is_gzip
            && !parts
                .any(|part| matches!(part.replace(' ', "").as_str(), "q=0" | "q=0.0" | "q=0.00" | "q=0.000"))
    })
}

fn compress(plain: &[u8]) -> Bytes {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(plain).expect("memory takes what is written to it");
    encoder.finish().expect("memory takes what is written to it").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_client_refuses_it_does_not_get() {
        for accepted in ["gzip", "br, gzip", "deflate, gzip;q=0.5", "*"] {
            assert!(takes_gzip(accepted), "{accepted}");
        }
        for accepted in ["", "br", "gzip;q=0", "gzip; q=0.0", "x-gzip"] {
            assert!(!takes_gzip(accepted), "{accepted}");
        }
    }

    /// No request goes to another host, and nothing is written into the page that a content policy would have to let through.
    #[test]
    fn the_page_is_all_there_is() {
        let page = ASSETS.iter().find(|asset| asset.is_page).expect("a page");
        let text = std::str::from_utf8(page.plain).expect("UTF-8");
        assert!(!text.contains("://") && !text.contains("style=") && !text.contains(" on"), "{text}");
        for asset in ASSETS.iter().filter(|asset| !asset.is_page && asset.name != "icon.svg") {
            assert!(text.contains(&format!("\"{}?v=", asset.name)), "the page does not load {}", asset.name);
            let text = std::str::from_utf8(asset.plain).expect("UTF-8");
            let hosts = text
                .match_indices("://")
                .map(|(at, _)| &text[at.saturating_sub(8)..(at + 24).min(text.len())]);
            // Names of XML's name spaces are addresses that nobody asks.
            let asked: Vec<_> = hosts.filter(|around| !around.contains("www.w3.org")).collect();
            assert!(asked.is_empty(), "{}: {asked:?}", asset.name);
        }
    }
}
