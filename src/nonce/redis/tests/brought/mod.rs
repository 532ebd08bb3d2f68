//! Nonces that clients bring are spent once, whatever happens to Redis. Each scenario waits out a floor
//! or two, some seconds each.
//!
//! Each of these was seen to fail with a part of the protocol taken out, one at a time: waiting for
//! replicas, with a claim, with everything; asking for a majority at the start; the floor, its margin;
//! comparing the incarnation after WAIT; noticing that a replica came; the canary; the index; evicted
//! keys and policy; the clock; the mark of issued nonces. Comparing the incarnation before a claim
//! too only spares nonces: what comes after WAIT decides.

mod storm;

use std::{
    process::Command,
    sync::atomic::{AtomicI64, Ordering},
};

use super::server::{RedisServer, until};
use super::*;
use crate::quota::{Charge, Principal, Quota, Window};

fn accepting() -> nonce::Config {
    nonce::Config { accept_client_nonces: true, ..contract::config() }
}

/// As appliances are: in a hurry.
async fn open(server: &RedisServer) -> RedisStore {
    let config = Config { command_timeout: Duration::from_secs(1), ..config(server.url()) };
    connect(&config, accepting()).await.unwrap()
}

fn clock() -> Timestamp {
    Clock::system().now()
}

/// A request with a nonce of the client's own, made now.
#[derive(Clone)]
struct Request {
    nonce: NonceValue,
    use_: Use,
}

fn request() -> Request {
    let nonce = NonceValue::from_bytes(&random::<16>().unwrap()).unwrap();
    Request { nonce, use_: Use { timestamp: clock(), timestamp_stated: true, ..use_() } }
}

async fn bring(store: &RedisStore, request: &Request) -> Result<Spend, Error> {
    store.spend(Claim::new(&Permit, request.nonce.clone(), request.use_.clone()), Duration::ZERO, clock()).await
}

fn is_fresh(result: &Result<Spend, Error>) -> bool {
    matches!(result, Ok(Spend::Fresh(_)))
}

/// New requests until one is accepted.
async fn accepted(store: &RedisStore) -> Request {
    accepted_without_replay(store, &[]).await
}

/// The same, and meanwhile and afterwards none of these is accepted again.
async fn accepted_without_replay(store: &RedisStore, taken: &[Request]) -> Request {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let request = request();
        let result = bring(store, &request).await;
        for old in taken {
            let replayed = bring(store, old).await;
            assert!(!is_fresh(&replayed), "accepted twice");
        }
        if is_fresh(&result) {
            return request;
        }
        assert!(Instant::now() < deadline, "never accepted: {}", causes(&result.unwrap_err()));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Three servers; the others follow the first.
fn trio() -> [RedisServer; 3] {
    let servers = [RedisServer::start(&[]), RedisServer::start(&[]), RedisServer::start(&[])];
    servers[1].follow(&servers[0]);
    servers[2].follow(&servers[0]);
    servers
}

/// Each scenario mostly waits, so all run at the same time.
macro_rules! all_at_once {
    ($($scenario:ident),* $(,)?) => {
        #[tokio::test(flavor = "multi_thread", worker_threads = 12)]
        async fn nonces_that_clients_bring_are_spent_once() {
            let running = [$((stringify!($scenario), tokio::spawn($scenario()))),*];
            let mut broken = Vec::new();
            for (scenario, task) in running {
                if task.await.is_err() {
                    broken.push(scenario);
                }
            }
            assert!(broken.is_empty(), "{broken:#?}");
        }
    };
}

all_at_once!(
    what_a_client_brings_is_spent_once_and_answers_its_retry,
    what_is_not_acceptable_is_refused_by_name,
    concurrent_claims_go_together_and_count_against_the_capacity,
    an_isolated_master_accepts_nothing_more,
    a_replica_that_missed_a_claim_and_is_promoted_does_not_accept_it_again,
    a_server_changes_under_a_connection_that_stays_and_nothing_is_accepted_again,
    without_a_majority_there_is_no_barrier,
    a_replica_that_comes_while_a_claim_waits_for_it_does_not_count,
    a_replica_that_goes_away_and_comes_back_is_noticed,
    what_is_cleared_or_thrown_away_is_not_accepted_again,
    a_policy_that_evicts_closes_at_once_and_what_was_evicted_is_not_accepted_again,
    a_redis_on_which_it_cannot_work_is_refused_at_the_start,
    a_clock_that_differs_closes,
);

async fn what_a_client_brings_is_spent_once_and_answers_its_retry() {
    let servers = trio();
    let (store, another) = (open(&servers[0]).await, open(&servers[0]).await);
    let taken = accepted(&store).await;
    accepted(&another).await;
    assert!(matches!(bring(&another, &taken).await, Err(Error::InProgress)));
    let mut request = request();
    let Ok(Spend::Fresh(spent)) = bring(&store, &request).await else { panic!("not accepted") };
    store.settle(spent, &answer()).await.unwrap();
    for store in [&store, &another] {
        assert!(matches!(bring(store, &request).await, Ok(Spend::Repeated(repeated)) if *repeated == answer()));
    }
    assert_eq!(store.stats().await.unwrap().spent, 3);

    let good = request.use_.clone();
    request.use_ = Use { content_digest: [2; 32], ..good.clone() };
    assert!(matches!(bring(&store, &request).await, Err(Error::Refused(Refusal::AlreadyUsed))));
    request.use_ = Use { timestamp: clock(), content_digest: [3; 32], ..good.clone() };
    assert!(matches!(bring(&store, &request).await, Err(Error::Refused(Refusal::AlreadyUsed))));
    request.use_ = Use { issuer: "mallory".into(), ..good };
    let replayed = bring(&store, &request).await;
    assert!(matches!(&replayed, Err(Error::Replayed { spent_by }) if spent_by.as_str() == "alice"), "{replayed:?}");

    // After a failure that is known to have released nothing, the same content may try again.
    let again = self::request();
    let Ok(Spend::Fresh(spent)) = bring(&store, &again).await else { panic!("not accepted") };
    store.reopen(spent).await.unwrap();
    let other = Request { use_: Use { content_digest: [2; 32], ..again.use_.clone() }, ..again.clone() };
    assert!(matches!(bring(&another, &other).await, Err(Error::Refused(Refusal::AlreadyUsed))));
    assert!(is_fresh(&bring(&another, &again).await));
    assert!(!is_fresh(&bring(&store, &again).await));
}

async fn what_is_not_acceptable_is_refused_by_name() {
    let servers = trio();
    let store = open(&servers[0]).await;
    accepted(&store).await;
    let mut request = request();
    let good = request.use_.clone();
    for (use_, expected) in [
        (Use { timestamp_stated: false, ..good.clone() }, Refusal::InvalidTimestamp),
        (Use { timestamp: clock().plus_seconds(5), ..good.clone() }, Refusal::InvalidTimestamp),
        (Use { timestamp: clock().plus_seconds(-121), ..good.clone() }, Refusal::Expired),
        (Use { timestamp: clock().plus_seconds(-60), ..good.clone() }, Refusal::StoreFailover),
    ] {
        request.use_ = use_;
        let refused = bring(&store, &request).await;
        assert!(matches!(&refused, Err(Error::Refused(refusal)) if *refusal == expected), "{expected:?} {refused:?}");
    }
    // One that was issued and forgotten is not one that a client made.
    let nonce = random_nonce().unwrap();
    let forgotten = Request { nonce, use_: good.clone() };
    assert!(matches!(bring(&store, &forgotten).await, Err(Error::Refused(Refusal::NotFound))));
    // Issued ones are what they always were.
    let issued = store.issue(&contract::order(), 1, clock()).await.unwrap().remove(0).nonce;
    assert!(is_fresh(&bring(&store, &Request { nonce: issued, use_: good.clone() }).await));
    // And where clients may not bring any, those that they brought are unknown.
    request.use_ = good;
    assert!(is_fresh(&bring(&store, &request).await));
    let strict = self::store(&servers[0].url()).await;
    assert!(matches!(bring(&strict, &request).await, Err(Error::Refused(Refusal::NotFound))));
    assert!(matches!(bring(&strict, &self::request()).await, Err(Error::Refused(Refusal::NotFound))));
}

async fn concurrent_claims_go_together_and_count_against_the_capacity() {
    let servers = trio();
    let limits = nonce::Config { outstanding_per_issuer: 10, capacity: 200, ..accepting() };
    let mut stores = Vec::new();
    for _ in 0..2 {
        stores.push(Arc::new(connect(&config(servers[0].url()), limits.clone()).await.unwrap()));
    }
    for store in &stores {
        accepted(store).await;
    }
    let requests: Vec<_> = (0..300).map(|_| request()).collect();
    let tasks: Vec<_> = (0..4 * requests.len())
        .map(|i| {
            let (store, request) = (Arc::clone(&stores[i % 2]), requests[i / 4].clone());
            tokio::spawn(async move { bring(&store, &request).await })
        })
        .collect();
    let (mut fresh, mut full) = (0, 0);
    for task in tasks {
        match task.await.unwrap() {
            Ok(Spend::Fresh(_)) => fresh += 1,
            Err(Error::Full(Bound::Store)) => full += 1,
            Err(Error::InProgress) => {}
            other => panic!("{other:?}"),
        }
    }
    // Two were accepted at first.
    assert_eq!(fresh, 198);
    assert!(full >= 102, "{full}");
    // Who is turned away for want of room pays nothing: the bucket of one still has its one.
    let bucket = || {
        let principal = Principal::Subject("a".into());
        let quota = Quota::per(1, Duration::from_secs(3600));
        Charge { principal, limit: "email", window: Window::Hour, quota, count: 1 }
    };
    for _ in 0..3 {
        let request = request();
        let claim = Claim::new(&Permit, request.nonce, request.use_).charged(vec![bucket()]);
        let turned_away = stores[0].spend(claim, Duration::ZERO, clock()).await;
        assert!(matches!(turned_away, Err(Error::Full(Bound::Store))), "{turned_away:?}");
    }
    let issued = stores[0].issue(&contract::order(), 1, clock()).await;
    assert!(matches!(issued, Err(Error::Full(Bound::Store))), "{issued:?}");
}

async fn an_isolated_master_accepts_nothing_more() {
    let servers = trio();
    let store = open(&servers[0]).await;
    accepted(&store).await;
    // Cut off a moment ago, and not yet noticed.
    servers[1].freeze();
    servers[2].freeze();
    let unconfirmed = request();
    assert!(!is_fresh(&bring(&store, &unconfirmed).await));
    servers[1].thaw();
    servers[2].thaw();
    // It may have been written all the same: it is used up.
    accepted_without_replay(&store, &[unconfirmed]).await;
    // The others choose a new master, and this one keeps answering.
    servers[1].promote();
    servers[2].follow(&servers[1]);
    let on_new = open(&servers[1]).await;
    accepted(&on_new).await;
    for _ in 0..20 {
        let request = request();
        let (old, new) = tokio::join!(bring(&store, &request), bring(&on_new, &request));
        assert!(!is_fresh(&old) && is_fresh(&new), "{old:?} {new:?}");
    }
    let closed = store.ping().await.unwrap().server.unwrap().client_nonces;
    assert!(matches!(&closed, ClientNonces::Closed(why) if why.contains("0 did")), "{closed:?}");
    // Issued ones are spent there as ever.
    let nonce = one(&store).await;
    fresh(&store, &nonce).await;
}

async fn a_replica_that_missed_a_claim_and_is_promoted_does_not_accept_it_again() {
    let mut servers = trio();
    let store = open(&servers[0]).await;
    accepted(&store).await;
    // The second server loses touch.
    servers[1].promote();
    let mut taken = Vec::new();
    for _ in 0..20 {
        taken.push(accepted(&store).await);
    }
    servers[0].kill();
    servers[2].follow(&servers[1]);
    let on_new = open(&servers[1]).await;
    for old in &taken {
        let refused = bring(&on_new, old).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::StoreFailover))), "{refused:?}");
    }
    accepted_without_replay(&on_new, &taken).await;
}

async fn a_server_changes_under_a_connection_that_stays_and_nothing_is_accepted_again() {
    let servers = trio();
    let store = open(&servers[0]).await;
    accepted(&store).await;
    // The third server has what the second has; the claim is lost with the first's memory.
    servers[1].promote();
    let taken = accepted(&store).await;
    servers[2].follow(&servers[1]);
    servers[0].follow(&servers[1]);
    // Back in office, with the second's data, on the same port and the same process.
    servers[0].promote();
    servers[1].follow(&servers[0]);
    servers[2].follow(&servers[0]);
    accepted_without_replay(&store, &[taken]).await;
}

async fn without_a_majority_there_is_no_barrier() {
    let servers = trio();
    let on_first = open(&servers[0]).await;
    accepted(&on_first).await;
    servers[1].promote();
    servers[2].follow(&servers[1]);
    let on_second = open(&servers[1]).await;
    // For longer than any floor reaches that the first could have set meanwhile.
    let until = Instant::now() + Duration::from_secs(8);
    let mut last = accepted(&on_second).await;
    while Instant::now() < until {
        assert!(!is_fresh(&bring(&on_first, &request()).await));
        last = accepted(&on_second).await;
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    servers[2].follow(&servers[0]);
    accepted_without_replay(&on_first, &[last]).await;
}

async fn a_replica_that_comes_while_a_claim_waits_for_it_does_not_count() {
    let servers = trio();
    let store = open(&servers[0]).await;
    accepted(&store).await;
    servers[1].promote();
    servers[2].promote();
    let port = servers[0].port.to_string();
    let request = request();
    let (claimed, ()) = tokio::join!(bring(&store, &request), async {
        // The claim has been written, or is about to be, when the replica starts to come.
        tokio::task::yield_now().await;
        servers[2].command::<()>(&["REPLICAOF", "127.0.0.1", &port]);
    });
    assert!(!is_fresh(&claimed), "{claimed:?}");
    accepted_without_replay(&store, &[request]).await;
}

async fn a_replica_that_goes_away_and_comes_back_is_noticed() {
    let servers = trio();
    let on_first = open(&servers[0]).await;
    accepted(&on_first).await;
    servers[1].promote();
    accepted(&on_first).await;
    servers[2].follow(&servers[1]);
    let on_second = open(&servers[1]).await;
    // Nobody claims anything on the first meanwhile.
    let taken = accepted(&on_second).await;
    servers[2].follow(&servers[0]);
    accepted_without_replay(&on_first, &[taken]).await;
}

async fn what_is_cleared_or_thrown_away_is_not_accepted_again() {
    let shell = |port: u16, line: &str| {
        let line = line.replace("redis-cli", &format!("redis-cli -p {port}"));
        assert!(Command::new("sh").args(["-c", &line]).output().unwrap().status.success(), "{line}");
    };
    let keys = Keys::of(&signer());
    let index = keys.brought.clone();
    let clear = |name: &'static str| {
        let index = index.clone();
        async move {
            let servers = trio();
            let store = open(&servers[0]).await;
            accepted(&store).await;
            let taken = accepted(&store).await;
            let record = Keys::of(&signer()).nonce(&taken.nonce.to_hex());
            let (server, port) = (&servers[0], servers[0].port);
            match name {
                "everything" => server.command::<()>(&["FLUSHALL"]),
                "the runbook" => shell(port, "redis-cli KEYS 'virtengine:veid:*' | xargs redis-cli DEL"),
                "the record" => server.command::<()>(&["DEL", &record]),
                "the index, then the record" => {
                    server.command::<()>(&["DEL", &index]);
                    server.command::<()>(&["DEL", &record]);
                }
                "all but the index" => {
                    shell(port, "redis-cli KEYS 'virtengine:veid:*' | grep -v brought | xargs redis-cli DEL");
                }
                other => panic!("{other}"),
            }
            let replayed = bring(&store, &taken).await;
            assert!(!is_fresh(&replayed), "{name}");
            accepted_without_replay(&store, &[taken]).await;
        }
    };
    tokio::join!(
        clear("everything"),
        clear("the runbook"),
        clear("the record"),
        clear("the index, then the record"),
        clear("all but the index"),
    );
}

async fn a_policy_that_evicts_closes_at_once_and_what_was_evicted_is_not_accepted_again() {
    let servers = trio();
    let store = open(&servers[0]).await;
    accepted(&store).await;
    let taken = accepted(&store).await;
    let server = &servers[0];
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-random"]);
    assert!(!is_fresh(&bring(&store, &request()).await));
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "1"]);
    until("everything is thrown away", || server.try_command::<u64>(&["DBSIZE"]) == Ok(0));
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let nothing_twice = async { accepted_without_replay(&store, &[taken]).await };
    // The store as a whole is told off for a minute by those who ask; claims go on by their own rule.
    tokio::time::timeout(Duration::from_secs(60), nothing_twice).await.unwrap();
}

async fn a_redis_on_which_it_cannot_work_is_refused_at_the_start() {
    async fn refused(server: &RedisServer, limits: nonce::Config) -> String {
        match connect(&config(server.url()), limits).await {
            Ok(_) => panic!("connected"),
            Err(error) => error.to_string(),
        }
    }
    let alone = RedisServer::start(&[]);
    let error = refused(&alone, accepting()).await;
    assert!(error.contains("nonce.redis_nodes") && error.contains("replicas must confirm"), "{error}");
    // Without this wish the same server is good enough.
    store(&alone.url()).await;
    let servers = trio();
    let error = refused(&servers[0], nonce::Config { redis_nodes: 2, ..accepting() }).await;
    assert!(error.contains("has 2 replicas") && error.contains("correct it"), "{error}");
    let error = refused(&servers[0], nonce::Config { redis_nodes: 7, ..accepting() }).await;
    assert!(error.contains("3 replicas must confirm each, and 2 did"), "{error}");
}

async fn a_clock_that_differs_closes() {
    let servers = trio();
    let pool = || Arc::new(Pool::new(&config(servers[0].url()), &signer()).unwrap());
    let shift = Arc::new(AtomicI64::new(0));
    let moved = Arc::clone(&shift);
    let ours = Clock::from_fn(move || {
        time::OffsetDateTime::now_utc() + time::Duration::seconds(moved.load(Ordering::Relaxed))
    });
    let store = RedisStore::connect(pool(), accepting(), &signer(), ours.clone()).await.unwrap();
    let taken = accepted(&store).await;
    // First the one that only a claim's own look at the clock can refuse.
    for seconds in [200, -200] {
        shift.store(seconds, Ordering::Relaxed);
        let request = Request { use_: Use { timestamp: ours.now(), ..request().use_ }, ..request() };
        assert!(!is_fresh(&bring(&store, &request).await));
        let Err(error) = RedisStore::connect(pool(), accepting(), &signer(), ours.clone()).await else { panic!() };
        assert!(error.to_string().contains("clocks"), "{error}");
    }
    shift.store(0, Ordering::Relaxed);
    accepted_without_replay(&store, &[taken]).await;
}

#[tokio::test]
async fn a_batch_may_hold_nonces_of_both_kinds_and_each_is_spent_once() {
    let server = RedisServer::start(&[]);
    let limits = nonce::Config { redis_nodes: 1, ..accepting() };
    let store = connect(&config(server.url()), limits).await.unwrap();
    let taken = accepted(&store).await;
    let (issued, new) = (one(&store).await, request());
    let claims = || {
        let of = |request: &Request| Claim::new(&Permit, request.nonce.clone(), request.use_.clone());
        vec![of(&new), Claim::new(&Permit, issued.clone(), Use { timestamp: now(), ..use_() }), of(&taken), of(&new)]
    };
    let spends = store.spend_all(claims(), now()).await;
    let told = [0, 1, 2, 3].map(|at| match &spends[at] {
        Ok(Spend::Fresh(_)) => "fresh",
        Err(Error::InProgress) => "in progress",
        other => panic!("{other:?}"),
    });
    assert_eq!(told, ["fresh", "fresh", "in progress", "in progress"]);
    let again = store.spend_all(claims(), now()).await;
    assert!(again.iter().all(|spend| matches!(spend, Err(Error::InProgress))), "{again:?}");
}
