//! Several tokens: a primary, and standbys that sign while it cannot.
//!
//! A standby is a clone, or has keys of its own ([`Keys`]). To a clone the vendor's tools have copied the primary's
//! keys (PKCS#11 has no way to), which are made, certified and destroyed on the primary alone. A token with keys of
//! its own has a line of them in the ledger ([`Line`]), with one that is active, and they are made on it: when it
//! signs in the primary's place, what it signs names its key.
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
//! are destroyed on a clone when it is back, before it signs ([`Standby::leftovers`]).
//!
//! **Why no wrong key signs:** a standby signs with a key only after it has shown it: one private and one public
//! object under its CKA_ID and label, the public key of the ledger, a signature that verifies with it
//! ([`Standby::prove`]). And each signature is verified with the ledger's public key before it is seen.
//!
//! **When it is changed over** is [`choice`]. A single call that fails on the primary is made on a standby within
//! the same deadline; who signs first changes after three failures in a row.

mod choice;
mod clone;
mod turns;

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde::Deserialize;
use tokio::sync::mpsc;

use super::{AuditKey, Config, Error, KeyRef, Keys, Token};
use crate::{
    evidence::TreeHead,
    key::{KeyEntry, Line, Signature},
};
use choice::Choice;
pub use clone::{Condition, Standby, prove};
pub use turns::{Signed, Turns};

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
    check_keys(primary, standbys)?;
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

/// Which tokens have keys of their own, and that each of them is told from the others.
fn check_keys(primary: &Config, standbys: &[Config]) -> Result<(), String> {
    if primary.keys != Keys::Cloned || primary.first_key_on_token_serial.is_some() {
        return Err("token.keys and token.first_key_on_token_serial are for [[standby]]: where the primary's first key may be made says key_policy.first_key_on_token_serial".into());
    }
    let all = || std::iter::once(primary).chain(standbys);
    for (config, name) in standbys.iter().zip(1..).map(|(config, number)| (config, name(number))) {
        match (config.keys, &config.uri.serial, &config.first_key_on_token_serial) {
            (Keys::Cloned, _, None) => {}
            (Keys::Cloned, _, Some(_)) => {
                return Err(format!(
                    "{name}: first_key_on_token_serial needs keys = \"own\": a clone gets the primary's"
                ));
            }
            (Keys::Own, None, _) => {
                return Err(format!(
                    "{name}: with keys = \"own\" the uri must name the serial: the keys are known by it"
                ));
            }
            (Keys::Own, Some(serial), first) => {
                if first.as_ref().is_some_and(|first| first != serial) {
                    return Err(format!("{name}: first_key_on_token_serial is not the serial that the uri names"));
                }
                if all().filter(|other| other.uri.serial.as_ref() == Some(serial)).count() > 1 {
                    return Err(format!(
                        "{name}: another token has the serial {serial}: a copy has no keys of its own"
                    ));
                }
            }
        }
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
    /// Of the primary and its clones.
    line: Line,
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

impl Tokens {
    /// Standbys are opened when somebody looks at them ([`Standby::token`]).
    #[must_use]
    pub fn new(primary: Arc<Token>, line: Line, standbys: Vec<Standby>, failover: &FailoverConfig) -> Self {
        let (switched, switches) = mpsc::unbounded_channel();
        let choice = Mutex::new(Choice::new(failover.return_after));
        Self { primary, line, standbys, choice, switched, switches: switches.into() }
    }

    /// The line of the primary's keys.
    #[must_use]
    pub fn line(&self) -> &Line {
        &self.line
    }

    /// The line of a standby's keys: its own, or the primary's.
    #[must_use]
    pub fn line_of<'a>(&'a self, standby: &'a Standby) -> &'a Line {
        standby.own_line().unwrap_or(&self.line)
    }

    /// The tokens on which keys are made, by name: the primary, and standbys with keys of their own.
    pub fn homes(&self) -> impl Iterator<Item = (&str, &Line)> {
        let own = self.standbys.iter().filter_map(|standby| Some((standby.name(), standby.own_line()?)));
        std::iter::once((PRIMARY, &self.line)).chain(own)
    }

    /// The standby that has this line of keys for itself.
    #[must_use]
    pub fn standby_with(&self, line: &Line) -> Option<&Standby> {
        self.standbys.iter().find(|standby| standby.own_line() == Some(line))
    }

    /// The token on which the keys of this line are made, when it is there.
    #[must_use]
    pub fn home(&self, line: &Line) -> Option<Arc<Token>> {
        if *line == self.line { Some(Arc::clone(&self.primary)) } else { self.standby_with(line)?.here() }
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

    /// The first standby that would sign now, by the key of its line that `active` says.
    #[must_use]
    pub fn ready(&self, active: impl Fn(&Line) -> Option<Arc<KeyEntry>>) -> Option<&str> {
        self.ready_at(active).and_then(|at| self.standbys.get(at)).map(Standby::name)
    }

    fn ready_at(&self, active: impl Fn(&Line) -> Option<Arc<KeyEntry>>) -> Option<usize> {
        let key = |standby| Some(KeyRef::from(&*active(self.line_of(standby))?));
        self.standbys.iter().position(|standby| key(standby).is_some_and(|key| standby.ready(&key).is_some()))
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

    /// Signs the head of a tree, on whatever token can: the audit key is on the primary and its clones.
    pub async fn sign_tree_head(&self, key: &AuditKey, head: &impl TreeHead) -> Result<Signature, Error> {
        let clones = self.standbys.iter().filter(|standby| standby.own_line().is_none());
        let mut here: Vec<_> = clones.filter_map(Standby::here).collect();
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

    /// What came of a look at the primary. `active` says which key of a line may sign.
    pub fn looked(&self, error: Option<&Error>, active: impl Fn(&Line) -> Option<Arc<KeyEntry>>) {
        let next = self.ready_at(active);
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
