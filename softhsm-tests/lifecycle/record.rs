//! What is on record: the intent before, the outcome after, and the counters.

use serde_json::{Value, json};

use crate::support::signer::{Signer, key};

/// The records whose type, action and outcome are these, in this order, among all.
fn in_order(signer: &Signer, expected: &[&str]) {
    let trail = signer.trail();
    let mut rest = trail.iter();
    for wanted in expected {
        assert!(rest.any(|record| record == wanted), "{wanted} is not in its place: {trail:#?}");
    }
}

#[test]
fn a_rotation_is_announced_before_and_recorded_after() {
    let signer = Signer::new();
    let id = signer.rotate();
    signer.post(&format!("/api/v1/rotations/{id}/complete"), &json!({ "force": true })).ok();
    in_order(
        &signer,
        &[
            "key_rotated rotate pending",
            "key_generated generate pending",
            "key_generated generate success",
            "key_rotated rotate success",
            "key_rotation_completed complete pending",
            "key_rotation_completed complete success",
        ],
    );
}

#[test]
fn a_revocation_is_announced_before_and_recorded_after_with_its_time_to_safe() {
    let signer = Signer::new();
    signer.revoke(1);
    in_order(&signer, &["key_revoked revoke pending", "key_revoked revoke success"]);
    let log = signer.audit_log();
    let last: Value = serde_json::from_str(log.lines().rfind(|line| line.contains("key_revoked")).unwrap()).unwrap();
    assert_eq!((&last["severity"], &last["details"]["key_id"]), (&json!("critical"), &json!(key(1))));
    assert_eq!(last["details"]["initiated_by"], "security-team");
    assert!(last["details"]["time_to_safe_seconds"].is_number());
}

#[test]
fn a_cancellation_is_announced_before_and_recorded_after() {
    let signer = Signer::new();
    let id = signer.rotate();
    signer.post(&format!("/api/v1/rotations/{id}/cancel"), &json!({})).ok();
    in_order(&signer, &["key_rotated cancel pending", "key_rotated cancel success"]);
}

#[test]
fn a_destruction_is_announced_before_and_recorded_after() {
    let signer = Signer::new();
    signer.revoke(1);
    signer.post(&format!("/api/v1/keys/{}/destroy", key(1)), &json!({ "force": true })).ok();
    in_order(&signer, &["key_accessed destroy pending", "key_accessed destroy success"]);
}

#[test]
fn rotations_are_counted() {
    let signer = Signer::new();
    let count = |signer: &Signer| {
        let text = signer.get_metrics();
        let line =
            text.lines().find_map(|line| line.strip_prefix("virtengine_verification_signer_key_rotations_total "));
        line.unwrap_or_else(|| panic!("not in {text}")).to_owned()
    };
    assert_eq!(count(&signer), "0");
    signer.rotate();
    assert_eq!(count(&signer), "1");
    signer.post("/api/v1/keys/rotate", &json!({ "reason": "rotation", "initiated_by": "ops-team" }));
    assert_eq!(count(&signer), "1");
    signer.rotate_with(json!({ "emergency": true }));
    assert_eq!(count(&signer), "2");
}
