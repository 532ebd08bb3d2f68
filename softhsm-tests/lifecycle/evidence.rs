//! What the token says of a key, with proof, and the request for a certificate.

use std::fs;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::{
    main_job::openssl_accepts,
    support::{
        signer::{Signer, key},
        tool,
    },
};

const CHALLENGE: &str = "abcdefghijklmnopqrstuvwxyz012345";

fn evidence(signer: &Signer, sequence: u32) -> Value {
    signer.get(&format!("/api/v1/keys/{}/evidence?challenge={CHALLENGE}", key(sequence))).ok()
}

fn proof_verifies(signer: &Signer, sequence: u32) {
    let proof = evidence(signer, sequence)["proof_of_possession"].clone();
    let payload_type = proof["payload_type"].as_str().unwrap();
    let message = format!("DSSEv1 {} {payload_type} {} {CHALLENGE}", payload_type.len(), CHALLENGE.len());
    let signature = STANDARD.decode(proof["signature"].as_str().unwrap()).unwrap();
    let public = signer.get(&format!("/api/v1/keys/{}/public.pem", key(sequence))).text();
    let directory = tempfile::tempdir().unwrap();
    assert!(openssl_accepts(directory.path(), &public, message.as_bytes(), &signature));
    assert!(!openssl_accepts(directory.path(), &public, CHALLENGE.as_bytes(), &signature));
}

fn request_verifies(signer: &Signer, sequence: u32) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("csr.pem");
    fs::write(&path, signer.get(&format!("/api/v1/keys/{}/csr.pem", key(sequence))).ok_text()).unwrap();
    let path = path.to_str().unwrap();
    tool::run("openssl", &["req", "-in", path, "-noout", "-verify"], &[]);
    let public = signer.get(&format!("/api/v1/keys/{}/public.pem", key(sequence))).text();
    assert_eq!(tool::run("openssl", &["req", "-in", path, "-noout", "-pubkey"], &[]), public);
    assert!(tool::run("openssl", &["req", "-in", path, "-noout", "-subject"], &[]).contains(&key(sequence)));
}

#[test]
fn openssl_accepts_the_proof_of_possession() {
    proof_verifies(&Signer::new(), 1);
}

#[test]
fn openssl_accepts_the_proof_of_an_ed25519_key() {
    proof_verifies(&Signer::with("algorithm = \"Ed25519\"", ""), 1);
}

#[test]
fn openssl_accepts_the_certificate_request() {
    request_verifies(&Signer::new(), 1);
}

#[test]
fn openssl_accepts_the_certificate_request_of_an_ed25519_key() {
    request_verifies(&Signer::with("algorithm = \"Ed25519\"", ""), 1);
}

#[test]
fn a_pending_key_can_be_certified_ahead() {
    let signer = Signer::new();
    signer.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" }));
    proof_verifies(&signer, 2);
    request_verifies(&signer, 2);
}

#[test]
fn the_attributes_are_those_of_a_key_that_cannot_leave() {
    let signer = Signer::new();
    let evidence = evidence(&signer, 1);
    assert_eq!(evidence["conforms"], true, "{evidence}");
    for (attribute, value) in [
        ("local", true),
        ("sensitive", true),
        ("always_sensitive", true),
        ("extractable", false),
        ("never_extractable", true),
    ] {
        assert_eq!(evidence["attributes"][attribute], value, "{attribute}: {evidence}");
    }
    assert_eq!(evidence["token"]["serial"], signer.token.serial);
}

#[test]
fn the_printed_command_shows_the_key() {
    let signer = Signer::new();
    let evidence = evidence(&signer, 1);
    let command = evidence["pkcs11_tool"].as_str().unwrap().replace("--login", "--login --pin env:PIN");
    let pin = crate::support::softhsm::PIN;
    let listed = tool::run("bash", &["-c", &format!("PIN={pin} {command}")], &signer.token.environment());
    assert!(listed.contains(evidence["token"]["object_id"].as_str().unwrap()), "{listed}");
    assert!(listed.contains("never extractable"), "{listed}");
}

#[test]
fn a_challenge_that_could_be_mistaken_is_refused() {
    let signer = Signer::new();
    for challenge in ["short", "with%20a%20space%20inside", &"x".repeat(129)] {
        let refused = signer.get(&format!("/api/v1/keys/{}/evidence?challenge={challenge}", key(1)));
        assert_eq!((refused.status, refused.problem()), (400, "invalid-field".into()), "{challenge}");
    }
}
