//! The store against real servers: the contract, single use through everything that happens to
//! Redis, outages, and the services it can run on.
//!
//! Each of these was seen to fail with the line it is about taken out of a script, one at a time:
//! - `history.lua`: the role; `spend.lua`: either half of the history, the mark, each binding, the
//!   window, the content, recognising one's own token, turning away a token that is over;
//! - `settle.lua`, `reopen.lua`: the token, the history, the state, the token left on an unspent
//!   record; `issue.lua`: quota, capacity, being sent twice, each time to live, making room;
//! - the flags of the scripts, and in this room: the look at new and at older connections, dropping
//!   a lost one, the second try, giving up spends without a reply, telling them later.

mod brought;
mod charges;
mod cluster;
mod load;
mod outages;
mod sentinel;
mod sharing;
mod single_use;
mod tls;
mod together;

use std::time::Duration;

use super::{unfinished::Outcome, *};
use crate::nonce::{
    Refusal, Use,
    contract::{self, Permit, answer, now, one, use_},
};
use crate::redis::test_server as server;
use crate::redis::{Cluster, Config, Sentinel};
use server::RedisServer;

contract::suite!(async |config| {
    let server = RedisServer::start(&[]);
    (store_with(&server.url(), config).await, server)
});

pub(super) fn signer() -> SignerId {
    SignerId::parse("veid-signer-1").unwrap()
}

/// Patient, since the machine that runs the tests may be busy.
pub(super) fn config(url: String) -> Config {
    Config { url: Some(url.into()), command_timeout: Duration::from_secs(3), ..Config::default() }
}

async fn connect(config: &Config, limits: nonce::Config) -> Result<RedisStore, Box<dyn std::error::Error>> {
    let pool = Arc::new(Pool::new(config, &signer())?);
    Ok(RedisStore::connect(pool, limits, &signer(), Clock::system()).await?)
}

async fn store(url: &str) -> RedisStore {
    store_with(url, contract::config()).await
}

async fn store_with(url: &str, limits: nonce::Config) -> RedisStore {
    connect(&config(url.into()), limits).await.unwrap()
}

/// One try to spend, without waiting for others.
async fn spend(store: &RedisStore, nonce: &NonceValue) -> Result<Spend, Error> {
    spend_as(store, nonce, use_()).await
}

async fn spend_as(store: &RedisStore, nonce: &NonceValue, use_: Use) -> Result<Spend, Error> {
    store.spend(Claim::new(&Permit, nonce.clone(), use_), Duration::ZERO, now()).await
}

async fn fresh(store: &RedisStore, nonce: &NonceValue) -> Spent {
    match spend(store, nonce).await {
        Ok(Spend::Fresh(spent)) => spent,
        other => panic!("expected a fresh spend, got {other:?}"),
    }
}

async fn refusal(store: &RedisStore, nonce: &NonceValue) -> Refusal {
    match spend(store, nonce).await {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("expected a refusal, got {other:?}"),
    }
}

fn is_unavailable<T>(result: &Result<T, Error>) -> bool {
    matches!(result, Err(Error::Unavailable(_) | Error::Unfit(_)))
}

/// Tries until it works: what the appliance's clients do while Redis is away.
async fn in_time<T, F: Future<Output = Result<T, Error>>>(what: &str, mut attempt: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt().await {
            Ok(done) => return done,
            Err(error) => assert!(Instant::now() < deadline, "waited too long for {what}: {}", causes(&error)),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
