//! The names of the store's keys. All begin with `virtengine:veid:`, which is what the runbook
//! clears, and carry the signer in braces: a Cluster keeps keys with the same braces on one node
//! (Redis Cluster specification, "Hash tags"), and a script may only touch keys of one node.

use crate::{key::SignerId, redis::prefix};

/// Names of the index, and the prefix of the nonces.
#[derive(Debug)]
pub(super) struct Keys {
    /// Sorted set of unspent nonces with their issuers, by the end of their window.
    pub outstanding: String,
    /// Sorted set of spent nonces, by the end of their window.
    pub spent: String,
    /// Sorted set of issuers, by the number of unspent nonces they hold.
    pub holders: String,
    /// Sorted set of nonces that clients brought, by the end of their life on the server's clock; its last
    /// member is the canary.
    pub brought: String,
    /// What is written to see who follows.
    pub barrier: String,
    /// Hash of the counts that only grow, and the last cleanup.
    pub totals: String,
    /// What comes before the hex of a nonce.
    pub prefix: String,
    /// Whose keys these are, for those of the buckets.
    pub signer: SignerId,
}

impl Keys {
    pub(super) fn of(signer: &SignerId) -> Self {
        let base = prefix(signer);
        Self {
            outstanding: format!("{base}:nonces:outstanding"),
            spent: format!("{base}:nonces:spent"),
            holders: format!("{base}:nonces:holders"),
            brought: format!("{base}:nonces:brought"),
            barrier: format!("{base}:nonces:barrier"),
            totals: format!("{base}:nonces:totals"),
            prefix: format!("{base}:nonce:"),
            signer: signer.clone(),
        }
    }

    /// The record of one nonce.
    pub(super) fn nonce(&self, hex: &str) -> String {
        format!("{}{hex}", self.prefix)
    }
}
