//! What is permitted. A permit is the first link of the chain that ends in a released signature.

use std::time::Duration;

use serde::Deserialize;

use crate::{
    attestation::{AttestationRequest, AttestationType, request::Period},
    client::Client,
    evidence::Permitted,
    key::{Algorithm, KeyId},
    nonce::{Claim, Use},
    service::Error,
    timestamp::Timestamp,
};

/// `[key_policy]` of the configuration file; defaults after PRODUCT and SP 800-57.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct KeyPolicy {
    /// Algorithm of new keys.
    pub algorithm: Algorithm,
    /// A key signs no longer than this after it was generated.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub maximum_age: Duration,
    /// From this age on, health and metrics warn.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub warn_age: Duration,
    /// How long the old key still verifies as `rotating` after a rotation; less than the age.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub overlap: Duration,
    /// A successor generated ahead should be published this long before it is activated.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub minimum_notice: Duration,
    /// Keys generated ahead, at most.
    pub maximum_pending: usize,
    /// How long the private key of a retired or revoked key is kept before it may be destroyed.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub retention: Duration,
    /// Rotate without being asked when the active key has this age. Left out: never.
    #[serde(deserialize_with = "crate::duration::optional")]
    pub rotate_at_age: Option<Duration>,
    /// Complete rotations without being asked when their overlap has ended.
    pub complete_automatically: bool,
    /// `serve` makes the first key only on the token with this serial, and only when nothing says
    /// that keys ever existed. Left out: it never does.
    pub first_key_on_token_serial: Option<String>,
}

impl Default for KeyPolicy {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            algorithm: Algorithm::P256,
            maximum_age: Duration::from_secs(90 * DAY),
            warn_age: Duration::from_secs(80 * DAY),
            overlap: Duration::from_secs(7 * DAY),
            minimum_notice: Duration::from_secs(3 * DAY),
            maximum_pending: 2,
            retention: Duration::from_secs(30 * DAY),
            rotate_at_age: None,
            complete_automatically: true,
            first_key_on_token_serial: None,
        }
    }
}

impl KeyPolicy {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        const TEN_YEARS: u64 = 10 * 365 * 86_400;
        if self.maximum_age.as_secs() == 0 || self.maximum_age.as_secs() > TEN_YEARS {
            return Err("key_policy.maximum_age must be between 1s and 10 years".into());
        }
        if self.warn_age > self.maximum_age {
            return Err("key_policy.warn_age must not be above key_policy.maximum_age".into());
        }
        if self.overlap >= self.maximum_age {
            return Err("key_policy.overlap must be less than key_policy.maximum_age".into());
        }
        if self.rotate_at_age.is_some_and(|age| age >= self.maximum_age) {
            return Err("key_policy.rotate_at_age must be less than key_policy.maximum_age".into());
        }
        if self.retention.as_secs() > TEN_YEARS {
            return Err("key_policy.retention must be at most 10 years".into());
        }
        Ok(())
    }

    /// The overlap in whole seconds.
    #[must_use]
    pub fn overlap_seconds(&self) -> i64 {
        i64::try_from(self.overlap.as_secs()).expect("checked: less than the maximum age")
    }

    /// The minimum notice in whole seconds.
    #[must_use]
    pub fn minimum_notice_seconds(&self) -> i64 {
        i64::try_from(self.minimum_notice.as_secs()).unwrap_or(i64::MAX)
    }

    /// The retention in whole seconds.
    #[must_use]
    pub fn retention_seconds(&self) -> i64 {
        i64::try_from(self.retention.as_secs()).expect("checked: at most ten years")
    }

    /// The age for automatic rotation in whole seconds.
    #[must_use]
    pub fn rotate_at_seconds(&self) -> Option<i64> {
        self.rotate_at_age.map(|age| i64::try_from(age.as_secs()).expect("checked: less than the maximum age"))
    }

    /// The maximum age in whole seconds.
    #[must_use]
    pub fn maximum_age_seconds(&self) -> i64 {
        i64::try_from(self.maximum_age.as_secs()).expect("checked: at most ten years")
    }

    /// The warning age in whole seconds.
    #[must_use]
    pub fn warn_age_seconds(&self) -> i64 {
        i64::try_from(self.warn_age.as_secs()).expect("checked: at most the maximum age")
    }
}

/// The rules for callers.
#[derive(Clone, Debug)]
pub struct Policy {
    pub key: KeyPolicy,
    /// How long a revocation waits until it holds everywhere.
    pub settle_time: Duration,
    /// How far a producer's clock may differ.
    pub clock_skew: Duration,
    /// Window of nonces for which the caller names none.
    pub nonce_window: Duration,
    /// How long a request with a nonce of the client's own is good, where those are accepted.
    pub client_nonce_window: Option<Duration>,
    /// How far the clock of Redis may differ without a word.
    pub redis_clock_warning: Duration,
    /// How long a retry waits for the first try to finish.
    pub patience: Duration,
    /// Health warns when less is free on the disk of the audit trail.
    pub audit_warn_below: u64,
}

/// Whether a client may have this type attested.
pub fn permit_type(client: &Client, kind: AttestationType) -> Result<(), Error> {
    if client.grants.attestation_types.has(&kind) {
        return Ok(());
    }
    Err(Error::NotPermitted(format!("have {} attested", kind.as_str())))
}

/// Whether a client may have opaque data signed for this purpose.
pub fn permit_purpose(client: &Client, purpose: &str) -> Result<(), Error> {
    if client.grants.purposes.has(purpose) {
        return Ok(());
    }
    Err(Error::NotPermitted(format!("have data signed for the purpose {purpose:?}")))
}

/// Whether a client may have this key used. Asked of each key that is about to sign.
pub fn permit_key(client: &Client, key: &KeyId, is_active: bool) -> Result<(), Error> {
    if client.grants.may_use_key(&key.to_string(), is_active) {
        return Ok(());
    }
    Err(Error::NotPermitted(format!("have key {key} used")))
}

/// A client may have this attestation signed, once.
#[derive(Debug)]
pub struct AttestationPermit {
    client: Client,
    request: AttestationRequest,
    period: Period,
}

impl Permitted for AttestationPermit {}

impl AttestationPermit {
    /// Who may.
    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    /// Of which type the attestation is, and about whom.
    #[must_use]
    pub fn about(&self) -> (AttestationType, &str) {
        (self.request.kind, self.request.subject.account_address.as_str())
    }

    /// The nonce claim of this permit.
    #[must_use]
    pub fn claim(&self) -> Claim {
        let use_ = Use {
            issuer: self.client.identity.clone(),
            attestation_type: self.request.kind,
            subject_address: self.request.subject.account_address.to_string(),
            timestamp: self.period.issued_at,
            timestamp_stated: self.request.issued_at.is_some(),
            content_digest: self.request.content_digest(),
        };
        Claim::new(self, self.request.nonce.clone(), use_)
    }

    /// The parts, for whoever signs.
    #[must_use]
    pub fn into_parts(self) -> (Client, AttestationRequest, Period) {
        (self.client, self.request, self.period)
    }
}

impl Policy {
    /// The clock skew in whole seconds.
    #[must_use]
    pub fn clock_skew_seconds(&self) -> i64 {
        i64::try_from(self.clock_skew.as_secs()).expect("checked: at most half a day")
    }

    /// Checks the request against the schema's rules and the caller's rights.
    pub fn permit_attestation(
        &self,
        client: Client,
        request: AttestationRequest,
        now: Timestamp,
    ) -> Result<AttestationPermit, Error> {
        permit_type(&client, request.kind)?;
        let period = request.period(now)?;
        Ok(AttestationPermit { client, request, period })
    }
}
