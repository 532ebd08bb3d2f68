//! The nonce store of several appliances: in Redis, behind scripts that each are one atomic step.
//!
//! Single use rests on `history.lua` and `spend.lua`, which argue it. This side only has to keep
//! two promises: a [`Spent`] is made from the reply `fresh` and from nothing else, and a token is
//! given up (`reopen.lua`) only when no [`Spent`] with it exists any more.
//!
//! What happens when a reply is lost. The script may have run, so the nonce may be spent without
//! anyone knowing. The call is sent once more with the same random token: if the script finds its
//! own token, nobody else was told `fresh`, and this call is told so now. If that fails too, the
//! caller gets [`Error::Unavailable`] and signs nothing, and the token is put on a list of spends to
//! be given up ([`unfinished`]) as soon as Redis answers again. Until then a retry is
//! [`Error::InProgress`]; after that the same client may try the same content again, on any
//! appliance. When this process dies first, the nonce stays in progress until its window ends, and
//! the client needs a new one. A second signature is not possible in any of these cases.
//!
//! When Redis cannot be reached, everything here fails; nothing is ever kept in memory instead.

mod brought;
mod keys;
mod script;
mod sharing;
mod together;
mod unfinished;

#[cfg(test)]
mod tests;

use std::{
    fmt::Write,
    sync::Arc,
    time::{Duration, Instant},
};

use async_trait::async_trait;

use self::{
    keys::Keys,
    script::{Bounds, SpendReply},
    sharing::Sharing,
    together::Sent,
    unfinished::{End, Unfinished},
};
use super::{
    Answer, Bound, Claim, ClientNonces, Error, Issued, MOST_ISSUERS, Order, Refusal, Removed, ServerStats, Spend,
    SpendToken, Spent, Stats, Store, random, random_nonce, stats::in_order,
};
use crate::{
    clock::Clock,
    key::SignerId,
    nonce,
    nonce_value::NonceValue,
    quota::{Charge, Exceeded},
    redis::{EvictionWatch, Failure, Health, Pool},
    timestamp::Timestamp,
};

/// Nonces in Redis, shared by all appliances of one signer.
pub struct RedisStore {
    limits: nonce::Config,
    keys: Keys,
    pool: Arc<Pool>,
    clock: Clock,
    unfinished: Unfinished,
    spends: Arc<Sharing<Sent>>,
    ends: Arc<Sharing<Arc<End>>>,
    evictions: EvictionWatch,
    /// Where nonces that clients bring are claimed, if they may.
    brought: Option<brought::Desk>,
}

/// What the server said of itself, and when it was asked.
struct Look {
    health: Health,
    asked: Timestamp,
    answered: Timestamp,
}

/// Why the store cannot be used from the start.
#[derive(Debug, thiserror::Error)]
#[error("redis: cannot use {description}: {reason}")]
pub struct ConnectError {
    description: String,
    /// The whole chain of causes, in words.
    reason: String,
}

impl RedisStore {
    /// Connects, and refuses a server that cannot be reached or may not keep nonces.
    pub async fn connect(
        pool: Arc<Pool>,
        limits: nonce::Config,
        signer: &SignerId,
        clock: Clock,
    ) -> Result<Self, ConnectError> {
        let keys = || Keys::of(signer);
        let skew = i64::try_from(limits.clock_skew.as_secs()).expect("checked: at most half a day");
        let (of_spends, of_ends) = (keys(), keys());
        let mut store = Self {
            keys: keys(),
            clock,
            unfinished: Unfinished::default(),
            spends: Sharing::beginning(&pool, move |sent| script::spend_each(&of_spends, sent, skew)),
            ends: Sharing::ending(&pool, move |ends| script::end_each(&of_ends, ends)),
            limits,
            pool,
            evictions: EvictionWatch::default(),
            brought: None,
        };
        let description = store.describe();
        let refused = |error: &dyn std::error::Error| ConnectError { description, reason: causes(error) };
        if let Err(failure) = store.checked_health().await {
            return Err(refused(&failure));
        }
        if store.limits.accept_client_nonces {
            store.brought = Some(store.open_desk(signer).await.map_err(|closed| refused(&closed))?);
        }
        Ok(store)
    }

    async fn open_desk(&self, signer: &SignerId) -> Result<brought::Desk, brought::Closed> {
        brought::Desk::open(brought::Terms {
            limits: self.limits.clone(),
            keys: Keys::of(signer),
            clock: self.clock.clone(),
            pool: Arc::clone(&self.pool),
        })
        .await
    }

    async fn look(&self) -> Result<Look, Failure> {
        let asked = self.clock.now();
        let health = self.pool.health().await?;
        Ok(Look { health, asked, answered: self.clock.now() })
    }

    async fn checked_health(&self) -> Result<Look, Failure> {
        let look = self.look().await?;
        look.health.check()?;
        self.evictions.look(&look.health, Instant::now())?;
        Ok(look)
    }

    async fn counts(&self, issuers: usize, look: Look) -> Result<Stats, Failure> {
        let reply: script::StatsReply = self.pool.run(&script::stats(&self.keys, issuers)).await?;
        let (outstanding, spent, expired_total, last_cleanup, holders, mut per_issuer) = reply;
        in_order(&mut per_issuer);
        Ok(Stats {
            outstanding,
            spent,
            expired_total,
            capacity: self.limits.capacity as u64,
            outstanding_per_issuer: self.limits.outstanding_per_issuer as u64,
            issuers: holders,
            per_issuer,
            last_cleanup: Timestamp::parse(&last_cleanup).ok(),
            server: Some(ServerStats { client_nonces: self.client_nonces(), ..look.into() }),
        })
    }

    /// Tells Redis some of the ends it has not heard of, until one fails.
    async fn tell_unfinished(&self) {
        const AT_ONCE: usize = 500;
        for _ in 0..self.unfinished.len().min(AT_ONCE) {
            let Some(pending) = self.unfinished.next() else { return };
            match self.tell(pending.end()).await {
                Ok(()) => pending.confirmed(),
                Err(_) => return,
            }
        }
    }

    /// Tells Redis an end now, or else later.
    async fn finish(&self, end: End) -> Result<(), Error> {
        let pending = self.unfinished.begin(end);
        self.tell(pending.end()).await?;
        pending.confirmed();
        Ok(())
    }

    fn client_nonces(&self) -> ClientNonces {
        match self.brought.as_ref().map(brought::Desk::closed) {
            None => ClientNonces::Off,
            Some(None) => ClientNonces::Accepted,
            Some(Some(why)) => ClientNonces::Closed(why),
        }
    }

    /// Where a nonce that was not issued here is claimed, if that is what the reply says of it.
    fn desk_for(&self, nonce: &NonceValue, reply: &SpendReply) -> Option<&brought::Desk> {
        let unknown = matches!(reply, SpendReply::Brought | SpendReply::Refused(Refusal::NotFound));
        self.brought.as_ref().filter(|_| unknown && !nonce.was_issued())
    }
}

#[async_trait]
impl Store for RedisStore {
    async fn issue(&self, order: &Order, count: usize, now: Timestamp) -> Result<Vec<Issued>, Error> {
        let nonces = (0..count).map(|_| random_nonce()).collect::<Result<Vec<_>, _>>()?;
        if nonces.is_empty() {
            return Ok(Vec::new());
        }
        let now = now.truncated_to_seconds();
        let window = i64::try_from(order.window.as_secs()).expect("checked: at most a day");
        let hexes: Vec<_> = nonces.iter().map(NonceValue::to_hex).collect();
        let bounds = Bounds { quota: self.limits.outstanding_per_issuer, capacity: self.limits.capacity };
        let call = script::issue(&self.keys, order, &hexes, now, bounds);
        match self.pool.run_if_fit::<script::IssueReply>(&call).await {
            Ok((reply, ..)) if reply == "issued" => {
                let expires_at = now.plus_seconds(window);
                Ok(nonces.into_iter().map(|nonce| Issued { nonce, issued_at: now, expires_at }).collect())
            }
            Ok((reply, ..)) if reply == "issuer_full" => Err(Error::Full(Bound::Issuer)),
            Ok((reply, ..)) if reply == "full" => Err(Error::Full(Bound::Store)),
            Ok((reply, at, wait)) if reply == "limited" => Err(limited(&order.charges, at, wait)),
            Ok(reply) => Err(Failure::Reply(format!("issue: {reply:?}")).into()),
            Err(failure) if failure.is_out_of_memory() => Err(Error::Full(Bound::Memory)),
            Err(failure) => Err(failure.into()),
        }
    }

    async fn spend(&self, claim: Claim, patience: Duration, now: Timestamp) -> Result<Spend, Error> {
        let asked = self.asked(claim, now)?;
        let mut wait = Wait::at_most(patience);
        loop {
            let reply = self.try_spend(&asked).await?;
            if reply != SpendReply::InProgress {
                return asked.concluded(reply);
            }
            // It may be a spend of ours whose reply was lost.
            self.tell_unfinished().await;
            wait.pause().await?;
        }
    }

    async fn spend_all(&self, claims: Vec<Claim>, now: Timestamp) -> Vec<Result<Spend, Error>> {
        self.spend_together(claims, now).await
    }

    async fn settle_all(&self, settled: Vec<(Spent, &Answer)>) -> Vec<Result<(), Error>> {
        self.settle_together(settled).await
    }

    async fn reopen_all(&self, spent: Vec<Spent>) -> Vec<Result<(), Error>> {
        self.reopen_together(spent).await
    }

    async fn settle(&self, spent: Spent, answer: &Answer) -> Result<(), Error> {
        let answer = serde_json::to_string(answer).map_err(|error| Error::Unavailable(Box::new(error)))?;
        self.finish(End::settled(&spent, answer)).await
    }

    async fn reopen(&self, spent: Spent) -> Result<(), Error> {
        self.finish(End::reopened(&spent)).await
    }

    async fn cleanup(&self, now: Timestamp) -> Result<Removed, Error> {
        // Some milliseconds in which the server does nothing else.
        const BATCH: u64 = 500;
        self.tell_unfinished().await;
        let mut removed = Removed::default();
        loop {
            let (expired, used): (u64, u64) = self.pool.run(&script::cleanup(&self.keys, now, BATCH)).await?;
            removed.add_batch(expired, used);
            if expired + used < BATCH {
                return Ok(removed);
            }
        }
    }

    async fn stats(&self) -> Result<Stats, Error> {
        let look = self.look().await?;
        Ok(self.counts(MOST_ISSUERS, look).await?)
    }

    /// Besides: tells Redis the ends of spends that it has not heard of. So it is to be called
    /// every few seconds, as readiness does.
    async fn ping(&self) -> Result<Stats, Error> {
        let look = self.checked_health().await?;
        self.tell_unfinished().await;
        Ok(self.counts(1, look).await?)
    }

    fn charges(&self) -> bool {
        true
    }

    fn describe(&self) -> String {
        self.pool.describe()
    }
}

/// A charge was refused; its number is counted from one.
fn limited(charges: &[Charge], number: usize, microseconds: f64) -> Error {
    let Some(charge) = number.checked_sub(1).and_then(|at| charges.get(at)) else {
        return Failure::Reply(format!("charge {number} of {}", charges.len())).into();
    };
    let retry_after = Duration::try_from_secs_f64(microseconds / 1e6).unwrap_or(charge.quota.window());
    Error::Limited(Box::new(Exceeded { charge: charge.clone(), retry_after }))
}

/// Short pauses between looks at a nonce in progress, longer each time, until patience ends.
struct Wait {
    until: tokio::time::Instant,
    pause: Duration,
}

impl Wait {
    const FIRST: Duration = Duration::from_millis(2);
    const LONGEST: Duration = Duration::from_millis(100);

    fn at_most(patience: Duration) -> Self {
        Self { until: tokio::time::Instant::now() + patience, pause: Self::FIRST }
    }

    async fn pause(&mut self) -> Result<(), Error> {
        let left = self.until.saturating_duration_since(tokio::time::Instant::now());
        if left.is_zero() {
            return Err(Error::InProgress);
        }
        tokio::time::sleep(self.pause.min(left)).await;
        self.pause = (self.pause * 2).min(Self::LONGEST);
        Ok(())
    }
}

/// Why a spend is refused that got this reply.
fn refused(reply: SpendReply) -> Error {
    match reply {
        SpendReply::Refused(refusal) => Error::Refused(refusal),
        SpendReply::Replayed(by) => Error::Replayed { spent_by: by.as_str().into() },
        SpendReply::Full(bound) => Error::Full(bound),
        SpendReply::Closed(why) => brought::Closed(why).into(),
        // A client brought it when that was allowed; now it is as if it had never been seen.
        SpendReply::Brought => Error::Refused(Refusal::NotFound),
        SpendReply::Fresh | SpendReply::InProgress | SpendReply::Repeated(_) | SpendReply::Limited(..) => {
            Failure::Reply("a spend that succeeded and was refused".into()).into()
        }
    }
}

impl From<brought::Closed> for Error {
    fn from(closed: brought::Closed) -> Self {
        Self::Unavailable(Box::new(closed))
    }
}

fn parse_answer(json: &str) -> Result<Answer, Error> {
    serde_json::from_str(json).map_err(|error| Failure::Reply(format!("the settled answer: {error}")).into())
}

impl From<Look> for ServerStats {
    fn from(Look { health, asked, answered }: Look) -> Self {
        Self {
            clock_ahead: health.clock.seconds_outside(asked, answered),
            memory_used: health.memory_used,
            memory_limit: health.memory_limit,
            eviction_policy: health.eviction_policy,
            client_nonces: ClientNonces::Off,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unfit(unfit) => Self::Unfit(unfit.to_string()),
            Failure::Timeout(_)
            | Failure::NoConnection(_)
            | Failure::Redis(_)
            | Failure::NoMaster(..)
            | Failure::Reply(_) => Self::Unavailable(Box::new(failure)),
        }
    }
}

/// An error and its causes in one line.
fn causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        write!(text, ": {cause}").expect("writing to a String");
        source = cause.source();
    }
    text
}
