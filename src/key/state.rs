//! Key states, after SP 800-57 Part 1 §7.

use serde::{Deserialize, Serialize};

/// What a key may do at a given instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum KeyState {
    /// Generated, not yet activated: signs nothing.
    Pending,
    /// Signs new attestations.
    Active,
    /// Replaced, overlap still running: verifies, signs nothing new.
    Rotating,
    /// Rotation completed: what it signed still verifies.
    Retired,
    /// Withdrawn: what it signed is refused.
    Revoked,
    /// Past its end date while active or rotating: verifies, signs nothing.
    Expired,
}

impl KeyState {
    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Active => "active",
            Self::Rotating => "rotating",
            Self::Retired => "retired",
            Self::Revoked => "revoked",
            Self::Expired => "expired",
        }
    }

    /// True when a new attestation may be signed.
    #[must_use]
    pub fn may_sign(self) -> bool {
        match self {
            Self::Active => true,
            Self::Pending | Self::Rotating | Self::Retired | Self::Revoked | Self::Expired => false,
        }
    }

    /// True when signatures already made still count.
    #[must_use]
    pub fn may_verify(self) -> bool {
        match self {
            Self::Active | Self::Rotating | Self::Retired | Self::Expired => true,
            Self::Pending | Self::Revoked => false,
        }
    }
}
