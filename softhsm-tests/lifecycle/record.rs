//! What is on record: the intent before, the outcome after, and the counters.

use std::{io::Write, net::TcpStream};

use serde_json::{Value, json};

use crate::support::{
    eventually,
    signer::{Signer, key},
};

/// The records whose type, action and outcome are these, in this order, among all.
fn in_order(signer: &Signer, expected: &[&str]) {
    let trail = signer.trail();
    let mut rest = trail.iter();
    for wanted in expected {
        assert!(rest.any(|record| record == wanted), "{wanted} is not in its place: {trail:#?}");
    }
}

#[test]
fn a_rotation_is_announced_before_and_recorded_after() {
    let signer = Signer::new();
    let id = signer.rotate();
    signer.post(&format!("/api/v1/rotations/{id}/complete"), &json!({ "force": true })).ok();
    in_order(
        &signer,
        &[
            "key_rotated rotate pending",
            "key_generated generate pending",
            "key_generated generate success",
            "key_rotated rotate success",
            "key_rotation_completed complete pending",
            "key_rotation_completed complete success",
        ],
    );
}

#[test]
fn a_revocation_is_announced_before_and_recorded_after_with_its_time_to_safe() {
    let signer = Signer::new();
    signer.revoke(1);
    in_order(&signer, &["key_revoked revoke pending", "key_revoked revoke success"]);
    let log = signer.audit_log();
    let last: Value = serde_json::from_str(log.lines().rfind(|line| line.contains("key_revoked")).unwrap()).unwrap();
    assert_eq!((&last["severity"], &last["details"]["key_id"]), (&json!("critical"), &json!(key(1))));
    assert_eq!(last["details"]["initiated_by"], "security-team");
    assert!(last["details"]["time_to_safe_seconds"].is_number());
}

#[test]
fn a_cancellation_is_announced_before_and_recorded_after() {
    let signer = Signer::new();
    let id = signer.rotate();
    signer.post(&format!("/api/v1/rotations/{id}/cancel"), &json!({})).ok();
    in_order(&signer, &["key_rotated cancel pending", "key_rotated cancel success"]);
}

/// Sends a request whose answer nobody will read; dropped, the connection is reset, since the
/// answer to an earlier request is still unread.
fn post_without_reading(signer: &Signer, path: &str, body: &str) -> TcpStream {
    let mut stream = TcpStream::connect(signer.api.strip_prefix("http://").unwrap()).unwrap();
    write!(stream, "GET /livez HTTP/1.1\r\nhost: signer\r\n\r\n").unwrap();
    assert_eq!(stream.peek(&mut [0]).unwrap(), 1);
    let head = format!("POST {path} HTTP/1.1\r\nhost: signer\r\ncontent-type: application/json\r\n");
    write!(stream, "{head}content-length: {}\r\n\r\n{body}", body.len()).unwrap();
    stream
}

#[test]
fn a_caller_that_hangs_up_does_not_keep_the_outcome_off_the_record() {
    for (command, record) in [("cancel", "key_rotated cancel"), ("complete", "key_rotation_completed complete")] {
        let signer = Signer::new();
        let id = signer.rotate();
        let stream = post_without_reading(&signer, &format!("/api/v1/rotations/{id}/{command}"), "{\"force\":true}");
        while !signer.audit_log().contains(&format!("\"action\":\"{command}\"")) {}
        drop(stream);
        let outcome = format!("{record} success");
        eventually(&outcome, || signer.trail().contains(&outcome).then_some(()));
    }
}

#[test]
fn a_destruction_is_announced_before_and_recorded_after() {
    let signer = Signer::new();
    signer.revoke(1);
    signer.post(&format!("/api/v1/keys/{}/destroy", key(1)), &json!({ "force": true })).ok();
    in_order(&signer, &["key_accessed destroy pending", "key_accessed destroy success"]);
}

#[test]
fn rotations_are_counted() {
    let signer = Signer::new();
    let count = |signer: &Signer| {
        let text = signer.get_metrics();
        let line =
            text.lines().find_map(|line| line.strip_prefix("virtengine_verification_signer_key_rotations_total "));
        line.unwrap_or_else(|| panic!("not in {text}")).to_owned()
    };
    assert_eq!(count(&signer), "0");
    signer.rotate();
    assert_eq!(count(&signer), "1");
    signer.post("/api/v1/keys/rotate", &json!({ "reason": "rotation", "initiated_by": "ops-team" }));
    assert_eq!(count(&signer), "1");
    signer.rotate_with(&json!({ "emergency": true }));
    assert_eq!(count(&signer), "2");
}
