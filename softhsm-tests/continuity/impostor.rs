//! A private key that has taken the place of ours: same token, same CKA_ID, same label. What it signs
//! does not verify with the recorded public key, and so it never leaves.

use crate::support::{appliance::attestation_request, pkcs11_tool::field, site::Site};

/// Destroys the private key and generates another under its id.
fn replace_private_key(site: &Site) {
    let tool = site.pkcs11_tool();
    let id = field(&tool.object(&["Private Key Object"]), "ID").to_owned();
    let label = "veid-signer-test:1 P-256";
    tool.logged_in(&["--delete-object", "--type", "privkey", "--id", &id]);
    let generate = ["--keypairgen", "--key-type", "EC:prime256v1", "--id", &id, "--label", label];
    tool.logged_in(&[&generate[..], &["--sensitive", "--usage-sign"]].concat());
    assert_eq!(tool.key_objects(), (1, 2));
}

#[test]
fn no_start_accepts_it() {
    let site = Site::with_key();
    replace_private_key(&site);
    for command in ["serve", "check", "init"] {
        let refusal = site.refuse(command);
        assert!(refusal.output.contains("a signature that does not verify"), "{refusal:#?}");
    }
}

#[test]
fn a_running_appliance_releases_nothing_that_it_signed() {
    let site = Site::with_key();
    let appliance = site.serve().unwrap();
    assert_eq!(appliance.post("/api/v1/attestations", &attestation_request(&appliance.nonce())).status, 200);
    replace_private_key(&site);
    for _ in 0..3 {
        let answer = appliance.post("/api/v1/attestations", &attestation_request(&appliance.nonce()));
        assert!(answer.status >= 500 && !answer.text().contains("proof_value"), "{} {}", answer.status, answer.text());
        assert_eq!(answer.problem(), "token-unavailable");
    }
    assert_eq!(appliance.audit_events("attestation_signed").len(), 1);
    let rejected = appliance.audit_events("attestation_rejected");
    assert!(rejected.iter().all(|record| record["details"]["reason"] == "bad_signature"), "{rejected:?}");
    assert_eq!(rejected.len(), 3);
}
