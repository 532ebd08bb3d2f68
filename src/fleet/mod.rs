//! What several appliances on one token agree on beside the token itself: who may change keys now.
//!
//! PKCS#11 has no compare-and-swap. A lock serialises lifecycle operations, and its fence, which
//! only grows, stands in every ledger record: a holder that slept past its lock writes with a lower
//! fence than its successor, and every reader passes its record over. So the lock keeps operations
//! from colliding, and the fence keeps the ledger right where the lock could not.

mod local;

use async_trait::async_trait;

pub use local::LocalLock;

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

/// Why there is no guard.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("another lifecycle operation is running")]
    Held,
    #[error("the fleet lock cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// The lock on a signer's keys.
#[async_trait]
pub trait FleetLock: Send + Sync {
    /// Takes the lock without waiting. The fence will be above `last_fence`.
    async fn acquire(&self, last_fence: u64) -> Result<Guard, Error>;
}
