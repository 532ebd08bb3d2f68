//! Which keys a standby signs with: those that it has shown, and no others; and where keys are changed.

use std::fs;

use serde_json::json;

use crate::{
    recovery::away::Away,
    support::{
        eventually,
        pair::Pair,
        pkcs11_tool::field,
        signer::{key, rotation_request},
        softhsm::SoftHsm,
    },
};

#[test]
fn a_key_that_is_not_yet_cloned_does_not_sign_on_the_standby_and_does_once_it_is() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let rotated = appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({})));
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let lacks = eventually("the standby is said to lack the key", || {
        let token = appliance.token_health("standby-1");
        token["detail"].as_str().unwrap().contains(&key(2)).then_some(token)
    });
    assert_eq!(lacks["ready"], false);
    assert!(appliance.get("/healthz").text().contains("no full standby"));
    assert_eq!(appliance.metric("virtengine_verification_token_ready{token=\"standby-1\"}"), "0");
    assert_eq!(appliance.metric("virtengine_verification_standbys_unready"), "1");
    assert!(appliance.log().contains("the standby lacks keys"));
    let away = Away::take(&pair.site.token);
    eventually("nothing signs", || (appliance.try_attest().status == 503).then_some(()));
    // Not even with the key that it has: that does not sign any more.
    assert!(!appliance.signed_on().contains(&"standby-1".to_owned()));
    drop(away);
    eventually("the primary signs", || (appliance.try_attest().status == 200).then_some(()));
    pair.clone_keys();
    appliance.standby_is_ready();
    assert_eq!(appliance.metric("virtengine_verification_token_ready{token=\"standby-1\"}"), "1");
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(appliance.signing_key(), key(2));
    eventually("the gauges say so", || {
        let gauge = |name: &str| appliance.metric(&format!("virtengine_verification_{name}"));
        (gauge("standby_signs") == "1" && gauge("standbys_unready") == "0").then_some(())
    });
}

/// A token with a key of its own under the id and label of the primary's.
fn impostor(primary: &SoftHsm) -> SoftHsm {
    let standby = SoftHsm::labelled("standby");
    let original = primary.pkcs11_tool().object(&["Private Key Object", &key(1)]);
    let (id, label) = (field(&original, "ID"), field(&original, "label"));
    let pair = ["--keypairgen", "--key-type", "EC:prime256v1", "--id", id, "--label", label];
    standby.pkcs11_tool().logged_in(&pair);
    standby
}

#[test]
fn another_key_under_the_same_id_and_label_never_signs() {
    let pair = Pair::with_standby(impostor);
    let appliance = pair.site.serve().unwrap();
    let found = eventually("it is seen", || {
        let token = appliance.token_health("standby-1");
        token["detail"].as_str().unwrap().contains("is another key").then_some(token)
    });
    assert_eq!(found["ready"], false);
    let _away = Away::take(&pair.site.token);
    eventually("nothing signs", || (appliance.try_attest().status == 503).then_some(()));
    assert!(!appliance.signed_on().contains(&"standby-1".to_owned()));
    assert_eq!(appliance.switches(), Vec::<String>::new());
}

/// The same token, to look at: the key's place is taken by another key.
fn copy_with_another_key(primary: &SoftHsm) -> SoftHsm {
    let copy = primary.copy();
    let tool = copy.pkcs11_tool();
    let original = tool.object(&["Private Key Object", &key(1)]);
    let (id, label) = (field(&original, "ID"), field(&original, "label"));
    for kind in ["privkey", "pubkey"] {
        tool.logged_in(&["--delete-object", "--type", kind, "--id", id]);
    }
    tool.logged_in(&["--keypairgen", "--key-type", "EC:prime256v1", "--id", id, "--label", label]);
    copy
}

#[test]
fn a_standby_that_comes_back_with_another_key_is_not_believed() {
    let pair = Pair::new();
    let other = copy_with_another_key(&pair.site.token);
    let appliance = pair.serve();
    let (tokens, before) = (pair.standby.tokens(), pair.standby.path().join("before"));
    fs::rename(&tokens, &before).unwrap();
    eventually("it is away", || (appliance.token_health("standby-1")["ready"] == false).then_some(()));
    fs::rename(other.tokens(), &tokens).unwrap();
    eventually("it is seen", || {
        let token = appliance.token_health("standby-1");
        assert_eq!(token["ready"], false, "{token}");
        token["detail"].as_str().unwrap().contains("is another key").then_some(())
    });
    let _away = Away::take(&pair.site.token);
    eventually("nothing signs", || (appliance.try_attest().status == 503).then_some(()));
    assert!(!appliance.signed_on().contains(&"standby-1".to_owned()));
}

/// A standby's signatures go wrong after it has shown its key.
#[test]
fn a_standby_whose_signature_does_not_verify_is_not_asked_before_it_has_shown_its_key_again() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    pair.faults[1].set("C_Sign flip");
    assert_ne!(appliance.try_attest().status, 200);
    for _ in 0..20 {
        assert_ne!(appliance.try_attest().status, 200);
    }
    assert_eq!(appliance.token_health("standby-1")["ready"], false);
    pair.faults[1].clear();
    appliance.standby_is_ready();
    appliance.attest();
}

#[test]
fn keys_are_changed_on_the_primary_only_and_revoked_without_it() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    let chain = appliance.put_bytes(
        &format!("/api/v1/keys/{}/certificate.pem", key(1)),
        "application/pem-certificate-chain",
        b"-",
    );
    let changes = [
        appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({}))),
        appliance.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })),
        chain,
    ];
    for refused in changes {
        assert_eq!((refused.status, refused.problem().as_str()), (503, "primary-token-away"), "{}", refused.text());
        assert!(refused.text().contains(&pair.site.token.serial), "{}", refused.text());
        assert!(refused.text().contains("standby-1 signs"), "{}", refused.text());
    }
    assert_eq!(appliance.states(), ["active"]);
    let revoke = json!({ "reason": "compromised", "initiated_by": "security-team" });
    appliance.post(&format!("/api/v1/keys/{}/revoke", key(1)), &revoke).ok();
    assert_ne!(appliance.try_attest().status, 200);
    drop(away);
    eventually("a rotation succeeds", || {
        (appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({}))).status == 201).then_some(())
    });
    assert_eq!(appliance.signing_key(), key(2));
}
