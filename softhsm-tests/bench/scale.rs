//! What an attestation costs when there is much of everything: keys on the token, nonces, audit records,
//! connections; each by itself, small and large by turns, so that both see the same machine. Then memory, the
//! start, and latency at half of full load. Server and load share the machine.
//!
//! `make bench-scale`; only some of it: `make bench-scale PARTS="keys memory"`. Seconds a measurement:
//! `BENCH_SECONDS` (default 3); records: `BENCH_RECORDS` (default 1 000 000); turns: `BENCH_TURNS` (default 4).

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![allow(dead_code, reason = "the support of the tests has more than is measured here")]

mod bare;
mod half_load;
mod records;
mod start;
#[path = "../support/mod.rs"]
mod support;
mod turns;

use std::{path::Path, time::Duration};

use serde_json::json;
use support::{appliance::Appliance, redis::RedisServer, softhsm::SoftHsm};
use tempfile::TempDir;
use turns::{Load, Turns, heading};

/// Clients at once, where not their number is measured.
const CLIENTS: usize = 16;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

fn seconds() -> Duration {
    Duration::from_secs(number("BENCH_SECONDS", 3))
}

/// A part of the measurements: its name, and what it does.
type Part = (&'static str, fn());

const PARTS: [Part; 10] = [
    ("keys", others_keys),
    ("own-keys", own_keys),
    ("nonces", nonces_in_the_process),
    ("redis", nonces_in_redis),
    ("records", records::measure),
    ("connections", connections),
    ("memory", start::memory),
    ("start", start::start),
    ("half-load", half_load::in_the_process),
    ("half-load-redis", half_load::in_redis),
];

fn main() {
    if bare::was_asked() {
        return;
    }
    verification_signer::secret::raise_file_limit();
    let wanted: Vec<String> = std::env::args().skip(1).filter(|argument| !argument.starts_with("--")).collect();
    heading("");
    for (name, measure) in PARTS {
        if wanted.is_empty() || wanted.iter().any(|one| one == name) {
            measure();
        }
    }
}

/// A token, with the files of an appliance on it beside.
pub(crate) struct Place {
    pub(crate) token: SoftHsm,
    home: TempDir,
    settings: String,
}

impl Place {
    pub(crate) fn new(more: &str) -> Self {
        let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        let settings = format!(
            "[key_policy]\nfirst_key_on_token_serial = \"{}\"\n[nonce]\noutstanding_per_issuer = 4000000\n\
             capacity = 4000000\n{more}",
            token.serial
        );
        Self { token, home, settings }
    }

    pub(crate) fn home(&self) -> &Path {
        self.home.path()
    }

    pub(crate) fn serve(&self) -> Appliance {
        let config = self.token.config(self.home.path(), &self.settings);
        let text = std::fs::read_to_string(&config).unwrap();
        std::fs::write(&config, text.replace("[http]", "[http]\nmax_connections_per_address = 4000")).unwrap();
        Appliance::serve(&self.token, &config).unwrap_or_else(|(status, log)| panic!("{status} {log}"))
    }
}

/// Makes the appliance rotate its key until it has had so many.
fn rotate(appliance: &Appliance, keys: usize) {
    let order = json!({ "reason": "compromise", "initiated_by": "bench", "emergency": true });
    for _ in 1..keys {
        let answer = appliance.post("/api/v1/keys/rotate", &order);
        assert_eq!(answer.status, 201, "{}", answer.text());
    }
}

fn others_keys() {
    let few = Place::new("");
    few.serve().stop();
    for count in [100, 1000] {
        let many = Place::new("");
        // `serve` makes its own one first: that is the key that the bare loop finds first.
        many.serve().stop();
        bare::generate_keys(&many.token, count - 1);
        Turns::of(["1 key on the token".into(), format!("{count} keys on the token, others'")])
            .bare([&few.token, &many.token])
            .run(|at| [&few, &many][at].serve(), Load::usual());
    }
}

/// Fewer: a signer that rotates every month has them after 25 years.
fn own_keys() {
    let few = Place::new("");
    few.serve().stop();
    let many = Place::new("");
    let mut had = 1;
    for count in [100, 300] {
        let appliance = many.serve();
        rotate(&appliance, count - had + 1);
        had = count;
        appliance.stop();
        Turns::of(["1 key, that signs".into(), format!("{count} keys of its own, rotated")])
            .bare([&few.token, &many.token])
            .run(|at| [&few, &many][at].serve(), Load::usual());
    }
}

fn nonces_in_the_process() {
    nonces("in the process", &[Place::new(""), Place::new("")]);
}

fn nonces_in_redis() {
    let servers = [RedisServer::start(&[]), RedisServer::start(&[])];
    let place = |server: &RedisServer| Place::new(&format!("[redis]\nurl = \"{}\"\n", server.url()));
    nonces("in Redis", &[place(&servers[0]), place(&servers[1])]);
}

fn nonces(where_: &str, places: &[Place; 2]) {
    let appliances = places.each_ref().map(Place::serve);
    let counts = [1_000, 1_000_000];
    for (appliance, count) in appliances.iter().zip(counts) {
        let mut connection = support::load::Connection::open(appliance);
        (0..count / 1000).for_each(|_| drop(connection.nonces(1000).unwrap()));
    }
    Turns::of(["1 000", "1 000 000"].map(|count| format!("{count} nonces outstanding {where_}")))
        .run_on(&appliances, [Load::usual(); 2]);
    for appliance in appliances {
        appliance.stop();
    }
}

fn connections() {
    let place = Place::new("");
    let appliance = place.serve();
    let load = |clients, connections| Load { clients, connections: connections / clients };
    for [few, many] in [[load(10, 10), load(10, 1000)], [load(10, 10), load(1000, 1000)]] {
        let name =
            |load: &Load| format!("{} connections, {} used at once", load.clients * load.connections, load.clients);
        Turns::of([name(&few), name(&many)]).run_on([&appliance, &appliance], [few, many]);
    }
    appliance.stop();
}
