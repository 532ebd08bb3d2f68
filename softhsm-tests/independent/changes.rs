//! Each token's keys by themselves: rotated, completed, cancelled, certified, destroyed, listed, while the other is
//! here or away.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use super::{rotate_primary, rotate_standby, rotate_standby_with};
use crate::{
    recovery::away::Away,
    standby::failover::verifies_offline,
    support::{
        appliance::{Appliance, BINARY},
        eventually,
        pair::Pair,
        signer::{key, rotation_request},
        tool,
    },
};

fn key_ids(list: &Value, field: &str) -> Vec<String> {
    list.as_array().unwrap().iter().map(|one| one[field].as_str().unwrap().to_owned()).collect()
}

fn jwks(appliance: &Appliance) -> Vec<String> {
    key_ids(&appliance.get("/.well-known/jwks.json").ok()["keys"], "kid")
}

fn standby_is_away(appliance: &Appliance) {
    eventually("the standby is away", || (appliance.token_health("standby-1")["ready"] == false).then_some(()));
}

#[test]
fn every_list_has_the_keys_of_all_tokens() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let listed = |appliance: &Appliance| {
        assert_eq!(jwks(appliance), [key(2), key(1)]);
        assert_eq!(key_ids(&appliance.get("/api/v1/keys").ok(), "key_id"), [key(2), key(1)]);
        assert_eq!(key_ids(&appliance.get("/api/v1/signer").ok()["keys"], "key_id"), [key(2), key(1)]);
    };
    listed(&appliance);
    assert_eq!(appliance.active_on(), [key(1), key(2)]);
    assert_eq!(appliance.token_health("standby-1")["keys"], "own");
    let active = |appliance: &Appliance| appliance.get("/api/v1/keys/active").ok()["key_id"].clone();
    assert_eq!(active(&appliance), key(1));
    appliance.get("/healthz").ok();
    assert_eq!(appliance.metric("virtengine_verification_signer_active_keys"), "2");
    let away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    listed(&appliance);
    assert_eq!(active(&appliance), key(2));
    assert_eq!(appliance.get("/healthz").json()["active_key_id"], key(2));
    assert_eq!(appliance.get("/api/v1/signer").ok()["issuer"]["key_id"], key(2));
    appliance.stop();
    drop(away);
    pair.site.run("check").with(0, "standby-1      pkcs11:token=standby");
    let report = crate::doctor::Report::of(pair.site.doctor(&pair.site.config()));
    report.says("standby-keys", "ok", "standby-1: has the keys");
}

#[test]
fn each_token_is_rotated_by_itself_while_the_other_is_here_or_away() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let rotation = rotate_standby(&appliance);
    assert_eq!(rotation.status, 201, "{}", rotation.text());
    let rotation = rotation.json();
    assert_eq!((&rotation["old_key_id"], &rotation["new_key_id"]), (&json!(key(2)), &json!(key(3))));
    assert_eq!(rotation["token"], "standby-1");
    assert_eq!(appliance.states(), ["active", "rotating", "active"]);
    assert_eq!(appliance.active_on(), [key(1), key(3)]);
    // Its overlap is nothing to the primary.
    assert_eq!(rotate_standby(&appliance).problem(), "rotation-in-progress");
    let away = Away::take(&pair.standby);
    standby_is_away(&appliance);
    let refused = rotate_standby_with(&appliance, &json!({ "emergency": true, "reason": "compromised" }));
    assert_eq!((refused.status, refused.problem().as_str()), (503, "standby-token-away"));
    assert_eq!(rotate_primary(&appliance).status, 201);
    assert_eq!(appliance.active_on(), [key(4), key(3)]);
    assert_eq!(appliance.signing_key(), key(4));
    drop(away);
    appliance.standby_is_ready();
    let away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(rotate_primary(&appliance).problem(), "primary-token-away");
    // Without a moment in which nothing signs.
    let emergency = rotate_standby_with(&appliance, &json!({ "emergency": true, "reason": "compromised" }));
    assert_eq!(emergency.status, 201, "{}", emergency.text());
    let attestation = appliance.attest();
    assert_eq!(attestation["issuer"]["key_id"], key(5));
    verifies_offline(&appliance, &json!([{ "status": 200, "attestation": attestation }]));
    assert_eq!(appliance.states(), ["rotating", "retired", "retired", "active", "active"]);
    drop(away);
    appliance.signs_on("primary");
    assert_eq!(appliance.signing_key(), key(4));
    appliance.records_agree(&pair);
    appliance.stop();
    let appliance = pair.serve();
    assert_eq!(appliance.active_on(), [key(4), key(5)]);
    assert_eq!(jwks(&appliance).len(), 5);
}

#[test]
fn a_rotation_of_the_standby_is_completed_and_cancelled_and_the_other_token_s_is_not() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    assert_eq!(rotate_primary(&appliance).status, 201);
    assert_eq!(rotate_standby(&appliance).status, 201);
    assert_eq!(appliance.states(), ["rotating", "rotating", "active", "active"]);
    appliance.post("/api/v1/rotations/rotation-4/cancel", &json!({})).ok();
    assert_eq!(appliance.states(), ["rotating", "active", "active", "retired"]);
    assert_eq!(appliance.active_on(), [key(3), key(2)]);
    assert_eq!(rotate_standby(&appliance).status, 201);
    appliance.post("/api/v1/rotations/rotation-5/complete", &json!({ "force": true })).ok();
    assert_eq!(appliance.states(), ["rotating", "retired", "active", "retired", "active"]);
    appliance.post("/api/v1/rotations/rotation-3/cancel", &json!({})).ok();
    assert_eq!(appliance.states(), ["active", "retired", "retired", "retired", "active"]);
    assert_eq!(appliance.active_on(), [key(1), key(5)]);
}

#[test]
fn a_key_generated_ahead_on_a_token_is_the_successor_there_and_nowhere_else() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let generated = appliance.post("/api/v1/keys", &json!({ "initiated_by": "ops-team", "token": "standby-1" }));
    assert_eq!(generated.status, 201, "{}", generated.text());
    assert_eq!(generated.json()["token"]["serial"], pair.standby.serial.as_str());
    assert_eq!(rotate_primary(&appliance).json()["new_key_id"], key(4));
    assert_eq!(rotate_standby(&appliance).json()["new_key_id"], key(3));
    appliance.stop();
    assert_eq!(pair.site.pkcs11_tool().private_keys().len(), 2);
    assert_eq!(pair.standby.pkcs11_tool().private_keys().len(), 2);
}

#[test]
fn a_key_that_was_shown_and_signs_no_more_does_not_become_the_active_one() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let body = json!({ "initiated_by": "ops-team", "token": "standby-1" });
    assert_eq!(appliance.post("/api/v1/keys", &body).status, 201);
    // By now it has been shown; the look has also proved the key ahead.
    let shown = pair.faults[1].calls("C_Sign");
    eventually("it shows its keys", || (pair.faults[1].calls("C_Sign") > shown).then_some(()));
    pair.faults[1].set("C_Sign fail=CKR_FUNCTION_FAILED");
    let refused = rotate_standby(&appliance);
    assert_eq!(refused.status, 503, "{}", refused.text());
    pair.faults[1].clear();
    assert_eq!(appliance.active_on(), [key(1), key(2)]);
}

#[test]
fn who_names_a_token_that_makes_no_keys_is_told_so() {
    let own = Pair::independent();
    let appliance = own.serve();
    let mut body = rotation_request(&json!({ "token": "standby-2" }));
    assert_eq!(appliance.post("/api/v1/keys/rotate", &body).status, 400);
    body["dry_run"] = true.into();
    assert_eq!(appliance.post("/api/v1/keys/rotate", &body).status, 400);
    body["token"] = "standby-1".into();
    assert_eq!(appliance.post("/api/v1/keys/rotate", &body).ok()["would_rotate"], true);
    let away = Away::take(&own.standby);
    standby_is_away(&appliance);
    assert_eq!(appliance.post("/api/v1/keys/rotate", &body).ok()["would_rotate"], false);
    drop(away);
    let clones = Pair::new();
    let appliance = clones.serve();
    let answer = appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({ "token": "standby-1" })));
    assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid-field"));
}

#[test]
fn a_key_of_the_standby_is_certified_shown_and_destroyed_on_the_standby() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let evidence = appliance.get(&format!("/api/v1/keys/{}/evidence?challenge=0123456789abcdef", key(2))).ok();
    assert_eq!(evidence["token"]["serial"], pair.standby.serial.as_str());
    assert_eq!(evidence["conforms"], true);
    assert!(evidence["proof_of_possession"]["signature"].is_string());
    let path = |what: &str| format!("/api/v1/keys/{}/{what}", key(2));
    assert!(appliance.get(&path("csr.pem")).ok_text().contains("CERTIFICATE REQUEST"));
    let certificate = appliance.get(&path("certificate.pem")).ok_text();
    let stored =
        appliance.put_bytes(&path("certificate.pem"), "application/pem-certificate-chain", certificate.as_bytes());
    assert_eq!(stored.status, 200, "{}", stored.text());
    let rotated = rotate_standby_with(&appliance, &json!({ "overlap_seconds": 0 }));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let away = Away::take(&pair.standby);
    standby_is_away(&appliance);
    for what in ["csr.pem", "certificate.pem", "evidence"] {
        assert_eq!(appliance.get(&path(what)).status, 503, "{what}");
    }
    let destroy = || appliance.post(&path("destroy"), &json!({ "force": true, "initiated_by": "ops" }));
    assert_eq!(destroy().problem(), "standby-token-away");
    drop(away);
    appliance.standby_is_ready();
    assert!(destroy().ok()["private_key_destroyed_at"].is_string());
    appliance.stop();
    assert_eq!(pair.standby.pkcs11_tool().private_keys().len(), 1);
    assert_eq!(pair.site.pkcs11_tool().private_keys().len(), 1);
}

#[test]
fn operators_name_the_token_and_are_asked_which_rotation_they_mean() {
    let pair = Pair::independent();
    let place = tempfile::tempdir().unwrap();
    let socket = place.path().join("api.sock");
    pair.site.edit_config("[http]\n", &format!("[http]\nunix_socket = \"{}\"\n", socket.display()));
    let appliance = pair.serve();
    let run = |arguments: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(arguments).arg("--socket").arg(&socket).stdin(Stdio::null()).env("USER", "jo");
        let output = command.output().unwrap();
        (output.status.code(), tool::text(&output.stdout) + &tool::text(&output.stderr))
    };
    let (code, said) = run(&["rotate", "--token", "standby-1"]);
    assert!(code == Some(0) && said.contains("rotation-3") && said.contains(&key(2)), "{said}");
    assert_eq!(run(&["rotate"]).0, Some(0));
    let (code, said) = run(&["cancel"]);
    assert!(code == Some(76) && said.contains("name one of rotation-4, rotation-3"), "{said}");
    assert_eq!(appliance.states(), ["rotating", "rotating", "active", "active"]);
    let (code, said) = run(&["cancel", "rotation-3"]);
    assert!(code == Some(0) && said.contains("cancelled"), "{said}");
    assert_eq!(run(&["complete", "--force"]).0, Some(0));
    assert_eq!(appliance.states(), ["retired", "active", "retired", "active"]);
}
