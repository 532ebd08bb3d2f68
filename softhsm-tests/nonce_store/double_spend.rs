//! Three appliances that are asked to spend the same nonces at the same time, each on something else.

use std::{
    sync::atomic::{AtomicU32, Ordering},
    thread,
    time::Instant,
};

use serde_json::{Value, json};

use super::on_redis;
use crate::{
    fleet::members::Fleet,
    support::{appliance::attestation_request, client::Client, redis::RedisServer},
};

const APPLIANCES: usize = 3;
const CALLERS: usize = 4;

/// So many for one request.
fn issue(client: &Client, count: usize) -> Vec<String> {
    let order = json!({ "attestation_type": "email_verification", "count": count });
    let issued = client.post("/api/v1/nonces/batch", &order).unwrap().ok();
    issued.as_array().unwrap().iter().map(|nonce| nonce["nonce"].as_str().unwrap().to_owned()).collect()
}

/// Spends every nonce at every appliance; how often each was signed for.
fn spend_everywhere(clients: &[Client], nonces: &[String]) -> Vec<u32> {
    let signed: Vec<_> = nonces.iter().map(|_| AtomicU32::new(0)).collect();
    thread::scope(|scope| {
        for (appliance, client) in clients.iter().enumerate() {
            for caller in 0..CALLERS {
                let (signed, client) = (&signed, client.clone());
                scope.spawn(move || {
                    for (nonce, signed) in nonces.iter().zip(signed).skip(caller).step_by(CALLERS) {
                        let mut request = attestation_request(nonce);
                        request["score"] = json!(appliance);
                        let answer = client.post("/api/v1/attestations", &request).unwrap();
                        match answer.status {
                            200 => signed.fetch_add(1, Ordering::Relaxed),
                            409 if answer.problem() == "nonce-already-used" => 0,
                            _ => panic!("{} {}", answer.status, answer.text()),
                        };
                    }
                });
            }
        }
    });
    signed.into_iter().map(AtomicU32::into_inner).collect()
}

fn each_is_spent_once(nonces: usize) {
    const AT_ONCE: usize = 1000;
    let redis = RedisServer::start(&[]);
    let fleet = Fleet::of(APPLIANCES, &on_redis(&redis));
    let clients = fleet.clients();
    let (begun, mut spent) = (Instant::now(), 0);
    while spent < nonces {
        let issued = issue(&clients[spent % APPLIANCES], AT_ONCE.min(nonces - spent));
        let signed = spend_everywhere(&clients, &issued);
        assert!(signed.iter().all(|times| *times == 1), "{signed:?}");
        spent += issued.len();
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = (APPLIANCES * nonces) as f64 / begun.elapsed().as_secs_f64();
    println!("{nonces} nonces, {APPLIANCES} requests each, {rate:.0} requests a second");
    let used = |member: &crate::support::appliance::Appliance| -> usize {
        member.metric("virtengine_verification_nonce_used_total").parse().unwrap()
    };
    assert_eq!(fleet.members.iter().map(used).sum::<usize>(), nonces);
    let records = |member: &crate::support::appliance::Appliance| member.audit_events("attestation_signed").len();
    assert_eq!(fleet.members.iter().map(records).sum::<usize>(), nonces);
    let stats: Value = fleet.members[0].get("/api/v1/nonce/stats").ok();
    assert_eq!((&stats["by_status"]["outstanding"], &stats["by_status"]["used"]), (&json!(0), &json!(nonces)));
}

#[test]
fn each_of_a_thousand_nonces_is_spent_by_one_of_three_appliances() {
    each_is_spent_once(1000);
}

#[test]
#[ignore = "long: run by make test-long"]
fn each_of_a_hundred_thousand_nonces_is_spent_by_one_of_three_appliances() {
    each_is_spent_once(100_000);
}
