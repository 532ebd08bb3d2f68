//! Nonces: issued by the store, spent once.
//!
//! A nonce that the store did not issue, or no longer knows, is refused; so losing the store's
//! content costs clients a new nonce and never allows a second use. [`Spent`] is minted only when
//! a nonce changed from unspent to spent in this very call.

mod brought;
mod holders;
mod memory;
mod redis;

#[cfg(test)]
mod contract;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use memory::MemoryStore;
pub use redis::{ConnectError, RedisStore};

use crate::{
    attestation::{AttestationType, Issuer},
    client::ClientIdentity,
    evidence::Permitted,
    nonce_value::NonceValue,
    timestamp::Timestamp,
};

/// `[nonce]` of the configuration file.
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

/// A request for a nonce.
#[derive(Clone, Debug)]
pub struct Order {
    /// The producer on whose behalf attestations are issued: who asks for the nonce.
    pub issuer: ClientIdentity,
    pub attestation_type: AttestationType,
    /// When named, the nonce is good for this subject only.
    pub subject_address: Option<String>,
    pub window: Duration,
}

/// A nonce, and how long it may be spent.
#[derive(Clone, Debug)]
pub struct Issued {
    pub nonce: NonceValue,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

/// What a nonce is to be spent on. Made only from a permit.
#[derive(Clone, Debug)]
pub struct Claim {
    nonce: NonceValue,
    use_: Use,
}

/// The circumstances that must match those of the order.
#[derive(Clone, Debug)]
pub struct Use {
    pub issuer: ClientIdentity,
    pub attestation_type: AttestationType,
    pub subject_address: String,
    /// `issued_at` of the attestation.
    pub timestamp: Timestamp,
    /// The client said so, rather than left it to us.
    pub timestamp_stated: bool,
    /// The content, for telling a retry from a second use.
    pub content_digest: [u8; 32],
}

impl Claim {
    /// The claim of a permitted request.
    #[must_use]
    pub fn new(_permit: &impl Permitted, nonce: NonceValue, use_: Use) -> Self {
        Self { nonce, use_ }
    }
}

/// A nonce was spent by this call, and by no other.
#[derive(Debug)]
pub struct Spent {
    nonce: NonceValue,
    content_digest: [u8; 32],
    token: SpendToken,
}

/// Tells one spend of a nonce from every other, so that a store shared by several appliances acts
/// only on the spend that its caller made. A store that is not shared has one for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SpendToken([u8; 16]);

impl Spent {
    /// The nonce that was spent.
    #[must_use]
    pub fn nonce(&self) -> &NonceValue {
        &self.nonce
    }
}

/// What a spent nonce was spent on: enough to give a retry the same answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Answer {
    pub key_id: String,
    /// As it stood in what was signed: the configuration may be another by now, or elsewhere.
    pub issuer: Issuer,
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
    pub created: Timestamp,
    /// Standard base64, as in `proof_value`.
    pub signature: String,
    pub audit_sequence: u64,
}

/// The outcome of a spend that was not refused.
#[derive(Debug)]
pub enum Spend {
    /// Spent now: the caller may sign once.
    Fresh(Spent),
    /// Spent before by the same client on the same content: this was the answer.
    Repeated(Box<Answer>),
}

/// Why a nonce is refused: a closed set, the same in problems, metrics and the audit trail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Refusal {
    NotFound,
    AlreadyUsed,
    Expired,
    IssuerMismatch,
    SubjectMismatch,
    TypeMismatch,
    InvalidTimestamp,
    InvalidFormat,
    StoreFull,
    StoreFailover,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 10] = [
        Self::NotFound,
        Self::AlreadyUsed,
        Self::Expired,
        Self::IssuerMismatch,
        Self::SubjectMismatch,
        Self::TypeMismatch,
        Self::InvalidTimestamp,
        Self::InvalidFormat,
        Self::StoreFull,
        Self::StoreFailover,
    ];

    /// The reason on the wire and in `nonce_rejected_total{reason}`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::NotFound => "not_found",
            Self::AlreadyUsed => "already_used",
            Self::Expired => "expired",
            Self::IssuerMismatch => "issuer_mismatch",
            Self::SubjectMismatch => "subject_mismatch",
            Self::TypeMismatch => "type_mismatch",
            Self::InvalidTimestamp => "invalid_timestamp",
            Self::InvalidFormat => "invalid_format",
            Self::StoreFull => "store_full",
            Self::StoreFailover => "store_failover",
        }
    }
}

/// Which bound a full store has reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// [`Config::outstanding_per_issuer`]
    Issuer,
    /// [`Config::capacity`]
    Store,
    /// The memory of the server.
    Memory,
}

/// Why a call to the store gave no answer.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("nonce refused: {}", .0.as_str())]
    Refused(Refusal),
    /// store_full: this bound is reached.
    #[error("nonce refused: store_full ({0:?})")]
    Full(Bound),
    /// Another client has spent the nonce: already_used, and an alert.
    #[error("nonce refused: already_used, by {spent_by}")]
    Replayed { spent_by: ClientIdentity },
    /// The same nonce and content is being signed by another request right now.
    #[error("the same request is in progress")]
    InProgress,
    /// The store answers, and may not be used. The text says why and what to do; no secrets.
    #[error("the nonce store may not be used: {0}")]
    Unfit(String),
    #[error("the nonce store cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

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
fn in_order(per_issuer: &mut [(String, u64)]) {
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

    fn add_batch(&mut self, expired: u64, used: u64) {
        self.expired += expired;
        self.used += used;
        self.batches += 1;
    }
}

/// A nonce store. Every adapter passes the same contract suite (`nonce/contract.rs`).
#[async_trait]
pub trait Store: Send + Sync {
    /// Issues `count` fresh random nonces, or none.
    async fn issue(&self, order: &Order, count: usize, now: Timestamp) -> Result<Vec<Issued>, Error>;

    /// Spends a nonce in one atomic step; waits at most `patience` for the same request in progress.
    async fn spend(&self, claim: Claim, patience: Duration, now: Timestamp) -> Result<Spend, Error>;

    /// Keeps the answer beside the spent nonce, for retries.
    async fn settle(&self, spent: Spent, answer: &Answer) -> Result<(), Error>;

    /// After a failure that is known to have released nothing: the same client may try the same
    /// content again, nobody anything else.
    async fn reopen(&self, spent: Spent) -> Result<(), Error>;

    /// Forgets nonces whose window has ended, in bounded batches.
    async fn cleanup(&self, now: Timestamp) -> Result<Removed, Error>;

    /// Counts, without a walk over all nonces. Also of a store that may not be used.
    async fn stats(&self) -> Result<Stats, Error>;

    /// Whether the store may be used now; its counts, with the largest issuer only.
    async fn ping(&self) -> Result<Stats, Error>;

    /// What the store is, for health and logs. No secrets.
    fn describe(&self) -> String;
}

/// A fresh nonce from the operating system's generator.
fn random_nonce() -> Result<NonceValue, Error> {
    Ok(NonceValue::issue(random()?))
}

fn random<const LENGTH: usize>() -> Result<[u8; LENGTH], Error> {
    let mut bytes = [0; LENGTH];
    getrandom::fill(&mut bytes).map_err(|error| Error::Unavailable(Box::new(error)))?;
    Ok(bytes)
}
