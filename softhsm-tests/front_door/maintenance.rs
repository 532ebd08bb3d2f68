//! The maintenance switch: what waits, what goes on, and that it stays as it was left.

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, attestation_request},
    curl::Curl,
    guarded::Guarded,
};

const PATH: &str = "/api/v1/maintenance";
const GAUGE: &str = "virtengine_verification_maintenance";

fn switch(curl: &Curl, body: &Value) -> Answer {
    curl.send("PUT", PATH, Some(body)).unwrap()
}

fn turned_away(what: &str, answer: &Answer) {
    assert_eq!((answer.status, &*answer.problem()), (503, "maintenance"), "{what}: {}", answer.text());
    assert_eq!(answer.header("retry-after"), "60", "{what}");
    assert!(answer.text().contains("new firmware"), "{what}: {}", answer.text());
}

fn issue(guarded: &Guarded) -> Answer {
    guarded.certified("producer").post("/api/v1/nonces", &json!({ "attestation_type": "email_verification" }))
}

fn ask_for_everything(guarded: &Guarded, attestation: &Value) {
    let producer = guarded.certified("producer");
    let batch = json!({ "attestation_type": "email_verification", "count": 2 });
    turned_away("a nonce", &issue(guarded));
    turned_away("nonces", &producer.post("/api/v1/nonces/batch", &batch));
    turned_away("an attestation", &producer.post("/api/v1/attestations", attestation));
    turned_away("a signature", &producer.post("/api/v1/sign", &json!({ "data": "AAAA", "purpose": "receipt" })));
}

#[test]
fn nothing_is_signed_in_maintenance_and_everything_else_goes_on() {
    let mut guarded = Guarded::new();
    let (operator, producer, security) =
        (guarded.certified("operator"), guarded.certified("producer"), guarded.certified("security"));
    assert_eq!(guarded.certified("auditor").get(PATH).ok(), json!({ "on": false }));
    assert_eq!(guarded.appliance().metric(GAUGE), "0");
    let nonce = |guarded: &Guarded| issue(guarded).ok()["nonce"].as_str().unwrap().to_owned();
    let signed = producer.post("/api/v1/attestations", &attestation_request(&nonce(&guarded))).ok();
    let attestation = attestation_request(&nonce(&guarded));

    assert_eq!(switch(&operator, &json!({ "on": true })).problem(), "invalid-field", "not without a reason");
    let on = switch(&operator, &json!({ "on": true, "reason": "new firmware", "initiated_by": "ops-team" })).ok();
    assert_eq!((&on["on"], &on["actor"], &on["initiated_by"]), (&json!(true), &json!("operator"), &json!("ops-team")));
    assert_eq!(guarded.appliance().metric(GAUGE), "1");
    ask_for_everything(&guarded, &attestation);

    let ready = guarded.plain().get("/readyz");
    assert_eq!((ready.status, &ready.json()["status"]), (503, &json!("maintenance")), "{}", ready.text());
    assert!(ready.json()["reasons"].to_string().contains("new firmware"));
    let health = guarded.plain().get("/healthz").ok();
    assert_eq!((&health["healthy"], &health["status"]), (&json!(true), &json!("maintenance")));
    assert!(health["maintenance"] == true && health["warnings"].to_string().contains("new firmware"), "{health}");
    assert_eq!(guarded.plain().get("/livez").status, 200);

    // The rest goes on, an emergency above all.
    assert_eq!(producer.post("/api/v1/attestations/verify", &signed).ok()["valid"], true);
    assert_eq!(operator.post("/api/v1/sign/test", &json!({})).ok()["verified"], true);
    assert_eq!(guarded.certified("auditor").get("/api/v1/audit").status, 200);
    let rotate = json!({ "reason": "rotation", "initiated_by": "ops" });
    assert_eq!(operator.post("/api/v1/keys/rotate", &rotate).status, 201);
    let emergency = security.post("/api/v1/keys/emergency", &json!({ "initiated_by": "sec" }));
    assert!(emergency.status < 300, "{}", emergency.text());

    // As it was left, also by a power cut.
    let since = on["since"].clone();
    for crash in [false, true] {
        if crash {
            guarded.crash();
        } else {
            guarded.restart();
        }
        assert_eq!(guarded.certified("auditor").get(PATH).ok()["since"], since);
        assert_eq!(guarded.appliance().metric(GAUGE), "1");
        ask_for_everything(&guarded, &attestation);
    }
    assert_eq!(switch(&guarded.certified("operator"), &json!({ "on": false })).ok(), json!({ "on": false }));
    assert_eq!(guarded.appliance().metric(GAUGE), "0");
    assert_eq!(guarded.plain().get("/readyz").status, 200);
    assert_eq!(issue(&guarded).status, 200);

    let records = guarded.appliance().audit_events("config_changed");
    let told: Vec<_> = records
        .iter()
        .filter(|record| record["resource"] == "maintenance")
        .map(|record| (record["action"].as_str().unwrap(), record["outcome"].as_str().unwrap()))
        .collect();
    assert_eq!(
        told,
        [
            ("begin_maintenance", "pending"),
            ("begin_maintenance", "success"),
            ("end_maintenance", "pending"),
            ("end_maintenance", "success")
        ]
    );
    let begun = records.iter().find(|record| record["action"] == "begin_maintenance").unwrap();
    assert_eq!((&begun["actor"], &begun["details"]["reason"]), (&json!("operator"), &json!("new firmware")));
}

#[test]
fn a_nonce_is_not_spent_by_who_is_turned_away() {
    let guarded = Guarded::new();
    let operator = guarded.certified("operator");
    let attestation = attestation_request(issue(&guarded).ok()["nonce"].as_str().unwrap());
    switch(&operator, &json!({ "on": true, "reason": "new firmware" })).ok();
    turned_away("an attestation", &guarded.certified("producer").post("/api/v1/attestations", &attestation));
    switch(&operator, &json!({ "on": false })).ok();
    assert_eq!(guarded.certified("producer").post("/api/v1/attestations", &attestation).status, 200);
}

#[test]
fn a_switch_that_cannot_be_written_stays_as_it_was_and_one_that_cannot_be_read_does_not_start() {
    let mut guarded = Guarded::new();
    let file = guarded.home().join("state/maintenance.json");
    // A directory in the way of the file that replaces it.
    std::fs::create_dir(file.with_extension("new")).unwrap();
    let answer = switch(&guarded.certified("operator"), &json!({ "on": true, "reason": "new firmware" }));
    assert_eq!((answer.status, &*answer.problem()), (503, "state-unwritable"), "{}", answer.text());
    assert_eq!(guarded.certified("auditor").get(PATH).ok(), json!({ "on": false }));
    let failed = guarded.appliance().audit_events("config_changed");
    assert_eq!(failed.last().unwrap()["outcome"], "unknown");
    std::fs::remove_dir(file.with_extension("new")).unwrap();

    guarded.appliance.take().unwrap().stop();
    std::fs::write(&file, "{").unwrap();
    let output = guarded.command("serve").output().unwrap();
    assert!(!output.status.success());
    assert!(String::from_utf8_lossy(&output.stderr).contains("maintenance.json"), "{output:?}");
}
