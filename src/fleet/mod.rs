//! What several appliances on one token agree on beside the token itself: who may change keys now,
//! and how far each has seen the ledger.
//!
//! PKCS#11 has no compare-and-swap. A lock serialises lifecycle operations, and its fence, which
//! only grows, stands in every ledger record: a holder that slept past its lock writes with a lower
//! fence than its successor, and every reader passes its record over. So the lock keeps operations
//! from colliding, and the fence keeps the ledger right where the lock could not.
//!
//! Nothing that decides whether a key signs depends on what is here: that is the token's ledger and
//! the lease.

mod redis;
mod single;

use async_trait::async_trait;

pub use redis::RedisFleet;
pub use single::Single;

use crate::key::seen::Seen;

/// The right to change keys, until dropped or timed out.
pub struct Guard {
    fence: u64,
    /// Gives the lock back when dropped.
    _held: Box<dyn Send + Sync>,
}

impl Guard {
    /// Greater than that of every guard before this one.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }
}

/// Another appliance of the fleet, as it last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub instance: String,
    /// How many revocations it has read.
    pub revocations: u64,
}

/// What a report does to the fleet's memory of the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Memory {
    /// It is kept when it goes further than what is remembered.
    Further,
    /// It takes the place of what is remembered: an operator accepted this ledger. Revocations stay.
    Anew,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another lifecycle operation is running")]
    Held,
    #[error("the fleet's state cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The fleet around one signer's token.
#[async_trait]
pub trait Fleet: Send + Sync {
    /// Takes the lock without waiting. The fence will be above `last_fence`.
    async fn acquire(&self, last_fence: u64) -> Result<Guard, Error>;

    /// Tells the fleet how far this appliance has read.
    async fn report(&self, seen: &Seen, memory: Memory) -> Result<(), Error>;

    /// The furthest that any appliance has read.
    async fn remembered(&self) -> Result<Option<Seen>, Error>;

    /// The appliances that have reported within the last seconds.
    async fn members(&self) -> Result<Vec<Member>, Error>;
}
