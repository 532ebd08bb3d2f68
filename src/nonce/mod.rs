//! Nonces: issued by the store, spent once.
//!
//! A nonce that the store did not issue, or no longer knows, is refused; so losing the store's
//! content costs clients a new nonce and never allows a second use. (Where clients may bring nonces of
//! their own, `brought.rs` and `redis/brought/` see to the same.) [`Spent`] is minted only when a nonce
//! changed from unspent to spent in this very call.

mod brought;
mod config;
mod holders;
mod memory;
mod redis;
mod stats;

#[cfg(test)]
mod contract;

use std::time::Duration;

use async_trait::async_trait;
use serde::{Deserialize, Serialize};

pub use config::{Config, WINDOW_SECONDS};
pub use memory::MemoryStore;
pub use redis::{ConnectError, RedisStore};
pub use stats::{ClientNonces, MOST_ISSUERS, Removed, ServerStats, Stats};

use crate::{
    attestation::{AttestationType, Inclusion, Issuer},
    client::ClientIdentity,
    evidence::Permitted,
    nonce_value::NonceValue,
    quota::{Charge, Exceeded},
    timestamp::Timestamp,
};

/// A request for a nonce.
#[derive(Clone, Debug)]
pub struct Order {
    /// The producer on whose behalf attestations are issued: who asks for the nonce.
    pub issuer: ClientIdentity,
    pub attestation_type: AttestationType,
    /// When named, the nonce is good for this subject only.
    pub subject_address: Option<String>,
    pub window: Duration,
    /// What the order is charged to, by stores that charge ([`Store::charges`]).
    pub charges: Vec<Charge>,
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
    charges: Vec<Charge>,
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
        Self { nonce, use_, charges: Vec::new() }
    }

    /// The same claim, charged when the nonce is spent, by stores that charge.
    #[must_use]
    pub fn charged(self, charges: Vec<Charge>) -> Self {
        Self { charges, ..self }
    }
}

/// A nonce was spent by this call, and by no other.
#[derive(Debug)]
pub struct Spent {
    nonce: NonceValue,
    content_digest: [u8; 32],
    token: SpendToken,
    /// It was paid for, by an earlier try that came to nothing.
    charged: bool,
}

/// Tells one spend of a nonce from every other, so that a store shared by several appliances acts
/// only on the spend that its caller made. A store that is not shared has one for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct SpendToken([u8; 16]);

impl Spent {
    /// Whether an earlier try on the same content has been charged.
    #[must_use]
    pub fn is_charged(&self) -> bool {
        self.charged
    }

    /// From now on a further try on the same content is not charged again.
    pub fn mark_charged(&mut self) {
        self.charged = true;
    }

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
    /// Of a signature that covers others as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merkle: Option<Inclusion>,
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
    /// A bucket is empty; nothing was issued or spent.
    #[error("the limit {}", .0.charge.field())]
    Limited(Box<Exceeded>),
    /// The store answers, and may not be used. The text says why and what to do; no secrets.
    #[error("the nonce store may not be used: {0}")]
    Unfit(String),
    #[error("the nonce store cannot be reached")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// A nonce store. Every adapter passes the same contract suite (`nonce/contract.rs`).
#[async_trait]
pub trait Store: Send + Sync {
    /// Issues `count` fresh random nonces, or none.
    async fn issue(&self, order: &Order, count: usize, now: Timestamp) -> Result<Vec<Issued>, Error>;

    /// Spends a nonce in one atomic step; waits at most `patience` for the same request in progress.
    async fn spend(&self, claim: Claim, patience: Duration, now: Timestamp) -> Result<Spend, Error>;

    /// Spends many, each by itself and none twice; waits for nobody. In the order of the claims.
    async fn spend_all(&self, claims: Vec<Claim>, now: Timestamp) -> Vec<Result<Spend, Error>> {
        let mut spends = Vec::with_capacity(claims.len());
        for claim in claims {
            spends.push(self.spend(claim, Duration::ZERO, now).await);
        }
        spends
    }

    /// Keeps the answer beside the spent nonce, for retries.
    async fn settle(&self, spent: Spent, answer: &Answer) -> Result<(), Error>;

    /// Keeps many.
    async fn settle_all(&self, settled: Vec<(Spent, &Answer)>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(settled.len());
        for (spent, answer) in settled {
            results.push(self.settle(spent, answer).await);
        }
        results
    }

    /// After a failure that is known to have released nothing: the same client may try the same
    /// content again, nobody anything else.
    async fn reopen(&self, spent: Spent) -> Result<(), Error>;

    /// Reopens many.
    async fn reopen_all(&self, spent: Vec<Spent>) -> Vec<Result<(), Error>> {
        let mut results = Vec::with_capacity(spent.len());
        for spent in spent {
            results.push(self.reopen(spent).await);
        }
        results
    }

    /// Forgets nonces whose window has ended, in bounded batches.
    async fn cleanup(&self, now: Timestamp) -> Result<Removed, Error>;

    /// Counts, without a walk over all nonces. Also of a store that may not be used.
    async fn stats(&self) -> Result<Stats, Error>;

    /// Whether the store may be used now; its counts, with the largest issuer only.
    async fn ping(&self) -> Result<Stats, Error>;

    /// Whether orders and claims are charged to the buckets of a fleet, in the step that issues or
    /// spends. A store of one process leaves that to the limits of the process.
    fn charges(&self) -> bool {
        false
    }

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
