//! Everything at once, for minutes.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
};

use parking_lot::Mutex;

use super::*;

/// What has been brought to whom, and how often it was accepted.
#[derive(Default)]
struct Tally {
    requests: Mutex<Vec<(Request, u32)>>,
}

impl Tally {
    fn add(&self, request: &Request) -> usize {
        let mut requests = self.requests.lock();
        requests.push((request.clone(), 0));
        requests.len() - 1
    }

    /// Brings what may have been accepted, some time ago or just now.
    async fn bring_again(&self, store: &RedisStore, number: usize) {
        let request = self.requests.lock()[number].0.clone();
        if is_fresh(&bring(store, &request).await) {
            self.requests.lock()[number].1 += 1;
        }
    }
}

/// New requests for all stores at once, and old ones again, until told to stop.
async fn storm(stores: Arc<Vec<RedisStore>>, tally: Arc<Tally>, stop: Arc<AtomicBool>, first: usize) {
    let mut turn = first;
    while !stop.load(Ordering::Relaxed) {
        let number = tally.add(&request());
        let others = (0..stores.len()).map(|i| &stores[(turn + i) % stores.len()]);
        for store in others {
            tally.bring_again(store, number).await;
        }
        // Whatever is still within its window, and then some.
        let old = random::<4>().map(u32::from_le_bytes).unwrap() as usize % (number + 1);
        for store in stores.iter() {
            tally.bring_again(store, old).await;
        }
        turn += 1;
    }
}

/// One thing that happens to Redis. None of it waits for anything.
fn strike(servers: &mut [RedisServer; 3], dice: [u8; 4]) -> &'static str {
    let (one, other) = (usize::from(dice[1] % 3), usize::from(dice[1] % 3 + 1 + dice[2] % 2) % 3);
    let port = |server: usize, servers: &[RedisServer; 3]| servers[server].port.to_string();
    match dice[0] % 8 {
        0 => {
            servers[one].promote();
            "promoted"
        }
        1 | 2 => {
            let port = port(other, servers);
            servers[one].command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
            "told to follow"
        }
        3 => {
            servers[one].freeze();
            std::thread::sleep(Duration::from_millis(u64::from(dice[3]) * 10));
            servers[one].thaw();
            "frozen for a while"
        }
        4 => {
            let _ = servers[one].try_command::<()>(&["FLUSHALL"]);
            "flushed"
        }
        5 => {
            servers[one].kill();
            servers[one].start_again();
            "restarted empty"
        }
        // What Sentinels do.
        _ => {
            servers[one].promote();
            let port = port(one, servers);
            for follower in (0..3).filter(|index| *index != one) {
                servers[follower].command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
            }
            "made the master of all"
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
#[ignore = "long: run by make test-long"]
async fn in_a_storm_of_failovers_nothing_is_accepted_twice() {
    const ROUNDS: usize = 60;
    let mut servers = trio();
    let mut stores = Vec::new();
    for master in 0..3 {
        servers[master].promote();
        for follower in (0..3).filter(|index| *index != master) {
            servers[follower].follow(&servers[master]);
        }
        let config = Config { command_timeout: Duration::from_millis(300), ..config(servers[master].url()) };
        let limits = nonce::Config { capacity: 1_000_000, ..accepting() };
        stores.push(connect(&config, limits).await.unwrap());
    }
    let (stores, tally, stop) = (Arc::new(stores), Arc::new(Tally::default()), Arc::new(AtomicBool::new(false)));
    let storms: Vec<_> =
        (0..3).map(|i| tokio::spawn(storm(Arc::clone(&stores), Arc::clone(&tally), Arc::clone(&stop), i))).collect();
    let mut strikes = BTreeMap::<&str, usize>::new();
    for _ in 0..ROUNDS {
        // A few blows in a row, then some time in which a floor may pass.
        let dice = random::<1>().unwrap()[0];
        for _ in 0..=dice % 3 {
            let dice = random().unwrap();
            let (back, what) = tokio::task::spawn_blocking(move || {
                let what = strike(&mut servers, dice);
                (servers, what)
            })
            .await
            .unwrap();
            servers = back;
            *strikes.entry(what).or_default() += 1;
            tokio::time::sleep(Duration::from_millis(u64::from(dice[3]) * 4)).await;
        }
        tokio::time::sleep(Duration::from_secs(u64::from(dice % 9))).await;
    }
    stop.store(true, Ordering::Relaxed);
    for storm in storms {
        storm.await.unwrap();
    }
    let requests = tally.requests.lock();
    let accepted = requests.iter().filter(|(_, times)| *times > 0).count();
    let twice = requests.iter().filter(|(_, times)| *times > 1).count();
    println!("{} requests, {accepted} accepted, {twice} accepted twice, {strikes:?}", requests.len());
    assert!(twice == 0 && accepted > 100, "{twice} twice, {accepted} accepted");
}
