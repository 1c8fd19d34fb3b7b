//! Who gets the answer to a request that leases messages, or that may be large.

/// One call of a client. Sees to it that messages are chosen only for somebody who has room for them and is still there: what
/// is chosen for nobody stays away from everybody until its lease ends, or until it is given back.
pub trait Recipient {
    /// Held from before messages are chosen until they are handed over.
    type Reservation;

    /// Waits for memory for one answer; `None` when the recipient is gone.
    async fn reserve(&self) -> Option<Self::Reservation>;

    /// Completes when the recipient is gone; never, if nobody would notice.
    async fn gone(&self);

    /// Whether it can be handed something in this moment: asked when messages were leased to it. False: they are given back.
    fn is_here(&self) -> bool;
}

/// Somebody who takes everything: the adaptor in front drops the request when its client is gone.
pub(super) struct AnyRecipient;

impl Recipient for AnyRecipient {
    type Reservation = ();

    async fn reserve(&self) -> Option<()> {
        Some(())
    }

    async fn gone(&self) {
        std::future::pending().await
    }

    fn is_here(&self) -> bool {
        true
    }
}
