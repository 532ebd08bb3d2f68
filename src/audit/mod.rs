//! The audit trail: one JSON record a line, on disk before anything it speaks of takes effect.
//!
//! [`Recorded`] is minted only after `fdatasync`, and only from it can a signature be released.

pub mod checkpoint;
mod event;
pub mod merkle;
mod reader;
mod writer;

use std::{io, path::PathBuf};

use serde::Deserialize;

pub use event::{Event, EventType, Outcome, Severity, Source};
pub use reader::{mentions_keys, revoked_keys};
pub use writer::Audit;

use crate::evidence::Receipt;

/// `[audit]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where `audit.log` and its rotated segments live. Made by the package, or by `dev`.
    #[serde(default = "default_directory")]
    pub directory: PathBuf,
}

impl Default for Config {
    fn default() -> Self {
        Self { directory: default_directory() }
    }
}

impl Config {
    /// Whether the trail could be opened here.
    pub fn check(&self) -> Result<(), OpenError> {
        let unusable = |source| OpenError::Directory { path: self.directory.clone(), source };
        rustix::fs::access(&self.directory, rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK)
            .map_err(|errno| unusable(errno.into()))
    }
}

fn default_directory() -> PathBuf {
    PathBuf::from("/var/log/virtengine/audit")
}

/// A record is on disk.
#[derive(Debug, Clone, Copy)]
pub struct Written {
    sequence: u64,
}

impl Written {
    /// The record's place in the trail: 1, 2, 3 and so on, over restarts and rotated files.
    #[must_use]
    pub fn sequence(self) -> u64 {
        self.sequence
    }
}

/// The record of one signature is on disk.
#[derive(Debug)]
pub struct Recorded {
    written: Written,
    signature_digest: [u8; 32],
}

impl Recorded {
    /// The record's place in the trail.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.written.sequence
    }
}

impl Receipt for Recorded {
    fn signature_digest(&self) -> &[u8; 32] {
        &self.signature_digest
    }
}

/// Why a record is not on disk, or not known to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum Error {
    /// Nothing more will be written: the state of the file is unknown.
    #[error("the audit trail failed and takes no more records")]
    Failed,
    /// More records wait than the queue holds.
    #[error("the audit queue is full")]
    Busy,
}

/// Why the trail could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error(
        "audit directory {path}: {source}; it must exist and be the service's own: install -d -m 0750 -o USER {path}"
    )]
    Directory { path: PathBuf, source: io::Error },
    #[error("another process writes to the audit directory {path}")]
    Locked { path: PathBuf },
    #[error(
        "{path}: the last record cannot be read: the file was damaged or edited; move it aside and keep it for investigation"
    )]
    Damaged { path: PathBuf },
}
