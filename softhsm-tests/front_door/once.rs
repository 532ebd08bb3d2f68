//! `Idempotency-Key`: one key, one change, one answer.

use serde_json::{Value, json};

use crate::support::{
    client::Client,
    guarded::Guarded,
    http::{Connection, request},
    signer::{Signer, key, rotation_request},
};

fn send(signer: &Signer, path: &str, id: &str, body: &Value) -> crate::support::appliance::Answer {
    let mut connection = Connection::open(&signer.api);
    let headers = [("content-type", "application/json"), ("idempotency-key", id)];
    connection.send(&request("POST", path, &headers, body.to_string().as_bytes())).unwrap();
    connection.answer().unwrap().unwrap()
}

#[test]
fn the_same_key_and_content_get_the_same_answer_and_other_content_a_conflict_over_restarts() {
    let mut signer = Signer::new();
    let rotate = rotation_request(&json!({ "notes": "once" }));
    let first = send(&signer, "/api/v1/keys/rotate", "k-rotate", &rotate);
    assert_eq!((first.status, first.header("idempotent-replayed")), (201, ""));
    let complete = format!("/api/v1/rotations/{}/complete", first.json()["rotation_id"].as_str().unwrap());
    let force = json!({ "force": true });
    signer.post(&complete, &force).ok();
    let revoke_path = format!("/api/v1/keys/{}/revoke", key(1));
    let revoke = json!({ "reason": "compromised", "initiated_by": "sec" });
    let revoked = send(&signer, &revoke_path, "k-revoke", &revoke);
    assert_eq!(revoked.json()["newly_revoked"], true);
    let destroy_path = format!("/api/v1/keys/{}/destroy", key(1));
    let destroyed = send(&signer, &destroy_path, "k-destroy", &force);
    assert_eq!(destroyed.status, 200, "{}", destroyed.text());
    let emergency = json!({ "initiated_by": "sec" });
    let ended = send(&signer, "/api/v1/keys/emergency", "k-emergency", &emergency);
    assert_eq!(ended.json()["newly_revoked"], true);

    for _ in 0..2 {
        let spaced: Value = serde_json::from_str(&rotate.to_string().replace(',', " ,\n")).unwrap();
        for (path, id, body, original) in [
            ("/api/v1/keys/rotate", "k-rotate", &spaced, &first),
            (&revoke_path, "k-revoke", &revoke, &revoked),
            (&destroy_path, "k-destroy", &force, &destroyed),
            ("/api/v1/keys/emergency", "k-emergency", &emergency, &ended),
        ] {
            let again = send(&signer, path, id, body);
            assert_eq!((again.status, again.header("idempotent-replayed")), (original.status, "true"), "{path}");
            assert_eq!(again.json(), original.json(), "{path}");
            assert_eq!(again.header("location"), original.header("location"));
            let mut other = body.clone();
            other["initiated_by"] = "somebody else".into();
            let answer = send(&signer, path, id, &other);
            assert_eq!((answer.status, &*answer.problem()), (409, "idempotency-key-reused"), "{path}");
        }
        // The same key for another key is other content too.
        let other = send(&signer, &format!("/api/v1/keys/{}/revoke", key(2)), "k-revoke", &revoke);
        assert_eq!(other.problem(), "idempotency-key-reused");
        assert_eq!(signer.states().len(), 3);
        signer.restart();
    }
}

#[test]
fn a_refusal_is_not_kept_and_a_bad_key_is_refused() {
    let signer = Signer::new();
    let id = signer.rotate();
    let rotate = rotation_request(&json!({}));
    assert_eq!(send(&signer, "/api/v1/keys/rotate", "k", &rotate).problem(), "rotation-in-progress");
    signer.post(&format!("/api/v1/rotations/{id}/complete"), &json!({ "force": true })).ok();
    assert_eq!(send(&signer, "/api/v1/keys/rotate", "k", &rotate).status, 201);
    for bad in ["", &"x".repeat(129), "\u{e4}"] {
        assert_eq!(send(&signer, "/api/v1/keys/rotate", bad, &rotate).problem(), "invalid-field", "{bad}");
    }
    assert_eq!(signer.states().len(), 3);
}

#[test]
fn many_at_once_with_one_key_make_one_change() {
    let signer = Signer::new();
    let rotate = rotation_request(&json!({ "emergency": true }));
    let statuses: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> =
            (0..12).map(|_| scope.spawn(|| send(&signer, "/api/v1/keys/rotate", "k", &rotate))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    });
    for answer in &statuses {
        assert!(answer.status == 201 || answer.problem() == "idempotency-key-busy", "{}", answer.text());
    }
    assert!(statuses.iter().any(|answer| answer.status == 201));
    let made = statuses.iter().filter(|answer| answer.status == 201 && answer.header("idempotent-replayed").is_empty());
    assert_eq!(made.count(), 1);
    assert_eq!(signer.states().len(), 2);
    // An emergency rotation without the key would be made again.
    assert_eq!(Client::new(&signer.api).post("/api/v1/keys/rotate", &rotate).unwrap().status, 201);
    assert_eq!(signer.states().len(), 3);
}

#[test]
fn what_happened_although_its_answer_was_lost_is_found_and_what_did_not_happen_is_made() {
    let mut signer = Signer::new();
    let rotate = rotation_request(&json!({ "emergency": true, "notes": "lost" }));
    let first = send(&signer, "/api/v1/keys/rotate", "k", &rotate).json();
    // As a crash between the change and its answer leaves it.
    let unanswered = |signer: &mut Signer| {
        let directory = signer.home.join("state/idempotency");
        signer.restart_after(|_| {
            for file in std::fs::read_dir(&directory).unwrap() {
                let path = file.unwrap().path();
                let mut entry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
                entry["answer"] = Value::Null;
                std::fs::write(path, entry.to_string()).unwrap();
            }
        });
    };
    unanswered(&mut signer);
    let again = send(&signer, "/api/v1/keys/rotate", "k", &rotate);
    assert_eq!((again.status, again.header("idempotent-replayed")), (201, "true"), "{}", again.text());
    assert_eq!(again.json()["rotation_id"], first["rotation_id"]);
    assert_eq!(signer.states().len(), 2);

    // Begun, and never made: the entry of a rotation that is not on the token.
    let other = rotation_request(&json!({ "emergency": true, "notes": "never made" }));
    let copy = send(&signer, "/api/v1/keys/rotate", "copied", &other);
    assert_eq!(copy.status, 201);
    let directory = signer.home.join("state/idempotency");
    signer.restart_after(|_| {
        for file in std::fs::read_dir(&directory).unwrap() {
            let path = file.unwrap().path();
            let mut entry: Value = serde_json::from_slice(&std::fs::read(&path).unwrap()).unwrap();
            entry["answer"] = Value::Null;
            // Begun after everything that is there.
            entry["began_at"] = "2999-01-01T00:00:00Z".into();
            std::fs::write(path, entry.to_string()).unwrap();
        }
    });
    let made = send(&signer, "/api/v1/keys/rotate", "copied", &other);
    assert_eq!((made.status, made.header("idempotent-replayed")), (201, ""));
    assert_eq!(signer.states().len(), 4);
}

#[test]
fn a_header_that_says_how_is_exactly_of_the_form_that_is_described() {
    let guarded = Guarded::new();
    let operator = guarded.certified("operator");
    let body = json!({ "force": true });
    for header in [
        "Idempotency-Key: a b",
        "Idempotency-Key: a\tb",
        "Approval-Id: {=O\tQPK",
        "Approval-Id: apr 1",
        "Break-Glass: nobody else\tis awake",
    ] {
        let answer = operator.clone().header(header).post("/api/v1/rotations/rotation-1/complete", &body);
        assert_eq!((answer.status, &*answer.problem()), (400, "invalid-field"), "{header}: {}", answer.text());
    }
    let answer =
        operator.header("Break-Glass: nobody else is awake").post("/api/v1/rotations/rotation-1/complete", &body);
    assert_eq!(answer.problem(), "unknown-rotation", "{}", answer.text());
}
