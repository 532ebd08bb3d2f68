//! Nonces that clients bring, where the configuration allows them.

use serde_json::{Value, json};

use super::on_redis;
use crate::support::{
    appliance::{Answer, Appliance, attestation_request},
    eventually,
    redis::RedisServer,
    sentinels::Sentinels,
    signer::Signer,
    site::Site,
};

const ACCEPTED: &str = "[nonce]\naccept_client_nonces = true\n";

/// A request with a nonce of the client's own, made now.
fn request() -> Value {
    let mut request = attestation_request(&hex::encode(uuid::Uuid::now_v7().into_bytes()));
    let now = time::OffsetDateTime::now_utc().format(&time::format_description::well_known::Rfc3339).unwrap();
    request["issued_at"] = json!(now);
    request
}

fn bring(appliance: &Appliance, request: &Value) -> Answer {
    appliance.post("/api/v1/attestations", request)
}

/// New requests until one is accepted; that one, and its attestation.
fn accepted(appliance: &Appliance) -> (Value, String) {
    eventually("a nonce of the client's own is accepted", || {
        let request = request();
        let answer = bring(appliance, &request);
        assert!([200, 409, 503].contains(&answer.status), "{} {}", answer.status, answer.text());
        (answer.status == 200).then(|| (request, answer.text()))
    })
}

/// The same request gets its attestation, and nothing else is signed for its nonce.
fn is_spent(appliance: &Appliance, (request, attestation): &(Value, String)) {
    assert_eq!(bring(appliance, request).text(), *attestation);
    for (field, value) in [("score", json!(1)), ("issued_at", self::request()["issued_at"].clone())] {
        let mut other = request.clone();
        other[field] = value;
        let refused = bring(appliance, &other);
        assert_eq!((refused.status, refused.problem()), (409, "nonce-already-used".into()));
    }
}

fn refusals(appliance: &Appliance) {
    let with = |field: &str, value: Value| {
        let mut request = request();
        request[field] = value;
        bring(appliance, &request).problem()
    };
    assert_eq!(with("issued_at", Value::Null), "nonce-invalid-timestamp");
    assert_eq!(with("issued_at", json!("2999-01-01T00:00:00Z")), "nonce-invalid-timestamp");
    assert_eq!(with("issued_at", json!("2020-01-01T00:00:00Z")), "nonce-expired");
    // The form of issued nonces: one that was forgotten is not one that the client made.
    assert_eq!(with("nonce", json!(format!("{}76656964", "ab".repeat(28)))), "nonce-not-found");
}

#[test]
fn by_default_they_are_unknown() {
    let appliance = Appliance::dev();
    let refused = bring(&appliance, &request());
    assert_eq!((refused.status, refused.problem()), (422, "nonce-not-found".into()));
    assert_eq!(appliance.get("/api/v1/signer").ok()["policy"]["nonce"]["client_nonces"], Value::Null);
}

#[test]
fn in_the_process_they_are_spent_once_and_a_restart_sets_a_floor() {
    let mut signer = Signer::with("", &format!("{ACCEPTED}[fleet]\nsingle = true"));
    let taken = accepted(&signer);
    is_spent(&signer, &taken);
    refusals(&signer);
    signer.attest();
    let rules = signer.get("/api/v1/signer").ok()["policy"]["nonce"]["client_nonces"].clone();
    assert_eq!(rules, json!({ "window_seconds": 120 }));
    signer.restart();
    for _ in 0..3 {
        let refused = bring(&signer, &taken.0);
        assert_eq!((refused.status, refused.problem()), (409, "nonce-store-failover".into()));
    }
    accepted(&signer);
    assert_eq!(bring(&signer, &taken.0).problem(), "nonce-store-failover");
}

#[test]
fn in_redis_they_are_spent_once_through_a_failover() {
    let mut group = Sentinels::watching(3);
    let signer = Signer::with("", &format!("{ACCEPTED}{}", group.table()));
    let second = signer.second_with(&format!("{ACCEPTED}{}", group.table()));
    let taken: Vec<_> = (0..10).map(|_| accepted(&signer)).collect();
    accepted(&second);
    for taken in &taken {
        is_spent(&second, taken);
    }
    refusals(&signer);
    let master = group.settle();
    group.servers[master].kill();
    group.await_master(|index| index != master);
    let spent_nowhere = |appliance: &Appliance| {
        for (request, attestation) in &taken {
            let mut other = request.clone();
            other["score"] = json!(1);
            assert_ne!(bring(appliance, &other).status, 200);
            let repeated = bring(appliance, request);
            assert!(repeated.status != 200 || repeated.text() == *attestation, "{}", repeated.text());
        }
    };
    eventually("fetched nonces are back", || {
        let order = json!({ "attestation_type": "email_verification" });
        (signer.post("/api/v1/nonces", &order).status == 200).then_some(())
    });
    signer.attest();
    for appliance in [&*signer, &second] {
        spent_nowhere(appliance);
        accepted(appliance);
        spent_nowhere(appliance);
    }
    // With two of three servers gone nothing a client brings is taken; what was issued here still is.
    let left = group.settle_without(&[master]);
    let other = (0..3).find(|index| ![left, master].contains(index)).unwrap();
    group.servers[other].kill();
    eventually("health says so", || {
        let health = signer.get("/healthz");
        (health.status == 200 && health.text().contains("nonces brought by clients are refused for now")).then_some(())
    });
    let refused = bring(&signer, &request());
    assert_eq!((refused.status, refused.problem()), (503, "nonce-store-unavailable".into()));
    signer.attest();
}

#[test]
fn a_redis_without_replicas_or_a_cluster_is_refused_at_the_start() {
    let redis = RedisServer::start(&[]);
    let site = Site::with_key();
    let with = |tables: &str| {
        let config = site.token.config(site.home.path(), &format!("{ACCEPTED}{tables}"));
        site.serve_with(&config).map(|_| ()).unwrap_err()
    };
    with(&on_redis(&redis)).with(69, "replicas must confirm");
    with("[redis]\ncluster = { urls = [\"redis://127.0.0.1:7000\"] }\n").with(78, "redis.cluster");
}
