//! Clocks that jump: deadlines count at the moment of use, and nothing falls over.

use std::process::Command;

use serde_json::json;
use tempfile::TempDir;

use super::members::rotate;
use crate::support::{
    appliance::{Appliance, BINARY},
    eventually,
    shifted::ShiftedClock,
    signer::{first_key_here, key},
    softhsm::SoftHsm,
};

/// An appliance whose wall clock is what the test says.
struct Shifted {
    appliance: Appliance,
    clock: ShiftedClock,
    token: SoftHsm,
    home: TempDir,
}

impl Shifted {
    fn new(key_policy: &str) -> Self {
        let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        let config = token.config(home.path(), &first_key_here(&token, key_policy, ""));
        let clock = ShiftedClock::new(home.path());
        let mut command = Command::new(BINARY);
        command.args(["serve", "--config"]).arg(&config).envs(token.environment());
        clock.govern(&mut command);
        let appliance = Appliance::start(command, home.path())
            .unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"));
        Self { appliance, clock, token, home }
    }

    /// Sets the clock so many days ahead of the true time, or behind it.
    fn days(&self, days: i64) -> &Appliance {
        self.clock.seconds(days * 86_400);
        &self.appliance
    }

    /// Another member on the same token, whose clock is right.
    fn colleague(&self) -> Appliance {
        Appliance::serve(&self.token, &self.token.config(&self.home.path().join("colleague"), "")).unwrap()
    }
}

fn warnings(appliance: &Appliance) -> (u16, String) {
    let health = appliance.get("/healthz");
    (health.status, health.json()["warnings"].to_string())
}

#[test]
fn a_hundred_days_on_no_key_signs_and_health_says_so() {
    let shifted = Shifted::new("");
    let appliance = shifted.days(100);
    let refused = appliance.try_attest();
    assert_eq!((refused.status, refused.problem()), (503, "no-key-may-sign".into()));
    assert_eq!(appliance.post_empty("/api/v1/sign/test").problem(), "no-key-may-sign");
    assert_eq!(appliance.states(), ["expired"]);
    let (status, warnings) = warnings(appliance);
    assert_eq!(status, 503);
    assert!(warnings.contains("nothing can be signed"), "{warnings}");
    eventually("the expiry is on record", || {
        appliance.trail().contains(&"key_expired warn success".to_owned()).then_some(())
    });
    assert_eq!(rotate(appliance, &json!({})), key(2));
    assert_eq!(appliance.signing_key(), key(2));
}

#[test]
fn a_clock_that_was_wrong_for_a_while_leaves_nothing_broken() {
    let shifted = Shifted::new("");
    for days in [100, 0, -100, 0, 100, -100, 0] {
        let appliance = shifted.days(days);
        let answer = appliance.try_attest();
        if days > 0 {
            assert_eq!((answer.status, answer.problem()), (503, "no-key-may-sign".into()));
        } else {
            assert!(answer.status == 200 || days < 0, "{days} days: {}", answer.text());
            assert!(answer.status < 500 || answer.problem() == "no-key-may-sign", "{days} days: {}", answer.text());
        }
        if days < 0 {
            let (_, warnings) = warnings(appliance);
            assert!(warnings.contains("clock"), "{warnings}");
        }
        assert_eq!(appliance.get("/livez").status, 200);
        assert!(!appliance.log().contains("panicked"), "{}", appliance.log());
    }
    assert_eq!(shifted.appliance.signing_key(), key(1));
}

#[test]
fn from_eighty_days_on_health_warns_and_the_key_still_signs() {
    let shifted = Shifted::new("");
    assert_eq!(warnings(shifted.days(79)), (200, "[]".into()));
    let appliance = shifted.days(81);
    let (status, warnings) = warnings(appliance);
    assert_eq!(status, 200);
    assert!(warnings.contains("rotate it"), "{warnings}");
    assert_eq!(appliance.get("/healthz").json()["status"], "warning");
    assert_eq!(appliance.signing_key(), key(1));
    eventually("the warning is on record", || {
        appliance.trail().contains(&"health_check warn success".to_owned()).then_some(())
    });
}

#[test]
fn an_overlap_that_a_jump_has_passed_counts_as_ended() {
    let shifted = Shifted::new("complete_automatically = false");
    rotate(shifted.days(0), &json!({}));
    assert_eq!(shifted.appliance.states(), ["rotating", "active"]);
    let appliance = shifted.days(8);
    assert_eq!(appliance.states(), ["retired", "active"]);
    assert_eq!(appliance.get("/api/v1/rotations/rotation-2").ok()["status"], "overlap_ended");
    let completed = appliance.post("/api/v1/rotations/rotation-2/complete", &json!({})).ok();
    assert_eq!((&completed["status"], &completed["forced"]), (&json!("completed"), &json!(false)));
}

#[test]
fn an_automatic_rotation_happens_after_a_jump() {
    let shifted = Shifted::new("rotate_at_age = \"85d\"");
    let appliance = shifted.days(86);
    appliance.reaches(&["rotating", "active"]);
    assert_eq!(appliance.signing_key(), key(2));
    eventually("the rotation is on record", || {
        appliance.trail().contains(&"key_rotated rotate success".to_owned()).then_some(())
    });
    assert!(appliance.audit_log().contains("\"actor\":\"automatic\""));
}

#[test]
fn a_revocation_by_a_clock_that_is_behind_holds_for_all() {
    let shifted = Shifted::new("");
    let colleague = shifted.colleague();
    let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
    shifted.days(-100).post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
    assert_eq!(colleague.try_attest().problem(), "no-key-may-sign");
    assert_eq!(shifted.days(0).try_attest().problem(), "no-key-may-sign");
}
