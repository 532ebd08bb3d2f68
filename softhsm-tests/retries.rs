//! One nonce, one signature: a repeated request gets the first answer, everything else is refused.

use std::thread;

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance, attestation_request},
    eventually,
    http::{Connection, json_post},
    site::Site,
    tool,
};

const PATH: &str = "/api/v1/attestations";

fn signed_records(appliance: &Appliance) -> usize {
    appliance.audit_events("attestation_signed").len()
}

/// The same answer, byte for byte, with the same place in the trail.
fn assert_same(first: &Answer, again: &Answer) {
    assert_eq!((first.status, again.status), (200, 200), "{} {}", first.text(), again.text());
    assert_eq!(first.text(), again.text());
    assert_eq!(first.header("audit-sequence"), again.header("audit-sequence"));
}

#[test]
fn a_retry_gets_the_same_attestation_and_no_second_signature() {
    let (site, spy) = Site::new().spied();
    let appliance = site.serve().unwrap();
    let request = attestation_request(&appliance.nonce());
    let before = spy.calls("C_SignInit");
    let first = appliance.post(PATH, &request);
    for _ in 0..3 {
        assert_same(&first, &appliance.post(PATH, &request));
    }
    assert_eq!(spy.calls("C_SignInit"), before + 1);
    assert_eq!(signed_records(&appliance), 1);
    let written = "virtengine_verification_audit_events_total{event_type=\"attestation_signed\",severity=\"info\"}";
    assert_eq!(appliance.metric(written), "1");
    assert_eq!(appliance.metric("virtengine_verification_nonce_used_total"), "1");
}

#[test]
fn of_many_requests_at_once_one_is_signed_and_all_get_its_answer() {
    let (site, spy) = Site::new().spied();
    let appliance = site.serve().unwrap();
    for _ in 0..3 {
        let (signatures, records) = (spy.calls("C_SignInit"), signed_records(&appliance));
        let request = attestation_request(&appliance.nonce());
        let answers: Vec<_> = thread::scope(|scope| {
            let callers: Vec<_> = (0..32).map(|_| scope.spawn(|| appliance.post(PATH, &request))).collect();
            callers.into_iter().map(|caller| caller.join().unwrap()).collect()
        });
        for answer in &answers {
            assert_same(&answers[0], answer);
        }
        assert_eq!(spy.calls("C_SignInit"), signatures + 1);
        assert_eq!(signed_records(&appliance), records + 1);
    }
}

#[test]
fn of_many_different_requests_for_one_nonce_one_is_signed_and_the_others_conflict() {
    let appliance = Appliance::dev();
    let mut request = attestation_request(&appliance.nonce());
    let requests: Vec<_> = (0..32u8)
        .map(|score| {
            request["score"] = json!(score);
            request.clone()
        })
        .collect();
    let answers: Vec<_> = thread::scope(|scope| {
        let callers: Vec<_> = requests.iter().map(|request| scope.spawn(|| appliance.post(PATH, request))).collect();
        callers.into_iter().map(|caller| caller.join().unwrap()).collect()
    });
    let (signed, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(signed.len(), 1);
    assert!(refused.iter().all(|answer| answer.status == 409 && answer.problem() == "nonce-already-used"));
    assert_eq!(signed_records(&appliance), 1);
}

#[test]
fn other_content_under_a_spent_nonce_is_a_conflict() {
    let appliance = Appliance::dev();
    let request = attestation_request(&appliance.nonce());
    let first = appliance.post(PATH, &request);
    for (field, other) in [
        ("score", json!(90)),
        ("confidence", json!(89)),
        ("validity_seconds", json!(3601)),
        ("model_version", json!("2")),
        ("metadata", json!({ "a": "b" })),
        ("verification_proofs", json!([])),
        ("subject", json!({ "account_address": "virtengine1other" })),
        ("subject", json!({ "account_address": "virtengine1qyfe", "scope_id": "s" })),
    ] {
        let mut changed = request.clone();
        changed[field] = other;
        let answer = appliance.post(PATH, &changed);
        assert_eq!((answer.status, answer.problem().as_str()), (409, "nonce-already-used"), "{changed}");
        assert!(!answer.text().contains("proof_value"), "{}", answer.text());
    }
    assert_same(&first, &appliance.post(PATH, &request));
    assert_eq!(signed_records(&appliance), 1);
}

#[test]
fn another_spelling_of_the_same_content_is_the_same_content() {
    let appliance = Appliance::dev();
    let nonce = appliance.nonce();
    let spellings = [
        r#"{"type":"email_verification","subject":{"account_address":"virtengine1qyfe"},"nonce":"NONCE","validity_seconds":60,"score":9,"confidence":8,"metadata":{"a":"1","b":"2"}}"#,
        r#"{"metadata":{"b":"2","a":"1"},"confidence":8,"score":9,"validity_seconds":60,"nonce":"NONCE","subject":{"account_address":"virtengine1qyfe"},"type":"email_verification"}"#,
        "\r\n { \"type\" :\t\"email_verification\", \"subject\" : { \"account_address\":\"virtengine1qyfe\" } ,\n\"nonce\":\"NONCE\",\"validity_seconds\":60 , \"score\":9, \"confidence\":8,\"metadata\":{ \"a\":\"1\", \"b\":\"2\" } }\n",
        r#"{"t\u0079pe":"email\u005fverification","subject":{"account_address":"virtengine1\u0071yfe"},"nonce":"NONCE","validity_seconds":60,"score":9,"confidence":8,"metadata":{"\u0061":"1","b":"\u0032"}}"#,
        r#"{"type":"email_verification","subject":{"account_address":"virtengine1qyfe","scope_id":""},"nonce":"NONCE","validity_seconds":60,"score":9,"confidence":8,"metadata":{"a":"1","b":"2"},"model_version":"","verification_proofs":null,"issued_at":null,"expires_at":null}"#,
    ];
    let answers = spellings
        .map(|spelling| appliance.post_bytes(PATH, "application/json", spelling.replace("NONCE", &nonce).as_bytes()));
    for answer in &answers {
        assert_same(&answers[0], answer);
    }
    assert_eq!(signed_records(&appliance), 1);
}

#[test]
fn a_caller_who_hangs_up_and_tries_again_gets_the_one_attestation() {
    let appliance = Appliance::dev();
    for round in 1..=20 {
        let request = attestation_request(&appliance.nonce());
        let bytes = json_post(PATH, &serde_json::to_vec(&request).unwrap());
        let mut connection = Connection::open(&appliance.api);
        // Half of the time in the middle of the body, half of the time just after its end.
        let sent = if round % 2 == 0 { &bytes[..bytes.len() - 10] } else { &bytes[..] };
        connection.send(sent).unwrap();
        drop(connection);
        let first = appliance.post(PATH, &request);
        assert_same(&first, &appliance.post(PATH, &request));
        assert_eq!(signed_records(&appliance), round);
    }
}

#[test]
fn callers_whose_connections_break_do_not_stop_what_they_began() {
    const CALLERS: usize = 64;
    let appliance = Appliance::dev();
    let requests: Vec<_> = (0..CALLERS).map(|_| attestation_request(&appliance.nonce())).collect();
    for request in &requests {
        Connection::open(&appliance.api).reset_after(&json_post(PATH, &serde_json::to_vec(request).unwrap()));
    }
    for request in &requests {
        let answer = appliance.post(PATH, request);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
    assert_eq!(signed_records(&appliance), CALLERS);
}

#[test]
fn a_request_whose_caller_has_gone_is_still_finished_and_recorded() {
    let appliance = Appliance::dev();
    let request = attestation_request(&appliance.nonce());
    let mut connection = Connection::open(&appliance.api);
    connection.send(&json_post(PATH, &serde_json::to_vec(&request).unwrap())).unwrap();
    drop(connection);
    eventually("the signature is recorded", || (signed_records(&appliance) == 1).then_some(()));
    let answer = appliance.post(PATH, &request);
    assert_eq!(answer.status, 200);
    let recorded = &appliance.audit_events("attestation_signed")[0]["sequence"];
    assert_eq!(answer.header("audit-sequence"), recorded.to_string());
}

fn refused(appliance: &Appliance, request: &Value) -> (u16, String) {
    let answer = appliance.post(PATH, request);
    (answer.status, answer.problem())
}

#[test]
fn a_nonce_is_good_for_what_it_was_issued_for_only() {
    let appliance = Appliance::dev();
    let order = json!({ "attestation_type": "email_verification", "subject_address": "virtengine1qyfe" });
    let nonce = appliance.post("/api/v1/nonces", &order).ok()["nonce"].as_str().unwrap().to_owned();
    let good = attestation_request(&nonce);
    let with = |field: &str, value: Value| {
        let mut changed = good.clone();
        changed[field] = value;
        refused(&appliance, &changed)
    };
    assert_eq!(with("type", json!("sms_verification")), (422, "nonce-type-mismatch".into()));
    assert_eq!(with("subject", json!({ "account_address": "virtengine1x" })), (422, "nonce-subject-mismatch".into()));
    assert_eq!(with("issued_at", json!("2020-01-01T00:00:00Z")), (422, "nonce-invalid-timestamp".into()));
    assert_eq!(with("issued_at", json!("2999-01-01T00:00:00Z")), (422, "nonce-invalid-timestamp".into()));
    assert_eq!(with("nonce", json!("ab".repeat(32))), (422, "nonce-not-found".into()));
    assert_eq!(signed_records(&appliance), 0);
    // None of these refusals has spent it.
    assert_eq!(appliance.post(PATH, &good).status, 200);
}

#[test]
fn a_weak_or_malformed_nonce_is_refused_by_name() {
    let appliance = Appliance::dev();
    let upper_case = appliance.nonce().to_uppercase();
    for nonce in ["00".repeat(32), "ff".repeat(32), "ab".repeat(15), "ab".repeat(65), "xy".repeat(32), upper_case] {
        let answer = appliance.post(PATH, &attestation_request(&nonce));
        assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid-field"), "{nonce}");
        assert_eq!(answer.json()["errors"][0]["field"], "nonce");
    }
}

/// Without authentication a client is its address: curl calls from another one.
#[test]
fn another_client_gets_neither_the_nonce_nor_the_answer() {
    let appliance = Appliance::dev();
    let request = attestation_request(&appliance.nonce());
    let from_elsewhere = || -> Value {
        let url = format!("{}{PATH}", appliance.api);
        let (json, body) = ("content-type: application/json", request.to_string());
        let arguments = ["--silent", "--interface", "127.0.0.2", "--header", json, "--data", &body, &url];
        serde_json::from_str(&tool::run("curl", &arguments, &[])).unwrap()
    };
    assert_eq!(from_elsewhere()["type"], "/problems/nonce-issuer-mismatch");
    let first = appliance.post(PATH, &request);
    let refusal = from_elsewhere();
    assert_eq!((&refusal["type"], &refusal["status"]), (&json!("/problems/nonce-already-used"), &json!(409)));
    assert!(!refusal.to_string().contains("127.0.0.1"), "{refusal}");
    let alerts = appliance.audit_events("security_alert");
    assert_eq!(alerts.len(), 1);
    let (alert, details) = (&alerts[0], &alerts[0]["details"]);
    assert_eq!((&alert["severity"], &details["alert"]), (&json!("critical"), &json!("nonce_replay")));
    assert_eq!(
        (&details["presented_by"], &details["spent_by"]),
        (&json!("anonymous@127.0.0.2"), &json!("anonymous@127.0.0.1"))
    );
    assert_eq!(details["nonce_sha256"], appliance.audit_events("attestation_signed")[0]["details"]["nonce_sha256"]);
    let log = appliance.log();
    assert!(log.contains("replay: a nonce spent by one client came from another"), "{log}");
    // The same client's second use is refused without alarm.
    let mut other = request.clone();
    other["score"] = json!(1);
    assert_eq!(refused(&appliance, &other), (409, "nonce-already-used".into()));
    assert_eq!(appliance.audit_events("security_alert").len(), 1);
    assert_eq!(appliance.metric("virtengine_verification_nonce_rejected_total{reason=\"already_used\"}"), "2");
    assert_same(&first, &appliance.post(PATH, &request));
}

#[test]
fn a_restart_never_makes_a_spent_nonce_good_again() {
    let site = Site::new();
    let before = site.serve().unwrap();
    let (spent, unspent) = (attestation_request(&before.nonce()), attestation_request(&before.nonce()));
    assert_eq!(before.post(PATH, &spent).status, 200);
    before.stop();
    let after = site.serve().unwrap();
    for request in [spent, unspent] {
        assert_eq!(refused(&after, &request), (422, "nonce-not-found".into()));
    }
    assert_eq!(signed_records(&after), 1);
}
