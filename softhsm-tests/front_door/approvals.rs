//! Dual control: what waits, who may say yes, and every way around it.

use serde_json::{Value, json};

use crate::support::{appliance::Answer, curl::Curl, guarded::Guarded};

const RULES: &str = "[approvals]\nrotate = { count = 1, roles = [\"security\"] }\nrevoke = { count = 2, roles = [\"security\", \"auditor\"] }\n";

fn rotation(notes: &str) -> Value {
    json!({ "reason": "test", "initiated_by": "ops", "notes": notes })
}

fn rotate(curl: &Curl, notes: &str) -> Answer {
    curl.post("/api/v1/keys/rotate", &rotation(notes))
}

fn keys(guarded: &Guarded) -> usize {
    guarded.certified("auditor").get("/api/v1/keys").ok().as_array().unwrap().len()
}

fn refused(what: &str, answer: &Answer, status: u16, problem: &str) {
    assert_eq!((answer.status, &*answer.problem()), (status, problem), "{what}: {}", answer.text());
}

/// Asks for a rotation, which must wait; its id and digest.
fn ask(guarded: &Guarded, notes: &str) -> (String, String) {
    let answer = rotate(&guarded.certified("operator"), notes);
    assert_eq!(answer.status, 202, "{}", answer.text());
    let request = answer.json();
    let id = request["approval_id"].as_str().unwrap().to_owned();
    assert_eq!(answer.header("location"), format!("/api/v1/approvals/{id}"));
    assert_eq!((&request["status"], &request["content"]["notes"]), (&json!("pending"), &json!(notes)));
    (id, request["digest"].as_str().unwrap().to_owned())
}

fn approve(guarded: &Guarded, client: &str, id: &str, digest: &str) -> Answer {
    guarded.certified(client).post(&format!("/api/v1/approvals/{id}/approve"), &json!({ "digest": digest }))
}

#[test]
fn a_rotation_waits_is_approved_by_another_and_is_made_once() {
    let mut guarded = Guarded::with("none", "", RULES);
    let (id, digest) = ask(&guarded, "planned");
    assert_eq!(ask(&guarded, "planned").0, id, "the same request waits once");
    assert_eq!(keys(&guarded), 1);
    guarded.crash();
    assert_eq!(approve(&guarded, "security", &id, &digest).ok()["status"], "approved");
    guarded.crash();
    // Whoever did not ask for it cannot use it.
    let other = guarded.certified("security").header(&format!("Approval-Id: {id}"));
    let emergency = json!({ "reason": "test", "initiated_by": "ops", "emergency": true });
    refused("another's", &other.post("/api/v1/keys/rotate", &emergency), 403, "approval-of-another");
    let made = rotate(&guarded.certified("operator"), "planned");
    assert_eq!(made.status, 201, "{}", made.text());
    assert_eq!(keys(&guarded), 2);

    let view = guarded.certified("auditor").get(&format!("/api/v1/approvals/{id}")).ok();
    assert_eq!((&view["status"], &view["approvals"][0]["by"]), (&json!("used"), &json!("security")));
    let list = guarded.certified("auditor").get("/api/v1/approvals").ok();
    assert_eq!(list.as_array().unwrap().len(), 1);
    let events = guarded.appliance().audit_events("access_granted");
    let actions: Vec<_> = events.iter().map(|event| event["action"].as_str().unwrap()).collect();
    for action in ["request-approval", "approve", "use-approval"] {
        assert!(actions.contains(&action), "{action}: {actions:?}");
    }
    assert_eq!(guarded.appliance().unanswered(), Vec::<u64>::new());
}

#[test]
fn nobody_gets_around_the_others() {
    let mut guarded = Guarded::with("none", "", RULES);
    let (id, digest) = ask(&guarded, "planned");
    let named = |guarded: &Guarded| guarded.certified("operator").header(&format!("Approval-Id: {id}"));

    // Zero approvals.
    let answer = rotate(&named(&guarded), "planned");
    assert_eq!((answer.status, &answer.json()["approvals"]), (202, &json!([])));
    refused(
        "an approval that is none",
        &rotate(&guarded.certified("operator").header("Approval-Id: apr-none"), "planned"),
        404,
        "unknown-approval",
    );
    // One's own, by any name.
    refused("one's own", &approve(&guarded, "operator", &id, &digest), 403, "missing-role");
    let emergency = json!({ "reason": "test", "initiated_by": "sec", "emergency": true });
    let own = guarded.certified("security").post("/api/v1/keys/rotate", &emergency).json();
    let (own_id, own_digest) = (own["approval_id"].as_str().unwrap(), own["digest"].as_str().unwrap());
    refused("self-approval", &approve(&guarded, "security", own_id, own_digest), 403, "own-request");
    let token = guarded.tls().bearer(&guarded.provider.token("security"));
    let path = format!("/api/v1/approvals/{own_id}/approve");
    refused(
        "self-approval by another credential",
        &token.post(&path, &json!({ "digest": own_digest })),
        403,
        "own-request",
    );
    // Without the role, or for something else.
    refused("no role", &approve(&guarded, "auditor", &id, &digest), 403, "missing-role");
    refused("no role at all", &approve(&guarded, "producer", &id, &digest), 403, "missing-role");
    refused("another digest", &approve(&guarded, "security", &id, own_digest), 409, "approval-content");
    assert_eq!(approve(&guarded, "security", &id, "").status, 409);
    assert_eq!(keys(&guarded), 1);

    // Changed after it was approved.
    assert_eq!(approve(&guarded, "security", &id, &digest).status, 200);
    refused("replayed", &approve(&guarded, "security", &id, &digest), 409, "approval-given");
    refused("changed", &rotate(&named(&guarded), "changed"), 409, "approval-content");
    let changed = json!({ "reason": "test", "initiated_by": "ops", "notes": "planned", "algorithm": "Ed25519" });
    refused("changed algorithm", &named(&guarded).post("/api/v1/keys/rotate", &changed), 409, "approval-content");
    refused(
        "another operation",
        &named(&guarded).post(
            "/api/v1/keys/rotate",
            &json!({ "reason": "test", "initiated_by": "ops", "notes": "planned", "overlap_seconds": 1 }),
        ),
        409,
        "approval-content",
    );
    assert_eq!(rotate(&guarded.certified("operator"), "changed").status, 202, "it waits for one of its own");
    assert_eq!(keys(&guarded), 1);

    // Used once, also over a restart.
    assert_eq!(rotate(&named(&guarded), "planned").status, 201);
    for _ in 0..2 {
        refused("used", &rotate(&named(&guarded), "planned"), 409, "approval-closed");
        refused("approved once more", &approve(&guarded, "security-2", &id, &digest), 409, "approval-closed");
        assert_eq!(rotate(&guarded.certified("operator"), "planned").status, 202, "it waits anew");
        guarded.restart();
    }
    assert_eq!(keys(&guarded), 2);
    assert!(guarded.appliance().audit_events("access_denied").len() >= 10);
}

#[test]
fn two_are_two_different_people_and_one_against_it_is_enough() {
    let guarded = Guarded::with("none", "", RULES);
    let revoke = |client: &str| {
        let body = json!({ "reason": "administrative", "initiated_by": "sec" });
        guarded.certified(client).post("/api/v1/keys/veid-signer-test:1/revoke", &body)
    };
    let request = revoke("security").json();
    let (id, digest) = (request["approval_id"].as_str().unwrap(), request["digest"].as_str().unwrap());
    assert_eq!(approve(&guarded, "security-2", id, digest).ok()["status"], "pending");
    refused("twice", &approve(&guarded, "security-2", id, digest), 409, "approval-given");
    assert_eq!(revoke("security").status, 202);
    assert_eq!(approve(&guarded, "auditor", id, digest).ok()["status"], "approved");
    let reject = |client: &str| {
        let body = json!({ "reason": "not today" });
        guarded.certified(client).post(&format!("/api/v1/approvals/{id}/reject"), &body)
    };
    refused("no role", &reject("operator"), 403, "missing-role");
    assert_eq!(reject("auditor").ok()["status"], "rejected");
    let named = guarded.certified("security").header(&format!("Approval-Id: {id}"));
    let body = json!({ "reason": "administrative", "initiated_by": "sec" });
    refused("rejected", &named.post("/api/v1/keys/veid-signer-test:1/revoke", &body), 409, "approval-closed");
    assert_eq!(guarded.certified("auditor").get("/api/v1/keys/active").ok()["key_id"], "veid-signer-test:1");
}

#[test]
fn what_somebody_approved_who_is_blocked_by_now_does_not_count() {
    let guarded = Guarded::with("none", "", RULES);
    let (id, digest) = ask(&guarded, "planned");
    assert_eq!(approve(&guarded, "security", &id, &digest).ok()["status"], "approved");
    let block = json!({ "client": "security", "reason": "stolen laptop", "initiated_by": "sec" });
    let blocked = guarded.certified("security-2").post("/api/v1/blocks", &block);
    assert_eq!(blocked.status, 201, "{}", blocked.text());
    let waits = rotate(&guarded.certified("operator"), "planned");
    assert_eq!((waits.status, &waits.json()["approvals"]), (202, &json!([])), "{}", waits.text());
    assert_eq!(keys(&guarded), 1);
    // Nor does it when the block is lifted.
    let path = format!("/api/v1/blocks/{}", blocked.json()["id"].as_str().unwrap());
    assert_eq!(guarded.certified("security-2").send("DELETE", &path, None).unwrap().status, 200);
    assert_eq!(rotate(&guarded.certified("operator"), "planned").status, 202);
    assert_eq!(approve(&guarded, "security-2", &id, &digest).ok()["status"], "approved");
    assert_eq!(rotate(&guarded.certified("operator"), "planned").status, 201);
}

#[test]
fn an_approval_ends_with_its_time() {
    let guarded = Guarded::with("none", "", &format!("{RULES}expiry = \"2s\"\n"));
    let (id, digest) = ask(&guarded, "planned");
    assert_eq!(approve(&guarded, "security", &id, &digest).status, 200);
    crate::support::eventually("it expires", || {
        let view = guarded.certified("auditor").get(&format!("/api/v1/approvals/{id}")).ok();
        (view["status"] == "expired").then_some(())
    });
    let named = guarded.certified("operator").header(&format!("Approval-Id: {id}"));
    refused("expired", &rotate(&named, "planned"), 409, "approval-closed");
    refused("expired", &approve(&guarded, "security-2", &id, &digest), 409, "approval-closed");
    assert_ne!(ask(&guarded, "planned").0, id);
    assert_eq!(keys(&guarded), 1);
}

#[test]
fn one_person_may_break_the_glass_and_everybody_hears_it() {
    let guarded = Guarded::with("none", "", RULES);
    let series = "virtengine_verification_break_glass_total{operation=\"revoke\"}";
    assert_eq!(guarded.appliance().metric(series), "0");
    let body = json!({ "reason": "compromised", "initiated_by": "sec" });
    let revoke = |client: &str, reason: &str| {
        let curl = guarded.certified(client).header(&format!("Break-Glass: {reason}"));
        curl.post("/api/v1/keys/veid-signer-test:1/revoke", &body)
    };
    refused("no reason worth the name", &revoke("security", "now"), 400, "invalid-field");
    let operator = guarded.certified("operator").header("Break-Glass: nobody else is awake");
    refused("not security", &rotate(&operator, "planned"), 403, "missing-role");
    assert_eq!(guarded.appliance().metric(series), "0");
    assert_eq!(revoke("security", "key on a public page").ok()["revoked"], true);
    assert_eq!(guarded.appliance().metric(series), "1");
    let alarms = guarded.appliance().audit_events("security_alert");
    let alarm = alarms.iter().find(|alarm| alarm["action"] == "break-glass").unwrap();
    assert_eq!((&alarm["severity"], &alarm["actor"]), (&json!("critical"), &json!("security")));
    assert_eq!(alarm["details"]["reason"], "key on a public page");
    // On record before the key was touched.
    let revoked = &guarded.appliance().audit_events("key_revoked")[0];
    assert!(alarm["sequence"].as_u64().unwrap() < revoked["sequence"].as_u64().unwrap());
    assert!(guarded.appliance().log().contains("break glass"));
}

#[test]
fn a_refused_change_gives_its_approval_back() {
    let mut guarded = Guarded::with("none", "", RULES);
    for notes in ["planned", "the one before"] {
        let (id, digest) = ask(&guarded, notes);
        assert_eq!(approve(&guarded, "security", &id, &digest).status, 200);
    }
    let first = rotate(&guarded.certified("operator"), "the one before").json();
    refused("in progress", &rotate(&guarded.certified("operator"), "planned"), 409, "rotation-in-progress");
    let complete = format!("/api/v1/rotations/{}/complete", first["rotation_id"].as_str().unwrap());
    assert_eq!(guarded.certified("operator").post(&complete, &json!({ "force": true })).status, 200);
    guarded.restart();
    assert_eq!(rotate(&guarded.certified("operator"), "planned").status, 201, "the approval was given back");
    assert_eq!(keys(&guarded), 3);
}

#[test]
fn a_change_that_may_have_been_made_leaves_its_approval_used_up() {
    let guarded = Guarded::with("none", "", RULES);
    let (id, digest) = ask(&guarded, "planned");
    assert_eq!(approve(&guarded, "security", &id, &digest).status, 200);
    let (tokens, away) = (guarded.tokens(), guarded.home().join("away"));
    std::fs::rename(&tokens, &away).unwrap();
    let failed = rotate(&guarded.certified("operator"), "planned");
    assert_eq!(failed.status, 503, "{}", failed.text());
    std::fs::rename(&away, &tokens).unwrap();
    let named = guarded.certified("operator").header(&format!("Approval-Id: {id}"));
    refused("used up", &rotate(&named, "planned"), 409, "approval-closed");
}
