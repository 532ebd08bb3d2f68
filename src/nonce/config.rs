//! `[nonce]` of the configuration file.

use std::time::Duration;

use serde::Deserialize;

/// How many nonces there may be, and how long they are good.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// How long a nonce may be spent after it was issued: 300 s to 86 400 s.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub window: Duration,
    /// How far a producer's clock may differ; at most half the window.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub clock_skew: Duration,
    /// Unspent nonces that one producer may hold.
    pub outstanding_per_issuer: usize,
    /// Nonces in the store, spent ones included, until their window ends.
    pub capacity: usize,
    /// How far the clock of Redis may differ from ours before health and the log warn.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub redis_clock_warning: Duration,
    /// Whether a client may bring a nonce of its own instead of fetching one.
    pub accept_client_nonces: bool,
    /// How long after its `issued_at` a request with a nonce of the client's own is good: 10 s to 300 s.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub client_nonce_window: Duration,
    /// Redis servers that hold the data, the master included: a majority of them must have a nonce that
    /// a client brought before it counts as spent.
    pub redis_nodes: usize,
}

/// Bounds of [`Config::window`] and of a request's `window_seconds`, in seconds.
pub const WINDOW_SECONDS: std::ops::RangeInclusive<u64> = 300..=86_400;

/// Bounds of [`Config::client_nonce_window`] in seconds, and of [`Config::redis_nodes`].
const CLIENT_NONCE_SECONDS: std::ops::RangeInclusive<u64> = 10..=300;
const REDIS_NODES: std::ops::RangeInclusive<usize> = 2..=15;

impl Default for Config {
    fn default() -> Self {
        Self {
            window: Duration::from_secs(3600),
            clock_skew: Duration::from_secs(300),
            outstanding_per_issuer: 10_000,
            capacity: 2_000_000,
            redis_clock_warning: Duration::from_secs(2),
            accept_client_nonces: false,
            client_nonce_window: Duration::from_secs(120),
            redis_nodes: 3,
        }
    }
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        if !WINDOW_SECONDS.contains(&self.window.as_secs()) {
            return Err("nonce.window must be between 300s and 86400s (24h)".into());
        }
        if self.clock_skew > self.window / 2 {
            return Err("nonce.clock_skew must be at most half of nonce.window".into());
        }
        if self.outstanding_per_issuer == 0 || self.capacity < self.outstanding_per_issuer {
            return Err("nonce.capacity must be at least nonce.outstanding_per_issuer, and both above 0".into());
        }
        if !CLIENT_NONCE_SECONDS.contains(&self.client_nonce_window.as_secs()) {
            return Err("nonce.client_nonce_window must be between 10s and 300s".into());
        }
        if !REDIS_NODES.contains(&self.redis_nodes) {
            return Err("nonce.redis_nodes must be between 2 and 15: the master and its replicas".into());
        }
        if self.redis_clock_warning < Duration::from_millis(100) {
            return Err("nonce.redis_clock_warning must be at least 100ms".into());
        }
        Ok(())
    }
}
