//! Status and level codes. Both directions of the status are exhaustive, so that a new outcome cannot reach the wire by
//! accident.

use std::time::Duration;

use crate::api::{Failure, Status};
use crate::types::{Level, Retention};
use crate::wire::generated as schema;

pub(super) fn status_code(status: Status) -> schema::Status {
    match status {
        Status::Ok => schema::Status::Ok,
        Status::InvalidArgument => schema::Status::InvalidArgument,
        Status::MalformedFrame => schema::Status::MalformedFrame,
        Status::UnsupportedVersion => schema::Status::UnsupportedVersion,
        Status::UnsupportedRequest => schema::Status::UnsupportedRequest,
        Status::ChecksumMismatch => schema::Status::ChecksumMismatch,
        Status::MessageTooLarge => schema::Status::MessageTooLarge,
        Status::TopicNotExist => schema::Status::TopicNotExist,
        Status::TopicExists => schema::Status::TopicExists,
        Status::QueueNotExist => schema::Status::QueueNotExist,
        Status::GroupNotExist => schema::Status::GroupNotExist,
        Status::MemberUnknown => schema::Status::MemberUnknown,
        Status::OffsetOutOfRange => schema::Status::OffsetOutOfRange,
        Status::GroupHasMembers => schema::Status::GroupHasMembers,
        Status::ReceiptExpired => schema::Status::ReceiptExpired,
        Status::LimitReached => schema::Status::LimitReached,
        Status::GenerationStale => schema::Status::GenerationStale,
        Status::Busy => schema::Status::Busy,
        Status::NoSpace => schema::Status::NoSpace,
        Status::ShuttingDown => schema::Status::ShuttingDown,
        Status::StorageFailed => schema::Status::StorageFailed,
        Status::OutcomeUnknown => schema::Status::OutcomeUnknown,
        Status::Damaged => schema::Status::Damaged,
        Status::Internal => schema::Status::Internal,
        Status::Unauthenticated => schema::Status::Unauthenticated,
        Status::PermissionDenied => schema::Status::PermissionDenied,
    }
}

/// `None` for a code of a newer release: the generated type is a number, so the last arm is not a wildcard over known
/// outcomes; `every_status_survives_the_wire` checks that none is missing.
pub(super) fn known_status(code: schema::Status) -> Option<Status> {
    Some(match code {
        schema::Status::Ok => Status::Ok,
        schema::Status::InvalidArgument => Status::InvalidArgument,
        schema::Status::MalformedFrame => Status::MalformedFrame,
        schema::Status::UnsupportedVersion => Status::UnsupportedVersion,
        schema::Status::UnsupportedRequest => Status::UnsupportedRequest,
        schema::Status::ChecksumMismatch => Status::ChecksumMismatch,
        schema::Status::MessageTooLarge => Status::MessageTooLarge,
        schema::Status::TopicNotExist => Status::TopicNotExist,
        schema::Status::TopicExists => Status::TopicExists,
        schema::Status::QueueNotExist => Status::QueueNotExist,
        schema::Status::GroupNotExist => Status::GroupNotExist,
        schema::Status::MemberUnknown => Status::MemberUnknown,
        schema::Status::OffsetOutOfRange => Status::OffsetOutOfRange,
        schema::Status::GroupHasMembers => Status::GroupHasMembers,
        schema::Status::ReceiptExpired => Status::ReceiptExpired,
        schema::Status::LimitReached => Status::LimitReached,
        schema::Status::GenerationStale => Status::GenerationStale,
        schema::Status::Busy => Status::Busy,
        schema::Status::NoSpace => Status::NoSpace,
        schema::Status::ShuttingDown => Status::ShuttingDown,
        schema::Status::StorageFailed => Status::StorageFailed,
        schema::Status::OutcomeUnknown => Status::OutcomeUnknown,
        schema::Status::Damaged => Status::Damaged,
        schema::Status::Internal => Status::Internal,
        schema::Status::Unauthenticated => Status::Unauthenticated,
        schema::Status::PermissionDenied => Status::PermissionDenied,
        _ => return None,
    })
}

/// The failure that a reply other than `Ok` tells of. A code of a newer release becomes `Internal`, which promises
/// nothing about what was stored.
pub(super) fn failure(code: schema::Status, message: &str) -> Failure {
    match known_status(code) {
        Some(status) => Failure::new(status, message),
        None => Failure::new(
            Status::Internal,
            format!("status {} is not known to this release: {message}", code.0),
        ),
    }
}

pub(super) fn level_code(level: Option<Level>) -> schema::Level {
    match level {
        None => schema::Level::Default,
        Some(Level::Accepted) => schema::Level::Accepted,
        Some(Level::Written) => schema::Level::Written,
        Some(Level::Durable) => schema::Level::Durable,
    }
}

/// A level as it came: `Ok(None)` leaves the choice to the topic, `Err` is the code of a newer release.
pub(super) fn known_level(code: schema::Level) -> Result<Option<Level>, u8> {
    match code {
        schema::Level::Default => Ok(None),
        schema::Level::Accepted => Ok(Some(Level::Accepted)),
        schema::Level::Written => Ok(Some(Level::Written)),
        schema::Level::Durable => Ok(Some(Level::Durable)),
        schema::Level(code) => Err(code),
    }
}

/// Retention and its milliseconds.
pub(super) fn retention_code(retention: Option<Retention>) -> (schema::Retention, u64) {
    match retention {
        None => (schema::Retention::Age, 0),
        Some(Retention::Inherited) => (schema::Retention::Inherited, 0),
        Some(Retention::Unlimited) => (schema::Retention::Unlimited, 0),
        // Zero means none on the wire: a retention shorter than a millisecond becomes one.
        Some(Retention::Age(age)) => {
            (schema::Retention::Age, u64::try_from(age.as_millis()).unwrap_or(u64::MAX).max(1))
        }
    }
}

/// A retention as it came: `Ok(None)` when none was named, `Err` is the code of a newer release.
pub(super) fn known_retention(code: schema::Retention, milliseconds: u64) -> Result<Option<Retention>, u8> {
    match code {
        schema::Retention::Age if milliseconds == 0 => Ok(None),
        schema::Retention::Age => Ok(Some(Retention::Age(Duration::from_millis(milliseconds)))),
        schema::Retention::Inherited => Ok(Some(Retention::Inherited)),
        schema::Retention::Unlimited => Ok(Some(Retention::Unlimited)),
        schema::Retention(code) => Err(code),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_survives_the_wire() {
        for status in Status::ALL {
            assert_eq!(known_status(status_code(status)), Some(status));
        }
        assert_eq!(schema::Status::ENUM_VALUES.len(), Status::ALL.len());
    }

    #[test]
    fn a_newer_status_promises_nothing() {
        let failure = failure(schema::Status(999), "the moon is full");
        assert_eq!(failure.status, Status::Internal);
        assert!(!failure.status.not_stored());
        assert!(failure.message.contains("999") && failure.message.contains("the moon is full"));
    }

    #[test]
    fn every_level_survives_the_wire() {
        for level in Level::ALL.map(Some).into_iter().chain([None]) {
            assert_eq!(known_level(level_code(level)), Ok(level));
        }
        assert_eq!(known_level(schema::Level(9)), Err(9));
    }
}
