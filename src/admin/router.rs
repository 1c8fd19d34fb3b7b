//! What there is at the admin address, and who may look.

use hyper::StatusCode;

use super::answer::Answer;
use super::request::Request;
use super::server::Visit;
use super::{api, console, guard, metrics, pages};
use crate::api::{Failure, Status};

const READ: &str = "GET, HEAD";

/// Answers one request.
pub(super) async fn answer(visit: &Visit, request: &Request) -> Answer {
    if visit.lacks_tls {
        return Answer::text(StatusCode::BAD_REQUEST, "HTTPS is spoken here");
    }
    if let Some(refusal) = guard::refusal(request, visit.admin.is_loopback) {
        return refusal;
    }
    let path: Vec<&str> = request.segments.iter().map(String::as_str).collect();
    if let ["api", call @ ..] = path.as_slice() {
        return api::answer(visit, request, call).await;
    }
    match path.as_slice() {
        [] | ["healthz" | "readyz" | "version" | "metrics"] if !request.only_reads() => {
            Answer::not_allowed(READ)
        }
        // Browsers are shown the console.
        [] if request.wants_html() => console::page(request),
        [] => pages::index(),
        ["healthz"] => pages::healthz(),
        ["version"] => pages::version(&visit.admin),
        ["metrics"] => metrics::answer(visit, request).await,
        ["readyz"] => {
            let tells_all = visit.may_look(request).await.is_ok();
            pages::readyz(&visit.admin, tells_all).await
        }
        [name] if request.only_reads() => console::asset(request, name).unwrap_or_else(Answer::not_found),
        _ => Answer::not_found(),
    }
}

/// Why somebody may not look; a key with `admin = true` is what is needed.
pub(super) fn no_look() -> Failure {
    Failure::new(
        Status::Unauthenticated,
        "this address is not one of loopback, and the broker has access keys: name one with admin = true, and its secret, by \
         HTTP's Basic authentication",
    )
}
