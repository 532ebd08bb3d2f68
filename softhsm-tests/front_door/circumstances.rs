//! What a request carries with it: its trace, and what becomes of it when the process leaves.

use std::{thread, time::Duration};

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance},
    eventually,
    http::{Connection, request},
    signer::Signer,
};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

fn ask(appliance: &Appliance, path: &str, traceparent: &str, body: &Value) -> Answer {
    let headers =
        [("content-type", "application/json"), ("traceparent", traceparent), ("x-request-id", "from-outside")];
    let mut connection = Connection::open(&appliance.api);
    connection.send(&request("POST", path, &headers, &serde_json::to_vec(body).unwrap())).unwrap();
    connection.answer().unwrap().unwrap()
}

#[test]
fn a_trace_goes_through_to_the_answer_the_record_the_refusal_and_the_log() {
    let signer = Signer::new();
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let issued = ask(&signer, "/api/v1/nonces", &parent, &json!({ "attestation_type": "email_verification" }));
    let answered = issued.header("traceparent").to_owned();
    assert!(answered.starts_with(&format!("00-{TRACE}-")) && answered.ends_with("-01") && answered != parent);
    let record = &signer.audit_events("nonce_created")[0];
    assert_eq!((&record["trace_id"], &record["request"]["request_id"]), (&json!(TRACE), &json!("from-outside")));

    let refused = ask(&signer, "/api/v1/sign", &parent, &json!({ "data": 5 })).json();
    assert_eq!((&refused["trace_id"], &refused["request_id"]), (&json!(TRACE), &json!("from-outside")));

    signer.rotate();
    let rotate = json!({ "reason": "rotation", "initiated_by": "ops-team", "emergency": true });
    assert_eq!(ask(&signer, "/api/v1/keys/rotate", &parent, &rotate).status, 201);
    let log = signer.log();
    let line = log.lines().find(|line| line.contains("rotated") && line.contains(TRACE));
    assert!(line.is_some_and(|line| line.contains("from-outside")), "{log}");
}

#[test]
fn what_is_no_trace_is_not_taken_over() {
    let signer = Signer::new();
    for parent in ["00-0-0-0", "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "\"; drop"] {
        let issued = ask(&signer, "/api/v1/nonces", parent, &json!({ "attestation_type": "email_verification" }));
        assert_eq!(issued.status, 200);
        assert!(!issued.headers.contains_key("traceparent"), "{parent}");
    }
    assert!(signer.audit_events("nonce_created").iter().all(|record| record["trace_id"].is_null()));
}

#[test]
fn readiness_goes_before_anything_is_refused() {
    let signer = Signer::with_lines("[http]", "leave = \"3s\"", "", "[fleet]\nsingle = true");
    assert_eq!(signer.get("/readyz").status, 200);
    let pid = signer.pid();
    signer.signal("TERM");
    eventually("it is not ready any more", || {
        let answer = signer.get("/readyz");
        (answer.status == 503 && answer.text().contains("told to stop")).then_some(())
    });
    assert_eq!(signer.try_attest().status, 200, "and serves all the same");
    eventually("it ends", || {
        thread::sleep(Duration::from_millis(20));
        let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        (state.is_empty() || state.contains(") Z ")).then_some(())
    });
}
