//! What one member does, all members follow.

use serde_json::json;

use super::members::{Fleet, rotate};
use crate::support::signer::key;

#[test]
fn a_rotation_by_one_is_followed_by_all() {
    let fleet = Fleet::of(3, "");
    for (sequence, member) in (2..).zip(&fleet.members) {
        assert_eq!(rotate(member, &json!({ "overlap_seconds": 0 })), key(sequence));
        fleet.all_follow(&key(sequence));
        for member in &fleet.members {
            assert_eq!(member.signing_key(), key(sequence));
        }
    }
}

#[test]
fn any_member_completes_what_another_began() {
    let fleet = Fleet::of(2, "");
    rotate(&fleet.members[0], &json!({}));
    let completed = fleet.members[1].post("/api/v1/rotations/rotation-2/complete", &json!({ "force": true })).ok();
    assert_eq!(completed["status"], "completed");
    fleet.members[0].reaches(&["retired", "active"]);
}

#[test]
fn what_one_member_signs_another_verifies_until_the_key_is_revoked() {
    let fleet = Fleet::of(2, "");
    let attestation = fleet.members[0].attest();
    assert_eq!(fleet.members[1].verdict(&attestation), "valid");
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    fleet.members[0].post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
    // The call has waited until every member's lease on the older view was over.
    assert_eq!(fleet.members[1].verdict(&attestation), "key_revoked");
}
