//! The process that holds the module is killed in the middle of a change of keys, at any of its system
//! calls that change files.

use std::{fs, thread};

use serde_json::json;

use crate::support::{
    client::Client,
    eventually,
    own_token::process_of,
    signer::{Signer, rotation_request},
    tracer::Tracer,
};

/// System calls after which SoftHSM2's files are not what they were.
const CALLS: &str = "openat,write,ftruncate,?unlink,unlinkat,?rename,renameat,fsync,fdatasync";

/// True when it was killed. What changes nothing is asked again of the next process: then the rotation may
/// have succeeded all the same.
fn killed_at(signer: &Signer, lane: &str, number: usize) -> bool {
    let old = signer.token_process();
    let injection = format!("inject={CALLS}:signal=KILL:when={number}");
    let tracer = Tracer::attach(signer.pid(), lane, &["-e", &format!("trace={CALLS}"), "-e", &injection]);
    let client = Client::new(&signer.api);
    let body = rotation_request(&json!({ "emergency": true, "reason": "compromised" }));
    let request = thread::spawn(move || client.post("/api/v1/keys/rotate", &body).expect("an answer"));
    let answer = request.join().unwrap();
    assert!(matches!(answer.status, 201 | 409 | 503), "{lane} {number}: {} {}", answer.status, answer.text());
    let killed = process_of(signer.pid()) != Some(old);
    println!("{lane}, call {number}: killed {killed}, answered {}", answer.status);
    drop(tracer);
    killed
}

/// One key is active, every key on the token is one of the ledger's, and the next rotation works.
fn is_in_order(signer: &Signer, what: &str) {
    eventually(&format!("{what}: the next rotation works"), || {
        let body = rotation_request(&json!({ "emergency": true, "reason": "compromised" }));
        (signer.post("/api/v1/keys/rotate", &body).status == 201).then_some(())
    });
    let keys = signer.get("/api/v1/keys").ok();
    let mut recorded: Vec<String> =
        keys.as_array().unwrap().iter().map(|key| key["token"]["object_id"].as_str().unwrap().to_owned()).collect();
    recorded.sort();
    let mut there = signer.token.pkcs11_tool().private_keys();
    there.sort();
    assert_eq!(there, recorded, "{what}");
    assert_eq!(signer.states().iter().filter(|state| *state == "active").count(), 1, "{what}");
    let attestation = signer.attest();
    assert_eq!(signer.verdict(&attestation), "valid", "{what}");
}

fn sweep(kills: usize) {
    let signer = Signer::new();
    let pid = signer.pid();
    let mut killed = 0;
    for round in 0.. {
        let lane = if round % 3 == 2 { "token-ledger" } else { "token-lifecycle" };
        let number = 1 + usize::try_from(getrandom::u64().unwrap() % 60).unwrap();
        let what = format!("{lane}, call {number}");
        if killed_at(&signer, lane, number) {
            killed += 1;
        }
        is_in_order(&signer, &what);
        assert!(round < 20 * (kills + 1), "the kills come too late");
        if killed == kills {
            break;
        }
    }
    assert_eq!(signer.pid(), pid);
    let log = fs::read_to_string(signer.home().join("audit/audit.log")).unwrap();
    assert!(log.contains("\"unknown\"") || log.contains("\"failure\""), "what was cut short is on record");
}

#[test]
fn a_change_that_is_cut_short_leaves_one_state_and_no_second_key() {
    sweep(4);
}

#[test]
#[ignore = "long: run by make test-long"]
fn a_change_is_cut_short_many_times() {
    sweep(60);
}
