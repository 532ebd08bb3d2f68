//! The main job, with openssl as the judge: what we sign verifies with the exported public key, by
//! a program that knows nothing of ours.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use crate::support::{
    appliance::{Appliance, attestation_request},
    softhsm::SoftHsm,
    tool,
};

/// The canonical bytes of a served attestation: the body without its last field.
pub fn canonical(body: &str) -> String {
    let (statement, _) = body.split_once(",\"proof\":").unwrap();
    format!("{statement}}}")
}

/// Verifies with openssl's command line.
pub fn openssl_accepts(directory: &Path, public_pem: &str, message: &[u8], signature: &[u8]) -> bool {
    let at = |name: &str| directory.join(name).to_str().unwrap().to_owned();
    fs::write(at("public.pem"), public_pem).unwrap();
    fs::write(at("message"), message).unwrap();
    let ed25519 =
        tool::run("openssl", &["pkey", "-pubin", "-in", &at("public.pem"), "-noout", "-text"], &[]).contains("ED25519");
    // openssl wants ECDSA signatures as a DER SEQUENCE of r and s.
    let wire = if ed25519 {
        signature.to_vec()
    } else {
        p256::ecdsa::Signature::from_slice(signature).unwrap().to_der().as_bytes().to_vec()
    };
    fs::write(at("signature"), wire).unwrap();
    let digest: &[&str] = if ed25519 { &[] } else { &["-digest", "sha256"] };
    let arguments = [
        "pkeyutl",
        "-verify",
        "-rawin",
        "-pubin",
        "-inkey",
        &at("public.pem"),
        "-in",
        &at("message"),
        "-sigfile",
        &at("signature"),
    ];
    tool::output("openssl", &[&arguments[..], digest].concat(), &[], b"").status.success()
}

fn signs_and_openssl_agrees(algorithm: &str, proof_type: &str) {
    let token = SoftHsm::new();
    let home = tempfile::tempdir().unwrap();
    let policy = format!("[key_policy]\nalgorithm = \"{algorithm}\"\nfirst_key_on_token_serial = \"{}\"", token.serial);
    let appliance = Appliance::serve(&token, &token.config(home.path(), &policy)).unwrap();

    let answer = appliance.post("/api/v1/attestations", &attestation_request(&appliance.nonce()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("audit-sequence").parse::<u64>().unwrap() > 0);
    let attestation = answer.json();
    assert_eq!(attestation["proof"]["type"], proof_type);

    let key_id = attestation["issuer"]["key_id"].as_str().unwrap();
    let public = appliance.get(&format!("/api/v1/keys/{key_id}/public.pem")).text();
    let signature = STANDARD.decode(attestation["proof"]["proof_value"].as_str().unwrap()).unwrap();
    let message = canonical(&answer.text());
    assert!(openssl_accepts(home.path(), &public, message.as_bytes(), &signature));
    assert!(!openssl_accepts(home.path(), &public, message.replace("91", "92").as_bytes(), &signature));

    let verdict = appliance.post("/api/v1/attestations/verify", &attestation).ok();
    assert_eq!(verdict["valid"], true, "{verdict}");
    let mut forged = attestation.clone();
    forged["score"] = json!(92);
    let verdict = appliance.post("/api/v1/attestations/verify", &forged).ok();
    assert_eq!((&verdict["valid"], &verdict["reason"]), (&Value::Bool(false), &json!("signature_mismatch")));

    let certificate = home.path().join("certificate.pem");
    fs::write(&certificate, appliance.get(&format!("/api/v1/keys/{key_id}/certificate.pem")).body).unwrap();
    let path = certificate.to_str().unwrap();
    tool::run("openssl", &["verify", "-CAfile", path, "-check_ss_sig", "-partial_chain", path], &[]);
    assert_eq!(tool::run("openssl", &["x509", "-in", path, "-noout", "-pubkey"], &[]), public);
}

#[test]
fn p256_attestations_verify_with_openssl() {
    signs_and_openssl_agrees("P-256", "EcdsaSecp256r1Signature2019");
}

#[test]
fn ed25519_attestations_verify_with_openssl() {
    signs_and_openssl_agrees("Ed25519", "Ed25519Signature2020");
}

#[test]
fn secp256k1_attestations_verify_with_openssl() {
    signs_and_openssl_agrees("secp256k1", "EcdsaSecp256k1Signature2019");
}
