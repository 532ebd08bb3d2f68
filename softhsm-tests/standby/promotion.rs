//! The primary does not come back: the standby becomes the primary. And what a standby does for the audit trail.

use std::fs;

use serde_json::json;

use crate::{
    audit::trail::verifies,
    recovery::away::Away,
    support::{
        eventually,
        pair::Pair,
        signer::{key, rotation_request},
        site::Site,
    },
};

/// As the runbook says: `[token]` gets what the table says, and the table goes.
fn promote_standby(site: &Site) {
    let text = fs::read_to_string(site.config()).unwrap();
    let (before, table) = text.split_once("\n[[standby]]\n").unwrap();
    let (head, rest) = before.split_once("[token]\n").unwrap();
    let (_, tail) = rest.split_once("[audit]\n").unwrap();
    fs::write(site.config(), format!("{head}[token]\n{table}\n[audit]\n{tail}")).unwrap();
}

#[test]
fn a_standby_becomes_the_primary_and_what_was_revoked_stays_revoked() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let revoked = appliance.attest();
    let rotated = appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({})));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    pair.clone_keys();
    appliance.standby_is_ready();
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    appliance.post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
    appliance.stop();
    // A start needs the primary.
    pair.site.refuse("serve").with(69, "no token matches");
    promote_standby(&pair.site);
    let appliance = pair.site.serve().unwrap();
    assert_eq!(appliance.states(), ["revoked", "active"]);
    assert_ne!(appliance.verdict(&revoked), "valid");
    assert_eq!(appliance.signing_key(), key(2));
    let rotated = appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({})));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    assert_eq!(appliance.signing_key(), key(3));
    appliance.stop();
    verifies(&pair.site.path("audit"));
}

#[test]
fn checkpoints_are_signed_on_the_standby_while_the_primary_is_away() {
    let pair = Pair::new();
    pair.site.edit_config("[audit]\n", "[audit]\ncheckpoint_interval = \"1s\"\n");
    let appliance = pair.serve();
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    appliance.attest();
    let size = || appliance.metric("virtengine_verification_audit_checkpoint_size").parse::<u64>().unwrap();
    let before = size();
    appliance.attest();
    eventually("a checkpoint covers it", || (size() > before).then_some(()));
}
