//! SIGKILL under load: what a client holds is on record, and the trail verifies before and after.

use std::{
    collections::BTreeMap,
    fs,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::trail::{closed, verifies};
use crate::support::{appliance::attestation_request, client::Client, signer::Signer};

/// SHA-256 of every signature on record, and of signatures that were taken back, from all files.
pub fn recorded(directory: &Path) -> BTreeMap<String, u64> {
    let mut found = BTreeMap::new();
    for file in closed(directory).into_iter().chain([directory.join("audit.log")]) {
        // Killed between closing a file and beginning the next, there is no current one.
        let text = fs::read(file).unwrap_or_default();
        for line in text.split(|byte| *byte == b'\n') {
            let Ok(record) = serde_json::from_slice::<Value>(line) else { continue };
            if let (Some(digest), Some(sequence)) =
                (record["details"]["signature_sha256"].as_str(), record["sequence"].as_u64())
            {
                found.insert(digest.to_owned(), sequence);
            }
        }
    }
    found
}

/// Signs from several clients until told to stop, or until the end of the server; digests of what came.
pub fn load(api: &str, stop: &AtomicBool) -> Vec<String> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                let client = Client::new(api);
                scope.spawn(move || {
                    let mut received = Vec::new();
                    while !stop.load(Ordering::Relaxed) {
                        let Some(nonce) = client.nonce() else { break };
                        let Some(answer) = client.post("/api/v1/attestations", &attestation_request(&nonce)) else {
                            break;
                        };
                        if answer.status == 200 {
                            let value = answer.json()["proof"]["proof_value"].as_str().unwrap().to_owned();
                            received.push(hex::encode(Sha256::digest(STANDARD.decode(value).unwrap())));
                        }
                    }
                    received
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

fn rounds(count: usize) {
    let mut signer = Signer::with_audit("rotate_bytes = 65536\ncheckpoint_interval = \"1s\"", "[fleet]\nsingle = true");
    let directory = signer.home().join("audit");
    let mut received = Vec::new();
    for round in 0..count {
        let (api, stop) = (signer.api.clone(), AtomicBool::new(false));
        let pause = Duration::from_millis(20 + getrandom::u64().unwrap() % 400);
        let more = thread::scope(|scope| {
            let loading = scope.spawn(|| load(&api, &stop));
            thread::sleep(pause);
            signer.kill();
            stop.store(true, Ordering::Relaxed);
            loading.join().unwrap()
        });
        received.extend(more);
        // As the crash left it, and as the next start finds it.
        verifies(&directory);
        let known = recorded(&directory);
        let missing = received.iter().filter(|digest| !known.contains_key(*digest)).count();
        assert_eq!(missing, 0, "round {round}: of {} received signatures", received.len());
        signer.start_again().unwrap_or_else(|log| panic!("round {round}: {log}"));
    }
    println!("{count} rounds, {} signatures received, {} files", received.len(), closed(&directory).len());
    assert!(received.len() > count, "too little was signed to mean anything");
    verifies(&directory);
}

#[test]
fn what_a_client_received_is_on_record_after_a_kill() {
    rounds(4);
}

#[test]
#[ignore = "long: run by make test-long"]
fn what_a_client_received_is_on_record_after_two_hundred_kills() {
    rounds(200);
}
