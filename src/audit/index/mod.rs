//! Searching the trail and proving its parts. All of it is derived from the files and made again when
//! missing, by a thread of its own that follows the writer; no request waits for it to be signed.

mod database;
mod follower;
mod nodes;
mod places;

use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use rusqlite::Connection;
use tokio::sync::Notify;

pub use database::Query;

use super::{
    Position,
    condition::{Condition, Stop},
    filter::Facts,
    gzip,
    merkle::{self, Hash},
    segment::{self, Segment},
};
use crate::durable::DirectoryLock;
use follower::Follower;
use nodes::NodeFile;
use places::Place;

/// How long a question waits for the newest records to be indexed.
const PATIENCE: Duration = Duration::from_secs(2);

/// The database.
const DATABASE: &str = "audit.index";
const NODES: &str = "audit.nodes";

/// Why a question has no answer.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error("the index is being made: {indexed} of {records} records")]
    Building { indexed: u64, records: u64 },
    #[error("the search took too long")]
    TooBroad,
    #[error("the trail has {records} records")]
    Beyond { records: u64 },
    #[error("the index cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("the index cannot be read: {0}")]
    Database(#[from] rusqlite::Error),
}

/// A page of records, each as its line in the file.
#[derive(Debug)]
pub struct Page {
    pub records: Vec<Vec<u8>>,
    /// Where the next page begins, when there may be one.
    pub next: Option<u64>,
}

/// How far the index has come.
#[derive(Default)]
pub(super) struct Progress {
    indexed: AtomicU64,
    /// Records that retention has removed.
    retired: AtomicU64,
    moved: Notify,
}

impl Progress {
    fn set(&self, indexed: u64) {
        self.indexed.store(indexed, Ordering::Release);
        self.moved.notify_waiters();
    }
}

/// The index of one trail. Cheap to clone.
#[derive(Clone)]
pub struct Index(Arc<Inner>);

struct Inner {
    directory: PathBuf,
    condition: Arc<Condition>,
    progress: Arc<Progress>,
    /// Each with the file that it has open.
    readers: Mutex<Vec<(Option<u64>, Connection)>>,
    ask: crossbeam_channel::Sender<()>,
}

impl Index {
    /// Starts the thread that follows the trail. `position` is what the start found, `base` where the
    /// records begin that are still there.
    pub(super) fn start(
        lock: Arc<DirectoryLock>,
        directory: &Path,
        condition: Arc<Condition>,
        wake: crossbeam_channel::Receiver<()>,
        position: &Position,
        base: merkle::Frontier,
    ) -> io::Result<Self> {
        let progress = Arc::new(Progress::default());
        progress.retired.store(base.size(), Ordering::Release);
        let (ask, asked) = crossbeam_channel::bounded(1);
        let follower = Follower::new(directory, Arc::clone(&condition), Arc::clone(&progress), position, base);
        thread::Builder::new().name("trail-index".into()).spawn(move || {
            follower.run(&wake, &asked);
            drop(lock);
        })?;
        let directory = directory.to_owned();
        Ok(Self(Arc::new(Inner { directory, condition, progress, readers: Mutex::new(Vec::new()), ask })))
    }

    /// How many records are indexed.
    #[must_use]
    pub fn indexed(&self) -> u64 {
        self.0.progress.indexed.load(Ordering::Acquire)
    }

    /// From now on the records up to this one are not there any more.
    pub fn retire(&self, until: u64) {
        self.0.progress.retired.store(until, Ordering::Release);
    }

    /// The frontier of the first `size` records. Blocking.
    pub fn frontier(&self, size: u64) -> Result<merkle::Frontier, IndexError> {
        self.has(size)?;
        Ok(self.nodes()?.frontier(size)?.ok_or(io::Error::from(io::ErrorKind::InvalidData))?)
    }

    /// Waits a little until everything written before this call is indexed.
    pub async fn caught_up(&self) -> Result<(), IndexError> {
        let records = self.0.condition.size();
        if self.0.condition.stop() == Some(Stop::DiskFull) {
            // Nothing is indexed now: what was before can be searched.
            return Ok(());
        }
        let wait = async {
            loop {
                let moved = self.0.progress.moved.notified();
                if self.indexed() >= records {
                    return;
                }
                // Full: somebody has asked already.
                let _ = self.0.ask.try_send(());
                moved.await;
            }
        };
        let patience = tokio::time::timeout(PATIENCE, wait).await;
        patience.map_err(|_| IndexError::Building { indexed: self.indexed(), records })
    }

    /// One page of a search. Blocking.
    pub fn search(&self, query: &Query) -> Result<Page, IndexError> {
        match self.search_once(query) {
            // A file was compressed or closed meanwhile: under its new name it is found.
            Err(IndexError::Io(error)) if error.kind() == io::ErrorKind::NotFound => self.search_once(query),
            done => done,
        }
    }

    fn search_once(&self, query: &Query) -> Result<Page, IndexError> {
        let path = self.0.directory.join(DATABASE);
        let file = inode(&path);
        let pooled = self.0.readers.lock().pop();
        let connection = match pooled {
            Some((opened, connection)) if opened == file => connection,
            // The index was made anew since.
            Some(_) | None => database::reader(&path)?,
        };
        let places = database::search(&connection, query, self.0.progress.retired.load(Ordering::Acquire))?;
        self.0.readers.lock().push((file, connection));
        let next = places.last().filter(|_| places.len() == query.limit).map(|place| place.sequence);
        let mut records = Vec::with_capacity(places.len());
        let mut files = Files::new(&self.0.directory)?;
        for place in places {
            let line = files.read(&place)?;
            // The index holds hashes: the record itself decides.
            let fits = |facts: &Facts<'_>| facts.sequence == place.sequence && query.filter.accepts(facts);
            if Facts::parse(&line).as_ref().is_some_and(fits) {
                records.push(line);
            }
        }
        Ok(Page { records, next })
    }

    /// The record with this sequence and its path to the root of the first `size` records. Blocking.
    pub fn inclusion(&self, sequence: u64, size: u64) -> Result<Vec<Hash>, IndexError> {
        self.has(size)?;
        if sequence == 0 || sequence > size {
            return Err(IndexError::Beyond { records: size });
        }
        Ok(merkle::inclusion_proof(&self.nodes()?, sequence - 1, size)?)
    }

    /// The proof that the first `from` of `to` records are those of the smaller tree. Blocking.
    pub fn consistency(&self, from: u64, to: u64) -> Result<Vec<Hash>, IndexError> {
        self.has(to)?;
        if from > to {
            return Err(IndexError::Beyond { records: to });
        }
        Ok(merkle::consistency_proof(&self.nodes()?, from, to)?)
    }

    /// The root of the first `size` records. Blocking.
    pub fn root(&self, size: u64) -> Result<Hash, IndexError> {
        self.has(size)?;
        Ok(merkle::root_at(&self.nodes()?, size)?)
    }

    /// A record's line. Blocking.
    pub fn record(&self, sequence: u64) -> Result<Vec<u8>, IndexError> {
        let cursor = Some(sequence.checked_sub(1).ok_or(IndexError::Beyond { records: 0 })?);
        let query = Query { filter: super::Filter::default(), limit: 1, newest_first: false, cursor };
        let mut page = self.search(&query)?;
        page.records.pop().ok_or_else(|| io::Error::from(io::ErrorKind::NotFound).into())
    }

    /// The leaf of a record. Blocking.
    pub fn leaf(&self, sequence: u64) -> Result<Hash, IndexError> {
        self.has(sequence)?;
        Ok(merkle::Nodes::node(&self.nodes()?, 0, sequence - 1)?)
    }

    fn has(&self, size: u64) -> Result<(), IndexError> {
        let (indexed, records) = (self.indexed(), self.0.condition.size());
        if size > records {
            Err(IndexError::Beyond { records })
        } else if size > indexed {
            Err(IndexError::Building { indexed, records })
        } else {
            Ok(())
        }
    }

    fn nodes(&self) -> io::Result<NodeFile> {
        NodeFile::open(&self.0.directory.join(NODES))
    }
}

/// Which file lies there.
fn inode(path: &Path) -> Option<u64> {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata(path).ok().map(|metadata| metadata.ino())
}

/// The files that records are read from, each opened once.
struct Files {
    segments: Vec<Segment>,
    open: Option<(u64, std::fs::File)>,
}

impl Files {
    fn new(directory: &Path) -> io::Result<Self> {
        Ok(Self { segments: segment::list(directory)?, open: None })
    }

    fn read(&mut self, place: &Place) -> io::Result<Vec<u8>> {
        use std::os::unix::fs::FileExt;
        let length = usize::try_from(place.length).map_err(io::Error::other)?;
        let segment = self.segments.iter().find(|segment| segment.last.is_none_or(|last| last > place.begins_after));
        let segment = segment.ok_or(io::ErrorKind::NotFound)?;
        if segment.is_compressed {
            return gzip::read_at(&segment.path, place.offset, length);
        }
        let file = match self.open.take().filter(|(begins_after, _)| *begins_after == place.begins_after) {
            Some((_, file)) => file,
            None => std::fs::File::open(&segment.path)?,
        };
        let mut line = vec![0; length];
        file.read_exact_at(&mut line, place.offset)?;
        self.open = Some((place.begins_after, file));
        Ok(line)
    }
}
