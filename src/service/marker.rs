//! What this appliance remembers of its token's ledger: how far it went, on which token. A ledger
//! that is shorter or different is a moved, wrong, half-visible or restored token, never a reason
//! to make a key.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use crate::{durable, key::Standing, service::Error};

/// The marker file in the state directory.
#[derive(Clone, Debug)]
pub struct Marker {
    path: PathBuf,
    token_serial: String,
}

#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Content {
    token_serial: String,
    ledger_records: u64,
    ledger_head: String,
}

/// The token does not hold what this appliance has already seen.
#[derive(Debug, thiserror::Error)]
pub enum Mismatch {
    #[error(
        "the marker {path} cannot be read ({detail}): restore it, or remove it only if you know that this token is the right one"
    )]
    Unreadable { path: PathBuf, detail: String },
    #[error(
        "{path} says that this signer's keys are on token serial {seen}, but the configured token is serial {found}"
    )]
    OtherToken { path: PathBuf, seen: String, found: String },
    #[error(
        "{path} says that the ledger had {seen} records, but the token shows {found}: it was emptied, restored from a backup, \
         is being read while others log in, or is not the right one"
    )]
    Shorter { path: PathBuf, seen: u64, found: u64 },
    #[error(
        "ledger record {sequence} is not the one that {path} remembers: the ledger was rewritten or belongs to another token"
    )]
    Rewritten { path: PathBuf, sequence: u64 },
}

impl Marker {
    /// The marker of the token with this serial.
    #[must_use]
    pub fn new(state_directory: &Path, token_serial: &str) -> Self {
        Self { path: state_directory.join("ledger-seen.json"), token_serial: token_serial.to_owned() }
    }

    /// True when keys were seen before, on whatever token.
    #[must_use]
    pub fn exists(&self) -> bool {
        // A marker that is there but cannot be read counts: `check` will say what is wrong with it.
        std::fs::symlink_metadata(&self.path).is_ok()
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Compares `standing` with what was seen before.
    pub fn compare(&self, standing: &Standing) -> Result<(), Mismatch> {
        let path = || self.path.clone();
        let unreadable = |detail: String| Mismatch::Unreadable { path: path(), detail };
        let content: Content = match std::fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes).map_err(|error| unreadable(error.to_string()))?,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(unreadable(error.to_string())),
        };
        if content.token_serial != self.token_serial {
            return Err(Mismatch::OtherToken {
                path: path(),
                seen: content.token_serial,
                found: self.token_serial.clone(),
            });
        }
        if standing.last_sequence() < content.ledger_records {
            return Err(Mismatch::Shorter {
                path: path(),
                seen: content.ledger_records,
                found: standing.last_sequence(),
            });
        }
        let digest = standing.digest_at(content.ledger_records).map(hex::encode);
        if content.ledger_records > 0 && digest.as_deref() != Some(content.ledger_head.as_str()) {
            return Err(Mismatch::Rewritten { path: path(), sequence: content.ledger_records });
        }
        Ok(())
    }

    /// [`Marker::compare`] while running.
    pub fn check(&self, standing: &Standing) -> Result<(), Error> {
        self.compare(standing).map_err(|mismatch| {
            tracing::error!(%mismatch, "the key ledger does not continue what was seen before");
            Error::Internal("the key ledger does not continue what was seen before")
        })
    }

    /// Remembers how far the ledger goes now. An empty ledger leaves no marker.
    pub fn update(&self, standing: &Standing) -> Result<(), Error> {
        if standing.is_empty() {
            return Ok(());
        }
        let content = Content {
            token_serial: self.token_serial.clone(),
            ledger_records: standing.last_sequence(),
            ledger_head: hex::encode(standing.head()),
        };
        let bytes = serde_json::to_vec_pretty(&content).expect("a marker is plain text and numbers");
        durable::replace(&self.path, &bytes).map_err(|error| {
            tracing::error!(%error, path = %self.path.display(), "the ledger marker could not be written");
            Error::Internal("the ledger marker could not be written")
        })
    }
}
