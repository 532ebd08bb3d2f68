//! Abuse scores, and what becomes of those who reach 80.

use serde_json::{Value, json};

use super::{about, ask_from, attest_from, behind_a_proxy};
use crate::support::appliance::Answer;

fn score(explained: &Value) -> f64 {
    explained["score"].as_f64().unwrap()
}

fn points(explained: &Value, factor: &str) -> f64 {
    let factors = explained["factors"].as_array().unwrap();
    factors.iter().find(|part| part["factor"] == factor).map_or(0.0, |part| part["points"].as_f64().unwrap())
}

fn about_equal(a: f64, b: f64) -> bool {
    // Scores sink a little while the test runs.
    (a - b).abs() < 0.5
}

#[test]
fn a_score_rises_with_misbehaviour_and_explains_itself() {
    let signer = behind_a_proxy("enabled = true");
    let explain = |identifier: &str| signer.get(&format!("/api/v1/abuse/{identifier}")).ok();
    assert!(score(&explain("address:192.0.2.1")).abs() < 1e-9);
    for number in 0..10 {
        let request = about(&format!("virtengine1{number}"), &"ab".repeat(32));
        ask_from(&signer.api, "192.0.2.1", "POST", "/api/v1/attestations", &request);
    }
    for _ in 0..25 {
        ask_from(&signer.api, "192.0.2.1", "GET", "/api/v1/nothing", &Value::Null);
    }
    for identifier in ["address:192.0.2.1", "client:anonymous@192.0.2.1"] {
        let explained = explain(identifier);
        assert!(about_equal(points(&explained, "repeated_failures"), 15.0), "{explained:#}");
        assert!(about_equal(points(&explained, "suspicious_pattern"), 25.0), "{explained:#}");
        assert!(about_equal(points(&explained, "bot_behavior"), 17.5), "{explained:#}");
        assert!(about_equal(score(&explained), 57.5), "{explained:#}");
        assert_eq!(explained["risk"], "medium");
    }
    let list = signer.get("/api/v1/abuse?limit=1").ok();
    assert_eq!(list.as_array().unwrap().len(), 1);
    assert!(about_equal(score(&list[0]), 57.5));
    let detected = signer.audit_events("abuse_detected");
    assert!(detected.iter().any(|event| event["resource"] == "address:192.0.2.1"), "{detected:#?}");
    let shown = signer.metric("virtengine_verification_abuse_score{kind=\"address\"}");
    assert!(about_equal(shown.parse().unwrap(), 57.5), "{shown}");
    assert_eq!(signer.get("/api/v1/abuse/nobody").problem(), "invalid-field");
    assert_eq!(attest_from(&signer.api, "192.0.2.1", "virtengine1a").status, 200, "not blocked at 57");
}

#[test]
fn at_eighty_the_abuser_is_blocked_and_nobody_else() {
    let signer = behind_a_proxy("enabled = true");
    let ask = |address: &str| ask_from(&signer.api, address, "GET", "/api/v1/keys", &Value::Null);
    let misbehave = |number: usize| -> Answer {
        let subject = format!("virtengine1{number}");
        let request = about(&subject, &"ab".repeat(32));
        ask_from(&signer.api, "192.0.2.1", "POST", "/api/v1/attestations", &request);
        ask_from(&signer.api, "192.0.2.1", "GET", "/api/v1/nothing", &Value::Null);
        ask_from(&signer.api, "192.0.2.1", "PUT", "/api/v1/keys", &Value::Null)
    };
    let blocked = (0..100).map(misbehave).find(|answer| answer.status == 403).unwrap();
    assert_eq!(blocked.problem(), "blocked");
    assert_eq!(ask("192.0.2.1").status, 403);
    assert_eq!(ask("192.0.2.2").status, 200);

    let blocks = signer.get("/api/v1/blocks").ok();
    let by_score: Vec<_> = blocks.as_array().unwrap().iter().filter(|block| block["actor"] == "abuse-score").collect();
    assert_eq!(by_score.len(), 2, "the address and its client: {blocks:#}");
    assert!(by_score.iter().all(|block| block["expires_at"].is_string()));
    assert!(signer.audit_events("ip_banned").iter().any(|event| event["actor"] == "abuse-score"));
    assert_eq!(signer.metric("virtengine_verification_ratelimit_bans_total{reason=\"abuse_score\"}"), "2");

    // Whoever was blocked is known for it.
    for block in by_score {
        signer.delete(&format!("/api/v1/blocks/{}", block["id"].as_str().unwrap())).ok();
    }
    let explained = signer.get("/api/v1/abuse/address:192.0.2.1").ok();
    assert!(about_equal(points(&explained, "known_abuser"), 50.0), "{explained:#}");
}

#[test]
fn nobody_can_have_somebody_elses_subject_blocked() {
    let signer = behind_a_proxy(
        "enabled = true\n[limits.subject.email]\nhour = 1000000\nday = 1000000\nfailures = 1000000\ncool_down = \"1m\"\n[limits.subject.attestation_signing]\nhour = 1000000\nday = 1000000\nfailures = 1000000\ncool_down = \"1m\"",
    );
    for number in 0..200 {
        // From ever new addresses, so that none of them is blocked first.
        let address = format!("192.0.2.{}", number % 250);
        let request = about("virtengine1victim", &"ab".repeat(32));
        ask_from(&signer.api, &address, "POST", "/api/v1/attestations", &request);
    }
    let explained = signer.get("/api/v1/abuse/subject:virtengine1victim").ok();
    assert!(score(&explained) <= 50.0, "{explained:#}");
    assert_eq!(attest_from(&signer.api, "198.51.100.1", "virtengine1victim").status, 200);
    assert_eq!(signer.get("/api/v1/blocks").ok(), json!([]));
}
