//! `GET /api/session`: who looks, and what they may do.

use serde::Serialize;

use super::asking::Asking;
use super::change;
use crate::admin::answer::Answer;
use crate::api::Failure;

#[derive(Serialize)]
struct SessionView<'a> {
    version: &'a str,
    node: String,
    /// What RocketMQ's clients know the node by.
    name: &'a str,
    /// The access key that was proved.
    key: Option<&'a str>,
    may_change: bool,
    /// Why not.
    read_only_because: Option<String>,
}

/// Needs a key where there are keys, so that a browser asks its user for one.
pub(super) async fn session(asking: Asking<'_>) -> Result<Answer, Failure> {
    let (visit, request) = (asking.visit, asking.request);
    let (facts, has_keys) = (&visit.admin.facts, visit.admin.has_keys);
    // Any key may know where the shards are.
    asking.addresses().await?;
    let denied = match has_keys {
        true => visit.may_administer(request).await.err().map(|failure| failure.message),
        false => change::refusal_without_keys(visit, request).map(|failure| failure.message),
    };
    Ok(Answer::json(&SessionView {
        version: facts.version,
        node: facts.node.to_string(),
        name: &facts.name,
        key: request.caller.key.as_ref().filter(|_| has_keys).map(|key| key.id.as_str()),
        may_change: denied.is_none(),
        read_only_because: denied,
    }))
}
