//! What every nonce store must do, run against each adapter.

use std::{sync::Arc, time::Duration};

use super::{Answer, Bound, Claim, Config, Error, Order, Refusal, Removed, Spend, Store, Use};
use crate::{
    attestation::{AttestationType, Issuer, Text},
    client::ClientIdentity,
    evidence::Permitted,
    nonce_value::NonceValue,
    timestamp::Timestamp,
};

pub(super) struct Permit;
impl Permitted for Permit {}

pub(super) const PATIENCE: Duration = Duration::from_secs(30);

pub(super) fn now() -> Timestamp {
    Timestamp::parse("2026-11-23T10:00:00Z").unwrap()
}

pub(super) fn order() -> Order {
    Order {
        charges: Vec::new(),
        issuer: "alice".into(),
        attestation_type: AttestationType::EmailVerification,
        subject_address: Some("virtengine1abc".into()),
        window: Duration::from_secs(3600),
    }
}

pub(super) fn use_() -> Use {
    Use {
        issuer: "alice".into(),
        attestation_type: AttestationType::EmailVerification,
        subject_address: "virtengine1abc".into(),
        timestamp: now(),
        timestamp_stated: false,
        content_digest: [1; 32],
    }
}

pub(super) fn answer() -> Answer {
    Answer {
        key_id: "s:1".into(),
        issuer: Issuer {
            id: Text::new("i").unwrap(),
            key_fingerprint: Text::new("f").unwrap(),
            key_id: Text::default(),
            validator_address: Text::default(),
            service_endpoint: Text::default(),
        },
        issued_at: now(),
        expires_at: now(),
        created: now(),
        signature: "AA==".into(),
        audit_sequence: 9,
        merkle: None,
    }
}

pub(super) async fn one(store: &dyn Store) -> NonceValue {
    store.issue(&order(), 1, now()).await.unwrap().remove(0).nonce
}

async fn refusal(store: &dyn Store, nonce: &NonceValue, use_: Use, at: Timestamp) -> Refusal {
    match store.spend(Claim::new(&Permit, nonce.clone(), use_), PATIENCE, at).await {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

async fn fresh(store: &dyn Store, nonce: &NonceValue) -> super::Spent {
    match store.spend(Claim::new(&Permit, nonce.clone(), use_()), PATIENCE, now()).await.unwrap() {
        Spend::Fresh(spent) => spent,
        Spend::Repeated(_) => panic!("nothing was settled"),
    }
}

pub(super) async fn a_spent_nonce_answers_its_retry_and_refuses_everything_else(store: Arc<dyn Store>) {
    let nonce = one(&*store).await;
    let spent = fresh(&*store, &nonce).await;
    store.settle(spent, &answer()).await.unwrap();
    match store.spend(Claim::new(&Permit, nonce.clone(), use_()), PATIENCE, now()).await.unwrap() {
        Spend::Repeated(repeated) => assert_eq!(*repeated, answer()),
        Spend::Fresh(_) => panic!("spent twice"),
    }
    let other_content = Use { content_digest: [2; 32], ..use_() };
    assert_eq!(refusal(&*store, &nonce, other_content, now()).await, Refusal::AlreadyUsed);
    let other_client = Use { issuer: "mallory".into(), ..use_() };
    let replayed = store.spend(Claim::new(&Permit, nonce, other_client), PATIENCE, now()).await;
    assert!(matches!(&replayed, Err(Error::Replayed { spent_by }) if spent_by.as_str() == "alice"), "{replayed:?}");
}

pub(super) async fn a_nonce_that_was_never_issued_is_not_found(store: Arc<dyn Store>) {
    let unknown = NonceValue::from_bytes(&[7; 32]).unwrap();
    assert_eq!(refusal(&*store, &unknown, use_(), now()).await, Refusal::NotFound);
}

pub(super) async fn a_nonce_is_bound_to_its_order_and_its_window(store: Arc<dyn Store>) {
    let nonce = one(&*store).await;
    let skewed = |seconds| Use { timestamp: now().plus_seconds(seconds), ..use_() };
    for (use_, at, expected) in [
        (Use { issuer: ClientIdentity::from("mallory"), ..use_() }, now(), Refusal::IssuerMismatch),
        (Use { attestation_type: AttestationType::SmsVerification, ..use_() }, now(), Refusal::TypeMismatch),
        (Use { subject_address: "virtengine1xyz".into(), ..use_() }, now(), Refusal::SubjectMismatch),
        (skewed(-301), now(), Refusal::InvalidTimestamp),
        (skewed(301), now(), Refusal::InvalidTimestamp),
        (skewed(3600), now().plus_seconds(3600), Refusal::Expired),
    ] {
        assert_eq!(refusal(&*store, &nonce, use_, at).await, expected);
    }
    // None of the refusals above has spent it.
    fresh(&*store, &nonce).await;
}

pub(super) async fn after_a_known_failure_only_the_same_content_may_try_again(store: Arc<dyn Store>) {
    let nonce = one(&*store).await;
    let spent = fresh(&*store, &nonce).await;
    store.reopen(spent).await.unwrap();
    assert_eq!(refusal(&*store, &nonce, Use { content_digest: [2; 32], ..use_() }, now()).await, Refusal::AlreadyUsed);
    fresh(&*store, &nonce).await;
}

pub(super) async fn many_are_spent_settled_and_reopened_each_by_itself(store: Arc<dyn Store>) {
    let claim = |nonce: &NonceValue, use_| Claim::new(&Permit, nonce.clone(), use_);
    let issued = store.issue(&order(), 4, now()).await.unwrap();
    let [first, second, third, fourth] = [0, 1, 2, 3].map(|at| &issued[at].nonce);
    let (unknown, other) = (NonceValue::from_bytes(&[7; 32]).unwrap(), Use { issuer: "mallory".into(), ..use_() });
    let claims = vec![
        claim(first, use_()),
        claim(&unknown, use_()),
        claim(second, use_()),
        claim(third, other),
        claim(first, use_()),
        claim(fourth, use_()),
    ];
    let mut fresh = Vec::new();
    let mut told = |spend| match spend {
        Ok(Spend::Fresh(spent)) => {
            fresh.push(spent);
            "fresh"
        }
        Ok(Spend::Repeated(_)) => "repeated",
        Err(Error::InProgress) => "in progress",
        Err(Error::Refused(refusal)) => refusal.as_str(),
        Err(other) => panic!("{other:?}"),
    };
    let told: Vec<_> = store.spend_all(claims, now()).await.into_iter().map(&mut told).collect();
    assert_eq!(told, ["fresh", "not_found", "fresh", "issuer_mismatch", "in progress", "fresh"]);
    let (last, others) = (fresh.pop().unwrap(), fresh);
    let answers: Vec<_> = (1..).map(|audit_sequence| Answer { audit_sequence, ..answer() }).take(2).collect();
    assert!(store.settle_all(others.into_iter().zip(&answers).collect()).await.iter().all(Result::is_ok));
    assert!(store.reopen_all(vec![last]).await.iter().all(Result::is_ok));
    let again = [first, second, third, fourth].map(|nonce| claim(nonce, use_())).to_vec();
    let again = store.spend_all(again, now()).await;
    for (repeated, answer) in again.iter().zip(&answers) {
        assert!(matches!(repeated, Ok(Spend::Repeated(repeated)) if **repeated == *answer), "{repeated:?}");
    }
    assert!(again[2..].iter().all(|spend| matches!(spend, Ok(Spend::Fresh(_)))), "{again:?}");
    assert!(store.spend_all(Vec::new(), now()).await.is_empty());
}

pub(super) async fn of_many_concurrent_spends_one_is_fresh_and_all_get_its_answer(store: Arc<dyn Store>) {
    for _ in 0..20 {
        let nonce = one(&*store).await;
        let tasks: Vec<_> = (0..32)
            .map(|_| {
                let (store, nonce) = (Arc::clone(&store), nonce.clone());
                tokio::spawn(async move {
                    match store.spend(Claim::new(&Permit, nonce, use_()), PATIENCE, now()).await.unwrap() {
                        Spend::Fresh(spent) => {
                            tokio::task::yield_now().await;
                            store.settle(spent, &answer()).await.unwrap();
                            1
                        }
                        Spend::Repeated(repeated) => {
                            assert_eq!(*repeated, answer());
                            0
                        }
                    }
                })
            })
            .collect();
        let mut fresh = 0;
        for task in tasks {
            fresh += task.await.unwrap();
        }
        assert_eq!(fresh, 1);
    }
}

pub(super) async fn an_issuer_holds_no_more_than_its_share(store: Arc<dyn Store>) {
    // The suite makes its stores with a quota of 100.
    let full = || Order { issuer: "greedy".into(), ..order() };
    let held = store.issue(&full(), 100, now()).await.unwrap();
    assert!(matches!(store.issue(&full(), 1, now()).await, Err(Error::Full(Bound::Issuer))));
    // Another issuer is not affected, and a spent or expired nonce makes room.
    one(&*store).await;
    let use_ = Use { issuer: "greedy".into(), ..use_() };
    store.spend(Claim::new(&Permit, held[0].nonce.clone(), use_), PATIENCE, now()).await.unwrap();
    store.issue(&full(), 1, now()).await.unwrap();
}

pub(super) async fn the_counts_name_the_largest_issuers_first(store: Arc<dyn Store>) {
    for (issuer, count) in [("bob", 2), ("carol", 80), ("alice", 2)] {
        store.issue(&Order { issuer: issuer.into(), ..order() }, count, now()).await.unwrap();
    }
    let stats = store.stats().await.unwrap();
    assert_eq!(stats.per_issuer, [("carol".into(), 80), ("alice".into(), 2), ("bob".into(), 2)]);
    assert_eq!((stats.issuers, stats.size(), stats.capacity, stats.outstanding_per_issuer), (3, 84, 1000, 100));
    let near = |share: f64, expected: f64| (share - expected).abs() < 1e-9;
    assert!(near(stats.fill(), 0.084) && near(stats.fullest_issuer(), 0.8), "{stats:?}");
    let pinged = store.ping().await.unwrap();
    assert_eq!((pinged.per_issuer, pinged.issuers), (vec![("carol".into(), 80)], 3));
}

pub(super) async fn expired_nonces_are_forgotten_and_counted(store: Arc<dyn Store>) {
    let (nonce, used) = (one(&*store).await, one(&*store).await);
    fresh(&*store, &used).await;
    assert_eq!(store.stats().await.unwrap().outstanding, 1);
    assert_eq!(store.cleanup(now()).await.unwrap().total(), 0);
    let later = now().plus_seconds(3601);
    assert_eq!(store.cleanup(later).await.unwrap(), Removed { expired: 1, used: 1, batches: 1 });
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.outstanding, stats.spent, stats.expired_total), (0, 0, 1));
    assert_eq!(stats.last_cleanup, Some(later));
    assert_eq!(refusal(&*store, &nonce, use_(), now()).await, Refusal::NotFound);
}

/// The configuration that stores are made with for the suite.
pub(super) fn config() -> Config {
    Config { outstanding_per_issuer: 100, capacity: 1000, ..Config::default() }
}

macro_rules! suite {
    ($make:expr) => {
        $crate::nonce::contract::suite!(
            $make,
            a_spent_nonce_answers_its_retry_and_refuses_everything_else,
            a_nonce_that_was_never_issued_is_not_found,
            a_nonce_is_bound_to_its_order_and_its_window,
            after_a_known_failure_only_the_same_content_may_try_again,
            many_are_spent_settled_and_reopened_each_by_itself,
            of_many_concurrent_spends_one_is_fresh_and_all_get_its_answer,
            an_issuer_holds_no_more_than_its_share,
            the_counts_name_the_largest_issuers_first,
            expired_nonces_are_forgotten_and_counted
        );
    };
    ($make:expr, $($case:ident),*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                let make = $make;
                // What the store stands on lives until the case is over.
                let (store, _ground) = make($crate::nonce::contract::config()).await;
                $crate::nonce::contract::$case(std::sync::Arc::new(store)).await;
            }
        )*
    };
}
pub(super) use suite;
