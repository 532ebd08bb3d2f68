//! Revocations: a set on the token that only grows.
//!
//! A revocation is no link of the record chain. Two appliances may revoke at once, or while a third
//! rotates, and none of it can be lost to a race; reading the same revocation twice changes nothing.
//!
//! ```asn1
//! Revocation ::= SEQUENCE {
//!   version        INTEGER (1),
//!   signer         UTF8String,
//!   key            INTEGER,              -- the sequence of the key id
//!   time           GeneralizedTime,
//!   reason         UTF8String,
//!   actor          UTF8String,
//!   initiatedBy    UTF8String,
//!   compromisedAt  GeneralizedTime OPTIONAL }
//! ```

use std::fmt;

use der::{Decode, Encode, Sequence, asn1::GeneralizedTime};
use serde::{Deserialize, Serialize};

use crate::key::record::VERSION;

/// Why a key is revoked (after RFC 5280 §5.3.1, in the product's words).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum RevocationReason {
    Compromised,
    Rotation,
    Decommissioned,
    PolicyViolation,
    Administrative,
}

impl RevocationReason {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Compromised, Self::Rotation, Self::Decommissioned, Self::PolicyViolation, Self::Administrative];

    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Compromised => "compromised",
            Self::Rotation => "rotation",
            Self::Decommissioned => "decommissioned",
            Self::PolicyViolation => "policy_violation",
            Self::Administrative => "administrative",
        }
    }
}

impl fmt::Display for RevocationReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One key is revoked, for good.
#[derive(Clone, Debug, PartialEq, Eq, Sequence)]
pub struct Revocation {
    pub version: u8,
    pub signer: String,
    pub key: u32,
    pub time: GeneralizedTime,
    pub reason: String,
    pub actor: String,
    pub initiated_by: String,
    pub compromised_at: Option<GeneralizedTime>,
}

/// What labels of revocations have after the signer's name.
const INFIX: &str = " revoked ";

impl Revocation {
    /// The DER encoding.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        self.to_der().expect("revocations are far below DER's length limits")
    }

    /// Reads one revocation; `None` when the bytes are not exactly one of this version.
    #[must_use]
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_der(bytes).ok().filter(|revocation| revocation.version == VERSION)
    }

    /// The token label.
    #[must_use]
    pub fn label(&self) -> String {
        format!("{}{INFIX}{:06}", self.signer, self.key)
    }

    /// True for labels that [`Revocation::label`] makes.
    #[must_use]
    pub fn is_label(label: &str) -> bool {
        label.contains(INFIX)
    }
}
