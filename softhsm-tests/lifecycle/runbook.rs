//! The customer's runbook, command by command, as printed. The blocks in `softhsm-tests/runbook`
//! are copied from it; only names of machines and ids in braces are replaced.

use serde_json::Value;

use crate::support::{
    eventually,
    runbook::{commands, run},
    signer::{Signer, key},
};

const SCHEDULED: &str = include_str!("../runbook/scheduled-rotation.sh");
const AFTERWARDS: &str = include_str!("../runbook/post-rotation.sh");
const EMERGENCY: &str = include_str!("../runbook/emergency.sh");

fn json(output: &str) -> Value {
    serde_json::from_str(output).unwrap_or_else(|error| panic!("{error}: {output}"))
}

/// Runs the emergency section for this key and holds what it promises.
fn emergency_by_the_book(signer: &Signer, compromised: &str, successor: &str) {
    let [revoke, rotate, verify] = commands(EMERGENCY);
    let revoked = json(&run(signer, revoke, &[("{key_id}", compromised)]));
    assert_eq!(revoked["key"]["state"], "revoked", "{revoked}");
    let rotated = json(&run(signer, rotate, &[]));
    assert_eq!((&rotated["emergency"], &rotated["status"]), (&Value::Bool(true), &"completed".into()), "{rotated}");
    assert_eq!(json(&run(signer, verify, &[]))["key_id"], successor);
    assert_eq!(signer.signing_key(), successor);
}

#[test]
fn the_scheduled_rotation_works_as_printed() {
    let signer = Signer::with("overlap = \"1s\"", "[fleet]\nsingle = true");
    let [status, health, rotate, progress, active, complete] = commands(SCHEDULED);
    assert_eq!(json(&run(&signer, status, &[]))[0]["state"], "active");
    assert_eq!(json(&run(&signer, health, &[]))["healthy"], true);
    let rotation = json(&run(&signer, rotate, &[]));
    assert_eq!(rotation["notes"], "Scheduled rotation", "{rotation}");
    let id = rotation["rotation_id"].as_str().unwrap();
    assert_eq!(json(&run(&signer, active, &[]))["key_id"], key(2));
    eventually("the overlap ends", || {
        let seen = json(&run(&signer, progress, &[("{rotation_id}", id)]));
        (seen["status"] != "in_progress").then_some(())
    });
    assert_eq!(json(&run(&signer, complete, &[("{rotation_id}", id)]))["status"], "completed");
    assert_eq!(signer.states(), ["retired", "active"]);

    let [test, metrics, audit] = commands(AFTERWARDS);
    assert_eq!(json(&run(&signer, test, &[]))["success"], true);
    assert!(run(&signer, metrics, &[]).contains("virtengine_verification_signer_active_keys 1"));
    // The command must be answered; what the trail's API answers is tested where it is made.
    run(&signer, audit, &[]);
    assert!(signer.trail().iter().any(|record| record == "key_rotated rotate success"));
}

#[test]
fn the_emergency_section_works_as_printed() {
    emergency_by_the_book(&Signer::new(), &key(1), &key(2));
}

#[test]
fn the_emergency_section_works_with_a_rotation_in_progress() {
    let signer = Signer::new();
    signer.rotate();
    emergency_by_the_book(&signer, &key(2), &key(3));
    assert_eq!(signer.states(), ["retired", "revoked", "active"]);
}

#[test]
fn the_emergency_section_works_for_the_old_key_of_a_rotation() {
    let signer = Signer::new();
    signer.rotate();
    emergency_by_the_book(&signer, &key(1), &key(3));
    assert_eq!(signer.states(), ["revoked", "retired", "active"]);
}

#[test]
fn the_emergency_section_works_in_the_other_order() {
    let signer = Signer::new();
    let [revoke, rotate, verify] = commands(EMERGENCY);
    run(&signer, rotate, &[]);
    run(&signer, revoke, &[("{key_id}", &key(1))]);
    assert_eq!(json(&run(&signer, verify, &[]))["key_id"], key(2));
    assert_eq!(signer.states(), ["revoked", "active"]);
    assert_eq!(signer.signing_key(), key(2));
}

#[test]
fn the_emergency_section_works_again_when_no_key_is_active() {
    let signer = Signer::new();
    signer.revoke(1);
    let [_, _, verify] = commands(EMERGENCY);
    assert!(run(&signer, verify, &[]).contains("no-active-key"));
    emergency_by_the_book(&signer, &key(1), &key(2));
}
