//! A Redis Cluster.

use super::server::{RedisServer, until};
use super::*;

#[tokio::test]
#[ignore = "long: run by make test-long"]
async fn a_cluster_keeps_nonces_on_one_node_and_fails_over() {
    let settings = ["--cluster-enabled", "yes", "--cluster-node-timeout", "1000"];
    let nodes: Vec<_> = (0..3).map(|_| RedisServer::start(&settings)).collect();
    // Two masters with half of the slots each, and a replica of the one that gets our keys.
    nodes[0].command::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "8191"]);
    nodes[1].command::<()>(&["CLUSTER", "ADDSLOTSRANGE", "8192", "16383"]);
    for other in &nodes[1..] {
        nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &other.port.to_string()]);
    }
    let keys = Keys::of(&signer());
    let slot: u16 = nodes[0].command(&["CLUSTER", "KEYSLOT", &keys.totals]);
    let owner = &nodes[usize::from(slot > 8191)];
    let id: String = owner.command(&["CLUSTER", "MYID"]);
    let (replica, all_know) = (&nodes[2], |count: &str| {
        nodes.iter().all(|node| {
            let info: String = node.command(&["CLUSTER", "INFO"]);
            info.contains("cluster_state:ok") && info.contains(&format!("cluster_known_nodes:{count}"))
        })
    });
    until("the nodes have met", || all_know("3"));
    replica.command::<()>(&["CLUSTER", "REPLICATE", &id]);
    until("the replica follows", || replica.info("replication", "role") == "slave" && replica.has_all_of(owner));

    let urls = nodes.iter().map(|node| node.url().into()).collect();
    let config =
        Config { cluster: Some(Cluster { urls }), command_timeout: Duration::from_secs(3), ..Config::default() };
    let store = connect(&config, contract::config()).await.unwrap();
    let (nonce, old) = (one(&store).await, one(&store).await);
    fresh(&store, &nonce).await;
    assert_eq!(store.stats().await.unwrap().spent, 1);
    // A call for several names the keys of all of them.
    let many = store.issue(&contract::order(), 90, now()).await.unwrap();
    let claims = many.iter().map(|issued| Claim::new(&Permit, issued.nonce.clone(), use_())).collect();
    let spends = store.spend_all(claims, now()).await;
    assert!(spends.iter().all(|spend| matches!(spend, Ok(Spend::Fresh(_)))), "{spends:?}");
    assert_eq!(store.stats().await.unwrap().spent, 91);
    until("the nonces are replicated", || replica.has_all_of(owner));
    replica.command::<()>(&["CLUSTER", "FAILOVER", "TAKEOVER"]);
    until("the old owner follows", || owner.info("replication", "role") == "slave");
    let nonce =
        in_time("the new owner", || async { Ok(store.issue(&contract::order(), 1, now()).await?.remove(0).nonce) })
            .await;
    fresh(&store, &nonce).await;
    assert_eq!(refusal(&store, &old).await, Refusal::StoreFailover);
    store.ping().await.unwrap();
}
