//! Blocks that security staff set.

use serde_json::{Value, json};

use super::{ask_from, attest_from, behind_a_proxy, limited};
use crate::support::{appliance::Answer, signer::Signer};

fn block(signer: &Signer, more: &Value) -> Answer {
    let mut body = json!({ "reason": "credential stuffing", "initiated_by": "security-team" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    signer.post("/api/v1/blocks", &body)
}

#[test]
fn whoever_is_blocked_gets_nothing_and_is_told_until_when() {
    let signer = behind_a_proxy("enabled = true");
    let answer = block(&signer, &json!({ "address": "192.0.2.0/24", "duration_seconds": 3600 }));
    assert_eq!(answer.status, 201, "{}", answer.text());
    let set = answer.json();
    assert_eq!((&set["address"], &set["in_force"]), (&json!("192.0.2.0/24"), &json!(true)));
    assert_eq!(answer.header("location"), format!("/api/v1/blocks/{}", set["id"].as_str().unwrap()));

    let refused = ask_from(&signer.api, "192.0.2.77", "GET", "/api/v1/keys", &Value::Null);
    assert_eq!((refused.status, refused.problem()), (403, "blocked".into()));
    assert!(refused.text().contains(set["expires_at"].as_str().unwrap()), "{}", refused.text());
    assert_eq!(ask_from(&signer.api, "192.0.3.1", "GET", "/api/v1/keys", &Value::Null).status, 200);
    for spelled in ["/%61pi/v1/keys", "/api/v1/%6beys", "/ap%69/v1/nonces", "/nothing"] {
        let refused = ask_from(&signer.api, "192.0.2.77", "GET", spelled, &Value::Null);
        assert_eq!(refused.problem(), "blocked", "{spelled}");
    }

    block(&signer, &json!({ "client": "anonymous@198.51.100.1" }));
    block(&signer, &json!({ "subject": "virtengine1bad" }));
    assert_eq!(attest_from(&signer.api, "198.51.100.1", "virtengine1a").problem(), "blocked");
    assert_eq!(attest_from(&signer.api, "198.51.100.2", "virtengine1bad").problem(), "blocked");
    assert_eq!(attest_from(&signer.api, "198.51.100.2", "virtengine1a").status, 200);

    assert_eq!(signer.get("/api/v1/blocks").ok().as_array().unwrap().len(), 3);
    let events = signer.audit_events("ip_banned");
    assert_eq!(events.iter().filter(|event| event["outcome"] == "success").count(), 3, "{events:#?}");
    assert_eq!(events[0]["details"]["initiated_by"], "security-team");
    assert_eq!(signer.metric("virtengine_verification_ratelimit_bans_total{reason=\"operator\"}"), "3");
}

#[test]
fn a_block_survives_a_restart_and_ends_when_it_is_lifted() {
    let mut signer = behind_a_proxy("enabled = true");
    let set = block(&signer, &json!({ "address": "192.0.2.7" })).json();
    signer.restart();
    let ask = |signer: &Signer| ask_from(&signer.api, "192.0.2.7", "GET", "/api/v1/keys", &Value::Null).status;
    assert_eq!(ask(&signer), 403);
    let path = format!("/api/v1/blocks/{}", set["id"].as_str().unwrap());
    let lifted = signer.delete(&path).ok();
    assert_eq!((&lifted["in_force"], &lifted["removed_by"]), (&json!(false), &json!("anonymous@127.0.0.1")));
    assert_eq!(ask(&signer), 200);
    assert_eq!(signer.delete(&path).problem(), "unknown-block");
    signer.restart();
    assert_eq!(ask(&signer), 200);
    assert_eq!(signer.unanswered(), Vec::<u64>::new());
    let lifted = |record: &String| record == "config_changed unblock success";
    assert_eq!(signer.trail().iter().filter(|record| lifted(record)).count(), 1, "{:#?}", signer.trail());
    assert!(signer.audit_events("ip_banned").iter().all(|event| event["action"] == "block"));
    assert!(!signer.trail().iter().any(|record| record.ends_with(" unknown")), "{:#?}", signer.trail());
    assert_eq!(signer.get("/api/v1/blocks").ok(), json!([]));
    assert_eq!(signer.get("/api/v1/blocks?all=true").ok()[0]["id"], set["id"]);
    assert_eq!(signer.get(&path).ok()["in_force"], false);
}

#[test]
fn what_cannot_be_meant_is_refused_by_name() {
    let signer = Signer::with("", &limited("enabled = true"));
    for (body, part) in [
        (json!({}), "exactly one of address, client and subject"),
        (json!({ "address": "192.0.2.1", "client": "a" }), "exactly one of"),
        (json!({ "subject": "" }), "exactly one of"),
        (json!({ "address": "192.0.2.300" }), "expected an address or a network"),
        (json!({ "address": "127.0.0.1" }), "exempt"),
        (json!({ "address": "0.0.0.0/0" }), "exempt"),
        (json!({ "address": "::ffff:127.0.0.1" }), "exempt"),
        (json!({ "client": "anonymous@127.0.0.1" }), "whoever asks"),
        (json!({ "address": "192.0.2.1", "duration_seconds": 0 }), "duration_seconds"),
    ] {
        let refused = block(&signer, &body);
        assert_eq!(refused.problem(), "invalid-field", "{body}");
        assert!(refused.text().contains(part), "{body}: {}", refused.text());
    }
    assert_eq!(signer.get("/api/v1/blocks").ok(), json!([]));
}

#[test]
fn a_list_that_cannot_be_read_is_a_refusal_to_start() {
    let mut signer = Signer::new();
    let path = signer.state().join("blocks.json");
    block(&signer, &json!({ "address": "192.0.2.7" }));
    let whole = std::fs::read(&path).unwrap();
    let refusal = signer.restart_refused(|| std::fs::write(&path, &whole[..whole.len() / 2]).unwrap());
    assert!(refusal.contains("is not a list of blocks"), "{refusal}");
}
