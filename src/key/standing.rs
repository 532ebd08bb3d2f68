//! The state of every key: the fold of the ledger's records and revocations.
//!
//! A reader that has the records needs nothing else. Whatever does not fold (an unreadable record,
//! a gap, a step that the rules forbid) is an error and never skipped: the standing of a key must
//! not depend on what could be read.

use std::{collections::BTreeMap, sync::Arc};

use der::asn1::OctetString;

use crate::{
    key::{
        Event, KeyEntry, KeyId, KeyState, Line, PublicKey, Record, Revoked, SignerId,
        intent::GenerationIntent,
        record::{self, GENESIS, KeyActivated, KeyGenerated, from_generalized_time, to_generalized_time},
        revocation::Revocation,
        rotation::{Rotation, RotationStatus},
    },
    timestamp::Timestamp,
};

/// All keys and rotations of one signer, and where its ledger ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    signer: SignerId,
    keys: BTreeMap<u32, Arc<KeyEntry>>,
    rotations: BTreeMap<u32, Rotation>,
    active: BTreeMap<Line, u32>,
    /// SHA-256 of every record that counts, in order: the ledger's length and head.
    digests: Vec<[u8; 32]>,
    fence: u64,
    superseded: Vec<Superseded>,
    intents: Vec<GenerationIntent>,
}

/// Why records do not fold into a standing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LedgerError {
    #[error("ledger record {label:?} cannot be read: it is damaged, or a newer version wrote it")]
    Unreadable { label: String },
    #[error("ledger record {sequence} is missing, but later ones exist: part of the ledger was lost or removed")]
    Gap { sequence: u64 },
    #[error("ledger record {sequence} does not follow the one before it: one of the two was altered or replaced")]
    Unlinked { sequence: u64 },
    #[error("ledger record {sequence} ({event}) contradicts the records before it: {detail}")]
    Contradiction { sequence: u64, event: &'static str, detail: &'static str },
    #[error("key {key} is revoked but was never generated: the ledger lost its records")]
    RevokedUnknown { key: u32 },
}

/// A record that lost a race.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Superseded {
    pub label: String,
    /// SHA-256 of the record.
    pub digest: [u8; 32],
}

/// A record as it is stored: its label, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct StoredRecord {
    pub label: String,
    pub value: Vec<u8>,
}

/// What the records are, sorted by kind.
#[derive(Default)]
struct Sorted {
    chain: BTreeMap<u64, Vec<([u8; 32], Record)>>,
    revocations: Vec<Revocation>,
    intents: Vec<GenerationIntent>,
}

impl Sorted {
    fn of(signer: &SignerId, stored: impl IntoIterator<Item = StoredRecord>) -> Result<Self, LedgerError> {
        let mut sorted = Self::default();
        let ours = format!("{signer} ");
        for StoredRecord { label, value } in stored {
            // Another signer's records, readable or not, are none of our business.
            if !label.starts_with(&ours) {
                continue;
            }
            let unreadable = || LedgerError::Unreadable { label: label.clone() };
            if Revocation::is_label(&label) {
                let revocation = Revocation::from_bytes(&value).ok_or_else(unreadable)?;
                if revocation.signer == signer.as_str() {
                    sorted.revocations.push(revocation);
                }
            } else if GenerationIntent::is_label(&label) {
                // A torn intent names nothing that could be destroyed: it only stays unexplained.
                if let Some(intent) =
                    GenerationIntent::from_bytes(&value).filter(|intent| intent.signer == signer.as_str())
                {
                    sorted.intents.push(intent);
                }
            } else {
                let record = Record::from_bytes(&value).ok_or_else(unreadable)?;
                if record.signer == signer.as_str() {
                    sorted.chain.entry(record.sequence).or_default().push((record::digest(&value), record));
                }
            }
        }
        Ok(sorted)
    }
}

impl Standing {
    /// The standing of a signer whose ledger has no records.
    #[must_use]
    pub fn empty(signer: SignerId) -> Self {
        Self {
            signer,
            keys: BTreeMap::new(),
            rotations: BTreeMap::new(),
            active: BTreeMap::new(),
            digests: Vec::new(),
            fence: 0,
            superseded: Vec::new(),
            intents: Vec::new(),
        }
    }

    /// Folds `stored` records, in any order. Records of other signers on the same token are left
    /// out. Where two appliances wrote the same sequence, the one with the higher fence counts for
    /// every reader (an appliance whose lock ran out while it slept writes with a lower one), then
    /// the smaller SHA-256; the other is listed in [`Standing::superseded`].
    pub fn fold(signer: &SignerId, stored: impl IntoIterator<Item = StoredRecord>) -> Result<Self, LedgerError> {
        let sorted = Sorted::of(signer, stored)?;
        let mut standing = Self::empty(signer.clone());
        for (sequence, mut candidates) in sorted.chain {
            if sequence != standing.last_sequence() + 1 {
                return Err(LedgerError::Gap { sequence: standing.last_sequence() + 1 });
            }
            candidates.sort_unstable_by_key(|(digest, record)| (std::cmp::Reverse(record.fence), *digest));
            let counts =
                |record: &Record| record.previous.as_bytes() == standing.head() && record.fence >= standing.fence;
            let (follows, stray): (Vec<_>, Vec<_>) = candidates.into_iter().partition(|(_, record)| counts(record));
            let mut follows = follows.into_iter();
            let Some((digest, record)) = follows.next() else {
                return Err(LedgerError::Unlinked { sequence });
            };
            for (digest, loser) in follows.chain(stray) {
                standing.superseded.push(Superseded { label: loser.label(), digest });
            }
            standing.apply(&record)?;
            standing.digests.push(digest);
            standing.fence = record.fence;
        }
        for revocation in &sorted.revocations {
            standing.revoke(revocation)?;
        }
        standing.intents = sorted.intents;
        Ok(standing)
    }

    /// Whether the rules allow `record` as the next one: asked before it is written, since what does
    /// not fold would stop every appliance.
    pub fn allows(&self, record: &Record) -> Result<(), LedgerError> {
        self.clone().apply(record)
    }

    /// Applies one record that follows the current head.
    fn apply(&mut self, record: &Record) -> Result<(), LedgerError> {
        let contradiction =
            |detail| LedgerError::Contradiction { sequence: record.sequence, event: record.event.name(), detail };
        let time = from_generalized_time(&record.time);
        match &record.event {
            Event::KeyGenerated(generated) => {
                if generated.key != self.next_key_sequence() {
                    return Err(contradiction("key sequences must follow one another"));
                }
                let entry =
                    self.entry(generated, time).ok_or_else(|| contradiction("its public key cannot be read"))?;
                self.keys.insert(generated.key, Arc::new(entry));
                Ok(())
            }
            Event::KeyActivated(activated) => self.activate(activated, time).map_err(contradiction),
            Event::RotationCompleted(completed) => {
                let rotation = self.open_rotation(completed.key).map_err(contradiction)?;
                rotation.completed_at = Some(time);
                rotation.forced = completed.forced;
                if let Some(from) = rotation.from {
                    self.retire(from, time);
                }
                Ok(())
            }
            Event::RotationCancelled(cancelled) => self.cancel(cancelled.key, time).map_err(contradiction),
            Event::KeyDestroyed(destroyed) => {
                let key =
                    self.keys.get_mut(&destroyed.key).ok_or_else(|| contradiction("the key was never generated"))?;
                // Whatever it was: without its private half it is at most retired.
                let key = Arc::make_mut(key);
                key.destroyed_at.get_or_insert(time);
                key.retired_at.get_or_insert(time);
                Ok(())
            }
        }
    }

    /// The new key is active from `time`; the one before it rotates out until the overlap ends.
    fn activate(&mut self, activated: &KeyActivated, time: Timestamp) -> Result<(), &'static str> {
        let line = self.keys.get(&activated.key).ok_or("the key was never generated")?.line.clone();
        let is_first = !self.was_active(&line);
        let key = self.keys.get_mut(&activated.key).ok_or("the key was never generated")?;
        if key.activated_at.is_some() {
            return Err("the key was active before");
        }
        if key.destroyed_at.is_some() {
            return Err("the key was destroyed");
        }
        Arc::make_mut(key).activated_at = Some(time);
        let until = from_generalized_time(&activated.overlap_until);
        if activated.emergency {
            self.end_open_rotations(&line, time);
        }
        let from = self.active.insert(line.clone(), activated.key);
        if let Some(key) = from.and_then(|from| self.keys.get_mut(&from)) {
            Arc::make_mut(key).overlap_until = Some(until);
        }
        let rotation = Rotation {
            line,
            to: activated.key,
            from,
            started_at: time,
            overlap_until: until,
            emergency: activated.emergency,
            reason: activated.reason.clone(),
            initiated_by: activated.initiated_by.clone(),
            notes: activated.notes.clone(),
            // Without an overlap there is nothing left to complete.
            completed_at: (until <= time).then_some(time),
            cancelled_at: None,
            forced: false,
        };
        // The first key follows no other: making it is no rotation.
        if !is_first {
            self.rotations.insert(activated.key, rotation);
        }
        Ok(())
    }

    /// An emergency ends every overlap of its line: no key of it but the new one is left in use.
    fn end_open_rotations(&mut self, line: &Line, time: Timestamp) {
        let mut ended = Vec::new();
        for rotation in self.rotations.values_mut().filter(|rotation| rotation.line == *line && rotation.is_open()) {
            rotation.completed_at = Some(time);
            rotation.forced = true;
            ended.extend(rotation.from);
        }
        for key in ended {
            self.retire(key, time);
        }
    }

    /// The newest rotation, if it is the one to `key` and nothing has ended it.
    fn open_rotation(&mut self, key: u32) -> Result<&mut Rotation, &'static str> {
        self.rotations.get_mut(&key).filter(|rotation| rotation.is_open()).ok_or("no such rotation is open")
    }

    fn cancel(&mut self, key: u32, time: Timestamp) -> Result<(), &'static str> {
        if !self.active.values().any(|active| *active == key) {
            return Err("the rotation's key is not the active one");
        }
        let rotation = self.open_rotation(key)?;
        let line = rotation.line.clone();
        let from = rotation.from.ok_or("there is no key to go back to")?;
        if time >= rotation.overlap_until {
            return Err("the overlap has ended");
        }
        if self.keys.get(&from).is_none_or(|key| key.destroyed_at.is_some()) {
            return Err("the key to go back to was destroyed");
        }
        let rotation = self.open_rotation(key)?;
        rotation.cancelled_at = Some(time);
        self.retire(key, time);
        if let Some(back) = self.keys.get_mut(&from) {
            Arc::make_mut(back).overlap_until = None;
        }
        self.active.insert(line, from);
        Ok(())
    }

    fn retire(&mut self, key: u32, time: Timestamp) {
        if let Some(key) = self.keys.get_mut(&key) {
            Arc::make_mut(key).retired_at.get_or_insert(time);
        }
    }

    /// Adds a revocation. The earliest of several counts.
    fn revoke(&mut self, revocation: &Revocation) -> Result<(), LedgerError> {
        let entry = self.keys.get_mut(&revocation.key).ok_or(LedgerError::RevokedUnknown { key: revocation.key })?;
        let at = from_generalized_time(&revocation.time);
        if entry.revoked.as_ref().is_none_or(|earlier| at < earlier.at) {
            Arc::make_mut(entry).revoked = Some(Revoked {
                at,
                reason: revocation.reason.clone(),
                initiated_by: revocation.initiated_by.clone(),
                compromised_at: revocation.compromised_at.as_ref().map(from_generalized_time),
            });
        }
        Ok(())
    }

    fn entry(&self, generated: &KeyGenerated, time: Timestamp) -> Option<KeyEntry> {
        let public_key = PublicKey::from_spki_der(generated.public_key.as_bytes()).ok()?;
        (public_key.algorithm().curve_oid() == generated.curve).then(|| KeyEntry {
            id: KeyId { signer: self.signer.clone(), sequence: generated.key },
            object_id: generated.object_id.as_bytes().to_vec(),
            label: generated.label.clone(),
            public_key,
            token_serial: generated.token_serial.clone(),
            line: if generated.own_line { Line::Token(generated.token_serial.clone()) } else { Line::Signer },
            omitted: generated.omitted.clone(),
            generated_at: time,
            not_before: from_generalized_time(&generated.not_before),
            not_after: from_generalized_time(&generated.not_after),
            activated_at: None,
            overlap_until: None,
            retired_at: None,
            revoked: None,
            destroyed_at: None,
        })
    }

    /// The record that would append `event` to this ledger, under the fleet lock with this fence.
    #[must_use]
    pub fn next_record(&self, event: Event, fence: u64, actor: &str, now: Timestamp) -> Record {
        Record {
            version: record::VERSION,
            sequence: self.last_sequence() + 1,
            fence,
            time: to_generalized_time(now),
            signer: self.signer.as_str().to_owned(),
            actor: actor.to_owned(),
            previous: OctetString::new(*self.head()).expect("32 bytes are a valid octet string"),
            event,
        }
    }

    /// The sequence the next key will get.
    #[must_use]
    pub fn next_key_sequence(&self) -> u32 {
        self.keys.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// The line whose keys are on the token with this serial: its own, if it has some for itself.
    #[must_use]
    pub fn line_of(&self, token_serial: &str) -> Line {
        let own = Line::Token(token_serial.to_owned());
        if self.has(&own) { own } else { Line::Signer }
    }

    /// Whether a key of this line was ever generated.
    #[must_use]
    pub fn has(&self, line: &Line) -> bool {
        self.keys.values().any(|key| key.line == *line)
    }

    /// Whether a key of this line was ever active.
    #[must_use]
    pub fn was_active(&self, line: &Line) -> bool {
        self.keys.values().any(|key| key.line == *line && key.activated_at.is_some())
    }

    /// The key of this line that was activated last and not replaced or revoked since, whatever the clock says.
    #[must_use]
    pub fn active(&self, line: &Line) -> Option<&Arc<KeyEntry>> {
        self.active
            .get(line)
            .and_then(|sequence| self.keys.get(sequence))
            .filter(|key| key.revoked.is_none() && key.destroyed_at.is_none())
    }

    /// That of every line.
    pub fn actives(&self) -> impl Iterator<Item = &Arc<KeyEntry>> {
        self.active.keys().filter_map(|line| self.active(line))
    }

    /// A key by its id.
    #[must_use]
    pub fn key(&self, id: &KeyId) -> Option<&Arc<KeyEntry>> {
        (id.signer == self.signer).then(|| self.keys.get(&id.sequence)).flatten()
    }

    /// All keys, oldest first.
    #[must_use]
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Arc<KeyEntry>> {
        self.keys.values()
    }

    /// Keys of this line that were generated ahead and are not yet in use, oldest first.
    pub fn pending(&self, line: &Line, now: Timestamp) -> impl Iterator<Item = &Arc<KeyEntry>> {
        self.keys.values().filter(move |key| key.line == *line && key.state(now) == KeyState::Pending)
    }

    /// The keys that a token of this line must have: the one that signs, and those that will.
    pub fn needed(&self, line: &Line, now: Timestamp) -> impl Iterator<Item = &Arc<KeyEntry>> {
        self.active(line).into_iter().chain(self.pending(line, now))
    }

    /// All rotations, oldest first.
    #[must_use]
    pub fn rotations(&self) -> impl DoubleEndedIterator<Item = &Rotation> {
        self.rotations.values()
    }

    /// The rotation to this key.
    #[must_use]
    pub fn rotation(&self, to: u32) -> Option<&Rotation> {
        self.rotations.get(&to)
    }

    /// The rotation of this line whose overlap is running at `now`.
    #[must_use]
    pub fn rotation_in_progress(&self, line: &Line, now: Timestamp) -> Option<&Rotation> {
        self.rotations
            .values()
            .rev()
            .filter(|rotation| rotation.line == *line && self.overlaps(rotation))
            .find(|rotation| rotation.status(now) == RotationStatus::InProgress)
    }

    /// A revoked key leaves no overlap to wait for.
    fn overlaps(&self, rotation: &Rotation) -> bool {
        rotation.from.and_then(|from| self.keys.get(&from)).is_some_and(|from| from.revoked.is_none())
    }

    /// The newest rotation that somebody, or the upkeep, has still to complete, whether or not its overlap
    /// has ended.
    #[must_use]
    pub fn rotation_to_complete(&self, now: Timestamp) -> Option<&Rotation> {
        let open = |rotation: &&Rotation| {
            matches!(rotation.status(now), RotationStatus::InProgress | RotationStatus::OverlapEnded)
        };
        self.rotations.values().rev().filter(|rotation| self.overlaps(rotation)).find(open)
    }

    /// True when no key was ever recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.digests.is_empty()
    }

    /// How many records the ledger has.
    #[must_use]
    pub fn last_sequence(&self) -> u64 {
        self.digests.len() as u64
    }

    /// SHA-256 of the record with this sequence.
    #[must_use]
    pub fn digest_at(&self, sequence: u64) -> Option<&[u8; 32]> {
        self.digests.get(usize::try_from(sequence.checked_sub(1)?).ok()?)
    }

    /// SHA-256 of the last record.
    #[must_use]
    pub fn head(&self) -> &[u8; 32] {
        self.digests.last().unwrap_or(&GENESIS)
    }

    /// The highest fence of any record.
    #[must_use]
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Records that lost a race and do not count.
    #[must_use]
    pub fn superseded(&self) -> &[Superseded] {
        &self.superseded
    }

    /// Intents to generate keys that are still on the token.
    #[must_use]
    pub fn intents(&self) -> &[GenerationIntent] {
        &self.intents
    }
}

#[cfg(test)]
#[path = "standing_tests.rs"]
mod tests;
