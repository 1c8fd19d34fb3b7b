//! The page itself.

use hyper::StatusCode;
use hyper::header::{ACCEPT, HeaderValue, VARY};

use super::exposition::{Exposition, Form};
use super::scrape::Scrape;
use super::{own, rocketmq};
use crate::admin::answer::Answer;
use crate::admin::request::Request;
use crate::admin::server::Visit;

/// Answers `GET /metrics`, in the form that is asked for, to who may look.
pub(in crate::admin) async fn answer(visit: &Visit, request: &Request) -> Answer {
    if let Err(failure) = visit.may_look(request).await {
        return Answer::failure(&failure);
    }
    let form = Form::accepted(request.header(ACCEPT));
    let scrape = Scrape::take(&visit.admin).await;
    let mut output = Exposition::new(form);
    rocketmq::write(&scrape, &mut output);
    own::write(&scrape, &mut output);
    Answer::new(StatusCode::OK, form.content_type(), output.end())
        .with(VARY, HeaderValue::from_static("Accept"))
}
