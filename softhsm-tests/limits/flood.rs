//! A flood from one address, and another client beside it.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::behind_a_proxy;
use crate::support::http::{Connection, request};

/// Whole attestations of a client at `address`, each about another subject: how long each took.
fn attestations(api: &str, address: &str, count: usize, series: usize) -> Vec<Duration> {
    let mut connection = Connection::open(api);
    let headers = [("content-type", "application/json"), ("x-forwarded-for", address)];
    let mut post = |path: &str, body: &Value| {
        connection.send(&request("POST", path, &headers, &serde_json::to_vec(body).unwrap())).unwrap();
        let answer = connection.answer().unwrap().unwrap();
        assert_eq!(answer.status, 200, "{}", answer.text());
        answer.json()
    };
    (0..count)
        .map(|number| {
            let order = json!({ "attestation_type": "email_verification" });
            let nonce = post("/api/v1/nonces", &order)["nonce"].as_str().unwrap().to_owned();
            let begun = Instant::now();
            post("/api/v1/attestations", &super::about(&format!("virtengine1q{series}n{number}"), &nonce));
            begun.elapsed()
        })
        .collect()
}

fn percentile_99(mut times: Vec<Duration>) -> Duration {
    times.sort_unstable();
    times[times.len() * 99 / 100]
}

/// Asks as fast as so many connections can until told to stop; how often it was served and refused.
fn flood(api: &str, connections: usize, stop: &AtomicBool) -> (u64, u64) {
    let (served, refused) = (AtomicU64::new(0), AtomicU64::new(0));
    let headers = [("content-type", "application/json"), ("x-forwarded-for", "192.0.2.66")];
    let bytes = request("POST", "/api/v1/nonces", &headers, br#"{"attestation_type":"email_verification"}"#);
    thread::scope(|scope| {
        for _ in 0..connections {
            scope.spawn(|| {
                let mut connection = Connection::open(api);
                while !stop.load(Ordering::Relaxed) {
                    let _ = connection.send(&bytes);
                    match connection.answer() {
                        Ok(Some(answer)) if answer.status == 200 => served.fetch_add(1, Ordering::Relaxed),
                        Ok(Some(_)) => refused.fetch_add(1, Ordering::Relaxed),
                        _ => {
                            connection = Connection::open(api);
                            0
                        }
                    };
                }
            });
        }
    });
    (served.into_inner(), refused.into_inner())
}

#[test]
fn a_flood_is_refused_and_another_client_is_served_all_the_while() {
    let signer = behind_a_proxy(
        "client = { per_second = 20, burst = 20 }\naddress = { per_second = 20, burst = 20 }\n[limits.abuse]\nblock_at = 0",
    );
    let stop = AtomicBool::new(false);
    let (served, refused) = thread::scope(|scope| {
        let flooding = scope.spawn(|| flood(&signer.api, 4, &stop));
        let served = thread::scope(|scope| scope.spawn(|| one_by_one(&signer.api)).join());
        stop.store(true, Ordering::Relaxed);
        served.unwrap();
        flooding.join().unwrap()
    });
    assert!(refused > 0, "{served} served, {refused} refused");
    println!("flood: {served} served, {refused} refused");
}

/// Below its own limit: each from an address of its own.
fn one_by_one(api: &str) {
    for number in 0..50 {
        attestations(api, &format!("198.51.100.{number}"), 1, number);
    }
}

/// A ratio within one run; on a machine with two cores the flood itself takes most of them.
#[test]
#[ignore = "long: run by make test-long"]
fn a_flood_leaves_the_p99_of_another_client_within_twice_its_quiet_value() {
    let signer = behind_a_proxy(
        "client = { per_second = 10000, burst = 10000 }\naddress = { per_second = 50, burst = 50 }\n[limits.abuse]\nblock_at = 0",
    );
    let rounds: Vec<_> = (0..5_usize)
        .map(|round| {
            let others = |series: usize| -> Vec<Duration> {
                let times =
                    |number| attestations(&signer.api, &format!("198.51.{series}.{number}"), 20, series * 100 + number);
                (0..50).flat_map(times).collect()
            };
            let quiet = percentile_99(others(2 * round));
            let stop = AtomicBool::new(false);
            let (loud, (served, refused)) = thread::scope(|scope| {
                let flooding = scope.spawn(|| flood(&signer.api, 64, &stop));
                let loud = percentile_99(others(2 * round + 1));
                stop.store(true, Ordering::Relaxed);
                (loud, flooding.join().unwrap())
            });
            let ratio = loud.as_secs_f64() / quiet.as_secs_f64();
            println!("p99 quiet {quiet:?}, beside a flood {loud:?}: {ratio:.2} ({served} served, {refused} refused)");
            ratio
        })
        .collect();
    let mut sorted = rounds.clone();
    sorted.sort_by(f64::total_cmp);
    assert!(sorted[2] <= 2.0, "the median of {rounds:?}");
}
