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
    attestation::{AttestationRequest, AttestationType, Inclusion, Issuer, Proof, ProofPurpose, Statement, Text},
    audit::{Event, EventType, Severity},
    client::{Client, ClientIdentity},
    evidence::Warrant,
    key::{KeyEntry, KeyId},
    nonce::{Answer, Spend, Spent},
    nonce_value::NonceValue,
    quota::Charge,
    service::{
        Error, Service, SignerConfig,
        merkle::{Form, Outcome},
        nonces::names,
        policy::{AttestationPermit, permit_key},
        release::{Released, Usage},
    },
    timestamp::Timestamp,
    token,
};

/// A signed attestation, and where its record stands.
#[derive(Debug)]
pub struct SignedAttestation {
    /// The complete attestation.
    pub json: Vec<u8>,
    pub audit_sequence: u64,
}

/// What is to be signed, with the nonce that was spent on it.
pub(super) struct SigningOrder {
    client: Client,
    spent: Spent,
    statement: Statement,
    canonical: Vec<u8>,
    key: Arc<KeyEntry>,
}

/// What a released signature makes of an order.
pub(super) struct Signed {
    key: Arc<KeyEntry>,
    created: Timestamp,
    audit_sequence: u64,
    /// Standard base64.
    signature: String,
    merkle: Option<Inclusion>,
}

impl Signed {
    pub fn new(key: Arc<KeyEntry>, released: &Released, audit_sequence: u64, merkle: Option<Inclusion>) -> Self {
        let signature = STANDARD.encode(released.signature.as_bytes());
        Self { key, created: released.created, audit_sequence, signature, merkle }
    }
}

/// How far a request has come once its nonce was looked at.
pub(super) enum Step {
    Fresh(Box<SigningOrder>),
    /// It was signed before: the same answer.
    Repeated(SignedAttestation),
}

impl Warrant for SigningOrder {
    fn message(&self) -> &[u8] {
        &self.canonical
    }
}

impl SigningOrder {
    pub fn new(permit: AttestationPermit, spent: Spent, issuer: Issuer, key: &Arc<KeyEntry>) -> Self {
        let (client, request, period) = permit.into_parts();
        let statement = request.into_statement(issuer, period);
        let canonical = statement.canonical_bytes();
        Self { client, spent, statement, canonical, key: Arc::clone(key) }
    }

    /// From now on issued by this key. True when it is another than before, and so is the message.
    pub fn issue(&mut self, signer: &SignerConfig, key: &Arc<KeyEntry>) -> bool {
        if self.key.id == key.id {
            return false;
        }
        self.statement.issue(signer.issuer(key));
        self.canonical = self.statement.canonical_bytes();
        self.key = Arc::clone(key);
        true
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// The nonce, when nothing comes of it.
    pub fn into_spent(self) -> Spent {
        self.spent
    }

    fn answer(&self, signed: Signed) -> Answer {
        Answer {
            key_id: signed.key.id.to_string(),
            issuer: self.statement.issuer.clone(),
            issued_at: self.statement.issued_at,
            expires_at: self.statement.expires_at,
            created: signed.created,
            signature: signed.signature,
            audit_sequence: signed.audit_sequence,
            merkle: signed.merkle,
        }
    }

    /// What was spent, to be settled with what is kept for retries, and what then becomes the answer.
    pub fn concluded(self, signed: Signed) -> (Spent, Concluded) {
        let key = Arc::clone(&signed.key);
        let kept = self.answer(signed);
        let (canonical, nonce) = (self.canonical, self.statement.nonce);
        (self.spent, Concluded { canonical, nonce, key, kept })
    }
}

/// An attestation that is on record, and whose key may still be revoked before it leaves.
pub(super) struct Concluded {
    canonical: Vec<u8>,
    nonce: NonceValue,
    key: Arc<KeyEntry>,
    kept: Answer,
}

impl Concluded {
    /// What is kept for retries.
    pub fn kept(&self) -> &Answer {
        &self.kept
    }
}

impl Service {
    /// Signs one attestation. Runs to its end even when the caller goes away, so that a spent
    /// nonce is always settled or reopened: spawn it, do not drop it.
    pub async fn attest(
        self: Arc<Self>,
        client: Client,
        request: AttestationRequest,
        form: Form,
    ) -> Result<SignedAttestation, Error> {
        self.in_service()?;
        let (caller, asked) = (client.clone(), Asked::new(&request));
        self.admit_subject(&asked.subject)?;
        let result = self.pipeline(client, request, form).await;
        self.conclude(&caller, &asked, result).await
    }

    /// Counts what came of a request, and puts a refusal on record.
    pub(super) async fn conclude<T>(
        &self,
        caller: &Client,
        asked: &Asked,
        result: Result<T, Error>,
    ) -> Result<T, Error> {
        match result {
            Ok(signed) => {
                self.count(asked, "success");
                Ok(signed)
            }
            Err(error) => {
                self.count(asked, "failure");
                Err(self.refused(caller, asked, error).await)
            }
        }
    }

    pub(super) fn count(&self, asked: &Asked, status: &str) {
        let label = asked.kind.as_str();
        self.metrics.sign_latency.with_label_values(&[label]).observe(asked.begun.elapsed().as_secs_f64());
        self.metrics.sign_requests.with_label_values(&[label, status]).inc();
    }

    async fn refused(&self, caller: &Client, asked: &Asked, error: Error) -> Error {
        // Recorded by itself, and not every one: a flood must not fill the trail.
        if let Error::Limited(exceeded) = error {
            return self.exceeded(caller, *exceeded).await;
        }
        self.note_failure(caller, asked.kind, &asked.subject, &error).await;
        self.note_rejection(caller, asked, &error).await;
        error
    }

    async fn pipeline(
        self: &Arc<Self>,
        client: Client,
        request: AttestationRequest,
        form: Form,
    ) -> Result<SignedAttestation, Error> {
        match (self.order(client, request).await?, form) {
            (Step::Repeated(signed), _) => Ok(signed),
            (Step::Fresh(order), Form::Individual) => self.sign_one(*order).await,
            (Step::Fresh(order), Form::Merkle) => self.sign_shared(*order).await,
        }
    }

    /// Permitted → fresh.
    async fn order(&self, client: Client, request: AttestationRequest) -> Result<Step, Error> {
        let now = self.clock.now();
        let used = used_event(&client, &request, now);
        let permit = self.policy.permit_attestation(client, request, now)?;
        // A nonce is not spent on what could not be recorded.
        self.audit.trouble()?;
        self.keyring.freshen().await?;
        let key = self.signing_key()?;
        permit_key(permit.client(), &key.id, true)?;

        let begun = Instant::now();
        let (kind, subject) = permit.about();
        let charges = self.limits.of_attestation(permit.client(), kind, subject);
        let claim = permit.claim().charged(charges.clone());
        let spend = self.nonces.spend(claim, self.policy.patience, now).await;
        self.metrics.nonce_validate_latency.observe(begun.elapsed().as_secs_f64());
        let spent = match spend? {
            Spend::Fresh(spent) => self.charged(spent, &charges).await?,
            Spend::Repeated(answer) => {
                // The first try may have taken its time: the kept answer is released by a fresh
                // reading too.
                self.keyring.freshen().await?;
                return self.repeat(permit, &answer).await.map(Step::Repeated);
            }
        };
        // Not waited for: it is on disk before the record of the signature, by one and the same sync.
        if let Err(error) = self.audit.note(&used) {
            self.reopen(spent).await;
            return Err(error.into());
        }
        Ok(Step::Fresh(Box::new(SigningOrder::new(permit, spent, self.signer.issuer(&key), &key))))
    }

    /// Charges here what the nonce store has not.
    pub(super) async fn charged(&self, mut spent: Spent, charges: &[Charge]) -> Result<Spent, Error> {
        if !self.nonces.charges() && !spent.is_charged() {
            if let Err(exceeded) = self.limits.take(charges) {
                self.reopen(spent).await;
                return Err(Error::Limited(Box::new(exceeded)));
            }
            spent.mark_charged();
        }
        self.count_checks(&names(charges));
        self.metrics.nonce_used.inc();
        Ok(spent)
    }

    /// Fresh → signed and verified → recorded → released.
    async fn sign_one(&self, mut order: SigningOrder) -> Result<SignedAttestation, Error> {
        match self.sign_order(&mut order).await {
            Ok(signed) => self.deliver(order, signed).await,
            Err(error) => {
                self.reopen(order.spent).await;
                Err(error)
            }
        }
    }

    /// Issued by the key of whichever token signs it.
    async fn sign_order(&self, order: &mut SigningOrder) -> Result<Signed, Error> {
        let mut turns = self.turns()?;
        loop {
            let key = turns.key().cloned().ok_or(Error::NoActiveKey)?;
            permit_key(&order.client, &key.id, true)?;
            order.issue(&self.signer, &key);
            let event = |now| signed_event(order, &key, now);
            match self.sign_and_release(Usage::Sign(&mut turns), order, event).await {
                Ok(released) => return Ok(Signed::new(key, &released, released.audit_sequence, None)),
                Err(refusal) => self.taken_over(&mut turns, &key, refusal)?,
            }
        }
    }

    /// The same, with a signature that covers others as well.
    async fn sign_shared(self: &Arc<Self>, order: SigningOrder) -> Result<SignedAttestation, Error> {
        let ticket = match self.gathering.join(self, vec![order]) {
            Ok(mut tickets) => tickets.remove(0),
            Err(orders) => {
                for order in orders {
                    self.reopen(order.spent).await;
                }
                return Err(token::Error::Busy.into());
            }
        };
        match self.outcome_of(ticket).await {
            Outcome::Signed(concluded) => self.hand_over(*concluded),
            Outcome::Failed(order, error) => {
                if let Some(order) = order {
                    self.reopen(order.spent).await;
                }
                Err(error)
            }
        }
    }

    /// Nothing was released, so the same client may try the same content again. If even this fails,
    /// the nonce stays spent: the client fetches a new one.
    pub(super) async fn reopen(&self, spent: Spent) {
        if let Err(error) = self.nonces.reopen(spent).await {
            tracing::warn!(%error, "a nonce stays spent after a failed signing");
        }
    }

    async fn deliver(&self, order: SigningOrder, signed: Signed) -> Result<SignedAttestation, Error> {
        let (spent, concluded) = order.concluded(signed);
        // Past the commit point: a store that cannot keep the answer only makes a retry fail.
        if let Err(error) = self.nonces.settle(spent, concluded.kept()).await {
            tracing::warn!(%error, "the answer could not be kept for retries");
        }
        self.hand_over(concluded)
    }

    /// Keeping it may have taken its time too: the last look is right before the answer.
    pub(super) fn hand_over(&self, concluded: Concluded) -> Result<SignedAttestation, Error> {
        let Concluded { canonical, nonce, key, kept } = concluded;
        let attestation = complete(canonical, &nonce, &key, &kept);
        self.keyring.may_release(&key.id, self.clock.now())?;
        Ok(attestation)
    }

    /// The same answer again, put together from what was kept: no second signature is made.
    pub(super) async fn repeat(&self, permit: AttestationPermit, answer: &Answer) -> Result<SignedAttestation, Error> {
        let id = KeyId::parse(&answer.key_id).ok_or(Error::Internal("a kept answer names no key"))?;
        let key = self.keyring.find_anew(&id).await?;
        if !key.state(self.clock.now()).may_verify() {
            return Err(Error::KeyMayNotSign { id, state: key.state(self.clock.now()) });
        }
        let (_, request, mut period) = permit.into_parts();
        period.issued_at = answer.issued_at;
        period.expires_at = answer.expires_at;
        let statement = request.into_statement(answer.issuer.clone(), period);
        Ok(complete(statement.canonical_bytes(), &statement.nonce, &key, answer))
    }

    /// Counts a refusal and puts it on record. The refusal stands whether or not that succeeds.
    async fn note_rejection(&self, caller: &Client, asked: &Asked, error: &Error) {
        if matches!(error, Error::Nonce(_) | Error::NonceReplayed { .. } | Error::NonceStoreFull(_)) {
            self.metrics.nonce_rejected.with_label_values(&[error.kind()]).inc();
        } else {
            self.metrics.signer_errors.with_label_values(&[error.kind()]).inc();
        }
        let event = asked.event(caller, EventType::AttestationRejected, "sign", self.clock.now());
        let event = event.failed(Severity::Warning).detail("reason", error.kind());
        if let Error::NotPermitted(what) = error {
            return self.record_denial(event.of_kind(EventType::AccessDenied), format!("may not {what}")).await;
        }
        self.record_or_warn(event, "a refusal").await;
        if let Error::NonceReplayed { spent_by } = error {
            self.alert_replay(caller, asked, spent_by).await;
        }
    }

    /// A nonce that one client has spent comes from another: it was taken from somewhere.
    async fn alert_replay(&self, caller: &Client, asked: &Asked, spent_by: &ClientIdentity) {
        self.metrics.nonce_replays.inc();
        let (presented_by, request_id) = (&caller.identity, &caller.request_id);
        tracing::warn!(%presented_by, %spent_by, request_id, "replay: a nonce spent by one client came from another");
        let event = asked.event(caller, EventType::SecurityAlert, "replay", self.clock.now());
        let alert = event
            .failed(Severity::Critical)
            .detail("alert", "nonce_replay")
            .detail("presented_by", presented_by.to_string())
            .detail("spent_by", spent_by.to_string())
            .detail("nonce_sha256", nonce_sha256(&asked.nonce));
        self.record_or_warn(alert, "a refusal").await;
    }
}

/// What is to be said of a request when it is over.
pub(super) struct Asked {
    kind: AttestationType,
    pub subject: String,
    nonce: NonceValue,
    begun: Instant,
}

impl Asked {
    pub fn new(request: &AttestationRequest) -> Self {
        let subject = request.subject.account_address.to_string();
        Self { kind: request.kind, subject, nonce: request.nonce.clone(), begun: Instant::now() }
    }

    fn event(&self, caller: &Client, kind: EventType, action: &'static str, now: Timestamp) -> Event {
        Event::of_client(kind, action, self.kind.as_str(), caller, now)
    }
}

/// Nonces are on record by their hash: a reader of the trail must not be able to spend one.
fn nonce_sha256(nonce: &NonceValue) -> String {
    hex::encode(Sha256::digest(nonce.as_bytes()))
}

pub(super) fn used_event(client: &Client, request: &AttestationRequest, now: Timestamp) -> Event {
    Event::of_client(EventType::NonceUsed, "spend", request.kind.as_str(), client, now)
        .detail("nonce_sha256", nonce_sha256(&request.nonce))
}

pub(super) fn signed_event(order: &SigningOrder, key: &KeyEntry, now: Timestamp) -> Event {
    Event::of_client(EventType::AttestationSigned, "sign", order.statement.id.as_str(), &order.client, now)
        .detail("key_id", key.id.to_string())
        .detail("attestation_type", order.statement.kind.as_str())
        .detail("subject", order.statement.subject.account_address.as_str())
        .detail("nonce_sha256", nonce_sha256(&order.statement.nonce))
        .detail("canonical_sha256", hex::encode(Sha256::digest(&order.canonical)))
}

/// `canonical`: of the statement that the answer is for, encoded once.
fn complete(canonical: Vec<u8>, nonce: &NonceValue, key: &KeyEntry, answer: &Answer) -> SignedAttestation {
    let proof = Proof {
        kind: match &answer.merkle {
            None => key.algorithm().proof_type(),
            Some(_) => key.algorithm().merkle_proof_type(),
        },
        created: answer.created,
        verification_method: Text::new(format!("{}#{}", answer.issuer.id, key.id))
            .expect("at most 256 + 1 + 74 characters"),
        proof_purpose: ProofPurpose::AssertionMethod,
        proof_value: Text::new(answer.signature.clone()).expect("88 characters of base64"),
        nonce: nonce.clone(),
        domain: Text::default(),
        challenge: Text::default(),
        merkle: answer.merkle.clone(),
    };
    SignedAttestation { json: proof.complete(canonical), audit_sequence: answer.audit_sequence }
}
