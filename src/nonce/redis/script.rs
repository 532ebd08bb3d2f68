//! The scripts and their answers. Each script's own file says what it does and why that is right.

use std::{
    sync::{Arc, LazyLock},
    time::Duration,
};

use deadpool_redis::redis::Script;

use super::{
    brought,
    keys::Keys,
    together::Sent,
    unfinished::{End, Outcome},
};
use crate::{
    nonce::{Bound, Claim, Order, Refusal},
    redis::{self, Call, Failure},
    timestamp::Timestamp,
};

macro_rules! script {
    ($head:literal $(, $part:literal)+) => {
        LazyLock::new(|| Script::new(concat!($head, "\n" $(, include_str!($part))+)))
    };
}

/// A script that does the same for each of several nonces, by its `one`. The names of that function's parameters
/// are those by which a script knows its own keys and arguments, and it sees the history that was looked at once.
macro_rules! each {
    ($($part:expr),+) => {
        LazyLock::new(|| {
            Script::new(concat!(
                "#!lua flags=allow-oom\n",
                include_str!("history.lua"),
                include_str!("index.lua"),
                "local run_id, replid = current_history()\n",
                "local function current_history() return run_id, replid end\n",
                $($part,)+
                include_str!("each.lua")
            ))
        })
    };
}

macro_rules! function {
    ($name:literal $(, $part:literal)+) => {
        concat!("local function ", $name, "(KEYS, ARGV)\n", $(include_str!($part),)+ "end\n")
    };
}

// The flags in the first line: without allow-oom Redis refuses a script over maxmemory.
static ISSUE: LazyLock<Script> = script!("#!lua", "history.lua", "index.lua", "../../redis/charge.lua", "issue.lua");
static SPEND_EACH: LazyLock<Script> = each!(function!("one", "../../redis/charge.lua", "spend.lua"));
static END_EACH: LazyLock<Script> = each!(
    function!("settle", "settle.lua"),
    function!("reopen", "reopen.lua"),
    "local function one(KEYS, ARGV) return ARGV[2] and settle(KEYS, ARGV) or reopen(KEYS, ARGV) end\n"
);
static CLEANUP: LazyLock<Script> = script!("#!lua flags=allow-oom", "history.lua", "index.lua", "cleanup.lua");
static CLAIM: LazyLock<Script> =
    script!("#!lua", "history.lua", "incarnation.lua", "../../redis/charge.lua", "claim.lua");
static BARRIER: LazyLock<Script> = script!("#!lua flags=allow-oom", "history.lua", "incarnation.lua", "barrier.lua");
static SEEN: LazyLock<Script> = script!("#!lua flags=no-writes", "history.lua", "incarnation.lua", "seen.lua");
static STATS: LazyLock<Script> = script!("#!lua flags=no-writes", "stats.lua");

/// Seconds that a record outlives its window by Redis' clock: clocks differ, and an expired nonce
/// should still be told from an unknown one.
const RECORD_MARGIN_SECONDS: i64 = 600;

/// Life of the index after the last nonce was issued: longer than any record.
const INDEX_LIFE_MS: i64 = (86_400 + 2 * RECORD_MARGIN_SECONDS) * 1000;

/// The bounds that `issue` keeps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    pub quota: usize,
    pub capacity: usize,
}

/// Answered with an [`IssueReply`].
pub(super) fn issue(keys: &Keys, order: &Order, hexes: &[String], now: Timestamp, bounds: Bounds) -> Call {
    let window = i64::try_from(order.window.as_secs()).expect("checked: at most a day");
    let now = now.unix_seconds();
    let mut call = indexed(&ISSUE, keys);
    for hex in hexes {
        call.key(keys.nonce(hex));
    }
    call.arg(now).arg(now + window).arg((window + RECORD_MARGIN_SECONDS) * 1000).arg(INDEX_LIFE_MS);
    call.arg(order.issuer.as_str()).arg(order.attestation_type.as_str());
    match &order.subject_address {
        Some(subject) => call.arg("bound").arg(subject),
        None => call.arg("any").arg(""),
    };
    call.arg(bounds.quota).arg(bounds.capacity).arg(&keys.prefix).arg(order.charges.len());
    redis::charge(&mut call, &keys.signer, &order.charges);
    call
}

/// Spends several. Answered with a [`SpendReply`] for each.
pub(super) fn spend_each(keys: &Keys, sent: &[Sent], skew: i64) -> Call {
    let mut call = SPEND_EACH.prepare_invoke();
    for Sent { claim, named, now } in sent {
        call.arg(4 + claim.charges.len()).arg(10 + 3 * claim.charges.len());
        add_spend(&mut call, keys, claim, (&named.hex, &named.token), *now, skew);
    }
    call
}

/// Redis compares whole seconds only, since its numbers cannot hold nanoseconds. That is exact:
/// issued_at, the end of the window and the skew are whole seconds, so comparing with the seconds
/// of an instant, rounded down, decides the same as comparing with the instant. Whether the
/// timestamp lies too far ahead is decided here, where both instants are at hand.
fn add_spend(call: &mut Call, keys: &Keys, claim: &Claim, (hex, token): (&str, &str), now: Timestamp, skew: i64) {
    let Claim { use_, charges, .. } = claim;
    call.key(keys.nonce(hex)).key(&keys.outstanding).key(&keys.spent).key(&keys.holders);
    call.arg(now.unix_seconds()).arg(use_.timestamp.unix_seconds() + skew);
    call.arg(if use_.timestamp > now.plus_seconds(skew) { "future" } else { "" });
    call.arg(use_.issuer.as_str()).arg(use_.attestation_type.as_str()).arg(&use_.subject_address);
    call.arg(hex::encode(use_.content_digest)).arg(token).arg(hex).arg(charges.len());
    redis::charge(call, &keys.signer, charges);
}

/// What a claim of a brought nonce is made under: what only its sender knows, and when it sends.
#[derive(Debug)]
pub(super) struct Terms<'a> {
    pub incarnation: &'a str,
    pub now: Timestamp,
    /// How far the two clocks may differ.
    pub apart: Duration,
    pub refusal: Option<Refusal>,
    /// How long the nonce is good for after its timestamp, and remembered.
    pub window: Duration,
    pub life: Duration,
    pub capacity: usize,
}

/// Answered with a [`SpendReply`].
pub(super) fn claim(keys: &Keys, claim: &brought::Claim, terms: &Terms<'_>) -> Call {
    let brought::Claim { use_, hex, token, charges } = claim;
    let mut call = CLAIM.key(keys.nonce(hex));
    call.key(&keys.outstanding).key(&keys.spent).key(&keys.brought);
    call.arg(terms.incarnation).arg(terms.now.unix_milliseconds()).arg(milliseconds(terms.apart));
    call.arg(terms.refusal.map_or("", Refusal::as_str));
    call.arg(use_.issuer.as_str()).arg(use_.attestation_type.as_str());
    call.arg(hex::encode(use_.content_digest)).arg(token).arg(hex).arg(milliseconds(terms.life)).arg(terms.capacity);
    call.arg(terms.now.unix_seconds()).arg(use_.timestamp.plus(terms.window).unix_seconds()).arg(charges.len());
    redis::charge(&mut call, &keys.signer, charges);
    call
}

/// Incarnation, connected replicas, the server's clock in milliseconds.
pub(super) type BarrierReply = (String, usize, i64);

/// Answered with a [`BarrierReply`].
pub(super) fn barrier(keys: &Keys, random: &str) -> Call {
    let mut call = BARRIER.key(&keys.brought);
    call.key(&keys.barrier).arg(random).arg(INDEX_LIFE_MS);
    call
}

/// Answered with the incarnation.
pub(super) fn seen(keys: &Keys) -> Call {
    SEEN.key(&keys.brought)
}

/// The scripts of claims, for connections on which they are not sent along.
pub(super) fn of_claims() -> [&'static Script; 3] {
    [&CLAIM, &BARRIER, &SEEN]
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).expect("checked: minutes at most")
}

/// Settles or reopens several. Answered with a word for each: whether it was this call's to end.
pub(super) fn end_each(keys: &Keys, ends: &[Arc<End>]) -> Call {
    let mut call = END_EACH.prepare_invoke();
    for end in ends {
        call.key(keys.nonce(&end.hex)).arg(1);
        match &end.outcome {
            Outcome::Settled(answer) => call.arg(2).arg(&end.token).arg(answer),
            Outcome::Reopened => call.arg(1).arg(&end.token),
        };
    }
    call
}

/// Answered with the numbers of nonces that were forgotten: unspent, and spent.
pub(super) fn cleanup(keys: &Keys, now: Timestamp, batch: u64) -> Call {
    let mut call = indexed(&CLEANUP, keys);
    call.arg(now.unix_seconds()).arg(batch).arg(&keys.prefix).arg(now.to_string());
    call
}

/// Outstanding, spent, expired in all, last cleanup, how many issuers, and the largest of them.
pub(super) type StatsReply = (u64, u64, u64, String, u64, Vec<(String, u64)>);

/// Answered with a [`StatsReply`].
pub(super) fn stats(keys: &Keys, issuers: usize) -> Call {
    let mut call = indexed(&STATS, keys);
    call.arg(issuers);
    call
}

fn indexed(script: &'static Script, keys: &Keys) -> Call {
    let mut call = script.key(&keys.outstanding);
    call.key(&keys.spent).key(&keys.holders).key(&keys.totals).key(&keys.brought);
    call
}

/// What `issue.lua` decided: a word, and of a refused charge which one and how long to wait (µs).
pub(super) type IssueReply = (String, usize, f64);

/// What `spend.lua` decided.
#[derive(Debug, PartialEq)]
pub(super) enum SpendReply {
    Fresh,
    InProgress,
    /// With the answer as it was settled.
    Repeated(String),
    Refused(Refusal),
    /// Which charge, counted from one, and how long to wait (µs).
    Limited(usize, f64),
    /// Another client, this one, has spent it.
    Replayed(String),
    /// A client brought it: to be claimed.
    Brought,
    /// `claim` only: this bound is reached.
    Full(Bound),
    /// `claim` only: the caller knows another incarnation, or another time.
    Closed(String),
}

impl SpendReply {
    pub(super) fn from_texts((outcome, detail): (String, String)) -> Result<Self, Failure> {
        match outcome.as_str() {
            "fresh" => Ok(Self::Fresh),
            "in_progress" => Ok(Self::InProgress),
            "repeated" => Ok(Self::Repeated(detail)),
            "brought" => Ok(Self::Brought),
            "full" => Ok(Self::Full(Bound::Store)),
            "closed" => Ok(Self::Closed(detail)),
            "replayed" => Ok(Self::Replayed(detail)),
            "refused" => REFUSALS
                .into_iter()
                .find(|refusal| refusal.as_str() == detail)
                .map(Self::Refused)
                .ok_or_else(|| Failure::Reply(format!("refused for {detail:?}"))),
            "limited" => {
                let parts = detail.split_once(' ').and_then(|(at, wait)| Some((at.parse().ok()?, wait.parse().ok()?)));
                let (at, wait) = parts.ok_or_else(|| Failure::Reply(format!("limited: {detail:?}")))?;
                Ok(Self::Limited(at, wait))
            }
            other => Err(Failure::Reply(format!("spend: {other:?}"))),
        }
    }
}

/// The reasons that `spend.lua` gives.
const REFUSALS: [Refusal; 8] = [
    Refusal::NotFound,
    Refusal::StoreFailover,
    Refusal::AlreadyUsed,
    Refusal::IssuerMismatch,
    Refusal::Expired,
    Refusal::TypeMismatch,
    Refusal::SubjectMismatch,
    Refusal::InvalidTimestamp,
];
