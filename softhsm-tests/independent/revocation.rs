//! A key that was revoked or has expired signs on no token again, and the other token signs on.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{rotate_primary, rotate_standby};
use crate::{
    recovery::away::Away,
    support::{appliance::Appliance, eventually, pair::Pair, signer::key},
};

fn revoke(appliance: &Appliance, sequence: u32) {
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    appliance.post(&format!("/api/v1/keys/{}/revoke", key(sequence)), &body).ok();
}

/// What is signed from now on is signed by this key alone.
fn only_signs(appliance: &Appliance, sequence: u32) {
    for _ in 0..30 {
        let answer = appliance.try_attest();
        assert!(answer.status != 200 || answer.json()["issuer"]["key_id"] == key(sequence), "{}", answer.text());
    }
    assert_eq!(appliance.signing_key(), key(sequence));
}

fn nothing_signs(appliance: &Appliance) {
    for _ in 0..30 {
        assert_ne!(appliance.try_attest().status, 200);
    }
}

#[test]
fn the_standby_s_key_revoked_while_it_signs_signs_no_more_and_the_primary_does_when_it_is_back() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    let signed = appliance.attest();
    revoke(&appliance, 2);
    nothing_signs(&appliance);
    assert_eq!(appliance.verdict(&signed), "key_revoked");
    assert!(!appliance.get("/.well-known/jwks.json").ok_text().contains(&key(2)));
    drop(away);
    eventually("the primary signs", || (appliance.try_attest().status == 200).then_some(()));
    only_signs(&appliance, 1);
    // Its own successor, on its own token.
    assert_eq!(rotate_standby(&appliance).json()["new_key_id"], key(3));
    appliance.standby_is_ready();
    assert_eq!(appliance.active_on(), [key(1), key(3)]);
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    only_signs(&appliance, 3);
}

#[test]
fn the_standby_s_key_revoked_while_it_is_away_does_not_sign_when_it_is_back() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let standby = Away::take(&pair.standby);
    eventually("it is away", || (appliance.token_health("standby-1")["ready"] == false).then_some(()));
    revoke(&appliance, 2);
    drop(standby);
    eventually("it is back", || {
        appliance.token_health("standby-1")["detail"].as_str().unwrap().starts_with("has the keys").then_some(())
    });
    assert_eq!(appliance.token_health("standby-1")["ready"], false);
    let primary = Away::take(&pair.site.token);
    nothing_signs(&appliance);
    appliance.stop();
    drop(primary);
    // Nor after a restart.
    let appliance = pair.site.serve().unwrap();
    let _primary = Away::take(&pair.site.token);
    nothing_signs(&appliance);
    assert_eq!(appliance.states(), ["active", "revoked"]);
}

#[test]
fn the_primary_s_key_revoked_leaves_the_standby_signing_until_there_is_a_successor() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    revoke(&appliance, 1);
    only_signs(&appliance, 2);
    appliance.signs_on("standby-1");
    assert_eq!(appliance.get("/readyz").status, 200);
    assert_eq!(rotate_primary(&appliance).json()["new_key_id"], key(3));
    appliance.signs_on("primary");
    only_signs(&appliance, 3);
}

#[test]
fn the_primary_s_key_revoked_while_it_is_away_does_not_sign_when_it_is_back() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let primary = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    revoke(&appliance, 1);
    only_signs(&appliance, 2);
    drop(primary);
    let since = Instant::now();
    while since.elapsed() < Duration::from_secs(3) {
        only_signs(&appliance, 2);
    }
    assert_eq!(appliance.states(), ["revoked", "active"]);
}

#[test]
fn an_emergency_makes_the_successor_on_the_token_whose_key_it_is() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let emergency = |key_id: Option<String>| {
        let mut body = json!({ "initiated_by": "security-team" });
        if let Some(id) = key_id {
            body["key_id"] = id.into();
        }
        appliance.post("/api/v1/keys/emergency", &body).ok()
    };
    let ended = emergency(Some(key(2)));
    assert_eq!((&ended["revoked_key"]["key_id"], &ended["active_key"]["key_id"]), (&json!(key(2)), &json!(key(3))));
    assert_eq!(ended["active_key"]["token"]["serial"], pair.standby.serial.as_str());
    // Without a name it means the primary's.
    let ended = emergency(None);
    assert_eq!((&ended["revoked_key"]["key_id"], &ended["active_key"]["key_id"]), (&json!(key(1)), &json!(key(4))));
    // And again the same.
    assert_eq!(emergency(None)["active_key"]["key_id"], key(4));
    appliance.standby_is_ready();
    assert_eq!(appliance.active_on(), [key(4), key(3)]);
    // While the standby is away its key is revoked all the same.
    let away = Away::take(&pair.standby);
    eventually("it is away", || (appliance.token_health("standby-1")["ready"] == false).then_some(()));
    let answer =
        appliance.post("/api/v1/keys/emergency", &json!({ "key_id": key(3), "initiated_by": "security-team" }));
    assert_eq!(answer.problem(), "standby-token-away");
    assert_eq!(appliance.states(), ["revoked", "revoked", "revoked", "active"]);
    drop(away);
    eventually("the successor is made", || {
        let body = json!({ "key_id": key(3), "initiated_by": "security-team" });
        (appliance.post("/api/v1/keys/emergency", &body).status == 200).then_some(())
    });
    assert_eq!(appliance.active_on(), [key(4), key(5)]);
}

#[test]
fn an_expired_key_of_either_token_signs_no_more() {
    let pair = Pair::with_empty_standby();
    // The standby's key is made with a longer life than the primary's.
    pair.site
        .edit_config("[key_policy]\n", "[key_policy]\nmaximum_age = \"45s\"\nwarn_age = \"30s\"\noverlap = \"1s\"\n");
    pair.site.run("init").with(0, "standby-1: active key");
    pair.site.edit_config("maximum_age = \"45s\"", "maximum_age = \"90d\"");
    let appliance = pair.serve();
    assert_eq!(appliance.signing_key(), key(1));
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    eventually("the standby's key expires", || (appliance.states()[1] == "expired").then_some(()));
    nothing_signs(&appliance);
    assert_eq!(appliance.states(), ["active", "expired"]);
}
