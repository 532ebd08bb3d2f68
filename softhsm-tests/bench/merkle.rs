//! Attestations a second on slow tokens: signed one by one, under signatures that single requests share, and
//! in batches. The tokens are SoftHSM2 behind the module that is slow as it is told; server and load share
//! the machine. Every attestation that was answered is verified by the Python program.
//!
//! `make bench-merkle`; seconds a measurement: `BENCH_SECONDS` (default 3).

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(dead_code, reason = "the support of the tests has more than is measured here")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    collections::VecDeque,
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::json;
use support::{
    appliance::{Appliance, attestation_request},
    faults::Faults,
    redis::RedisServer,
    site::Site,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
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
    SlowToken { name: "5 ms, 4 sessions", rule: "C_Sign delay=5ms at-once=4", workers: 4, rate: 800.0 },
    SlowToken { name: "10 signatures/s", rule: "C_Sign delay=100ms at-once=1", workers: 1, rate: 10.0 },
];

/// A way of asking: the path, how many in one request, from how many connections, and how many a second at most.
struct Way {
    name: &'static str,
    path: &'static str,
    together: usize,
    connections: usize,
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
            way("one by one", ONE, 1, 4, 20),
            way("single requests that share", SHARED, 1, 2000, 30_000),
            way("batches of 1000", BATCH, 1000, 3, 60_000),
            Way { paced: Some(10_000), ..way("batches of 1000, 10 000/s", BATCH, 1000, 6, 12_000) },
        ]
    } else {
        vec![
            way("one by one", ONE, 1, 16, 1000),
            way("single requests that share", SHARED, 1, 256, 40_000),
            way("batches of 1000", BATCH, 1000, 6, 100_000),
        ]
    }
}

fn main() {
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
    println!("\ntoken: {} ({} signatures/s); nonces {nonces}", token.name, token.rate);
    println!(
        "{:<28} {:>9} {:>9} {:>8} {:>8} {:>8} {:>8} {:>9}",
        "", "per s", "x token", "CPU µs", "p50 ms", "p99 ms", "C_Sign", "verified"
    );
    let (site, faults) = Site::with_key().faulty();
    site.edit_config("[token]", &format!("[token]\nworkers = {}", token.workers));
    site.edit_config("[http]", "[http]\nmax_connections_per_address = 10000");
    site.edit_config("[audit]", &format!("[nonce]\noutstanding_per_issuer = 2000000\n{tables}[audit]"));
    for way in ways(token) {
        // With a token that is as quick as it is: the first signatures open sessions.
        faults.clear();
        let appliance = site.serve().unwrap_or_else(|ended| panic!("{}", ended.output));
        let bodies = bodies(&appliance, &way);
        faults.set(token.rule);
        measure(&appliance, &faults, token, &way, bodies);
        faults.clear();
        appliance.stop();
    }
}

/// Requests with nonces that were fetched before.
fn bodies(appliance: &Appliance, way: &Way) -> VecDeque<Vec<u8>> {
    let wanted = (way.most * seconds()) as usize;
    let mut requests = Vec::with_capacity(wanted);
    while requests.len() < wanted {
        let batch = json!({ "attestation_type": "email_verification", "count": 1000 });
        for nonce in appliance.post("/api/v1/nonces/batch", &batch).ok().as_array().unwrap() {
            requests.push(attestation_request(nonce["nonce"].as_str().unwrap()));
        }
    }
    let bytes = |value: &serde_json::Value| serde_json::to_vec(value).unwrap();
    if way.together == 1 {
        requests.iter().map(bytes).collect()
    } else {
        requests.chunks_exact(way.together).map(|chunk| bytes(&json!(chunk))).collect()
    }
}

/// What one measurement has in common for all its connections.
struct Load {
    address: String,
    path: &'static str,
    bodies: Mutex<VecDeque<Vec<u8>>>,
    until: Instant,
    answers: Mutex<Vec<Vec<u8>>>,
    latencies: Mutex<Vec<f64>>,
}

fn measure(appliance: &Appliance, faults: &Faults, token: &SlowToken, way: &Way, bodies: VecDeque<Vec<u8>>) {
    let begun = Instant::now();
    let load = Arc::new(Load {
        address: appliance.api.strip_prefix("http://").unwrap().to_owned(),
        path: way.path,
        bodies: Mutex::new(bodies),
        until: begun + Duration::from_secs(seconds().into()),
        answers: Mutex::default(),
        latencies: Mutex::default(),
    });
    let (before, calls) = (cpu_time(appliance.pid()), faults.calls("C_Sign"));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        // Each connection at its own time in the same cycle.
        let cycle =
            way.paced.map(|rate| Duration::from_secs_f64((way.together * way.connections) as f64 / f64::from(rate)));
        let ask = |number| {
            let pace = cycle.map(|cycle| (begun + cycle * number / u32::try_from(way.connections).unwrap(), cycle));
            tokio::spawn(ask(Arc::clone(&load), pace))
        };
        let asking: Vec<_> = (0..u32::try_from(way.connections).unwrap()).map(ask).collect();
        for one in asking {
            one.await.unwrap();
        }
    });
    let (elapsed, cpu) = (begun.elapsed().as_secs_f64(), cpu_time(appliance.pid()).saturating_sub(before));
    let signatures = faults.calls("C_Sign") - calls;
    faults.clear();
    let mut latencies = std::mem::take(&mut *load.latencies.lock());
    latencies.sort_by(f64::total_cmp);
    let count = latencies.len() * way.together;
    let rate = count as f64 / elapsed;
    let percentile = |percent: usize| latencies[latencies.len() * percent / 100] * 1e3;
    print!(
        "{:<28} {:>9.0} {:>9.2} {:>8.1} {:>8.1} {:>8.1} {:>8}",
        way.name,
        rate,
        rate / token.rate,
        cpu.as_secs_f64() * 1e6 / count as f64,
        percentile(50),
        percentile(99),
        signatures,
    );
    std::io::stdout().flush().unwrap();
    let verified = verify(appliance, &load.answers.lock());
    assert_eq!(verified, count, "all that was answered verifies");
    println!(" {verified:>9}");
}

/// One connection: a request after another until the time is over, or one in each cycle.
async fn ask(load: Arc<Load>, mut pace: Option<(Instant, Duration)>) {
    let mut stream = TcpStream::connect(&load.address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut buffer = Vec::with_capacity(64 * 1024);
    while Instant::now() < load.until {
        if let Some((next, cycle)) = &mut pace {
            tokio::time::sleep_until((*next).into()).await;
            *next += *cycle;
        }
        let Some(body) = load.bodies.lock().pop_front() else { break };
        let head = format!(
            "POST {} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            load.path,
            body.len()
        );
        let begun = Instant::now();
        stream.write_all(&[head.as_bytes(), &body].concat()).await.unwrap();
        let (status, answer) = read_answer(&mut stream, &mut buffer).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&answer));
        load.latencies.lock().push(begun.elapsed().as_secs_f64());
        load.answers.lock().push(answer);
    }
}

async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> (u16, Vec<u8>) {
    buffer.clear();
    let mut found = None;
    let (head, length) = loop {
        assert_ne!(stream.read_buf(buffer).await.unwrap(), 0, "the connection was closed");
        found = found.or_else(|| {
            let end = buffer.windows(4).position(|window| window == b"\r\n\r\n")? + 4;
            let head = String::from_utf8_lossy(&buffer[..end]).into_owned();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
            Some((head, end + length.unwrap()))
        });
        if let Some((head, length)) = &found
            && buffer.len() >= *length
        {
            break (head.clone(), *length);
        }
    };
    let body = buffer[head.len()..length].to_vec();
    (head["HTTP/1.1 ".len()..][..3].parse().unwrap(), body)
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

/// utime + stime of a process; the clock tick is 100 Hz on Linux.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}
