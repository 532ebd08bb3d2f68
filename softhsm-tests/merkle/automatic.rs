//! Requests that share a signature by themselves: a token that is slow signs for all who wait.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{issued, python, written};
use crate::support::{
    appliance::{Answer, Appliance, attestation_request},
    client::Client,
    eventually,
    faults::Faults,
    http,
    site::Site,
    tool,
};

const SHARED: &str = "/api/v1/attestations?proof=merkle";

/// An appliance on a token of which the tests say how slow it is.
fn site(token: &str, merkle: &str) -> (Site, Faults) {
    let (site, faults) = Site::with_key().faulty();
    site.edit_config("[token]", &format!("[token]\n{token}"));
    site.edit_config("[audit]", &format!("[merkle]\n{merkle}\n[audit]"));
    (site, faults)
}

/// Asks for all at once, each from a client of its own.
fn at_once(appliance: &Appliance, requests: &[Value]) -> Vec<Answer> {
    thread::scope(|scope| {
        let ask = |request| {
            let client = Client::new(&appliance.api);
            scope.spawn(move || client.post(SHARED, request).unwrap())
        };
        let asked: Vec<_> = requests.iter().map(ask).collect();
        asked.into_iter().map(|one| one.join().unwrap()).collect()
    })
}

fn requests(appliance: &Appliance, count: usize) -> Vec<Value> {
    issued(appliance, count).iter().map(|nonce| attestation_request(nonce)).collect()
}

fn tree_size(attestation: &Value) -> u64 {
    attestation["proof"]["merkle"]["tree_size"].as_u64().unwrap()
}

#[test]
fn those_who_wait_for_a_slow_token_share_its_next_signature() {
    let (site, faults) = site("workers = 1", "");
    let appliance = site.serve().unwrap();
    let requests = requests(&appliance, 60);
    faults.set("C_Sign delay=300ms at-once=1");
    let before = faults.calls("C_Sign");
    let answers: Vec<_> = at_once(&appliance, &requests).into_iter().map(Answer::ok).collect();
    let signatures = faults.calls("C_Sign") - before;
    assert!((2..12).contains(&signatures), "{signatures} signatures for 60 attestations");
    let home = tempfile::tempdir().unwrap();
    let keys = written(home.path(), "jwks.json", &appliance.get("/.well-known/jwks.json").ok());
    let entries: Vec<_> = answers.iter().map(|one| json!({ "status": 200, "attestation": one })).collect();
    let output = python(&keys, &[&written(home.path(), "all.json", &json!(entries))]);
    assert!(output.status.success(), "{}", tool::text(&output.stdout));
    for (request, answer) in requests.iter().zip(&answers) {
        assert_eq!(answer["nonce"], request["nonce"]);
    }
    assert_eq!(appliance.audit_events("attestation_signed").len(), 60);
}

#[test]
fn a_quiet_system_adds_no_delay_and_a_tree_of_one_is_a_tree() {
    // Whoever waited for others would wait for ten seconds.
    let (site, faults) = site("", "max_batch_wait = \"10s\"");
    let appliance = site.serve().unwrap();
    for request in requests(&appliance, 5) {
        let (begun, before) = (Instant::now(), faults.calls("C_Sign"));
        let answer = appliance.post(SHARED, &request).ok();
        assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
        assert_eq!((tree_size(&answer), faults.calls("C_Sign") - before), (1, 1));
        assert_eq!(appliance.verdict(&answer), "valid");
    }
}

#[test]
fn every_session_of_the_token_is_kept_busy() {
    let (site, faults) = site("workers = 4", "max_batch = 1");
    let appliance = site.serve().unwrap();
    let requests = requests(&appliance, 4);
    faults.set("C_Sign delay=1s");
    let begun = Instant::now();
    for answer in at_once(&appliance, &requests) {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert!(begun.elapsed() < Duration::from_millis(3500), "one after the other: {:?}", begun.elapsed());
}

#[test]
fn a_batch_is_full_and_too_many_are_turned_away_with_their_nonces() {
    // A deadline in which all of them could be signed.
    let (site, faults) = site("workers = 1\ncall_deadline = \"60s\"", "max_batch = 3");
    let appliance = site.serve().unwrap();
    let requests = requests(&appliance, 40);
    faults.set("C_Sign delay=400ms at-once=1");
    let answers = at_once(&appliance, &requests);
    let (signed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    // One that is being signed, one that may hurry, and twelve that wait.
    assert!(signed.len() >= 12 && !refused.is_empty(), "{} and {}", signed.len(), refused.len());
    assert!(signed.iter().all(|answer| tree_size(&answer.json()) <= 3));
    for answer in refused {
        assert_eq!((answer.status, answer.header("retry-after")), (503, "1"), "{}", answer.text());
    }
    faults.clear();
    for request in &requests {
        assert_eq!(appliance.post(SHARED, request).status, 200, "the nonce is still good, or the answer is the same");
    }
}

#[test]
fn a_signature_that_hangs_keeps_those_behind_it_no_longer_than_they_want_to_wait() {
    let token = "isolation = false\nworkers = 1\ncall_deadline = \"20s\"";
    let (site, faults) = site(token, "max_batch_wait = \"100ms\"");
    let appliance = site.serve().unwrap();
    appliance.attest();
    let requests = requests(&appliance, 6);
    faults.set("C_Sign hang times=1");
    let before = faults.calls("C_Sign");
    thread::scope(|scope| {
        let client = Client::new(&appliance.api);
        let hangs = scope.spawn(move || client.post(SHARED, &requests[0]).unwrap().status);
        eventually("the first hangs", || (faults.calls("C_Sign") > before).then_some(()));
        let begun = Instant::now();
        for answer in at_once(&appliance, &self::requests(&appliance, 5)) {
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
        assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
        faults.clear();
        hangs.join().unwrap();
    });
}

#[test]
fn a_client_that_goes_away_holds_nobody_up_and_its_attestation_is_on_record() {
    let (site, faults) = site("workers = 1", "");
    let appliance = site.serve().unwrap();
    let requests = requests(&appliance, 10);
    faults.set("C_Sign delay=300ms at-once=1");
    for request in &requests[..5] {
        let connection = http::Connection::open(&appliance.api);
        connection.reset_after(&http::json_post(SHARED, &serde_json::to_vec(request).unwrap()));
    }
    for answer in at_once(&appliance, &requests[5..]) {
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    faults.clear();
    eventually("all ten are on record", || (appliance.audit_events("attestation_signed").len() == 10).then_some(()));
    // They come back for what they asked for.
    for request in &requests[..5] {
        assert_eq!(appliance.verdict(&appliance.post(SHARED, request).ok()), "valid");
    }
    assert_eq!(appliance.audit_events("attestation_signed").len(), 10);
}

#[test]
fn those_who_waited_while_the_key_was_rotated_are_signed_by_its_successor() {
    let (site, faults) = site("workers = 1\ncall_deadline = \"30s\"", "");
    let appliance = site.serve().unwrap();
    let requests = requests(&appliance, 8);
    // Until the rotation is done.
    faults.set("C_Sign hang times=1");
    let before = faults.calls("C_Sign");
    let answers = thread::scope(|scope| {
        let asked = scope.spawn(|| at_once(&appliance, &requests));
        eventually("the token is signing", || (faults.calls("C_Sign") > before).then_some(()));
        let rotation = appliance.post("/api/v1/keys/rotate", &json!({ "reason": "rotation", "initiated_by": "test" }));
        assert_eq!(rotation.status, 201, "{}", rotation.text());
        faults.clear();
        asked.join().unwrap()
    });
    let active = appliance.get("/api/v1/keys/active").ok()["key_id"].clone();
    let answers: Vec<_> = answers.into_iter().map(Answer::ok).collect();
    for answer in &answers {
        assert_eq!(appliance.verdict(answer), "valid");
        let issuer = &answer["issuer"];
        assert!(answer["proof"]["verification_method"].as_str().unwrap().ends_with(issuer["key_id"].as_str().unwrap()));
    }
    assert!(answers.iter().any(|answer| answer["issuer"]["key_id"] == active), "none by the successor");
}
