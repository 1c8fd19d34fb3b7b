//! `GET /api/node`: what `turbopump status -o json` shows, without the addresses that its client knows.

use crate::admin::answer::Answer;
use crate::admin::request::Request;
use crate::admin::server::Visit;
use crate::api::{self, Failure, Reply, Status};
use crate::views::NodeView;

/// Needs what `status` does: a key with `admin = true`, where there are keys.
pub(super) async fn describe(visit: &Visit, request: &Request) -> Result<Answer, Failure> {
    let node = match visit.carry_out(request, api::Request::DescribeNode { count_syscalls: false }).await? {
        Reply::Node(node) => node,
        _ => return Err(Failure::new(Status::Internal, "the shard gave an answer of another kind")),
    };
    Ok(Answer::json(&NodeView::new(&node)))
}
