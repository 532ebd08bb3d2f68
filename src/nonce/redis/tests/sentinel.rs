//! Failover by real Sentinels.

use super::server::{RedisServer, until};
use super::*;

const NAME: &str = "mymaster";

struct Group {
    master: RedisServer,
    replica: RedisServer,
    sentinels: Vec<RedisServer>,
}

impl Group {
    /// A master, a replica and three Sentinels that know both.
    fn start(server_settings: &[&str], sentinel_settings: &str) -> Self {
        let (master, replica) = (RedisServer::start(server_settings), RedisServer::start(server_settings));
        replica.follow(&master);
        let port = master.port;
        let watched = format!(
            "sentinel monitor {NAME} 127.0.0.1 {port} 2\nsentinel down-after-milliseconds {NAME} 1000\n\
             sentinel failover-timeout {NAME} 3000\n{sentinel_settings}"
        );
        let sentinels: Vec<_> = (0..3).map(|_| RedisServer::sentinel(&watched)).collect();
        until("the Sentinels know the replica and each other", || {
            sentinels.iter().all(|sentinel| {
                let master: std::collections::HashMap<String, String> = sentinel.command(&["SENTINEL", "MASTER", NAME]);
                master["num-slaves"] == "1" && master["num-other-sentinels"] == "2"
            })
        });
        Self { master, replica, sentinels }
    }

    fn config(&self) -> Config {
        let urls = self.sentinels.iter().map(|sentinel| sentinel.url().into()).collect();
        let sentinel = Sentinel { urls, master: NAME.into(), username: None, password_file: None };
        Config { sentinel: Some(sentinel), command_timeout: Duration::from_secs(1), ..Config::default() }
    }

    /// Waits until the Sentinels agree on a master and its replica, whichever of the two it is: on a busy
    /// machine they change it once more by themselves.
    fn settle(&mut self) {
        let agreed = |port: u16| {
            self.sentinels.iter().all(|sentinel| {
                let master: std::collections::HashMap<String, String> = sentinel.command(&["SENTINEL", "MASTER", NAME]);
                let replicas: Vec<std::collections::HashMap<String, String>> =
                    sentinel.command(&["SENTINEL", "REPLICAS", NAME]);
                let up =
                    replicas.len() == 1 && replicas[0]["flags"] == "slave" && replicas[0]["master-link-status"] == "ok";
                master["port"] == port.to_string() && master["flags"] == "master" && up
            })
        };
        let mut swapped = false;
        until("the Sentinels agree on a master with its replica", || {
            swapped = agreed(self.replica.port);
            swapped || agreed(self.master.port)
        });
        if swapped {
            std::mem::swap(&mut self.master, &mut self.replica);
        }
    }

    async fn store(&self) -> RedisStore {
        connect(&self.config(), contract::config()).await.unwrap()
    }
}

/// Kills the master, and is back within a second after most Sentinels name the new one.
async fn fail_over(group: &mut Group, store: &RedisStore) {
    group.master.kill();
    let port = group.replica.port.to_string();
    let names_the_new_one = |sentinel: &&RedisServer| {
        let address: Vec<String> = sentinel.command(&["SENTINEL", "get-master-addr-by-name", NAME]);
        address[1] == port
    };
    let decided = in_time("the Sentinels' decision", || async {
        let named = group.sentinels.iter().filter(names_the_new_one).count();
        if named >= 2 { Ok(Instant::now()) } else { Err(Error::InProgress) }
    });
    let served = async {
        works_again(store).await;
        Instant::now()
    };
    let (decided, served) = tokio::join!(decided, served);
    let late = served.saturating_duration_since(decided);
    println!("back {late:?} after the decision");
    assert!(late < Duration::from_secs(1), "{late:?}");
}

/// Issues and spends once the new master is there.
async fn works_again(store: &RedisStore) {
    let nonce =
        in_time("the new master", || async { Ok(store.issue(&contract::order(), 1, now()).await?.remove(0).nonce) })
            .await;
    fresh(store, &nonce).await;
}

#[tokio::test]
#[ignore = "long: run by make test-long"]
async fn after_a_kill_new_connections_find_the_new_master() {
    let mut group = Group::start(&[], "");
    let store = group.store().await;
    let (nonce, spent) = (one(&store).await, one(&store).await);
    fresh(&store, &spent).await;
    until("the nonces are replicated", || group.replica.has_all_of(&group.master));
    fail_over(&mut group, &store).await;
    assert_eq!(group.replica.info("replication", "role"), "master");
    assert_eq!(refusal(&store, &nonce).await, Refusal::StoreFailover);
    assert_eq!(refusal(&store, &spent).await, Refusal::StoreFailover);
    store.ping().await.unwrap();
}

#[tokio::test]
#[ignore = "long: run by make test-long"]
async fn a_frozen_master_and_a_frozen_sentinel_are_left_behind() {
    let group = Group::start(&[], "");
    let store = group.store().await;
    let nonce = one(&store).await;
    until("the nonce is replicated", || group.replica.has_all_of(&group.master));
    group.master.freeze();
    group.sentinels[0].freeze();
    works_again(&store).await;
    assert_eq!(refusal(&store, &nonce).await, Refusal::StoreFailover);
    // The old master answers again. Whoever still listens to it can spend nothing twice.
    group.master.thaw();
    assert_eq!(refusal(&store, &nonce).await, Refusal::StoreFailover);
}

#[tokio::test]
#[ignore = "long: run by make test-long"]
async fn a_failover_by_hand_is_followed() {
    let group = Group::start(&[], "");
    let store = group.store().await;
    let nonce = one(&store).await;
    until("the nonce is replicated", || group.replica.has_all_of(&group.master));
    // As in the runbook.
    group.sentinels[0].command::<()>(&["SENTINEL", "failover", NAME]);
    until("the two have changed places", || {
        group.replica.info("replication", "role") == "master" && group.master.info("replication", "role") == "slave"
    });
    works_again(&store).await;
    assert_eq!(refusal(&store, &nonce).await, Refusal::StoreFailover);
}

#[tokio::test]
#[ignore = "long: run by make test-long"]
async fn twenty_failovers_under_load_replay_nothing() {
    let mut group = Group::start(&[], "");
    let limits = nonce::Config { outstanding_per_issuer: 100_000, ..nonce::Config::default() };
    let store = connect(&group.config(), limits).await.unwrap();
    let mut tried_again = 0;
    for round in 0..20 {
        let mut spent = Vec::new();
        let load = async {
            loop {
                if let Ok(mut issued) = store.issue(&contract::order(), 1, now()).await {
                    let nonce = issued.remove(0).nonce;
                    if let Ok(Spend::Fresh(_)) = spend(&store, &nonce).await {
                        spent.push(nonce);
                    }
                }
            }
        };
        let _ = tokio::time::timeout(Duration::from_millis(300), load).await;
        fail_over(&mut group, &store).await;
        for nonce in &spent {
            let replayed = spend(&store, nonce).await;
            assert!(matches!(replayed, Err(Error::Refused(_))), "round {round}: {replayed:?}");
        }
        assert!(!spent.is_empty());
        tried_again += spent.len();
        store.cleanup(now().plus_seconds(3601)).await.unwrap();
        // The old master comes back as the replica of the new one. The Sentinels would see to that too,
        // but sometimes take a minute.
        group.master.start_again();
        group.master.follow(&group.replica);
        group.settle();
    }
    println!("{tried_again} acknowledged spends tried again, none accepted");
}

#[tokio::test]
async fn sentinels_that_know_no_such_master_are_refused_at_the_start() {
    let sentinel = RedisServer::sentinel("");
    let sentinel_config =
        Sentinel { urls: vec![sentinel.url().into()], master: NAME.into(), username: None, password_file: None };
    let config = Config { sentinel: Some(sentinel_config), ..Config::default() };
    let refused = connect(&config, contract::config()).await;
    let Err(error) = refused else { panic!("connected") };
    assert!(error.to_string().contains(NAME), "{error}");
}
