//! Key objects that no record names. Those of an unfinished generation, which an intent names, are
//! met by the crash sweeps; here are those that nobody announced.

use serde_json::json;

use crate::support::{
    signer::{Signer, key},
    softhsm::SIGNER,
};

const ID: &str = "0123456789abcdef0123456789abcdef";

fn is_there(signer: &Signer) -> bool {
    ["privkey", "pubkey"]
        .iter()
        .all(|kind| signer.token.pkcs11_tool().logged_in(&["--list-objects", "--type", kind]).contains(ID))
}

#[test]
fn a_key_object_that_nobody_announced_is_neither_used_nor_destroyed() {
    let mut signer = Signer::new();
    let label = format!("{SIGNER}:2 P-256");
    signer.restart_after(|token| {
        token.pkcs11_tool().logged_in(&["--keypairgen", "--key-type", "EC:prime256v1", "--label", &label, "--id", ID]);
    });
    assert_eq!(signer.states(), ["active"]);
    signer.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" }));
    signer.rotate();
    signer.revoke(1);
    let made = signer.key(2);
    assert_ne!(made["token"]["object_id"], ID);
    assert_eq!(signer.signing_key(), key(2));
    assert_eq!(signer.states(), ["revoked", "active"]);
    signer.restart_after(|_| {});
    assert!(is_there(&signer));
}
