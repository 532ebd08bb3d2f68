//! When a revocation has answered, no member signs with the key any more, whatever the load.

use std::{
    sync::{
        Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use serde_json::json;

use super::members::{Fleet, rotate};
use crate::support::{appliance::attestation_request, client::Client, eventually, signer::key};

const MEMBERS: usize = 3;
const CLIENTS_A_MEMBER: usize = 2;

/// A signature that a client holds.
struct Signed {
    key_id: String,
    member: usize,
    sent: Instant,
    received: Instant,
}

/// Has attestations signed until told to stop. A nonce that was not spent is used again: a client
/// has only so many outstanding.
fn sign(client: &Client, member: usize, stop: &AtomicBool, signed: &Mutex<Vec<Signed>>) {
    let mut unspent = None;
    while !stop.load(Ordering::Relaxed) {
        let nonce = unspent.take().unwrap_or_else(|| client.nonce().unwrap());
        let request = attestation_request(&nonce);
        let sent = Instant::now();
        let answer = client.post("/api/v1/attestations", &request).unwrap();
        let received = Instant::now();
        if answer.status == 200 {
            let key_id = answer.json()["issuer"]["key_id"].as_str().unwrap().to_owned();
            signed.lock().unwrap().push(Signed { key_id, member, sent, received });
        } else {
            assert!([409, 503].contains(&answer.status), "{}", answer.text());
            unspent = Some(nonce);
        }
    }
}

/// Waits until every member has signed with the key.
fn in_use_everywhere(key_id: &str, signed: &Mutex<Vec<Signed>>) {
    eventually("every member signs with the key", || {
        let signed = signed.lock().unwrap();
        (0..MEMBERS).all(|member| signed.iter().any(|s| s.member == member && s.key_id == key_id)).then_some(())
    });
}

fn revocations_under_load(count: u32) {
    let fleet = Fleet::of(MEMBERS, "");
    let (stop, signed) = (AtomicBool::new(false), Mutex::new(Vec::new()));
    let mut answered = Vec::new();
    thread::scope(|scope| {
        for (member, client) in fleet.clients().into_iter().enumerate() {
            for _ in 0..CLIENTS_A_MEMBER {
                let (client, stop, signed) = (client.clone(), &stop, &signed);
                scope.spawn(move || sign(&client, member, stop, signed));
            }
        }
        let finished = Stop(&stop);
        for sequence in 1..=count {
            in_use_everywhere(&key(sequence), &signed);
            let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
            let member = &fleet.members[getrandom::u32().unwrap() as usize % MEMBERS];
            let done = member.post(&format!("/api/v1/keys/{}/revoke", key(sequence)), &body);
            answered.push((key(sequence), Instant::now()));
            assert_eq!(done.ok()["newly_revoked"], true);
            let member = &fleet.members[getrandom::u32().unwrap() as usize % MEMBERS];
            assert_eq!(rotate(member, &json!({ "emergency": true })), key(sequence + 1));
        }
        in_use_everywhere(&key(count + 1), &signed);
        drop(finished);
    });
    let signed = signed.into_inner().unwrap();
    let after = |time: fn(&Signed) -> Instant| {
        answered
            .iter()
            .map(|(key_id, answered)| signed.iter().filter(|s| s.key_id == *key_id && time(s) > *answered).count())
            .sum::<usize>()
    };
    let (sent, received) = (after(|s| s.sent), after(|s| s.received));
    println!("{} signatures, {count} revocations: {sent} asked for and {received} received after", signed.len());
    assert_eq!(sent, 0, "signatures asked for after the revocation had answered");
}

/// Stops the load, also when the test fails.
struct Stop<'a>(&'a AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn no_member_signs_with_a_key_after_its_revocation_has_answered() {
    revocations_under_load(10);
}

#[test]
#[ignore = "long: run by make test-long"]
fn no_member_signs_with_any_of_a_hundred_keys_after_its_revocation_has_answered() {
    revocations_under_load(100);
}
