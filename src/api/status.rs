//! Outcomes of a request.

use std::fmt;

/// What became of a request. Adaptors map it to their codes in an exhaustive match.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    Ok,
    /// The request is wrong in itself; sending it again cannot help.
    InvalidArgument,
    MalformedFrame,
    UnsupportedVersion,
    UnsupportedRequest,
    ChecksumMismatch,
    MessageTooLarge,
    TopicNotExist,
    TopicExists,
    QueueNotExist,
    GroupNotExist,
    /// The member's session has ended: it must join again.
    MemberUnknown,
    OffsetOutOfRange,
    GroupHasMembers,
    /// What the receipt stands for is over: it was dealt with before, or by somebody else.
    ReceiptExpired,
    LimitReached,
    /// The group has given the queue to another member since: join again.
    GenerationStale,
    /// Not now, and nothing was stored: try again.
    Busy,
    NoSpace,
    ShuttingDown,
    /// The disk failed; nothing was stored, and nothing will be until the broker has been restarted.
    StorageFailed,
    /// The disk failed while it had the batch: it may be stored or not.
    OutcomeUnknown,
    /// Stored bytes do not match their checksum.
    Damaged,
    Internal,
    /// An access key is asked for, and none was proved, or not with its secret.
    Unauthenticated,
    /// The access key that was proved may not do this, or nobody may: the topic's permission or the group's settings say so.
    PermissionDenied,
}

impl Status {
    /// Every variant, for tests of the adaptors' mappings.
    pub const ALL: [Status; 26] = [
        Status::Ok,
        Status::InvalidArgument,
        Status::MalformedFrame,
        Status::UnsupportedVersion,
        Status::UnsupportedRequest,
        Status::ChecksumMismatch,
        Status::MessageTooLarge,
        Status::TopicNotExist,
        Status::TopicExists,
        Status::QueueNotExist,
        Status::GroupNotExist,
        Status::MemberUnknown,
        Status::OffsetOutOfRange,
        Status::GroupHasMembers,
        Status::ReceiptExpired,
        Status::LimitReached,
        Status::GenerationStale,
        Status::Busy,
        Status::NoSpace,
        Status::ShuttingDown,
        Status::StorageFailed,
        Status::OutcomeUnknown,
        Status::Damaged,
        Status::Internal,
        Status::Unauthenticated,
        Status::PermissionDenied,
    ];

    /// Whether a produce that got this answer is known not to be stored.
    pub fn not_stored(self) -> bool {
        !matches!(self, Status::Ok | Status::OutcomeUnknown | Status::Internal)
    }

    /// Whether the same request may succeed when it is sent again after a while.
    pub fn is_transient(self) -> bool {
        matches!(self, Status::Busy | Status::NoSpace | Status::ShuttingDown)
    }

    /// Whether a member of a group that got this answer has lost its queues, and is to join again.
    pub fn ends_session(self) -> bool {
        matches!(self, Status::MemberUnknown | Status::GenerationStale)
    }
}

/// A request that was not carried out, and what its sender can do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// Never `Status::Ok`.
    pub status: Status,
    pub message: String,
}

impl Failure {
    pub fn new(status: Status, message: impl Into<String>) -> Self {
        assert!(status != Status::Ok, "a failure has a reason");
        Self { status, message: message.into() }
    }

    pub fn invalid(message: impl fmt::Display) -> Self {
        Self::new(Status::InvalidArgument, message.to_string())
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} ({:?})", self.message, self.status)
    }
}

impl std::error::Error for Failure {}
