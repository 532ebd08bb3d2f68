//! Charges: buckets in Redis are those of the process, and nothing is spent where one is empty.
//!
//! Each of these was seen to fail with the line it is about taken out: `charge.lua`: the refusal, the
//! keeping, the life of a bucket; `spend.lua` and `issue.lua`: the charge, before the first write.

use super::*;
use crate::quota::{Charge, Principal, Quota, Window};

const HOUR: Duration = Duration::from_secs(3600);

fn charge(subject: &str, window: Window, burst: u32, count: u32) -> Charge {
    let principal = Principal::Subject(subject.into());
    Charge { principal, limit: "email", window, quota: Quota::per(burst, HOUR), count }
}

async fn spend_charged(store: &RedisStore, nonce: &NonceValue, charges: Vec<Charge>) -> Result<Spend, Error> {
    let claim = Claim::new(&Permit, nonce.clone(), use_()).charged(charges);
    store.spend(claim, Duration::ZERO, now()).await
}

fn is_limited(result: Result<Spend, Error>) -> bool {
    match result {
        Ok(_) => false,
        Err(Error::Limited(_)) => true,
        Err(other) => panic!("{other}"),
    }
}

#[tokio::test]
async fn a_bucket_gives_its_burst_whoever_takes() {
    let server = RedisServer::start(&[]);
    let (one_store, other) = (store(&server.url()).await, store(&server.url()).await);
    for number in 0..4 {
        let store = if number % 2 == 0 { &one_store } else { &other };
        let nonce = one(store).await;
        let charges = || vec![charge("a", Window::Hour, 3, 1), charge("a", Window::Day, 100, 1)];
        assert_eq!(is_limited(spend_charged(store, &nonce, charges()).await), number == 3, "{number}");
        // Who was refused has spent nothing: with something to pay from, it can.
        if number == 3 {
            let Err(Error::Limited(exceeded)) = spend_charged(store, &nonce, charges()).await else { panic!() };
            assert_eq!(exceeded.charge, charge("a", Window::Hour, 3, 1));
            assert!((1190..=1200).contains(&exceeded.retry_after_seconds()), "{exceeded:?}");
            fresh(store, &nonce).await;
        }
    }
    let life: i64 = server.command(&["PTTL", "virtengine:veid:{veid-signer-1}:limit:subject:a"]);
    assert!((1..=3_600_000).contains(&life), "a full bucket is forgotten: {life}");
}

#[tokio::test]
async fn what_is_reopened_is_not_charged_again() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    for _ in 0..5 {
        let Spend::Fresh(spent) = spend_charged(&store, &nonce, vec![charge("a", Window::Hour, 1, 1)]).await.unwrap()
        else {
            panic!()
        };
        store.reopen(spent).await.unwrap();
    }
    let other = one(&store).await;
    assert!(is_limited(spend_charged(&store, &other, vec![charge("a", Window::Hour, 1, 1)]).await));
}

#[tokio::test]
async fn a_retry_is_not_charged_and_an_order_is() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    let charges = || vec![charge("a", Window::Hour, 1, 1)];
    let Spend::Fresh(spent) = spend_charged(&store, &nonce, charges()).await.unwrap() else { panic!() };
    store.settle(spent, &answer()).await.unwrap();
    assert!(matches!(spend_charged(&store, &nonce, charges()).await, Ok(Spend::Repeated(_))));

    let order = |count| Order { charges: vec![charge("b", Window::Hour, 5, count)], ..contract::order() };
    store.issue(&order(4), 4, now()).await.unwrap();
    assert!(matches!(store.issue(&order(2), 2, now()).await, Err(Error::Limited(_))));
    assert_eq!(store.stats().await.unwrap().outstanding, 4);
    store.issue(&order(1), 1, now()).await.unwrap();
}
