//! What each command does, shows, and prints for programs.

use serde_json::Value;

use super::Desk;

/// The API's answer to the same question, read past the socket.
fn api(desk: &Desk, path: &str) -> Value {
    desk.signer.get(path).ok()
}

#[test]
fn a_rotation_is_made_looked_at_and_completed() {
    let desk = Desk::new();
    desk.run(&["keys"]).prints(&["KEY", "veid-signer-test:1", "active", "P-256", "expires in"]);
    desk.run(&["rotate", "--dry-run"]).prints(&["ok  ", "It would rotate."]);
    assert_eq!(desk.signer.states(), ["active"], "it only looked");
    let flags = ["rotate", "--notes", "planned", "--overlap", "2d", "--algorithm", "Ed25519"];
    desk.run(&flags).prints(&["rotation-2", "in_progress", "veid-signer-test:2", "in 1 d 23 h"]);
    assert_eq!(desk.signer.states(), ["rotating", "active"]);
    assert_eq!(desk.signer.key(2)["algorithm"], "Ed25519");
    let rotation = api(&desk, "/api/v1/rotations/rotation-2");
    assert_eq!((&rotation["initiated_by"], &rotation["notes"]), (&"jo".into(), &"planned".into()));
    desk.run(&["rotations"]).prints(&["rotation-2", "in_progress", "jo", "rotation: planned"]);
    desk.run(&["complete", "--force", "--initiated-by", "team"]).prints(&["rotation-2", "completed"]);
    assert_eq!(desk.signer.states(), ["retired", "active"]);
    desk.run(&["complete"]).says(76, &["no rotation is in progress"]);
    desk.run(&["keys", "veid-signer-test:1"]).prints(&["retired", "fingerprint", "object id"]);
}

#[test]
fn a_cancelled_rotation_gives_the_old_key_back() {
    let desk = Desk::new();
    desk.run(&["rotate"]).prints(&["rotation-2"]);
    desk.run(&["cancel", "rotation-2"]).prints(&["cancelled", "veid-signer-test:1"]);
    assert_eq!(desk.signer.key(1)["state"], "active");
}

#[test]
fn what_cannot_be_undone_is_not_done_unasked() {
    let desk = Desk::new();
    let revoke = ["revoke", "veid-signer-test:1", "--reason", "compromised"];
    desk.run(&revoke).says(64, &["--yes"]);
    desk.run(&["emergency"]).says(64, &["--yes"]);
    assert_eq!(desk.signer.states(), ["active"], "nobody agreed");
    desk.run(&[&revoke[..], &["--yes", "--compromised-at", "2026-01-31T09:30:00Z"]].concat())
        .prints(&["revoked", "safe after"]);
    let revoked = desk.signer.key(1);
    assert_eq!(revoked["revocation"]["compromised_at"], "2026-01-31T09:30:00Z");
    desk.run(&["sign-test"]).says(69, &["`verification-signer rotate`"]);
    desk.run(&["emergency", "veid-signer-test:1", "--yes", "--notes", "drill"])
        .prints(&["veid-signer-test:1", "veid-signer-test:2"]);
    assert_eq!(desk.signer.states(), ["revoked", "active"]);
    desk.run(&["sign-test"]).prints(&["ok", "veid-signer-test:2"]);
}

/// On a terminal, with this typed: what was shown and said, as one.
fn typed(desk: &Desk, arguments: &str, answer: &str) -> (i32, String) {
    let command = format!("{} {arguments} --socket {}", crate::support::appliance::BINARY, desk.socket().display());
    let output = crate::support::tool::output("script", &["-qec", &command, "/dev/null"], &[], answer.as_bytes());
    (output.status.code().unwrap(), crate::support::tool::text(&output.stdout))
}

#[test]
fn on_a_terminal_only_yes_is_yes() {
    let desk = Desk::new();
    let revoke = "revoke veid-signer-test:1 --reason administrative";
    for answer in ["no\n", "y\n", "\n"] {
        let (code, shown) = typed(&desk, revoke, answer);
        assert_eq!(code, 64, "{shown}");
        assert!(shown.contains("This cannot be undone") && shown.contains("nothing was done"), "{shown}");
    }
    assert_eq!(desk.signer.states(), ["active"]);
    let (code, shown) = typed(&desk, revoke, "yes\n");
    assert!(code == 0 && shown.contains("safe after"), "{code} {shown}");
    assert_eq!(desk.signer.states(), ["revoked"]);
}

#[test]
fn blocks_nonces_maintenance_and_the_trail() {
    let desk = Desk::new();
    let add = ["blocks", "add", "--address", "192.0.2.0/24", "--reason", "stuffing", "--for", "1d"];
    desk.run(&add).prints(&["address 192.0.2.0/24", "stuffing"]);
    let id = api(&desk, "/api/v1/blocks")[0]["id"].as_str().unwrap().to_owned();
    desk.run(&["blocks", "list"]).prints(&[&id, "192.0.2.0/24", "jo"]);
    desk.run(&["blocks", "remove", &id]).prints(&["lifted"]);
    desk.run(&["blocks", "list"]).prints(&["Nobody is shut out."]);
    desk.run(&["blocks", "list", "--all"]).prints(&[&id]);
    desk.run(&["blocks", "add", "--reason", "none"]).says(64, &["--address"]);

    desk.signer.nonce();
    desk.run(&["nonces", "stats"]).prints(&["1 of 2000000", "in-process"]);
    desk.run(&["nonces", "cleanup"]).prints(&["0 forgotten"]);

    desk.run(&["maintenance", "on", "--reason", "new firmware"]).prints(&["out of service", "by jo: new firmware"]);
    assert_eq!(desk.signer.get("/readyz").status, 503);
    desk.run(&["maintenance", "off"]).prints(&["in service"]);
    desk.run(&["maintenance", "show"]).prints(&["in service"]);

    let search = ["audit", "search", "--since", "1h", "--event-type", "config_changed"];
    let found = desk.run(&search).prints(&["config_changed", "success"]);
    assert!(!found.contains("key_generated"), "{found}");
    desk.run(&["audit", "search", "--limit", "1"]).prints(&[]);
    desk.run(&["audit", "rotate"]).prints(&["closed audit.log."]);
}

#[test]
fn programs_get_what_the_api_answered_unchanged() {
    let desk = Desk::new();
    desk.run(&["rotate"]).prints(&[]);
    for (command, path) in [
        (&["keys"][..], "/api/v1/keys"),
        (&["keys", "veid-signer-test:1"], "/api/v1/keys/veid-signer-test:1"),
        (&["rotations"], "/api/v1/rotations"),
        (&["approvals", "list"], "/api/v1/approvals"),
        (&["blocks", "list"], "/api/v1/blocks"),
        (&["maintenance", "show"], "/api/v1/maintenance"),
        (
            &["audit", "search", "--limit", "1", "--event-type", "key_rotated"],
            "/api/v1/audit?limit=1&event_type=key_rotated",
        ),
    ] {
        let mut printed = desk.run(&[command, &["--json"]].concat()).json();
        let mut answered = api(&desk, path);
        // The age goes on between the two questions.
        for value in [&mut printed, &mut answered] {
            forget_age(value);
        }
        assert_eq!(printed, answered, "{command:?}");
    }
    let refused = desk.run(&["keys", "veid-signer-test:9", "--json"]);
    assert_eq!(refused.code, 76, "{refused:?}");
    let problem: Value = serde_json::from_str(&refused.printed).unwrap();
    assert_eq!((&problem["type"], refused.said.as_str()), (&"/problems/unknown-key".into(), ""));
}

fn forget_age(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(forget_age),
        Value::Object(fields) => {
            fields.remove("age_seconds");
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
