//! Topics and instances: made, changed and removed on the control shard first, then on every other one.

mod control;
mod first_use;
mod instances;
mod makers;
mod permitted;
mod publish;
mod purge;
mod shaping;
mod shown;

pub use crate::state::MessageType;
pub use control::LOG_PLACED;
pub(super) use control::Others;
pub(super) use instances::{topic_missing, topic_unknown};
pub(super) use makers::TopicMakers;
pub use publish::{Publication, Publish, Published};
pub use shaping::TopicShape;
pub use shown::{ShownTopic, StoredQueue};
