//! Checkpoints and proofs, checked by others: openssl, and RFC 6962 alone.

use base64::{Engine, engine::general_purpose::STANDARD};
use verification_signer::audit::merkle::{Hash, leaf_hash, verify_consistency, verify_inclusion};

use crate::support::{eventually, signer::Signer, tool};

fn hash(text: &serde_json::Value) -> Hash {
    STANDARD.decode(text.as_str().unwrap()).unwrap().try_into().unwrap()
}

fn path(proof: &serde_json::Value) -> Vec<Hash> {
    proof["path"].as_array().unwrap().iter().map(hash).collect()
}

#[test]
fn every_attestation_can_be_proved_to_be_in_the_signed_trail() {
    let signer = Signer::new();
    for _ in 0..5 {
        let sequence: u64 = signer.try_attest().header("audit-sequence").parse().unwrap();
        let proof = signer.get(&format!("/api/v1/audit/proof?seq={sequence}")).ok();
        let record = proof["record"].as_str().unwrap();
        assert!(record.contains("\"attestation_signed\"") && signer.audit_log().contains(record));
        let (size, root) = (proof["tree_size"].as_u64().unwrap(), hash(&proof["root_hash"]));
        assert!(verify_inclusion(&leaf_hash(record.as_bytes()), sequence - 1, size, &path(&proof), &root));
        // The signed head says the same.
        let note = proof["checkpoint"].as_str().unwrap();
        let lines: Vec<_> = note.lines().collect();
        assert_eq!((lines[1], lines[2]), (size.to_string().as_str(), proof["root_hash"].as_str().unwrap()));
    }
    assert_eq!(signer.get("/api/v1/audit/proof?seq=100000").problem(), "no-such-record");
    assert_eq!(signer.get("/api/v1/audit/proof?seq=0").problem(), "no-such-record");
}

#[test]
fn the_trail_of_today_continues_that_of_before() {
    let signer = Signer::new();
    let before = signer.get("/api/v1/audit/proof?seq=1").ok();
    signer.attest();
    let now = signer.get("/api/v1/audit?limit=1").ok()[0]["sequence"].as_u64().unwrap();
    let from = before["tree_size"].as_u64().unwrap();
    let proof = signer.get(&format!("/api/v1/audit/consistency?from={from}&to={now}")).ok();
    assert_eq!(proof["from_root_hash"], before["root_hash"]);
    let (old, new) = (hash(&before["root_hash"]), hash(&proof["to_root_hash"]));
    assert!(verify_consistency((from, &old), (now, &new), &path(&proof)));
    assert_eq!(signer.get(&format!("/api/v1/audit/consistency?from=1&to={}", now + 1000)).problem(), "no-such-record");
}

#[test]
fn openssl_verifies_a_checkpoint_with_the_published_key() {
    let signer = Signer::new();
    signer.get("/api/v1/audit/proof?seq=1").ok();
    let note = signer.get("/api/v1/audit/checkpoint").ok_text();
    let (text, signature) = note.split_once("\n\n").unwrap();
    let facts = signer.get("/api/v1/signer").ok();
    assert_eq!(text.lines().next(), facts["audit"]["origin"].as_str());
    let encoded = signature.trim_end().rsplit(' ').next().unwrap();
    let bytes = STANDARD.decode(encoded).unwrap();
    // The key id of the vkey is that of the signature.
    let vkey = facts["audit"]["verifier_key"].as_str().unwrap();
    assert_eq!(vkey.split('+').nth(1).unwrap(), hex::encode(&bytes[..4]));
    let file = |name: &str, content: &[u8]| {
        let path = signer.home.join(name);
        std::fs::write(&path, content).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let (text, signature) = (file("text", format!("{text}\n").as_bytes()), file("signature", &bytes[4..]));
    let key = file("audit.pem", facts["audit"]["public_key"].as_str().unwrap().as_bytes());
    let arguments = ["pkeyutl", "-verify", "-pubin", "-inkey", &key, "-rawin", "-in", &text, "-sigfile", &signature];
    assert!(tool::run("openssl", &arguments, &[]).contains("Verified Successfully"));
}

#[test]
fn the_head_is_signed_at_an_interval_and_at_the_end() {
    let mut signer = Signer::with_audit("checkpoint_interval = \"1s\"", "[fleet]\nsingle = true");
    signer.attest();
    let size = || {
        let note = std::fs::read_to_string(signer.home.join("audit/audit.checkpoint")).ok()?;
        note.lines().nth(1)?.parse::<u64>().ok()
    };
    eventually("every record is covered", || (size() == Some(signer.audit_log().lines().count() as u64)).then_some(()));
    let home = signer.home().to_owned();
    signer.stop_and_wait();
    // The stop wrote one more record, and the head covers it.
    let note = std::fs::read_to_string(home.join("audit/audit.checkpoint")).unwrap();
    let log = std::fs::read_to_string(home.join("audit/audit.log")).unwrap();
    assert!(log.lines().next_back().unwrap().contains("service_stopped"));
    assert_eq!(note.lines().nth(1).unwrap(), log.lines().count().to_string());
}
