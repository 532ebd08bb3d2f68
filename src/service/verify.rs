//! Verifying an attestation that this signer is said to have issued.

use std::sync::Arc;

use crate::{
    attestation::{Attestation, Invalid, judge},
    audit::{Event, EventType},
    client::Client,
    key::{KeyEntry, KeyId, KeyState},
    service::{Error, Service},
    timestamp::Timestamp,
};

/// The finding. The key is absent when none of ours is named.
#[derive(Debug)]
pub struct Verdict {
    pub key: Option<(KeyId, KeyState)>,
    pub invalid: Option<Invalid>,
}

impl Service {
    /// Checks everything that our own signing guarantees, and records the finding.
    pub async fn verify(&self, client: &Client, attestation: &Attestation) -> Result<Verdict, Error> {
        let now = self.clock.now();
        let verdict = match self.named_key(attestation).await {
            None => Verdict { key: None, invalid: Some(Invalid::UnknownKey) },
            Some(key) => Verdict {
                key: Some((key.id.clone(), key.state(now))),
                invalid: self.judge(attestation, &key, now).err(),
            },
        };
        let event =
            Event::of_client(EventType::AttestationVerified, "verify", attestation.statement.id.as_str(), client, now)
                .detail("valid", verdict.invalid.is_none())
                .detail("reason", serde_json::json!(verdict.invalid));
        self.audit.record(event).await?;
        Ok(verdict)
    }

    async fn named_key(&self, attestation: &Attestation) -> Option<Arc<KeyEntry>> {
        let method = attestation.proof.verification_method.as_str();
        let (_, key_id) = method.rsplit_once('#')?;
        self.keyring.find_anew(&KeyId::parse(key_id)?).await.ok()
    }

    fn judge(&self, attestation: &Attestation, key: &KeyEntry, now: Timestamp) -> Result<(), Invalid> {
        judge(attestation, &key.id, &key.public_key)?;
        match key.state(now) {
            KeyState::Active | KeyState::Rotating | KeyState::Retired | KeyState::Expired => {}
            KeyState::Pending => return Err(Invalid::KeyPending),
            KeyState::Revoked => return Err(Invalid::KeyRevoked),
        }
        let latest = now.plus_seconds(self.policy.clock_skew_seconds());
        attestation.statement.counts_at(now, latest)
    }
}
