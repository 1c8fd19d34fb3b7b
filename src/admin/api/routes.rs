//! Which calls there are.

use hyper::Method;

use super::node;
use crate::admin::answer::Answer;
use crate::admin::console;
use crate::admin::phase::NodePhase;
use crate::admin::request::Request;
use crate::admin::server::Visit;
use crate::api::{Failure, Status};

/// Answers `/api/...`; `path` is what follows.
pub(in crate::admin) async fn answer(visit: &Visit, request: &Request, path: &[&str]) -> Answer {
    if visit.admin.phase.phase() != NodePhase::Serving {
        let message = "the broker is starting or stopping: try again";
        return Answer::failure(&Failure::new(Status::Busy, message));
    }
    let answered = match (request.method(), path) {
        (&Method::GET | &Method::HEAD, ["node"]) => node::describe(visit, request).await,
        (_, ["node"]) => return Answer::not_allowed("GET, HEAD"),
        _ => return console::answer(visit, request, path).await,
    };
    answered.unwrap_or_else(|failure| Answer::failure(&failure))
}
