//! What happens while Redis is away, unwell or wrongly set up, and afterwards.

use super::server::RedisServer;
use super::*;

/// A store that gives up soon, for tests that wait for it to.
async fn hasty(server: &RedisServer) -> RedisStore {
    let config = Config { command_timeout: Duration::from_millis(150), ..config(server.url()) };
    connect(&config, contract::config()).await.unwrap()
}

async fn refused(config: &Config) -> String {
    match connect(config, contract::config()).await {
        Ok(_) => panic!("connected"),
        Err(error) => format!("{error} {error:?}"),
    }
}

#[tokio::test]
async fn a_server_that_cannot_be_reached_is_refused_at_the_start() {
    let port = server::free_port();
    let error = refused(&config(format!("redis://127.0.0.1:{port}"))).await;
    assert!(error.contains(&format!("redis://127.0.0.1:{port}")) && error.contains("refused"), "{error}");
}

#[tokio::test]
async fn a_kill_and_restart_heals_without_a_restart_here() {
    let mut server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    one(&store).await;
    server.kill();
    assert!(is_unavailable(&store.issue(&contract::order(), 1, now()).await));
    assert!(is_unavailable(&store.ping().await));
    server.start_again();
    in_time("Redis", || store.ping()).await;
    let nonce = one(&store).await;
    fresh(&store, &nonce).await;
}

#[tokio::test]
async fn a_frozen_server_is_given_up_in_time_and_loses_nothing() {
    let server = RedisServer::start(&[]);
    let store = hasty(&server).await;
    let (nonce, later) = (one(&store).await, one(&store).await);
    server.freeze();
    for _ in 0..3 {
        let started = Instant::now();
        assert!(is_unavailable(&spend(&store, &nonce).await));
        // Three times the command timeout, and some time for a busy machine.
        assert!(started.elapsed() < Duration::from_millis(1500), "{:?}", started.elapsed());
    }
    assert!(is_unavailable(&store.ping().await));
    server.thaw();
    in_time("Redis", || store.ping()).await;
    // The frozen spends were carried out after all, told to nobody, and given up.
    fresh(&store, &nonce).await;
    fresh(&store, &later).await;
}

#[tokio::test]
async fn a_server_that_throws_keys_away_is_refused_and_says_why() {
    let evicting = RedisServer::start(&["--maxmemory-policy", "allkeys-lru"]);
    let error = refused(&config(evicting.url())).await;
    assert!(error.contains("allkeys-lru") && error.contains("CONFIG SET maxmemory-policy noeviction"), "{error}");

    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    store.ping().await.unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "volatile-ttl"]);
    let error = store.ping().await.unwrap_err();
    assert!(causes(&error).contains("volatile-ttl"), "{error:?}");
    // The connections look for themselves, once a second.
    in_time("the store to stop", || async {
        match store.issue(&contract::order(), 1, now()).await {
            Err(error) if causes(&error).contains("volatile-ttl") => Ok(()),
            Err(error) => Err(error),
            Ok(_) => Err(Error::InProgress),
        }
    })
    .await;
    assert!(is_unavailable(&spend(&store, &nonce).await));
    assert_eq!(store.stats().await.unwrap().server.unwrap().eviction_policy, "volatile-ttl");
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    in_time("Redis", || store.ping()).await;
    fresh(&store, &nonce).await;
}

#[tokio::test]
async fn a_server_that_comes_back_with_other_settings_is_given_no_nonce() {
    let mut server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    server.kill();
    server.start_again_with("--maxmemory-policy", "allkeys-lru");
    // The first connection that succeeds is looked at before it is used.
    let refused = in_time("the refusal", || async {
        match store.issue(&contract::order(), 1, now()).await {
            Err(error) if causes(&error).contains("allkeys-lru") => Ok(true),
            Err(error) => Err(error),
            Ok(_) => Ok(false),
        }
    });
    assert!(refused.await);
}

#[tokio::test]
async fn keys_thrown_away_since_the_last_look_are_told() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    store.ping().await.unwrap();
    fill(&server);
    let words = ["CONFIG", "SET", "maxmemory-policy", "allkeys-random"];
    server.command::<()>(&words);
    server.command::<()>(&["SET", "another", "value"]);
    server.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction"]);
    let error = store.ping().await.unwrap_err();
    assert!(causes(&error).contains("thrown away"), "{error:?}");
}

/// Other people's keys up to a limit that is then set below.
fn fill(server: &RedisServer) {
    for i in 0..64 {
        server.command::<()>(&["SET", &format!("other:{i}"), &"x".repeat(100_000)]);
    }
    let used: u64 = server.info("memory", "used_memory").parse().unwrap();
    server.command::<()>(&["CONFIG", "SET", "maxmemory", &(used - 1_000_000).to_string()]);
}

#[tokio::test]
async fn a_full_server_issues_nothing_and_still_spends_and_keeps_answers() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    fill(&server);
    let full = store.issue(&contract::order(), 1, now()).await;
    assert!(matches!(full, Err(Error::Full(Bound::Memory))), "{full:?}");
    store.ping().await.unwrap();
    let spent = fresh(&store, &nonce).await;
    store.settle(spent, &answer()).await.unwrap();
    assert!(matches!(spend(&store, &nonce).await, Ok(Spend::Repeated(_))));
    assert_eq!(store.cleanup(now().plus_seconds(3601)).await.unwrap().total(), 1);
    server.command::<()>(&["CONFIG", "SET", "maxmemory", "0"]);
    one(&store).await;
}

#[tokio::test]
async fn too_few_replicas_stop_spending_where_redis_is_told_so() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    server.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    assert!(is_unavailable(&spend(&store, &nonce).await));
    server.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    store.ping().await.unwrap();
    fresh(&store, &nonce).await;
}

#[tokio::test]
async fn a_forgotten_script_is_sent_again() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    server.command::<()>(&["SCRIPT", "FLUSH"]);
    fresh(&store, &nonce).await;
}

#[tokio::test]
async fn the_store_as_a_whole_is_bounded_and_clears_itself() {
    let server = RedisServer::start(&[]);
    let limits = nonce::Config { outstanding_per_issuer: 8, capacity: 10, ..nonce::Config::default() };
    let store = store_with(&server.url(), limits).await;
    let order = |issuer: &str| Order { issuer: issuer.into(), ..contract::order() };
    let held = store.issue(&order("alice"), 8, now()).await.unwrap();
    // A spent nonce keeps its place until its window ends, and no batch is issued in part.
    fresh(&store, &held[0].nonce).await;
    let full = store.issue(&order("bob"), 3, now()).await;
    assert!(matches!(full, Err(Error::Full(Bound::Store))), "{full:?}");
    store.issue(&order("bob"), 2, now()).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.outstanding, stats.spent, stats.capacity), (9, 1, 10));
    assert_eq!(stats.per_issuer, vec![("alice".into(), 7), ("bob".into(), 2)]);
    // Issuing makes room from what has expired, without any cleanup.
    store.issue(&order("carol"), 8, now().plus_seconds(3600)).await.unwrap();
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.outstanding, stats.spent, stats.expired_total), (8, 0, 9));
    for key in server.command::<Vec<String>>(&["KEYS", "*"]) {
        assert!(key.starts_with("virtengine:veid:{veid-signer-1}:"), "{key}");
        let life: i64 = server.command(&["PTTL", &key]);
        assert!(life > 3_600_000 || key.ends_with(":totals"), "{key} lives {life} ms");
    }
}

#[tokio::test]
async fn counts_left_over_by_a_partial_clearing_do_not_use_up_a_quota() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    store.issue(&contract::order(), 100, now()).await.unwrap();
    server.command::<()>(&["DEL", &store.keys.outstanding]);
    store.issue(&contract::order(), 100, now()).await.unwrap();
    assert_eq!(store.stats().await.unwrap().per_issuer, vec![("alice".into(), 100)]);
}

#[tokio::test]
async fn the_servers_memory_policy_and_clock_can_be_shown() {
    let server = RedisServer::start(&["--maxmemory", "512mb"]);
    let stats = store(&server.url()).await.stats().await.unwrap().server.unwrap();
    assert_eq!((stats.eviction_policy.as_str(), stats.memory_limit), ("noeviction", Some(512 << 20)));
    assert!(stats.memory_used > 0 && stats.memory_fill() > 0.0 && stats.memory_fill() < 0.5);
    assert!(stats.clock_ahead.abs() < 1.0, "{}", stats.clock_ahead);
}

#[tokio::test]
async fn a_clock_that_differs_is_measured() {
    let server = RedisServer::start(&[]);
    for behind in [-90, 90] {
        let ours = Clock::from_fn(move || time::OffsetDateTime::now_utc() - time::Duration::seconds(behind));
        let pool = Arc::new(Pool::new(&config(server.url()), &signer()).unwrap());
        let store = RedisStore::connect(pool, contract::config(), &signer(), ours).await.unwrap();
        let ahead = store.ping().await.unwrap().server.unwrap().clock_ahead;
        #[expect(clippy::cast_precision_loss, reason = "two digits")]
        let expected = behind as f64;
        assert!((ahead - expected).abs() < 5.0, "{ahead}");
    }
}
