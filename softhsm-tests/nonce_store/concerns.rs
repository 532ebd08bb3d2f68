//! A store that fills up: a word from 80 % on, a refusal at the bound, which names the bound.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::on_redis;
use crate::support::{
    appliance::{Answer, Appliance, attestation_request},
    eventually,
    redis::RedisServer,
    signer::Signer,
    tool,
};

const LIMITS: &str = "[nonce]\noutstanding_per_issuer = 10\ncapacity = 20\n";

fn issue(appliance: &Appliance, count: usize) -> Answer {
    appliance.post("/api/v1/nonces/batch", &json!({ "attestation_type": "email_verification", "count": count }))
}

/// As another client.
fn issue_to(address: &str, appliance: &Appliance, count: usize) -> Value {
    let body = json!({ "attestation_type": "email_verification", "count": count }).to_string();
    let url = format!("{}/api/v1/nonces/batch", appliance.api);
    let json_header = "content-type: application/json";
    let arguments = ["--silent", "--interface", address, "--header", json_header, "--data", &body, &url];
    serde_json::from_str(&tool::run("curl", &arguments, &[])).unwrap()
}

fn warnings(appliance: &Appliance) -> String {
    appliance.get("/healthz").json()["warnings"].to_string()
}

/// How often this was put on record.
fn recorded(appliance: &Appliance, concern: &str) -> usize {
    let records = appliance.audit_events("health_check");
    records.iter().filter(|record| record["details"]["concern"] == concern).count()
}

fn fills_up(appliance: &Appliance) {
    let held = issue(appliance, 7).ok();
    assert_eq!(warnings(appliance), "[]");
    issue(appliance, 1).ok();
    let of_issuer = "anonymous@127.0.0.1 holds 8 of the 10 unspent nonces";
    eventually("the warning of the issuer", || warnings(appliance).contains(of_issuer).then_some(()));
    assert!(!warnings(appliance).contains("nonce store is"), "{}", warnings(appliance));
    assert_eq!(appliance.metric("virtengine_verification_nonce_store_fill{of=\"largest_issuer\"}"), "0.8");

    let too_many = issue(appliance, 3);
    assert_eq!((too_many.status, too_many.problem()), (429, "nonce-store-full".into()));
    assert_eq!(too_many.header("retry-after"), "30");
    assert!(too_many.text().contains("outstanding_per_issuer"), "{}", too_many.text());

    assert_eq!(issue_to("127.0.0.2", appliance, 8).as_array().unwrap().len(), 8);
    eventually("the warning of the store", || warnings(appliance).contains("nonce store is 80 % full").then_some(()));
    assert_eq!(appliance.metric("virtengine_verification_nonce_store_fill{of=\"capacity\"}"), "0.8");
    assert_eq!(appliance.get("/healthz").json()["status"], "warning");
    assert_eq!(issue_to("127.0.0.3", appliance, 4).as_array().unwrap().len(), 4);
    let refusal = issue_to("127.0.0.4", appliance, 1);
    assert_eq!((&refusal["type"], &refusal["status"]), (&json!("/problems/nonce-store-full"), &json!(429)));
    assert!(refusal["detail"].as_str().unwrap().contains("as a whole"), "{refusal}");

    // Each is said once, however often anybody looks.
    for concern in ["nonce_store_nearly_full", "nonce_issuer_nearly_full"] {
        eventually(concern, || (recorded(appliance, concern) > 0).then_some(()));
    }
    // What is spent keeps its place in the store until its window ends, but is held by nobody.
    for nonce in held.as_array().unwrap() {
        appliance.post("/api/v1/attestations", &attestation_request(nonce["nonce"].as_str().unwrap())).ok();
    }
    assert!(warnings(appliance).contains("nonce store is 100 % full"), "{}", warnings(appliance));
    // The watch looks every two seconds: twice more.
    let begun = Instant::now();
    eventually("two rounds of the watch", || (begun.elapsed() > Duration::from_secs(5)).then_some(()));
    let said = |text: &str| appliance.log().matches(text).count();
    assert_eq!(said("\"level\":\"WARN\",\"message\":\"the nonce store is "), 1, "{}", appliance.log());
    assert_eq!(recorded(appliance, "nonce_store_nearly_full"), 1);
    assert_eq!(recorded(appliance, "nonce_issuer_nearly_full"), 1);
    assert_eq!(appliance.metric("virtengine_verification_nonce_rejected_total{reason=\"store_full\"}"), "2");
}

#[test]
fn a_store_in_redis_that_fills_up_warns_and_then_refuses() {
    let redis = RedisServer::start(&[]);
    fills_up(&Signer::with("", &format!("{LIMITS}{}", on_redis(&redis))));
}

#[test]
fn a_store_in_the_process_that_fills_up_warns_and_then_refuses() {
    fills_up(&Signer::with("", &format!("{LIMITS}[fleet]\nsingle = true")));
}

#[test]
fn what_was_warned_about_and_has_passed_is_warned_about_again() {
    let signer = Signer::with("", &format!("{LIMITS}[fleet]\nsingle = true"));
    for round in 1..=2 {
        let held = issue(&signer, 8).ok();
        eventually("the warning", || (recorded(&signer, "nonce_issuer_nearly_full") == round).then_some(()));
        for nonce in held.as_array().unwrap() {
            signer.post("/api/v1/attestations", &attestation_request(nonce["nonce"].as_str().unwrap())).ok();
        }
        eventually("its end", || (signer.log().matches("\"message\":\"over\"").count() >= round).then_some(()));
    }
}

#[test]
fn redis_near_its_memory_limit_is_warned_about_and_refuses_at_it() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &on_redis(&redis));
    let kept = signer.nonce();
    let used: u64 = redis.info("memory", "used_memory").parse().unwrap();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", &(used * 10 / 9).to_string()]);
    eventually("the warning", || warnings(&signer).contains("Redis uses ").then_some(()));
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    let refused = issue(&signer, 1);
    assert_eq!((refused.status, refused.problem()), (429, "nonce-store-full".into()));
    assert!(refused.text().contains("out of memory"), "{}", refused.text());
    // What was issued is still good.
    signer.post("/api/v1/attestations", &attestation_request(&kept)).ok();
    redis.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    signer.attest();
}
