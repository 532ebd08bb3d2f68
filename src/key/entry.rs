//! One key, and its state at a moment.

use crate::{
    key::{Algorithm, KeyId, KeyState, Line, PublicKey},
    timestamp::Timestamp,
};

/// One key, as the ledger tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub id: KeyId,
    pub object_id: Vec<u8>,
    pub label: String,
    pub public_key: PublicKey,
    pub token_serial: String,
    pub line: Line,
    pub omitted: Vec<String>,
    pub generated_at: Timestamp,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub activated_at: Option<Timestamp>,
    /// When the key stops (or stopped) being `rotating`; `None` while it was never replaced.
    pub overlap_until: Option<Timestamp>,
    pub retired_at: Option<Timestamp>,
    pub revoked: Option<Revoked>,
    pub destroyed_at: Option<Timestamp>,
}

/// The revocation that counts: the earliest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    pub at: Timestamp,
    pub reason: String,
    pub initiated_by: String,
    pub compromised_at: Option<Timestamp>,
}

impl KeyEntry {
    /// The key's state at `now`: deadlines count at the moment of asking, whether or not anything
    /// has run since.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        if self.revoked.is_some() {
            return KeyState::Revoked;
        }
        if self.retired_at.is_some() {
            return KeyState::Retired;
        }
        match (self.activated_at, self.overlap_until) {
            (_, Some(until)) if now >= until => KeyState::Retired,
            _ if now >= self.not_after => KeyState::Expired,
            (_, Some(_)) => KeyState::Rotating,
            (Some(_), None) => KeyState::Active,
            (None, None) => KeyState::Pending,
        }
    }

    /// When the key stopped signing for good, if it has.
    #[must_use]
    pub fn ended_at(&self, now: Timestamp) -> Option<Timestamp> {
        let revoked = self.revoked.as_ref().map(|revoked| revoked.at);
        let overlap = self.overlap_until.filter(|until| now >= *until);
        [revoked, self.retired_at, overlap].into_iter().flatten().min()
    }

    /// The key's algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.public_key.algorithm()
    }
}
