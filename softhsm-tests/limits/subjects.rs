//! What one subject may have, whoever asks, and the cool-down after failures.

use serde_json::json;

use super::{about, limited, retry_after};
use crate::{
    recovery::away::Away,
    support::{
        appliance::{Answer, Appliance, dev_command},
        eventually,
        signer::Signer,
    },
};

fn attest(appliance: &Appliance, subject: &str) -> Answer {
    appliance.post("/api/v1/attestations", &about(subject, &appliance.nonce()))
}

#[test]
fn a_subject_gets_ten_attestations_of_an_email_address_and_no_more() {
    let signer = Signer::with("", &limited("enabled = true"));
    for number in 1..=10 {
        assert_eq!(attest(&signer, "virtengine1a").status, 200, "{number}");
    }
    let request = about("virtengine1a", &signer.nonce());
    let refused = signer.post("/api/v1/attestations", &request);
    assert_eq!((refused.status, refused.problem()), (429, "rate-limited".into()));
    assert!((1..=360).contains(&retry_after(&refused)), "{}", retry_after(&refused));
    assert_eq!(refused.header("ratelimit-policy"), "\"email:hour\";q=10;w=3600");
    // Its nonce was not used up: the same request is refused for the same reason again.
    assert_eq!(signer.post("/api/v1/attestations", &request).problem(), "rate-limited");

    assert_eq!(attest(&signer, "virtengine1b").status, 200, "another subject has its own");
    let sms = signer.post("/api/v1/nonces", &json!({ "attestation_type": "sms_verification" })).ok();
    let mut other = about("virtengine1a", sms["nonce"].as_str().unwrap());
    other["type"] = json!("sms_verification");
    assert_eq!(signer.post("/api/v1/attestations", &other).status, 200, "another type has its own");
    assert_eq!(signer.audit_events("attestation_signed").len(), 12);
}

#[test]
fn a_retry_of_what_was_signed_costs_nothing() {
    let signer = Signer::with("", &limited("enabled = true"));
    let request = about("virtengine1a", &signer.nonce());
    let first = signer.post("/api/v1/attestations", &request).ok();
    for _ in 0..20 {
        assert_eq!(signer.post("/api/v1/attestations", &request).ok(), first);
    }
    assert_eq!(attest(&signer, "virtengine1a").status, 200);
}

#[test]
fn tries_that_came_to_nothing_for_want_of_the_token_cost_one_attestation() {
    let signer = Signer::with("", &limited("enabled = true"));
    let request = about("virtengine1a", &signer.nonce());
    let away = Away::take(&signer.token);
    for _ in 0..20 {
        assert_eq!(signer.post("/api/v1/attestations", &request).status, 503);
    }
    drop(away);
    eventually("signing resumes", || (signer.post("/api/v1/attestations", &request).status == 200).then_some(()));
    let others: Vec<_> = (0..10).map(|_| attest(&signer, "virtengine1a").status).collect();
    assert_eq!(others, [[200].repeat(9), vec![429]].concat());
}

#[test]
fn nonces_bound_to_a_subject_are_counted_one_by_one() {
    let signer = Signer::with("", &limited("enabled = true"));
    let order = |count: u64| {
        let body =
            json!({ "attestation_type": "email_verification", "subject_address": "virtengine1a", "count": count });
        signer.post("/api/v1/nonces/batch", &body)
    };
    assert_eq!(order(201).problem(), "rate-limited", "more than an hour's in one batch");
    assert_eq!(order(150).status, 200);
    assert_eq!(order(51).problem(), "rate-limited");
    assert_eq!(order(50).status, 200);
    assert_eq!(signer.nonce().len(), 64, "nonces that are not bound are not counted");
}

#[test]
fn five_failures_are_followed_by_a_cool_down() {
    let signer = Signer::with("", &limited("enabled = true"));
    for number in 1..=5 {
        let unknown = signer.post("/api/v1/attestations", &about("virtengine1a", &"ab".repeat(32)));
        assert_eq!(unknown.problem(), "nonce-not-found", "{number}");
    }
    let refused = attest(&signer, "virtengine1a");
    assert_eq!(refused.problem(), "rate-limited");
    assert!(refused.text().contains("too many failures"), "{}", refused.text());
    assert!((3590..=3600).contains(&retry_after(&refused)));
    assert_eq!(attest(&signer, "virtengine1b").status, 200);
}

#[test]
fn dev_limits_subjects_when_asked() {
    let home = tempfile::tempdir().unwrap();
    let mut command = dev_command(&home.path().join("state"));
    command.arg("--limits");
    let appliance = Appliance::start(command, home.path()).unwrap();
    let answers: Vec<_> = (0..11).map(|_| attest(&appliance, "virtengine1a").status).collect();
    assert_eq!(answers, [[200].repeat(10), vec![429]].concat());
}
