//! The keys of this signer: the ledger's fold, kept at hand and fresh.
//!
//! # The lease
//!
//! Other appliances may change the ledger at any time. So this one signs only within a lease: a
//! short time since the *beginning* of its last good reading of the whole ledger. Whoever revokes a
//! key waits one lease after the revocation is on the token; from then on no appliance can hold an
//! older view that still lets it sign. No server is needed for that, and no message has to arrive.
//! The lease is measured on the boot-time clock, which goes on while a machine sleeps.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use serde::Deserialize;
use tokio::sync::Mutex;

use crate::{
    clock::boot_millis,
    key::{Event, KeyEntry, KeyId, Ledger, Line, SignerId, Standing, StoredRecord, revocation::Revocation},
    service::{Error, marker::Marker},
    timestamp::Timestamp,
};

/// `[fleet]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FleetConfig {
    /// True when no other appliance uses this token: then a revocation need not wait.
    pub single: bool,
    /// How old the last reading of the ledger may be when a signature is released. The same on
    /// every appliance of a fleet.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub lease: Duration,
    /// How often the ledger is read again.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub refresh: Duration,
}

impl Default for FleetConfig {
    fn default() -> Self {
        Self { single: false, lease: Duration::from_millis(1500), refresh: Duration::from_millis(400) }
    }
}

impl FleetConfig {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        let bounds = Duration::from_millis(200)..=Duration::from_secs(10);
        if !bounds.contains(&self.lease) {
            return Err("fleet.lease must be between 200ms and 10s".into());
        }
        if self.refresh < Duration::from_millis(20) || self.refresh * 2 > self.lease {
            return Err("fleet.refresh must be between 20ms and half of fleet.lease".into());
        }
        Ok(())
    }

    /// How long a revocation waits until no older view of the ledger can sign.
    #[must_use]
    pub fn settle_time(&self) -> Duration {
        // Clocks that count milliseconds may each be one off.
        if self.single { Duration::ZERO } else { self.lease + Duration::from_millis(20) }
    }
}

/// A reading that fails is repeated: while another process adds an object, a software token may show
/// half of it.
const READINGS: u32 = 3;
const PAUSE: Duration = Duration::from_millis(25);

/// The standing of all keys.
pub struct Keyring {
    signer: SignerId,
    standing: ArcSwap<Standing>,
    ledger: Arc<dyn Ledger>,
    /// Accepts, while starting, what an operator named; strict from then on.
    marker: ArcSwap<Marker>,
    lease: Duration,
    /// Boot-time milliseconds at which the last good reading began.
    read_at: AtomicU64,
    /// The records of the last reading: an unchanged ledger is not folded again.
    reading: Mutex<Vec<StoredRecord>>,
}

impl Keyring {
    /// Reads the ledger and folds it. Nothing is created here.
    pub async fn load(
        signer: SignerId,
        ledger: Arc<dyn Ledger>,
        marker: Marker,
        lease: Duration,
    ) -> Result<Self, Error> {
        let keyring = Self {
            standing: ArcSwap::from_pointee(Standing::empty(signer.clone())),
            signer,
            ledger,
            marker: ArcSwap::from_pointee(marker),
            lease,
            read_at: AtomicU64::new(0),
            reading: Mutex::default(),
        };
        keyring.refresh().await?;
        Ok(keyring)
    }

    /// The signer whose keys these are.
    #[must_use]
    pub fn signer(&self) -> &SignerId {
        &self.signer
    }

    /// All keys as of the last reading.
    #[must_use]
    pub fn standing(&self) -> Arc<Standing> {
        self.standing.load_full()
    }

    /// True while the last reading is young enough to sign by.
    #[must_use]
    pub fn is_fresh(&self) -> bool {
        let age = boot_millis().saturating_sub(self.read_at.load(Ordering::Acquire));
        u128::from(age) < self.lease.as_millis()
    }

    /// From now on nothing is accepted that does not continue what was seen.
    pub fn end_acceptance(&self) {
        self.marker.store(Arc::new(self.marker.load().strict()));
    }

    /// Makes sure that the last reading is young enough, by reading again where it is not.
    pub async fn freshen(&self) -> Result<(), Error> {
        if !self.is_fresh() {
            self.refresh().await?;
        }
        Ok(())
    }

    /// The key of this line that may sign at `now`, by a fresh reading.
    pub fn active(&self, line: &Line, now: Timestamp) -> Result<Arc<KeyEntry>, Error> {
        if !self.is_fresh() {
            return Err(Error::StaleLedger);
        }
        let standing = self.standing.load();
        let key = standing.active(line).ok_or(Error::NoActiveKey)?;
        let state = key.state(now);
        if state.may_sign() { Ok(Arc::clone(key)) } else { Err(Error::KeyMayNotSign { id: key.id.clone(), state }) }
    }

    /// Whether `id` is still the key of its line that may sign.
    pub fn still_active(&self, id: &KeyId, now: Timestamp) -> Result<(), Error> {
        let key = self.find(id)?;
        let active = self.active(&key.line, now)?;
        if active.id == *id { Ok(()) } else { Err(Error::KeyMayNotSign { id: id.clone(), state: key.state(now) }) }
    }

    /// Whether a signature that `id` has made may leave, by a fresh reading: not once the key is
    /// revoked. One that was made in time may leave although the key was rotated out meanwhile.
    pub fn may_release(&self, id: &KeyId, now: Timestamp) -> Result<(), Error> {
        if !self.is_fresh() {
            return Err(Error::StaleLedger);
        }
        let key = self.find(id)?;
        if key.revoked.is_none() && key.destroyed_at.is_none() {
            Ok(())
        } else {
            Err(Error::KeyMayNotSign { id: id.clone(), state: key.state(now) })
        }
    }

    /// A key by its id.
    pub fn find(&self, id: &KeyId) -> Result<Arc<KeyEntry>, Error> {
        self.standing.load().key(id).cloned().ok_or_else(|| Error::UnknownKey(id.to_string()))
    }

    fn may_be_new(&self, sequence: u32) -> bool {
        let next = self.standing.load().next_key_sequence();
        (next..next.saturating_add(3)).contains(&sequence)
    }

    /// A key by its id; one that is not known yet is looked for in a new reading.
    pub async fn find_anew(&self, id: &KeyId) -> Result<Arc<KeyEntry>, Error> {
        match self.find(id) {
            // At most one later than we know: nobody makes us read for keys that cannot exist.
            Err(Error::UnknownKey(_)) if id.signer == self.signer && self.may_be_new(id.sequence) => {
                self.refresh().await?;
                self.find(id)
            }
            found => found,
        }
    }

    /// A key by the text of its id, as it stands in a path.
    pub fn find_by_text(&self, text: &str) -> Result<Arc<KeyEntry>, Error> {
        let id = KeyId::parse(text).ok_or_else(|| Error::UnknownKey(text.chars().take(100).collect()))?;
        self.find(&id)
    }

    /// The same; one that is not known yet is looked for in a new reading.
    pub async fn find_by_text_anew(&self, text: &str) -> Result<Arc<KeyEntry>, Error> {
        if let Ok(key) = self.find_by_text(text) {
            return Ok(key);
        }
        self.refresh().await?;
        self.find_by_text(text)
    }

    /// Reads the ledger again; refuses one that has become shorter or lost a revocation.
    pub async fn refresh(&self) -> Result<Arc<Standing>, Error> {
        // One reading at a time: the later one would otherwise overtake with older records.
        let mut last = self.reading.lock().await;
        let mut result = self.read(&mut last).await;
        for _ in 1..READINGS {
            if result.is_ok() {
                break;
            }
            tokio::time::sleep(PAUSE).await;
            result = self.read(&mut last).await;
        }
        result?;
        Ok(self.standing())
    }

    async fn read(&self, last: &mut Vec<StoredRecord>) -> Result<(), Error> {
        let begun = boot_millis();
        let mut records = self.ledger.read().await?;
        records.sort_unstable_by(|a, b| (&a.label, &a.value).cmp(&(&b.label, &b.value)));
        let unchanged = *last == records && self.read_at.load(Ordering::Acquire) != 0;
        if !unchanged {
            let standing = Standing::fold(&self.signer, records.iter().cloned())?;
            let marker = self.marker.load();
            marker.check(&standing)?;
            marker.update(&standing)?;
            self.standing.store(Arc::new(standing));
            *last = records;
        }
        self.read_at.store(begun, Ordering::Release);
        Ok(())
    }

    /// Appends the record of a decision made on `decided` under the fleet lock with this fence, and
    /// reads everything back: what counts is what the token now says, also when the write had no answer.
    /// Nothing is written when the ledger has moved on since, or when the rules forbid the record.
    pub async fn append(
        &self,
        decided: &Standing,
        event: Event,
        fence: u64,
        actor: &str,
        now: Timestamp,
    ) -> Result<Arc<Standing>, Error> {
        if self.refresh().await?.head() != decided.head() {
            return Err(Error::LostRace);
        }
        let record = decided.next_record(event, fence, actor, now);
        decided.allows(&record)?;
        let stored = StoredRecord { label: record.label(), value: record.to_bytes() };
        let (sequence, digest) = (record.sequence, crate::key::record::digest(&stored.value));
        let written = self.ledger.append(stored).await;
        let read = self.refresh().await;
        match (written, read) {
            (_, Ok(standing)) if standing.digest_at(sequence) == Some(&digest) => Ok(standing),
            (Err(error), _) => Err(error.into()),
            (Ok(()), read) => read.and(Err(Error::LostRace)),
        }
    }

    /// Adds a revocation; from its return on it is on the token. So it is when the write had no answer and
    /// the revocation is read back: who revokes again would add another.
    pub async fn append_revocation(&self, revocation: &Revocation) -> Result<Arc<Standing>, Error> {
        let record = StoredRecord { label: revocation.label(), value: revocation.to_bytes() };
        let written = self.ledger.append(record).await;
        let read = self.refresh().await;
        let id = KeyId { signer: self.signer.clone(), sequence: revocation.key };
        let holds = |standing: &Standing| standing.key(&id).is_some_and(|key| key.revoked.is_some());
        match (written, read) {
            (Ok(()), read) => read,
            (Err(_), Ok(standing)) if holds(&standing) => Ok(standing),
            (Err(error), _) => Err(error.into()),
        }
    }

    /// Adds or removes the intent to generate a key.
    pub async fn append_intent(&self, intent: &crate::key::intent::GenerationIntent) -> Result<(), Error> {
        Ok(self.ledger.append(StoredRecord { label: intent.label(), value: intent.to_bytes() }).await?)
    }

    /// Removes an intent that has been carried out or cleaned up.
    pub async fn remove_intent(&self, intent: &crate::key::intent::GenerationIntent) -> Result<(), Error> {
        Ok(self.ledger.remove(&intent.label()).await?)
    }
}
