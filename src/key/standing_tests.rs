use super::*;
use crate::key::{
    Algorithm,
    record::{KeyDestroyed, RotationCancelled, RotationCompleted},
};
use p256::elliptic_curve::sec1::ToSec1Point;
use proptest::prelude::*;

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
        own_line: false,
    })
}

/// A key that the token with the serial 01 has for itself.
fn generated_own(key: u32) -> Event {
    let Event::KeyGenerated(generated) = generated(key) else { unreachable!() };
    Event::KeyGenerated(KeyGenerated { own_line: true, ..generated })
}

fn own() -> Line {
    Line::Token("01".into())
}

fn activated(key: u32, overlap_until: i64, emergency: bool) -> Event {
    Event::KeyActivated(KeyActivated {
        key,
        overlap_until: to_generalized_time(at(overlap_until)),
        emergency,
        reason: "rotation".into(),
        initiated_by: "ops".into(),
        notes: String::new(),
    })
}

fn revocation(key: u32, second: i64) -> StoredRecord {
    let revocation = Revocation {
        version: record::VERSION,
        signer: "s".into(),
        key,
        time: to_generalized_time(at(second)),
        reason: "compromised".into(),
        actor: "a".into(),
        initiated_by: "b".into(),
        compromised_at: None,
    };
    StoredRecord { label: revocation.label(), value: revocation.to_bytes() }
}

fn stored(record: &Record) -> StoredRecord {
    StoredRecord { label: record.label(), value: record.to_bytes() }
}

fn fold(records: &[StoredRecord]) -> Result<Standing, LedgerError> {
    Standing::fold(&signer(), records.iter().cloned())
}

/// A ledger of these events, one a second from second 0.
fn ledger_of(events: Vec<Event>) -> Vec<StoredRecord> {
    let mut records = Vec::new();
    for (second, event) in events.into_iter().enumerate() {
        let record = fold(&records).unwrap().next_record(event, 1, "a", at(i64::try_from(second).unwrap()));
        records.push(stored(&record));
    }
    records
}

fn ledger() -> Vec<StoredRecord> {
    ledger_of(vec![generated(1), activated(1, 0, false)])
}

/// Key 1 replaced by key 2 at second 3, overlap until second 100.
fn rotated() -> Vec<StoredRecord> {
    ledger_of(vec![generated(1), activated(1, 0, false), generated(2), activated(2, 100, false)])
}

fn states(standing: &Standing, second: i64) -> Vec<KeyState> {
    standing.keys().map(|key| key.state(at(second))).collect()
}

#[test]
fn records_survive_encoding() {
    for record in rotated() {
        assert_eq!(Record::from_bytes(&record.value).unwrap().to_bytes(), record.value);
    }
}

#[test]
fn the_fold_does_not_depend_on_the_order_of_reading() {
    let backward: Vec<_> = rotated().into_iter().rev().collect();
    assert_eq!(fold(&rotated()).unwrap(), fold(&backward).unwrap());
}

#[test]
fn a_key_past_its_end_date_is_expired_without_any_timer() {
    let standing = fold(&ledger()).unwrap();
    assert_eq!(states(&standing, 999), [KeyState::Active]);
    assert_eq!(states(&standing, 1000), [KeyState::Expired]);
}

#[test]
fn an_overlap_ends_at_its_deadline_without_any_timer() {
    let standing = fold(&rotated()).unwrap();
    assert_eq!(states(&standing, 99), [KeyState::Rotating, KeyState::Active]);
    assert_eq!(standing.rotation(2).unwrap().status(at(99)), RotationStatus::InProgress);
    assert_eq!(states(&standing, 100), [KeyState::Retired, KeyState::Active]);
    assert_eq!(standing.rotation(2).unwrap().status(at(100)), RotationStatus::OverlapEnded);
}

#[test]
fn a_forced_completion_retires_at_once_and_a_cancellation_goes_back() {
    let mut completed = rotated();
    let event = Event::RotationCompleted(RotationCompleted { key: 2, forced: true });
    completed.push(stored(&fold(&completed).unwrap().next_record(event, 1, "a", at(5))));
    assert_eq!(states(&fold(&completed).unwrap(), 6), [KeyState::Retired, KeyState::Active]);

    let mut cancelled = rotated();
    let event = Event::RotationCancelled(RotationCancelled { key: 2 });
    cancelled.push(stored(&fold(&cancelled).unwrap().next_record(event, 1, "a", at(5))));
    let standing = fold(&cancelled).unwrap();
    assert_eq!(states(&standing, 6), [KeyState::Active, KeyState::Retired]);
    assert_eq!(standing.active(&Line::Signer).unwrap().id.sequence, 1);
}

#[test]
fn an_emergency_leaves_only_the_new_key_in_use() {
    let mut records = rotated();
    for event in [generated(3), activated(3, 5, true)] {
        records.push(stored(&fold(&records).unwrap().next_record(event, 1, "a", at(5))));
    }
    assert_eq!(states(&fold(&records).unwrap(), 6), [KeyState::Retired, KeyState::Retired, KeyState::Active]);
}

#[test]
fn a_revocation_counts_whatever_else_happens_and_the_earliest_counts() {
    let mut records = rotated();
    records.push(revocation(2, 50));
    records.push(revocation(2, 40));
    let standing = fold(&records).unwrap();
    assert_eq!(states(&standing, 60), [KeyState::Rotating, KeyState::Revoked]);
    assert_eq!(standing.active(&Line::Signer), None);
    assert_eq!(standing.key(&KeyId::parse("s:2").unwrap()).unwrap().revoked.as_ref().unwrap().at, at(40));
    assert_eq!(fold(&[revocation(1, 1)]), Err(LedgerError::RevokedUnknown { key: 1 }));
}

#[test]
fn a_missing_damaged_or_altered_record_is_an_error() {
    let mut records = ledger();
    assert!(matches!(fold(&records[1..]), Err(LedgerError::Gap { sequence: 1 })));
    records[0].value.truncate(20);
    assert!(matches!(fold(&records), Err(LedgerError::Unreadable { .. })));
    for byte in 0..ledger()[0].value.len() {
        let mut records = ledger();
        records[0].value[byte] ^= 1;
        // A changed signer name makes the record another signer's, which leaves a gap here.
        assert!(fold(&records).is_err(), "byte {byte}");
    }
}

#[test]
fn of_two_records_with_one_sequence_the_higher_fence_counts_for_every_reader() {
    let slept = stored(&Standing::empty(signer()).next_record(generated(1), 5, "slept", at(0)));
    let successor = stored(&Standing::empty(signer()).next_record(generated(1), 6, "successor", at(0)));
    let next = stored(&fold(std::slice::from_ref(&successor)).unwrap().next_record(
        activated(1, 0, false),
        6,
        "successor",
        at(1),
    ));
    let before = fold(&[successor.clone(), next.clone()]).unwrap();
    let after = fold(&[slept, successor, next]).unwrap();
    assert_eq!(before.head(), after.head());
    assert_eq!(after.superseded().len(), 1);
}

#[test]
fn what_the_rules_forbid_contradicts_the_ledger() {
    let standing = fold(&ledger()).unwrap();
    for event in [
        activated(1, 0, false),
        activated(9, 0, false),
        generated(1),
        generated(3),
        Event::RotationCompleted(RotationCompleted { key: 1, forced: false }),
        Event::RotationCancelled(RotationCancelled { key: 1 }),
        Event::KeyDestroyed(KeyDestroyed { key: 7 }),
    ] {
        let mut records = ledger();
        records.push(stored(&standing.next_record(event, 1, "x", at(2))));
        assert!(matches!(fold(&records), Err(LedgerError::Contradiction { .. })));
    }
}

#[test]
fn each_line_has_its_own_active_key_and_what_is_done_in_one_is_nothing_to_the_other() {
    let mut records = ledger_of(vec![generated(1), activated(1, 0, false), generated_own(2), activated(2, 0, false)]);
    let standing = fold(&records).unwrap();
    let active = |standing: &Standing, line: &Line| standing.active(line).map(|key| key.id.sequence);
    assert_eq!((active(&standing, &Line::Signer), active(&standing, &own())), (Some(1), Some(2)));
    assert_eq!(states(&standing, 5), [KeyState::Active, KeyState::Active]);
    // The first key of a line follows no other.
    assert_eq!(standing.rotations().count(), 0);
    for event in [generated_own(3), activated(3, 100, false)] {
        records.push(stored(&fold(&records).unwrap().next_record(event, 1, "a", at(5))));
    }
    assert_eq!(states(&fold(&records).unwrap(), 6), [KeyState::Active, KeyState::Rotating, KeyState::Active]);
    let standing = fold(&records).unwrap();
    assert!(standing.rotation_in_progress(&own(), at(6)).is_some());
    assert!(standing.rotation_in_progress(&Line::Signer, at(6)).is_none());
    // An emergency in one line ends no overlap of the other.
    let mut emergency = records.clone();
    for event in [generated(4), activated(4, 6, true)] {
        emergency.push(stored(&fold(&emergency).unwrap().next_record(event, 1, "a", at(6))));
    }
    let after = [KeyState::Retired, KeyState::Rotating, KeyState::Active, KeyState::Active];
    assert_eq!(states(&fold(&emergency).unwrap(), 7), after);
    // Nor does a cancellation go back to a key of the other.
    let event = Event::RotationCancelled(RotationCancelled { key: 3 });
    records.push(stored(&fold(&records).unwrap().next_record(event, 1, "a", at(7))));
    let standing = fold(&records).unwrap();
    assert_eq!((active(&standing, &Line::Signer), active(&standing, &own())), (Some(1), Some(2)));
    records.push(revocation(2, 8));
    let standing = fold(&records).unwrap();
    assert_eq!((active(&standing, &Line::Signer), active(&standing, &own())), (Some(1), None));
    assert_eq!(standing.line_of("01"), own());
    assert_eq!(standing.line_of("02"), Line::Signer);
}

/// A signer's keys move with it: to a copy, or to a restored token with another serial.
#[test]
fn the_signer_s_line_goes_on_whatever_token_its_keys_are_made_on() {
    let Event::KeyGenerated(moved) = generated(2) else { unreachable!() };
    let moved = Event::KeyGenerated(KeyGenerated { token_serial: "02".into(), ..moved });
    let records = ledger_of(vec![generated(1), activated(1, 0, false), moved, activated(2, 100, false)]);
    assert_eq!(states(&fold(&records).unwrap(), 5), [KeyState::Rotating, KeyState::Active]);
}

/// What was written before there were lines is read, and what has none is written as it was.
#[test]
fn a_record_without_an_own_line_is_the_same_bytes_as_before_there_were_any() {
    let plain = stored(&Standing::empty(signer()).next_record(generated(1), 1, "a", at(0)));
    let own = stored(&Standing::empty(signer()).next_record(generated_own(1), 1, "a", at(0)));
    assert_eq!(plain.value.len() + 3, own.value.len());
    assert_eq!(Record::from_bytes(&own.value).unwrap().to_bytes(), own.value);
}

/// One step of a random history: an event on any key, or a revocation.
#[derive(Clone, Debug)]
enum Step {
    Chain(Box<Event>),
    Revoke(u32),
}

fn step() -> impl Strategy<Value = Step> {
    let key = 1u32..6;
    prop_oneof![
        2 => key.clone().prop_map(|key| Step::Chain(Box::new(generated(key)))),
        2 => key.clone().prop_map(|key| Step::Chain(Box::new(generated_own(key)))),
        3 => (key.clone(), 0i64..300, any::<bool>()).prop_map(|(key, until, emergency)| Step::Chain(Box::new(activated(key, until, emergency)))),
        1 => (key.clone(), any::<bool>()).prop_map(|(key, forced)| Step::Chain(Box::new(Event::RotationCompleted(RotationCompleted { key, forced })))),
        1 => key.clone().prop_map(|key| Step::Chain(Box::new(Event::RotationCancelled(RotationCancelled { key })))),
        1 => key.clone().prop_map(|key| Step::Chain(Box::new(Event::KeyDestroyed(KeyDestroyed { key })))),
        1 => key.prop_map(Step::Revoke),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    /// Whatever is tried in whatever order: what the rules refuse leaves no trace, at most one key
    /// of a line is active at any time, nothing leads out of revoked, retired or destroyed, and every prefix
    /// of the ledger is a legal state.
    #[test]
    fn no_history_breaks_the_rules(steps in proptest::collection::vec(step(), 0..40)) {
        let mut records: Vec<StoredRecord> = Vec::new();
        for (second, step) in steps.into_iter().enumerate() {
            let second = i64::try_from(second).unwrap() * 5;
            let before = fold(&records).unwrap();
            records.push(match step {
                Step::Chain(event) => stored(&before.next_record(*event, 1, "a", at(second))),
                Step::Revoke(key) => revocation(key, second),
            });
            let Ok(after) = fold(&records) else {
                records.pop();
                continue;
            };
            for now in [second, second + 50, second + 500, 2000] {
                for line in [Line::Signer, own()] {
                    let of_line = after.keys().filter(|key| key.line == line);
                    prop_assert!(of_line.filter(|key| key.state(at(now)) == KeyState::Active).count() <= 1);
                }
                for (old, new) in before.keys().zip(after.keys()) {
                    let (was, is) = (old.state(at(second)), new.state(at(now.max(second))));
                    if was == KeyState::Revoked {
                        prop_assert_eq!(is, KeyState::Revoked);
                    }
                    if was == KeyState::Retired {
                        prop_assert!(matches!(is, KeyState::Retired | KeyState::Revoked));
                    }
                    prop_assert!(old.destroyed_at.is_none() || new.destroyed_at.is_some());
                    if new.destroyed_at.is_some() {
                        prop_assert!(after.actives().all(|active| active.id != new.id));
                    }
                }
            }
            for active in after.actives() {
                prop_assert!(matches!(active.state(at(second)), KeyState::Active | KeyState::Expired));
            }
        }
        for length in 0..records.len() {
            // Revocations may stand before the record of their key in this list: order is no matter.
            let prefix = &records[..length];
            prop_assert!(fold(prefix).is_ok());
        }
    }
}
