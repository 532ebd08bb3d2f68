//! Nonces that clients bring, in Redis: spent once, although Redis may lose what it acknowledged.
//!
//! For a nonce that was issued here, `history.lua` makes that certain at no cost. A brought nonce has no
//! history, so this costs replicas and, after a failover, some seconds of refusals. One task with a
//! connection of its own does all of it ([`line::Line`]); claims that come while others are under way
//! go together.
//!
//! # What counts as accepted
//!
//! A claim counts when (a) `claim.lua` found the nonce unused on a server of the incarnation that this
//! appliance knows, (b) so many replicas have acknowledged it that a majority of the `redis_nodes` has
//! it (WAIT), (c) its `issued_at` lies after our **floor**, and (d) a majority has followed the server
//! without a gap of more than [`GAP`] as far as we could see. Whenever the incarnation changes, a
//! majority does not follow, or the clocks differ, claiming is closed; it opens again after a
//! **barrier**: a write that a majority has acknowledged, after which the floor is set to now +
//! [`MARGIN`].
//!
//! # Why no request is accepted twice
//!
//! Let claim *c* be accepted on server P, at the moment t when the last replica of its majority
//! acknowledged it; its `issued_at` is at most t + [`AHEAD`] by the clock of that appliance. Let the
//! same request come to an appliance A′, on server P′.
//!
//! 1. *The same incarnation.* One process, a master all the time, whose index of brought nonces was
//!    never deleted or evicted since *c* (the canary goes with it, and `evicted_keys` is part of the
//!    incarnation), and was trimmed only by a clock that agreed with the caller's. So `claim.lua` sees *c*, or
//!    *c* is older than the window.
//! 2. *Another incarnation, whose barrier by A′ was acknowledged after t.* Its floor is later than
//!    `issued_at` ≤ t + AHEAD, by more than the clocks differ: refused.
//! 3. *Another incarnation, whose barrier by A′ was acknowledged at b, before t.* Two majorities share
//!    a server x. It is not P′ itself: as a replica of P it would have had *c* before it was promoted, hence
//!    before b. So x followed P′ at b and P at t. Whichever way it moved, one of the two masters was without a
//!    majority meanwhile, and the appliance there:
//!    - A on P has seen its majority in the last [`GAP`] before t and did not look between: then t ≤ b + GAP,
//!      and `issued_at` ≤ b + GAP + AHEAD is before the floor of A′;
//!    - or A has made a barrier on P after b, and took *c* only with `issued_at` after *that* floor, so t is later
//!      than that barrier by MARGIN − AHEAD at least, and x was away from P′ for that long: longer
//!      than GAP, so A′ has noticed, closed, and makes a new barrier once x (or another) is back, which is
//!      after t: case 2.
//! 4. *FLUSHALL, DEL of any keys, a restart without data, an evicting policy:* another incarnation, or
//!    the index still knows the nonce.
//!
//! # What it rests on
//!
//! - `redis_nodes` is the number of servers that hold the data. More replicas than that close claiming.
//! - MARGIN = GAP + AHEAD + how far the clocks of two appliances may differ: each is less than
//!   [`CLOCKS_APART`] + [`ROUND`] from its server (measured in every claim), and the servers' clocks
//!   are within a second of each other (their operator's to see to).
//! - Not seen: a server's memory brought back to life (a virtual machine reverted), and records or index
//!   entries written by hand.
//!
//! A failed claim leaves a nonce that is used up; its client makes a new one.

mod line;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use self::line::Line;
use super::{
    keys::Keys,
    script::{self, SpendReply},
};
use crate::{
    clock::Clock,
    nonce::{self, Use},
    redis::{Failure, Pool},
};

/// See above. These are not configuration: the argument needs them as they are.
const AHEAD: Duration = super::super::brought::AHEAD;
const GAP: Duration = Duration::from_secs(1);
const CLOCKS_APART: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_millis(500);
const SERVERS_APART: Duration = Duration::from_secs(1);
const MARGIN: Duration = GAP
    .saturating_add(AHEAD)
    .saturating_add(CLOCKS_APART.saturating_add(ROUND).saturating_mul(2))
    .saturating_add(SERVERS_APART);

/// How often a majority is looked for when nothing is claimed; well within [`GAP`].
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Claims that share a round trip, at most.
const TOGETHER: usize = 64;

/// A claim of a brought nonce.
#[derive(Debug)]
pub(super) struct Claim {
    pub use_: Use,
    pub hex: String,
    pub token: String,
}

/// Why nothing can be claimed now.
#[derive(Clone, Debug, thiserror::Error)]
#[error("nonces brought by clients are refused for now: {0}")]
pub(super) struct Closed(pub String);

type Decision = Result<SpendReply, Closed>;

/// Where claims are made.
pub(super) struct Desk {
    claims: mpsc::Sender<(Claim, oneshot::Sender<Decision>)>,
    closed: Arc<Mutex<Option<Closed>>>,
}

/// What all claims have in common.
pub(super) struct Terms {
    pub limits: nonce::Config,
    pub keys: Keys,
    pub clock: Clock,
    pub pool: Arc<Pool>,
}

impl Terms {
    /// Replicas that make a majority together with their master.
    fn replicas_needed(&self) -> usize {
        self.limits.redis_nodes / 2
    }

    fn round(&self) -> Duration {
        ROUND.min(self.pool.command_timeout())
    }
}

impl Desk {
    /// Opens once, so that a Redis on which it can never open is known at the start. A replica that has
    /// just come confirms nothing for a second, so it takes a few tries.
    pub async fn open(terms: Terms) -> Result<Self, Closed> {
        const TRIES: u32 = 10;
        let mut line = Line::open(&terms).await;
        for _ in 1..TRIES {
            if line.is_ok() {
                break;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            line = Line::open(&terms).await;
        }
        let line = line?;
        let (claims, orders) = mpsc::channel(1024);
        let closed = Arc::new(Mutex::new(None));
        let clerk = Clerk { terms, orders, line: Ok(line), closed: Arc::clone(&closed) };
        tokio::spawn(clerk.work());
        Ok(Self { claims, closed })
    }

    pub async fn claim(&self, claim: Claim) -> Decision {
        let gone = || Closed("the task that claims them has ended".into());
        let (answer, answered) = oneshot::channel();
        self.claims.send((claim, answer)).await.map_err(|_| gone())?;
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// Why nothing can be claimed now, if so.
    pub fn closed(&self) -> Option<String> {
        self.closed.lock().as_ref().map(|Closed(why)| why.clone())
    }
}

/// The one task.
struct Clerk {
    terms: Terms,
    orders: mpsc::Receiver<(Claim, oneshot::Sender<Decision>)>,
    line: Result<Line, Closed>,
    closed: Arc<Mutex<Option<Closed>>>,
}

impl Clerk {
    /// Until nobody can claim any more.
    async fn work(mut self) {
        let mut look = tokio::time::interval(LOOK_EVERY);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut together = Vec::with_capacity(TOGETHER);
        loop {
            tokio::select! {
                received = self.orders.recv_many(&mut together, TOGETHER) => {
                    if received == 0 {
                        return;
                    }
                    self.serve(std::mem::take(&mut together)).await;
                }
                _ = look.tick() => self.look().await,
            }
            self.tell();
        }
    }

    async fn serve(&mut self, orders: Vec<(Claim, oneshot::Sender<Decision>)>) {
        let (claims, answers): (Vec<_>, Vec<_>) = orders.into_iter().unzip();
        let decisions = match &mut self.line {
            Ok(line) => {
                let (decisions, closed) = line.claim(&self.terms, &claims).await;
                if let Some(closed) = closed {
                    self.line = Err(closed);
                }
                decisions
            }
            Err(closed) => claims.iter().map(|_| Err(closed.clone())).collect(),
        };
        for (answer, decision) in answers.into_iter().zip(decisions) {
            // Whoever has gone away has given up its token.
            let _ = answer.send(decision);
        }
    }

    /// Sees that a majority still follows, or tries to open.
    async fn look(&mut self) {
        match &mut self.line {
            Ok(line) => {
                if let Err(closed) = line.look(&self.terms).await {
                    self.line = Err(closed);
                }
            }
            Err(_) => self.line = Line::open(&self.terms).await,
        }
    }

    fn tell(&self) {
        let now = self.line.as_ref().err().cloned();
        let before = std::mem::replace(&mut *self.closed.lock(), now.clone());
        match (before, now) {
            (None, Some(closed)) => tracing::warn!("{closed}"),
            (Some(_), None) => tracing::info!(
                "nonces brought by clients are accepted again, with an issued_at from {} s on",
                MARGIN.as_secs()
            ),
            (None, None) | (Some(_), Some(_)) => {}
        }
    }
}

impl From<Failure> for Closed {
    fn from(failure: Failure) -> Self {
        Self(super::causes(&failure))
    }
}
