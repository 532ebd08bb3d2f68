//! Verifying an attestation that this signer is said to have issued.

use std::sync::Arc;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{
    attestation::{Attestation, SCHEMA_VERSION, request::attestation_id},
    audit::{Event, EventType},
    client::Client,
    key::{KeyEntry, KeyId, KeyState, Signature},
    service::{Error, Service},
    timestamp::Timestamp,
};

/// Why an attestation is not valid: a closed set, part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    UnknownKey,
    SchemaVersion,
    IssuerMismatch,
    SubjectMismatch,
    IdMismatch,
    NonceMismatch,
    ProofTypeMismatch,
    VerificationMethodMismatch,
    SignatureMalformed,
    SignatureMismatch,
    KeyPending,
    KeyRevoked,
    NotYetValid,
    Expired,
}

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
        let (statement, proof) = (&attestation.statement, &attestation.proof);
        let expect = |holds: bool, otherwise: Invalid| if holds { Ok(()) } else { Err(otherwise) };
        expect(statement.schema_version.as_str() == SCHEMA_VERSION, Invalid::SchemaVersion)?;
        expect(proof.kind == key.algorithm().proof_type(), Invalid::ProofTypeMismatch)?;
        let bytes = STANDARD.decode(proof.proof_value.as_str()).map_err(|_| Invalid::SignatureMalformed)?;
        let signature = Signature::from_slice(&bytes).ok_or(Invalid::SignatureMalformed)?;
        key.public_key.verify(&statement.canonical_bytes(), &signature).map_err(|_| Invalid::SignatureMismatch)?;

        // Signed by us; what follows could only differ in a statement we would not have made, or
        // in the proof, which the signature does not cover.
        let fingerprint = key.public_key.fingerprint();
        expect(statement.issuer.key_fingerprint.as_str() == fingerprint, Invalid::IssuerMismatch)?;
        let subject = format!("did:virtengine:{}", statement.subject.account_address);
        expect(statement.subject.id.as_str() == subject, Invalid::SubjectMismatch)?;
        expect(statement.id.as_str() == attestation_id(&fingerprint, &statement.nonce), Invalid::IdMismatch)?;
        expect(proof.nonce == statement.nonce, Invalid::NonceMismatch)?;
        let method = format!("{}#{}", statement.issuer.id, key.id);
        expect(proof.verification_method.as_str() == method, Invalid::VerificationMethodMismatch)?;

        match key.state(now) {
            KeyState::Active | KeyState::Rotating | KeyState::Retired | KeyState::Expired => {}
            KeyState::Pending => return Err(Invalid::KeyPending),
            KeyState::Revoked => return Err(Invalid::KeyRevoked),
        }
        expect(statement.issued_at <= now.plus_seconds(self.policy.clock_skew_seconds()), Invalid::NotYetValid)?;
        expect(now < statement.expires_at, Invalid::Expired)
    }
}
