//! A nonce is spent once, whatever happens to Redis.

use std::{process::Command, sync::Arc};

use super::{
    server::{RedisServer, until},
    *,
};
use crate::redis::test_proxy::Proxy;

fn repeats_the_answer(result: &Result<Spend, Error>) -> bool {
    matches!(result, Ok(Spend::Repeated(repeated)) if **repeated == answer())
}

/// A master and its replica with the same data, and a nonce that both know.
async fn pair() -> (RedisServer, RedisServer, NonceValue) {
    let (master, replica) = (RedisServer::start(&[]), RedisServer::start(&[]));
    replica.follow(&master);
    let nonce = one(&store(&master.url()).await).await;
    until("the nonce is replicated", || replica.has_all_of(&master));
    (master, replica, nonce)
}

#[tokio::test]
async fn with_two_masters_only_the_one_that_issued_a_nonce_spends_it() {
    let (old, new, nonce) = pair().await;
    let on_old = store(&old.url()).await;
    let more = on_old.issue(&contract::order(), 50, now()).await.unwrap();
    until("they are replicated", || new.has_all_of(&old));
    new.promote();
    let on_new = store(&new.url()).await;
    for nonce in more.iter().map(|issued| &issued.nonce).chain([&nonce]) {
        let (there, here) = tokio::join!(spend(&on_new, nonce), spend(&on_old, nonce));
        assert!(matches!(there, Err(Error::Refused(Refusal::StoreFailover))), "{there:?}");
        assert!(matches!(here, Ok(Spend::Fresh(_))), "{here:?}");
    }
    // And the new one works.
    let nonce = one(&on_new).await;
    fresh(&on_new, &nonce).await;
    assert_eq!(refusal(&on_old, &nonce).await, Refusal::NotFound);
}

#[tokio::test]
async fn after_a_failover_old_nonces_are_refused_and_new_ones_work() {
    let (mut old, new, nonce) = pair().await;
    old.kill();
    new.promote();
    let store = store(&new.url()).await;
    assert_eq!(refusal(&store, &nonce).await, Refusal::StoreFailover);
    let nonce = one(&store).await;
    fresh(&store, &nonce).await;
}

#[tokio::test]
async fn a_demoted_master_that_is_promoted_again_refuses_what_it_has_forgotten_to_have_spent() {
    let (first, second, nonce) = pair().await;
    second.promote();
    fresh(&store(&first.url()).await, &nonce).await;
    // Back in line: the spend is overwritten by a record that says unspent.
    first.follow(&second);
    first.promote();
    let state: Option<String> = first.command(&["HGET", &Keys::of(&signer()).nonce(&nonce.to_hex()), "state"]);
    assert_eq!(state, None);
    assert_eq!(refusal(&store(&first.url()).await, &nonce).await, Refusal::StoreFailover);
}

#[tokio::test]
async fn a_replica_is_refused_even_when_it_accepts_writes() {
    let (master, replica, nonce) = pair().await;
    replica.command::<()>(&["CONFIG", "SET", "replica-read-only", "no"]);
    let refused = connect(&config(replica.url()), contract::config()).await;
    let Err(error) = refused else { panic!("a replica is no place for nonces") };
    assert!(error.to_string().contains("not the master"), "{error}");
    // Demoted under a connection that stays: the script itself looks.
    let store = store(&master.url()).await;
    master.command::<()>(&["CONFIG", "SET", "replica-read-only", "no"]);
    master.command::<()>(&["REPLICAOF", "127.0.0.1", &replica.port.to_string()]);
    assert!(is_unavailable(&spend(&store, &nonce).await));
}

#[tokio::test]
async fn a_restart_with_or_without_its_data_refuses_all_earlier_nonces() {
    for (persistence, expected) in
        [(["--appendonly", "yes"], Refusal::StoreFailover), (["--appendonly", "no"], Refusal::NotFound)]
    {
        let mut server = RedisServer::start(&[&persistence[..], &["--appendfsync", "always"]].concat());
        let store = store(&server.url()).await;
        let (unspent, spent) = (one(&store).await, one(&store).await);
        fresh(&store, &spent).await;
        server.kill();
        server.start_again();
        assert_eq!(in_time_refusal(&store, &unspent).await, expected);
        assert_eq!(refusal(&store, &spent).await, expected);
        let nonce = one(&store).await;
        fresh(&store, &nonce).await;
    }
}

/// The refusal, once Redis is back.
async fn in_time_refusal(store: &RedisStore, nonce: &NonceValue) -> Refusal {
    in_time("an answer", || async {
        match spend(store, nonce).await {
            Err(Error::Refused(refusal)) => Ok(refusal),
            Ok(spend) => panic!("spent: {spend:?}"),
            Err(error) => Err(error),
        }
    })
    .await
}

#[tokio::test]
async fn what_is_cleared_is_unknown_and_never_spent_again() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let port = server.port;
    let flush = |words: &'static str| (words, format!("redis-cli -p {port} {words}"));
    let clear = format!("redis-cli -p {port} KEYS 'virtengine:veid:*' | xargs redis-cli -p {port} DEL");
    for (name, line) in [flush("FLUSHALL"), flush("FLUSHDB"), ("the runbook", clear)] {
        let (unspent, spent) = (one(&store).await, one(&store).await);
        let settled = fresh(&store, &spent).await;
        store.settle(settled, &answer()).await.unwrap();
        assert!(Command::new("sh").args(["-c", &line]).output().unwrap().status.success());
        assert_eq!(server.command::<Vec<String>>(&["KEYS", "*"]), Vec::<String>::new(), "{name}");
        assert_eq!(refusal(&store, &unspent).await, Refusal::NotFound, "{name}");
        assert_eq!(refusal(&store, &spent).await, Refusal::NotFound, "{name}");
        assert_eq!(store.stats().await.unwrap().outstanding, 0);
        let nonce = one(&store).await;
        fresh(&store, &nonce).await;
    }
}

#[tokio::test]
async fn a_retry_gets_the_same_answer_from_another_appliance_and_after_a_failover() {
    let (mut master, replica, nonce) = pair().await;
    let (one_appliance, another) = (store(&master.url()).await, store(&master.url()).await);
    let spent = fresh(&one_appliance, &nonce).await;
    assert!(matches!(spend(&another, &nonce).await, Err(Error::InProgress)));
    one_appliance.settle(spent, &answer()).await.unwrap();
    assert!(repeats_the_answer(&spend(&another, &nonce).await));
    until("the answer is replicated", || replica.has_all_of(&master));
    master.kill();
    replica.promote();
    let after = store(&replica.url()).await;
    assert!(repeats_the_answer(&spend(&after, &nonce).await));
    // Nobody else hears it, and nothing else is signed for it.
    let other_client = Use { issuer: "mallory".into(), ..use_() };
    let other_content = Use { content_digest: [2; 32], ..use_() };
    for other in [other_client, other_content] {
        let refused = spend_as(&after, &nonce, other).await;
        assert!(matches!(refused, Err(Error::Refused(Refusal::StoreFailover))), "{refused:?}");
    }
}

#[tokio::test]
async fn each_half_of_the_history_counts() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    for half in ["run_id", "replid"] {
        let nonce = one(&store).await;
        server.command::<()>(&["HSET", &store.keys.nonce(&nonce.to_hex()), half, &"0".repeat(40)]);
        assert_eq!(refusal(&store, &nonce).await, Refusal::StoreFailover, "{half}");
    }
}

#[tokio::test]
async fn only_the_caller_of_a_spend_ends_it() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    let spent = fresh(&store, &nonce).await;
    let copy = |of: &Spent| Spent {
        nonce: of.nonce.clone(),
        content_digest: of.content_digest,
        token: of.token,
        charged: true,
    };
    let forged = || Spent { token: SpendToken([9; 16]), ..copy(&spent) };
    store.reopen(forged()).await.unwrap();
    store.settle(forged(), &answer()).await.unwrap();
    assert!(matches!(spend(&store, &nonce).await, Err(Error::InProgress)));
    // What has been reopened is over, and its holder cannot end the spend that came later.
    let (earlier, earlier_too) = (copy(&spent), copy(&spent));
    store.reopen(copy(&spent)).await.unwrap();
    store.settle(earlier, &answer()).await.unwrap();
    let again = fresh(&store, &nonce).await;
    store.reopen(earlier_too).await.unwrap();
    assert!(matches!(spend(&store, &nonce).await, Err(Error::InProgress)));
    // What has been settled stays so.
    let settled = copy(&again);
    store.settle(again, &answer()).await.unwrap();
    store.reopen(settled).await.unwrap();
    assert!(repeats_the_answer(&spend(&store, &nonce).await));
}

#[tokio::test]
async fn a_spend_of_another_history_is_neither_settled_nor_reopened() {
    let (old, new, nonce) = pair().await;
    let on_old = store(&old.url()).await;
    let spent = fresh(&on_old, &nonce).await;
    let copy = Spent { nonce: nonce.clone(), content_digest: spent.content_digest, token: spent.token, charged: true };
    until("the spend is replicated", || new.has_all_of(&old));
    new.promote();
    let on_new = store(&new.url()).await;
    on_new.settle(spent, &answer()).await.unwrap();
    on_new.reopen(copy).await.unwrap();
    let state: String = new.command(&["HGET", &on_new.keys.nonce(&nonce.to_hex()), "state"]);
    assert_eq!(state, "in_progress");
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_is_fresh_once() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"fresh").await;
    let (here, elsewhere) = (store(&network.url()).await, store(&server.url()).await);
    let nonce = one(&here).await;
    network.lose(1);
    let spent = fresh(&here, &nonce).await;
    assert_eq!(network.left(), 0);
    assert!(matches!(spend(&here, &nonce).await, Err(Error::InProgress)));
    assert!(matches!(spend(&elsewhere, &nonce).await, Err(Error::InProgress)));
    here.settle(spent, &answer()).await.unwrap();
    assert!(repeats_the_answer(&spend(&elsewhere, &nonce).await));
}

#[tokio::test]
async fn a_spend_whose_replies_are_all_lost_is_given_up_and_can_be_tried_again_anywhere() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"fresh").await;
    let (here, elsewhere) = (store(&network.url()).await, store(&server.url()).await);
    let nonce = one(&here).await;
    network.lose(2);
    assert!(is_unavailable(&spend(&here, &nonce).await));
    // Elsewhere it looks as if somebody were signing, until this appliance has said otherwise.
    assert!(matches!(spend(&elsewhere, &nonce).await, Err(Error::InProgress)));
    here.ping().await.unwrap();
    let spent = fresh(&elsewhere, &nonce).await;
    // Giving up is for the call that got no reply, not for whoever came after it.
    here.ping().await.unwrap();
    assert!(matches!(spend(&here, &nonce).await, Err(Error::InProgress)));
    elsewhere.settle(spent, &answer()).await.unwrap();
    assert!(repeats_the_answer(&spend(&here, &nonce).await));
}

#[tokio::test]
async fn a_retry_on_the_same_appliance_does_not_wait_for_its_own_lost_spend() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"fresh").await;
    let store = store(&network.url()).await;
    let nonce = one(&store).await;
    network.lose(2);
    assert!(is_unavailable(&spend(&store, &nonce).await));
    let retried = store.spend(Claim::new(&Permit, nonce, use_()), Duration::from_secs(5), now()).await.unwrap();
    assert!(matches!(retried, Spend::Fresh(_)));
}

#[tokio::test]
async fn a_copy_of_a_call_that_arrives_after_its_end_spends_nothing() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let token = "0123456789abcdef0123456789abcdef";
    for was_spent in [false, true] {
        let nonce = one(&store).await.to_hex();
        let claim = Arc::new(Claim::new(&Permit, NonceValue::parse(&nonce).unwrap(), use_()));
        let end = Arc::new(End { hex: nonce.clone(), token: token.into(), outcome: Outcome::Reopened });
        let late = script::spend_each(&store.keys, &[Sent { claim, named: Arc::clone(&end), now: now() }], 300);
        let spend_late = async || {
            let [reply]: [(String, String); 1] = store.pool.run::<Vec<_>>(&late).await.unwrap().try_into().unwrap();
            SpendReply::from_texts(reply).unwrap()
        };
        if was_spent {
            assert_eq!(spend_late().await, SpendReply::Fresh);
        }
        store.tell(&end).await.unwrap();
        assert_eq!(spend_late().await, SpendReply::InProgress);
        fresh(&store, &NonceValue::parse(&nonce).unwrap()).await;
    }
}

#[tokio::test]
async fn a_cancelled_spend_is_given_up() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonce = one(&store).await;
    server.freeze();
    // The request is sent, then the client goes away.
    let cancelled = tokio::time::timeout(Duration::from_millis(200), spend(&store, &nonce)).await;
    assert!(cancelled.is_err());
    server.thaw();
    in_time("Redis", || store.ping()).await;
    fresh(&store, &nonce).await;
}

#[tokio::test]
async fn an_answer_that_could_not_be_kept_at_once_is_kept_later() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"done").await;
    let store = store(&network.url()).await;
    let nonce = one(&store).await;
    let spent = fresh(&store, &nonce).await;
    server.freeze();
    let settled = tokio::time::timeout(Duration::from_millis(100), store.settle(spent, &answer())).await;
    assert!(settled.is_err());
    server.thaw();
    in_time("Redis", || store.ping()).await;
    assert!(repeats_the_answer(&spend(&store, &nonce).await));
}

#[tokio::test]
async fn a_lost_reply_to_issue_is_not_counted_twice() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"issued").await;
    let store = store(&network.url()).await;
    network.lose(1);
    let nonce = one(&store).await;
    assert_eq!(network.left(), 0);
    let stats = store.stats().await.unwrap();
    assert_eq!((stats.outstanding, stats.per_issuer), (1, vec![("alice".into(), 1)]));
    fresh(&store, &nonce).await;
    assert_eq!(store.stats().await.unwrap().per_issuer, vec![]);
}

#[tokio::test]
async fn nonces_that_a_failover_has_overtaken_are_not_handed_out() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let (hex, bounds) = ("ab".repeat(32), Bounds { quota: 10, capacity: 10 });
    let call = script::issue(&store.keys, &contract::order(), std::slice::from_ref(&hex), now(), bounds);
    for _ in 0..2 {
        assert_eq!(store.pool.run::<script::IssueReply>(&call).await.unwrap().0, "issued");
    }
    server.command::<()>(&["HSET", &store.keys.nonce(&hex), "replid", &"0".repeat(40)]);
    assert!(store.pool.run::<script::IssueReply>(&call).await.is_err());
}
