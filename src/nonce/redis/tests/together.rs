//! What is promised of one spend holds for each of many that share a call.

use super::{
    server::{RedisServer, until},
    *,
};
use crate::{
    quota::{Charge, Principal, Quota, Window},
    redis::test_proxy::Proxy,
};

/// Two calls of 125.
const MANY: usize = 250;

fn roomy() -> nonce::Config {
    nonce::Config { outstanding_per_issuer: 5_000, capacity: 5_000, ..nonce::Config::default() }
}

async fn store(url: &str) -> RedisStore {
    store_with(url, roomy()).await
}

async fn many(store: &RedisStore) -> Vec<NonceValue> {
    store.issue(&contract::order(), MANY, now()).await.unwrap().into_iter().map(|issued| issued.nonce).collect()
}

async fn spend_all(store: &RedisStore, nonces: &[NonceValue]) -> Vec<Result<Spend, Error>> {
    let claims = nonces.iter().map(|nonce| Claim::new(&Permit, nonce.clone(), use_())).collect();
    store.spend_all(claims, now()).await
}

async fn all_fresh(store: &RedisStore, nonces: &[NonceValue]) -> Vec<Spent> {
    let spends = spend_all(store, nonces).await;
    assert_eq!(spends.len(), nonces.len());
    let fresh = |spend| match spend {
        Ok(Spend::Fresh(spent)) => spent,
        other => panic!("expected a fresh spend, got {other:?}"),
    };
    spends.into_iter().map(fresh).collect()
}

async fn all_in_progress(store: &RedisStore, nonces: &[NonceValue]) {
    for spend in spend_all(store, nonces).await {
        assert!(matches!(spend, Err(Error::InProgress)), "{spend:?}");
    }
}

async fn all_refused(store: &RedisStore, nonces: &[NonceValue], refusal: Refusal) {
    for spend in spend_all(store, nonces).await {
        assert!(matches!(spend, Err(Error::Refused(why)) if why == refusal), "{refusal:?}: {spend:?}");
    }
}

async fn all_unavailable(store: &RedisStore, nonces: &[NonceValue]) {
    let spends = spend_all(store, nonces).await;
    assert!(spends.len() == nonces.len() && spends.iter().all(is_unavailable), "{spends:?}");
}

/// Each with an answer of its own number.
async fn settle_all(store: &RedisStore, spent: Vec<Spent>) -> Vec<Result<(), Error>> {
    let numbered = (1..).take(spent.len()).map(|audit_sequence| Answer { audit_sequence, ..answer() });
    let answers: Vec<_> = numbered.collect();
    store.settle_all(spent.into_iter().zip(&answers).collect()).await
}

/// Each has the answer of its own number.
async fn all_repeated(store: &RedisStore, nonces: &[NonceValue]) {
    for (number, spend) in (1..).zip(spend_all(store, nonces).await) {
        assert!(matches!(&spend, Ok(Spend::Repeated(answer)) if answer.audit_sequence == number), "{spend:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_many_that_two_appliances_spend_at_once_each_is_fresh_once() {
    let server = RedisServer::start(&[]);
    let appliances = [Arc::new(store(&server.url()).await), Arc::new(store(&server.url()).await)];
    let nonces = many(&appliances[0]).await;
    let tasks: Vec<_> = (0..8)
        .map(|task| {
            let (store, mut nonces) = (Arc::clone(&appliances[task % 2]), nonces.clone());
            // Not in the same order, and one task one by one.
            nonces.rotate_left(30 * task);
            tokio::spawn(async move {
                let mut spends = Vec::new();
                if task == 7 {
                    for nonce in &nonces {
                        spends.push(spend(&store, nonce).await);
                    }
                } else {
                    spends = spend_all(&store, &nonces).await;
                }
                let is_fresh = |spend: &Result<Spend, Error>| match spend {
                    Ok(Spend::Fresh(_)) => true,
                    Err(Error::InProgress) => false,
                    other => panic!("{other:?}"),
                };
                nonces.into_iter().zip(spends).filter(|(_, spend)| is_fresh(spend)).map(|(nonce, _)| nonce).collect()
            })
        })
        .collect();
    let mut fresh: Vec<NonceValue> = Vec::new();
    for task in tasks {
        let spent: Vec<_> = task.await.unwrap();
        fresh.extend(spent);
    }
    fresh.sort();
    let mut all = nonces;
    all.sort();
    assert_eq!(fresh, all);
}

#[tokio::test]
async fn a_lost_reply_is_asked_for_again_and_each_is_fresh_once() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"fresh").await;
    let (here, elsewhere) = (store(&network.url()).await, store(&server.url()).await);
    let nonces = many(&here).await;
    network.lose(1);
    let spent = all_fresh(&here, &nonces).await;
    assert_eq!(network.left(), 0);
    all_in_progress(&here, &nonces).await;
    all_in_progress(&elsewhere, &nonces).await;
    assert!(settle_all(&here, spent).await.iter().all(Result::is_ok));
    all_repeated(&elsewhere, &nonces).await;
}

#[tokio::test]
async fn spends_whose_replies_are_all_lost_are_given_up_and_can_be_tried_again_anywhere() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"fresh").await;
    let (here, elsewhere) = (store(&network.url()).await, store(&server.url()).await);
    let nonces = many(&here).await;
    network.lose(usize::MAX);
    all_unavailable(&here, &nonces).await;
    network.lose(0);
    all_in_progress(&elsewhere, &nonces).await;
    here.ping().await.unwrap();
    let spent = all_fresh(&elsewhere, &nonces).await;
    // Giving up is for the calls that got no reply, not for whoever came after them.
    here.ping().await.unwrap();
    all_in_progress(&here, &nonces).await;
    assert!(settle_all(&elsewhere, spent).await.iter().all(Result::is_ok));
    all_repeated(&here, &nonces).await;
}

#[tokio::test]
async fn spends_that_never_arrived_or_were_cancelled_leave_nothing_behind() {
    let server = RedisServer::start(&[]);
    let config = Config { command_timeout: Duration::from_millis(300), ..config(server.url()) };
    let store = connect(&config, roomy()).await.unwrap();
    let nonces = many(&store).await;
    server.freeze();
    all_unavailable(&store, &nonces).await;
    let cancelled = tokio::time::timeout(Duration::from_millis(100), spend_all(&store, &nonces)).await;
    assert!(cancelled.is_err());
    server.thaw();
    // As many as are told at once, until all are.
    in_time("the store", || async {
        store.ping().await?;
        if store.unfinished.len() == 0 { Ok(()) } else { Err(Error::InProgress) }
    })
    .await;
    all_fresh(&store, &nonces).await;
}

#[tokio::test]
async fn what_a_failover_or_a_restart_or_a_flush_left_behind_is_refused() {
    let (old, new) = (RedisServer::start(&[]), RedisServer::start(&[]));
    new.follow(&old);
    let on_old = store(&old.url()).await;
    let (nonces, spent) = (many(&on_old).await, many(&on_old).await);
    let holds = all_fresh(&on_old, &spent).await;
    until("they are replicated", || new.has_all_of(&old));
    new.promote();
    let on_new = store(&new.url()).await;
    // Two masters: only the one that issued them spends them, and only there they are settled.
    all_refused(&on_new, &nonces, Refusal::StoreFailover).await;
    all_refused(&on_new, &spent, Refusal::StoreFailover).await;
    all_fresh(&on_old, &nonces).await;
    assert!(settle_all(&on_new, holds).await.iter().all(Result::is_ok));
    let state: String = new.command(&["HGET", &on_new.keys.nonce(&spent[MANY - 1].to_hex()), "state"]);
    assert_eq!(state, "in_progress");

    let mut server = RedisServer::start(&["--appendonly", "yes", "--appendfsync", "always"]);
    let store = store(&server.url()).await;
    let nonces = many(&store).await;
    server.kill();
    all_unavailable(&store, &nonces).await;
    server.start_again();
    in_time("Redis", || store.ping()).await;
    all_refused(&store, &nonces, Refusal::StoreFailover).await;
    server.command::<()>(&["FLUSHALL"]);
    all_refused(&store, &nonces, Refusal::NotFound).await;
    all_fresh(&store, &many(&store).await).await;
}

#[tokio::test]
async fn a_replica_that_accepts_writes_spends_nothing_and_neither_does_a_master_without_replicas_it_must_have() {
    let (master, other) = (RedisServer::start(&[]), RedisServer::start(&[]));
    let store = store(&master.url()).await;
    let nonces = many(&store).await;
    master.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "1"]);
    all_unavailable(&store, &nonces).await;
    master.command::<()>(&["CONFIG", "SET", "min-replicas-to-write", "0"]);
    store.ping().await.unwrap();
    all_fresh(&store, &nonces[..10]).await;
    // Demoted under a connection that stays: the script itself looks.
    master.command::<()>(&["CONFIG", "SET", "replica-read-only", "no"]);
    master.command::<()>(&["REPLICAOF", "127.0.0.1", &other.port.to_string()]);
    all_unavailable(&store, &nonces[10..]).await;
}

#[tokio::test]
async fn one_that_fails_is_nothing_to_the_others() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonces = many(&store).await;
    let broken = store.keys.nonce(&nonces[7].to_hex());
    server.command::<()>(&["SET", &broken, "what is no record"]);
    let mut spends = spend_all(&store, &nonces).await;
    let failed = spends.remove(7);
    assert!(matches!(&failed, Err(error) if causes(error).contains("WRONGTYPE")), "{failed:?}");
    let fresh = |spend| match spend {
        Ok(Spend::Fresh(spent)) => spent,
        other => panic!("expected a fresh spend, got {other:?}"),
    };
    let mut spent: Vec<_> = spends.into_iter().map(fresh).collect();
    let broken = store.keys.nonce(&spent[3].nonce.to_hex());
    server.command::<()>(&["SET", &broken, "what is no record"]);
    let copies = spent.split_off(MANY / 2);
    let settled = settle_all(&store, spent).await;
    let reopened = store.reopen_all(copies).await;
    assert_eq!(settled.iter().chain(&reopened).filter(|end| end.is_err()).count(), 1);
    assert!(is_unavailable(&settled[3]));
}

#[tokio::test]
async fn one_that_failed_and_happened_is_given_up() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonces = many(&store).await;
    // The mark is written, and what comes after it fails.
    server.command::<()>(&["SET", &store.keys.spent, "what is no index"]);
    all_unavailable(&store, &nonces).await;
    let state: String = server.command(&["HGET", &store.keys.nonce(&nonces[0].to_hex()), "state"]);
    assert_eq!(state, "in_progress");
    server.command::<()>(&["DEL", &store.keys.spent]);
    store.ping().await.unwrap();
    all_fresh(&store, &nonces).await;
}

#[tokio::test]
async fn each_is_charged_by_itself() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonces = many(&store).await;
    let charge = |at: usize| {
        let (subject, burst) = if at.is_multiple_of(2) { ("even", 100) } else { ("odd", 40) };
        let hour = Duration::from_secs(3600);
        let principal = Principal::Subject(subject.into());
        vec![Charge { principal, limit: "email", window: Window::Hour, quota: Quota::per(burst, hour), count: 1 }]
    };
    let claims = nonces.iter().enumerate();
    let claims = claims.map(|(at, nonce)| Claim::new(&Permit, nonce.clone(), use_()).charged(charge(at))).collect();
    let spends = store.spend_all(claims, now()).await;
    let taken = |rest| {
        let of = spends.iter().skip(rest).step_by(2);
        of.filter(|spend| matches!(spend, Ok(Spend::Fresh(_)))).count()
    };
    assert_eq!((taken(0), taken(1)), (100, 40));
    for (at, spend) in spends.into_iter().enumerate() {
        match spend {
            Ok(_) => {}
            Err(Error::Limited(exceeded)) => assert_eq!(vec![exceeded.charge.clone()], charge(at)),
            Err(other) => panic!("{other:?}"),
        }
    }
    // Who was refused has spent nothing.
    fresh(&store, &nonces[MANY - 1]).await;
}

#[tokio::test]
async fn ends_whose_replies_are_lost_have_happened_and_others_are_told_later() {
    let server = RedisServer::start(&[]);
    let network = Proxy::before(server.port, b"*125\r\n").await;
    let (here, elsewhere) = (store(&network.url()).await, store(&server.url()).await);
    let (settled, reopened) = (many(&here).await, many(&here).await);
    // Happened, and nobody was told.
    let (to_settle, to_reopen) = (all_fresh(&here, &settled).await, all_fresh(&here, &reopened).await);
    network.lose(usize::MAX);
    assert!(settle_all(&here, to_settle).await.iter().all(is_unavailable));
    assert!(here.reopen_all(to_reopen).await.iter().all(is_unavailable));
    network.lose(0);
    all_repeated(&elsewhere, &settled).await;
    let again = all_fresh(&elsewhere, &reopened).await;
    // What is told once more ends nothing that came after it.
    here.ping().await.unwrap();
    here.ping().await.unwrap();
    all_repeated(&elsewhere, &settled).await;
    all_in_progress(&elsewhere, &reopened).await;
    // Never arrived.
    server.freeze();
    let late = tokio::time::timeout(Duration::from_millis(100), settle_all(&elsewhere, again)).await;
    assert!(late.is_err());
    server.thaw();
    in_time("Redis", || elsewhere.ping()).await;
    all_repeated(&elsewhere, &reopened).await;
}

#[tokio::test]
async fn only_the_caller_of_a_spend_ends_it_and_a_copy_that_comes_late_spends_nothing() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonces = many(&store).await;
    let spent = all_fresh(&store, &nonces).await;
    let forged = |spent: &Spent| Spent {
        nonce: spent.nonce.clone(),
        content_digest: spent.content_digest,
        token: SpendToken([9; 16]),
        charged: true,
    };
    store.reopen_all(spent.iter().map(forged).collect()).await;
    settle_all(&store, spent.iter().map(forged).collect()).await;
    all_in_progress(&store, &nonces).await;

    let nonces = many(&store).await;
    let token = "0123456789abcdef0123456789abcdef";
    let ends: Vec<_> = nonces
        .iter()
        .map(|nonce| Arc::new(End { hex: nonce.to_hex(), token: token.into(), outcome: Outcome::Reopened }))
        .collect();
    let sent = nonces.iter().zip(&ends).map(|(nonce, end)| Sent {
        claim: Arc::new(Claim::new(&Permit, nonce.clone(), use_())),
        named: Arc::clone(end),
        now: now(),
    });
    let late = script::spend_each(&store.keys, &sent.collect::<Vec<_>>(), 300);
    for end in &ends {
        store.tell(end).await.unwrap();
    }
    let replies: Vec<(String, String)> = store.pool.run(&late).await.unwrap();
    assert!(replies.iter().all(|(reply, _)| reply == "in_progress"), "{replies:?}");
    all_fresh(&store, &nonces).await;
}

#[tokio::test]
async fn a_forgotten_script_is_sent_again() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let nonces = many(&store).await;
    server.command::<()>(&["SCRIPT", "FLUSH"]);
    all_fresh(&store, &nonces).await;
}
