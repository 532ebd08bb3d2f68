//! The main job, read top to bottom:
//!
//! permitted → fresh (nonce spent) → signed and verified → recorded (on disk) → released
//!
//! Each value can only be made from the one before it. **Commit point**: the audit record. Up to
//! it a crash or failure leaves a nonce that is gone and no signature outside; from it on the
//! signature counts as made, and whatever comes after only delivers it.

use std::{sync::Arc, time::Instant};

use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

use crate::{
    attestation::{Attestation, AttestationRequest, Proof, ProofPurpose, Statement, Text},
    audit::{Event, EventType, Severity},
    client::Client,
    evidence::Warrant,
    key::{KeyEntry, KeyId, Signature},
    nonce::{Answer, Refusal, Spend, Spent},
    service::{Error, Service, SignerConfig, policy::AttestationPermit},
    timestamp::Timestamp,
    token::KeyRef,
};

/// A signed attestation, and where its record stands.
#[derive(Debug)]
pub struct SignedAttestation {
    pub attestation: Attestation,
    pub audit_sequence: u64,
}

/// What is to be signed, with the nonce that was spent on it.
struct SigningOrder {
    client: Client,
    spent: Spent,
    statement: Statement,
    canonical: Vec<u8>,
}

impl Warrant for &SigningOrder {
    fn message(&self) -> &[u8] {
        &self.canonical
    }
}

impl SigningOrder {
    fn new(permit: AttestationPermit, spent: Spent, signer: &SignerConfig, key: &KeyEntry) -> Self {
        let (client, request, period) = permit.into_parts();
        let statement = request.into_statement(signer.issuer(key), period);
        let canonical = statement.canonical_bytes();
        Self { client, spent, statement, canonical }
    }
}

impl Service {
    /// Signs one attestation. Runs to its end even when the caller goes away, so that a spent
    /// nonce is always settled or reopened: spawn it, do not drop it.
    pub async fn attest(
        self: Arc<Self>,
        client: Client,
        request: AttestationRequest,
    ) -> Result<SignedAttestation, Error> {
        let (kind, begun) = (request.kind, Instant::now());
        let rejection =
            Event::of_client(EventType::AttestationRejected, "sign", kind.as_str(), &client, self.clock.now());
        let result = self.pipeline(client, request).await;
        let label = kind.as_str();
        self.metrics.sign_latency.with_label_values(&[label]).observe(begun.elapsed().as_secs_f64());
        let status = if result.is_ok() { "success" } else { "failure" };
        self.metrics.sign_requests.with_label_values(&[label, status]).inc();
        if let Err(error) = &result {
            self.note_rejection(rejection, error).await;
        }
        result
    }

    async fn pipeline(&self, client: Client, request: AttestationRequest) -> Result<SignedAttestation, Error> {
        let now = self.clock.now();
        let permit = self.policy.permit_attestation(client, request, now)?;
        self.keyring.freshen().await?;
        let key = self.keyring.active(now)?;

        let begun = Instant::now();
        let spend = self.nonces.spend(permit.claim(), self.policy.patience, now).await;
        self.metrics.nonce_validate_latency.observe(begun.elapsed().as_secs_f64());
        let spent = match spend? {
            Spend::Fresh(spent) => spent,
            Spend::Repeated(answer) => {
                // The first try may have taken its time: the kept answer is released by a fresh
                // reading too.
                self.keyring.freshen().await?;
                return self.repeat(permit, &answer);
            }
        };
        self.metrics.nonce_used.inc();

        let order = SigningOrder::new(permit, spent, &self.signer, &key);
        match self.sign_and_record(&order, &key).await {
            Ok((signature, created, audit_sequence)) => {
                self.deliver(order, &key, signature, created, audit_sequence).await
            }
            Err(error) => {
                // Nothing was released, so the same client may try the same content again. If even
                // this fails, the nonce stays spent: the client fetches a new one.
                if let Err(reopen) = self.nonces.reopen(order.spent).await {
                    tracing::warn!(error = %reopen, "a nonce stays spent after a failed signing");
                }
                Err(error)
            }
        }
    }

    async fn sign_and_record(
        &self,
        order: &SigningOrder,
        key: &KeyEntry,
    ) -> Result<(Signature, Timestamp, u64), Error> {
        let verified = self.token.sign(&KeyRef::from(key), order).await?;
        let created = self.clock.now();
        self.keyring.still_active(&key.id, created)?;
        let recorded = self.audit.record_signature(signed_event(order, key, created), verified.digest()).await?;
        // The key's standing once more, since the disk may have taken its time: a key that was
        // revoked meanwhile releases nothing, and the record is followed by one that says so.
        if let Err(error) = self.keyring.still_active(&key.id, self.clock.now()) {
            self.note_discarded(order, key, recorded.sequence()).await?;
            return Err(error);
        }
        let (_, signature) =
            verified.release(&recorded).map_err(|_| Error::Internal("a receipt for another signature"))?;
        Ok((signature, created, recorded.sequence()))
    }

    async fn note_discarded(&self, order: &SigningOrder, key: &KeyEntry, sequence: u64) -> Result<(), Error> {
        let event = Event::of_client(
            EventType::AttestationRejected,
            "discard",
            order.statement.id.as_str(),
            &order.client,
            self.clock.now(),
        )
        .failed(Severity::Warning)
        .detail("key_id", key.id.to_string())
        .detail("reason", "key_no_longer_active")
        .detail("discarded_sequence", sequence);
        self.audit.record(event).await?;
        Ok(())
    }

    async fn deliver(
        &self,
        order: SigningOrder,
        key: &KeyEntry,
        signature: Signature,
        created: Timestamp,
        audit_sequence: u64,
    ) -> Result<SignedAttestation, Error> {
        let answer = Answer {
            key_id: key.id.to_string(),
            issued_at: order.statement.issued_at,
            expires_at: order.statement.expires_at,
            created,
            signature: STANDARD.encode(signature.as_bytes()),
            audit_sequence,
        };
        // Past the commit point: a store that cannot keep the answer only makes a retry fail.
        if let Err(error) = self.nonces.settle(order.spent, &answer).await {
            tracing::warn!(%error, "the answer could not be kept for retries");
        }
        Ok(complete(order.statement, key, &answer))
    }

    /// The same answer again, put together from what was kept: no second signature is made.
    fn repeat(&self, permit: AttestationPermit, answer: &Answer) -> Result<SignedAttestation, Error> {
        let id = KeyId::parse(&answer.key_id).ok_or(Error::Internal("a kept answer names no key"))?;
        let key = self.keyring.find(&id)?;
        if !key.state(self.clock.now()).may_verify() {
            return Err(Error::KeyMayNotSign { id, state: key.state(self.clock.now()) });
        }
        let (_, request, mut period) = permit.into_parts();
        period.issued_at = answer.issued_at;
        period.expires_at = answer.expires_at;
        let statement = request.into_statement(self.signer.issuer(&key), period);
        Ok(complete(statement, &key, answer))
    }

    /// Counts a refusal and puts it on record. The refusal stands whether or not that succeeds.
    async fn note_rejection(&self, event: Event, error: &Error) {
        let severity = match error {
            Error::Nonce(refusal) => {
                self.metrics.nonce_rejected.with_label_values(&[refusal.as_str()]).inc();
                if *refusal == Refusal::AlreadyUsed { Severity::Critical } else { Severity::Warning }
            }
            _ => {
                self.metrics.signer_errors.with_label_values(&[error.kind()]).inc();
                Severity::Warning
            }
        };
        let event = event.failed(severity).detail("reason", error.kind());
        if let Err(failure) = self.audit.record(event).await {
            tracing::warn!(error = %failure, "a rejection could not be recorded");
        }
    }
}

fn signed_event(order: &SigningOrder, key: &KeyEntry, now: Timestamp) -> Event {
    Event::of_client(EventType::AttestationSigned, "sign", order.statement.id.as_str(), &order.client, now)
        .detail("key_id", key.id.to_string())
        .detail("attestation_type", order.statement.kind.as_str())
        .detail("subject", order.statement.subject.account_address.as_str())
        .detail("nonce_sha256", hex::encode(Sha256::digest(order.statement.nonce.as_bytes())))
        .detail("canonical_sha256", hex::encode(Sha256::digest(&order.canonical)))
}

fn complete(statement: Statement, key: &KeyEntry, answer: &Answer) -> SignedAttestation {
    let proof = Proof {
        kind: key.algorithm().proof_type(),
        created: answer.created,
        verification_method: Text::new(format!("{}#{}", statement.issuer.id, key.id))
            .expect("at most 256 + 1 + 74 characters"),
        proof_purpose: ProofPurpose::AssertionMethod,
        proof_value: Text::new(answer.signature.clone()).expect("88 characters of base64"),
        nonce: statement.nonce.clone(),
        domain: Text::default(),
        challenge: Text::default(),
    };
    SignedAttestation { attestation: Attestation { statement, proof }, audit_sequence: answer.audit_sequence }
}
