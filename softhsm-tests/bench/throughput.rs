//! Attestations a second and CPU an attestation, as ratios to the bare `C_Sign` loop of the same
//! run on the same token. Server and load share the machine.
//!
//! `make bench`; seconds a measurement: `BENCH_SECONDS` (default 5); one of them alone: `BENCH_ONLY` (its name). With `BENCH_ISOLATION=1` instead: what
//! it costs that the module is in a process of its own.

#![expect(clippy::unwrap_used, reason = "a measurement that cannot go on has failed")]
#![expect(clippy::cast_precision_loss, reason = "figures for people")]
#![allow(dead_code, reason = "the support of the tests has more than is measured here")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    mechanism::Mechanism,
    object::{Attribute, KeyType, ObjectClass},
    session::UserType,
};
use parking_lot::Mutex;
use serde_json::json;
use support::{
    appliance::{Appliance, attestation_request},
    redis::RedisServer,
    softhsm::{MODULE, PIN, SoftHsm},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

fn seconds() -> Duration {
    Duration::from_secs(std::env::var("BENCH_SECONDS").map_or(5, |text| text.parse().unwrap()))
}

fn main() {
    // The bare loop runs in a process of its own, so that its CPU can be told apart.
    if let Ok(threads) = std::env::var("BENCH_BARE_THREADS") {
        return bare(threads.parse().unwrap());
    }
    let token = SoftHsm::new();
    let home = tempfile::tempdir().unwrap();
    let settings = format!(
        "[key_policy]\nfirst_key_on_token_serial = \"{}\"\n[nonce]\noutstanding_per_issuer = 2000000\n[log]\nlevel = \"warn\"\n",
        token.serial
    );
    println!("{:<44} {:>10} {:>10} {:>9} {:>9}", "", "per second", "CPU µs", "p50 µs", "p99 µs");
    if std::env::var_os("BENCH_ISOLATION").is_some() {
        return isolation(&token, home.path(), &settings);
    }
    // `serve` makes the key; the bare loop then signs with the same one.
    let info = settings.replace("\"warn\"", "\"info\"");
    Appliance::serve(&token, &token.config(home.path(), &info)).unwrap().stop();
    let one = bare_in_child(&token, 1);
    let two = bare_in_child(&token, 2);
    show("bare C_Sign, P-256, 1 thread", &one);
    show("bare C_Sign, P-256, 2 threads", &two);
    let redis = RedisServer::start(&[]);
    let in_redis = format!("{info}[redis]\nurl = \"{}\"\n", redis.url());
    for (name, settings, verify, connections) in [
        ("verified", &info, true, &[1, 16, 64][..]),
        ("verified, nonces in Redis", &in_redis, true, &[16]),
        ("not verified", &info, false, &[16]),
        ("not verified, nonces in Redis", &in_redis, false, &[16, 64]),
    ] {
        if std::env::var("BENCH_ONLY").is_ok_and(|only| only != name) {
            continue;
        }
        let config = token.config(home.path(), settings);
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replace("[token]", &format!("[token]\nverify_signatures = {verify}"))).unwrap();
        let appliance = Appliance::serve(&token, &config).unwrap();
        for connections in connections {
            let full = load(&appliance, *connections);
            show(&format!("{name}, {connections} connections"), &full);
            println!(
                "  = {:.2} of the bare rate (1 thread), {:.2} times its CPU",
                full.rate / one.rate,
                full.cpu / one.cpu
            );
        }
        appliance.stop();
    }
}

/// What it costs that the module is in a process of its own: by turns, so that both see the same machine.
fn isolation(token: &SoftHsm, home: &Path, settings: &str) {
    let settings = settings.replace("\"warn\"", "\"info\"");
    for round in 1..=2 {
        for connections in [1, 4, 16] {
            let [here, apart] = [false, true].map(|isolation| {
                let config = token.config(home, &settings);
                let text = fs::read_to_string(&config).unwrap();
                fs::write(&config, text.replace("[token]", &format!("[token]\nisolation = {isolation}"))).unwrap();
                let appliance = Appliance::serve(token, &config).unwrap();
                let figures = load(&appliance, connections);
                appliance.stop();
                show(&format!("{round}: isolation = {isolation}, {connections} connections"), &figures);
                figures
            });
            println!("  = {:.2} of the rate, {:.2} times the CPU", apart.rate / here.rate, apart.cpu / here.cpu);
        }
    }
}

struct Figures {
    rate: f64,
    cpu: f64,
    p50: f64,
    p99: f64,
}

fn show(name: &str, figures: &Figures) {
    println!("{name:<44} {:>10.0} {:>10.1} {:>9.0} {:>9.0}", figures.rate, figures.cpu, figures.p50, figures.p99);
}

fn figures(mut latencies: Vec<f64>, elapsed: Duration, cpu: Duration) -> Figures {
    latencies.sort_by(f64::total_cmp);
    let count = latencies.len();
    Figures {
        rate: count as f64 / elapsed.as_secs_f64(),
        cpu: cpu.as_secs_f64() * 1e6 / count as f64,
        p50: latencies[count / 2] * 1e6,
        p99: latencies[count * 99 / 100] * 1e6,
    }
}

/// utime + stime of an appliance and of the process that holds its module.
fn cpu_of(appliance: &Appliance) -> Duration {
    let module = support::own_token::process_of(appliance.pid()).map_or(Duration::ZERO, cpu_time);
    cpu_time(appliance.pid()) + module
}

/// utime + stime of a process; the clock tick is 100 Hz on Linux.
fn cpu_time(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

fn bare_in_child(token: &SoftHsm, threads: usize) -> Figures {
    let output = Command::new(std::env::current_exe().unwrap())
        .env("BENCH_BARE_THREADS", threads.to_string())
        .env("BENCH_TOKEN", &token.label)
        .envs(token.environment())
        .output()
        .unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    let mut numbers = text.split_whitespace().map(|number| number.parse::<f64>().unwrap());
    let mut next = || numbers.next().unwrap_or_else(|| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    Figures { rate: next(), cpu: next(), p50: next(), p99: next() }
}

fn bare(threads: usize) {
    let label = std::env::var("BENCH_TOKEN").unwrap();
    let context = Pkcs11::new(MODULE).unwrap();
    context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)).unwrap();
    let named = |slot: &_| context.get_token_info(*slot).is_ok_and(|info| info.label().trim_end() == label);
    let slot = context.get_slots_with_token().unwrap().into_iter().find(named).unwrap();
    let anchor = context.open_rw_session(slot).unwrap();
    anchor.login(UserType::User, Some(&PIN.to_owned().into())).unwrap();
    let begun = Instant::now();
    let before = cpu_time(std::process::id());
    let workers: Vec<_> = (0..threads)
        .map(|_| {
            let session = context.open_rw_session(slot).unwrap();
            // Not the audit key, which is Ed25519.
            let signing_key = [Attribute::Class(ObjectClass::PRIVATE_KEY), Attribute::KeyType(KeyType::EC)];
            thread::spawn(move || {
                let key = session.find_objects(&signing_key).unwrap()[0];
                let (mut latencies, end) = (Vec::new(), Instant::now() + seconds());
                while Instant::now() < end {
                    let call = Instant::now();
                    session.sign(&Mechanism::Ecdsa, key, &[7; 32]).unwrap();
                    latencies.push(call.elapsed().as_secs_f64());
                }
                latencies
            })
        })
        .collect();
    let latencies: Vec<f64> = workers.into_iter().flat_map(|worker| worker.join().unwrap()).collect();
    let figures = figures(latencies, begun.elapsed(), cpu_time(std::process::id()).saturating_sub(before));
    println!("{} {} {} {}", figures.rate, figures.cpu, figures.p50, figures.p99);
}

fn load(appliance: &Appliance, connections: usize) -> Figures {
    // Nonces are fetched before the measurement; more than could be signed.
    let wanted = usize::try_from(seconds().as_secs()).unwrap() * 30_000;
    let mut requests = Vec::with_capacity(wanted);
    while requests.len() < wanted {
        let batch = json!({ "attestation_type": "email_verification", "count": 1000 });
        for nonce in appliance.post("/api/v1/nonces/batch", &batch).ok().as_array().unwrap() {
            let body = serde_json::to_vec(&attestation_request(nonce["nonce"].as_str().unwrap())).unwrap();
            requests.push(request("/api/v1/attestations", &body));
        }
    }
    let address = appliance.api.strip_prefix("http://").unwrap().to_owned();
    let (begun, before) = (Instant::now(), cpu_of(appliance));
    let load = Arc::new(Load { requests: Mutex::new(requests), latencies: Mutex::default(), until: begun + seconds() });
    // All in one thread: threads of their own would take from the appliance what they cost to wake.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let clients: Vec<_> =
            (0..connections).map(|_| tokio::spawn(client(Arc::clone(&load), address.clone()))).collect();
        for client in clients {
            client.await.unwrap();
        }
    });
    let latencies = std::mem::take(&mut *load.latencies.lock());
    figures(latencies, begun.elapsed(), cpu_of(appliance).saturating_sub(before))
}

/// What all connections share.
struct Load {
    requests: Mutex<Vec<Vec<u8>>>,
    latencies: Mutex<Vec<f64>>,
    until: Instant,
}

fn request(path: &str, body: &[u8]) -> Vec<u8> {
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    [head.as_bytes(), body].concat()
}

/// One connection: a request after another until the time is over.
async fn client(load: Arc<Load>, address: String) {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.set_nodelay(true).unwrap();
    let mut answer = Vec::with_capacity(8 << 10);
    while Instant::now() < load.until {
        let Some(request) = load.requests.lock().pop() else { break };
        let call = Instant::now();
        stream.write_all(&request).await.unwrap();
        answer.clear();
        while !is_whole(&answer) {
            assert_ne!(stream.read_buf(&mut answer).await.unwrap(), 0, "the connection was closed");
        }
        assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
        load.latencies.lock().push(call.elapsed().as_secs_f64());
    }
}

fn is_whole(answer: &[u8]) -> bool {
    let Some(end) = answer.windows(4).position(|window| window == b"\r\n\r\n") else { return false };
    let head = std::str::from_utf8(&answer[..end]).unwrap();
    let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse::<usize>().ok());
    answer.len() >= end + 4 + length.unwrap()
}
