//! Which configurations could not change over, and what check, doctor and a start say of standbys.

use std::fs;

use crate::{
    doctor::Report,
    recovery::away::Away,
    support::{eventually, pair::Pair},
};

#[test]
fn a_configuration_that_could_not_change_over_is_refused() {
    for (from, to, says) in [
        ("store = \"file\"\npath = ", "store = \"token\"\n# ", "does not go with [ledger] store"),
        ("single = true", "single = false", "needs fleet.single = true"),
        ("[token]\n", "[token]\nisolation = false\n", "token.isolation must be true"),
        ("[[standby]]\n", "[[standby]]\nisolation = false\n", "standby-1: token.environment sets a value"),
        ("[[standby]]\n", "[[standby]]\nverify_signatures = false\n", "verify_signatures must be true"),
        ("[[standby]]\n", "[[standby]]\nworkers = 0\n", "standby-1: token.workers"),
        ("return_after = \"1s\"", "return_after = \"0s\"", "failover.return_after"),
    ] {
        let pair = Pair::new();
        pair.site.edit_config(from, to);
        pair.site.refuse("serve").with(78, says);
    }
}

#[test]
fn the_same_token_twice_is_no_standby() {
    let pair = Pair::new();
    let text = fs::read_to_string(pair.site.config()).unwrap();
    let (_, table) = text.split_once("[[standby]]").unwrap();
    fs::write(pair.site.config(), format!("{text}\n[[standby]]{table}")).unwrap();
    pair.site.refuse("serve").with(78, "standby-2 is a token that is named before");
}

#[test]
fn a_start_does_not_wait_for_a_standby_that_is_away() {
    let pair = Pair::new();
    let away = Away::take(&pair.standby);
    pair.site.run("check").with(0, "standby-1 cannot take over");
    let appliance = pair.site.serve().unwrap();
    appliance.attest();
    eventually("it is said", || {
        appliance.token_health("standby-1")["detail"].as_str().unwrap().starts_with("away").then_some(())
    });
    assert_eq!(appliance.get("/readyz").status, 200);
    drop(away);
    appliance.standby_is_ready();
}

#[test]
fn the_doctor_looks_at_each_standby() {
    let pair = Pair::new();
    pair.site.run("check").with(0, "standby-1      pkcs11:token=");
    let doctor = || Report::of(pair.site.doctor(&pair.site.config()));
    let report = doctor();
    report.says("token", "ok", "standby-1: pkcs11:token=");
    report.says("standby-keys", "ok", "standby-1: has the keys");
    let appliance = pair.serve();
    let rotated =
        appliance.post("/api/v1/keys/rotate", &crate::support::signer::rotation_request(&serde_json::json!({})));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    // Beside a running appliance nobody logs in.
    let logins = pair.faults[1].calls("C_Login");
    doctor().says("pin", "ok", "standby-1: left to the running appliance");
    assert_eq!(pair.faults[1].calls("C_Login"), logins);
    appliance.stop();
    doctor().says("standby-keys", "warn", "standby-1: lacks");
    let away = Away::take(&pair.standby);
    doctor().says("token", "fail", "standby-1: no token matches");
    drop(away);
}

#[test]
fn where_there_is_one_token_nothing_is_said_of_several() {
    let signer = crate::support::signer::Signer::new();
    signer.attest();
    assert!(signer.get("/healthz").json()["tokens"].is_null());
    assert!(signer.audit_events("attestation_signed")[0]["details"]["token"].is_null());
    assert!(!signer.get_metrics().contains("token_signs"));
}
