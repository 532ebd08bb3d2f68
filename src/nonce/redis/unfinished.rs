//! What Redis has yet to hear about spends that are over for their callers.
//!
//! A call to Redis can fail after its script has run. A spend that failed that way has left a nonce
//! in progress with nobody to finish it; a settle, an answer that retries will miss. So the end of
//! every spend is written down here until Redis has confirmed it, and told again once Redis answers
//! (with [`super::RedisStore::ping`], or when the nonce is asked for).
//!
//! What is lost with this process, or beyond the bound, stays in progress until its window ends:
//! that costs the client a new nonce, and never allows a second signature.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;

use super::Spent;

/// Most ends that are remembered, some 600 bytes each.
const MOST: usize = 10_000;

/// The ends that are not confirmed, oldest first.
#[derive(Debug, Default)]
pub(super) struct Unfinished(Mutex<VecDeque<Arc<End>>>);

/// How one spend ended.
#[derive(Debug)]
pub(super) struct End {
    pub hex: String,
    /// Of the spend. Whoever has an `End` acts for the one call that had this token.
    pub token: String,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub(super) enum Outcome {
    /// Signed; the answer as JSON.
    Settled(String),
    /// Nothing was released. Also the outcome of a spend that was never answered: its caller holds
    /// no [`crate::nonce::Spent`].
    Reopened,
}

impl End {
    /// Signed; the answer as JSON.
    pub(super) fn settled(spent: &Spent, answer: String) -> Self {
        Self::of(spent, Outcome::Settled(answer))
    }

    /// Nothing was released.
    pub(super) fn reopened(spent: &Spent) -> Self {
        Self::of(spent, Outcome::Reopened)
    }

    fn of(spent: &Spent, outcome: Outcome) -> Self {
        Self { hex: spent.nonce.to_hex(), token: hex::encode(spent.token.0), outcome }
    }
}

impl Unfinished {
    /// Takes responsibility for an end. Unless it is [`Pending::confirmed`], dropping it, which is
    /// also what a cancelled request does, puts it on the list.
    pub(super) fn begin(&self, end: impl Into<Arc<End>>) -> Pending<'_> {
        Pending { list: self, end: Some(end.into()) }
    }

    /// The oldest end on the list.
    pub(super) fn next(&self) -> Option<Pending<'_>> {
        let end = self.0.lock().pop_front()?;
        Some(self.begin(end))
    }

    pub(super) fn len(&self) -> usize {
        self.0.lock().len()
    }
}

/// An end that goes (back) on the list unless it is confirmed.
#[derive(Debug)]
pub(super) struct Pending<'a> {
    list: &'a Unfinished,
    end: Option<Arc<End>>,
}

impl Pending<'_> {
    pub(super) fn end(&self) -> &Arc<End> {
        self.end.as_ref().expect("taken only by what consumes self")
    }

    /// Redis knows, or there is nothing to know.
    pub(super) fn confirmed(mut self) {
        self.end = None;
    }
}

impl Drop for Pending<'_> {
    fn drop(&mut self) {
        let Some(end) = self.end.take() else { return };
        let mut ends = self.list.0.lock();
        if ends.len() < MOST {
            ends.push_back(end);
        } else {
            tracing::warn!("Redis has been away for long: the end of a spend is forgotten, its nonce stays unusable");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(hex: &str) -> End {
        End { hex: hex.into(), token: "t".into(), outcome: Outcome::Reopened }
    }

    #[test]
    fn only_what_is_not_confirmed_is_kept() {
        let list = Unfinished::default();
        list.begin(end("a")).confirmed();
        assert_eq!(list.len(), 0);
        drop(list.begin(end("b")));
        assert_eq!(list.next().unwrap().end().hex, "b");
        // Looked at and dropped: still not confirmed.
        assert_eq!(list.len(), 1);
        list.next().unwrap().confirmed();
        assert!(list.next().is_none());
    }

    #[test]
    fn the_list_is_bounded() {
        let list = Unfinished::default();
        for _ in 0..=MOST {
            drop(list.begin(end("a")));
        }
        assert_eq!(list.len(), MOST);
    }
}
