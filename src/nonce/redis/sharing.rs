//! Round trips that requests share. What is asked while calls are under way goes together in the next one;
//! where none is, it goes at once. So a quiet system adds no delay, and a busy one makes fewer, larger calls.
//!
//! Whoever asks keeps what is to be given up when no answer comes ([`super::unfinished`]): here nothing
//! is lost with a call but its answers.

use std::sync::Arc;

use deadpool_redis::redis::Value;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Error, Failure};
use crate::redis::{Call, Pool};

/// Members of one call. They take the server a millisecond or two, in which it does nothing else.
pub(super) const EACH: usize = 125;

/// Calls under way at once: fewer would have requests wait at half load already, more would share less at full load.
const AT_ONCE: usize = 4;

/// What came of one member of a call.
pub(super) type Came = Result<Value, Error>;

/// Makes one call of several members.
type Compose<M> = Box<dyn Fn(&[M]) -> Call + Send + Sync>;

/// Calls of one script for many.
pub(super) struct Sharing<M> {
    pool: Arc<Pool>,
    needs_fit: bool,
    compose: Compose<M>,
    state: Mutex<State<M>>,
}

struct State<M> {
    waiting: Vec<Group<M>>,
    under_way: usize,
}

/// What one asks for together; never more than [`EACH`].
struct Group<M> {
    members: Vec<M>,
    asker: oneshot::Sender<Vec<Came>>,
}

impl<M: Send + Sync + 'static> Sharing<M> {
    /// Calls that begin something: on a server that may keep nonces.
    pub fn beginning(pool: &Arc<Pool>, compose: impl Fn(&[M]) -> Call + Send + Sync + 'static) -> Arc<Self> {
        Self::new(pool, true, Box::new(compose))
    }

    /// Calls that end something: on any master.
    pub fn ending(pool: &Arc<Pool>, compose: impl Fn(&[M]) -> Call + Send + Sync + 'static) -> Arc<Self> {
        Self::new(pool, false, Box::new(compose))
    }

    fn new(pool: &Arc<Pool>, needs_fit: bool, compose: Compose<M>) -> Arc<Self> {
        let state = Mutex::new(State { waiting: Vec::new(), under_way: 0 });
        Arc::new(Self { pool: Arc::clone(pool), needs_fit, compose, state })
    }

    /// Asks for one.
    pub async fn ask(self: &Arc<Self>, member: M) -> Came {
        self.ask_all(vec![member]).await.pop().unwrap_or_else(|| Err(missing().into()))
    }

    /// Asks for several, at most [`EACH`]; an answer for each, in order.
    pub async fn ask_all(self: &Arc<Self>, members: Vec<M>) -> Vec<Came> {
        let count = members.len();
        let (asker, answers) = oneshot::channel();
        if let Some(turn) = self.put(Group { members, asker }) {
            tokio::spawn(turn.take());
        }
        // Not longer than a call by itself could take, however slow the ones before it are.
        let most = self.pool.most();
        let failure = match tokio::time::timeout(most, answers).await {
            Ok(Ok(came)) => return came,
            Ok(Err(_)) => missing(),
            Err(_) => Failure::Timeout(most),
        };
        each(count, Err(failure))
    }

    /// Puts it where the next call finds it; the turn to make one, if there may be another.
    fn put(self: &Arc<Self>, group: Group<M>) -> Option<Turn<M>> {
        let mut state = self.state.lock();
        state.waiting.push(group);
        let may = state.under_way < AT_ONCE;
        state.under_way += usize::from(may);
        may.then(|| Turn(Arc::clone(self)))
    }

    /// As many of those that wait as one call takes. Whoever has gone has given up what it asked for.
    fn next(&self) -> Vec<Group<M>> {
        let waiting = &mut self.state.lock().waiting;
        waiting.retain(|group| !group.asker.is_closed());
        let mut count = 0;
        let fits = waiting.iter().take_while(|group| {
            count += group.members.len();
            count <= EACH
        });
        let fits = fits.count();
        waiting.drain(..fits).collect()
    }

    async fn call(&self, groups: Vec<Group<M>>) {
        let (mut members, mut askers) = (Vec::new(), Vec::with_capacity(groups.len()));
        for group in groups {
            askers.push((group.members.len(), group.asker));
            members.extend(group.members);
        }
        let call = (self.compose)(&members);
        let replies = if self.needs_fit { self.pool.run_if_fit(&call).await } else { self.pool.run(&call).await };
        let mut came = each(members.len(), replies).into_iter();
        for (count, asker) in askers {
            // One that has gone keeps what is to be given up.
            let _ = asker.send(came.by_ref().take(count).collect());
        }
    }
}

/// The right to make calls until nobody waits.
struct Turn<M>(Arc<Sharing<M>>);

impl<M: Send + Sync + 'static> Turn<M> {
    async fn take(self) {
        loop {
            let groups = self.0.next();
            if groups.is_empty() {
                return;
            }
            self.0.call(groups).await;
        }
    }
}

impl<M> Drop for Turn<M> {
    /// Also when its runtime ends in the middle: then whoever waits for this turn is told that nothing comes,
    /// and whoever asks next makes a call again.
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.under_way -= 1;
        if state.under_way == 0 {
            state.waiting.clear();
        }
    }
}

/// What a call came to, for each of its members.
fn each(count: usize, replies: Result<Vec<Value>, Failure>) -> Vec<Came> {
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
