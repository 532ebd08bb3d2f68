//! The nonce sections of the customer's runbook, command by command, as printed.

use std::process::Command;

use serde_json::{Value, json};

use super::on_redis;
use crate::support::{
    appliance::{Appliance, BINARY, attestation_request},
    eventually,
    redis::RedisServer,
    runbook::{commands, run},
    sentinels::Sentinels,
    shifted::ShiftedClock,
    signer::{Signer, first_key_here},
    softhsm::SoftHsm,
};

const ISSUES: &str = include_str!("../runbook/nonce-store-issues.sh");
const CLEANUP: &str = include_str!("../runbook/nonce-cleanup.sh");
const FAILOVER: &str = include_str!("../runbook/redis-failover.sh");
const CLEAR: &str = include_str!("../runbook/clear-state.sh");

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// What the runbook calls the machine with Redis.
fn redis_at(server: &RedisServer) -> String {
    format!("-h 127.0.0.1 -p {}", server.port)
}

#[test]
fn the_nonce_store_issues_section_works_as_printed() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &on_redis(&redis));
    let nonce = signer.nonce();
    signer.post("/api/v1/attestations", &attestation_request(&nonce)).ok();
    let mut other = attestation_request(&nonce);
    other["score"] = json!(1);
    assert_eq!(signer.post("/api/v1/attestations", &other).status, 409);

    let [stats, memory, reasons] = commands(ISSUES);
    let stats = json(&run(&signer, stats, &[]));
    assert_eq!(
        (&stats["by_status"]["used"], &stats["total"], &stats["capacity"]),
        (&json!(1), &json!(1), &json!(2_000_000))
    );
    let memory = run(&signer, memory, &[("-h redis", &redis_at(&redis))]);
    let used = |text: &str| text.lines().find_map(|line| line.strip_prefix("used_memory:")?.trim().parse::<u64>().ok());
    // What our own stats say is what Redis says.
    let ours = stats["redis"]["memory_used_bytes"].as_u64().unwrap();
    assert!(used(&memory).unwrap().abs_diff(ours) < 1_000_000, "{memory} {stats}");
    let reasons = run(&signer, reasons, &[]);
    assert!(reasons.contains("virtengine_verification_nonce_rejected_total{reason=\"already_used\"} 1"), "{reasons}");
}

/// With two nonces whose window has ended, one of them used, and one that is still good.
fn cleanup_by_the_book(tables: &str) {
    let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let config = token.config(home.path(), &first_key_here(&token, "", tables));
    let clock = ShiftedClock::new(home.path());
    let mut command = Command::new(BINARY);
    command.args(["serve", "--config"]).arg(&config).envs(token.environment());
    clock.govern(&mut command);
    let signer = Appliance::start(command, home.path()).unwrap_or_else(|(status, log)| panic!("{status}: {log}"));
    signer.attest();
    let late = signer.nonce();
    let long = json!({ "attestation_type": "email_verification", "window_seconds": 7200 });
    let good = signer.post("/api/v1/nonces", &long).ok()["nonce"].as_str().unwrap().to_owned();
    clock.seconds(3700);

    let [clean, results] = commands(CLEANUP);
    let report = json(&run(&signer, clean, &[]));
    assert_eq!((&report["removed"], &report["batches"]), (&json!(2), &json!(1)), "{report}");
    assert_eq!(report["by_status"], json!({ "expired": 1, "used": 1 }));
    assert!(report["duration_seconds"].as_f64().unwrap() > 0.0);
    let stats = json(&run(&signer, results, &[]));
    assert!(stats["last_cleanup"].is_string(), "{stats}");
    assert_eq!((&stats["total"], &stats["by_status"]["expired_total"]), (&json!(1), &json!(1)), "{stats}");
    let records = signer.audit_events("nonce_expired");
    assert_eq!((&records[0]["action"], &records[0]["details"]["expired"]), (&json!("cleanup"), &json!(1)));
    assert_eq!(signer.post("/api/v1/attestations", &attestation_request(&late)).problem(), "nonce-not-found");
    signer.post("/api/v1/attestations", &attestation_request(&good)).ok();
}

#[test]
fn the_cleanup_section_works_as_printed() {
    cleanup_by_the_book(&on_redis(&RedisServer::start(&[])));
    cleanup_by_the_book("[fleet]\nsingle = true");
}

#[test]
fn the_redis_failover_section_works_as_printed() {
    let group = Sentinels::watching(2);
    let signer = Signer::with("", &group.table());
    let (unspent, spent) = (signer.nonce(), signer.nonce());
    let used = signer.post("/api/v1/attestations", &attestation_request(&spent));
    assert_eq!(used.status, 200);
    let sentinel = [("-h redis-sentinel", format!("-h 127.0.0.1 -p {}", group.sentinels[0].port))];
    let names: Vec<_> = sentinel.iter().map(|(name, real)| (*name, real.as_str())).collect();
    let [status, failover, verify, reconnection] = commands(FAILOVER);
    let before = run(&signer, status, &names);
    assert!(before.contains(&group.servers[0].port.to_string()), "{before}");
    assert_eq!(run(&signer, failover, &names).trim(), "OK");
    eventually("the new master is named", || {
        run(&signer, verify, &names).contains(&group.servers[1].port.to_string()).then_some(())
    });
    eventually("the signer is connected to it", || {
        (json(&run(&signer, reconnection, &[]))["healthy"] == true
            && group.servers[1].info("replication", "role") == "master"
            && group.servers[0].info("replication", "role") == "slave"
            && signer.post("/api/v1/nonces", &json!({ "attestation_type": "email_verification" })).status == 200)
            .then_some(())
    });
    let refused = signer.post("/api/v1/attestations", &attestation_request(&unspent));
    assert_eq!((refused.status, refused.problem()), (409, "nonce-store-failover".into()));
    let mut other = attestation_request(&spent);
    other["score"] = json!(1);
    assert_eq!(signer.post("/api/v1/attestations", &other).status, 409);
    signer.attest();
}

/// `KEYS "virtengine:veid:*" | xargs … DEL`, in the middle of everything.
#[test]
fn after_the_clearing_of_state_no_nonce_is_good_again_and_the_key_still_signs() {
    let redis = RedisServer::start(&[]);
    let signer = Signer::with("", &on_redis(&redis));
    let (unspent, spent) = (attestation_request(&signer.nonce()), attestation_request(&signer.nonce()));
    signer.post("/api/v1/attestations", &spent).ok();
    let cleared = run(&signer, CLEAR, &[("-h redis", &redis_at(&redis))]);
    assert!(cleared.trim().parse::<u32>().unwrap() >= 3, "{cleared}");
    for request in [&unspent, &spent] {
        let answer = signer.post("/api/v1/attestations", request);
        assert_eq!((answer.status, answer.problem()), (422, "nonce-not-found".into()));
    }
    assert_eq!(signer.audit_events("attestation_signed").len(), 1);
    assert_eq!(signer.get("/readyz").status, 200);
    signer.attest();
}
