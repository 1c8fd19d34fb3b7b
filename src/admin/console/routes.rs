//! Which calls the console has.

use hyper::Method;

use super::asking::Asking;
use super::{dead_letters, figures, groups, latency, look_up, publish, reset, session, topics};
use crate::admin::answer::Answer;
use crate::admin::request::Request;
use crate::admin::server::Visit;
use crate::api::Failure;

const READ: &str = "GET, HEAD";
const WRITE: &str = "POST";

/// Answers `/api/...`; `path` is what follows.
pub(in crate::admin) async fn answer(visit: &Visit, request: &Request, path: &[&str]) -> Answer {
    let asking = Asking { visit, request };
    let answered = match (request.method(), path) {
        (&Method::GET | &Method::HEAD, path) => match read(asking, path).await {
            Some(answered) => answered,
            None if changes(path) => return Answer::not_allowed(WRITE),
            None => return Answer::not_found(),
        },
        (&Method::POST, ["topics", topic, "messages"]) => publish::publish(asking, topic).await,
        (&Method::POST, ["groups", group, "reset"]) => reset::reset(asking, group).await,
        (&Method::POST, ["dead-letters", group, "redrive"]) => dead_letters::redrive(asking, group).await,
        (_, path) if changes(path) => return Answer::not_allowed(WRITE),
        _ => return Answer::not_allowed(READ),
    };
    answered.unwrap_or_else(|failure| Answer::failure(&failure))
}

/// Answers what only shows; `None`: there is nothing of this name.
async fn read(asking: Asking<'_>, path: &[&str]) -> Option<Result<Answer, Failure>> {
    let answered = match *path {
        // Messages are nobody's to keep; the rest need not be sent again as long as it is the same.
        ["messages"] => return Some(look_up::messages(asking).await),
        ["message"] => return Some(look_up::message(asking).await),
        // What is of now is never the same.
        ["latency"] => return Some(latency::latency(asking).await),
        ["slow"] => return Some(latency::slow(asking).await),
        ["dead-letters", group] => return Some(dead_letters::messages(asking, group).await),
        ["session"] => session::session(asking).await,
        ["topics"] => figures::topics(asking).await,
        ["topics", topic] => topics::topic(asking, topic).await,
        ["groups"] => figures::groups(asking).await,
        ["groups", group] => groups::group(asking, group).await,
        ["groups", group, "reset"] => reset::preview(asking, group).await,
        ["dead-letters"] => dead_letters::list(asking).await,
        _ => return None,
    };
    Some(answered.map(|answer| answer.told_by_its_content(asking.request)))
}

/// Whether a path is one that something is changed by.
fn changes(path: &[&str]) -> bool {
    matches!(path, ["topics", _, "messages"] | ["groups", _, "reset"] | ["dead-letters", _, "redrive"])
}
