//! What this appliance remembers of its token's ledger: how far it went, which keys were revoked, on
//! which token. A ledger that is shorter or different, or has lost a revocation, is a moved, wrong,
//! half-visible or restored token: it is refused until an operator accepts that very ledger by name.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use crate::{durable, key::Standing, service::Error};

/// The marker file in the state directory.
#[derive(Clone, Debug)]
pub struct Marker {
    path: PathBuf,
    token_serial: String,
    /// Head of a ledger that an operator accepts although it does not continue what was seen.
    accepted_head: Option<String>,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    token_serial: String,
    ledger_records: u64,
    ledger_head: String,
    /// Sequences of revoked keys. Only ever grows.
    revoked: BTreeSet<u32>,
}

/// The token does not hold what this appliance has already seen.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    #[error(
        "the marker {path} cannot be read ({detail}): restore it, or remove it only if you know that this token is the right one"
    )]
    Unreadable { path: PathBuf, detail: String },
    #[error("{path} says that this signer's keys are on token serial {seen}, but the configured token is serial {found}{}", accept(.head))]
    OtherToken { path: PathBuf, seen: String, found: String, head: String },
    #[error(
        "{path} says that the ledger had {seen} records, but the token shows {found}: it was emptied, restored from a backup, \
         is being read while others log in, or is not the right one{}", accept(.head)
    )]
    Shorter { path: PathBuf, seen: u64, found: u64, head: String },
    #[error("ledger record {sequence} is not the one that {path} remembers: the ledger was rewritten or belongs to another token{}", accept(.head))]
    Rewritten { path: PathBuf, sequence: u64, head: String },
    #[error("{path} says that key {key} is revoked, but the token does not: it was restored from a backup{}", accept(.head))]
    RevocationLost { path: PathBuf, key: u32, head: String },
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
    pub fn revoked(&self) -> Result<BTreeSet<u32>, Mismatch> {
        Ok(self.read()?.map(|content| content.revoked).unwrap_or_default())
    }

    /// Compares `standing` with what was seen before. True when it differs and was accepted by name.
    pub fn compare(&self, standing: &Standing) -> Result<bool, Mismatch> {
        let Some(content) = self.read()? else { return Ok(false) };
        match self.find_mismatch(&content, standing) {
            None => Ok(false),
            Some(_) if !standing.is_empty() && self.accepted_head.as_deref() == Some(&hex::encode(standing.head())) => {
                Ok(true)
            }
            Some(mismatch) => Err(mismatch),
        }
    }

    fn find_mismatch(&self, content: &Content, standing: &Standing) -> Option<Mismatch> {
        let path = || self.path.clone();
        let head = if standing.is_empty() { String::new() } else { hex::encode(standing.head()) };
        if content.token_serial != self.token_serial {
            let (seen, found) = (content.token_serial.clone(), self.token_serial.clone());
            return Some(Mismatch::OtherToken { path: path(), seen, found, head });
        }
        let (seen, found) = (content.ledger_records, standing.last_sequence());
        if found < seen {
            return Some(Mismatch::Shorter { path: path(), seen, found, head });
        }
        let digest = standing.digest_at(seen).map(hex::encode);
        if seen > 0 && digest.as_deref() != Some(content.ledger_head.as_str()) {
            return Some(Mismatch::Rewritten { path: path(), sequence: seen, head });
        }
        let revoked = revoked_in(standing);
        content.revoked.difference(&revoked).next().map(|key| Mismatch::RevocationLost {
            path: path(),
            key: *key,
            head,
        })
    }

    fn read(&self) -> Result<Option<Content>, Mismatch> {
        let unreadable = |detail: String| Mismatch::Unreadable { path: self.path.clone(), detail };
        match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map(Some).map_err(|error| unreadable(error.to_string())),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(unreadable(error.to_string())),
        }
    }

    /// [`Marker::compare`] while running.
    pub fn check(&self, standing: &Standing) -> Result<(), Error> {
        self.compare(standing).map(|_| ()).map_err(|mismatch| {
            tracing::error!(%mismatch, "the key ledger does not continue what was seen before");
            Error::LedgerRolledBack
        })
    }

    /// Remembers how far the ledger goes now. An empty ledger leaves no marker.
    pub fn update(&self, standing: &Standing) -> Result<(), Error> {
        if standing.is_empty() {
            return Ok(());
        }
        let mut revoked = revoked_in(standing);
        revoked.extend(self.revoked().unwrap_or_default());
        let content = Content {
            token_serial: self.token_serial.clone(),
            ledger_records: standing.last_sequence(),
            ledger_head: hex::encode(standing.head()),
            revoked,
        };
        let bytes = serde_json::to_vec_pretty(&content).expect("a marker is plain text and numbers");
        durable::replace(&self.path, &bytes).map_err(|error| {
            tracing::error!(%error, path = %self.path.display(), "the ledger marker could not be written");
            Error::Internal("the ledger marker could not be written")
        })
    }
}

fn revoked_in(standing: &Standing) -> BTreeSet<u32> {
    standing.keys().filter(|key| key.revoked.is_some()).map(|key| key.id.sequence).collect()
}
