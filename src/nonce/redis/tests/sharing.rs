//! Requests that share calls.
//!
//! Each of these was seen to fail with the line it is about changed in `sharing.rs`: whose answers are
//! whose, how many go together, the turn that is given back.

use futures_util::future::join_all;

use super::{server::RedisServer, *};

/// How many scripts have been called.
fn calls(server: &RedisServer) -> u64 {
    let stats: String = server.command(&["INFO", "commandstats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_evalsha:calls="));
    line.and_then(|line| line.split(',').next()).map_or(0, |count| count.parse().unwrap())
}

#[tokio::test]
async fn requests_at_the_same_time_share_calls_and_each_hears_its_own_answer() {
    let server = RedisServer::start(&[]);
    let store = store_with(&server.url(), nonce::Config { outstanding_per_issuer: 1000, ..contract::config() }).await;
    let nonces = store.issue(&contract::order(), 200, now()).await.unwrap();
    let before = calls(&server);
    let spends = nonces.iter().enumerate().map(|(number, issued)| {
        let stranger = number % 3 == 0;
        let issuer = if stranger { "mallory".into() } else { use_().issuer };
        spend_as(&store, &issued.nonce, Use { issuer, ..use_() })
    });
    for (number, spend) in join_all(spends).await.into_iter().enumerate() {
        match spend {
            Ok(Spend::Fresh(spent)) => {
                assert_ne!(number % 3, 0);
                assert_eq!(spent.nonce(), &nonces[number].nonce);
            }
            Err(Error::Refused(Refusal::IssuerMismatch)) => assert_eq!(number % 3, 0),
            other => panic!("{number}: {other:?}"),
        }
    }
    let made = calls(&server) - before;
    assert!((2..20).contains(&made), "{made} calls for 200");
}

#[tokio::test]
async fn alone_a_request_is_sent_at_once_and_by_itself() {
    let server = RedisServer::start(&[]);
    let store = store(&server.url()).await;
    let spend_and_settle = async || {
        let spent = fresh(&store, &one(&store).await).await;
        store.settle(spent, &answer()).await.unwrap();
        calls(&server)
    };
    // The first time, the server does not know the scripts.
    let before = spend_and_settle().await;
    assert_eq!(spend_and_settle().await - before, 3, "issued, spent, settled");
}

#[test]
fn calls_go_on_after_the_thread_that_made_them_has_ended() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server = RedisServer::start(&[]);
    let lasting = runtime();
    let store = Arc::new(lasting.block_on(store(&server.url())));
    let nonces: Vec<_> = (0..12).map(|_| lasting.block_on(one(&*store))).collect();
    server.freeze();
    for nonce in &nonces {
        // As many as may be under way, and more, in threads that end before there are answers.
        let (ending, store, nonce) = (runtime(), Arc::clone(&store), nonce.clone());
        ending.spawn(async move { spend(&store, &nonce).await });
        ending.block_on(tokio::task::yield_now());
        ending.block_on(tokio::task::yield_now());
    }
    server.thaw();
    for nonce in &nonces {
        lasting.block_on(async {
            // What they had asked for was given up; its end may have to be told first.
            let claim = Claim::new(&Permit, nonce.clone(), use_());
            let spend = store.spend(claim, Duration::from_secs(10), now()).await;
            assert!(matches!(spend, Ok(Spend::Fresh(_))), "{spend:?}");
        });
    }
}
