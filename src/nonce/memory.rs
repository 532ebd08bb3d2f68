//! The nonce store of a single appliance: everything in this process's memory. A restart forgets
//! all nonces, which makes them unknown and so unspendable.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Arc,
    time::Duration,
};

use async_trait::async_trait;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::{
    Answer, Bound, Claim, Config, Error, Issued, MOST_ISSUERS, Order, Refusal, Removed, Spend, SpendToken, Spent,
    Stats, Store, Use, brought, holders::Holders, random_nonce,
};
use crate::{client::ClientIdentity, nonce_value::NonceValue, timestamp::Timestamp};

/// Nonces in memory, behind one lock: every operation is a few map accesses.
pub struct MemoryStore {
    config: Config,
    /// Requests made up to here may have been accepted before this process began.
    floor: Timestamp,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    entries: HashMap<NonceValue, Entry>,
    by_expiry: BTreeSet<(i64, NonceValue)>,
    holders: Holders,
    /// The latest instant that the clock has shown.
    latest: Option<Timestamp>,
    expired_total: u64,
    last_cleanup: Option<Timestamp>,
}

struct Entry {
    issuer: ClientIdentity,
    attestation_type: crate::attestation::AttestationType,
    subject_address: Option<String>,
    issued_at: Timestamp,
    expires_at: Timestamp,
    life: Life,
}

enum Life {
    Unspent,
    /// Spent; the request that spent it is on its way.
    InProgress {
        content_digest: [u8; 32],
        settled: Arc<Notify>,
    },
    /// Spent, but that request failed before anything was released.
    Reopened {
        charged: bool,
        content_digest: [u8; 32],
    },
    Settled {
        content_digest: [u8; 32],
        answer: Box<Answer>,
    },
}

/// What one look at an entry decided.
enum Step {
    Done(Spend),
    Wait(Arc<Notify>),
}

impl MemoryStore {
    /// An empty store, begun now.
    #[must_use]
    pub fn new(config: Config, now: Timestamp) -> Self {
        Self { config, floor: now.plus(brought::AHEAD), state: Mutex::default() }
    }

    fn step(&self, claim: &Claim, now: Timestamp) -> Result<Step, Error> {
        let mut state = self.state.lock();
        let Some(entry) = state.entries.get_mut(&claim.nonce) else {
            return self.take_brought(&mut state, claim, now).map(Step::Done);
        };
        entry.check(&claim.use_, now, self.config.clock_skew)?;
        let spend = |entry: &mut Entry, charged| {
            let content_digest = claim.use_.content_digest;
            entry.life = Life::InProgress { content_digest, settled: Arc::default() };
            Step::Done(Spend::Fresh(Spent {
                nonce: claim.nonce.clone(),
                content_digest,
                token: SpendToken::default(),
                charged,
            }))
        };
        match &entry.life {
            Life::Unspent => {
                let step = spend(entry, false);
                let issuer = entry.issuer.clone();
                state.holders.remove_one(&issuer);
                Ok(step)
            }
            Life::Reopened { content_digest, charged } if *content_digest == claim.use_.content_digest => {
                let charged = *charged;
                Ok(spend(entry, charged))
            }
            Life::InProgress { content_digest, settled } if *content_digest == claim.use_.content_digest => {
                Ok(Step::Wait(Arc::clone(settled)))
            }
            Life::Settled { content_digest, answer } if *content_digest == claim.use_.content_digest => {
                Ok(Step::Done(Spend::Repeated(answer.clone())))
            }
            Life::Reopened { .. } | Life::InProgress { .. } | Life::Settled { .. } => {
                Err(Error::Refused(Refusal::AlreadyUsed))
            }
        }
    }

    /// Spends a nonce that the client made itself. What it was spent on is remembered for longer than the
    /// request is good for, by the latest instant that the clock has shown; and whatever was spent before
    /// this process began has an `issued_at` before the floor.
    fn take_brought(&self, state: &mut State, claim: &Claim, now: Timestamp) -> Result<Spend, Error> {
        let Config { accept_client_nonces, client_nonce_window: window, .. } = self.config;
        if !accept_client_nonces || claim.nonce.was_issued() {
            return Err(Error::Refused(Refusal::NotFound));
        }
        let latest = state.latest_or(now);
        if let Some(refusal) = brought::refusal(&claim.use_, now, latest, window, self.floor) {
            return Err(Error::Refused(refusal));
        }
        state.forget_expired(now, 2);
        if state.entries.len() >= self.config.capacity {
            return Err(Error::Full(Bound::Store));
        }
        Ok(Spend::Fresh(state.remember_brought(claim, window)))
    }

    /// Moves a nonce on from `InProgress` and wakes whoever waits for it.
    fn finish(&self, spent: &Spent, life: Life) {
        let mut state = self.state.lock();
        // An entry whose window ended meanwhile is gone, and with it every possible retry.
        if let Some(entry) = state.entries.get_mut(&spent.nonce)
            && let Life::InProgress { settled, .. } = std::mem::replace(&mut entry.life, life)
        {
            settled.notify_waiters();
        }
    }
}

impl Entry {
    /// The bindings of the order against the circumstances of the spend. Who asks comes first: to
    /// anyone else the nonce shows nothing of itself.
    fn check(&self, use_: &Use, now: Timestamp, skew: Duration) -> Result<(), Error> {
        if self.issuer != use_.issuer {
            return Err(match self.life {
                Life::Unspent => Error::Refused(Refusal::IssuerMismatch),
                Life::InProgress { .. } | Life::Reopened { .. } | Life::Settled { .. } => {
                    Error::Replayed { spent_by: self.issuer.clone() }
                }
            });
        }
        self.check_bindings(use_, now, skew).map_err(Error::Refused)
    }

    fn check_bindings(&self, use_: &Use, now: Timestamp, skew: Duration) -> Result<(), Refusal> {
        let skew = i64::try_from(skew.as_secs()).expect("checked: at most half a day");
        if now >= self.expires_at {
            return Err(Refusal::Expired);
        }
        if self.attestation_type != use_.attestation_type {
            return Err(Refusal::TypeMismatch);
        }
        if self.subject_address.as_ref().is_some_and(|subject| *subject != use_.subject_address) {
            return Err(Refusal::SubjectMismatch);
        }
        if use_.timestamp < self.issued_at.plus_seconds(-skew) || use_.timestamp > now.plus_seconds(skew) {
            // A retry that let `issued_at` default is later than the first try, never out of range.
            return Err(Refusal::InvalidTimestamp);
        }
        Ok(())
    }
}

impl State {
    fn remember_brought(&mut self, Claim { nonce, use_, .. }: &Claim, window: Duration) -> Spent {
        let content_digest = use_.content_digest;
        // Longer than the request is good for by what rounding and the lead of its clock may take away.
        let expires_at = use_.timestamp.plus(window + 2 * brought::AHEAD);
        let entry = Entry {
            issuer: use_.issuer.clone(),
            attestation_type: use_.attestation_type,
            subject_address: None,
            issued_at: use_.timestamp,
            expires_at,
            life: Life::InProgress { content_digest, settled: Arc::default() },
        };
        self.by_expiry.insert((expires_at.unix_seconds(), nonce.clone()));
        self.entries.insert(nonce.clone(), entry);
        Spent { nonce: nonce.clone(), content_digest, token: SpendToken::default(), charged: false }
    }

    /// The latest instant that the clock has shown: it may have been set back since.
    fn latest_or(&self, now: Timestamp) -> Timestamp {
        self.latest.map_or(now, |latest| latest.max(now))
    }

    /// Removes at most `limit` nonces whose window has ended; how many were unspent, and spent.
    fn forget_expired(&mut self, now: Timestamp, limit: usize) -> (u64, u64) {
        let (mut expired, mut used) = (0, 0);
        self.latest = Some(self.latest_or(now));
        while expired + used < limit as u64
            && let Some((expires, _)) = self.by_expiry.first()
            && *expires <= now.unix_seconds()
            && let Some((_, nonce)) = self.by_expiry.pop_first()
            && let Some(entry) = self.entries.remove(&nonce)
        {
            if matches!(entry.life, Life::Unspent) {
                self.holders.remove_one(&entry.issuer);
                expired += 1;
            } else {
                used += 1;
            }
        }
        self.expired_total += expired;
        (expired, used)
    }

    fn stats(&self, config: &Config, issuers: usize) -> Stats {
        let outstanding = self.holders.total();
        Stats {
            outstanding,
            spent: self.entries.len() as u64 - outstanding,
            expired_total: self.expired_total,
            capacity: config.capacity as u64,
            outstanding_per_issuer: config.outstanding_per_issuer as u64,
            issuers: self.holders.issuers(),
            per_issuer: self.holders.largest(issuers),
            last_cleanup: self.last_cleanup,
            server: None,
        }
    }
}

#[async_trait]
impl Store for MemoryStore {
    async fn issue(&self, order: &Order, count: usize, now: Timestamp) -> Result<Vec<Issued>, Error> {
        let nonces = (0..count).map(|_| random_nonce()).collect::<Result<Vec<_>, _>>()?;
        let now = now.truncated_to_seconds();
        let window = i64::try_from(order.window.as_secs()).expect("checked: at most a day");
        let expires_at = now.plus_seconds(window);
        let mut state = self.state.lock();
        // Two for one: the store shrinks whenever more has expired than is issued.
        state.forget_expired(now, 2 * count);
        if state.holders.held(&order.issuer) + count as u64 > self.config.outstanding_per_issuer as u64 {
            return Err(Error::Full(Bound::Issuer));
        }
        if state.entries.len() + count > self.config.capacity {
            return Err(Error::Full(Bound::Store));
        }
        state.holders.add(&order.issuer, count as u64);
        for nonce in &nonces {
            state.by_expiry.insert((expires_at.unix_seconds(), nonce.clone()));
            state.entries.insert(
                nonce.clone(),
                Entry {
                    issuer: order.issuer.clone(),
                    attestation_type: order.attestation_type,
                    subject_address: order.subject_address.clone(),
                    issued_at: now,
                    expires_at,
                    life: Life::Unspent,
                },
            );
        }
        Ok(nonces.into_iter().map(|nonce| Issued { nonce, issued_at: now, expires_at }).collect())
    }

    async fn spend(&self, claim: Claim, patience: Duration, now: Timestamp) -> Result<Spend, Error> {
        let deadline = tokio::time::Instant::now() + patience;
        loop {
            match self.step(&claim, now)? {
                Step::Done(spend) => return Ok(spend),
                Step::Wait(settled) => {
                    let mut woken = std::pin::pin!(settled.notified());
                    // Registered before the second look, so that a settle in between is not missed.
                    woken.as_mut().enable();
                    if let Step::Done(spend) = self.step(&claim, now)? {
                        return Ok(spend);
                    }
                    tokio::time::timeout_at(deadline, woken).await.map_err(|_| Error::InProgress)?;
                }
            }
        }
    }

    async fn settle(&self, spent: Spent, answer: &Answer) -> Result<(), Error> {
        let content_digest = spent.content_digest;
        self.finish(&spent, Life::Settled { content_digest, answer: Box::new(answer.clone()) });
        Ok(())
    }

    async fn reopen(&self, spent: Spent) -> Result<(), Error> {
        let content_digest = spent.content_digest;
        self.finish(&spent, Life::Reopened { content_digest, charged: spent.charged });
        Ok(())
    }

    async fn cleanup(&self, now: Timestamp) -> Result<Removed, Error> {
        // A few milliseconds in which nobody else gets at the nonces.
        const BATCH: usize = 1_000;
        let mut removed = Removed::default();
        loop {
            let (expired, used) = {
                let mut state = self.state.lock();
                state.last_cleanup = Some(now);
                state.forget_expired(now, BATCH)
            };
            removed.add_batch(expired, used);
            if expired + used < BATCH as u64 {
                return Ok(removed);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn stats(&self) -> Result<Stats, Error> {
        Ok(self.state.lock().stats(&self.config, MOST_ISSUERS))
    }

    async fn ping(&self) -> Result<Stats, Error> {
        Ok(self.state.lock().stats(&self.config, 1))
    }

    fn describe(&self) -> String {
        "in-process".into()
    }
}

#[cfg(test)]
mod tests {
    use super::super::contract;
    use super::*;

    contract::suite!(async |config| (MemoryStore::new(config, contract::now().plus_seconds(-600)), ()));

    /// A store begun at `now`.
    fn accepting() -> MemoryStore {
        MemoryStore::new(Config { accept_client_nonces: true, capacity: 10, ..contract::config() }, contract::now())
    }

    fn after(seconds: i64) -> Timestamp {
        contract::now().plus_seconds(seconds)
    }

    async fn bring(store: &MemoryStore, nonce: u8, made: i64, now: i64) -> Result<Spend, Error> {
        // `issued_at` is part of the content.
        let content_digest = [made.to_le_bytes()[0]; 32];
        let use_ = Use { timestamp: after(made), timestamp_stated: true, content_digest, ..contract::use_() };
        let nonce = NonceValue::from_bytes(&[nonce; 16]).unwrap();
        store.spend(Claim::new(&contract::Permit, nonce, use_), Duration::ZERO, after(now)).await
    }

    fn is_refused(result: &Result<Spend, Error>, expected: Refusal) -> bool {
        matches!(result, Err(Error::Refused(refusal)) if *refusal == expected)
    }

    #[tokio::test]
    async fn a_nonce_that_a_client_brings_is_spent_once_while_its_request_is_good() {
        let store = accepting();
        let Ok(Spend::Fresh(spent)) = bring(&store, 1, 10, 10).await else { panic!("not accepted") };
        store.settle(spent, &contract::answer()).await.unwrap();
        for now in [11, 60, 130] {
            store.cleanup(after(now)).await.unwrap();
            assert!(matches!(bring(&store, 1, 10, now).await, Ok(Spend::Repeated(_))), "{now}");
            assert!(is_refused(&bring(&store, 1, now, now).await, Refusal::AlreadyUsed), "{now}");
        }
        // Forgotten, and too old.
        store.cleanup(after(140)).await.unwrap();
        assert_eq!(store.stats().await.unwrap().size(), 0);
        assert!(is_refused(&bring(&store, 1, 10, 140).await, Refusal::Expired));
        // A clock that was set back does not make it young again.
        assert!(is_refused(&bring(&store, 1, 10, 20).await, Refusal::Expired));
        assert!(matches!(bring(&store, 2, 139, 140).await, Ok(Spend::Fresh(_))));
    }

    #[tokio::test]
    async fn what_was_made_before_the_process_began_may_have_been_accepted_before() {
        let store = accepting();
        for made in [-100, 0, 1] {
            assert!(is_refused(&bring(&store, 1, made, 1).await, Refusal::StoreFailover), "{made}");
        }
        assert!(matches!(bring(&store, 1, 2, 1).await, Ok(Spend::Fresh(_))));
    }

    #[tokio::test]
    async fn brought_nonces_count_against_the_capacity() {
        let store = accepting();
        for nonce in 1..=10 {
            assert!(matches!(bring(&store, nonce, 5, 5).await, Ok(Spend::Fresh(_))));
        }
        assert!(matches!(bring(&store, 11, 5, 5).await, Err(Error::Full(Bound::Store))));
        assert!(matches!(bring(&store, 11, 130, 130).await, Ok(Spend::Fresh(_))));
        assert_eq!(store.stats().await.unwrap().spent, 9);
    }

    #[tokio::test]
    async fn without_the_option_and_in_the_form_of_issued_ones_they_are_unknown() {
        let strict = MemoryStore::new(contract::config(), contract::now());
        assert!(is_refused(&bring(&strict, 1, 5, 5).await, Refusal::NotFound));
        let use_ = Use { timestamp: after(5), timestamp_stated: true, ..contract::use_() };
        let claim = Claim::new(&contract::Permit, random_nonce().unwrap(), use_);
        assert!(is_refused(&accepting().spend(claim, Duration::ZERO, after(5)).await, Refusal::NotFound));
    }
}
