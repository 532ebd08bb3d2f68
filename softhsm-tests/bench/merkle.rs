//! Attestations a second on slow tokens: signed one by one, under signatures that single requests share, and
//! in batches, as ratios to what the token could sign and to the bare `C_Sign` loop of the same run. The tokens are
//! SoftHSM2 behind the module whose calls take as long as it is told; server, Redis and load share the machine.
//! Every attestation that was answered is verified by the Python program, after its measurement.
//!
//! `make bench-merkle`; seconds a measurement, after one of warming up: `BENCH_SECONDS` (default 3). With `BENCH_ONLY`
//! only the tables whose title has this text, as "5 ms" or "in Redis".

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(dead_code, reason = "the support of the tests has more than is measured here")]

#[path = "load.rs"]
mod load;
#[path = "../support/mod.rs"]
mod support;

use std::{
    cell::Cell,
    collections::VecDeque,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use load::Load;
use serde_json::json;
use support::{
    appliance::{Appliance, attestation_request},
    faults::Faults,
    own_token,
    redis::RedisServer,
    site::Site,
};
use verification_signer::{
    config::Config,
    token::{PinDesk, bare::Bare},
};

fn seconds() -> u32 {
    std::env::var("BENCH_SECONDS").map_or(3, |text| text.parse().unwrap())
}

/// A token that is slow.
struct SlowToken {
    name: &'static str,
    rule: &'static str,
    workers: usize,
    /// Signatures a second that it can make.
    rate: f64,
}

const TOKENS: [SlowToken; 2] = [
    SlowToken { name: "5 ms, 4 sessions", rule: "C_Sign takes=5ms at-once=4", workers: 4, rate: 800.0 },
    SlowToken { name: "10 signatures/s", rule: "C_Sign takes=100ms at-once=1", workers: 1, rate: 10.0 },
];

/// A way of asking: the path, how many in one request, from how many connections, and how many a second at most.
struct Way {
    name: &'static str,
    path: &'static str,
    together: usize,
    connections: u32,
    most: u32,
    /// Attestations a second that are asked for, evenly; else as many as are answered.
    paced: Option<u32>,
}

const ONE: &str = "/api/v1/attestations";
const SHARED: &str = "/api/v1/attestations?proof=merkle";
const BATCH: &str = "/api/v1/attestations/batch?proof=merkle";

fn ways(token: &SlowToken) -> Vec<Way> {
    let way = |name, path, together, connections, most| Way { name, path, together, connections, most, paced: None };
    if token.workers == 1 {
        vec![
            way("one by one", ONE, 1, 4, 30),
            way("single requests that share", SHARED, 1, 2000, 20_000),
            way("batches of 1000", BATCH, 1000, 3, 40_000),
            Way { paced: Some(10_000), ..way("batches of 250, 10 000/s", BATCH, 250, 20, 11_000) },
        ]
    } else {
        vec![
            way("one by one", ONE, 1, 16, 1200),
            way("single requests that share", SHARED, 1, 512, 40_000),
            way("batches of 1000", BATCH, 1000, 6, 90_000),
        ]
    }
}

fn main() {
    // The bare loop runs in a process of its own: the module reads its environment once.
    if let Ok(workers) = std::env::var("BENCH_BARE_WORKERS") {
        return bare(workers.parse().unwrap());
    }
    verification_signer::secret::raise_file_limit();
    for token in &TOKENS {
        let redis = RedisServer::start(&[]);
        for (nonces, tables) in
            [("in the process", String::new()), ("in Redis", format!("[redis]\nurl = \"{}\"\n", redis.url()))]
        {
            measure_all(token, nonces, &tables);
        }
    }
}

fn measure_all(token: &SlowToken, nonces: &str, tables: &str) {
    let title = format!("token: {} ({} signatures/s); nonces {nonces}", token.name, token.rate);
    if std::env::var("BENCH_ONLY").is_ok_and(|only| !title.contains(&only)) {
        return;
    }
    println!("\n{title}");
    println!(
        "{:<28} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "", "per s", "x token", "CPU µs", "p50 ms", "p99 ms", "C_Sign/s", "verified"
    );
    let (site, faults) = Site::with_key().faulty();
    site.edit_config("[token]", &format!("[token]\nworkers = {}", token.workers));
    site.edit_config("[http]", "[http]\nmax_connections_per_address = 10000");
    site.edit_config("[audit]", &format!("[nonce]\noutstanding_per_issuer = 2000000\n{tables}[audit]"));
    let bare = bare_in_child(&site, &faults, token);
    println!("{:<28} {bare:>9.0} {:>9.2}", "the bare C_Sign loop", bare / token.rate);
    for way in ways(token) {
        // With a token that is as quick as it is: the first signatures open sessions.
        faults.clear();
        let appliance = site.serve().unwrap_or_else(|ended| panic!("{}", ended.output));
        let requests = requests(&appliance, &way);
        faults.set(token.rule);
        measure(&appliance, &faults, token, &way, requests);
        faults.clear();
        appliance.stop();
    }
}

/// Requests with nonces that were fetched before.
fn requests(appliance: &Appliance, way: &Way) -> VecDeque<Vec<u8>> {
    let template = attestation_request("NONCE").to_string();
    let wanted = (way.most * (seconds() + 1)) as usize;
    let mut members = Vec::with_capacity(wanted);
    while members.len() < wanted {
        let batch = json!({ "attestation_type": "email_verification", "count": 1000 });
        for nonce in appliance.post("/api/v1/nonces/batch", &batch).ok().as_array().unwrap() {
            members.push(template.replace("NONCE", nonce["nonce"].as_str().unwrap()));
        }
    }
    if way.together == 1 {
        members.iter().map(|member| load::request(way.path, member.as_bytes())).collect()
    } else {
        let list = |members: &[String]| load::request(way.path, format!("[{}]", members.join(",")).as_bytes());
        members.chunks_exact(way.together).map(list).collect()
    }
}

fn measure(appliance: &Appliance, faults: &Faults, token: &SlowToken, way: &Way, requests: VecDeque<Vec<u8>>) {
    let together = u32::try_from(way.together).unwrap();
    let cycle = way.paced.map(|rate| Duration::from_secs(1) * together * way.connections / rate);
    let load = Load {
        address: appliance.api.strip_prefix("http://").unwrap().to_owned(),
        requests,
        connections: way.connections,
        cycle,
        time: Duration::from_secs(seconds().into()),
    };
    let meter = || (cpu_of(appliance), faults.calls("C_Sign"));
    let (before, after) = (Cell::default(), Cell::default());
    let measured = load::run(load, || before.set(meter()), || after.set(meter()));
    faults.clear();
    let ((cpu_before, signed_before), (cpu_after, signed_after)) = (before.get(), after.get());
    let latencies = &measured.latencies;
    let (count, rate) = (latencies.len() * way.together, measured.rate * way.together as f64);
    let percentile = |percent: usize| latencies[latencies.len() * percent / 100] * 1e3;
    print!(
        "{:<28} {:>9.0} {:>9.2} {:>8.1} {:>8.1} {:>8.1} {:>8.1}",
        way.name,
        rate,
        rate / token.rate,
        cpu_after.saturating_sub(cpu_before).as_secs_f64() * 1e6 / count as f64,
        percentile(50),
        percentile(99),
        (signed_after - signed_before) as f64 / f64::from(seconds()),
    );
    std::io::stdout().flush().unwrap();
    let verified = verify(appliance, &measured.answers);
    assert_eq!(verified, measured.answers.len() * way.together, "all that was answered verifies");
    println!(" {verified:>9}");
}

/// Signatures a second of the bare loop on this token.
fn bare_in_child(site: &Site, faults: &Faults, token: &SlowToken) -> f64 {
    faults.set(token.rule);
    let output = Command::new(std::env::current_exe().unwrap())
        .env("BENCH_BARE_WORKERS", token.workers.to_string())
        .env("BENCH_BARE_CONFIG", site.config())
        .env("SOFTHSM2_CONF", site.token.conf())
        .envs(faults.environment())
        .output()
        .unwrap();
    faults.clear();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().parse().unwrap()
}

fn bare(workers: usize) {
    let config = Config::load(std::env::var_os("BENCH_BARE_CONFIG").unwrap().as_ref()).unwrap();
    let pins = PinDesk::new(config.token.pin_source().unwrap(), &config.state.directory);
    let token = Bare::open(&config.token, &pins).unwrap();
    let time = Duration::from_secs(seconds().into());
    let signed = token.sign_for(time, workers).unwrap();
    println!("{}", signed.len() as f64 / time.as_secs_f64());
    token.close().unwrap();
}

/// How many the Python program finds valid, with the keys of the appliance.
fn verify(appliance: &Appliance, answers: &[Vec<u8>]) -> usize {
    let home = tempfile::tempdir().unwrap();
    let keys = home.path().join("jwks.json");
    fs::write(&keys, appliance.get("/.well-known/jwks.json").body).unwrap();
    let file = home.path().join("answers.json");
    // Single attestations as the members of one list.
    let wrapped = |answer: &Vec<u8>| match answer.first() {
        Some(b'[') => answer[1..answer.len() - 1].to_vec(),
        _ => [b"{\"attestation\":", &answer[..], b"}"].concat(),
    };
    let lists: Vec<_> = answers.iter().map(wrapped).collect();
    fs::write(&file, [&b"["[..], &lists.join(&b','), b"]"].concat()).unwrap();
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python: PathBuf = root.join("target/venv/bin/python3");
    let script = root.join("softhsm-tests/verify_attestation.py");
    let output = Command::new(python).arg(script).arg(&keys).arg(&file).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    output.stdout.split(|byte| *byte == b'\n').filter(|line| line.starts_with(b"valid ")).count()
}

/// utime + stime of an appliance and of the process that holds its module.
fn cpu_of(appliance: &Appliance) -> Duration {
    cpu_time(appliance.pid()) + own_token::process_of(appliance.pid()).map_or(Duration::ZERO, cpu_time)
}

/// utime + stime of a process; the clock tick is 100 Hz on Linux.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
