//! What is done with closed segments: compressed, and removed when retention says so.

use std::{
    io,
    path::{Path, PathBuf},
};

use super::{
    export, gzip,
    segment::{self, Segment},
};
use crate::{durable, timestamp::Timestamp};

/// A closed segment that is old enough to go.
#[derive(Clone, Debug)]
pub struct Removable {
    pub name: String,
    pub path: PathBuf,
    pub last: u64,
    pub is_exported: bool,
    /// The note with which it was closed.
    pub checkpoint: String,
}

/// Compresses the oldest closed segment that is not, and that has its checkpoint.
pub fn compress_one(directory: &Path) -> io::Result<Option<PathBuf>> {
    let wanted =
        |segment: &Segment| segment.last.is_some() && !segment.is_compressed && segment.checkpoint_path().exists();
    match segment::list(directory)?.into_iter().find(wanted) {
        Some(segment) => gzip::compress(&segment.path).map(Some),
        None => Ok(None),
    }
}

/// The oldest closed segment, when it was closed before `before`.
pub fn removable(directory: &Path, before: Timestamp) -> io::Result<Option<Removable>> {
    let Some(segment) = segment::list(directory)?.into_iter().next() else { return Ok(None) };
    let Some((last, closed_at)) = segment.last.zip(segment.closed_at()) else { return Ok(None) };
    if closed_at >= before {
        return Ok(None);
    }
    match std::fs::read_to_string(segment.checkpoint_path()) {
        Ok(checkpoint) => Ok(Some(Removable {
            name: segment.name(),
            path: segment.path,
            last,
            is_exported: last <= export::exported(directory),
            checkpoint,
        })),
        // It will be signed first.
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes a segment and its checkpoint.
pub fn discard(removable: &Removable) -> io::Result<()> {
    std::fs::remove_file(&removable.path)?;
    std::fs::remove_file(removable.path.with_file_name(format!("{}.checkpoint", removable.name)))?;
    durable::sync_parent(&removable.path)
}
