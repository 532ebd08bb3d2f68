//! `POST /api/v1/attestations/batch`: each member by itself, with a signature of its own or a shared one.

use std::{fs, thread};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::{command_line, issued, python, written};
use crate::support::{
    appliance::{Appliance, attestation_request},
    eventually,
    faults::Faults,
    redis::RedisServer,
    signer::Signer,
    site::Site,
    tool,
};

const BATCH: &str = "/api/v1/attestations/batch";
const TOGETHER: &str = "/api/v1/attestations/batch?proof=merkle";

fn requests(appliance: &Appliance, count: usize) -> Vec<Value> {
    issued(appliance, count).iter().map(|nonce| attestation_request(nonce)).collect()
}

fn statuses(answer: &Value) -> Vec<u64> {
    answer.as_array().unwrap().iter().map(|entry| entry["status"].as_u64().unwrap()).collect()
}

fn site(token: &str, tables: &str) -> (Site, Faults) {
    let (site, faults) = Site::with_key().faulty();
    site.edit_config("[token]", &format!("[token]\n{token}"));
    site.edit_config("[audit]", &format!("{tables}\n[audit]"));
    (site, faults)
}

/// All of an answer, judged by the appliance, the command line and the Python program.
fn all_verify(appliance: &Appliance, home: &std::path::Path, answer: &Value) {
    for entry in answer.as_array().unwrap() {
        assert_eq!(appliance.verdict(&entry["attestation"]), "valid", "{entry}");
    }
    let keys = written(home, "jwks.json", &appliance.get("/.well-known/jwks.json").ok());
    let file = written(home, "answer.json", answer);
    let output = command_line(&file, &["--jwks", keys.to_str().unwrap()]);
    assert!(output.status.success(), "{}", tool::text(&output.stdout));
    let output = python(&keys, &[&file]);
    assert!(output.status.success(), "{}", tool::text(&output.stdout));
    assert_eq!(tool::text(&output.stdout).matches("valid veid:").count(), answer.as_array().unwrap().len());
}

fn shares_one_signature(algorithm: &str, proof_type: &str) {
    let signer = Signer::with(&format!("algorithm = \"{algorithm}\""), "[fleet]\nsingle = true");
    let requests = requests(&signer, 13);
    let answer = signer.post(TOGETHER, &json!(requests)).ok();
    assert_eq!(statuses(&answer), [200; 13]);
    all_verify(&signer, signer.home(), &answer);
    let (entries, records) = (answer.as_array().unwrap(), signer.audit_events("attestation_signed"));
    assert_eq!(records.len(), 13);
    let proof_value = entries[0]["attestation"]["proof"]["proof_value"].as_str().unwrap();
    let digest = hex::encode(Sha256::digest(STANDARD.decode(proof_value).unwrap()));
    for (at, ((entry, request), record)) in entries.iter().zip(&requests).zip(&records).enumerate() {
        let proof = &entry["attestation"]["proof"];
        assert_eq!((&proof["type"], proof["proof_value"].as_str().unwrap()), (&json!(proof_type), proof_value));
        assert_eq!(entry["attestation"]["nonce"], request["nonce"]);
        // A record of its own for each.
        assert_eq!(entry["audit_sequence"], record["sequence"]);
        assert_eq!(record["resource"], entry["attestation"]["id"]);
        let details = &record["details"];
        assert_eq!((&details["merkle_leaf_index"], &details["merkle_tree_size"]), (&json!(at), &json!(13)));
        assert_eq!(details["signature_sha256"], digest.as_str());
        // A retry gets the same, whatever form it asks for.
        let again = signer.post("/api/v1/attestations", request);
        assert_eq!(again.ok(), entry["attestation"], "member {at}");
    }
    assert_eq!(signer.audit_events("nonce_used").len(), 13);
    assert_eq!(signer.post(TOGETHER, &json!(requests)).ok(), answer, "a batch again");
    assert_eq!(signer.audit_events("attestation_signed").len(), 13);
    // One hash changed, and it leads elsewhere.
    let mut forged = entries[5]["attestation"].clone();
    forged["proof"]["merkle"]["path"][1] = STANDARD.encode([7; 32]).into();
    assert_eq!(signer.verdict(&forged), "signature_mismatch");
    forged["proof"]["merkle"]["leaf_index"] = json!(13);
    assert_eq!(signer.verdict(&forged), "inclusion_malformed");
}

#[test]
fn a_batch_under_one_p256_signature_verifies_member_by_member() {
    shares_one_signature("P-256", "MerkleEcdsaSecp256r1Signature2019");
}

#[test]
fn a_batch_under_one_ed25519_signature_verifies_member_by_member() {
    shares_one_signature("Ed25519", "MerkleEd25519Signature2020");
}

#[test]
fn a_batch_under_one_secp256k1_signature_verifies_member_by_member() {
    shares_one_signature("secp256k1", "MerkleEcdsaSecp256k1Signature2019");
}

#[test]
fn members_have_signatures_of_their_own_unless_they_share_one() {
    let (site, faults) = site("", "[merkle]\nmax_batch = 10");
    let appliance = site.serve().unwrap();
    let signed = || faults.calls("C_Sign");
    let before = signed();
    let answer = appliance.post(BATCH, &json!(requests(&appliance, 20))).ok();
    assert_eq!(statuses(&answer), [200; 20]);
    assert_eq!(signed() - before, 20);
    assert_eq!(answer[7]["attestation"]["proof"]["type"], "EcdsaSecp256r1Signature2019");
    all_verify(&appliance, site.home.path(), &answer);
    // Two signatures, since no more than ten may be under one.
    let before = signed();
    let answer = appliance.post(TOGETHER, &json!(requests(&appliance, 20))).ok();
    assert_eq!(signed() - before, 2);
    assert_eq!(answer[0]["attestation"]["proof"]["merkle"]["tree_size"], 10);
    all_verify(&appliance, site.home.path(), &answer);
    assert_eq!(appliance.metric("virtengine_verification_signer_merkle_batch_size_count"), "2");
}

#[test]
fn nonces_of_a_batch_are_spent_in_redis_each_once() {
    let redis = RedisServer::start(&[]);
    let (site, faults) = site("", &format!("[redis]\nurl = \"{}\"", redis.url()));
    let appliance = site.serve().unwrap();
    // More than go to Redis at once.
    let batch = json!(requests(&appliance, 300));
    let before = faults.calls("C_Sign");
    let answer = appliance.post(TOGETHER, &batch).ok();
    assert_eq!(statuses(&answer), [200; 300]);
    assert_eq!(appliance.post(TOGETHER, &batch).ok(), answer, "the same again");
    assert_eq!(faults.calls("C_Sign") - before, 1);
    all_verify(&appliance, site.home.path(), &answer);
}

#[test]
fn what_is_wrong_with_one_is_nothing_to_the_others() {
    let signer = Signer::new();
    for path in [BATCH, TOGETHER] {
        let good = requests(&signer, 4);
        let unknown = attestation_request(&hex::encode([9; 32]));
        let mut malformed = good[1].clone();
        malformed["score"] = json!(101);
        let mut other = good[2].clone();
        other["score"] = json!(1);
        let batch = json!([good[0], unknown, malformed, good[2], other, 7, good[3]]);
        let answer = signer.post(path, &batch).ok();
        assert_eq!(statuses(&answer), [200, 422, 400, 200, 400, 400, 200], "{path}: {answer}");
        let problem = |at: usize| answer[at]["problem"]["type"].as_str().unwrap().to_owned();
        assert_eq!(
            [1, 2, 4, 5].map(problem),
            [
                "/problems/nonce-not-found",
                "/problems/invalid-field",
                "/problems/invalid-field",
                "/problems/invalid-field"
            ]
        );
        assert_eq!(answer[2]["problem"]["errors"][0]["field"], "score");
        assert_eq!(answer[4]["problem"]["errors"][0]["detail"], "stands twice in this batch");
        for (at, request) in [(0, &good[0]), (3, &good[2]), (6, &good[3])] {
            assert_eq!(answer[at]["attestation"]["nonce"], request["nonce"], "{path}");
            assert_eq!(signer.verdict(&answer[at]["attestation"]), "valid");
        }
        // What was refused has cost no nonce.
        assert_eq!(signer.post("/api/v1/attestations", &good[1]).status, 200);
    }
}

#[test]
fn a_batch_that_is_none_is_refused_whole() {
    let signer = Signer::new();
    let request = attestation_request(&signer.nonce());
    for (path, body, status) in [
        (TOGETHER, json!([]), 400),
        (TOGETHER, json!({ "attestations": [request] }), 400),
        (TOGETHER, json!(vec![request.clone(); 1001]), 400),
        (TOGETHER, json!(["x".repeat(1_048_576)]), 413),
        (TOGETHER, json!(null), 400),
        (TOGETHER, json!("[]"), 400),
        ("/api/v1/attestations/batch?proof=tree", json!([request]), 400),
        ("/api/v1/attestations/batch?prof=merkle", json!([request]), 400),
        ("/api/v1/attestations?proof=tree", request.clone(), 400),
    ] {
        assert_eq!(signer.post(path, &body).status, status, "{path}");
    }
    for body in [&b""[..], b"[", b"[{},]", b"[{}] x", b"[\xff]", b"[\"\xff\"]", b"[{}][{}]"] {
        let answer = signer.post_bytes(TOGETHER, "application/json", body);
        assert_eq!((answer.status, answer.problem().as_str()), (400, "invalid-json"), "{}", tool::text(body));
    }
    // One member may be as long as it may be alone.
    let long = json!([request, { "x": "x".repeat(65_536) }]);
    assert_eq!(statuses(&signer.post(TOGETHER, &long).ok()), [200, 413]);
    let request = attestation_request(&signer.nonce());
    assert_eq!(signer.post("/api/v1/attestations?proof=individual", &request).status, 200);
}

#[test]
fn a_batch_counts_as_many_requests() {
    let (site, _) = site("", "");
    site.edit_config("[limits]\nenabled = false", "[limits]\nclient = { per_second = 1, burst = 30 }");
    let appliance = site.serve().unwrap();
    let batch = json!(requests(&appliance, 40)[..38].to_vec());
    let refused = appliance.post(TOGETHER, &batch);
    assert_eq!((refused.status, refused.json()["type"].as_str().unwrap()), (429, "/problems/rate-limited"));
    let subject = json!((0..2).map(|_| attestation_request(&appliance.nonce())).collect::<Vec<_>>());
    assert_eq!(statuses(&appliance.post(TOGETHER, &subject).ok()), [200; 2]);
}

#[test]
fn members_are_charged_to_their_subjects_one_by_one() {
    let (site, _) = site("", "");
    let email = "email = { hour = 3, day = 50, failures = 50, cool_down = \"60m\" }";
    site.edit_config("[limits]\nenabled = false", &format!("[limits.subject]\n{email}"));
    let appliance = site.serve().unwrap();
    let requests = requests(&appliance, 5);
    let answer = appliance.post(TOGETHER, &json!(requests)).ok();
    assert_eq!(statuses(&answer), [200, 200, 200, 429, 429]);
    assert_eq!(answer[4]["problem"]["type"], "/problems/rate-limited");
    assert_eq!(answer[0]["attestation"]["proof"]["merkle"]["tree_size"], 3);
}

#[test]
fn when_the_token_fails_all_are_told_and_may_try_again() {
    let (site, faults) = site("", "");
    let appliance = site.serve().unwrap();
    let batch = json!(requests(&appliance, 5));
    // Failed, and failed but happened: no signature of the second kind gets out either.
    for fault in ["C_Sign fail=CKR_DEVICE_ERROR", "C_Sign fail-after=CKR_DEVICE_ERROR", "C_Sign flip"] {
        let signed = appliance.audit_events("attestation_signed").len();
        faults.set(fault);
        let answer = appliance.post(TOGETHER, &batch).ok();
        faults.clear();
        assert_eq!(statuses(&answer), [503; 5], "{fault}: {answer}");
        assert_eq!(answer[3]["problem"]["type"], "/problems/token-unavailable", "{fault}");
        assert_eq!(appliance.audit_events("attestation_signed").len(), signed, "{fault}");
        // It comes back by itself.
        eventually("the token is back", || (appliance.get("/readyz").status == 200).then_some(()));
    }
    let answer = eventually("the same nonces are good", || {
        let answer = appliance.post(TOGETHER, &batch).ok();
        (statuses(&answer) == [200; 5]).then_some(answer)
    });
    all_verify(&appliance, site.home.path(), &answer);
}

/// In more than one call to Redis, and kept there for retries by all in one go.
#[test]
fn with_nonces_in_redis_all_are_spent_once_reopened_together_and_repeated_together() {
    let (site, faults) = site("", "");
    let redis = RedisServer::start(&[]);
    site.edit_config("[audit]", &format!("[redis]\nurl = \"{}\"\n[audit]", redis.url()));
    let appliance = site.serve().unwrap();
    let batch = json!(requests(&appliance, 300));
    faults.set("C_Sign fail=CKR_FUNCTION_REJECTED");
    assert_eq!(statuses(&appliance.post(TOGETHER, &batch).ok()), [503; 300]);
    faults.clear();
    let answer = appliance.post(TOGETHER, &batch).ok();
    all_verify(&appliance, site.home.path(), &answer);
    let signatures = faults.calls("C_Sign");
    assert_eq!(appliance.post(TOGETHER, &batch).ok(), answer);
    assert_eq!(appliance.post("/api/v1/attestations?proof=merkle", &batch[299]).ok(), answer[299]["attestation"]);
    assert_eq!(faults.calls("C_Sign"), signatures);
}

#[test]
fn nothing_leaves_that_was_signed_while_the_key_was_revoked() {
    let (site, faults) = site("call_deadline = \"10s\"", "[fleet]\nsingle = true");
    let appliance = site.serve().unwrap();
    let batch = json!(requests(&appliance, 5));
    let key = appliance.get("/api/v1/keys/active").ok()["key_id"].as_str().unwrap().to_owned();
    let before = faults.calls("C_Sign");
    faults.set("C_Sign delay=2s");
    let answer = thread::scope(|scope| {
        let asked = scope.spawn(|| appliance.post(TOGETHER, &batch).ok());
        eventually("the token is signing", || (faults.calls("C_Sign") > before).then_some(()));
        let body = json!({ "reason": "compromised", "initiated_by": "test" });
        assert_eq!(appliance.post(&format!("/api/v1/keys/{key}/revoke"), &body).status, 200);
        assert!(!asked.is_finished(), "revoked while the token was signing");
        asked.join().unwrap()
    });
    assert_eq!(statuses(&answer), [503; 5], "{answer}");
    assert_eq!(answer[0]["problem"]["type"], "/problems/no-key-may-sign");
    assert!(appliance.audit_events("attestation_signed").is_empty());
}

#[test]
fn no_signature_leaves_without_the_records_of_all_that_it_covers() {
    let signer = Signer::new();
    let batch = json!(requests(&signer, 5));
    // The file is lost: the next records cannot be written where they belong.
    fs::rename(signer.home().join("audit/audit.log"), signer.home().join("elsewhere")).unwrap();
    let answer = signer.post(TOGETHER, &batch);
    let told = if answer.status == 200 { statuses(&answer.json()) } else { vec![answer.status.into(); 5] };
    assert_eq!(told, [503; 5]);
    assert!(!answer.text().contains("proof_value"), "{}", answer.text());
}

#[test]
fn a_request_with_the_same_nonce_beside_a_batch_is_in_progress_and_then_the_same() {
    let (site, faults) = site("call_deadline = \"10s\"", "");
    let appliance = site.serve().unwrap();
    let requests = requests(&appliance, 3);
    faults.set("C_Sign delay=1s");
    let before = faults.calls("C_Sign");
    thread::scope(|scope| {
        let first = scope.spawn(|| appliance.post(TOGETHER, &json!(requests)).ok());
        eventually("the token is signing", || (faults.calls("C_Sign") > before).then_some(()));
        let second = appliance.post(TOGETHER, &json!([requests[1]])).ok();
        assert_eq!(statuses(&second), [503]);
        assert_eq!(second[0]["problem"]["type"], "/problems/in-progress");
        let third = appliance.post("/api/v1/attestations?proof=merkle", &requests[1]).ok();
        assert_eq!(third, first.join().unwrap()[1]["attestation"]);
    });
}

/// A root is signed for nobody who hands it in as data: what is signed then says what it is.
#[test]
fn opaque_data_is_never_a_root() {
    let signer = Signer::new();
    let answer = signer.post(TOGETHER, &json!(requests(&signer, 2))).ok();
    let attestation = &answer[0]["attestation"];
    let text = serde_json::to_vec(attestation).unwrap();
    let parsed: verification_signer::attestation::Attestation = serde_json::from_slice(&text).unwrap();
    let root = parsed.proof.merkle.as_ref().unwrap().root_statement(&parsed.statement.canonical_bytes()).unwrap();
    let body = root.splitn(5, |byte| *byte == b' ').last().unwrap();
    for data in [&root[..], body] {
        let signed =
            signer.post("/api/v1/sign", &json!({ "data": STANDARD.encode(data), "purpose": "merkle-root" })).ok();
        let mut forged = attestation.clone();
        forged["proof"]["proof_value"] = signed["signature"].clone();
        assert_eq!(signer.verdict(&forged), "signature_mismatch");
    }
}
