//! What was revoked or destroyed while a standby was away stays so when it is back; what a token shows of an
//! older ledger is nobody's word.

use std::fs;

use serde_json::json;

use crate::{
    recovery::away::Away,
    support::{
        appliance::Appliance,
        eventually,
        faults::Faults,
        pair::{Pair, add_standby, ledger_file},
        signer::{key, rotation_request},
        site::Site,
        softhsm::SoftHsm,
    },
};

fn revoke(appliance: &Appliance, sequence: u32) {
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    appliance.post(&format!("/api/v1/keys/{}/revoke", key(sequence)), &body).ok();
}

fn rotate(appliance: &Appliance) {
    let answer = appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({ "overlap_seconds": 0 })));
    assert_eq!(answer.status, 201, "{}", answer.text());
}

fn is_away(appliance: &Appliance) {
    eventually("the standby is away", || (appliance.token_health("standby-1")["ready"] == false).then_some(()));
}

#[test]
fn a_key_that_was_revoked_while_the_standby_was_away_does_not_sign_when_it_is_back() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let standby = Away::take(&pair.standby);
    is_away(&appliance);
    revoke(&appliance, 1);
    drop(standby);
    // It is looked at again, and so is the primary's absence: whatever happens then, nothing is signed.
    eventually("it is back", || {
        let detail = appliance.token_health("standby-1")["detail"].as_str().unwrap().to_owned();
        detail.starts_with("has the keys").then_some(())
    });
    let _primary = Away::take(&pair.site.token);
    for _ in 0..50 {
        assert_ne!(appliance.try_attest().status, 200);
    }
    assert!(!appliance.signed_on().contains(&"standby-1".to_owned()));
    assert_eq!(appliance.states(), ["revoked"]);
}

#[test]
fn a_key_that_was_revoked_while_the_primary_was_away_does_not_sign_when_that_is_back() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let primary = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    revoke(&appliance, 1);
    assert_ne!(appliance.try_attest().status, 200);
    drop(primary);
    appliance.signs_on("primary");
    assert_ne!(appliance.try_attest().status, 200);
}

fn private_keys(token: &SoftHsm) -> Vec<String> {
    token.pkcs11_tool().private_keys()
}

#[test]
fn a_key_that_was_destroyed_while_the_standby_was_away_is_destroyed_there_before_it_is_ready() {
    let pair = Pair::new();
    let appliance = pair.serve();
    rotate(&appliance);
    pair.clone_keys();
    appliance.standby_is_ready();
    assert_eq!(private_keys(&pair.standby).len(), 2);
    let standby = Away::take(&pair.standby);
    is_away(&appliance);
    let destroy =
        appliance.post(&format!("/api/v1/keys/{}/destroy", key(1)), &json!({ "force": true, "initiated_by": "ops" }));
    assert_eq!(destroy.status, 200, "{}", destroy.text());
    // It cannot be destroyed there for a while: so long the standby signs nothing.
    pair.faults[1].set("C_DestroyObject fail=CKR_FUNCTION_REJECTED");
    drop(standby);
    let refused = pair.faults[1].calls("C_DestroyObject");
    eventually("it is tried", || (pair.faults[1].calls("C_DestroyObject") > refused + 2).then_some(()));
    assert_eq!(appliance.token_health("standby-1")["ready"], false);
    pair.faults[1].clear();
    appliance.standby_is_ready();
    assert_eq!(private_keys(&pair.standby).len(), 1, "ready, and the destroyed key is there");
    let swept = appliance.trail().into_iter().filter(|line| line == "key_accessed destroy_on_standby success").count();
    assert_eq!(swept, 1);
    let _primary = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(appliance.signing_key(), key(2));
}

/// It failed, and happened all the same: nothing is left to do, and nothing keeps the standby.
#[test]
fn a_destruction_on_the_standby_that_failed_and_happened_is_found_out() {
    let pair = Pair::new();
    let appliance = pair.serve();
    rotate(&appliance);
    pair.clone_keys();
    appliance.standby_is_ready();
    pair.faults[1].set("C_DestroyObject fail-after=CKR_DEVICE_ERROR times=1");
    appliance.post(&format!("/api/v1/keys/{}/destroy", key(1)), &json!({ "force": true, "initiated_by": "ops" })).ok();
    eventually("it is gone", || (private_keys(&pair.standby).len() == 1).then_some(()));
    appliance.standby_is_ready();
    assert_eq!(appliance.states(), ["retired", "active"]);
}

#[test]
fn a_key_that_is_destroyed_is_destroyed_on_a_standby_that_is_there_when_the_call_returns() {
    let pair = Pair::new();
    let appliance = pair.serve();
    rotate(&appliance);
    pair.clone_keys();
    appliance.standby_is_ready();
    appliance.post(&format!("/api/v1/keys/{}/destroy", key(1)), &json!({ "force": true, "initiated_by": "ops" })).ok();
    assert_eq!(private_keys(&pair.standby).len(), 1);
}

/// Standbys that were cloned while the ledger was on the token carry it as it was then.
#[test]
fn an_older_ledger_on_a_standby_brings_no_revoked_key_back() {
    let (site, _) = Site::with_key().faulty();
    let standby = site.token.copy();
    site.edit_config("[http]", &format!("{}[http]", ledger_file(&site.path("ledger"))));
    let moved = site.token_ledger();
    moved.with(0, "of the ledger are in the file");
    // Once more changes nothing.
    site.token_ledger().with(0, "of the ledger are in the file");
    let directory = site.path("standby");
    fs::create_dir(&directory).unwrap();
    add_standby(&site, &standby, &Faults::new(&directory));
    let appliance = site.serve().unwrap();
    appliance.standby_is_ready();
    appliance.attest();
    revoke(&appliance, 1);
    let _primary = Away::take(&site.token);
    for _ in 0..50 {
        assert_ne!(appliance.try_attest().status, 200);
    }
    assert_eq!(appliance.states(), ["revoked"]);
}

#[test]
fn an_older_ledger_file_is_refused() {
    let pair = Pair::new();
    let before = fs::read(pair.site.path("ledger")).unwrap();
    let appliance = pair.serve();
    revoke(&appliance, 1);
    appliance.stop();
    fs::write(pair.site.path("ledger"), before).unwrap();
    pair.site.refuse("serve").with(69, "was revoked, but the token does not say so");
}
