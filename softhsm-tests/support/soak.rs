//! Load for a long time, and what the processes hold meanwhile.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    appliance::Appliance,
    load::{Connection, Held, Stock, processes},
};

/// How an appliance is loaded.
#[derive(Clone, Copy, Debug)]
pub struct Soak {
    /// Attestations a second, evenly.
    pub rate: u32,
    pub clients: u32,
    pub time: Duration,
    /// How often it is looked at.
    pub look: Duration,
}

/// One look.
#[derive(Clone, Debug)]
pub struct Look {
    pub at: Duration,
    /// Since the look before.
    pub attestations: usize,
    pub p50: Duration,
    pub p99: Duration,
    /// The appliance, and the process that holds its module.
    pub held: Vec<Held>,
}

impl Look {
    /// What both processes hold together.
    pub fn together(&self) -> Held {
        self.held.iter().fold(Held::default(), |all, one| Held {
            resident_kib: all.resident_kib + one.resident_kib,
            descriptors: all.descriptors + one.descriptors,
            threads: all.threads + one.threads,
        })
    }
}

/// What a soak came to.
#[derive(Debug)]
pub struct Soaked {
    pub looks: Vec<Look>,
    /// Requests that were not answered with an attestation: how many, and what was said of the first ones.
    pub failed: u64,
    pub said: Vec<String>,
    /// Requests that were left out because this side itself was held up.
    pub left_out: u64,
}

/// When this side is so late, it was held up itself: what was to be sent meanwhile is left out.
const HELD_UP: Duration = Duration::from_secs(2);

/// Loads an appliance; `tell` sees every look.
pub fn soak(appliance: &Appliance, order: Soak, tell: impl Fn(&Look)) -> Soaked {
    let state = State::default();
    state.stock.fill(appliance, stock(order));
    let begun = Instant::now();
    let end = begun + order.time;
    let looks = thread::scope(|scope| {
        scope.spawn(|| state.keep_stock(appliance, order));
        for number in 0..order.clients {
            let state = &state;
            scope.spawn(move || state.client(appliance, order, begun, number));
        }
        let mut looks = Vec::new();
        while Instant::now() < end {
            thread::sleep(order.look.min(end.saturating_duration_since(Instant::now())));
            let look = state.look(appliance, begun);
            tell(&look);
            looks.push(look);
        }
        state.over.store(true, Ordering::Relaxed);
        looks
    });
    let (failed, left_out) = (state.failed.into_inner(), state.left_out.into_inner());
    Soaked { looks, failed, said: state.said.into_inner(), left_out }
}

/// Requests in stock: for one second, at least.
fn stock(order: Soak) -> usize {
    usize::try_from(order.rate).unwrap().max(1000)
}

#[derive(Default)]
struct State {
    stock: Stock,
    taken: Mutex<Vec<Duration>>,
    failed: AtomicU64,
    said: Mutex<Vec<String>>,
    left_out: AtomicU64,
    over: AtomicBool,
}

impl State {
    fn keep_stock(&self, appliance: &Appliance, order: Soak) {
        let mut connection = None;
        while !self.over.load(Ordering::Relaxed) {
            if self.stock.len() >= stock(order) {
                thread::sleep(Duration::from_millis(20));
                continue;
            }
            match connection.get_or_insert_with(|| Connection::open(appliance)).nonces(1000) {
                Ok(nonces) => self.stock.add(&nonces),
                // The connection may have been idle for too long: whoever lacks a nonce says so.
                Err(_) => connection = None,
            }
        }
    }

    fn client(&self, appliance: &Appliance, order: Soak, begun: Instant, number: u32) {
        let cycle = Duration::from_secs(1) * order.clients / order.rate;
        let (mut due, mut connection) = (begun + cycle * number / order.clients, Connection::open(appliance));
        while !self.over.load(Ordering::Relaxed) {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if due.elapsed() > HELD_UP {
                let missed = due.elapsed().as_nanos() / cycle.as_nanos().max(1);
                let missed = u32::try_from(missed).unwrap();
                self.left_out.fetch_add(missed.into(), Ordering::Relaxed);
                due += cycle * missed;
                // Idle connections are cut off, and nonces may have expired.
                self.stock.clear();
                connection = Connection::open(appliance);
            }
            let Some(body) = self.stock.take() else {
                thread::sleep(Duration::from_millis(1));
                continue;
            };
            match connection.try_attest(&body) {
                Ok(()) => self.taken.lock().push(due.elapsed()),
                Err(wrong) => {
                    self.failed.fetch_add(1, Ordering::Relaxed);
                    let mut said = self.said.lock();
                    if said.len() < 5 {
                        said.push(wrong);
                    }
                    connection = Connection::open(appliance);
                }
            }
            due += cycle;
        }
    }

    fn look(&self, appliance: &Appliance, begun: Instant) -> Look {
        let mut taken = std::mem::take(&mut *self.taken.lock());
        taken.sort_unstable();
        let percentile = |percent: usize| taken.get(taken.len() * percent / 100).copied().unwrap_or_default();
        Look {
            at: begun.elapsed(),
            attestations: taken.len(),
            p50: percentile(50),
            p99: percentile(99),
            held: processes(appliance).map(Held::by).collect(),
        }
    }
}

impl Soaked {
    /// What has grown after the first `warm_up`: the fewest of the last quarter are more than the most of the
    /// first one. Of memory so many KiB more are allowed.
    pub fn growth(&self, warm_up: Duration, memory_kib: u64) -> Vec<String> {
        let looks: Vec<Held> = self.looks.iter().filter(|look| look.at > warm_up).map(Look::together).collect();
        let quarter = looks.len().div_ceil(4);
        let (first, last) = (&looks[..quarter], &looks[looks.len() - quarter..]);
        let grown = |what: &str, of: fn(&Held) -> u64, allowed: u64| {
            let (most, least) = (first.iter().map(of).max()?, last.iter().map(of).min()?);
            (least > most + allowed).then(|| format!("{what}: {most} at first, at least {least} in the end"))
        };
        [
            grown("descriptors", |held| held.descriptors as u64, 0),
            grown("threads", |held| held.threads as u64, 0),
            grown("KiB resident", |held| held.resident_kib, memory_kib),
        ]
        .into_iter()
        .flatten()
        .collect()
    }
}
