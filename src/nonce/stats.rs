//! What a store says of itself: counts, and the server that it is on.

use crate::timestamp::Timestamp;

/// Most issuers that [`Stats::per_issuer`] names.
pub const MOST_ISSUERS: usize = 1000;

/// Counts for `GET /api/v1/nonce/stats`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Stats {
    pub outstanding: u64,
    pub spent: u64,
    pub expired_total: u64,
    pub capacity: u64,
    /// Unspent nonces that one issuer may hold.
    pub outstanding_per_issuer: u64,
    /// How many issuers hold unspent nonces.
    pub issuers: u64,
    /// Those that hold most, the most first.
    pub per_issuer: Vec<(String, u64)>,
    pub last_cleanup: Option<Timestamp>,
    /// The server that the nonces are kept on, if it is not this process.
    pub server: Option<ServerStats>,
}

/// What a server says of itself.
#[derive(Clone, Debug, PartialEq)]
pub struct ServerStats {
    pub memory_used: u64,
    /// `None` when there is no limit.
    pub memory_limit: Option<u64>,
    pub eviction_policy: String,
    /// Seconds that its clock is ahead of ours, for certain: what the time of the question leaves
    /// open does not count.
    pub clock_ahead: f64,
    pub client_nonces: ClientNonces,
}

/// Whether nonces that clients bring are accepted now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ClientNonces {
    /// The configuration does not allow them.
    Off,
    Accepted,
    /// Not for now, and why.
    Closed(String),
}

impl Stats {
    /// Nonces in the store, spent ones included.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.outstanding + self.spent
    }

    /// How much of the capacity is used, from 0 to 1.
    #[must_use]
    pub fn fill(&self) -> f64 {
        share(self.size(), self.capacity)
    }

    /// How much of its share the issuer uses that holds most, from 0 to 1.
    #[must_use]
    pub fn fullest_issuer(&self) -> f64 {
        share(self.per_issuer.first().map_or(0, |(_, held)| *held), self.outstanding_per_issuer)
    }
}

impl ServerStats {
    /// How much of its memory the server uses, from 0 to 1; 0 when there is no limit.
    #[must_use]
    pub fn memory_fill(&self) -> f64 {
        self.memory_limit.map_or(0.0, |limit| share(self.memory_used, limit))
    }
}

#[expect(clippy::cast_precision_loss, reason = "a share, shown to people")]
fn share(part: u64, whole: u64) -> f64 {
    part as f64 / whole.max(1) as f64
}

/// The largest first, by name among equals.
pub(super) fn in_order(per_issuer: &mut [(String, u64)]) {
    per_issuer.sort_by(|(name, held), (other, others)| others.cmp(held).then_with(|| name.cmp(other)));
}

/// What a cleanup removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Never spent.
    pub expired: u64,
    pub used: u64,
    /// The steps it took: in between, others have their turn.
    pub batches: u64,
}

impl Removed {
    /// Of whatever status.
    #[must_use]
    pub fn total(self) -> u64 {
        self.expired + self.used
    }

    pub(super) fn add_batch(&mut self, expired: u64, used: u64) {
        self.expired += expired;
        self.used += used;
        self.batches += 1;
    }
}
