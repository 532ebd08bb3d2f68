//! Revocation: any key, at once, for good.

use serde_json::json;

use crate::support::{
    signer::{Signer, key},
    softhsm::SIGNER,
};

#[test]
fn what_a_revoked_key_has_signed_is_refused() {
    let signer = Signer::new();
    let attestation = signer.attest();
    assert_eq!(signer.verdict(&attestation), "valid");
    signer.revoke(1);
    assert_eq!(signer.verdict(&attestation), "key_revoked");
    let published = signer.get("/.well-known/jwks.json").ok();
    assert_eq!(published, json!({ "keys": [] }));
}

#[test]
fn after_revoking_the_active_key_nothing_signs() {
    let signer = Signer::new();
    signer.revoke(1);
    let refused = signer.try_attest();
    assert_eq!((refused.status, refused.problem()), (503, "no-key-may-sign".into()));
    let refused = signer.post_empty("/api/v1/sign/test");
    assert_eq!((refused.status, refused.problem()), (503, "no-key-may-sign".into()));
    let by_name = json!({ "data": "aGk=", "purpose": "test", "key_id": key(1) });
    assert_ne!(signer.post("/api/v1/sign", &by_name).status, 200);
    let health = signer.get("/healthz");
    assert_eq!((health.status, &health.json()["active_key_id"]), (503, &json!(null)));
}

#[test]
fn a_revoked_key_signs_neither_proofs_nor_certificate_requests() {
    let signer = Signer::new();
    signer.revoke(1);
    let path = format!("/api/v1/keys/{}", key(1));
    let proof = signer.get(&format!("{path}/evidence?challenge=abcdefghijklmnop"));
    assert_eq!((proof.status, proof.problem()), (409, "key-may-not-sign".into()));
    let request = signer.get(&format!("{path}/csr.pem"));
    assert_eq!((request.status, request.problem()), (409, "key-may-not-sign".into()));
    // What the token says of it is no signature.
    assert_eq!(signer.get(&format!("{path}/evidence")).ok()["conforms"], true);
}

#[test]
fn a_lost_answer_is_not_repeated_once_its_key_is_revoked() {
    let signer = Signer::new();
    let request = crate::support::appliance::attestation_request(&signer.nonce());
    signer.post("/api/v1/attestations", &request).ok();
    assert_eq!(signer.post("/api/v1/attestations", &request).status, 200);
    signer.rotate();
    assert_eq!(signer.post("/api/v1/attestations", &request).status, 200);
    signer.revoke(1);
    let refused = signer.post("/api/v1/attestations", &request);
    assert_eq!((refused.status, refused.problem()), (409, "key-may-not-sign".into()));
}

#[test]
fn revoking_twice_changes_nothing() {
    let signer = Signer::new();
    let first = signer.revoke(1);
    assert_eq!((&first["revoked"], &first["newly_revoked"]), (&json!(true), &json!(true)));
    let body = json!({ "reason": "administrative", "initiated_by": "someone-else" });
    let second = signer.post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
    assert_eq!((&second["revoked"], &second["newly_revoked"]), (&json!(true), &json!(false)));
    assert_eq!(second["key"]["revocation"], first["key"]["revocation"]);
}

#[test]
fn an_unknown_key_is_not_found() {
    let signer = Signer::new();
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    for id in [key(2), "someone-else:1".into(), "nonsense".into(), format!("{SIGNER}:01")] {
        let refused = signer.post(&format!("/api/v1/keys/{id}/revoke"), &body);
        assert_eq!((refused.status, refused.problem()), (404, "unknown-key".into()), "{id}");
    }
    assert_eq!(signer.states(), ["active"]);
}

#[test]
fn every_reason_is_accepted_and_no_other() {
    let signer = Signer::new();
    let reasons = ["compromised", "rotation", "decommissioned", "policy_violation", "administrative"];
    for (sequence, reason) in (1..).zip(reasons) {
        let body = json!({ "reason": reason, "initiated_by": "security-team" });
        let done = signer.post(&format!("/api/v1/keys/{}/revoke", key(sequence)), &body).ok();
        assert_eq!(done["key"]["revocation"]["reason"], reason);
        signer.rotate_with(&json!({ "emergency": true }));
    }
    let body = json!({ "reason": "boredom", "initiated_by": "security-team" });
    let refused = signer.post(&format!("/api/v1/keys/{}/revoke", key(6)), &body);
    assert_eq!((refused.status, refused.problem()), (400, "invalid-field".into()));
    assert_eq!(signer.states().last().unwrap(), "active");
}

#[test]
fn the_time_of_the_compromise_is_kept() {
    let signer = Signer::new();
    let body =
        json!({ "reason": "compromised", "initiated_by": "security-team", "compromised_at": "2025-01-02T03:04:05Z" });
    signer.post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
    assert_eq!(signer.key(1)["revocation"]["compromised_at"], "2025-01-02T03:04:05Z");
}

#[test]
fn a_key_of_every_state_can_be_revoked() {
    let signer = Signer::new();
    signer.rotate_with(&json!({ "overlap_seconds": 0 }));
    signer.rotate();
    signer.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" }));
    assert_eq!(signer.states(), ["retired", "rotating", "active", "pending"]);
    for sequence in 1..=4 {
        signer.revoke(sequence);
    }
    assert_eq!(signer.states(), ["revoked"; 4]);
}

#[test]
fn a_rotation_from_a_revoked_key_can_be_cancelled_by_nobody() {
    let signer = Signer::new();
    signer.revoke(1);
    let id = signer.rotate();
    let refused = signer.post(&format!("/api/v1/rotations/{id}/cancel"), &json!({}));
    assert_eq!(refused.status, 409, "{}", refused.text());
    assert_eq!(signer.states(), ["revoked", "active"]);
}
