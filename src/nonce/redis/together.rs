//! Spends, and ends of spends, in a few calls instead of one each: those of a batch, and those that single
//! requests ask for at the same time ([`super::sharing`]).
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
    Answer, Claim, Error, Failure, RedisStore, Spend, SpendReply, SpendToken, Spent, Timestamp, brought, limited,
    parse_answer, random, refused,
    sharing::{Came, EACH},
    unfinished::{End, Outcome, Pending},
};

/// A spend that is asked for.
pub(super) struct Asked<'a> {
    claim: Arc<Claim>,
    token: SpendToken,
    now: Timestamp,
    /// However it ends without a [`Spent`], also by being dropped, the token is given up.
    unanswered: Pending<'a>,
}

impl Asked<'_> {
    fn sent(&self) -> Sent {
        Sent { claim: Arc::clone(&self.claim), named: Arc::clone(self.unanswered.end()), now: self.now }
    }
}

/// What of it a call takes along.
pub(super) struct Sent {
    pub claim: Arc<Claim>,
    /// By the nonce's hex and the token.
    pub named: Arc<End>,
    pub now: Timestamp,
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
        let asked: Vec<_> = claims.into_iter().map(|claim| self.asked(claim, now)).collect();
        let mut came = self.spends.ask_all(asked.iter().flatten().map(Asked::sent).collect()).await.into_iter();
        let decided = asked.into_iter().map(|asked| {
            let asked = asked?;
            let came = came.next().expect("one for each that was sent");
            Ok((asked, came))
        });
        let decided: Vec<Result<_, Error>> = decided.collect();
        let spends = join_all(decided.into_iter().map(|decided| self.decide(decided))).await;
        if spends.iter().any(|spend| matches!(spend, Err(Error::InProgress))) {
            // It may be a spend of ours whose reply was lost: then whoever comes next can have it.
            self.tell_unfinished().await;
        }
        spends
    }

    pub(super) fn asked(&self, claim: Claim, now: Timestamp) -> Result<Asked<'_>, Error> {
        let token = SpendToken(random()?);
        let end = End { hex: claim.nonce.to_hex(), token: hex::encode(token.0), outcome: Outcome::Reopened };
        Ok(Asked { claim: Arc::new(claim), token, now, unanswered: self.unfinished.begin(end) })
    }

    async fn decide(&self, decided: Result<(Asked<'_>, Came), Error>) -> Result<Spend, Error> {
        let (asked, came) = decided?;
        let reply = self.reply(&asked, came).await?;
        asked.concluded(reply)
    }

    /// Asks for one, with whoever else asks now.
    pub(super) async fn try_spend(&self, asked: &Asked<'_>) -> Result<SpendReply, Error> {
        self.reply(asked, self.spends.ask(asked.sent()).await).await
    }

    /// What was said of one, that a client may have brought.
    async fn reply(&self, asked: &Asked<'_>, came: Came) -> Result<SpendReply, Error> {
        let reply = SpendReply::from_texts(read(came?)?)?;
        let Some(desk) = self.desk_for(&asked.claim.nonce, &reply) else { return Ok(reply) };
        let End { hex, token, .. } = &**asked.unanswered.end();
        let (use_, charges) = (asked.claim.use_.clone(), asked.claim.charges.clone());
        Ok(desk.claim(brought::Claim { use_, hex: hex.clone(), token: token.clone(), charges }).await?)
    }

    async fn settle_part(&self, settled: Vec<(Spent, &Answer)>) -> Vec<Result<(), Error>> {
        let pending = settled.into_iter().map(|(spent, answer)| {
            let answer = serde_json::to_string(answer).map_err(|error| Error::Unavailable(Box::new(error)))?;
            Ok(self.unfinished.begin(End::settled(&spent, answer)))
        });
        let pending: Vec<_> = pending.collect();
        self.end_part(pending).await
    }

    async fn reopen_part(&self, spent: Vec<Spent>) -> Vec<Result<(), Error>> {
        let pending = spent.iter().map(|spent| Ok(self.unfinished.begin(End::reopened(spent)))).collect();
        self.end_part(pending).await
    }

    /// Tells Redis these ends now, or else later.
    async fn end_part(&self, pending: Vec<Result<Pending<'_>, Error>>) -> Vec<Result<(), Error>> {
        let mut came =
            self.ends.ask_all(pending.iter().flatten().map(|one| Arc::clone(one.end())).collect()).await.into_iter();
        let mut told = |pending: Pending<'_>| {
            heard(came.next().expect("one for each that was sent"))?;
            pending.confirmed();
            Ok(())
        };
        pending.into_iter().map(|pending| pending.and_then(&mut told)).collect()
    }

    /// Tells Redis the end of a spend.
    pub(super) async fn tell(&self, end: &Arc<End>) -> Result<(), Error> {
        heard(self.ends.ask(Arc::clone(end)).await)
    }
}

impl Asked<'_> {
    /// What a reply makes of it. One that is answered needs no giving up; one that is in progress might be followed
    /// by a copy of itself, still under way on a dead connection.
    pub(super) fn concluded(self, reply: SpendReply) -> Result<Spend, Error> {
        let Self { claim, token, unanswered, .. } = self;
        let concluded = match reply {
            SpendReply::InProgress => return Err(Error::InProgress),
            SpendReply::Fresh => {
                let (nonce, content_digest) = (claim.nonce.clone(), claim.use_.content_digest);
                Ok(Spend::Fresh(Spent { nonce, content_digest, token, charged: true }))
            }
            SpendReply::Repeated(answer) => parse_answer(&answer).map(|answer| Spend::Repeated(Box::new(answer))),
            SpendReply::Limited(at, wait) => Err(limited(&claim.charges, at, wait)),
            SpendReply::Refused(_)
            | SpendReply::Replayed(_)
            | SpendReply::Full(_)
            | SpendReply::Brought
            | SpendReply::Closed(_) => Err(refused(reply)),
        };
        unanswered.confirmed();
        concluded
    }
}

fn heard(came: Came) -> Result<(), Error> {
    let reply: String = read(came?)?;
    if reply != "done" {
        // Its window ended, the store failed over or was cleared: no retry can come.
        tracing::debug!(reply, "the end of a spend concerns nobody any more");
    }
    Ok(())
}

/// As many at once as one call takes.
fn in_parts<T>(items: Vec<T>) -> impl Iterator<Item = Vec<T>> {
    let mut items = items.into_iter();
    std::iter::from_fn(move || Some(items.by_ref().take(EACH).collect::<Vec<_>>()).filter(|part| !part.is_empty()))
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
