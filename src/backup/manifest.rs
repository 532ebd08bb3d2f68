//! `SHA256SUMS` (`sha256sum --check` reads it) and the statement over it.

use super::Error;
use crate::{
    audit::{
        checkpoint::Checkpoint,
        merkle::{Frontier, leaf_hash},
    },
    key::{PublicKey, SignerId},
    timestamp::Timestamp,
};

/// No log is called so: theirs begin with the signer or with a host.
const PREFIX: &str = "verification-signer/backup/";

pub(super) const SUMS: &str = "SHA256SUMS";
pub(super) const STATEMENT: &str = "STATEMENT";

/// Members and their hashes, in the order in which they stand in the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Manifest(pub(super) Vec<(String, [u8; 32])>);

/// What a backup is called in its statement.
pub(super) fn origin(signer: &SignerId, at: Timestamp) -> String {
    format!("{PREFIX}{signer}/{at}")
}

impl Manifest {
    pub(super) fn lines(&self) -> impl Iterator<Item = String> {
        self.0.iter().map(|(name, hash)| format!("{}  {name}", hex::encode(hash)))
    }

    pub(super) fn to_text(&self) -> String {
        self.lines().map(|line| line + "\n").collect()
    }

    /// Only the one way of writing it is read.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let line = |line: &str| {
            let (hash, name) = line.split_once("  ")?;
            Some((name.to_owned(), hex::decode(hash).ok()?.try_into().ok()?))
        };
        let manifest = Self(text.lines().map(line).collect::<Option<_>>()?);
        (manifest.to_text() == text).then_some(manifest)
    }

    /// What is signed: how many members, and the root of their tree.
    pub(super) fn head(&self, origin: String) -> Checkpoint {
        let mut tree = Frontier::default();
        self.lines().for_each(|line| tree.append(leaf_hash(line.as_bytes())));
        Checkpoint { origin, size: tree.size(), root: tree.root() }
    }

    /// Whether the audit key has signed exactly this; which member is wrong where it has not.
    pub(super) fn check(&self, statement: &str, keys: &[PublicKey]) -> Result<(), Error> {
        let signed = Checkpoint::open(statement, keys).map_err(|error| Error::spoiled(STATEMENT, error.to_string()))?;
        // Signatures by others would be read over: nobody else signs a backup.
        let alone = statement.lines().filter(|line| line.starts_with('—')).count() == 1;
        if !signed.origin.starts_with(PREFIX) || !alone {
            return Err(Error::spoiled(STATEMENT, "it is no statement over a backup"));
        }
        if self.head(signed.origin.clone()) == signed {
            Ok(())
        } else {
            Err(Error::spoiled(SUMS, "it is not the one that was signed"))
        }
    }
}
