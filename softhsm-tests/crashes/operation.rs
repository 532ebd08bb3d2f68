//! The operations that are cut short: what they start from, and what they may leave.

use serde_json::{Value, json};

use crate::support::signer::key;

/// Something that changes keys.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Operation {
    Rotate,
    Complete,
    Revoke,
    Emergency,
    Destroy,
    Generate,
    /// `serve` on an empty token on which the configuration allows a first key.
    FirstStart,
    Init,
}

impl Operation {
    /// True when the operation is the start of a process, not a request to a running one.
    pub fn is_start(self) -> bool {
        matches!(self, Self::FirstStart | Self::Init)
    }

    /// Requests that lead from one active key to where the operation begins.
    pub fn preparation(self) -> Vec<(String, Value)> {
        let rotate = |emergency: bool| {
            let body = json!({ "reason": "rotation", "initiated_by": "ops-team", "emergency": emergency });
            ("/api/v1/keys/rotate".to_owned(), body)
        };
        match self {
            Self::Complete => vec![rotate(false)],
            Self::Destroy => vec![Self::Revoke.request(), rotate(true)],
            Self::Rotate | Self::Revoke | Self::Emergency | Self::Generate | Self::FirstStart | Self::Init => vec![],
        }
    }

    /// The request that is cut short.
    pub fn request(self) -> (String, Value) {
        let by = "security-team";
        match self {
            Self::Rotate => ("/api/v1/keys/rotate".into(), json!({ "reason": "rotation", "initiated_by": by })),
            Self::Complete => ("/api/v1/rotations/rotation-2/complete".into(), json!({ "force": true })),
            Self::Revoke => {
                let body = json!({ "reason": "compromised", "initiated_by": by });
                (format!("/api/v1/keys/{}/revoke", key(1)), body)
            }
            Self::Emergency => ("/api/v1/keys/emergency".into(), json!({ "initiated_by": by })),
            Self::Destroy => (format!("/api/v1/keys/{}/destroy", key(1)), json!({ "force": true })),
            Self::Generate => ("/api/v1/keys".into(), json!({ "initiated_by": by })),
            Self::FirstStart | Self::Init => panic!("{self:?} is no request"),
        }
    }

    /// States of all keys, oldest first, that a restart may find; the last is that of an operation
    /// that has answered.
    pub fn outcomes(self) -> &'static [&'static [&'static str]] {
        match self {
            Self::Rotate => &[&["active"], &["active", "pending"], &["rotating", "active"]],
            Self::Complete => &[&["rotating", "active"], &["retired", "active"]],
            Self::Revoke => &[&["active"], &["revoked"]],
            Self::Emergency => &[&["active"], &["revoked"], &["revoked", "pending"], &["revoked", "active"]],
            Self::Destroy => &[&["revoked", "active"]],
            Self::Generate => &[&["active"], &["active", "pending"]],
            // The restart finishes what was begun.
            Self::FirstStart | Self::Init => &[&["active"]],
        }
    }
}
