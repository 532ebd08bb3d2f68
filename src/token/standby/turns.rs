//! Who may sign a request: the tokens one after another, each with the key that is active on it.

use std::{collections::VecDeque, sync::Arc, time::Instant};

use super::{
    super::{Error, KeyRef, Token, VerifiedSignature},
    Tokens,
};
use crate::{
    evidence::Warrant,
    key::{KeyEntry, Line},
};

/// The tokens that could sign now, in order, within the deadline of one call.
pub struct Turns {
    latest: Instant,
    /// Who is asked first at the moment.
    chosen: usize,
    left: VecDeque<Turn>,
    /// Why the first of them did not.
    trouble: Option<String>,
}

struct Turn {
    index: usize,
    token: Arc<Token>,
    key: Arc<KeyEntry>,
}

impl Turns {
    /// The key of the token whose turn it is.
    #[must_use]
    pub fn key(&self) -> Option<&Arc<KeyEntry>> {
        self.left.front().map(|turn| &turn.key)
    }
}

/// A signature, and which of several tokens made it: its name and its serial.
pub struct Signed {
    pub signature: VerifiedSignature,
    pub on: Option<(String, String)>,
}

impl Tokens {
    /// The chosen one, then the others that are ready; the primary in any case. `active` says which key of a line
    /// may sign: a token of whose line none may has no turn.
    #[must_use]
    pub fn turns(&self, active: impl Fn(&Line) -> Option<Arc<KeyEntry>>) -> Turns {
        let latest = Instant::now() + self.primary.config.call_deadline;
        let chosen = self.choice.lock().current();
        let ready = self.standbys.iter().zip(1..).filter_map(|(standby, index)| {
            let key = active(self.line_of(standby))?;
            let token = standby.ready(&KeyRef::from(&*key))?;
            Some(Turn { index, token, key })
        });
        let mut left: VecDeque<_> = ready.collect();
        if let Some(key) = active(&self.line) {
            let at = if chosen == 0 { 0 } else { left.len() };
            left.insert(at, Turn { index: 0, token: Arc::clone(&self.primary), key });
        }
        if let Some(at) = left.iter().position(|turn| turn.index == chosen)
            && let Some(turn) = left.remove(at)
        {
            left.push_front(turn);
        }
        Turns { latest, chosen, left, trouble: None }
    }

    /// Signs with the key whose turn it is, on the first token of those with this key that can. When none can, the
    /// turn is another key's, if there is one.
    pub async fn sign(&self, turns: &mut Turns, warrant: &impl Warrant) -> Result<Signed, Error> {
        let mut trouble = None;
        let Some(key) = turns.key().cloned() else { return Err(Error::lost("no token is ready to sign")) };
        while turns.key().is_some_and(|next| next.id == key.id)
            && let Some(turn) = turns.left.pop_front()
        {
            match self.take_turn(&turn, turns, warrant).await {
                Ok(signature) => {
                    let on = self.signed(turn.index, turns);
                    let serial = || turn.token.identity().serial.clone();
                    return Ok(Signed { signature, on: on.map(|name| (name, serial())) });
                }
                Err(error) if may_be_the_token_s_fault(&error) => {
                    self.failed(turn.index, &error);
                    turns.trouble.get_or_insert_with(|| error.to_string());
                    trouble.get_or_insert(error);
                }
                Err(error) => {
                    self.doubt(turn.index, &error);
                    turns.left.clear();
                    return Err(error);
                }
            }
        }
        Err(trouble.unwrap_or_else(|| Error::lost("no token is ready to sign with this key")))
    }

    async fn take_turn(&self, turn: &Turn, turns: &Turns, warrant: &impl Warrant) -> Result<VerifiedSignature, Error> {
        let key = KeyRef::from(&*turn.key);
        let signing = turn.token.sign(&key, warrant);
        if self.standbys.is_empty() {
            return signing.await;
        }
        let left = turns.latest.saturating_duration_since(Instant::now());
        // Whoever comes after must have time as well.
        let time = if turns.left.is_empty() { left } else { left / 2 };
        tokio::time::timeout(time, signing).await.unwrap_or(Err(Error::Deadline(time)))
    }

    /// Notes who has signed; the name, where there are several.
    fn signed(&self, on: usize, turns: &Turns) -> Option<String> {
        if self.standbys.is_empty() {
            return None;
        }
        if let Some(standby) = on.checked_sub(1).and_then(|index| self.standbys.get(index)) {
            standby.did();
        }
        let switched = self.choice.lock().signed(on, turns.chosen);
        self.tell(switched, turns.trouble.clone().unwrap_or_else(|| "it has no key that may sign".to_owned()));
        Some(self.name(on).to_owned())
    }

    fn failed(&self, index: usize, error: &Error) {
        match index.checked_sub(1).and_then(|index| self.standbys.get(index)) {
            Some(standby) => standby.fail(error),
            None => self.choice.lock().failed(),
        }
    }

    /// A standby whose signature does not verify shows its keys anew before it signs again.
    fn doubt(&self, index: usize, error: &Error) {
        let standby = index.checked_sub(1).and_then(|index| self.standbys.get(index));
        if let (Some(standby), Error::BadSignature) = (standby, error) {
            standby.distrust("a signature that it made does not verify");
        }
    }
}

/// Whether another token may do better. A token that is busy is not away, and a signature that does not verify
/// is not passed over in silence.
fn may_be_the_token_s_fault(error: &Error) -> bool {
    match error {
        Error::Busy | Error::BadSignature | Error::KeyPolicy(_) | Error::Sandbox(_) => false,
        Error::Module { .. }
        | Error::Initialize { .. }
        | Error::NoToken { .. }
        | Error::AmbiguousToken { .. }
        | Error::Pin(_)
        | Error::Worker(_)
        | Error::KeyMissing { .. }
        | Error::Deadline(_)
        | Error::Unanswered
        | Error::Lost(_)
        | Error::PinSource(_)
        | Error::Login(_)
        | Error::Call(_) => true,
    }
}
