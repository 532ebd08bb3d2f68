//! Memory with many connections, and the time from the start until it is ready.

use std::time::{Duration, Instant};

use crate::{
    Place, bare, rotate,
    support::{
        appliance::Appliance,
        load::{Connection, Held, Stock, as_fast_as_answered, processes, proportional_kib},
        redis::RedisServer,
    },
};

const CONNECTIONS: usize = 1000;

/// Together: what both share, the program for the most part, is counted once (proportional set size, proc(5)).
/// With nonces in Redis: in the process there would be besides what nonces are wanted.
pub fn memory() {
    let redis = RedisServer::start(&[]);
    let place = Place::new(&format!("[redis]\nurl = \"{}\"\n", redis.url()));
    let appliance = place.serve();
    println!("{:<56} {:>14} {:>14} {:>18}", "MiB resident", "appliance", "its module's", "both, shared once");
    tell("started", &appliance);
    let open: Vec<_> = (0..CONNECTIONS).map(|_| Connection::open(&appliance)).collect();
    tell("1000 connections, of which nothing has come", &appliance);
    drop(open);
    let stock = Stock::default();
    stock.fill(&appliance, 300_000);
    as_fast_as_answered(&appliance, &stock, 16, CONNECTIONS / 16, Duration::from_secs(5));
    tell("1000 connections, 16 of them used at once for 5 s", &appliance);
    as_fast_as_answered(&appliance, &stock, CONNECTIONS, 1, Duration::from_secs(10));
    tell("1000 connections, all of them used at once for 10 s", &appliance);
    println!();
    appliance.stop();
}

fn tell(when: &str, appliance: &Appliance) {
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52")]
    let mib = |kib: u64| kib as f64 / 1024.0;
    let resident: Vec<f64> = processes(appliance).map(|pid| mib(Held::by(pid).resident_kib)).collect();
    let together: u64 = processes(appliance).map(proportional_kib).sum();
    println!("{when:<56} {:>14.1} {:>14.1} {:>18.1}", resident[0], resident[1], mib(together));
}

/// From the start of the process until it says that it is ready, with keys of others and of its own on the token.
pub fn start() {
    println!("{:<56} {:>14} {:>14} {:>14}", "ms from start to ready, median of 11", "ready", "token alone", "objects");
    for (name, own, others) in
        [("1 key", 1, 0), ("100 keys on the token, others'", 1, 99), ("100 keys of its own, rotated", 100, 0)]
    {
        let place = Place::new("");
        let first = place.serve();
        rotate(&first, own);
        first.stop();
        bare::generate_keys(&place.token, others);
        let ready = median(|| {
            let begun = Instant::now();
            let appliance = place.serve();
            let taken = begun.elapsed();
            appliance.stop();
            taken
        });
        let (_, objects) = bare::start(&place.token);
        let alone = median(|| bare::start(&place.token).0);
        println!("{name:<56} {:>14.0} {:>14.0} {objects:>14}", ready.as_secs_f64() * 1e3, alone.as_secs_f64() * 1e3);
    }
    println!();
}

fn median(measure: impl FnMut() -> Duration) -> Duration {
    let mut all: Vec<_> = std::iter::repeat_with(measure).take(11).collect();
    all.sort_unstable();
    all[5]
}
