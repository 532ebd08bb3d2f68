//! Whoever looks at keys, as often as they like, does not disturb what is done to them: SoftHSM2
//! fails to make objects beside searches of the same process.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use serde_json::json;

use crate::support::signer::{Signer, key, rotation_request};

#[test]
fn twelve_rotations_succeed_while_others_look_at_keys_and_sign() {
    let signer = Signer::new();
    let (done, looks) = (AtomicBool::new(false), AtomicUsize::new(0));
    let looking = |path: &str| {
        while !done.load(Ordering::Relaxed) {
            let answer = signer.get(path);
            assert_eq!(answer.status, 200, "{path}: {}", answer.text());
            looks.fetch_add(1, Ordering::Relaxed);
        }
    };
    let certificate = format!("/api/v1/keys/{}/certificate.pem", key(1));
    let evidence = format!("/api/v1/keys/{}/evidence", key(1));
    thread::scope(|scope| {
        let stop_at_the_end = StopAtTheEnd(&done);
        for path in [&certificate, &certificate, &evidence] {
            scope.spawn(|| looking(path));
        }
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                signer.attest();
            }
        });
        for rotation in 1..=12 {
            let answer = signer.post("/api/v1/keys/rotate", &rotation_request(&json!({})));
            assert_eq!(answer.status, 201, "rotation {rotation}: {}", answer.text());
            let id = answer.json()["rotation_id"].as_str().unwrap().to_owned();
            let force = json!({ "initiated_by": "ops-team", "force": true });
            signer.post(&format!("/api/v1/rotations/{id}/complete"), &force).ok();
        }
        drop(stop_at_the_end);
    });
    assert!(looks.into_inner() > 100);
    assert_eq!(signer.signing_key(), key(13));
}

/// Ends the others when the test fails, too: the scope waits for them.
struct StopAtTheEnd<'a>(&'a AtomicBool);

impl Drop for StopAtTheEnd<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
