//! Many spends, and many ends of spends, in a few calls instead of one each.
//!
//! `each.lua` does for each member of a call what its own call would have done: the same lines decide, each
//! member has a token of its own, and one that is refused, or fails, is nothing to the others. The keys of one
//! signer lie on one node of a Cluster (`keys.rs`), so a call may name as many as it likes.
//!
//! What is promised of one spend holds for each of them. When a reply is lost, all of the call are as unknown
//! as a single one would be: the call is sent once more with the same tokens, and when that fails too, each
//! member is given up by itself ([`super::unfinished`]).

use std::sync::Arc;

use deadpool_redis::redis::{FromRedisValue, Value};
use futures_util::future::join_all;

use super::{
    Answer, Claim, Error, Failure, RedisStore, Spend, SpendReply, SpendToken, Spent, Timestamp, brought, concluded,
    random, script,
    unfinished::{End, Outcome, Pending},
};

/// Members of one call. They take the server a millisecond or two, in which it does nothing else.
const EACH: usize = 125;

/// A spend that is asked for.
struct Asked<'a> {
    claim: Claim,
    token: SpendToken,
    /// However it ends without a [`Spent`], also by being dropped, the token is given up.
    unanswered: Pending<'a>,
}

impl Asked<'_> {
    fn hex(&self) -> &str {
        &self.unanswered.end().hex
    }

    fn token(&self) -> &str {
        &self.unanswered.end().token
    }
}

impl RedisStore {
    pub(super) async fn spend_together(&self, claims: Vec<Claim>, now: Timestamp) -> Vec<Result<Spend, Error>> {
        join_all(in_parts(claims).map(|part| self.spend_part(part, now))).await.into_iter().flatten().collect()
    }

    pub(super) async fn settle_together(&self, settled: Vec<(Spent, &Answer)>) -> Vec<Result<(), Error>> {
        join_all(in_parts(settled).map(|part| self.settle_part(part))).await.into_iter().flatten().collect()
    }

    pub(super) async fn reopen_together(&self, spent: Vec<Spent>) -> Vec<Result<(), Error>> {
        join_all(in_parts(spent).map(|part| self.reopen_part(part))).await.into_iter().flatten().collect()
    }

    async fn spend_part(&self, claims: Vec<Claim>, now: Timestamp) -> Vec<Result<Spend, Error>> {
        let asked: Vec<_> = claims.into_iter().map(|claim| self.ask(claim)).collect();
        let sent = asked.iter().flatten().map(|one| (&one.claim, (one.hex(), one.token())));
        let call = script::spend_each(&self.keys, sent, now, self.skew_seconds());
        let count = asked.iter().flatten().count();
        let mut replies = each(count, self.pool.run_if_fit(&call).await).into_iter();
        let mut reply = || replies.next().unwrap_or_else(|| Err(missing().into()));
        let decided = asked.into_iter().map(|asked| asked.and_then(|asked| Ok((asked, reply()?))));
        let decided: Vec<_> = decided.collect();
        let spends = join_all(decided.into_iter().map(|decided| self.decide(decided))).await;
        if spends.iter().any(|spend| matches!(spend, Err(Error::InProgress))) {
            // It may be a spend of ours whose reply was lost: then whoever comes next can have it.
            self.tell_unfinished().await;
        }
        spends
    }

    fn ask(&self, claim: Claim) -> Result<Asked<'_>, Error> {
        let token = SpendToken(random()?);
        let end = End { hex: claim.nonce.to_hex(), token: hex::encode(token.0), outcome: Outcome::Reopened };
        Ok(Asked { claim, token, unanswered: self.unfinished.begin(end) })
    }

    /// What came of one, that a client may have brought.
    async fn decide(&self, decided: Result<(Asked<'_>, Value), Error>) -> Result<Spend, Error> {
        let (asked, value) = decided?;
        let mut reply = SpendReply::from_texts(read(value)?)?;
        if let Some(desk) = self.desk_for(&asked.claim.nonce, &reply) {
            let (hex, token) = (asked.hex().to_owned(), asked.token().to_owned());
            let (use_, charges) = (asked.claim.use_.clone(), asked.claim.charges.clone());
            reply = desk.claim(brought::Claim { use_, hex, token, charges }).await?;
        }
        let Asked { claim, token, unanswered } = asked;
        concluded(reply, claim, token, unanswered)
    }

    async fn settle_part(&self, settled: Vec<(Spent, &Answer)>) -> Vec<Result<(), Error>> {
        let pending = settled.into_iter().map(|(spent, answer)| {
            let answer = serde_json::to_string(answer).map_err(|error| Error::Unavailable(Box::new(error)))?;
            Ok(self.unfinished.begin(End::settled(&spent, answer)))
        });
        let pending: Vec<_> = pending.collect();
        let sent = pending.iter().flatten().map(Pending::end).filter_map(|end| match &end.outcome {
            Outcome::Settled(answer) => Some((&*end.hex, &*end.token, &**answer)),
            Outcome::Reopened => None,
        });
        let call = script::settle_each(&self.keys, sent);
        self.end_part(pending, &call).await
    }

    async fn reopen_part(&self, spent: Vec<Spent>) -> Vec<Result<(), Error>> {
        let pending: Vec<_> = spent.iter().map(|spent| Ok(self.unfinished.begin(End::reopened(spent)))).collect();
        let sent = pending.iter().flatten().map(Pending::end).map(|end| (&*end.hex, &*end.token));
        let call = script::reopen_each(&self.keys, sent);
        self.end_part(pending, &call).await
    }

    /// Tells Redis these ends now, or else later.
    async fn end_part(
        &self,
        pending: Vec<Result<Pending<'_>, Error>>,
        call: &crate::redis::Call,
    ) -> Vec<Result<(), Error>> {
        let count = pending.iter().flatten().count();
        let mut replies = each(count, self.pool.run(call).await).into_iter();
        let mut told = |pending: Pending<'_>| {
            let reply: String = read(replies.next().unwrap_or_else(|| Err(missing().into()))?)?;
            if reply != "done" {
                // Its window ended, the store failed over or was cleared: no retry can come.
                tracing::debug!(reply, "the end of a spend concerns nobody any more");
            }
            pending.confirmed();
            Ok(())
        };
        pending.into_iter().map(|pending| pending.and_then(&mut told)).collect()
    }
}

/// As many at once as one call takes.
fn in_parts<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || Some(items.by_ref().take(EACH).collect::<Vec<_>>()).filter(|part| !part.is_empty()))
}

/// What a call came to, for each of its members.
fn each(count: usize, replies: Result<Vec<Value>, Failure>) -> Vec<Result<Value, Error>> {
    let counted = replies.and_then(|replies| if replies.len() == count { Ok(replies) } else { Err(missing()) });
    match counted {
        Ok(replies) => replies.into_iter().map(Ok).collect(),
        Err(failure) => {
            let failure = Arc::new(failure);
            (0..count).map(|_| Err(shared(&failure))).collect()
        }
    }
}

/// The same for all of them.
fn shared(failure: &Arc<Failure>) -> Error {
    match &**failure {
        Failure::Unfit(unfit) => Error::Unfit(unfit.to_string()),
        Failure::Timeout(_)
        | Failure::NoConnection(_)
        | Failure::Redis(_)
        | Failure::NoMaster(..)
        | Failure::Reply(_) => Error::Unavailable(Box::new(Arc::clone(failure))),
    }
}

fn missing() -> Failure {
    Failure::Reply("not an answer for each of several".into())
}

/// The answer for one; `each.lua` says of one that failed what it was.
fn read<T: FromRedisValue>(value: Value) -> Result<T, Failure> {
    if let Ok((word, what)) = <(String, String)>::from_redis_value_ref(&value)
        && word == "error"
    {
        return Err(Failure::Reply(what));
    }
    T::from_redis_value(value).map_err(|error| Failure::Reply(error.to_string()))
}
