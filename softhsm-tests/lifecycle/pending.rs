//! Keys generated ahead, so that verifiers know them before they sign.

use serde_json::json;

use crate::support::{
    appliance::Answer,
    signer::{Signer, key},
};

fn generate(signer: &Signer) -> Answer {
    signer.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" }))
}

#[test]
fn a_pending_key_is_published_and_signs_nothing() {
    let signer = Signer::new();
    let made = generate(&signer);
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(made.header("location"), format!("/api/v1/keys/{}", key(2)));
    assert_eq!(made.json()["state"], "pending");
    let published = signer.get("/.well-known/jwks.json").ok();
    let ids: Vec<_> = published["keys"].as_array().unwrap().iter().map(|jwk| jwk["kid"].as_str().unwrap()).collect();
    assert_eq!(ids, [key(2), key(1)]);
    assert_eq!(signer.signing_key(), key(1));
    let by_name = json!({ "data": "aGk=", "purpose": "test", "key_id": key(2) });
    assert_eq!(signer.post("/api/v1/sign", &by_name).problem(), "key-may-not-sign");
}

#[test]
fn a_third_pending_key_is_refused() {
    let signer = Signer::new();
    assert_eq!(generate(&signer).status, 201);
    assert_eq!(generate(&signer).status, 201);
    let refused = generate(&signer);
    assert_eq!((refused.status, refused.problem()), (409, "too-many-pending-keys".into()));
    assert_eq!(signer.states(), ["active", "pending", "pending"]);
}

#[test]
fn the_next_rotation_activates_the_pending_key_that_was_made_first() {
    let signer = Signer::new();
    generate(&signer);
    generate(&signer);
    signer.rotate();
    assert_eq!(signer.states(), ["rotating", "active", "pending"]);
    assert_eq!(signer.signing_key(), key(2));
}

#[test]
fn a_revoked_pending_key_is_never_activated() {
    let signer = Signer::new();
    generate(&signer);
    signer.revoke(2);
    signer.rotate();
    assert_eq!(signer.states(), ["rotating", "revoked", "active"]);
}

#[test]
fn a_rotation_to_another_algorithm_leaves_the_pending_key_alone() {
    let signer = Signer::new();
    generate(&signer);
    signer.rotate_with(&json!({ "algorithm": "Ed25519" }));
    assert_eq!(signer.states(), ["rotating", "pending", "active"]);
}
