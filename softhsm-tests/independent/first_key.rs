//! The first key of a standby that has its own: made where its serial is named, and never because none was found.

use std::fs;

use crate::{
    recovery::away::Away,
    support::{eventually, pair::Pair, signer::key},
};

#[test]
fn serve_makes_it_where_its_serial_is_named_and_nowhere_else() {
    let pair = Pair::with_empty_standby();
    let appliance = pair.site.serve().unwrap();
    let lacks = eventually("it is said to have none", || {
        let token = appliance.token_health("standby-1");
        token["detail"].as_str().unwrap().contains("a first key of its own").then_some(token)
    });
    assert_eq!((&lacks["ready"], &lacks["active_key_id"]), (&false.into(), &serde_json::Value::Null));
    // Nor does a rotation make it, nor a key generated ahead.
    let refused = super::rotate_standby(&appliance);
    assert_eq!((refused.status, refused.problem().as_str()), (409, "rotation-refused"), "{}", refused.text());
    let body = serde_json::json!({ "initiated_by": "ops-team", "token": "standby-1" });
    let refused = appliance.post("/api/v1/keys", &body);
    assert!(refused.text().contains("first_key_on_token_serial"), "{}", refused.text());
    let away = Away::take(&pair.site.token);
    eventually("nothing signs", || (appliance.try_attest().status == 503).then_some(()));
    drop(away);
    eventually("the primary signs", || (appliance.try_attest().status == 200).then_some(()));
    appliance.stop();
    assert_eq!(pair.standby.pkcs11_tool().private_keys(), Vec::<String>::new());

    pair.name_standby();
    let appliance = pair.serve();
    assert_eq!(appliance.active_on(), [key(1), key(2)]);
    assert_eq!(appliance.key(2)["token"]["serial"], pair.standby.serial.as_str());
    appliance.stop();
    // Once.
    let appliance = pair.serve();
    assert_eq!(appliance.states(), ["active", "active"]);
}

#[test]
fn a_token_that_lost_its_keys_gets_none_in_their_place() {
    let pair = Pair::independent();
    pair.name_standby();
    pair.standby.initialise_again();
    let appliance = pair.site.serve().unwrap();
    eventually("it is seen", || {
        let detail = appliance.token_health("standby-1")["detail"].as_str().unwrap().to_owned();
        detail.contains(&key(2)).then_some(())
    });
    assert_eq!(appliance.token_health("standby-1")["ready"], false);
    assert_eq!(appliance.states(), ["active", "active"]);
    assert_eq!(appliance.signing_key(), key(1));
    appliance.stop();
    pair.site.run("init").with(0, "standby-1: active key");
    assert_eq!(pair.standby.pkcs11_tool().private_keys(), Vec::<String>::new());
    // Who knows what has happened revokes, and rotates.
    let appliance = pair.site.serve().unwrap();
    eventually("it is there", || {
        appliance.token_health("standby-1")["detail"].as_str().unwrap().starts_with("lacks").then_some(())
    });
    appliance
        .post("/api/v1/keys/emergency", &serde_json::json!({ "key_id": key(2), "initiated_by": "security-team" }))
        .ok();
    appliance.standby_is_ready();
    assert_eq!(appliance.active_on(), [key(1), key(3)]);
}

#[test]
fn a_token_with_objects_of_this_signer_gets_none() {
    let pair = Pair::with_empty_standby();
    let label = format!("{} P-256", key(1));
    pair.standby.pkcs11_tool().logged_in(&[
        "--keypairgen",
        "--key-type",
        "EC:prime256v1",
        "--id",
        "0102",
        "--label",
        &label,
    ]);
    pair.site.run("init").with(69, "its first key was not made");
    pair.name_standby();
    let appliance = pair.site.serve().unwrap();
    assert!(appliance.log().contains("that are no keys of its own"), "{}", appliance.log());
    assert_eq!(appliance.states(), ["active"]);
    appliance.attest();
}

/// The primary goes on; the next start makes the key.
#[test]
fn a_standby_that_is_away_at_the_start_gets_its_first_key_at_a_later_one() {
    let pair = Pair::with_empty_standby();
    pair.name_standby();
    let away = Away::take(&pair.standby);
    let appliance = pair.site.serve().unwrap();
    assert_eq!(appliance.signing_key(), key(1));
    appliance.stop();
    pair.site.run("init").with(69, "standby-1: its first key was not made");
    drop(away);
    let appliance = pair.serve();
    assert_eq!(appliance.active_on(), [key(1), key(2)]);
}

/// As one with the primary's serial, so is one whose serial changed behind the configuration's back.
#[test]
fn a_copy_of_the_primary_has_no_keys_of_its_own() {
    let pair = Pair::new();
    pair.site.edit_config("[[standby]]\n", "[[standby]]\nkeys = \"own\"\n");
    pair.site.refuse("serve").with(78, "a copy has no keys of its own");
    // Where the primary's uri does not name its serial, only the token itself tells.
    let text = fs::read_to_string(pair.site.config()).unwrap();
    let (before, table) = text.split_once("[[standby]]").unwrap();
    let before = before.replace(&format!(";serial={}", pair.site.token.serial), "");
    fs::write(pair.site.config(), format!("{before}[[standby]]{table}")).unwrap();
    pair.site.refuse("serve").with(78, "has the serial of the primary");
}
