//! Load on an appliance from the same machine: as fast as it answers, or at times that are fixed before.

use std::{
    collections::VecDeque,
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    num::NonZero,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use super::{
    appliance::{Appliance, attestation_request},
    own_token,
};

/// What a measurement came to.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// Of each request, sorted.
    pub latencies: Vec<Duration>,
    pub elapsed: Duration,
    /// Of the server, and of the process that holds its module.
    pub cpu: Duration,
}

impl Figures {
    pub fn of(mut latencies: Vec<Duration>, elapsed: Duration, cpu: Duration) -> Self {
        latencies.sort_unstable();
        Self { latencies, elapsed, cpu }
    }

    /// Two measurements of the same, as one.
    pub fn and(self, other: Self) -> Self {
        let latencies = [self.latencies, other.latencies].concat();
        Self::of(latencies, self.elapsed + other.elapsed, self.cpu + other.cpu)
    }

    #[expect(clippy::cast_precision_loss, reason = "counts far below 2^52")]
    fn count(&self) -> f64 {
        self.latencies.len().max(1) as f64
    }

    pub fn per_second(&self) -> f64 {
        self.count() / self.elapsed.as_secs_f64()
    }

    /// Microseconds each.
    pub fn cpu_us(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.count()
    }

    /// Microseconds that so many of a thousand took at most.
    pub fn percentile_us(&self, per_mille: usize) -> f64 {
        let at = (self.latencies.len() * per_mille / 1000).min(self.latencies.len().saturating_sub(1));
        self.latencies.get(at).map_or(0.0, |latency| latency.as_secs_f64() * 1e6)
    }
}

/// Requests for attestations, with nonces that were fetched before: the oldest goes first, before it expires.
#[derive(Default)]
pub struct Stock(Mutex<VecDeque<Vec<u8>>>);

impl Stock {
    /// Fetches nonces until there are so many requests.
    pub fn fill(&self, appliance: &Appliance, wanted: usize) {
        let mut connection = Connection::open(appliance);
        while self.0.lock().len() < wanted {
            self.add(&connection.nonces(1000).unwrap());
        }
    }

    pub fn add(&self, nonces: &[String]) {
        let bodies = nonces.iter().map(|nonce| serde_json::to_vec(&attestation_request(nonce)).unwrap());
        let bodies: Vec<_> = bodies.collect();
        self.0.lock().extend(bodies);
    }

    pub fn len(&self) -> usize {
        self.0.lock().len()
    }

    /// A request; `None` when there is none left.
    pub fn take(&self) -> Option<Vec<u8>> {
        self.0.lock().pop_front()
    }

    /// Forgets the requests that are left.
    pub fn clear(&self) {
        self.0.lock().clear();
    }

    fn must_take(&self) -> Vec<u8> {
        self.take().expect("enough requests were prepared")
    }
}

/// So many clients at once, each with so many connections that it uses by turns: as fast as they are answered.
pub fn as_fast_as_answered(
    appliance: &Appliance,
    stock: &Stock,
    clients: usize,
    connections: usize,
    time: Duration,
) -> Figures {
    measured(appliance, || {
        let end = Instant::now() + time;
        side_by_side(clients, || {
            let mut own: Vec<_> = (0..connections).map(|_| Connection::open(appliance)).collect();
            let mut latencies = Vec::new();
            'all: loop {
                for connection in &mut own {
                    if Instant::now() >= end {
                        break 'all latencies;
                    }
                    latencies.push(connection.attest(&stock.must_take(), Instant::now()));
                }
            }
        })
    })
}

/// Requests at times that are fixed before, whether the ones before were answered or not: each is measured
/// from when it should have been sent.
pub fn at_times(appliance: &Appliance, stock: &Stock, clients: usize, times: &[Duration]) -> Figures {
    let next = AtomicUsize::new(0);
    measured(appliance, || {
        let begun = Instant::now() + Duration::from_millis(20);
        side_by_side(clients, || {
            exactly_on_time();
            let (mut connection, mut latencies) = (Connection::open(appliance), Vec::new());
            while let Some(time) = times.get(next.fetch_add(1, Ordering::Relaxed)) {
                let (body, due) = (stock.must_take(), begun + *time);
                thread::sleep(due.saturating_duration_since(Instant::now()));
                latencies.push(connection.attest(&body, due));
            }
            latencies
        })
    })
}

/// This thread is woken when its time has come, not up to 50 µs later.
pub fn exactly_on_time() {
    rustix::thread::set_current_timer_slack(NonZero::new(1)).unwrap();
}

/// Times of so many requests a second, as clients ask who know nothing of each other (a Poisson process); the
/// same ones in every run.
pub fn times(rate: f64, time: Duration) -> Vec<Duration> {
    let (mut state, mut at, mut times) = (0x9e37_79b9_7f4a_7c15_u64, 0.0, Vec::new());
    while at < time.as_secs_f64() {
        times.push(Duration::from_secs_f64(at));
        // xorshift64*: random enough for gaps.
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        #[expect(clippy::cast_precision_loss, reason = "53 bits of it")]
        let uniform = (state.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1_u64 << 53) as f64;
        at -= (1.0 - uniform).ln() / rate;
    }
    times
}

fn measured(appliance: &Appliance, load: impl FnOnce() -> Vec<Duration>) -> Figures {
    let (begun, before) = (Instant::now(), cpu(appliance));
    let latencies = load();
    Figures::of(latencies, begun.elapsed(), cpu(appliance).saturating_sub(before))
}

fn side_by_side(clients: usize, client: impl Fn() -> Vec<Duration> + Sync) -> Vec<Duration> {
    thread::scope(|scope| {
        let clients: Vec<_> = (0..clients).map(|_| scope.spawn(&client)).collect();
        clients.into_iter().flat_map(|client| client.join().unwrap()).collect()
    })
}

/// CPU of an appliance, and of the process that holds its module.
pub fn cpu(appliance: &Appliance) -> Duration {
    processes(appliance).map(cpu_of).sum()
}

/// The appliance, and the process that holds its module when there is one.
pub fn processes(appliance: &Appliance) -> impl Iterator<Item = u32> {
    [appliance.pid()].into_iter().chain(own_token::process_of(appliance.pid()))
}

/// utime and stime of a process: proc(5), in ticks of 10 ms.
pub fn cpu_of(pid: u32) -> Duration {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, fields) = stat.rsplit_once(") ").unwrap();
    let ticks: u64 = fields.split(' ').skip(11).take(2).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 10)
}

/// What a process holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Held {
    pub resident_kib: u64,
    pub descriptors: usize,
    pub threads: usize,
}

impl Held {
    pub fn by(pid: u32) -> Self {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let number = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
            line.split_whitespace().next().unwrap().parse::<u64>().unwrap()
        };
        Self {
            resident_kib: number("VmRSS:"),
            descriptors: fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            threads: usize::try_from(number("Threads:")).unwrap(),
        }
    }
}

/// Memory of a process, of which what it shares with others is counted in part.
pub fn proportional_kib(pid: u32) -> u64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

/// A connection that is kept, and costs this side as little as possible.
pub struct Connection(BufReader<TcpStream>);

impl Connection {
    pub fn open(appliance: &Appliance) -> Self {
        let stream = TcpStream::connect(appliance.api.strip_prefix("http://").unwrap()).unwrap();
        stream.set_nodelay(true).unwrap();
        Self(BufReader::with_capacity(4096, stream))
    }

    /// Asks for an attestation, which must be made; how long it took since `due`.
    pub fn attest(&mut self, body: &[u8], due: Instant) -> Duration {
        self.try_attest(body).unwrap_or_else(|wrong| panic!("{wrong}"));
        due.elapsed()
    }

    /// The same; what went wrong.
    pub fn try_attest(&mut self, body: &[u8]) -> Result<(), String> {
        let answer = self.post("/api/v1/attestations", body).map_err(|error| error.to_string())?;
        match answer {
            (200, _) => Ok(()),
            (status, body) => Err(format!("{status} {}", String::from_utf8_lossy(&body))),
        }
    }

    /// At most 1000 nonces, in one request.
    pub fn nonces(&mut self, count: usize) -> Result<Vec<String>, String> {
        let batch = json!({ "attestation_type": "email_verification", "count": count });
        let answer = self.post("/api/v1/nonces/batch", &serde_json::to_vec(&batch).unwrap());
        let (status, body) = answer.map_err(|error| error.to_string())?;
        let nonces: Value = serde_json::from_slice(&body).map_err(|error| format!("{status}: {error}"))?;
        let nonces = nonces.as_array().ok_or_else(|| format!("{status} {nonces}"))?;
        Ok(nonces.iter().map(|nonce| nonce["nonce"].as_str().unwrap().to_owned()).collect())
    }

    fn post(&mut self, path: &str, body: &[u8]) -> std::io::Result<(u16, Vec<u8>)> {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: b\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.0.get_mut().write_all(&[head.as_bytes(), body].concat())?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end() {
                "" => break,
                line => {
                    if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                        status = rest[..3].parse().unwrap();
                    } else if let Some(value) = line.strip_prefix("content-length: ") {
                        length = value.parse().unwrap();
                    }
                }
            }
        }
        let mut answer = vec![0; length];
        self.0.read_exact(&mut answer)?;
        Ok((status, answer))
    }
}
