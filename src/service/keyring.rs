//! The keys of this signer: the ledger's fold, kept at hand, and the operations that extend it.

use std::sync::Arc;

use arc_swap::ArcSwap;
use der::asn1::OctetString;
use tokio::sync::Mutex;

use crate::{
    audit::{Audit, Event as AuditEvent, EventType},
    clock::Clock,
    key::{
        Algorithm, Event, KeyEntry, KeyId, Ledger, SignerId, Standing, StoredRecord,
        record::{KeyActivated, KeyGenerated, to_generalized_time},
    },
    service::{Error, KeyPolicy, marker::Marker},
    timestamp::Timestamp,
    token::{GenerateRequest, KeyRef, Token},
};

/// The standing of all keys, and the way to change it.
pub struct Keyring {
    signer: SignerId,
    standing: ArcSwap<Standing>,
    ledger: Arc<dyn Ledger>,
    token: Arc<Token>,
    marker: Marker,
    /// One lifecycle operation at a time.
    changing: Mutex<()>,
}

impl Keyring {
    /// Reads the ledger and folds it. Nothing is created here.
    pub async fn load(
        signer: SignerId,
        ledger: Arc<dyn Ledger>,
        token: Arc<Token>,
        marker: Marker,
    ) -> Result<Self, Error> {
        let standing = Standing::fold(&signer, ledger.read().await?)?;
        Ok(Self {
            signer,
            standing: ArcSwap::from_pointee(standing),
            ledger,
            token,
            marker,
            changing: Mutex::default(),
        })
    }

    /// All keys as of the last reading.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// The key that may sign at `now`.
    pub fn active(&self, now: Timestamp) -> Result<Arc<KeyEntry>, Error> {
        let standing = self.standing.load();
        let key = standing.active().ok_or(Error::NoActiveKey)?;
        let state = key.state(now);
        if state.may_sign() { Ok(Arc::clone(key)) } else { Err(Error::KeyMayNotSign { id: key.id.clone(), state }) }
    }

    /// Whether `id` is still the key that may sign.
    pub fn still_active(&self, id: &KeyId, now: Timestamp) -> Result<(), Error> {
        let active = self.active(now)?;
        if active.id == *id {
            Ok(())
        } else {
            Err(Error::KeyMayNotSign { id: id.clone(), state: self.find(id)?.state(now) })
        }
    }

    /// A key by its id.
    pub fn find(&self, id: &KeyId) -> Result<Arc<KeyEntry>, Error> {
        self.standing.load().key(id).cloned().ok_or_else(|| Error::UnknownKey(id.to_string()))
    }

    /// A key by the text of its id, as it stands in a path.
    pub fn find_by_text(&self, text: &str) -> Result<Arc<KeyEntry>, Error> {
        let id = KeyId::parse(text).ok_or_else(|| Error::UnknownKey(text.chars().take(100).collect()))?;
        self.find(&id)
    }

    /// Reads the ledger again, refuses one that has become shorter, and remembers how far it goes.
    pub async fn refresh(&self) -> Result<Arc<Standing>, Error> {
        let standing = Arc::new(Standing::fold(&self.signer, self.ledger.read().await?)?);
        self.marker.check(&standing)?;
        self.marker.update(&standing)?;
        self.standing.store(Arc::clone(&standing));
        Ok(standing)
    }

    /// Checks the active key against the token: it is there, its attributes hold, its public half
    /// is the recorded one (a signature proves it).
    pub async fn prove_active(&self, now: Timestamp, proof: impl crate::evidence::Warrant) -> Result<(), Error> {
        let Ok(key) = self.active(now) else { return Ok(()) };
        self.token.sign(&KeyRef::from(&*key), proof).await?;
        Ok(())
    }

    /// Generates a key and makes it the active one. The commit points are the two ledger records:
    /// before the first, a crash leaves objects that nothing names; between them, a pending key.
    pub async fn generate_and_activate(&self, order: NewKey<'_>, audit: &Audit, clock: &Clock) -> Result<KeyId, Error> {
        let _changing = self.changing.lock().await;
        let standing = self.standing.load_full();
        let now = clock.now().truncated_to_seconds();
        let id = KeyId { signer: self.signer.clone(), sequence: standing.next_key_sequence() };
        let intent =
            AuditEvent::of_service(EventType::KeyGenerated, "generate", id.to_string(), now).by(order.actor).pending();
        audit.record(intent).await?;
        let not_after = now.plus_seconds(order.policy.maximum_age_seconds());
        let request = GenerateRequest { id: id.clone(), algorithm: order.algorithm, not_before: now, not_after };
        let generated = self.token.generate(request).await?;
        let record = KeyGenerated {
            key: id.sequence,
            object_id: octets(generated.object_id),
            label: generated.label,
            curve: order.algorithm.curve_oid(),
            public_key: octets(generated.public_key.to_spki_der()),
            not_before: to_generalized_time(now),
            not_after: to_generalized_time(not_after),
            token_serial: self.token.identity().serial.clone(),
            omitted: generated.omitted,
        };
        let standing = self.append(&standing, Event::KeyGenerated(record), order.actor, now).await?;
        audit.record(lifecycle_event(EventType::KeyGenerated, "generate", &id, &order, now)).await?;
        self.append(&standing, Event::KeyActivated(KeyActivated { key: id.sequence }), order.actor, now).await?;
        audit.record(lifecycle_event(EventType::KeyActivated, "activate", &id, &order, now)).await?;
        Ok(id)
    }

    /// Appends one record and reads everything back: what counts is what the token now says.
    async fn append(
        &self,
        standing: &Standing,
        event: Event,
        actor: &str,
        now: Timestamp,
    ) -> Result<Arc<Standing>, Error> {
        let record = standing.next_record(event, actor, now);
        self.ledger.append(StoredRecord { label: record.label(), value: record.to_bytes() }).await?;
        self.refresh().await
    }
}

/// A key that is wanted, and who wants it.
#[derive(Clone, Copy, Debug)]
pub struct NewKey<'a> {
    pub algorithm: Algorithm,
    pub policy: &'a KeyPolicy,
    pub actor: &'a str,
}

fn lifecycle_event(
    kind: EventType,
    action: &'static str,
    id: &KeyId,
    order: &NewKey<'_>,
    now: Timestamp,
) -> AuditEvent {
    AuditEvent::of_service(kind, action, id.to_string(), now)
        .by(order.actor)
        .detail("key_id", id.to_string())
        .detail("algorithm", order.algorithm.as_str())
}

fn octets(bytes: Vec<u8>) -> OctetString {
    OctetString::new(bytes).expect("far below DER's length limits")
}
