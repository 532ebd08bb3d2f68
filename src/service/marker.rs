//! What this appliance remembers of its token's ledger, on its own disk. A ledger that has lost
//! something since is a moved, wrong, half-visible or restored token: it is refused until an operator
//! accepts that very ledger by name. What the fleet remembers is compared in the same way.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{
    durable,
    key::{
        Standing,
        seen::{Loss, Seen},
    },
    service::Error,
};

/// The marker file in the state directory.
#[derive(Clone, Debug)]
pub struct Marker {
    path: PathBuf,
    token_serial: String,
    /// Head of a ledger that an operator accepts although it does not continue what was seen.
    accepted_head: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Content {
    token_serial: String,
    #[serde(flatten)]
    seen: Seen,
}

/// The token does not hold what has been seen.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    #[error(
        "the marker {path} cannot be read ({detail}): restore it, or remove it only if you know that this token is the right one"
    )]
    Unreadable { path: PathBuf, detail: String },
    #[error("{path} says that this signer's keys are on token serial {seen}, but the configured token is serial {found}{}", accept(.head))]
    OtherToken { path: PathBuf, seen: String, found: String, head: String },
    #[error("{witness} says that {loss}{}", accept(.head))]
    Lost { witness: String, loss: Loss, head: String },
}

/// How an operator accepts a ledger. An empty one is never accepted: it would make a first key.
fn accept(head: &str) -> String {
    if head.is_empty() {
        return String::new();
    }
    format!("; to go on with the ledger as it is now, set state.accept_ledger_head = \"{head}\" and start again")
}

impl Marker {
    /// The marker of the token with this serial.
    #[must_use]
    pub fn new(state_directory: &Path, token_serial: &str, accepted_head: Option<&str>) -> Self {
        Self {
            path: state_directory.join("ledger-seen.json"),
            token_serial: token_serial.to_owned(),
            accepted_head: accepted_head.map(ToOwned::to_owned),
        }
    }

    /// True when keys were seen before, on whatever token.
    #[must_use]
    pub fn exists(&self) -> bool {
        // A marker that is there but cannot be read counts: `compare` will say what is wrong with it.
        std::fs::symlink_metadata(&self.path).is_ok()
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keys that were seen revoked. They stay so, whatever the token says.
    pub fn revoked(&self) -> Result<BTreeSet<String>, Mismatch> {
        Ok(self.read()?.map(|content| content.seen.revoked).unwrap_or_default())
    }

    /// What was seen before.
    pub fn seen(&self) -> Result<Option<Seen>, Mismatch> {
        Ok(self.read()?.map(|content| content.seen))
    }

    /// Compares `standing` with what was seen before. True when it differs and was accepted by name.
    pub fn compare(&self, standing: &Standing) -> Result<bool, Mismatch> {
        let Some(content) = self.read()? else { return Ok(false) };
        if content.token_serial != self.token_serial {
            let (path, seen, found) = (self.path.clone(), content.token_serial, self.token_serial.clone());
            return self.unless_accepted(standing, |head| Mismatch::OtherToken { path, seen, found, head });
        }
        self.compare_with(&content.seen, &self.path.display().to_string(), standing)
    }

    /// Compares `standing` with what another witness has seen.
    pub fn compare_with(&self, seen: &Seen, witness: &str, standing: &Standing) -> Result<bool, Mismatch> {
        match seen.loss(standing) {
            None => Ok(false),
            Some(loss) => {
                self.unless_accepted(standing, |head| Mismatch::Lost { witness: witness.to_owned(), loss, head })
            }
        }
    }

    fn unless_accepted(
        &self,
        standing: &Standing,
        mismatch: impl FnOnce(String) -> Mismatch,
    ) -> Result<bool, Mismatch> {
        let head = if standing.is_empty() { String::new() } else { hex::encode(standing.head()) };
        if !head.is_empty() && self.accepted_head.as_ref() == Some(&head) { Ok(true) } else { Err(mismatch(head)) }
    }

    fn read(&self) -> Result<Option<Content>, Mismatch> {
        let unreadable = |detail: String| Mismatch::Unreadable { path: self.path.clone(), detail };
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    /// The same marker, which accepts nothing any more: an acceptance counts once, at start.
    #[must_use]
    pub fn strict(&self) -> Self {
        Self { accepted_head: None, ..self.clone() }
    }

    /// [`Marker::compare`] while running.
    pub fn check(&self, standing: &Standing) -> Result<(), Error> {
        self.compare(standing).map(|_| ()).map_err(|mismatch| Error::LedgerRolledBack(mismatch.to_string()))
    }

    /// Remembers how far the ledger goes now. An empty ledger leaves no marker.
    pub fn update(&self, standing: &Standing) -> Result<(), Error> {
        if standing.is_empty() {
            return Ok(());
        }
        self.remember(Seen::of(standing))
    }

    /// Remembers this, and what was revoked before.
    pub fn remember(&self, mut seen: Seen) -> Result<(), Error> {
        seen.revoked.extend(self.revoked().unwrap_or_default());
        let content = Content { token_serial: self.token_serial.clone(), seen };
        let bytes = serde_json::to_vec_pretty(&content).expect("a marker is plain text and numbers");
        durable::replace(&self.path, &bytes).map_err(|error| {
            tracing::error!(%error, path = %self.path.display(), "the ledger marker could not be written");
            Error::Internal("the ledger marker could not be written")
        })
    }
}
