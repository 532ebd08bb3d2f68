//! A member that is held up in the middle of a signature while another revokes the key: what it
//! has signed is thrown away.

use std::thread;

use serde_json::json;

use super::members::Fleet;
use crate::support::{
    appliance::{Answer, Appliance, attestation_request},
    client::Client,
    signer::key,
    tracer::Tracer,
};

/// Longer than a revocation takes.
const AUDIT_DELAY: &str = "inject=fdatasync,fsync:delay_enter=5000000";

/// Asks `slow` for a signature, revokes the key through `other` meanwhile; what `slow` answers.
fn revoked_meanwhile(slow: &Appliance, other: &Appliance) -> Answer {
    let request = attestation_request(&slow.nonce());
    let client = Client::new(&slow.api);
    let hold = Tracer::attach(slow.pid(), "audit-writer", &["-o", "/dev/null", "-e", AUDIT_DELAY]);
    let asked = thread::spawn(move || client.post("/api/v1/attestations", &request).unwrap());
    crate::support::eventually("the signature waits for its record", || {
        slow.audit_log().contains("attestation_signed").then_some(())
    });
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    other.post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
    assert!(!asked.is_finished(), "the signature was not held up long enough");
    let answer = asked.join().unwrap();
    drop(hold);
    answer
}

#[test]
fn a_signature_that_waits_for_the_disk_is_not_released_once_its_key_is_revoked() {
    let fleet = Fleet::of(2, "");
    let answer = revoked_meanwhile(&fleet.members[0], &fleet.members[1]);
    assert_eq!((answer.status, answer.problem()), (503, "no-key-may-sign".into()));
    let trail = fleet.members[0].trail();
    assert!(trail.iter().any(|record| record == "attestation_rejected discard failure"), "{trail:#?}");
}

#[test]
fn a_member_that_cannot_read_the_ledger_releases_nothing_after_its_lease() {
    let fleet = Fleet::of(2, "");
    let slow = &fleet.members[0];
    let calls = "inject=all:delay_enter=12000000:when=1+";
    let blind = Tracer::attach(slow.pid(), "token-read", &["-o", "/dev/null", "-e", calls]);
    let answer = revoked_meanwhile(slow, &fleet.members[1]);
    assert_eq!((answer.status, answer.problem()), (503, "token-unavailable".into()));
    drop(blind);
}
