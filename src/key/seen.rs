//! How far somebody has seen a ledger: enough to notice later that it lost something.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::key::Standing;

/// The ledger's length, its last record, and the keys that were revoked.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    pub ledger_records: u64,
    /// SHA-256 of the last record, hex.
    pub ledger_head: String,
    /// Sequences of revoked keys. Only ever grows.
    #[serde(default)]
    pub revoked: BTreeSet<u32>,
}

/// What a ledger has lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Loss {
    #[error(
        "the ledger had {seen} records, but the token shows {found}: it was emptied, restored from a backup, \
         is being read while others log in, or is not the right one"
    )]
    Records { seen: u64, found: u64 },
    #[error(
        "ledger record {sequence} is not the one that was seen: the ledger was rewritten or belongs to another token"
    )]
    Rewritten { sequence: u64 },
    #[error("key {key} was revoked, but the token does not say so: it was restored from a backup")]
    Revocation { key: u32 },
}

impl Seen {
    /// What a reader of this standing has seen.
    #[must_use]
    pub fn of(standing: &Standing) -> Self {
        Self {
            ledger_records: standing.last_sequence(),
            ledger_head: hex::encode(standing.head()),
            revoked: standing.keys().filter(|key| key.revoked.is_some()).map(|key| key.id.sequence).collect(),
        }
    }

    /// What `standing` lacks of what was seen.
    #[must_use]
    pub fn loss(&self, standing: &Standing) -> Option<Loss> {
        let (seen, now) = (self.ledger_records, Self::of(standing));
        if now.ledger_records < seen {
            return Some(Loss::Records { seen, found: now.ledger_records });
        }
        let digest = standing.digest_at(seen).map(hex::encode);
        if seen > 0 && digest.as_deref() != Some(self.ledger_head.as_str()) {
            return Some(Loss::Rewritten { sequence: seen });
        }
        self.revoked.difference(&now.revoked).next().map(|key| Loss::Revocation { key: *key })
    }
}
