//! The thread that reads what the writer has written and indexes it.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError};

use super::{
    DATABASE, NODES, Progress,
    database::{Entry, Writer},
    inode,
    nodes::NodeFile,
    places::Place,
};
use crate::audit::{
    Position,
    condition::{Condition, Stop},
    filter::Facts,
    merkle::{Frontier, Hash, leaf_hash, root_at},
    segment::{self, Segment},
};

/// Records in one transaction.
const BATCH: usize = 10_000;

/// How often it looks without being woken.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long it lets records gather when nobody asks for them: one transaction for many costs little.
const GATHER: Duration = Duration::from_millis(200);

/// How often a long making of the index says how far it is.
const SAY_EVERY: Duration = Duration::from_secs(2);

/// Why the index cannot be made now.
#[derive(Debug, thiserror::Error)]
enum Trouble {
    #[error("{0}")]
    Io(#[from] std::io::Error),
    #[error("{0}")]
    Database(#[from] rusqlite::Error),
    #[error("the index does not fit the records")]
    Misfit,
}

pub struct Follower {
    directory: PathBuf,
    condition: Arc<Condition>,
    progress: Arc<Progress>,
    /// Size and root that the start-up check found: what the index must agree with.
    found: (u64, Hash),
    base: Frontier,
    /// Records that retention has removed, and that are no longer in the database.
    forgotten: u64,
    at: Option<At>,
}

/// Where it is.
struct At {
    database: Writer,
    nodes: NodeFile,
    tree: Frontier,
    begins_after: u64,
    offset: u64,
    /// Which files these are.
    files: [Option<u64>; 2],
}

/// Which files lie there, by their inodes.
fn files(directory: &Path) -> [Option<u64>; 2] {
    [DATABASE, NODES].map(|name| inode(&directory.join(name)))
}

impl Follower {
    pub fn new(
        directory: &Path,
        condition: Arc<Condition>,
        progress: Arc<Progress>,
        position: &Position,
        base: Frontier,
    ) -> Self {
        let found = (position.tree.size(), position.tree.root());
        Self { directory: directory.to_owned(), condition, progress, found, base, forgotten: 0, at: None }
    }

    /// Follows until the writer is gone. `asked`: somebody waits for the newest records.
    pub fn run(mut self, wake: &Receiver<()>, asked: &Receiver<()>) {
        let mut healthy = true;
        loop {
            // On a full disk what is left belongs to the records.
            let full = self.condition.stop() == Some(Stop::DiskFull);
            let result = if full { Ok(()) } else { self.catch_up() };
            match (&result, healthy) {
                (Err(error), true) => tracing::warn!(%error, "the audit trail cannot be indexed; it is made anew"),
                (Ok(()), false) => tracing::info!("the audit trail is indexed again"),
                (Ok(()), true) | (Err(_), false) => {}
            }
            healthy = result.is_ok();
            if let Err(error) = result {
                self.at = None;
                if matches!(error, Trouble::Misfit | Trouble::Database(_)) {
                    self.forget();
                }
                std::thread::sleep(LOOK_EVERY);
            }
            match wake.recv_timeout(LOOK_EVERY) {
                Ok(()) => {
                    // Whether somebody asks or the time is over: it goes on.
                    let _ = asked.recv_timeout(GATHER);
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    /// Removes the index, so that it is made anew.
    fn forget(&self) {
        for name in [DATABASE, "audit.index-wal", "audit.index-shm", NODES] {
            // What cannot be removed shows at the next attempt.
            let _ = std::fs::remove_file(self.directory.join(name));
        }
    }

    fn catch_up(&mut self) -> Result<(), Trouble> {
        let mut at = match self.at.take() {
            Some(at) if at.files == files(&self.directory) => at,
            // Somebody has removed or replaced it.
            Some(_) => return Err(Trouble::Misfit),
            None => self.open()?,
        };
        let retired = self.progress.retired.load(Ordering::Acquire);
        if retired > self.forgotten {
            at.database.forget(retired)?;
            self.forgotten = retired;
        }
        let (begun, mut said, first) = (Instant::now(), Instant::now(), at.tree.size());
        while at.tree.size() < self.condition.size() {
            let before = at.tree.size();
            self.read_some(&mut at)?;
            if at.tree.size() == before {
                // A file was being renamed: the next look finds it.
                break;
            }
            self.progress.set(at.tree.size());
            if said.elapsed() > SAY_EVERY {
                said = Instant::now();
                say(at.tree.size(), self.condition.size());
            }
        }
        self.progress.set(at.tree.size());
        if begun.elapsed() > SAY_EVERY {
            let (records, seconds) = (at.tree.size() - first, begun.elapsed().as_secs_f64());
            tracing::info!(records, seconds, "the audit trail is indexed");
        }
        self.at = Some(at);
        Ok(())
    }

    /// Opens the index, and begins it anew when it is missing or does not fit.
    fn open(&self) -> Result<At, Trouble> {
        let database = Writer::open(&self.directory.join(DATABASE))?.ok_or(Trouble::Misfit)?;
        let mut nodes = NodeFile::open(&self.directory.join(NODES))?;
        let Some(last) = database.last()? else {
            nodes.begin_after(&self.base)?;
            let begins_after = self.base.size();
            let files = files(&self.directory);
            return Ok(At { database, nodes, tree: self.base.clone(), begins_after, offset: 0, files });
        };
        let size = last.sequence;
        if size > self.condition.size() || !nodes.fit(size)? {
            return Err(Trouble::Misfit);
        }
        let tree = nodes.frontier(size)?.ok_or(Trouble::Misfit)?;
        if size >= self.found.0 && root_at(&nodes, self.found.0)? != self.found.1 {
            return Err(Trouble::Misfit);
        }
        let (offset, files) = (last.offset + last.length + 1, files(&self.directory));
        Ok(At { database, nodes, tree, begins_after: last.begins_after, offset, files })
    }

    /// Reads up to a batch of records of one segment.
    fn read_some(&self, at: &mut At) -> Result<(), Trouble> {
        let segments = segment::list(&self.directory)?;
        let current = segments.iter().find(|segment| segment.last.is_none_or(|last| last > at.begins_after));
        let Some(segment) = current else { return Ok(()) };
        let (entries, hashes, offset) = self.batch(at, segment)?;
        at.nodes.append(&hashes)?;
        at.database.add(&entries)?;
        at.offset = offset;
        if segment.last == Some(at.tree.size()) {
            at.begins_after = at.tree.size();
            at.offset = 0;
        }
        // When everything up to what the start found is here, the roots must agree.
        let (size, root) = self.found;
        if at.tree.size() >= size && at.tree.size() - entries.len() as u64 <= size && root_at(&at.nodes, size)? != root
        {
            return Err(Trouble::Misfit);
        }
        Ok(())
    }

    fn batch(&self, at: &mut At, segment: &Segment) -> Result<(Vec<Entry>, Vec<u8>, u64), Trouble> {
        let (mut entries, mut hashes) = (Vec::new(), Vec::new());
        let mut lines = segment.lines_from(at.offset)?;
        let mut offset = at.offset;
        // Beyond what the writer has told, a line may still be growing.
        while entries.len() < BATCH && at.tree.size() < self.condition.size() {
            let Some(line) = lines.next()? else { break };
            let Some(facts) = Facts::parse(line.bytes).filter(|facts| facts.sequence == at.tree.size() + 1) else {
                continue;
            };
            let place = Place {
                sequence: facts.sequence,
                begins_after: at.begins_after,
                offset: line.offset,
                length: line.bytes.len() as u64,
            };
            at.tree.append_with(leaf_hash(line.bytes), |node| hashes.extend_from_slice(node));
            offset = line.offset + line.bytes.len() as u64 + 1;
            entries.push(Entry::of(place, &facts));
        }
        Ok((entries, hashes, offset))
    }
}

/// A bar of twenty characters and a percentage.
fn say(indexed: u64, records: u64) {
    let percent = indexed * 100 / records.max(1);
    let done = usize::try_from(percent / 5).unwrap_or(20);
    let bar = format!("[{}{}] {percent} %", "#".repeat(done), ".".repeat(20 - done));
    tracing::info!(indexed, records, progress = bar, "indexing the audit trail");
}
