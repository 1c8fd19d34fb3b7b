//! The vocabulary of the system: newtypes that every module shares and that know nothing of any of them.

mod budget;
mod client_memory;
mod file_stamp;
mod identity;
mod instance;
mod level;
mod message_id;
mod name;
mod position;
mod receipt;
mod retention;
mod settings_file;
mod throttle;
mod time;
mod wake;

pub use budget::{ByteBudget, Reservation};
pub use client_memory::{Account, ClientMemory};
pub use file_stamp::FileStamp;
pub use identity::{Identity, NodeId, QueueKey, QueueNumber, ShardId, TopicId};
pub use instance::InstanceName;
pub use level::Level;
pub use message_id::{IdText, MessageIdError, OffsetMessageId, RecordPlace, UniqueId, UniqueIdGenerator};
pub use name::{GroupName, NameError, TopicName};
pub use position::{LogPosition, QueueOffset};
pub use receipt::{HalfReceipt, Receipt};
pub use retention::Retention;
pub use settings_file::{SettingsFile, SettingsFileError};
pub use throttle::Throttle;
pub use time::{MonotonicTime, RunningTime, Timestamp};
pub use wake::WakerList;
