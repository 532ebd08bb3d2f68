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
mod stream;

use std::time::Duration;

use async_trait::async_trait;
use tokio_util::task::TaskTracker;

pub use redis::RedisFleet;
pub use single::Single;
pub use stream::RecordStream;

use crate::key::seen::Seen;

/// The longest that a lock is kept by one who is gone: longer than the longest lifecycle operation,
/// as generating a key may take half a minute.
pub const LOCK_LIFE: Duration = Duration::from_secs(90);

/// The right to change keys, until dropped or timed out.
pub struct Guard {
    fence: u64,
    held: Option<Box<dyn Held>>,
    lingers: bool,
    returns: Returns,
}

/// Locks on their way back.
#[derive(Clone, Default)]
struct Returns(TaskTracker);

impl Returns {
    /// Waits until none is on its way.
    async fn done(&self) {
        self.0.close();
        self.0.wait().await;
    }
}

/// A lock that is held.
#[async_trait]
trait Held: Send + Sync {
    async fn release(self: Box<Self>);
}

/// Longer than any call to the token whose outcome is not known yet.
const LINGER: Duration = Duration::from_secs(60);

impl Guard {
    fn new(fence: u64, held: impl Held + 'static, returns: &Returns) -> Self {
        Self { fence, held: Some(Box::new(held)), lingers: false, returns: returns.clone() }
    }

    /// Keeps the lock for a while after the guard is dropped.
    pub fn linger(&mut self) {
        self.lingers = true;
    }

    /// Gives the lock back now. Dropping does it in the background.
    pub async fn release(mut self) {
        if let Some(held) = self.held.take().filter(|_| !self.lingers) {
            held.release().await;
        }
    }

    /// Greater than that of every guard before this one.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let (held, lingers) = (self.held.take(), self.lingers);
        // Without a runtime the process is ending: a lock in Redis then runs out by itself.
        if let (Some(held), Ok(runtime)) = (held, tokio::runtime::Handle::try_current()) {
            if lingers {
                runtime.spawn(async move {
                    tokio::time::sleep(LINGER).await;
                    held.release().await;
                });
            } else {
                self.returns.0.spawn_on(held.release(), &runtime);
            }
        }
    }
}

/// Another appliance of the fleet, as it last reported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub instance: String,
    /// How many revocations it has read.
    pub revocations: u64,
}

/// What one appliance hands to the others about audit logs: notes and requests as C2SP tlog-witness
/// writes them. They carry their own proof; here they are only passed on.
#[derive(Clone, Debug, Default)]
pub struct Handed {
    /// The log's name, the size of its last checkpoint, and its note.
    pub origin: String,
    pub size: u64,
    pub note: Option<String>,
    /// Requests to witnesses: instance and body.
    pub submissions: Vec<(String, String)>,
    /// Other logs' last checkpoints as this witness remembers them: origin and note.
    pub answers: Vec<(String, String)>,
}

/// What comes back.
#[derive(Clone, Debug, Default)]
pub struct Received {
    /// The last checkpoint of this log that was ever handed on.
    pub head: Option<String>,
    /// Requests to this witness.
    pub submissions: Vec<String>,
    /// What witnesses remember of this log: instance and note.
    pub answers: Vec<(String, String)>,
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

    /// Waits until every lock that was dropped is given back: a process that ends before would keep
    /// the others waiting for [`LOCK_LIFE`]. One that lingers is not waited for.
    async fn given_back(&self);

    /// Tells the fleet how far this appliance has read.
    async fn report(&self, seen: &Seen, memory: Memory) -> Result<(), Error>;

    /// The furthest that any appliance has read.
    async fn remembered(&self) -> Result<Option<Seen>, Error>;

    /// Exchanges checkpoints of audit logs with the other appliances.
    async fn exchange(&self, handed: &Handed) -> Result<Received, Error>;

    /// The appliances that have reported within the last seconds.
    async fn members(&self) -> Result<Vec<Member>, Error>;
}
