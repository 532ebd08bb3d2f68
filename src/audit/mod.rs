//! The audit trail: one JSON record a line, on disk before anything it speaks of takes effect.
//!
//! [`Recorded`] is minted only after `fdatasync`, and only from it can a signature be released.

pub mod checkpoint;
mod condition;
mod config;
mod copies;
mod event;
mod export;
mod filter;
mod gzip;
mod handle;
pub mod index;
pub mod journald;
mod opening;
mod reader;
mod replay;
mod saved;
mod segment;
mod space;
mod tidying;
mod verifier;
pub mod witness;
mod writer;

#[cfg(test)]
mod tests;

use std::{io, path::PathBuf};

pub use crate::merkle;
pub use condition::Stop;
pub use config::Config;
pub use copies::{Copies, records};
pub use event::{Event, EventType, Outcome, Severity, Source};
pub use export::{Format, export, exported, mark_exported};
pub use filter::Filter;
pub use handle::{Audit, Intent, Opened, Opening};
pub use index::{Index, IndexError, Page, Query};
pub use opening::{Closing, count};
pub use reader::{mentions_keys, revoked_keys};
pub use saved::{Position, known_origin, last_note, save as save_checkpoint, save_retired, was_signed};

pub use tidying::{Removable, compress_one, discard, removable};
pub use verifier::{KEYS, Report, keys_from_pem, verify};

use crate::evidence::Receipt;

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

/// The records of what one signature covers are on disk.
#[derive(Debug)]
pub struct Recorded {
    written: Written,
    records: usize,
    signature_digest: [u8; 32],
}

impl Recorded {
    /// The place of the first of them in the trail; the others follow it.
    #[must_use]
    pub fn sequence(&self) -> u64 {
        self.written.sequence
    }
}

impl Receipt for Recorded {
    fn signature_digest(&self) -> &[u8; 32] {
        &self.signature_digest
    }

    fn records(&self) -> usize {
        self.records
    }
}

/// Why a record is not on disk, or not known to be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// Nothing, or only little, is written.
    #[error("{}", .0.describe())]
    Stopped(Stop),
    /// More records wait than the queue holds.
    #[error("the audit queue is full")]
    Busy,
    /// The trail is not the one that others remember.
    #[error("{0}")]
    Withheld(String),
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
        "the audit trail is damaged: {path}: {what}. Keep the directory for investigation (verification-signer audit verify says more), and put back what is missing, or move all of it aside"
    )]
    Damaged { path: PathBuf, what: String },
    #[error(
        "{witness} {what}: it was rolled back, or its newest files are missing. Put them back; to go on with the trail as it is now, set audit.accept_checkpoint = \"{accept}\" and start again"
    )]
    Behind { witness: String, what: String, accept: String },
}
