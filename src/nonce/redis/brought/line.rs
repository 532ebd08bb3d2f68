//! One connection, from the barrier that opened it to whatever closes it for good.

use std::time::Duration;

use deadpool_redis::redis::{FromRedisValue, Value};

use super::{CLOCKS_APART, Claim, Closed, Decision, MARGIN, SpendReply, Terms, script};
use crate::{
    nonce::{Bound, brought, random},
    redis::{Apart, Failure, Waited},
    timestamp::Timestamp,
};

/// What this appliance knows while claiming is open.
pub(super) struct Line {
    connection: Apart,
    incarnation: String,
    /// Requests made up to here are refused.
    floor: Timestamp,
    /// The latest instant that our clock has shown: it may be set back.
    latest: Timestamp,
}

impl Line {
    /// Connects, and makes the barrier.
    pub async fn open(terms: &Terms) -> Result<Self, Closed> {
        let mut connection = terms.pool.apart(terms.round(), &script::of_claims()).await?;
        let incarnation = barrier(&mut connection, terms).await?;
        let now = terms.clock.now();
        Ok(Self { connection, incarnation, floor: now.plus(MARGIN), latest: now })
    }

    /// Sees that it is the same server, and that a majority follows it.
    pub async fn look(&mut self, terms: &Terms) -> Result<(), Closed> {
        same(&self.incarnation, &barrier(&mut self.connection, terms).await?)
    }

    /// Decides these claims; and why the line must be given up, if it must.
    pub async fn claim(&mut self, terms: &Terms, claims: &[Claim]) -> (Vec<Decision>, Option<Closed>) {
        let now = terms.clock.now();
        self.latest = self.latest.max(now);
        let calls: Vec<_> = claims.iter().map(|claim| self.call(terms, claim, now)).collect();
        let seen = script::seen(&terms.keys);
        match self.connection.run_and_wait(&calls, terms.replicas_needed(), &seen).await {
            Ok(waited) => self.decide(waited, terms),
            Err(failure) => {
                let closed = Closed::from(failure);
                (claims.iter().map(|_| Err(closed.clone())).collect(), Some(closed))
            }
        }
    }

    fn decide(&self, Waited { answers, replicas, then }: Waited, terms: &Terms) -> (Vec<Decision>, Option<Closed>) {
        let disagreed = enough(replicas, terms).and_then(|()| same(&self.incarnation, &then)).err();
        let decisions: Vec<_> = answers.into_iter().map(|answer| decision(answer, disagreed.as_ref())).collect();
        let closed = decisions.iter().find_map(|decision| decision.as_ref().err().cloned());
        (decisions, disagreed.or(closed))
    }

    fn call(&self, terms: &Terms, claim: &Claim, now: Timestamp) -> crate::redis::Call {
        let window = terms.limits.client_nonce_window;
        let on_terms = script::Terms {
            incarnation: &self.incarnation,
            now,
            apart: CLOCKS_APART,
            refusal: brought::refusal(&claim.use_, now, self.latest, window, self.floor),
            window,
            life: 2 * window + Duration::from_secs(60),
            capacity: terms.limits.capacity,
        };
        script::claim(&terms.keys, claim, &on_terms)
    }
}

/// What a claim's answer means, given whether a majority has what it wrote.
fn decision(answer: Result<Value, Failure>, disagreed: Option<&Closed>) -> Decision {
    let value = match answer {
        Ok(value) => value,
        Err(failure) if failure.is_out_of_memory() => return Ok(SpendReply::Full(Bound::Memory)),
        Err(failure) => return Err(failure.into()),
    };
    match SpendReply::from_texts(read(value)?)? {
        SpendReply::Closed(what) if what == "clock" => Err(clocks_differ()),
        SpendReply::Closed(_) => Err(another_incarnation()),
        SpendReply::Fresh => disagreed.map_or(Ok(SpendReply::Fresh), |closed| Err(closed.clone())),
        decided @ (SpendReply::InProgress
        | SpendReply::Repeated(_)
        | SpendReply::Refused(_)
        | SpendReply::Replayed(_)
        | SpendReply::Brought
        | SpendReply::Limited(..)
        | SpendReply::Full(_)) => Ok(decided),
    }
}

fn read<T: FromRedisValue>(value: Value) -> Result<T, Closed> {
    T::from_redis_value(value).map_err(|error| Closed::from(Failure::Reply(error.to_string())))
}

fn enough(acknowledged: usize, terms: &Terms) -> Result<(), Closed> {
    let (needed, nodes) = (terms.replicas_needed(), terms.limits.redis_nodes);
    if acknowledged >= needed {
        return Ok(());
    }
    Err(Closed(format!(
        "of {nodes} Redis servers (nonce.redis_nodes), {needed} replicas must confirm each, and {acknowledged} did: \
         see that the replicas follow the master"
    )))
}

fn check_policy(incarnation: &str) -> Result<(), Closed> {
    if incarnation.contains(" noeviction ") {
        return Ok(());
    }
    Err(Closed("Redis throws keys away when memory is full: set maxmemory-policy to noeviction".into()))
}

fn same(incarnation: &str, seen: &str) -> Result<(), Closed> {
    if incarnation == seen { Ok(()) } else { Err(another_incarnation()) }
}

fn another_incarnation() -> Closed {
    Closed("Redis has failed over, was restarted or cleared, or a replica has come or come back".into())
}

fn clocks_differ() -> Closed {
    Closed("the clocks of Redis and of this machine differ by more than a second".into())
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Writes, waits for a majority; the incarnation.
async fn barrier(connection: &mut Apart, terms: &Terms) -> Result<String, Closed> {
    let text = hex::encode(random::<16>().map_err(|error| Closed(error.to_string()))?);
    let asked = terms.clock.now();
    let calls = [script::barrier(&terms.keys, &text)];
    let waited = connection.run_and_wait(&calls, terms.replicas_needed(), &script::seen(&terms.keys)).await?;
    let answer = waited.answers.into_iter().next().ok_or_else(|| Closed("Redis did not answer".into()))??;
    let (incarnation, replicas, clock): script::BarrierReply = read(answer)?;
    if replicas >= terms.limits.redis_nodes {
        return Err(Closed(format!(
            "the master has {replicas} replicas, and nonce.redis_nodes says {} with the master: correct it",
            terms.limits.redis_nodes
        )));
    }
    if clock.abs_diff(asked.unix_milliseconds()) > milliseconds(CLOCKS_APART) {
        return Err(clocks_differ());
    }
    enough(waited.replicas, terms)?;
    same(&incarnation, &waited.then)?;
    check_policy(&incarnation)?;
    Ok(incarnation)
}
