//! Many nonces, many appliances.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use super::server::RedisServer;
use super::*;

fn roomy() -> nonce::Config {
    nonce::Config { outstanding_per_issuer: 2_000_000, capacity: 2_000_000, ..nonce::Config::default() }
}

async fn issue(store: &RedisStore, count: usize) -> Vec<NonceValue> {
    let mut nonces = Vec::with_capacity(count);
    while nonces.len() < count {
        let issued = store.issue(&contract::order(), 500.min(count - nonces.len()), now()).await.unwrap();
        nonces.extend(issued.into_iter().map(|issued| issued.nonce));
    }
    nonces
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn a_hundred_thousand_nonces_spent_by_three_appliances_at_once_are_each_fresh_once() {
    const NONCES: usize = 100_000;
    let server = RedisServer::start(&[]);
    let mut appliances = Vec::new();
    for _ in 0..3 {
        appliances.push(Arc::new(store_with(&server.url(), roomy()).await));
    }
    let nonces = Arc::new(issue(&appliances[0], NONCES).await);
    let fresh: Arc<Vec<AtomicU32>> = Arc::new((0..NONCES).map(|_| AtomicU32::new(0)).collect());
    let started = Instant::now();
    let tasks: Vec<_> = (0..24)
        .map(|task| {
            let (store, nonces, fresh) = (Arc::clone(&appliances[task % 3]), Arc::clone(&nonces), Arc::clone(&fresh));
            tokio::spawn(async move {
                // Each appliance spends all, its tasks in turn, so that all meet at the same nonce.
                for (nonce, fresh) in nonces.iter().zip(fresh.iter()).skip(task / 3).step_by(8) {
                    match spend(&store, nonce).await {
                        Ok(Spend::Fresh(_)) => {
                            fresh.fetch_add(1, Ordering::Relaxed);
                        }
                        Err(Error::InProgress) => {}
                        other => panic!("{other:?}"),
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.unwrap();
    }
    #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
    let rate = (3 * NONCES) as f64 / started.elapsed().as_secs_f64();
    println!("{rate:.0} spends a second");
    assert!(fresh.iter().all(|times| times.load(Ordering::Relaxed) == 1));
    let stats = appliances[0].stats().await.unwrap();
    assert_eq!((stats.outstanding, stats.spent), (0, NONCES as u64));
}

/// Run with `--nocapture` for the figures.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "long: run by make test-long"]
async fn a_spend_among_a_million_outstanding_nonces_is_as_fast_as_among_a_thousand() {
    let (small, large) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let (among_few, among_many) = (store_with(&small.url(), roomy()).await, store_with(&large.url(), roomy()).await);
    println!("per settled nonce: {} bytes", settled_size(&among_few, &small).await);
    let memory = || large.info("memory", "used_memory").parse::<u64>().unwrap();
    let empty = memory();
    // Spread over all, so that nothing is warm.
    let many: Vec<_> = issue(&among_many, 1_000_000).await.into_iter().step_by(1_000).collect();
    println!("per outstanding nonce: {} bytes", (memory() - empty) / 1_000_000);
    let few = issue(&among_few, 1_000).await;
    for server in [&small, &large] {
        server.command::<()>(&["CONFIG", "RESETSTAT"]);
    }
    // In turn, so that a busy machine slows both.
    let (mut few_times, mut many_times) = (Vec::new(), Vec::new());
    for (few, many) in few.iter().zip(&many) {
        few_times.push(time_of_spend(&among_few, few).await);
        many_times.push(time_of_spend(&among_many, many).await);
    }
    for (among, times, server) in [("1 000", &mut few_times, &small), ("1 000 000", &mut many_times, &large)] {
        times.sort();
        println!("among {among}: median {:?}, p99 {:?}", times[500], times[990]);
        println!("  in the server: {}", server.info("commandstats", "cmdstat_evalsha"));
    }
    assert!(many_times[500] < few_times[500].mul_f64(1.2), "{:?} {:?}", many_times[500], few_times[500]);
}

async fn time_of_spend(store: &RedisStore, nonce: &NonceValue) -> Duration {
    let started = Instant::now();
    fresh(store, nonce).await;
    started.elapsed()
}

/// What a nonce takes with an answer of the usual length, key and index included.
async fn settled_size(store: &RedisStore, server: &RedisServer) -> u64 {
    let memory = || server.info("memory", "used_memory").parse::<u64>().unwrap();
    let before = memory();
    let nonces = issue(store, 2_000).await;
    for nonce in &nonces {
        let spent = fresh(store, nonce).await;
        let answer = Answer { signature: "A".repeat(88), ..answer() };
        store.settle(spent, &answer).await.unwrap();
    }
    (memory() - before) / 2_000
}
