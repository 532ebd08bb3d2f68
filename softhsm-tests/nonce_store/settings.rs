//! What Redis is set to, and what its clock says: shown, and heeded at run time.

use std::process::Command;

use serde_json::{Value, json};

use super::on_redis;
use crate::support::{
    appliance::{Appliance, BINARY},
    eventually,
    redis::RedisServer,
    shifted::ShiftedClock,
    signer::Signer,
};

/// The word on the nonce store in health.
fn dependency(appliance: &Appliance) -> Value {
    let health = appliance.get("/healthz").json();
    let all = health["dependencies"].as_array().unwrap().clone();
    all.into_iter().find(|dependency| dependency["name"] == "nonce_store").unwrap()
}

#[test]
fn stats_show_what_redis_says_of_itself_and_null_without_redis() {
    let redis = RedisServer::start(&["--maxmemory", "512mb"]);
    let signer = Signer::with("", &on_redis(&redis));
    signer.nonce();
    let stats = signer.get("/api/v1/nonce/stats").ok();
    assert_eq!((&stats["by_status"]["outstanding"], &stats["issuers"]), (&json!(1), &json!(1)), "{stats}");
    let said = &stats["redis"];
    assert_eq!((&said["eviction_policy"], &said["memory_limit_bytes"]), (&json!("noeviction"), &json!(512 << 20)));
    assert!(said["memory_used_bytes"].as_u64().unwrap() > 500_000 && said["memory_fill"].as_f64().unwrap() > 0.0);
    assert!(said["clock_ahead_seconds"].as_f64().unwrap().abs() < 1.0, "{said}");
    let in_process = Appliance::dev();
    let stats = in_process.get("/api/v1/nonce/stats").ok();
    assert_eq!((&stats["redis"], &stats["store"]), (&Value::Null, &json!("in-process")));
}

#[test]
fn a_policy_changed_to_evicting_ends_readiness_and_says_why_until_it_is_put_right() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &on_redis(&redis));
    assert_eq!((signer.get("/readyz").status, signer.get("/healthz").status), (200, 200));
    redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    let unready = eventually("readiness ends", || Some(signer.get("/readyz")).filter(|answer| answer.status == 503));
    let advice = "maxmemory-policy allkeys-lru): set `maxmemory-policy noeviction` in redis.conf";
    assert!(unready.json()["reasons"][0].as_str().unwrap().contains(advice), "{}", unready.text());
    assert_eq!(signer.get("/healthz").status, 503);
    assert!(dependency(&signer)["detail"].as_str().unwrap().contains(advice));
    let refused = eventually("no nonce is issued", || {
        let answer = signer.post("/api/v1/nonces", &json!({ "attestation_type": "email_verification" }));
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((refused.status, refused.problem()), (503, "nonce-store-unavailable".into()));
    assert_eq!(refused.header("retry-after"), "2");
    // What is wrong can still be seen.
    assert_eq!(signer.get("/api/v1/nonce/stats").ok()["redis"]["eviction_policy"], "allkeys-lru");
    eventually("it is on record", || {
        let records = signer.audit_events("health_check");
        records.iter().any(|record| record["details"]["concern"] == "nonce_store_unusable").then_some(())
    });
    redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    eventually("it is ready again", || (signer.get("/readyz").status == 200).then_some(()));
    signer.attest();
}

#[test]
fn a_clock_that_differs_is_measured_and_warned_about() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &on_redis(&redis));
    let detail = dependency(&signer)["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(", clock +0.0") || detail.contains(", clock -0.0"), "{detail}");
    assert_eq!(signer.get("/healthz").json()["warnings"], json!([]));
    // The same Redis to an appliance whose own clock is ten seconds ahead.
    let home = tempfile::tempdir().unwrap();
    let clock = ShiftedClock::new(home.path());
    let config = signer.token.config(home.path(), &on_redis(&redis));
    let mut command = Command::new(BINARY);
    command.args(["serve", "--config"]).arg(&config).envs(signer.token.environment());
    clock.govern(&mut command);
    clock.seconds(10);
    let ahead = Appliance::start(command, home.path()).unwrap_or_else(|(status, log)| panic!("{status}: {log}"));
    let health = ahead.get("/healthz");
    let warnings = health.json()["warnings"].to_string();
    assert!(health.status == 200 && warnings.contains("the clock of Redis is 10.0 s behind"), "{warnings}");
    let measured: f64 = ahead.metric("virtengine_verification_nonce_store_clock_ahead_seconds").parse().unwrap();
    assert!((measured + 10.0).abs() < 1.0, "{measured}");
    eventually("it is on record", || {
        let records = ahead.audit_events("health_check");
        records.iter().any(|record| record["details"]["concern"] == "nonce_store_clock_differs").then_some(())
    });
}
