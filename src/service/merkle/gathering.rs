//! Where requests gather that share a signature.
//!
//! As many batches are being signed as the token has sessions. A request that finds one free begins a batch
//! at once, so that a quiet system adds no delay; the others wait, and when a session comes free all of
//! them are the next batch. So batches grow with the load and with the slowness of the token, by
//! themselves.
//!
//! A signature that takes longer than `max_batch_wait` may be one that hangs: then whoever waits for its
//! session goes to the token's own queue, where another worker may have taken its place. That is done
//! for as many batches as there are sessions, so that a token that is only slow gets no queue of small ones.

use std::{
    collections::VecDeque,
    io,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use tokio::{runtime::Runtime, sync::oneshot};

use super::Config;
use crate::{
    evidence::Warrant,
    key::KeyEntry,
    merkle::{Hash, leaf_hash},
    service::{
        Error, Service, SignerConfig,
        attest::{Concluded, SigningOrder},
    },
    token,
};

/// Full batches that may wait; more requests are turned away.
const WAITING: usize = 4;

/// What became of an order that shared a signature.
pub(in crate::service) enum Outcome {
    /// It is on record, and kept for retries.
    Signed(Box<Concluded>),
    /// The order is to be reopened. Only a failure of the program itself loses it.
    Failed(Option<Box<SigningOrder>>, Error),
}

impl Outcome {
    fn lost() -> Self {
        Self::Failed(None, Error::Internal("a batch ended without a word"))
    }
}

/// The requests that wait for a signature to share.
pub struct Gathering {
    config: Config,
    /// How many the token can sign at once.
    sessions: usize,
    /// Longest wait for a signature to begin.
    deadline: Duration,
    threads: Threads,
    state: Mutex<State>,
}

/// Where batches are signed: beside requests the token would wait for them, and in one thread for each other.
struct Threads(Option<Runtime>);

impl Threads {
    fn start() -> io::Result<Self> {
        let mut threads = tokio::runtime::Builder::new_multi_thread();
        let cores = thread::available_parallelism().map_or(2, usize::from);
        threads.worker_threads(cores).thread_name("batch").enable_all().build().map(|runtime| Self(Some(runtime)))
    }

    fn sign(&self, batch: impl Future<Output = ()> + Send + 'static) {
        if let Some(runtime) = &self.0 {
            runtime.spawn(batch);
        }
    }
}

impl Drop for Threads {
    /// Without waiting, for this may be one of them.
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Waiting>,
    /// Batches with which the token is busy.
    running: usize,
    joined: u64,
}

/// One who waits.
pub(super) struct Waiting {
    number: u64,
    since: Instant,
    pub order: Box<SigningOrder>,
    /// Hashed by whoever joins: the token waits for the one who makes the tree.
    pub leaf: Hash,
    pub answer: oneshot::Sender<Outcome>,
}

impl Waiting {
    /// The same order, issued by this key.
    pub fn issue(&mut self, signer: &SignerConfig, key: &Arc<KeyEntry>) {
        if self.order.issue(signer, key) {
            self.leaf = leaf_hash(self.order.message());
        }
    }
}

/// What one who waits holds.
pub(in crate::service) struct Ticket {
    number: u64,
    since: Instant,
    answer: oneshot::Receiver<Outcome>,
}

/// A session of the token, taken for a batch. When it is given back the next batch begins.
pub(super) struct Slot(Arc<Service>);

impl Drop for Slot {
    fn drop(&mut self) {
        let gathering = &self.0.gathering;
        let batches = {
            let mut state = gathering.state.lock();
            state.running -= 1;
            gathering.what_can_begin(&mut state)
        };
        begin(&self.0, batches);
    }
}

impl Gathering {
    /// Nobody waits yet.
    pub fn new(config: Config, token: &token::Config) -> io::Result<Self> {
        Ok(Self {
            config,
            sessions: token.workers.max(1),
            deadline: token.call_deadline,
            threads: Threads::start()?,
            state: Mutex::default(),
        })
    }

    /// Takes part in the next signature; all of them or, when too many wait, none.
    pub(in crate::service) fn join(
        &self,
        service: &Arc<Service>,
        orders: Vec<SigningOrder>,
    ) -> Result<Vec<Ticket>, Vec<SigningOrder>> {
        let orders: Vec<_> = orders.into_iter().map(|order| (leaf_hash(order.message()), order)).collect();
        let mut state = self.state.lock();
        // What a caller may send as one is taken when nobody waits, whatever the size of batches.
        let is_full = state.waiting.len() + orders.len() > WAITING * self.config.max_batch;
        if is_full && !state.waiting.is_empty() {
            return Err(orders.into_iter().map(|(_, order)| order).collect());
        }
        let since = Instant::now();
        let tickets = orders.into_iter().map(|(leaf, order)| {
            let (answer, answered) = oneshot::channel();
            let number = state.joined;
            state.joined += 1;
            state.waiting.push_back(Waiting { number, since, order: Box::new(order), leaf, answer });
            Ticket { number, since, answer: answered }
        });
        let tickets = tickets.collect();
        let batches = self.what_can_begin(&mut state);
        drop(state);
        begin(service, batches);
        Ok(tickets)
    }

    fn what_can_begin(&self, state: &mut State) -> Vec<Vec<Waiting>> {
        let mut batches = Vec::new();
        while state.running < self.sessions && !state.waiting.is_empty() {
            batches.push(self.next(state));
        }
        batches
    }

    fn next(&self, state: &mut State) -> Vec<Waiting> {
        state.running += 1;
        let size = state.waiting.len().min(self.config.max_batch);
        state.waiting.drain(..size).collect()
    }

    /// Somebody has waited for long enough: a batch for the token's own queue.
    fn hurry(&self, service: &Arc<Service>) {
        let mut state = self.state.lock();
        let is_overdue = |first: &Waiting| first.since.elapsed() >= self.config.max_batch_wait;
        if state.running < 2 * self.sessions && state.waiting.front().is_some_and(is_overdue) {
            let batch = self.next(&mut state);
            drop(state);
            begin(service, vec![batch]);
        }
    }

    /// Takes back an order that is still waiting.
    fn withdraw(&self, number: u64) -> Option<Box<SigningOrder>> {
        let mut state = self.state.lock();
        let at = state.waiting.binary_search_by_key(&number, |waiting| waiting.number).ok()?;
        state.waiting.remove(at).map(|waiting| waiting.order)
    }
}

/// Not under the lock: at the end of the process a batch may be dropped at once, and with it its slot.
fn begin(service: &Arc<Service>, batches: Vec<Vec<Waiting>>) {
    for batch in batches {
        let slot = Slot(Arc::clone(service));
        service.gathering.threads.sign(Arc::clone(service).sign_together(batch, slot));
    }
}

impl Service {
    /// What becomes of an order that waits.
    pub(in crate::service) async fn outcome_of(self: &Arc<Self>, ticket: Ticket) -> Outcome {
        let (gathering, Ticket { number, since, mut answer }) = (&self.gathering, ticket);
        for (wait, is_last) in [(gathering.config.max_batch_wait, false), (gathering.deadline, true)] {
            let until = tokio::time::Instant::from_std(since + wait);
            if let Ok(answered) = tokio::time::timeout_at(until, &mut answer).await {
                return answered.unwrap_or_else(|_| Outcome::lost());
            }
            if !is_last {
                gathering.hurry(self);
            } else if let Some(order) = gathering.withdraw(number) {
                return Outcome::Failed(Some(order), token::Error::Deadline(gathering.deadline).into());
            }
        }
        // It is being signed, and that has a deadline of its own.
        answer.await.unwrap_or_else(|_| Outcome::lost())
    }
}
