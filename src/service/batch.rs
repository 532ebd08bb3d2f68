//! Many attestations in one request. Each is permitted, spent, recorded and answered by itself: what is
//! wrong with one is nothing to the others.

use std::{collections::HashSet, sync::Arc};

use futures_util::future::join_all;
use tokio::task::JoinSet;

use crate::{
    attestation::{AttestationRequest, InvalidField, Issuer},
    audit::Event,
    client::Client,
    key::KeyEntry,
    nonce::{Spend, Spent},
    quota::Charge,
    service::{
        Error, Service,
        attest::{Asked, SignedAttestation, SigningOrder, used_event},
        merkle::{Form, Outcome},
        policy::{AttestationPermit, permit_key},
    },
    timestamp::Timestamp,
    token,
};

/// Most attestations in one request.
pub const MAX_BATCH: usize = 1000;

/// Individual signatures of one batch that are asked for at once: others want their turn as well.
const AT_ONCE: usize = 16;

type Answered = Result<SignedAttestation, Error>;

/// One that is permitted, and what its nonce costs.
struct Member {
    permit: AttestationPermit,
    charges: Vec<Charge>,
    used: Event,
}

/// What all of a batch have in common.
struct Common<'a> {
    client: &'a Client,
    key: Arc<KeyEntry>,
    issuer: Issuer,
    now: Timestamp,
}

impl Service {
    /// Signs them, in the order of the requests. As [`Service::attest`] it is to be spawned, not dropped.
    pub async fn attest_batch(
        self: Arc<Self>,
        client: Client,
        requests: Vec<AttestationRequest>,
        form: Form,
    ) -> Vec<Answered> {
        let mut nonces = HashSet::with_capacity(requests.len());
        let asked: Vec<_> = requests.iter().map(Asked::new).collect();
        // The first of two could not be answered before the second has been.
        let once = |request: AttestationRequest| {
            let twice = InvalidField { field: "nonce", detail: "stands twice in this batch" };
            if nonces.insert(request.nonce.clone()) { Ok(request) } else { Err(twice.into()) }
        };
        let requests = requests.into_iter().map(once).collect();
        match form {
            Form::Individual => self.one_by_one(client, &asked, requests).await,
            Form::Merkle => {
                let results = self.together(&client, requests).await;
                self.conclude_all(&client, &asked, results).await
            }
        }
    }

    async fn one_by_one(
        self: Arc<Self>,
        client: Client,
        asked: &[Asked],
        requests: Vec<Result<AttestationRequest, Error>>,
    ) -> Vec<Answered> {
        let mut answered: Vec<_> = requests.iter().map(|_| Err(Error::Internal("a task was lost"))).collect();
        let mut running = JoinSet::new();
        let mut keep = |done: Result<(usize, Answered), tokio::task::JoinError>| {
            if let Ok((at, answer)) = done {
                answered[at] = answer;
            }
        };
        for (at, request) in requests.into_iter().enumerate() {
            match request {
                Ok(request) => {
                    let attest = Arc::clone(&self).attest(client.clone(), request, Form::Individual);
                    running.spawn(async move { (at, attest.await) });
                }
                Err(error) => keep(Ok((at, self.conclude(&client, &asked[at], Err(error)).await))),
            }
            if running.len() >= AT_ONCE {
                running.join_next().await.into_iter().for_each(&mut keep);
            }
        }
        while let Some(done) = running.join_next().await {
            keep(done);
        }
        answered
    }

    async fn conclude_all(&self, client: &Client, asked: &[Asked], results: Vec<Answered>) -> Vec<Answered> {
        let mut results = results;
        let (mut concluding, mut places) = (Vec::new(), Vec::new());
        for (at, (asked, result)) in std::iter::zip(asked, &mut results).enumerate() {
            match result {
                Ok(_) => self.count(asked, "success"),
                Err(Error::Blocked { .. }) => {}
                Err(_) => {
                    let failed = std::mem::replace(result, Err(Error::Internal("an answer was lost")));
                    concluding.push(self.conclude(client, asked, failed));
                    places.push(at);
                }
            }
        }
        // Together: refusals go on record, and many of them share a sync.
        for (at, concluded) in places.into_iter().zip(join_all(concluding).await) {
            results[at] = concluded;
        }
        results
    }

    /// Permitted → fresh → one signature → recorded → released, each step for all of them at once.
    async fn together(
        self: &Arc<Self>,
        client: &Client,
        requests: Vec<Result<AttestationRequest, Error>>,
    ) -> Vec<Answered> {
        let count = requests.len();
        let common = match self.common(client).await {
            Ok(common) => common,
            Err(error) => return all(count, &Arc::new(error)),
        };
        let mut answered: Vec<Option<Answered>> = (0..count).map(|_| None).collect();
        let (mut places, mut members) = (Vec::with_capacity(count), Vec::with_capacity(count));
        for (at, request) in requests.into_iter().enumerate() {
            match request.and_then(|request| self.member(&common, request)) {
                Ok(member) => {
                    places.push(at);
                    members.push(member);
                }
                Err(error) => answered[at] = Some(Err(error)),
            }
        }
        for (at, answer) in places.into_iter().zip(self.sign_members(&common, members).await) {
            answered[at] = Some(answer);
        }
        answered.into_iter().map(|answer| answer.unwrap_or(Err(Error::Internal("an answer was lost")))).collect()
    }

    async fn common<'a>(&self, client: &'a Client) -> Result<Common<'a>, Error> {
        let now = self.clock.now();
        self.audit.trouble()?;
        self.keyring.freshen().await?;
        let key = self.signing_key()?;
        permit_key(client, &key.id, true)?;
        Ok(Common { client, issuer: self.signer.issuer(&key), key, now })
    }

    fn member(&self, common: &Common<'_>, request: AttestationRequest) -> Result<Member, Error> {
        self.admit_subject(request.subject.account_address.as_str())?;
        let used = used_event(common.client, &request, common.now);
        let permit = self.policy.permit_attestation(common.client.clone(), request, common.now)?;
        let (kind, subject) = permit.about();
        let charges = self.limits.of_attestation(common.client, kind, subject);
        Ok(Member { permit, charges, used })
    }

    async fn sign_members(self: &Arc<Self>, common: &Common<'_>, members: Vec<Member>) -> Vec<Answered> {
        let count = members.len();
        let mut answered: Vec<Option<Answered>> = (0..count).map(|_| None).collect();
        let (mut places, mut orders, mut used) = (Vec::new(), Vec::new(), Vec::new());
        for (at, fresh) in self.spend_all(common, members).await.into_iter().enumerate() {
            match fresh {
                Ok(Fresh::Order(both)) => {
                    let (order, event) = *both;
                    places.push(at);
                    orders.push(order);
                    used.push(event);
                }
                Ok(Fresh::Repeated(signed)) => answered[at] = Some(Ok(*signed)),
                Err(error) => answered[at] = Some(Err(error)),
            }
        }
        // Not waited for: they are on disk before the records of the signature.
        let signed = match self.audit.note_all(&used) {
            Ok(()) => self.sign_orders(orders).await,
            Err(error) => {
                let spent = orders.into_iter().map(SigningOrder::into_spent).collect();
                self.reopen_all(spent).await;
                all(places.len(), &Arc::new(error.into()))
            }
        };
        for (at, answer) in places.into_iter().zip(signed) {
            answered[at] = Some(answer);
        }
        answered.into_iter().map(|answer| answer.unwrap_or(Err(Error::Internal("an answer was lost")))).collect()
    }

    /// Spends all nonces in one round trip.
    async fn spend_all(&self, common: &Common<'_>, members: Vec<Member>) -> Vec<Result<Fresh, Error>> {
        let begun = std::time::Instant::now();
        let claims = members.iter().map(|member| member.permit.claim().charged(member.charges.clone())).collect();
        let spends = self.nonces.spend_all(claims, common.now).await;
        self.metrics.nonce_validate_latency.observe(begun.elapsed().as_secs_f64());
        let mut fresh = Vec::with_capacity(members.len());
        for (Member { permit, charges, used }, spend) in members.into_iter().zip(spends) {
            fresh.push(match spend {
                Ok(Spend::Fresh(spent)) => self.charged(spent, &charges).await.map(|spent| {
                    let order = SigningOrder::new(permit, spent, common.issuer.clone(), &common.key);
                    Fresh::Order(Box::new((order, used)))
                }),
                Ok(Spend::Repeated(answer)) => match self.keyring.freshen().await {
                    Ok(()) => self.repeat(permit, &answer).await.map(|signed| Fresh::Repeated(Box::new(signed))),
                    Err(error) => Err(error),
                },
                Err(error) => Err(error.into()),
            });
        }
        fresh
    }

    /// One signature for them, or as many as `merkle.max_batch` wants.
    async fn sign_orders(self: &Arc<Self>, orders: Vec<SigningOrder>) -> Vec<Answered> {
        let tickets = match self.gathering.join(self, orders) {
            Ok(tickets) => tickets,
            Err(orders) => {
                let count = orders.len();
                self.reopen_all(orders.into_iter().map(SigningOrder::into_spent).collect()).await;
                return all(count, &Arc::new(token::Error::Busy.into()));
            }
        };
        let (mut results, mut failed) = (Vec::with_capacity(tickets.len()), Vec::new());
        for ticket in tickets {
            results.push(match self.outcome_of(ticket).await {
                Outcome::Signed(concluded) => Ok(concluded),
                Outcome::Failed(order, error) => {
                    failed.extend(order.map(|order| order.into_spent()));
                    Err(error)
                }
            });
        }
        self.reopen_all(failed).await;
        results.into_iter().map(|result| result.and_then(|concluded| self.hand_over(*concluded))).collect()
    }

    async fn reopen_all(&self, spent: Vec<Spent>) {
        for error in self.nonces.reopen_all(spent).await.into_iter().filter_map(Result::err) {
            tracing::warn!(%error, "a nonce stays spent after a failed signing");
        }
    }
}

/// How far a member has come once its nonce was looked at.
enum Fresh {
    Order(Box<(SigningOrder, Event)>),
    Repeated(Box<SignedAttestation>),
}

/// The same for all of them.
fn all(count: usize, error: &Arc<Error>) -> Vec<Answered> {
    (0..count).map(|_| Err(Error::Shared(Arc::clone(error)))).collect()
}
