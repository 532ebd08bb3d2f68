//! Members that do the same thing at the same time. Only the fleet lock decides these.

use std::thread;

use serde_json::{Value, json};

use super::members::Fleet;
use crate::support::{
    appliance::Appliance,
    redis::RedisServer,
    signer::{first_key_here, key, rotation_request},
    softhsm::SoftHsm,
};

const MEMBERS: usize = 3;

/// What the fleet's configuration needs besides: where its lock is.
pub fn lock(redis: &RedisServer) -> String {
    format!("[redis]\nurl = \"{}\"\ncommand_timeout = \"3s\"", redis.url())
}

/// All members rotate at once, again and again: one wins each round.
fn rotations_at_once(tables: &str, rounds: u32) {
    let fleet = Fleet::of(MEMBERS, tables);
    for sequence in 2..2 + rounds {
        let racing: Vec<_> = fleet
            .clients()
            .into_iter()
            .map(|client| {
                thread::spawn(move || client.post("/api/v1/keys/rotate", &rotation_request(&json!({}))).unwrap().status)
            })
            .collect();
        let mut statuses: Vec<_> = racing.into_iter().map(|thread| thread.join().unwrap()).collect();
        statuses.sort_unstable();
        assert_eq!(statuses, [201, 409, 409]);
        fleet.all_follow(&key(sequence));
        for member in &fleet.members {
            assert_eq!(member.states().iter().filter(|state| *state == "active").count(), 1);
        }
        let complete = format!("/api/v1/rotations/rotation-{sequence}/complete");
        fleet.members[0].post(&complete, &json!({ "force": true })).ok();
        for member in &fleet.members {
            crate::support::eventually("the rotation is over", || {
                (member.get("/healthz").json()["rotation_pending"] == false).then_some(())
            });
        }
    }
}

/// All members start at once on an empty token: exactly one key comes of it. A start that SoftHSM2
/// confuses by another's login is repeated, as systemd would.
fn starts_at_once(rounds: u32) {
    for _ in 0..rounds {
        // Each round its own Redis: it would remember the ledger of the token before.
        let redis = RedisServer::start(&[]);
        let (token, home, tables) = (SoftHsm::new(), tempfile::tempdir().unwrap(), lock(&redis));
        let appliances: Vec<Appliance> = thread::scope(|scope| {
            let starting: Vec<_> = (0..MEMBERS)
                .map(|number| {
                    let config =
                        token.config(&home.path().join(number.to_string()), &first_key_here(&token, "", &tables));
                    let token = &token;
                    scope.spawn(move || start_at_last(token, &config))
                })
                .collect();
            starting.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        for appliance in &appliances {
            appliance.reaches(&["active"]);
            let keys: Value = appliance.get("/api/v1/keys").ok();
            assert_eq!(keys[0]["fingerprint"], appliances[0].get("/api/v1/keys").ok()[0]["fingerprint"]);
            assert_eq!(appliance.signing_key(), key(1));
        }
        drop(appliances);
        assert_eq!(token.pkcs11_tool().private_keys().len(), 1);
        assert_eq!(token.pkcs11_tool().audit_key().len(), 2, "one pair");
    }
}

fn start_at_last(token: &SoftHsm, config: &std::path::Path) -> Appliance {
    (0..10)
        .find_map(|_| Appliance::serve(token, config).map_err(|(status, log)| println!("{status}: {log}")).ok())
        .unwrap()
}

#[test]
fn of_three_members_that_rotate_at_once_one_wins() {
    rotations_at_once(&lock(&RedisServer::start(&[])), 5);
}

#[test]
#[ignore = "long: run by make test-long"]
fn of_three_members_that_rotate_at_once_one_wins_fifty_times() {
    rotations_at_once(&lock(&RedisServer::start(&[])), 50);
}

#[test]
fn three_members_that_start_at_once_make_one_key() {
    starts_at_once(2);
}

#[test]
#[ignore = "long: run by make test-long"]
fn three_members_that_start_at_once_make_one_key_twenty_times() {
    starts_at_once(20);
}
