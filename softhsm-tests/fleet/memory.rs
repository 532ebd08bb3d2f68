//! A token restored from a backup: noticed by what an appliance, or its fleet, has seen; refused
//! until an operator accepts that very ledger by name; and a revoked key stays revoked.

use std::{fs, path::Path};

use serde_json::json;

use super::{
    members::{Fleet, rotate},
    races::lock,
};
use crate::support::{
    appliance::Appliance,
    eventually,
    redis::RedisServer,
    signer::{first_key_here, key},
    softhsm::SoftHsm,
    tool,
};

/// Copies the token's files.
fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    tool::run("cp", &["-r", from.to_str().unwrap(), to.to_str().unwrap()], &[]);
}

/// What a start says that refuses.
fn refused(token: &SoftHsm, config: &Path) -> String {
    let (status, refusal) = Appliance::serve(token, config).err().unwrap();
    // A trail that does not go on is for an operator; a ledger may have been misread.
    let code = if refusal.contains("audit.accept_checkpoint") { 78 } else { 69 };
    assert_eq!(status.code(), Some(code), "{refusal}");
    refusal
}

/// Accepts by name what a refusal names.
fn accept(config: &Path, table: &str, key: &str, refusal: &str) {
    let (_, rest) = refusal.split_once(&format!("{key} = \"")).unwrap_or_else(|| panic!("{refusal}"));
    let named = rest.split('"').next().unwrap();
    let text = fs::read_to_string(config).unwrap();
    fs::write(config, text.replacen(table, &format!("{table}{key} = \"{named}\"\n"), 1)).unwrap();
}

/// Runs with these tables until key 1 is revoked and replaced, then puts the token back as it was
/// before. Returns the refusal of the next start, after `forget` has had its way with the home.
fn restored_token_is_refused(tables: &str, forget: impl FnOnce(&Path)) -> String {
    let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let config = |more: &str| {
        let tables = format!("{tables}\n{more}");
        token.config(home.path(), &first_key_here(&token, "", &tables))
    };
    let appliance = Appliance::serve(&token, &config("")).unwrap();
    copy(&token.tokens(), &home.path().join("backup"));
    appliance
        .post(&format!("/api/v1/keys/{}/revoke", key(1)), &json!({ "reason": "compromised", "initiated_by": "test" }))
        .ok();
    rotate(&appliance, &json!({ "emergency": true }));
    // A revocation is told at once, and with it how far the ledger goes: said once more, for the rotation.
    appliance
        .post(&format!("/api/v1/keys/{}/revoke", key(1)), &json!({ "reason": "compromised", "initiated_by": "test" }))
        .ok();
    appliance.stop();

    copy(&home.path().join("backup"), &token.tokens());
    forget(home.path());
    let path = config("");
    let mut refusal = refused(&token, &path);
    if refusal.contains("audit.accept_checkpoint") {
        // A trail that was taken away as well is missed first.
        accept(&path, "[audit]\n", "accept_checkpoint", &refusal);
        refusal = refused(&token, &path);
    }
    accept(&path, "[state]\n", "accept_ledger_head", &refusal);
    let appliance = Appliance::serve(&token, &path).unwrap();
    let keys = appliance.get("/api/v1/keys").ok();
    assert_eq!((keys[0]["key_id"].as_str(), keys[0]["state"].as_str()), (Some(key(1).as_str()), Some("revoked")));
    assert!(appliance.audit_log().contains("accept_ledger"));
    rotate(&appliance, &json!({ "emergency": true }));
    appliance.stop();
    // The acceptance was for that ledger, and is not needed any more.
    Appliance::serve(&token, &config("")).unwrap().stop();
    refusal
}

#[test]
fn an_appliance_remembers_by_itself() {
    let refusal = restored_token_is_refused("[fleet]\nsingle = true", |_| {});
    assert!(refusal.contains("ledger-seen.json"), "{refusal}");
}

#[test]
fn the_fleet_remembers_for_an_appliance_that_has_lost_its_state() {
    let redis = RedisServer::start(&[]);
    let forget = |home: &Path| {
        fs::remove_dir_all(home.join("state")).unwrap();
        fs::remove_dir_all(home.join("audit")).unwrap();
        fs::create_dir(home.join("audit")).unwrap();
    };
    let refusal = restored_token_is_refused(&lock(&redis), forget);
    assert!(refusal.contains("the fleet's memory in Redis"), "{refusal}");
}

#[test]
fn the_audit_trail_remembers_revocations_for_an_appliance_that_has_lost_its_state() {
    let forget = |home: &Path| fs::remove_dir_all(home.join("state")).unwrap();
    let refusal = restored_token_is_refused("[fleet]\nsingle = true", forget);
    assert!(refusal.contains("the audit trail in"), "{refusal}");
}

#[test]
fn an_acceptance_counts_at_the_start_only() {
    let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
    let config = token.config(home.path(), &first_key_here(&token, "", "[fleet]\nsingle = true"));
    let appliance = Appliance::serve(&token, &config).unwrap();
    rotate(&appliance, &json!({}));
    let head = serde_json::from_str::<serde_json::Value>(
        &fs::read_to_string(home.path().join("state/ledger-seen.json")).unwrap(),
    )
    .unwrap()["ledger_head"]
        .as_str()
        .unwrap()
        .to_owned();
    appliance.stop();
    let accepting = fs::read_to_string(&config)
        .unwrap()
        .replace("[state]\n", &format!("[state]\naccept_ledger_head = \"{head}\"\n"));
    fs::write(&config, accepting).unwrap();
    let appliance = Appliance::serve(&token, &config).unwrap();
    let body = json!({ "reason": "compromised", "initiated_by": "test" });
    appliance.post(&format!("/api/v1/keys/{}/revoke", key(2)), &body).ok();
    // Somebody with the PIN takes the revocation away; the ledger's head is still the accepted one.
    let label = format!("veid-signer-test revoked {:06}", 2);
    token.pkcs11_tool().logged_in(&[
        "--delete-object",
        "--type",
        "data",
        "--label",
        &label,
        "--application-label",
        "verification-signer",
    ]);
    eventually("the loss is noticed", || {
        let health = appliance.get("/healthz").json();
        health["warnings"].to_string().contains("was revoked, but the token does not say so").then_some(())
    });
    assert_eq!(appliance.post_empty("/api/v1/sign/test").status, 503);
}

#[test]
fn a_revocation_names_the_members_that_have_read_it() {
    let redis = RedisServer::start(&[]);
    let fleet = Fleet::of(3, &lock(&redis));
    let body = json!({ "reason": "compromised", "initiated_by": "test" });
    let done = eventually("all members confirm", || {
        let done = fleet.members[1].post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
        (done["confirmed_by"].as_array().unwrap().len() == 3).then_some(done)
    });
    assert!(done["time_to_safe_seconds"].as_f64().unwrap() > 1.0, "{done}");
}
