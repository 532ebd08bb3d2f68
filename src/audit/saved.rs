//! What is kept beside the records so that a start need not read all of them: the last checkpoint,
//! the frontier of its tree, and where in the file it stands. All of it can be made again from the
//! records; none of it is believed beyond what the checkpoint's signature covers.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};

use super::{
    checkpoint::{Checkpoint, Invalid},
    merkle::{Frontier, Hash},
    replay::OpenIntent,
};
use crate::{durable, key::PublicKey};

/// The last checkpoint, as a note and nothing else.
pub const CHECKPOINT: &str = "audit.checkpoint";
const STATE: &str = "audit.state";
/// Stands for the records that retention has removed.
const RETIRED: &str = "audit.retired";

/// Where the trail stood at a moment.
#[derive(Clone, Debug, Default)]
pub struct Position {
    pub tree: Frontier,
    /// Records before the growing file.
    pub begins_after: u64,
    /// Bytes in the growing file.
    pub offset: u64,
    pub open: BTreeMap<u64, OpenIntent>,
    /// Names of the closed segments that must be there.
    pub closed: Vec<String>,
}

/// A position and the checkpoint that covers it.
#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    checkpoint: String,
    peaks: Vec<String>,
    #[serde(default)]
    begins_after: u64,
    #[serde(default)]
    offset: u64,
    #[serde(default)]
    open: BTreeMap<u64, OpenIntent>,
    #[serde(default)]
    closed: Vec<String>,
}

/// Why what was kept cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum Unusable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it cannot be read")]
    Unreadable,
    #[error("its checkpoint: {0}")]
    Checkpoint(#[from] Invalid),
    #[error("its hashes are not those of its checkpoint")]
    Hashes,
}

fn path(directory: &Path, name: &str) -> PathBuf {
    directory.join(name)
}

/// Keeps a position under its checkpoint.
pub fn save(directory: &Path, position: &Position, note: &str) -> io::Result<()> {
    store(&path(directory, STATE), position, note)?;
    durable::replace(&path(directory, CHECKPOINT), note.as_bytes())
}

/// Keeps what verifiers need once the records up to `position` are gone.
pub fn save_retired(directory: &Path, position: &Position, note: &str) -> io::Result<()> {
    store(&path(directory, RETIRED), position, note)
}

/// The last position that was kept, if any was.
pub fn load(directory: &Path, keys: &[PublicKey]) -> Result<Option<(Position, Checkpoint)>, Unusable> {
    restore(&path(directory, STATE), keys)
}

/// Where the records begin that are still there.
pub fn load_retired(directory: &Path, keys: &[PublicKey]) -> Result<Option<(Position, Checkpoint)>, Unusable> {
    restore(&path(directory, RETIRED), keys)
}

/// Whether the trail was ever signed.
#[must_use]
pub fn was_signed(directory: &Path) -> bool {
    [CHECKPOINT, STATE, RETIRED].iter().any(|name| path(directory, name).exists())
}

/// The log's name in its last checkpoint.
#[must_use]
pub fn known_origin(directory: &Path, keys: &[PublicKey]) -> Option<String> {
    let note = last_note(directory).ok().flatten()?;
    Some(Checkpoint::open(&note, keys).ok()?.origin)
}

/// The last checkpoint's note.
pub fn last_note(directory: &Path) -> io::Result<Option<String>> {
    match std::fs::read_to_string(path(directory, CHECKPOINT)) {
        Ok(note) => Ok(Some(note)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn store(path: &Path, position: &Position, note: &str) -> io::Result<()> {
    let stored = Stored {
        checkpoint: note.to_owned(),
        peaks: position.tree.peaks().iter().map(hex::encode).collect(),
        begins_after: position.begins_after,
        offset: position.offset,
        open: position.open.clone(),
        closed: position.closed.clone(),
    };
    durable::replace(path, &serde_json::to_vec_pretty(&stored).expect("text and numbers"))
}

fn restore(path: &Path, keys: &[PublicKey]) -> Result<Option<(Position, Checkpoint)>, Unusable> {
    let bytes = match std::fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let stored: Stored = serde_json::from_slice(&bytes).map_err(|_| Unusable::Unreadable)?;
    let checkpoint = Checkpoint::open(&stored.checkpoint, keys)?;
    let peaks: Option<Vec<Hash>> = stored.peaks.iter().map(|hash| hex::decode(hash).ok()?.try_into().ok()).collect();
    let tree = peaks.and_then(|peaks| Frontier::from_parts(checkpoint.size, peaks)).ok_or(Unusable::Hashes)?;
    if tree.root() != checkpoint.root {
        return Err(Unusable::Hashes);
    }
    let Stored { begins_after, offset, open, closed, .. } = stored;
    Ok(Some((Position { tree, begins_after, offset, open, closed }, checkpoint)))
}
