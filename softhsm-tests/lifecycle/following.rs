//! Every change survives a restart, and a second appliance on the same token sees it soon.

use serde_json::json;

use crate::support::signer::{Signer, key};

/// Makes a change, and looks at it from both sides.
fn seen_by_all(change: impl FnOnce(&Signer), states: &[&str]) {
    let mut signer = Signer::with("", "");
    let second = signer.second();
    assert_eq!(second.states(), ["active"]);
    change(&signer);
    assert_eq!(signer.states(), states);
    second.reaches(states);
    // One process less on the token before another logs in: SoftHSM2 shows others an empty token
    // for a moment when one does.
    drop(second);
    signer.restart();
    assert_eq!(signer.states(), states);
}

#[test]
fn a_rotation() {
    seen_by_all(|signer| drop(signer.rotate()), &["rotating", "active"]);
}

#[test]
fn a_completed_rotation() {
    let complete = |signer: &Signer| {
        let id = signer.rotate();
        signer.post(&format!("/api/v1/rotations/{id}/complete"), &json!({ "force": true })).ok();
    };
    seen_by_all(complete, &["retired", "active"]);
}

#[test]
fn a_cancelled_rotation() {
    let cancel = |signer: &Signer| {
        let id = signer.rotate();
        signer.post(&format!("/api/v1/rotations/{id}/cancel"), &json!({})).ok();
    };
    seen_by_all(cancel, &["active", "retired"]);
}

#[test]
fn a_pending_key() {
    let generate = |signer: &Signer| {
        assert_eq!(signer.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })).status, 201);
    };
    seen_by_all(generate, &["active", "pending"]);
}

#[test]
fn a_revocation() {
    seen_by_all(|signer| drop(signer.revoke(1)), &["revoked"]);
}

#[test]
fn an_emergency() {
    let emergency = |signer: &Signer| {
        signer.post("/api/v1/keys/emergency", &json!({ "initiated_by": "security-team" })).ok();
    };
    seen_by_all(emergency, &["revoked", "active"]);
}

#[test]
fn a_destroyed_key() {
    let mut signer = Signer::with("", "");
    let second = signer.second();
    signer.revoke(1);
    signer.post(&format!("/api/v1/keys/{}/destroy", key(1)), &json!({ "force": true })).ok();
    let destroyed = |json: &serde_json::Value| json["private_key_destroyed_at"].is_string();
    crate::support::eventually("the second sees it", || destroyed(&second.key(1)).then_some(()));
    drop(second);
    signer.restart();
    assert!(destroyed(&signer.key(1)));
}
