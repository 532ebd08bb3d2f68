//! A revocation waits for nobody on its own appliance: not for a rotation, not for a token that
//! takes its time to generate a key.

use std::thread;

use serde_json::json;

use crate::support::{
    client::Client,
    eventually,
    signer::{Signer, key},
    tracer::Tracer,
};

#[test]
fn a_revocation_does_not_wait_for_a_key_generation() {
    // As with the modules that are slow in earnest.
    let signer = Signer::with_lines("[token]", "objects_one_at_a_time = false", "", "[fleet]\nsingle = true");
    let client = Client::new(&signer.api);
    let slowly = ["-o", "/dev/null", "-e", "inject=openat,write:delay_enter=50000"];
    let slow = Tracer::attach(signer.pid(), "token-lifecycle", &slowly);
    let generation = thread::spawn(move || client.post("/api/v1/keys", &json!({ "initiated_by": "ops-team" })));
    eventually("the generation has begun", || {
        signer.trail().contains(&"key_generated generate pending".to_owned()).then_some(())
    });
    assert_eq!(signer.revoke(1)["newly_revoked"], true);
    assert!(!generation.is_finished(), "the generation was not slow enough");
    assert_eq!(signer.try_attest().problem(), "no-key-may-sign");
    drop(slow);
    assert_eq!(generation.join().unwrap().unwrap().status, 201);
    assert_eq!(signer.states(), ["revoked", "pending"]);
    assert_eq!(signer.key(1)["key_id"], key(1));
}
