//! The state of every key: the fold of the ledger's records.
//!
//! A reader that has the records needs nothing else. Whatever does not fold (an unreadable record,
//! a gap, a step that the rules forbid) is an error and never skipped: the standing of a key must
//! not depend on what could be read.

use std::{collections::BTreeMap, sync::Arc};

use crate::{
    key::{
        Algorithm, Event, KeyId, KeyState, PublicKey, Record, SignerId,
        record::{self, GENESIS, KeyActivated, KeyGenerated, from_generalized_time, to_generalized_time},
    },
    timestamp::Timestamp,
};

/// One key, as the ledger tells it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyEntry {
    pub id: KeyId,
    pub object_id: Vec<u8>,
    pub label: String,
    pub public_key: PublicKey,
    pub token_serial: String,
    pub omitted: Vec<String>,
    pub generated_at: Timestamp,
    pub not_before: Timestamp,
    pub not_after: Timestamp,
    pub activated_at: Option<Timestamp>,
}

impl KeyEntry {
    /// The key's state at `now`: deadlines count at the moment of asking, whether or not anything
    /// has run since.
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        match self.activated_at {
            _ if now >= self.not_after => KeyState::Expired,
            Some(_) => KeyState::Active,
            None => KeyState::Pending,
        }
    }

    /// The key's algorithm.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        self.public_key.algorithm()
    }
}

/// All keys of one signer, and where its ledger ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    signer: SignerId,
    keys: BTreeMap<u32, Arc<KeyEntry>>,
    active: Option<u32>,
    /// SHA-256 of every record that counts, in order: the ledger's length and head.
    digests: Vec<[u8; 32]>,
    superseded: Vec<String>,
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
}

/// A record as it is stored: its label, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredRecord {
    pub label: String,
    pub value: Vec<u8>,
}

impl Standing {
    /// The standing of a signer whose ledger has no records.
    #[must_use]
    pub fn empty(signer: SignerId) -> Self {
        Self { signer, keys: BTreeMap::new(), active: None, digests: Vec::new(), superseded: Vec::new() }
    }

    /// Folds `stored` records, in any order. Records of other signers on the same token are left
    /// out; where two appliances wrote the same sequence, the one with the smaller SHA-256 counts
    /// for every reader, and the other is listed in [`Standing::superseded`].
    pub fn fold(signer: &SignerId, stored: impl IntoIterator<Item = StoredRecord>) -> Result<Self, LedgerError> {
        let mut by_sequence: BTreeMap<u64, Vec<([u8; 32], Record)>> = BTreeMap::new();
        for StoredRecord { label, value } in stored {
            let record = Record::from_bytes(&value).ok_or(LedgerError::Unreadable { label })?;
            if record.signer == signer.as_str() {
                by_sequence.entry(record.sequence).or_default().push((record::digest(&value), record));
            }
        }
        let mut standing = Self::empty(signer.clone());
        for (sequence, mut candidates) in by_sequence {
            if sequence != standing.last_sequence() + 1 {
                return Err(LedgerError::Gap { sequence: standing.last_sequence() + 1 });
            }
            candidates.sort_unstable_by_key(|(digest, _)| *digest);
            let (follows, stray): (Vec<_>, Vec<_>) =
                candidates.into_iter().partition(|(_, record)| record.previous.as_bytes() == standing.head());
            let mut follows = follows.into_iter();
            let Some((digest, record)) = follows.next() else {
                return Err(LedgerError::Unlinked { sequence });
            };
            standing.superseded.extend(follows.chain(stray).map(|(_, loser)| loser.label()));
            standing.apply(&record, digest)?;
        }
        Ok(standing)
    }

    /// Adds one record that follows the current head.
    fn apply(&mut self, record: &Record, digest: [u8; 32]) -> Result<(), LedgerError> {
        let contradiction =
            |detail| LedgerError::Contradiction { sequence: record.sequence, event: record.event.name(), detail };
        match &record.event {
            Event::KeyGenerated(generated) => {
                if generated.key != self.next_key_sequence() {
                    return Err(contradiction("key sequences must follow one another"));
                }
                let entry =
                    self.entry(generated, record).ok_or_else(|| contradiction("its public key cannot be read"))?;
                self.keys.insert(generated.key, Arc::new(entry));
            }
            Event::KeyActivated(KeyActivated { key }) => {
                if self.active.is_some() {
                    return Err(contradiction("another key is active"));
                }
                let entry = self.keys.get_mut(key).ok_or_else(|| contradiction("the key was never generated"))?;
                if entry.activated_at.is_some() {
                    return Err(contradiction("the key was active before"));
                }
                Arc::make_mut(entry).activated_at = Some(from_generalized_time(&record.time));
                self.active = Some(*key);
            }
        }
        self.digests.push(digest);
        Ok(())
    }

    fn entry(&self, generated: &KeyGenerated, record: &Record) -> Option<KeyEntry> {
        let public_key = PublicKey::from_spki_der(generated.public_key.as_bytes()).ok()?;
        (public_key.algorithm().curve_oid() == generated.curve).then(|| KeyEntry {
            id: KeyId { signer: self.signer.clone(), sequence: generated.key },
            object_id: generated.object_id.as_bytes().to_vec(),
            label: generated.label.clone(),
            public_key,
            token_serial: generated.token_serial.clone(),
            omitted: generated.omitted.clone(),
            generated_at: from_generalized_time(&record.time),
            not_before: from_generalized_time(&generated.not_before),
            not_after: from_generalized_time(&generated.not_after),
            activated_at: None,
        })
    }

    /// The record that would append `event` to this ledger.
    #[must_use]
    pub fn next_record(&self, event: Event, actor: &str, now: Timestamp) -> Record {
        Record {
            version: record::VERSION,
            sequence: self.last_sequence() + 1,
            time: to_generalized_time(now),
            signer: self.signer.as_str().to_owned(),
            actor: actor.to_owned(),
            previous: der::asn1::OctetString::new(*self.head()).expect("32 bytes are a valid octet string"),
            event,
        }
    }

    /// The sequence the next key will get.
    #[must_use]
    pub fn next_key_sequence(&self) -> u32 {
        self.keys.last_key_value().map_or(1, |(last, _)| last + 1)
    }

    /// The key that was activated last and not replaced since, whatever the clock says of it.
    #[must_use]
    pub fn active(&self) -> Option<&Arc<KeyEntry>> {
        self.active.and_then(|sequence| self.keys.get(&sequence))
    }

    /// A key by its id.
    #[must_use]
    pub fn key(&self, id: &KeyId) -> Option<&Arc<KeyEntry>> {
        (id.signer == self.signer).then(|| self.keys.get(&id.sequence)).flatten()
    }

    /// All keys, oldest first.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &Arc<KeyEntry>> {
        self.keys.values()
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

    /// Labels of records that lost a race and do not count.
    #[must_use]
    pub fn superseded(&self) -> &[String] {
        &self.superseded
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use der::asn1::OctetString;
    use p256::elliptic_curve::sec1::ToSec1Point;

    fn signer() -> SignerId {
        SignerId::parse("s").unwrap()
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_700_000_000 + second).unwrap()
    }

    fn generated(key: u32) -> Event {
        let point = p256::AffinePoint::GENERATOR.to_sec1_point(false);
        let public_key = PublicKey::from_ec_point(Algorithm::P256, point.as_bytes()).unwrap();
        Event::KeyGenerated(KeyGenerated {
            key,
            object_id: OctetString::new([7; 16]).unwrap(),
            label: format!("s:{key} P-256"),
            curve: Algorithm::P256.curve_oid(),
            public_key: OctetString::new(public_key.to_spki_der()).unwrap(),
            not_before: to_generalized_time(at(0)),
            not_after: to_generalized_time(at(1000)),
            token_serial: "01".into(),
            omitted: vec!["CKA_COPYABLE".into()],
        })
    }

    fn stored(record: &Record) -> StoredRecord {
        StoredRecord { label: record.label(), value: record.to_bytes() }
    }

    fn ledger() -> Vec<StoredRecord> {
        let first = Standing::empty(signer()).next_record(generated(1), "init", at(0));
        let standing = Standing::fold(&signer(), [stored(&first)]).unwrap();
        let second = standing.next_record(Event::KeyActivated(KeyActivated { key: 1 }), "init", at(1));
        vec![stored(&first), stored(&second)]
    }

    #[test]
    fn records_survive_encoding() {
        for record in ledger() {
            assert_eq!(Record::from_bytes(&record.value).unwrap().to_bytes(), record.value);
        }
    }

    #[test]
    fn the_fold_does_not_depend_on_the_order_of_reading() {
        let forward = Standing::fold(&signer(), ledger()).unwrap();
        let backward = Standing::fold(&signer(), ledger().into_iter().rev()).unwrap();
        assert_eq!(forward, backward);
        assert_eq!(forward.active().unwrap().state(at(2)), KeyState::Active);
    }

    #[test]
    fn a_key_past_its_end_date_is_expired_without_any_timer() {
        let standing = Standing::fold(&signer(), ledger()).unwrap();
        assert_eq!(standing.active().unwrap().state(at(999)), KeyState::Active);
        assert_eq!(standing.active().unwrap().state(at(1000)), KeyState::Expired);
    }

    #[test]
    fn a_missing_damaged_or_altered_record_is_an_error() {
        let mut records = ledger();
        assert!(matches!(Standing::fold(&signer(), [records[1].clone()]), Err(LedgerError::Gap { sequence: 1 })));
        records[0].value.truncate(20);
        assert!(matches!(Standing::fold(&signer(), records), Err(LedgerError::Unreadable { .. })));
        for byte in 0..ledger()[0].value.len() {
            let mut records = ledger();
            records[0].value[byte] ^= 1;
            // A changed signer name makes the record another signer's, which leaves a gap here.
            assert!(Standing::fold(&signer(), records).is_err(), "byte {byte}");
        }
    }

    #[test]
    fn of_two_records_with_one_sequence_every_reader_takes_the_same() {
        let first = Standing::empty(signer()).next_record(generated(1), "a", at(0));
        let rival = Standing::empty(signer()).next_record(generated(1), "b", at(0));
        let one = Standing::fold(&signer(), [stored(&first), stored(&rival)]).unwrap();
        let other = Standing::fold(&signer(), [stored(&rival), stored(&first)]).unwrap();
        assert_eq!(one, other);
        assert_eq!(one.superseded().len(), 1);
    }

    #[test]
    fn a_second_active_key_or_an_unknown_one_contradicts_the_ledger() {
        let standing = Standing::fold(&signer(), ledger()).unwrap();
        for event in [
            Event::KeyActivated(KeyActivated { key: 1 }),
            Event::KeyActivated(KeyActivated { key: 9 }),
            generated(1),
            generated(3),
        ] {
            let mut records = ledger();
            records.push(stored(&standing.next_record(event, "x", at(2))));
            assert!(matches!(Standing::fold(&signer(), records), Err(LedgerError::Contradiction { .. })));
        }
    }
}
