//! Backups of what an appliance must not lose beside its token: configuration, ledger, certificates, public
//! keys, the audit trail with its checkpoint, and what the state directory remembers. No private key, no PIN,
//! no bearer key: those are in none of these files.
//!
//! A backup is a plain tar file. `SHA256SUMS` names every member with its hash; its lines are the leaves of a
//! Merkle tree, and `STATEMENT` is the head of that tree, signed in the token by the audit key (C2SP
//! tlog-checkpoint, under a name that no log has). The tar is written in one way only, so that there is no byte
//! in it that nothing vouches for.
//!
//! # Going back
//!
//! A backup is older than the world from the moment it is made. [`guard`] compares its ledger with everybody who may
//! remember a later one: the token, the state directory, the trail, a ledger file, Redis. Approvals are left out: one
//! that was rejected since would be good again.

mod container;
mod contents;
mod create;
mod drill;
mod guard;
mod manifest;
mod restore;
mod verify;

use std::{
    io,
    path::{Path, PathBuf},
};

pub use create::{Created, create};
pub use drill::drill;
pub use restore::restore;
pub use verify::{Backup, verify};

use crate::app::StartError;

/// What is told while it goes on: what was looked at, and what was found.
pub type Report<'a> = &'a mut dyn FnMut(&str, &str);

/// Why there is no backup, or no restored appliance.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{}: {source}", .path.display())]
    Io { path: PathBuf, source: io::Error },
    #[error("{0}")]
    Start(Box<StartError>),
    #[error("the backup is not what was signed: {member}: {what}. Use another copy of it")]
    Spoiled { member: String, what: String },
    #[error("{0}")]
    Older(Box<guard::Older>),
    #[error(
        "{} is there already: restore puts nothing in the place of what is there. Move it aside, if it is not needed",
        .0.display()
    )]
    Occupied(PathBuf),
    #[error("{0}")]
    Refused(String),
    #[error("the drill failed: {0}")]
    Differs(String),
}

impl From<StartError> for Error {
    fn from(error: StartError) -> Self {
        Self::Start(Box::new(error))
    }
}

impl From<guard::Older> for Error {
    fn from(older: guard::Older) -> Self {
        Self::Older(Box::new(older))
    }
}

impl Error {
    fn io(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { path, source }
    }

    fn spoiled(member: impl Into<String>, what: impl Into<String>) -> Self {
        Self::Spoiled { member: member.into(), what: what.into() }
    }
}
