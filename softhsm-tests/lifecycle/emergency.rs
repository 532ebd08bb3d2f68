//! The emergency as one call.

use serde_json::{Value, json};

use crate::support::signer::{Signer, key};

fn emergency(signer: &Signer, more: &Value) -> Value {
    let mut body = json!({ "initiated_by": "security-team" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signer.post("/api/v1/keys/emergency", &body).ok()
}

#[test]
fn one_call_revokes_generates_and_activates() {
    let signer = Signer::new();
    let done = emergency(&signer, &json!({ "notes": "incident 7" }));
    assert_eq!((&done["revoked_key"]["key_id"], &done["active_key"]["key_id"]), (&json!(key(1)), &json!(key(2))));
    assert_eq!((&done["newly_revoked"], &done["rotation"]["emergency"]), (&json!(true), &json!(true)));
    assert_eq!(done["revoked_key"]["revocation"]["reason"], "compromised");
    assert!(done["time_to_safe_seconds"].as_f64().is_some());
    assert_eq!(signer.states(), ["revoked", "active"]);
    assert_eq!(signer.signing_key(), key(2));
}

#[test]
fn it_can_be_repeated_for_the_same_key() {
    let signer = Signer::new();
    emergency(&signer, &json!({ "key_id": key(1) }));
    let again = emergency(&signer, &json!({ "key_id": key(1) }));
    assert_eq!((&again["newly_revoked"], &again["rotation"]), (&json!(false), &json!(null)));
    assert_eq!(again["active_key"]["key_id"], key(2));
    assert_eq!(signer.states(), ["revoked", "active"]);
}

#[test]
fn repeated_without_a_name_after_a_lost_answer_it_spares_the_new_key() {
    let signer = Signer::new();
    emergency(&signer, &json!({}));
    let again = emergency(&signer, &json!({}));
    assert_eq!((&again["newly_revoked"], &again["active_key"]["key_id"]), (&json!(false), &json!(key(2))));
    assert_eq!(signer.states(), ["revoked", "active"]);
    // Whoever means the new key says so.
    emergency(&signer, &json!({ "key_id": key(2) }));
    assert_eq!(signer.states(), ["revoked", "revoked", "active"]);
}

#[test]
fn it_finishes_what_a_first_try_began() {
    let signer = Signer::new();
    signer.revoke(1);
    let done = emergency(&signer, &json!({}));
    assert_eq!((&done["newly_revoked"], &done["active_key"]["key_id"]), (&json!(false), &json!(key(2))));
    assert_eq!(signer.states(), ["revoked", "active"]);
}

#[test]
fn it_ends_a_rotation_in_progress() {
    let signer = Signer::new();
    signer.rotate();
    emergency(&signer, &json!({}));
    assert_eq!(signer.states(), ["retired", "revoked", "active"]);
    assert_eq!(signer.get("/api/v1/rotations/rotation-2").ok()["status"], "completed");
    assert_eq!(signer.get("/healthz").ok()["rotation_pending"], false);
}

#[test]
fn it_takes_a_key_generated_ahead() {
    let signer = Signer::new();
    signer.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" }));
    emergency(&signer, &json!({}));
    assert_eq!(signer.states(), ["revoked", "active"]);
}

#[test]
fn an_unknown_key_stops_it_before_anything_happens() {
    let signer = Signer::new();
    let body = json!({ "initiated_by": "security-team", "key_id": key(9) });
    assert_eq!(signer.post("/api/v1/keys/emergency", &body).problem(), "unknown-key");
    assert_eq!(signer.states(), ["active"]);
}
