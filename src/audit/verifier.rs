//! `audit verify`: everything about a trail that can be checked with the public audit key alone.

use std::{io, path::Path};

use super::{
    checkpoint::Checkpoint,
    merkle::Hash,
    opening::{self, Expected, Wrong},
    replay::{Head, Replay},
    saved,
    segment::{self, Segment},
};
use crate::key::PublicKey;

/// What was verified.
#[derive(Debug)]
pub struct Report {
    pub records: u64,
    pub files: usize,
    pub checkpoints: usize,
    /// Records that a checkpoint covers; those after it can still be taken away unnoticed.
    pub covered: u64,
    pub root: Hash,
    /// Intents that have no outcome.
    pub open: usize,
    /// What is worth a word and no fault.
    pub remarks: Vec<String>,
}

/// Verifies the trail in `directory`. `elsewhere` are checkpoints that were kept at another place: the
/// only witnesses against the removal of what came last. `progress` is told the records read.
pub fn verify(
    directory: &Path,
    keys: &[PublicKey],
    elsewhere: &[&Path],
    mut progress: impl FnMut(u64),
) -> Result<Report, Wrong> {
    let segments = segment::list(directory).map_err(|error| Wrong::new(directory, error.to_string()))?;
    let mut expected = opening::checkpoints_beside(directory, &segments, keys)?;
    for path in elsewhere {
        let note = std::fs::read_to_string(path).map_err(|error| Wrong::new(path, error.to_string()))?;
        expected.add(&Checkpoint::open(&note, keys).map_err(|error| Wrong::new(path, error.to_string()))?, path);
    }
    if segments.is_empty() && expected.furthest().is_none() {
        return Err(Wrong::new(directory, "there is no audit trail here"));
    }
    let mut verification = Verification { expected, replay: Replay::default(), remarks: Vec::new() };
    verification.begin_after_retired(directory, keys)?;
    for segment in &segments {
        verification.segment(segment, &mut progress)?;
    }
    verification.report(segments.len())
}

struct Verification {
    expected: Expected,
    replay: Replay,
    remarks: Vec<String>,
}

impl Verification {
    fn begin_after_retired(&mut self, directory: &Path, keys: &[PublicKey]) -> Result<(), Wrong> {
        let path = directory.join("audit.retired");
        let retired = saved::load_retired(directory, keys).map_err(|error| Wrong::new(&path, error.to_string()))?;
        if let Some((position, checkpoint)) = retired {
            self.remarks.push(format!(
                "records up to {} were removed by retention; {} stands for them",
                checkpoint.size,
                path.display()
            ));
            self.replay = Replay::from(position.tree, position.open);
        }
        Ok(())
    }

    fn segment(&mut self, segment: &Segment, progress: &mut impl FnMut(u64)) -> Result<(), Wrong> {
        if segment.last.is_some_and(|last| last <= self.replay.tree.size()) {
            self.remarks.push(format!("{} is older than what retention removed", segment.path.display()));
            return Ok(());
        }
        let expected = &self.expected;
        let end = opening::walk(segment, 0, &mut self.replay, |_, _, replay| {
            progress(replay.tree.size());
            expected.compare(replay, &segment.path)
        })?;
        if segment.last.is_some() {
            opening::end_of_closed(segment, &end, &self.replay)?;
            if !segment.checkpoint_path().exists() {
                self.remarks.push(format!("{} has no checkpoint of its own", segment.path.display()));
            }
            return Ok(());
        }
        self.end_of_growing(segment, end)
    }

    /// The end of the growing file may be torn: the next start accounts for it.
    fn end_of_growing(&mut self, segment: &Segment, end: opening::End) -> Result<(), Wrong> {
        if let Some((offset, bytes)) = end.unfinished {
            let next = self.replay.next_sequence();
            match Head::parse(&bytes) {
                Some(head) if head.sequence != next => {
                    return Err(Wrong::new(
                        &segment.path,
                        format!("at byte {offset}: record {} where {next} must follow", head.sequence),
                    ));
                }
                Some(_) | None => self.remarks.push(format!(
                    "{} ends with {} byte(s) of a record that a crash cut short; the next start accounts for them",
                    segment.path.display(),
                    bytes.len()
                )),
            }
        }
        if let Some(torn) = self.replay.torn() {
            self.remarks.push(format!(
                "{} has {} torn byte(s) at {}; the next start accounts for them",
                segment.path.display(),
                torn.bytes,
                torn.offset
            ));
        }
        Ok(())
    }

    fn report(self, files: usize) -> Result<Report, Wrong> {
        let records = self.replay.tree.size();
        let covered = match self.expected.furthest() {
            Some((size, path)) if size > records => {
                let what =
                    format!("it was signed over {size} records, but there are only {records}: the last are missing");
                return Err(Wrong::new(path, what));
            }
            Some((size, _)) => size,
            None => 0,
        };
        Ok(Report {
            records,
            files,
            checkpoints: self.expected.len(),
            covered,
            root: self.replay.tree.root(),
            open: self.replay.open.len(),
            remarks: self.remarks,
        })
    }
}

/// The public keys in a PEM file, however many there are.
pub fn keys_from_pem(path: &Path) -> io::Result<Vec<PublicKey>> {
    let text = std::fs::read_to_string(path)?;
    let keys = PublicKey::all_from_pem(&text)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not public keys in PEM form"))?;
    Ok(keys)
}

/// Where the signer leaves its public audit keys, for those who hold no copy of their own.
pub const KEYS: &str = "audit.keys.pem";
