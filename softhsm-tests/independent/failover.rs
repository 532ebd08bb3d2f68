//! The primary fails under load, in several ways: the standby signs with its own key, and says so.

use serde_json::json;

use crate::{
    recovery::away::Away,
    standby::failover::{bear, verifies_offline},
    support::{appliance::attestation_request, eventually, pair::Pair, signer::key},
};

#[test]
fn the_primary_s_token_is_away() {
    let pair = Pair::independent();
    bear(&pair, &[key(1), key(2)], || Away::take(&pair.site.token), drop);
}

#[test]
fn every_signature_of_the_primary_hangs() {
    let pair = Pair::independent();
    bear(&pair, &[key(1), key(2)], || pair.faults[0].set("C_Sign hang"), |()| pair.faults[0].clear());
}

#[test]
fn the_primary_s_module_crashes_in_every_signature() {
    let pair = Pair::independent();
    bear(&pair, &[key(1), key(2)], || pair.faults[0].set("C_Sign crash"), |()| pair.faults[0].clear());
}

#[test]
fn the_primary_s_sessions_are_lost_and_none_is_to_be_had() {
    let pair = Pair::independent();
    let rules = "C_SignInit close-sessions\nC_OpenSession fail=CKR_DEVICE_REMOVED";
    bear(&pair, &[key(1), key(2)], || pair.faults[0].set(rules), |()| pair.faults[0].clear());
}

/// Each form of a signature that begins on the primary's key and ends on the standby's.
#[test]
fn what_begins_on_one_token_s_key_and_ends_on_another_s_names_the_one_that_signed() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let mut signed = Vec::new();
    for (path, fault) in [
        ("/api/v1/attestations", "C_Sign hang"),
        ("/api/v1/attestations", "C_Sign fail=CKR_FUNCTION_FAILED"),
        ("/api/v1/attestations?proof=merkle", "C_Sign hang"),
    ] {
        let request = attestation_request(&appliance.nonce());
        pair.faults[0].set(fault);
        let attestation = appliance.post(path, &request).ok();
        pair.faults[0].clear();
        assert_eq!(attestation["issuer"]["key_id"], key(2), "{path}: {fault}");
        let method = attestation["proof"]["verification_method"].as_str().unwrap();
        assert!(method.ends_with(&format!("#{}", key(2))), "{method}");
        assert_eq!(appliance.verdict(&attestation), "valid");
        let record = appliance.audit_events("attestation_signed").pop().unwrap();
        assert_eq!((&record["details"]["key_id"], &record["details"]["token"]), (&json!(key(2)), &json!("standby-1")));
        signed.push(json!({ "status": 200, "attestation": attestation }));
        eventually("the primary signs", || (appliance.signing_key() == key(1)).then_some(()));
    }
    verifies_offline(&appliance, &json!(signed));
    appliance.records_agree(&pair);
}

#[test]
fn a_nonce_that_was_spent_before_the_failover_gets_the_same_answer_after_it_and_no_other() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let request = attestation_request(&appliance.nonce());
    let first = appliance.post("/api/v1/attestations", &request).ok_text();
    let away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(appliance.signing_key(), key(2));
    assert_eq!(appliance.post("/api/v1/attestations", &request).ok_text(), first);
    let mut other = request;
    other["score"] = 12.into();
    assert_eq!(appliance.post("/api/v1/attestations", &other).problem(), "nonce-already-used");
    let second = attestation_request(&appliance.nonce());
    let on_standby = appliance.post("/api/v1/attestations", &second).ok_text();
    drop(away);
    appliance.signs_on("primary");
    assert_eq!(appliance.post("/api/v1/attestations", &second).ok_text(), on_standby);
}

#[test]
fn a_batch_under_one_root_is_signed_on_the_standby_by_its_key() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let _away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    let members: Vec<_> = (0..5).map(|_| attestation_request(&appliance.nonce())).collect();
    let entries = appliance.post("/api/v1/attestations/batch?proof=merkle", &json!(members)).ok();
    for entry in entries.as_array().unwrap() {
        assert_eq!((&entry["status"], &entry["attestation"]["issuer"]["key_id"]), (&json!(200), &json!(key(2))));
    }
    verifies_offline(&appliance, &entries);
    appliance.records_agree(&pair);
}

#[test]
fn opaque_data_is_signed_by_whichever_token_signs_and_by_the_one_whose_key_is_named() {
    let pair = Pair::independent();
    let appliance = pair.serve();
    let sign = |key_id: Option<String>| {
        let mut body = json!({ "data": "aGVsbG8=", "purpose": "test" });
        if let Some(id) = key_id {
            body["key_id"] = id.into();
        }
        appliance.post("/api/v1/sign", &body)
    };
    assert_eq!(sign(None).ok()["key_id"], key(1));
    assert_eq!(sign(Some(key(2))).ok()["key_id"], key(2));
    let away = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    assert_eq!(sign(None).ok()["key_id"], key(2));
    assert_eq!(appliance.post_empty("/api/v1/sign/test").ok()["key_id"], key(2));
    assert_eq!(sign(Some(key(1))).status, 503);
    drop(away);
    appliance.signs_on("primary");
    let _away = Away::take(&pair.standby);
    eventually("the standby is away", || (appliance.token_health("standby-1")["ready"] == false).then_some(()));
    let refused = sign(Some(key(2)));
    assert_eq!((refused.status, refused.problem().as_str()), (503, "standby-token-away"));
}
