//! The start-up check: establishes what is on disk before anything is appended to it. A saved
//! checkpoint spares it the records before; without one it reads everything. A torn last record is
//! accounted for, and anything else that is not as it must be refuses the start and says where.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use super::{
    OpenError,
    checkpoint::Checkpoint,
    merkle::Hash,
    replay::{Fault, Head, Replay, Torn},
    saved::{self, Position},
    segment::{self, Line, Segment},
};
use crate::key::PublicKey;

/// A segment that was closed and has no checkpoint yet.
#[derive(Clone, Debug)]
pub struct Closing {
    pub segment: PathBuf,
    pub position: Position,
}

/// What was found.
#[derive(Debug, Default)]
pub struct Found {
    pub position: Position,
    /// Records in the last checkpoint.
    pub checkpoint_size: u64,
    pub torn: Option<Torn>,
    /// The file's last line has no newline.
    pub wants_newline: bool,
    pub closings: Vec<Closing>,
}

/// A place in a file where something is wrong.
#[derive(Debug)]
pub struct Wrong {
    pub path: PathBuf,
    pub what: String,
}

impl Wrong {
    pub(super) fn new(path: &Path, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), what: what.into() }
    }
}

/// Roots that the tree must have at some sizes, and who says so.
#[derive(Debug, Default)]
pub struct Expected(BTreeMap<u64, Vec<(Hash, PathBuf)>>);

impl Expected {
    /// Adds a checkpoint.
    pub fn add(&mut self, checkpoint: &Checkpoint, path: &Path) {
        self.0.entry(checkpoint.size).or_default().push((checkpoint.root, path.to_owned()));
    }

    /// Compares the tree, at the size that it has now, with the checkpoints of that size.
    pub fn compare(&self, replay: &Replay, path: &Path) -> Result<(), Wrong> {
        let Some(roots) = self.0.get(&replay.tree.size()) else { return Ok(()) };
        let root = replay.tree.root();
        match roots.iter().find(|(expected, _)| *expected != root) {
            None => Ok(()),
            Some((_, checkpoint)) => Err(Wrong::new(
                path,
                format!(
                    "the records up to {} are not those that were signed in {}",
                    replay.tree.size(),
                    checkpoint.display()
                ),
            )),
        }
    }

    /// The checkpoint of the greatest size.
    pub fn furthest(&self) -> Option<(u64, &Path)> {
        let (size, roots) = self.0.last_key_value()?;
        roots.first().map(|(_, path)| (*size, path.as_path()))
    }

    /// How many checkpoints there are.
    pub fn len(&self) -> usize {
        self.0.values().map(Vec::len).sum()
    }
}

/// The checkpoints that lie beside the records.
pub fn checkpoints_beside(directory: &Path, segments: &[Segment], keys: &[PublicKey]) -> Result<Expected, Wrong> {
    let mut expected = Expected::default();
    let closed = segments.iter().filter(|segment| segment.last.is_some()).map(Segment::checkpoint_path);
    for path in closed.chain([directory.join(saved::CHECKPOINT)]) {
        match std::fs::read_to_string(&path) {
            Ok(note) => {
                let checkpoint = Checkpoint::open(&note, keys).map_err(|error| Wrong::new(&path, error.to_string()))?;
                expected.add(&checkpoint, &path);
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(Wrong::new(&path, error.to_string())),
        }
    }
    Ok(expected)
}

/// What stands at the end of one segment.
#[derive(Debug)]
pub struct End {
    /// Where the file ends.
    pub offset: u64,
    /// What follows the last newline, and where.
    pub unfinished: Option<(u64, Vec<u8>)>,
}

/// Reads one segment to its end; `each` sees every record once the tree has it.
pub fn walk(
    segment: &Segment,
    offset: u64,
    replay: &mut Replay,
    mut each: impl FnMut(&Line<'_>, &Head<'_>, &Replay) -> Result<(), Wrong>,
) -> Result<End, Wrong> {
    let path = &segment.path;
    let mut lines = segment.lines_from(offset).map_err(|error| Wrong::new(path, error.to_string()))?;
    let mut unfinished = None;
    while let Some(line) = lines.next().map_err(|error| Wrong::new(path, error.to_string()))? {
        if line.is_whole {
            if let Some(head) = replay.line(&line).map_err(|fault| Wrong::new(path, fault.to_string()))? {
                each(&line, &head, replay)?;
            }
        } else if unfinished.is_some() || line.bytes.len() as u64 >= segment::LONGEST_LINE {
            return Err(Wrong::new(path, format!("at byte {}: a line longer than any record", line.offset)));
        } else {
            unfinished = Some((line.offset, line.bytes.to_vec()));
        }
    }
    Ok(End { offset: lines.offset(), unfinished })
}

/// The end of a closed segment: every byte is accounted for, and its name tells its last record.
pub fn end_of_closed(segment: &Segment, end: &End, replay: &Replay) -> Result<(), Wrong> {
    if let Some((offset, bytes)) = &end.unfinished {
        let fault = Fault::Unfinished { offset: *offset, bytes: bytes.len() as u64 };
        return Err(Wrong::new(&segment.path, fault.to_string()));
    }
    replay.end_of_segment().map_err(|fault| Wrong::new(&segment.path, fault.to_string()))?;
    match segment.last {
        Some(last) if last != replay.tree.size() => Err(Wrong::new(
            &segment.path,
            format!("its last record is {}, and its name says {last}", replay.tree.size()),
        )),
        Some(_) | None => Ok(()),
    }
}

/// Examines the trail in `directory`. `progress` is told how many records have been read.
pub fn examine(directory: &Path, keys: &[PublicKey], progress: impl FnMut(u64)) -> Result<Found, OpenError> {
    Examination::begin(directory, keys)
        .and_then(|examination| examination.run(progress))
        .map_err(|Wrong { path, what }| OpenError::Damaged { path, what })
}

/// The same without changing anything: how many records there are.
pub fn count(directory: &Path, keys: &[PublicKey]) -> Result<u64, OpenError> {
    examine(directory, keys, |_| ()).map(|found| found.position.tree.size())
}

struct Examination {
    segments: Vec<Segment>,
    found: Found,
    expected: Expected,
    /// The first segment to read, and where.
    offset: u64,
}

impl Examination {
    fn begin(directory: &Path, keys: &[PublicKey]) -> Result<Self, Wrong> {
        let segments = segment::list(directory).map_err(|error| Wrong::new(directory, error.to_string()))?;
        let kept = |kept: Result<_, saved::Unusable>, name: &str| {
            kept.map_err(|error| Wrong::new(&directory.join(name), error.to_string()))
        };
        if let Some((position, checkpoint)) = kept(saved::load(directory, keys), "audit.state")? {
            return Self::from_saved(directory, segments, position, &checkpoint);
        }
        let mut expected = checkpoints_beside(directory, &segments, keys)?;
        let mut found = Found::default();
        if let Some((position, checkpoint)) = kept(saved::load_retired(directory, keys), "audit.retired")? {
            expected.add(&checkpoint, &directory.join("audit.retired"));
            found.position = position;
        }
        if let Some((size, _)) = expected.furthest() {
            found.checkpoint_size = size;
        }
        found.position.begins_after = found.position.tree.size();
        found.position.offset = 0;
        let begin = found.position.begins_after;
        // A crash between a removal and its bookkeeping leaves nothing; one before it, a file too many.
        let segments = segments.into_iter().filter(|segment| segment.last.is_none_or(|last| last > begin)).collect();
        Ok(Self { segments, found, expected, offset: 0 })
    }

    fn from_saved(
        directory: &Path,
        segments: Vec<Segment>,
        position: Position,
        checkpoint: &Checkpoint,
    ) -> Result<Self, Wrong> {
        let present: Vec<_> = segments.iter().map(Segment::name).collect();
        if let Some(missing) = position.closed.iter().find(|name| !present.contains(name)) {
            return Err(Wrong::new(&directory.join(missing), "this file of the trail is missing"));
        }
        let (begin, offset) = (position.begins_after, position.offset);
        let segments: Vec<_> =
            segments.into_iter().filter(|segment| segment.last.is_none_or(|last| last > begin)).collect();
        let mut expected = Expected::default();
        expected.add(checkpoint, &directory.join(saved::CHECKPOINT));
        let found = Found { checkpoint_size: checkpoint.size, position, ..Found::default() };
        let examination = Self { segments, found, expected, offset };
        examination.check_length(directory)?;
        Ok(examination)
    }

    /// The file must at least reach to where the checkpoint was taken.
    fn check_length(&self, directory: &Path) -> Result<(), Wrong> {
        if self.offset == 0 {
            return Ok(());
        }
        let size = self.found.checkpoint_size;
        let Some(first) = self.segments.first() else {
            return Err(Wrong::new(&directory.join(segment::OPEN), format!("this file with record {size} is missing")));
        };
        let cut = || Wrong::new(&first.path, format!("records up to {size} were signed, but the file ends before"));
        let mut lines = first.lines_from(self.offset - 1).map_err(|_| cut())?;
        match lines.next().map_err(|_| cut())? {
            Some(line) if line.bytes.is_empty() && line.is_whole => Ok(()),
            Some(_) | None => Err(cut()),
        }
    }

    fn run(mut self, mut progress: impl FnMut(u64)) -> Result<Found, Wrong> {
        let Position { tree, open, .. } = self.found.position.clone();
        let mut replay = Replay::from(tree, open);
        let expected = std::mem::take(&mut self.expected);
        let mut offset = self.offset;
        for segment in std::mem::take(&mut self.segments) {
            expected.compare(&replay, &segment.path)?;
            let end = walk(&segment, offset, &mut replay, |_, _, replay| {
                progress(replay.tree.size());
                expected.compare(replay, &segment.path)
            })?;
            offset = 0;
            if segment.last.is_some() {
                end_of_closed(&segment, &end, &replay)?;
                self.close(&segment, &replay);
            } else {
                self.finish_open(&segment, &end, &mut replay)?;
            }
        }
        let position = &mut self.found.position;
        position.tree = replay.tree.clone();
        position.open = replay.open.clone();
        self.found.torn = replay.torn();
        match expected.furthest() {
            Some((size, path)) if size > replay.tree.size() => Err(Wrong::new(
                path,
                format!("it was signed over {size} records, but there are only {}", replay.tree.size()),
            )),
            Some(_) | None => Ok(self.found),
        }
    }

    /// Notes a closed segment, and that it still wants its checkpoint if it does.
    fn close(&mut self, segment: &Segment, replay: &Replay) {
        let position = &mut self.found.position;
        if !position.closed.contains(&segment.name()) {
            position.closed.push(segment.name());
        }
        position.begins_after = replay.tree.size();
        position.offset = 0;
        if !segment.checkpoint_path().exists() {
            let position = Position {
                tree: replay.tree.clone(),
                open: replay.open.clone(),
                offset: 0,
                ..self.found.position.clone()
            };
            self.found.closings.push(Closing { segment: segment.path.clone(), position });
        }
    }

    /// The end of the growing file: a record whose newline alone is missing is whole, and what is no
    /// record was torn by a crash.
    fn finish_open(&mut self, segment: &Segment, end: &End, replay: &mut Replay) -> Result<(), Wrong> {
        self.found.position.offset = end.offset;
        if let Some((offset, bytes)) = &end.unfinished {
            self.found.wants_newline = true;
            let line = Line { offset: *offset, bytes, is_whole: true };
            replay.line(&line).map_err(|fault| Wrong::new(&segment.path, fault.to_string()))?;
        }
        Ok(())
    }
}
