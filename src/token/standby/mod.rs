//! Several tokens with the same keys: a primary, and standbys that sign while it cannot.
//!
//! A standby is a clone: the vendor's tools have copied the primary's keys to it (PKCS#11 has no way to).
//! Keys are made, certified and destroyed on the primary alone.
//!
//! **The ledger is beside the tokens, in a file.** It says which key may sign, and must be readable within the
//! lease while the primary is away. On the primary it would not be. Copies on each token would be: but then a
//! token that was away during a revocation comes back with an older one, and of two tokens that never see each
//! other each may have the longer one; telling which is right needs a majority, and two tokens have none. So
//! `[[standby]]` is refused beside a ledger on the token, and, since a file is read by one appliance only,
//! without `fleet.single`. What a token shows of a ledger is not read. Its floor stays where it was: state
//! directory, audit trail, Redis. A fleet wants an HSM that is one token and many machines (Luna's HA groups,
//! CloudHSM's clusters).
//!
//! **Why no key is used that was revoked:** whatever token signs, the keyring is asked before and after, by a reading
//! within the lease. A standby that was away has no say in it. Private keys that were destroyed on the primary
//! are destroyed on it when it is back, before it signs ([`Standby::leftovers`]).
//!
//! **Why no wrong key signs:** a standby signs with a key only after it has shown it: one private and one public
//! object under its CKA_ID and label, the public key of the ledger, a signature that verifies with it
//! ([`Standby::prove`]). And each signature is verified with the ledger's public key before it is seen.
//!
//! **When it is changed over** is [`choice`]. A single call that fails on the primary is made on a standby within
//! the same deadline; who signs first changes after three failures in a row.

mod choice;
mod clone;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{AuditKey, Config, Error, KeyRef, Token, VerifiedSignature};
use crate::{
    evidence::{TreeHead, Warrant},
    key::Signature,
};
use choice::Choice;
pub use clone::{Condition, Standby, prove};

/// `[failover]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FailoverConfig {
    /// How long the primary must do well before it signs again.
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub return_after: Duration,
}

impl Default for FailoverConfig {
    fn default() -> Self {
        Self { return_after: Duration::from_secs(30) }
    }
}

impl FailoverConfig {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        let bounds = Duration::from_secs(1)..=Duration::from_secs(3600);
        if bounds.contains(&self.return_after) {
            Ok(())
        } else {
            Err("failover.return_after must be between 1s and 1h".into())
        }
    }
}

/// What standbys ask of the primary's configuration and of their own.
pub fn check(primary: &Config, standbys: &[Config]) -> Result<(), String> {
    let mut places = vec![primary.place()];
    for (config, name) in standbys.iter().zip(1..).map(|(config, number)| (config, name(number))) {
        config.check().map_err(|error| format!("{name}: {error}"))?;
        if places.contains(&config.place()) {
            return Err(format!("{name} is a token that is named before: module, uri and environment are the same"));
        }
        places.push(config.place());
    }
    if standbys.is_empty() {
        return Ok(());
    }
    let all = || std::iter::once(primary).chain(standbys);
    if all().any(|config| !config.isolation) {
        return Err("with [[standby]], token.isolation must be true everywhere: one module that hangs or crashes must not take the others with it".into());
    }
    if all().any(|config| !config.verify_signatures) {
        return Err("with [[standby]], token.verify_signatures must be true everywhere: it is what keeps another key's signature from going out".into());
    }
    Ok(())
}

fn name(number: usize) -> String {
    format!("standby-{number}")
}

/// The name of the primary.
pub const PRIMARY: &str = "primary";

/// The primary and its standbys.
pub struct Tokens {
    primary: Arc<Token>,
    standbys: Vec<Standby>,
    choice: Mutex<Choice>,
    switched: mpsc::UnboundedSender<Switch>,
    switches: tokio::sync::Mutex<mpsc::UnboundedReceiver<Switch>>,
}

/// A token that signs from now on.
#[derive(Debug, PartialEq, Eq)]
pub struct Switch {
    pub from: String,
    pub to: String,
    pub why: String,
}

/// A signature, and which of several tokens made it: its name and its serial.
pub struct Signed {
    pub signature: VerifiedSignature,
    pub on: Option<(String, String)>,
}

impl Tokens {
    /// Standbys are opened when somebody looks at them ([`Standby::token`]).
    #[must_use]
    pub fn new(primary: Arc<Token>, standbys: Vec<Standby>, failover: &FailoverConfig) -> Self {
        let (switched, switches) = mpsc::unbounded_channel();
        let choice = Mutex::new(Choice::new(failover.return_after));
        Self { primary, standbys, choice, switched, switches: switches.into() }
    }

    /// In order of preference.
    #[must_use]
    pub fn standbys(&self) -> &[Standby] {
        &self.standbys
    }

    /// The token that signs first now; `None` when there is one only.
    #[must_use]
    pub fn current(&self) -> Option<&str> {
        (!self.standbys.is_empty()).then(|| self.name(self.choice.lock().current()))
    }

    /// The name of the standby that would sign with this key now.
    #[must_use]
    pub fn ready(&self, key: &KeyRef) -> Option<&str> {
        self.standbys.iter().find(|standby| standby.ready(key).is_some()).map(Standby::name)
    }

    /// Whether the last looks at the primary, and the last signatures on it, went well.
    #[must_use]
    pub fn primary_does_well(&self) -> bool {
        self.choice.lock().primary_does_well()
    }

    /// Waits for the next change of the token that signs.
    pub async fn switch(&self) -> Option<Switch> {
        self.switches.lock().await.recv().await
    }

    /// Signs on the first token that can, within the deadline of one call.
    pub async fn sign(&self, key: &KeyRef, warrant: &impl Warrant) -> Result<Signed, Error> {
        if self.standbys.is_empty() {
            return Ok(Signed { signature: self.primary.sign(key, warrant).await?, on: None });
        }
        let latest = Instant::now() + self.primary.config.call_deadline;
        let chosen = self.choice.lock().current();
        let order = self.order(chosen, key);
        let mut trouble = None;
        for (at, (index, token)) in order.iter().enumerate() {
            let left = latest.saturating_duration_since(Instant::now());
            // Whoever comes after must have time as well.
            let time = if at + 1 == order.len() { left } else { left / 2 };
            let signed = tokio::time::timeout(time, token.sign(key, warrant)).await;
            match signed.unwrap_or(Err(Error::Deadline(time))) {
                Ok(signature) => {
                    self.signed(*index, chosen, trouble.as_ref());
                    let on = Some((self.name(*index).to_owned(), token.identity().serial.clone()));
                    return Ok(Signed { signature, on });
                }
                Err(error) if may_be_the_token_s_fault(&error) => {
                    self.failed(*index, &error);
                    trouble.get_or_insert(error);
                }
                Err(error) => {
                    self.doubt(*index, &error);
                    return Err(error);
                }
            }
        }
        Err(trouble.unwrap_or_else(|| Error::lost("no token is ready to sign with this key")))
    }

    /// Signs the head of a tree, on whatever token can.
    pub async fn sign_tree_head(&self, key: &AuditKey, head: &impl TreeHead) -> Result<Signature, Error> {
        let mut here: Vec<_> = self.standbys.iter().filter_map(Standby::here).collect();
        let first = if self.choice.lock().current() == 0 { 0 } else { here.len() };
        here.insert(first, Arc::clone(&self.primary));
        let mut trouble = None;
        for token in here {
            match token.sign_tree_head(key, head).await {
                Ok(signature) => return Ok(signature),
                Err(error) => drop(trouble.get_or_insert(error)),
            }
        }
        Err(trouble.unwrap_or_else(|| Error::lost("no token is there")))
    }

    /// The chosen one, then the others that are ready; the primary in any case.
    fn order(&self, chosen: usize, key: &KeyRef) -> Vec<(usize, Arc<Token>)> {
        let ready = self.standbys.iter().zip(1..).filter_map(|(standby, index)| Some((index, standby.ready(key)?)));
        let mut order: Vec<_> = ready.collect();
        let at = if chosen == 0 { 0 } else { order.len() };
        order.insert(at, (0, Arc::clone(&self.primary)));
        if let Some(at) = order.iter().position(|(index, _)| *index == chosen) {
            order[..=at].rotate_right(1);
        }
        order
    }

    fn signed(&self, on: usize, chosen: usize, trouble: Option<&Error>) {
        if let Some(standby) = on.checked_sub(1).and_then(|index| self.standbys.get(index)) {
            standby.did();
        }
        let switched = self.choice.lock().signed(on, chosen);
        let why = trouble.map_or_else(|| "it does not have the key".to_owned(), ToString::to_string);
        self.tell(switched, why);
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

    /// What came of a look at the primary; `key` is the active one.
    pub fn looked(&self, error: Option<&Error>, key: Option<&KeyRef>) {
        let next = key.and_then(|key| self.standbys.iter().position(|standby| standby.ready(key).is_some()));
        let switched = self.choice.lock().looked(error.is_none(), next.map(|at| at + 1), Instant::now());
        let why = error.map_or_else(|| "the primary does well again".to_owned(), ToString::to_string);
        self.tell(switched, why);
    }

    fn tell(&self, switched: Option<(usize, usize)>, why: String) {
        if let Some((from, to)) = switched {
            let (from, to) = (self.name(from).to_owned(), self.name(to).to_owned());
            // Fails only when nobody is left who would record it: the process ends.
            let _ = self.switched.send(Switch { from, to, why });
        }
    }

    fn name(&self, index: usize) -> &str {
        index.checked_sub(1).and_then(|index| self.standbys.get(index)).map_or(PRIMARY, Standby::name)
    }

    /// Ends the standbys' processes.
    pub fn close(&self) {
        for standby in &self.standbys {
            standby.close();
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
