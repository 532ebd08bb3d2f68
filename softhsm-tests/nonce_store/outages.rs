//! Redis stopped, stalled, out of memory, cleared: what clients are told, and that all is well again
//! without a restart, with nothing lost that was acknowledged.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::on_redis;
use crate::support::{
    appliance::{Answer, Appliance, attestation_request},
    eventually,
    redis::RedisServer,
    signer::Signer,
};

/// In a hurry, so that the test need not wait for it.
fn hasty(redis: &RedisServer) -> String {
    on_redis(redis).replace("3s", "300ms")
}

fn sign(appliance: &Appliance, request: &Value) -> Answer {
    appliance.post("/api/v1/attestations", request)
}

fn order(appliance: &Appliance) -> Answer {
    appliance.post("/api/v1/nonces", &json!({ "attestation_type": "email_verification" }))
}

/// While Redis does not answer.
fn is_away(appliance: &Appliance, request: &Value) {
    for answer in [order(appliance), sign(appliance, request)] {
        assert_eq!((answer.status, answer.problem()), (503, "nonce-store-unavailable".into()));
        assert_eq!(answer.header("retry-after"), "2");
    }
    let unready = appliance.get("/readyz");
    assert_eq!(unready.status, 503);
    assert!(unready.text().contains("the nonce store does not answer"), "{}", unready.text());
    // What needs no nonce goes on.
    assert_eq!(appliance.get("/livez").status, 200);
    assert_eq!(appliance.post_empty("/api/v1/sign/test").status, 200);
    assert_eq!(appliance.get("/api/v1/keys/active").status, 200);
}

/// Afterwards, without a restart.
fn is_back(appliance: &Appliance) {
    eventually("it is ready again", || (appliance.get("/readyz").status == 200).then_some(()));
    eventually("it signs again", || (appliance.try_attest_softly() == 200).then_some(()));
}

impl Appliance {
    /// The status of an attempt from nonce to attestation.
    fn try_attest_softly(&self) -> u16 {
        let ordered = order(self);
        if ordered.status != 200 {
            return ordered.status;
        }
        sign(self, &attestation_request(ordered.json()["nonce"].as_str().unwrap())).status
    }
}

#[test]
fn a_redis_that_stops_is_503_and_what_was_acknowledged_is_there_when_it_comes_back() {
    let mut redis = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let signer = Signer::with("", &hasty(&redis));
    let (spent, unspent) = (attestation_request(&signer.nonce()), attestation_request(&signer.nonce()));
    let first = sign(&signer, &spent);
    assert_eq!(first.status, 200);
    redis.kill();
    is_away(&signer, &unspent);
    redis.start_again();
    is_back(&signer);
    // The attestation that was acknowledged is still answered; nothing else is signed for its nonce.
    let again = sign(&signer, &spent);
    assert_eq!((again.status, again.text()), (200, first.text()));
    let mut other = spent.clone();
    other["score"] = json!(1);
    assert_eq!(sign(&signer, &other).status, 409);
    // A restart may have lost the last writes, so what was outstanding is fetched anew.
    assert_eq!(sign(&signer, &unspent).problem(), "nonce-store-failover");
}

#[test]
fn a_redis_that_stalls_is_503_in_time_and_loses_nothing() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &hasty(&redis));
    let (spent, unspent) = (attestation_request(&signer.nonce()), attestation_request(&signer.nonce()));
    let first = sign(&signer, &spent);
    redis.freeze();
    let begun = Instant::now();
    is_away(&signer, &unspent);
    // Two calls of three command timeouts each, health, and some time for a busy machine.
    assert!(begun.elapsed() < Duration::from_secs(6), "{:?}", begun.elapsed());
    redis.thaw();
    is_back(&signer);
    assert_eq!(sign(&signer, &spent).text(), first.text());
    // The stalled spend was carried out after all, told to nobody and given up: the same request is signed.
    eventually("the nonce is good again", || (sign(&signer, &unspent).status == 200).then_some(()));
    assert_eq!(signer.audit_events("attestation_signed").len(), 3);
}

#[test]
fn a_redis_out_of_memory_issues_nothing_and_still_spends() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &hasty(&redis));
    let (spent, unspent) = (attestation_request(&signer.nonce()), attestation_request(&signer.nonce()));
    let first = sign(&signer, &spent);
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = order(&signer);
    assert_eq!((refused.status, refused.problem()), (429, "nonce-store-full".into()));
    assert!(!refused.header("retry-after").is_empty());
    assert_eq!(sign(&signer, &unspent).status, 200);
    assert_eq!(sign(&signer, &spent).text(), first.text());
    assert_eq!(signer.get("/readyz").status, 200);
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    is_back(&signer);
}

#[test]
fn a_redis_that_was_flushed_costs_clients_a_new_nonce_and_nothing_else() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &hasty(&redis));
    let (spent, unspent) = (attestation_request(&signer.nonce()), attestation_request(&signer.nonce()));
    sign(&signer, &spent).ok();
    redis.command::<()>(&["FLUSHALL"]);
    for request in [&spent, &unspent] {
        let answer = sign(&signer, request);
        assert_eq!((answer.status, answer.problem()), (422, "nonce-not-found".into()));
    }
    is_back(&signer);
    // What was acknowledged is on record.
    assert_eq!(signer.audit_events("attestation_signed").len(), 2);
}
