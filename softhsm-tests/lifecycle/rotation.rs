//! Rotation: a new key at once, the old one for an overlap, and every way to end that.

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance},
    eventually,
    signer::{Signer, key, rotation_request},
};

#[test]
fn a_rotation_is_created_at_its_own_address() {
    let signer = Signer::new();
    let answer = signer.post("/api/v1/keys/rotate", &rotation_request(&json!({ "notes": "planned" })));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let rotation = answer.json();
    assert_eq!(signer.get(answer.header("location")).ok(), rotation);
    let field = |name: &str| rotation[name].as_str().unwrap().to_owned();
    assert_eq!((field("old_key_id"), field("new_key_id"), field("status")), (key(1), key(2), "in_progress".into()));
    assert_eq!(
        (field("reason"), field("initiated_by"), field("notes")),
        ("rotation".into(), "ops-team".into(), "planned".into())
    );
    assert!(field("overlap_until") > field("started_at"));
    assert_eq!(signer.get("/api/v1/rotations").ok(), json!([rotation]));
}

#[test]
fn the_old_key_verifies_and_no_longer_signs() {
    let signer = Signer::new();
    let before = signer.attest();
    signer.rotate();
    assert_eq!(signer.states(), ["rotating", "active"]);
    assert_eq!(signer.verdict(&before), "valid");
    assert_eq!(signer.signing_key(), key(2));
    let by_name = json!({ "data": "aGk=", "purpose": "test", "key_id": key(1) });
    assert_eq!(signer.post("/api/v1/sign", &by_name).problem(), "key-may-not-sign");
}

#[test]
fn dev_rotates_too() {
    let dev = Appliance::dev();
    let answer = dev.post("/api/v1/keys/rotate", &rotation_request(&json!({})));
    assert_eq!(answer.status, 201, "{}", answer.text());
    assert_eq!(dev.states(), ["rotating", "active"]);
    assert_eq!(dev.signing_key(), answer.json()["new_key_id"]);
}

#[test]
fn a_second_rotation_is_refused_while_one_is_in_progress() {
    let signer = Signer::new();
    let id = signer.rotate();
    let refused = signer.post("/api/v1/keys/rotate", &rotation_request(&json!({})));
    assert_eq!((refused.status, refused.problem()), (409, "rotation-in-progress".into()));
    assert!(refused.text().contains(&id));
    assert_eq!(signer.states(), ["rotating", "active"]);
}

#[test]
fn a_dry_run_shows_the_checklist_and_changes_nothing() {
    let signer = Signer::new();
    let (keys, records) = (signer.get("/api/v1/keys").text(), ledger_labels(&signer));
    let impossible = rotation_request(&json!({ "dry_run": true, "overlap_seconds": u64::MAX }));
    assert_eq!(signer.post("/api/v1/keys/rotate", &impossible).problem(), "invalid-field");
    let dry = signer.post("/api/v1/keys/rotate", &rotation_request(&json!({ "dry_run": true }))).ok();
    assert_eq!(dry["would_rotate"], true, "{dry}");
    let items: Vec<_> = dry["checks"].as_array().unwrap().iter().map(|check| check["item"].as_str().unwrap()).collect();
    assert!(items.contains(&"token_reachable") && items.contains(&"nonce_store_reachable"), "{items:?}");
    let without_age = |text: &str| text.split(",\"age_seconds\"").next().unwrap().to_owned();
    assert_eq!(without_age(&signer.get("/api/v1/keys").text()), without_age(&keys));
    assert_eq!(ledger_labels(&signer), records);

    signer.rotate();
    let dry = signer.post("/api/v1/keys/rotate", &rotation_request(&json!({ "dry_run": true }))).ok();
    assert_eq!(dry["would_rotate"], false);
    let failed = dry["checks"].as_array().unwrap().iter().find(|check| check["ok"] == false).unwrap().clone();
    assert_eq!(failed["item"], "no_rotation_in_progress");
}

fn ledger_labels(signer: &Signer) -> String {
    signer.token.pkcs11_tool().logged_in(&["--list-objects", "--type", "data"])
}

#[test]
fn an_overlap_that_has_ended_counts_as_ended_without_a_timer() {
    let signer = Signer::with("complete_automatically = false", "[fleet]\nsingle = true");
    let before = signer.attest();
    let id = signer.rotate_with(&json!({ "overlap_seconds": 1 }));
    signer.reaches(&["retired", "active"]);
    assert_eq!(rotation(&signer, &id)["status"], "overlap_ended");
    assert_eq!(signer.verdict(&before), "valid");
    assert_eq!(complete(&signer, &id, &json!({})).ok()["forced"], false);
    assert_eq!(rotation(&signer, &id)["status"], "completed");
}

#[test]
fn a_rotation_whose_overlap_has_ended_does_not_stand_in_the_way_of_the_next() {
    let signer = Signer::with("complete_automatically = false", "[fleet]\nsingle = true");
    signer.rotate_with(&json!({ "overlap_seconds": 1 }));
    signer.reaches(&["retired", "active"]);
    signer.rotate();
    assert_eq!(signer.states(), ["retired", "rotating", "active"]);
}

#[test]
fn completing_before_the_overlap_has_ended_needs_force() {
    let signer = Signer::new();
    let id = signer.rotate();
    let refused = complete(&signer, &id, &json!({}));
    assert_eq!((refused.status, refused.problem()), (409, "overlap-running".into()));
    assert_eq!(signer.states(), ["rotating", "active"]);
    let completed = complete(&signer, &id, &json!({ "force": true, "initiated_by": "ops-team" })).ok();
    assert_eq!((&completed["status"], &completed["forced"]), (&json!("completed"), &json!(true)));
    assert_eq!(signer.states(), ["retired", "active"]);
    assert_eq!(complete(&signer, &id, &json!({})).ok()["completed_at"], completed["completed_at"]);
}

#[test]
fn a_due_completion_happens_by_itself_and_says_who() {
    let signer = Signer::new();
    let id = signer.rotate_with(&json!({ "overlap_seconds": 1 }));
    eventually("upkeep completes it", || (rotation(&signer, &id)["status"] == "completed").then_some(()));
    eventually("upkeep is on record", || {
        let log = signer.audit_log();
        log.lines()
            .find(|line| line.contains("key_rotation_completed") && line.contains("\"actor\":\"automatic\""))
            .map(drop)
    });
}

#[test]
fn a_cancelled_rotation_goes_back_to_the_old_key() {
    let signer = Signer::new();
    let id = signer.rotate();
    let by_new = signer.attest();
    let cancelled = signer.post(&format!("/api/v1/rotations/{id}/cancel"), &json!({})).ok();
    assert_eq!(cancelled["status"], "cancelled");
    assert_eq!(signer.states(), ["active", "retired"]);
    assert_eq!(signer.signing_key(), key(1));
    assert_eq!(signer.verdict(&by_new), "valid");
    let again = signer.post(&format!("/api/v1/rotations/{id}/cancel"), &json!({}));
    assert_eq!((again.status, again.problem()), (409, "rotation-ended".into()));
    assert_eq!(complete(&signer, &id, &json!({ "force": true })).problem(), "rotation-ended");
    signer.rotate();
    assert_eq!(signer.states(), ["rotating", "retired", "active"]);
}

#[test]
fn a_rotation_does_not_go_back_to_a_revoked_key() {
    let signer = Signer::new();
    let id = signer.rotate();
    signer.revoke(1);
    let refused = signer.post(&format!("/api/v1/rotations/{id}/cancel"), &json!({}));
    assert_eq!((refused.status, refused.problem()), (409, "cannot-go-back".into()));
    assert_eq!(signer.states(), ["revoked", "active"]);
}

#[test]
fn an_unknown_rotation_is_not_found() {
    let signer = Signer::new();
    for id in ["rotation-1", "rotation-02", "rotation-9", "nonsense"] {
        assert_eq!(signer.get(&format!("/api/v1/rotations/{id}")).problem(), "unknown-rotation");
        assert_eq!(complete(&signer, id, &json!({})).problem(), "unknown-rotation");
    }
}

#[test]
fn an_overlap_as_long_as_a_keys_life_is_refused() {
    let signer = Signer::new();
    let refused = signer.post("/api/v1/keys/rotate", &rotation_request(&json!({ "overlap_seconds": 90 * 86_400 })));
    assert_eq!((refused.status, refused.problem()), (400, "invalid-field".into()));
    assert_eq!(signer.states(), ["active"]);
}

#[test]
fn a_rotation_without_an_overlap_retires_the_old_key_at_once() {
    let signer = Signer::new();
    let id = signer.rotate_with(&json!({ "overlap_seconds": 0 }));
    assert_eq!(rotation(&signer, &id)["status"], "completed");
    assert_eq!(signer.states(), ["retired", "active"]);
}

#[test]
fn a_rotation_can_change_the_algorithm() {
    let signer = Signer::new();
    signer.rotate_with(&json!({ "algorithm": "Ed25519" }));
    assert_eq!(signer.key(2)["algorithm"], "Ed25519");
    let attestation = signer.attest();
    assert_eq!(attestation["proof"]["type"], "Ed25519Signature2020");
    assert_eq!(signer.verdict(&attestation), "valid");
}

fn rotation(signer: &Signer, id: &str) -> Value {
    signer.get(&format!("/api/v1/rotations/{id}")).ok()
}

fn complete(signer: &Signer, id: &str, body: &Value) -> Answer {
    signer.post(&format!("/api/v1/rotations/{id}/complete"), body)
}
