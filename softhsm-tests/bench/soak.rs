//! An hour of half load on two appliances side by side, one with its nonces in the process and one in Redis:
//! memory, descriptors and threads stay as they are. It fails where they grow, or a request fails.
//!
//! `make soak`; `SOAK_SECONDS` (default 3 600), `SOAK_RATE`: attestations a second of both together (default:
//! half of what one of them bears at the beginning).

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![allow(dead_code, reason = "the support of the tests has more than is measured here")]

#[path = "../support/mod.rs"]
mod support;

use std::{thread, time::Duration};

use support::{
    appliance::Appliance,
    load::{Stock, as_fast_as_answered},
    redis::RedisServer,
    soak::{Look, Soak, Soaked, soak},
    softhsm::SoftHsm,
};

/// The shortest window of nonces. Until the first ones have been forgotten, a store in the process grows.
const WINDOW: Duration = Duration::from_secs(300);

/// After the window, what is left of it is cleaned up once a minute.
const WARM_UP: Duration = Duration::from_secs(WINDOW.as_secs() + 120);

/// What memory may grow by in the time after: pieces of it lie differently then.
const MEMORY_KIB: u64 = 4096;

fn number(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn main() {
    let time = Duration::from_secs(number("SOAK_SECONDS").unwrap_or(3600));
    let (tokens, redis) = ([SoftHsm::new(), SoftHsm::new()], RedisServer::start(&[]));
    let homes = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let settings = |serial: &str| {
        format!(
            "[key_policy]\nfirst_key_on_token_serial = \"{serial}\"\n[nonce]\nwindow = \"{}s\"\n\
             clock_skew = \"60s\"\noutstanding_per_issuer = 500000\n",
            WINDOW.as_secs()
        )
    };
    let tables = ["", &format!("[redis]\nurl = \"{}\"\n", redis.url())];
    let [process, in_redis] = [0, 1].map(|at| {
        let settings = settings(&tokens[at].serial) + tables[at];
        Appliance::serve(&tokens[at], &tokens[at].config(homes[at].path(), &settings)).unwrap()
    });
    let rate = number("SOAK_RATE").map_or_else(|| half_load(&process), |rate| u32::try_from(rate).unwrap());
    let order = Soak { rate: rate / 2, clients: 16, time, look: Duration::from_secs(10).min(time / 30) };
    println!("{rate} attestations a second, half of them with nonces in Redis");
    println!(
        "{:<16}{:>7}{:>10}{:>9}{:>9}{:>12}{:>12}{:>12}{:>9}",
        "nonces", "s", "per s", "p50 ms", "p99 ms", "KiB", "KiB module", "descriptors", "threads"
    );
    let both = [("in the process", &process), ("in Redis", &in_redis)];
    let ended: Vec<(&str, Soaked)> = thread::scope(|scope| {
        let running =
            both.map(|(name, appliance)| (name, scope.spawn(move || soak(appliance, order, teller(name, order)))));
        running.into_iter().map(|(name, running)| (name, running.join().unwrap())).collect()
    });
    let mut bad = false;
    for (name, soaked) in ended {
        // What has warmed up by half of a short time is warm.
        let growth = soaked.growth(WARM_UP.min(time / 2), MEMORY_KIB);
        let Soaked { failed, left_out, said, looks } = soaked;
        let made: usize = looks.iter().map(|look| look.attestations).sum();
        println!(
            "{name}: {made} attestations, {failed} failed {said:?}, {left_out} not sent in time; growth: {growth:?}"
        );
        bad |= failed > 0 || !growth.is_empty();
    }
    process.stop();
    in_redis.stop();
    std::process::exit(i32::from(bad));
}

fn half_load(appliance: &Appliance) -> u32 {
    let (stock, time) = (Stock::default(), Duration::from_secs(5));
    stock.fill(appliance, 200_000);
    let full = as_fast_as_answered(appliance, &stock, 64, 1, time);
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "thousands")]
    let half = (full.per_second() / 2.0) as u32;
    half
}

/// Says one look a minute, or each of a short soak.
fn teller(name: &'static str, order: Soak) -> impl Fn(&Look) {
    move |look: &Look| {
        if order.look == Duration::from_secs(10) && look.at.as_secs() % 60 >= 10 {
            return;
        }
        let (Some(appliance), all) = (look.held.first(), look.together()) else { return };
        println!(
            "{name:<16}{:>7}{:>10.0}{:>9.2}{:>9.2}{:>12}{:>12}{:>12}{:>9}",
            look.at.as_secs(),
            f64::from(u32::try_from(look.attestations).unwrap()) / order.look.as_secs_f64(),
            look.p50.as_secs_f64() * 1e3,
            look.p99.as_secs_f64() * 1e3,
            appliance.resident_kib,
            all.resident_kib - appliance.resident_kib,
            all.descriptors,
            all.threads,
        );
    }
}
