//! Destruction of private keys: only of keys that may not sign, only after a while, and only of
//! the private half.

use serde_json::{Value, json};

use crate::support::{
    appliance::Answer,
    signer::{Signer, key},
};

fn destroy(signer: &Signer, sequence: u32, force: bool) -> Answer {
    let body = json!({ "force": force, "initiated_by": "ops-team" });
    signer.post(&format!("/api/v1/keys/{}/destroy", key(sequence)), &body)
}

fn objects(signer: &Signer, kind: &str, sequence: u32) -> usize {
    let id = signer.key(sequence)["token"]["object_id"].as_str().unwrap().to_owned();
    signer.token.pkcs11_tool().logged_in(&["--list-objects", "--type", kind]).matches(&id).count()
}

#[test]
fn keys_that_may_still_sign_are_not_destroyed() {
    let signer = Signer::new();
    signer.rotate();
    signer.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" }));
    assert_eq!(signer.states(), ["rotating", "active", "pending"]);
    for sequence in 1..=3 {
        let refused = destroy(&signer, sequence, true);
        assert_eq!((refused.status, refused.problem()), (409, "key-may-still-sign".into()));
        assert_eq!(objects(&signer, "privkey", sequence), 1);
    }
}

#[test]
fn a_key_is_kept_for_its_retention_unless_forced() {
    let signer = Signer::new();
    signer.rotate_with(&json!({ "overlap_seconds": 0 }));
    let refused = destroy(&signer, 1, false);
    assert_eq!((refused.status, refused.problem()), (409, "retention-running".into()));
    assert_eq!(objects(&signer, "privkey", 1), 1);
    assert_eq!(destroy(&signer, 1, true).status, 200);
    assert_eq!(objects(&signer, "privkey", 1), 0);
}

#[test]
fn after_its_retention_a_key_is_destroyed_without_force() {
    let signer = Signer::with("retention = \"0s\"", "[fleet]\nsingle = true");
    signer.revoke(1);
    assert_eq!(destroy(&signer, 1, false).status, 200);
    assert_eq!(objects(&signer, "privkey", 1), 0);
}

#[test]
fn public_key_certificate_and_ledger_stay() {
    let signer = Signer::new();
    let attestation = signer.attest();
    let public = signer.get(&format!("/api/v1/keys/{}/public.pem", key(1))).text();
    signer.rotate_with(&json!({ "overlap_seconds": 0 }));
    let destroyed = destroy(&signer, 1, true).ok();
    assert!(destroyed["private_key_destroyed_at"].is_string(), "{destroyed}");
    assert_eq!((objects(&signer, "privkey", 1), objects(&signer, "pubkey", 1), objects(&signer, "cert", 1)), (0, 1, 1));
    let records = signer.token.pkcs11_tool().logged_in(&["--list-objects", "--type", "data"]);
    assert!(records.contains("key-generated") && records.contains("key-destroyed"), "{records}");
    assert_eq!(signer.get(&format!("/api/v1/keys/{}/public.pem", key(1))).text(), public);
    assert_eq!(signer.get(&format!("/api/v1/keys/{}/certificate.pem", key(1))).status, 200);
    assert_eq!(signer.verdict(&attestation), "valid");
    assert_eq!(signer.signing_key(), key(2));
}

#[test]
fn destroying_twice_is_answered_alike() {
    let signer = Signer::new();
    signer.revoke(1);
    let at = |answer: Value| answer["private_key_destroyed_at"].clone();
    let first = at(destroy(&signer, 1, true).ok());
    assert_eq!(at(destroy(&signer, 1, true).ok()), first);
    assert_eq!(signer.states(), ["revoked"]);
}

#[test]
fn an_unknown_key_is_not_found() {
    let signer = Signer::new();
    assert_eq!(destroy(&signer, 7, true).problem(), "unknown-key");
}
