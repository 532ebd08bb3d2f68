//! Nonces that clients bring, in Redis: spent once, although Redis may lose what it acknowledged.
//!
//! For a nonce that was issued here, `history.lua` makes that certain at no cost. A brought nonce has no
//! history, so this costs replicas and, after a failover, some seconds of refusals. One task with a
//! connection of its own does all of it ([`line::Line`]); claims that come while others are under way
//! go together.
//!
//! # What counts as accepted
//!
//! A claim counts when (a) `claim.lua` found the nonce unused on a server of the **incarnation** that
//! this appliance knows, (b) so many replicas have acknowledged it that a majority of the `redis_nodes`
//! has it (WAIT), (c) the incarnation was still the same after that, and (d) its `issued_at` lies after
//! our **floor**. When any of it fails, when a look every [`LOOK_EVERY`] finds no majority, or when the
//! clocks differ, claiming is closed. It opens again with a **barrier**: a write that a majority
//! has acknowledged within one incarnation, after which the floor is set to now + [`MARGIN`].
//!
//! The incarnation (`incarnation.lua`) changes with every restart, promotion and clearing, with
//! eviction, and *whenever a replica comes to the server*, be it one that left a moment ago.
//!
//! # Why no request is accepted twice
//!
//! Let *c* be accepted by an appliance A on server P, and the same request *c′* by A′ on P′ (A and A′, or
//! P and P′, may be the same). Call M the majority that acknowledged *c*, with P; M′ that of *c′*, with P′. Two
//! majorities share a server x.
//!
//! 1. *One server and one history.* All scripts ran one after the other on one memory. If the index was
//!    deleted or the nonce evicted between *c* and *c′*, the later one was made under an incarnation that began
//!    after *c*: its barrier came after *c* was sent, and its floor is later than `issued_at`. Else `claim.lua`
//!    saw the earlier one.
//! 2. *Else.* From A′'s barrier until *c′* was acknowledged no replica came to P′: so those that
//!    acknowledged followed P′ all that time, without a moment elsewhere (a replica follows one master at
//!    a time, over one connection). The same holds for M and P from A's barrier until *c* was acknowledged. P and P′
//!    themselves were masters all that time. So x cannot have been part of both at once: one of the two spans
//!    began after the other had ended. Say A's barrier came after *c′* was acknowledged. Then *c′* was sent before
//!    that barrier, its `issued_at` was at most [`AHEAD`] after it was sent, and A's floor is later than that
//!    by more than the clocks differ: *c* was refused.
//!
//! # What it rests on
//!
//! - `redis_nodes` is the number of servers that hold the data. More replicas than that close claiming.
//! - MARGIN = AHEAD + how far the clocks of two appliances may differ: each is less than
//!   [`CLOCKS_APART`] + [`ROUND`] from its server (measured with every claim), and the servers' clocks
//!   are within [`SERVERS_APART`] of each other (their operator's to see to).
//! - Not seen: a server's memory brought back to life (a virtual machine reverted), records or index
//!   entries written by hand, and counters reset by hand (CONFIG RESETSTAT) so that they come to the same
//!   numbers again between two looks.
//!
//! A claim that fails may leave a nonce that is used up; its client makes a new one.

mod line;

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::{mpsc, oneshot};

use self::line::Line;
use super::{
    Charge,
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
const CLOCKS_APART: Duration = Duration::from_secs(1);
const ROUND: Duration = Duration::from_millis(500);
const SERVERS_APART: Duration = Duration::from_secs(1);
const MARGIN: Duration =
    AHEAD.saturating_add(CLOCKS_APART.saturating_add(ROUND).saturating_mul(2)).saturating_add(SERVERS_APART);

/// How often a majority is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(300);

/// Claims that share a round trip, at most.
const TOGETHER: usize = 64;

/// A claim of a brought nonce.
#[derive(Debug)]
pub(super) struct Claim {
    pub use_: Use,
    pub hex: String,
    pub token: String,
    pub charges: Vec<Charge>,
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
