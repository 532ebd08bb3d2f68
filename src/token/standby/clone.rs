//! One standby: a token with copies of the primary's keys, or with keys of its own, which may be away at any time.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{
    super::{AuditKey, Config, Error, KeyRef, Keys, PinDesk, PinProblem, Token, recovery::Recovery},
    choice::TOO_MANY,
    name,
};
use crate::{
    evidence::Warrant,
    key::{KeyEntry, Line, SignerId},
};

/// How long it is believed that a key which was shown is still there.
const PROOF_LIFE: Duration = Duration::from_secs(20);

/// How a standby is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// Nobody has looked yet.
    Unseen,
    /// It does not answer; why.
    Away(String),
    /// Its PIN was refused: it is not tried again by this process.
    Refused(PinProblem),
    /// It answers. The keys that it lacks, of those that sign or will.
    Here { lacks: Vec<String> },
}

/// A standby.
pub struct Standby {
    name: String,
    config: Config,
    /// Of the keys that it has for itself.
    own_line: Option<Line>,
    pins: PinDesk,
    opening: tokio::sync::Mutex<Recovery>,
    /// One look at a time.
    pub looking: tokio::sync::Mutex<()>,
    state: Mutex<State>,
}

struct State {
    token: Option<Arc<Token>>,
    condition: Condition,
    /// Keys that it has shown, and when.
    proofs: Vec<(KeyRef, Instant)>,
    /// Calls in a row that it did not answer in time.
    silent: u32,
    /// It has shown the audit key.
    has_audit_key: bool,
    /// CKA_IDs of keys that were destroyed and are not on it.
    swept: BTreeSet<Vec<u8>>,
    /// [`Token::losses`] when it was last looked at.
    losses: Option<u64>,
}

impl State {
    /// What it has shown is void.
    fn forget(&mut self) {
        self.proofs.clear();
        self.swept.clear();
        self.has_audit_key = false;
        self.silent = 0;
    }
}

impl Standby {
    /// The standby with this number, from 1 on. Nothing is opened yet.
    pub fn new(number: usize, config: &Config, state_directory: &Path) -> Result<Self, String> {
        let pins = PinDesk::new(config.pin_source()?, state_directory).of_standby(config.place());
        let state = State {
            token: None,
            condition: Condition::Unseen,
            proofs: Vec::new(),
            silent: 0,
            has_audit_key: false,
            swept: BTreeSet::new(),
            losses: None,
        };
        let own_line = match config.keys {
            Keys::Cloned => None,
            Keys::Own => config.uri.serial.clone().map(Line::Token),
        };
        Ok(Self {
            name: name(number),
            config: config.clone(),
            own_line,
            pins,
            opening: tokio::sync::Mutex::default(),
            looking: tokio::sync::Mutex::default(),
            state: Mutex::new(state),
        })
    }

    /// `standby-1`
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The line of the keys that it has for itself; a clone has none.
    #[must_use]
    pub fn own_line(&self) -> Option<&Line> {
        self.own_line.as_ref()
    }

    /// Whose keys it has.
    #[must_use]
    pub fn keys(&self) -> Keys {
        self.config.keys
    }

    /// Whether the configuration lets its first key be made.
    #[must_use]
    pub fn may_get_first_key(&self) -> bool {
        self.config.first_key_on_token_serial.is_some()
    }

    /// The token, in words.
    #[must_use]
    pub fn describe(&self) -> String {
        self.state
            .lock()
            .token
            .as_ref()
            .map_or_else(|| self.config.uri.to_string(), |token| token.identity().uri().to_string())
    }

    /// How it is now.
    #[must_use]
    pub fn condition(&self) -> Condition {
        self.state.lock().condition.clone()
    }

    /// The token, opened if it is not. One that was once opened looks after itself.
    pub async fn token(&self) -> Result<Arc<Token>, Error> {
        if let Some(token) = &self.state.lock().token {
            return Ok(Arc::clone(token));
        }
        let mut recovery = self.opening.lock().await;
        recovery.permit(Instant::now())?;
        let (config, pins) = (self.config.clone(), self.pins.clone());
        let opened = tokio::task::spawn_blocking(move || Token::open(&config, pins)).await;
        match opened.unwrap_or(Err(Error::Unanswered)) {
            Ok(token) => {
                let token = Arc::new(token);
                self.state.lock().token = Some(Arc::clone(&token));
                Ok(token)
            }
            Err(error) => {
                recovery.failed(Instant::now(), Some(&error));
                Err(error)
            }
        }
    }

    /// The token, when it is known to have shown this very key.
    #[must_use]
    pub fn ready(&self, key: &KeyRef) -> Option<Arc<Token>> {
        let state = self.state.lock();
        let shown = state.proofs.iter().any(|(shown, _)| shown == key);
        state.token.clone().filter(|_| shown && matches!(state.condition, Condition::Here { .. }))
    }

    /// The token, when it answers.
    #[must_use]
    pub fn here(&self) -> Option<Arc<Token>> {
        let state = self.state.lock();
        state.token.clone().filter(|_| matches!(state.condition, Condition::Here { .. }))
    }

    /// A call to it has failed. One that was only late is no reason to do without it: it may be busy.
    pub fn fail(&self, error: &Error) {
        let is_late = matches!(error, Error::Deadline(_) | Error::Unanswered);
        if is_late && self.here().is_some() {
            let mut state = self.state.lock();
            state.silent = state.silent.saturating_add(1);
            if state.silent < TOO_MANY {
                return;
            }
        }
        self.forget(match (error, self.condition()) {
            (Error::Pin(problem), _) => Condition::Refused(*problem),
            // What was found out first says more than that it is looked for.
            (Error::Lost(_), Condition::Away(why)) => Condition::Away(why),
            (other, _) => Condition::Away(other.to_string()),
        });
    }

    /// It has done what it was asked.
    pub(super) fn did(&self) {
        self.state.lock().silent = 0;
    }

    /// It answers, and must not be used.
    pub fn distrust(&self, why: &str) {
        self.forget(Condition::Away(why.to_owned()));
    }

    fn forget(&self, condition: Condition) {
        let mut state = self.state.lock();
        state.condition = condition;
        state.forget();
    }

    /// It answers.
    pub fn find(&self, lacks: Vec<String>) {
        self.state.lock().condition = Condition::Here { lacks };
    }

    /// Forgets what it has shown when the process that holds it is another than before.
    pub fn notice_losses(&self, token: &Token) {
        let mut state = self.state.lock();
        if state.losses.replace(token.losses().unwrap_or_default()) != token.losses() {
            state.forget();
        }
    }

    /// CKA_IDs of private keys that are on it and must not be, of these destroyed ones.
    pub async fn leftovers(
        &self,
        token: &Token,
        signer: &SignerId,
        destroyed: &[&KeyEntry],
    ) -> Result<Vec<Vec<u8>>, Error> {
        let known = self.state.lock().swept.clone();
        if destroyed.iter().all(|key| known.contains(&key.object_id)) {
            return Ok(Vec::new());
        }
        let objects = token.key_objects(format!("{signer}:")).await?;
        let is_there = |key: &&KeyEntry| objects.iter().any(|one| one.is_private && one.object_id == key.object_id);
        let (left, gone): (Vec<&KeyEntry>, Vec<&KeyEntry>) = destroyed.iter().copied().partition(is_there);
        self.state.lock().swept.extend(gone.into_iter().map(|key| key.object_id.clone()));
        Ok(left.into_iter().map(|key| key.object_id.clone()).collect())
    }

    /// Has it show a key, unless it has a moment ago.
    pub async fn prove(&self, token: &Token, key: &KeyEntry, canary: &impl Warrant) -> Result<(), Error> {
        let wanted = KeyRef::from(key);
        let is_young = |(shown, at): &(KeyRef, Instant)| *shown == wanted && at.elapsed() < PROOF_LIFE;
        if self.state.lock().proofs.iter().any(is_young) {
            return Ok(());
        }
        let proof = prove(token, key, canary).await;
        let mut state = self.state.lock();
        if !matches!(proof, Err(Error::Deadline(_) | Error::Unanswered)) {
            state.proofs.retain(|(shown, _)| *shown != wanted);
        }
        if proof.is_ok() {
            state.proofs.push((wanted, Instant::now()));
        }
        proof
    }

    /// Whether it has the audit key: without it, checkpoints wait for the primary.
    pub async fn show_audit_key(&self, token: &Token, key: &AuditKey) -> Result<bool, Error> {
        if self.state.lock().has_audit_key {
            return Ok(true);
        }
        let label = key.label().to_owned();
        let found = match token.held_key(key.object_id.clone(), label, key.public_key().algorithm()).await {
            Ok(held) => held == *key.public_key(),
            Err(Error::KeyMissing { .. } | Error::KeyPolicy(_)) => false,
            Err(error) => return Err(error),
        };
        self.state.lock().has_audit_key = found;
        Ok(found)
    }

    /// Ends its process.
    pub fn close(&self) {
        let token = self.state.lock().token.take();
        if let Some(Err(error)) = token.map(|token| token.close()) {
            tracing::warn!(%error, standby = self.name, "the standby could not be closed");
        }
    }
}

/// Whether a token has this very key: both halves under its id and label, the same public key, and a signature
/// that verifies with it.
pub async fn prove(token: &Token, key: &KeyEntry, canary: &impl Warrant) -> Result<(), Error> {
    let held = token.held_key(key.object_id.clone(), key.label.clone(), key.algorithm()).await?;
    if held != key.public_key {
        return Err(Error::KeyPolicy(format!("what it has under the id and label of {} is another key", key.id)));
    }
    token.sign(&KeyRef::from(key), canary).await.map(drop)
}
