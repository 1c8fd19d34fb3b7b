//! The vocabulary of the system: newtypes that every module shares and that know nothing of any of them.

#[cfg(feature = "server")]
mod budget;
#[cfg(feature = "server")]
pub mod calendar;
#[cfg(feature = "server")]
mod client_memory;
mod delay_level;
#[cfg(feature = "server")]
mod file_stamp;
mod identity;
mod instance;
mod level;
mod message_id;
#[cfg(feature = "server")]
mod mutex;
mod name;
#[cfg(feature = "server")]
mod network;
mod position;
mod receipt;
mod retention;
mod secret;
#[cfg(feature = "server")]
mod settings_file;
#[cfg(feature = "server")]
mod throttle;
mod time;
#[cfg(feature = "server")]
mod wake;

#[cfg(feature = "server")]
pub use budget::{ByteBudget, Reservation};
#[cfg(feature = "server")]
pub use client_memory::{Account, ClientMemory};
pub use delay_level::{DelayLevels, DelayLevelsError};
#[cfg(feature = "server")]
pub use file_stamp::FileStamp;
pub use identity::{Identity, NodeId, QueueKey, QueueNumber, ShardId, TopicId};
pub use instance::InstanceName;
pub use level::Level;
pub use message_id::{IdText, MessageIdError, OffsetMessageId, RecordLocation, UniqueId, UniqueIdGenerator};
#[cfg(feature = "server")]
pub use mutex::TaskMutex;
pub use name::{GroupName, GroupTopic, NameError, TopicName};
#[cfg(feature = "server")]
pub use network::{network_of, wider_network_of};
pub use position::{LogPosition, QueueOffset};
pub use receipt::{HalfReceipt, Receipt};
pub use retention::Retention;
pub use secret::Secret;
#[cfg(feature = "server")]
pub use settings_file::{SettingsFile, SettingsFileError, not_regular};
#[cfg(feature = "server")]
pub use throttle::Throttle;
pub use time::{MonotonicTime, RunningTime, Timestamp};
#[cfg(feature = "server")]
pub use wake::WakerList;
