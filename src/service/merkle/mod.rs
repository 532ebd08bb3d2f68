//! One signature for many attestations, for those who ask for it.
//!
//! A token that is slow or far away signs few things a second, however many ask. Whoever accepts a signature
//! over a Merkle root ([`crate::attestation::inclusion`]) shares one with all who ask at the same time:
//! while a session of the token is free nobody waits; while all are busy, requests gather ([`gathering`]) and
//! go together with the next signature ([`signing`]). Nothing else of the pipeline is shared: each has its
//! own permit, its own nonce and its own record, and all records are on disk before the signature leaves.
//! What a retry will get is kept for all of them in one go.

mod gathering;
mod signing;

use std::time::Duration;

use serde::{Deserialize, Serialize};

pub use gathering::Gathering;
pub(super) use gathering::Outcome;

use crate::attestation::inclusion::MAX_TREE_SIZE;

/// What a caller wants a signature to be over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// The attestation itself: what the VirtEngine chain verifies.
    #[default]
    Individual,
    /// A Merkle root under which it is a leaf.
    Merkle,
}

/// `[merkle]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Attestations under one signature, at most.
    pub max_batch: usize,
    /// How long requests wait for a free session of the token; then they go to the token's queue all the same.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub max_batch_wait: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self { max_batch: 4096, max_batch_wait: Duration::from_millis(250) }
    }
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        if !(1..=MAX_TREE_SIZE as usize).contains(&self.max_batch) {
            return Err(format!("merkle.max_batch must be between 1 and {MAX_TREE_SIZE}"));
        }
        if !(Duration::from_millis(1)..=Duration::from_secs(10)).contains(&self.max_batch_wait) {
            return Err("merkle.max_batch_wait must be between 1ms and 10s".into());
        }
        Ok(())
    }
}
