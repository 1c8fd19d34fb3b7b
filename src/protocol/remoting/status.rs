//! Which number an outcome has, and what people are told. The match is exhaustive, so that a new outcome cannot reach clients
//! by accident.

use super::code::ResponseCode;
use crate::api::{Failure, Status};

/// What a request was about: some outcomes have other numbers where clients do something about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Asked {
    Send,
    Pull,
    /// To be given messages for a while.
    Pop,
    Acknowledge,
    AcknowledgeInOrder,
    EndTransaction,
    /// Anything else.
    Other,
}

impl Asked {
    pub const ALL: [Asked; 7] = [
        Asked::Send,
        Asked::Pull,
        Asked::Pop,
        Asked::Acknowledge,
        Asked::AcknowledgeInOrder,
        Asked::EndTransaction,
        Asked::Other,
    ];
}

/// Clients above this version (5.3.1, see `common/.../MQVersion.java`) connect anew when they are told to go away.
const GOES_AWAY_ABOVE: i32 = 475;

/// The number of an outcome, for a client of that version.
pub fn code_of(status: Status, asked: Asked, client_version: i32) -> ResponseCode {
    match status {
        Status::Ok => ResponseCode::Success,
        Status::InvalidArgument | Status::QueueNotExist => ResponseCode::InvalidParameter,
        Status::MessageTooLarge | Status::ChecksumMismatch => ResponseCode::MessageIllegal,
        Status::UnsupportedVersion => ResponseCode::VersionNotSupported,
        Status::UnsupportedRequest => ResponseCode::RequestCodeNotSupported,
        Status::TopicNotExist => ResponseCode::TopicNotExist,
        Status::TopicExists => ResponseCode::TopicExistAlready,
        Status::GroupNotExist => ResponseCode::SubscriptionGroupNotExist,
        Status::OffsetOutOfRange if asked == Asked::Pull => ResponseCode::PullOffsetMoved,
        Status::OffsetOutOfRange => ResponseCode::InvalidParameter,
        Status::ReceiptExpired => match asked {
            // It was dealt with before: there is nothing to be done.
            Asked::Acknowledge => ResponseCode::Success,
            Asked::AcknowledgeInOrder => ResponseCode::MessageIllegal,
            _ => ResponseCode::SystemError,
        },
        Status::LimitReached if asked == Asked::Pop => ResponseCode::PollingFull,
        Status::LimitReached
        | Status::GroupHasMembers
        | Status::Unauthenticated
        | Status::PermissionDenied => ResponseCode::NoPermission,
        Status::Busy => ResponseCode::SystemBusy,
        Status::NoSpace | Status::StorageFailed => ResponseCode::ServiceNotAvailable,
        Status::ShuttingDown if client_version > GOES_AWAY_ABOVE => ResponseCode::GoAway,
        Status::ShuttingDown if asked == Asked::Send => ResponseCode::ServiceNotAvailable,
        Status::ShuttingDown => ResponseCode::SystemBusy,
        // It may be stored or not: never what says that it is.
        Status::OutcomeUnknown
        | Status::Damaged
        | Status::Internal
        | Status::MalformedFrame
        | Status::MemberUnknown
        | Status::GenerationStale => ResponseCode::SystemError,
    }
}

/// What people are told. Operators' alerts look for the words in brackets.
pub fn remark_of(failure: &Failure) -> String {
    let alert = match failure.status {
        Status::Busy => "[REJECTREQUEST]system busy, start flow control for a while: ",
        _ => "",
    };
    format!("{alert}{failure}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_may_be_stored_or_is_not_is_told_as_success() {
        for status in Status::ALL.into_iter().filter(|status| *status != Status::Ok) {
            for asked in Asked::ALL {
                for version in [63, 409, 479, 513] {
                    let code = code_of(status, asked, version);
                    let is_idempotent = status == Status::ReceiptExpired && asked == Asked::Acknowledge;
                    assert_eq!(code == ResponseCode::Success, is_idempotent, "{status:?} of {asked:?}");
                    assert_ne!(code, ResponseCode::FlushDiskTimeout, "{status:?} of {asked:?}");
                }
            }
        }
    }

    #[test]
    fn a_stop_is_told_as_each_client_understands_it() {
        let code = |asked, version| code_of(Status::ShuttingDown, asked, version);
        assert_eq!(code(Asked::Send, 513), ResponseCode::GoAway);
        assert_eq!(code(Asked::Send, 475), ResponseCode::ServiceNotAvailable);
        assert_eq!(code(Asked::Pull, 409), ResponseCode::SystemBusy);
    }

    #[test]
    fn remarks_have_the_words_that_alerts_look_for() {
        let remark = remark_of(&Failure::new(Status::Busy, "the log is full"));
        assert!(
            remark.starts_with("[REJECTREQUEST]system busy") && remark.contains("the log is full"),
            "{remark}"
        );
        assert_eq!(remark_of(&Failure::new(Status::TopicNotExist, "no `x`")), "no `x` (TopicNotExist)");
    }
}
