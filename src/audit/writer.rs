//! The one writer of the trail: a thread that owns the file. Records that arrive while a batch is
//! being synced share the next `fdatasync`.

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use crossbeam_channel::{Receiver, Sender, TrySendError};
use tokio::sync::{Notify, oneshot};

use super::{Config, Error, Event, OpenError, Recorded, Source, Written, reader};
use crate::{
    durable::{self, AppendLog, DirectoryLock},
    metrics::Metrics,
    timestamp::Timestamp,
};

/// The segment being written; closed ones are `audit.log.<time>-<last sequence>`.
pub(super) const FILE_NAME: &str = "audit.log";

/// Records that may wait for the disk before callers are turned away.
const QUEUE: usize = 8192;

/// Records in one write.
const BATCH: usize = 512;

enum Job {
    Append { record: Encoded, done: oneshot::Sender<Result<Written, Error>> },
    Rotate { at: Timestamp, done: oneshot::Sender<Result<PathBuf, Error>> },
}

/// Event type and severity, as metric labels.
type Labels = [&'static str; 2];

/// A record encoded by whoever made it, so that the one writer only puts lines together.
struct Encoded {
    json: Vec<u8>,
    labels: Labels,
}

/// The trail, open for appending. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    jobs: Sender<Job>,
    failure: Arc<Failure>,
}

/// Set once, never cleared: after a failed write or sync the file's state is unknown.
#[derive(Default)]
struct Failure {
    happened: AtomicBool,
    wake: Notify,
}

impl Audit {
    /// Opens the trail in the configured directory and starts its writer. The directory must
    /// exist; a torn last record (a crash in mid-write) is ended with a newline and left in place.
    pub fn open(config: &Config, source: &Source, metrics: Arc<Metrics>) -> Result<Self, OpenError> {
        let directory = config.directory.clone();
        let unusable = |source| OpenError::Directory { path: directory.clone(), source };
        let lock = durable::lock_directory(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::Locked { path: directory.clone() },
            _ => unusable(error),
        })?;
        let path = directory.join(FILE_NAME);
        let mut log = AppendLog::open(&path).map_err(unusable)?;
        let last = last_sequence(&mut log, &directory, &path)?;
        let (jobs, queue) = crossbeam_channel::bounded(QUEUE);
        let failure = Arc::new(Failure::default());
        let writer = Writer {
            log: Some(log),
            directory: directory.clone(),
            last,
            source: serde_json::to_vec(source).expect("a source is plain text"),
            metrics,
            failure: Arc::clone(&failure),
            _lock: lock,
        };
        thread::Builder::new().name("audit-writer".into()).spawn(move || writer.run(&queue)).map_err(unusable)?;
        Ok(Self { jobs, failure })
    }

    /// Appends a record; returns when it is on disk.
    pub async fn record(&self, event: Event) -> Result<Written, Error> {
        let (done, wait) = oneshot::channel();
        let record = Encoded { json: event.to_json(), labels: [event.kind.as_str(), event.severity.as_str()] };
        self.submit(Job::Append { record, done })?;
        wait.await.map_err(|_| Error::Failed)?
    }

    /// Appends the record of a signature; the receipt is what releases it.
    pub async fn record_signature(&self, event: Event, signature_digest: [u8; 32]) -> Result<Recorded, Error> {
        let written = self.record(event.detail("signature_sha256", hex::encode(signature_digest))).await?;
        Ok(Recorded { written, signature_digest })
    }

    /// Closes the current file under a name of its own and begins a new one.
    pub async fn rotate(&self, at: Timestamp) -> Result<PathBuf, Error> {
        let (done, wait) = oneshot::channel();
        self.submit(Job::Rotate { at, done })?;
        wait.await.map_err(|_| Error::Failed)?
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        if self.has_failed() {
            return Err(Error::Failed);
        }
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Failed,
        })
    }

    /// True once a write or sync has failed.
    #[must_use]
    pub fn has_failed(&self) -> bool {
        self.failure.happened.load(Ordering::Acquire)
    }

    /// Returns when the trail has failed.
    pub async fn failed(&self) {
        loop {
            let woken = self.failure.wake.notified();
            if self.has_failed() {
                return;
            }
            woken.await;
        }
    }
}

struct Writer {
    log: Option<AppendLog>,
    directory: PathBuf,
    last: u64,
    /// The `source` of every record, encoded once.
    source: Vec<u8>,
    metrics: Arc<Metrics>,
    failure: Arc<Failure>,
    _lock: DirectoryLock,
}

impl Writer {
    fn run(mut self, queue: &Receiver<Job>) {
        while let Ok(first) = queue.recv() {
            let mut batch = Batch::default();
            let mut next = Some(first);
            while let Some(job) = next.take() {
                match job {
                    Job::Append { record, done } => {
                        self.last += 1;
                        batch.add(&record.json, self.last, &self.source);
                        batch.waiting.push((record.labels, done));
                    }
                    Job::Rotate { at, done } => {
                        self.write(std::mem::take(&mut batch));
                        // A receiver that is gone has stopped waiting for the answer.
                        let _ = done.send(self.rotate(at));
                    }
                }
                if batch.waiting.len() < BATCH {
                    next = queue.try_recv().ok();
                }
            }
            self.write(batch);
        }
    }

    /// One write, one `fdatasync`, then everyone who waited learns the same answer.
    fn write(&mut self, batch: Batch) {
        if batch.waiting.is_empty() {
            return;
        }
        let begun = Instant::now();
        let first = self.last + 1 - batch.waiting.len() as u64;
        let result = self.append(&batch.bytes);
        self.metrics.audit_flush_latency.observe(begun.elapsed().as_secs_f64());
        for ((labels, done), sequence) in batch.waiting.into_iter().zip(first..) {
            if result.is_ok() {
                self.metrics.audit_events.with_label_values(&labels).inc();
            }
            let _ = done.send(result.clone().map(|()| Written { sequence }));
        }
    }

    fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let log = self.log.as_mut().ok_or(Error::Failed)?;
        match log.append(bytes) {
            Ok(()) if log.is_in_place() => Ok(()),
            Ok(()) => Err(self.fail("audit.log was moved, replaced or removed while it was being written")),
            Err(error) => Err(self.fail(&error.to_string())),
        }
    }

    fn rotate(&mut self, at: Timestamp) -> Result<PathBuf, Error> {
        if self.log.as_ref().is_some_and(AppendLog::is_empty) {
            // There is nothing to close.
            return Ok(self.directory.join(FILE_NAME));
        }
        let log = self.log.take().ok_or(Error::Failed)?;
        let stamp = at.to_string().replace([':', '-'], "");
        let closed = self.directory.join(format!("{FILE_NAME}.{stamp}-{:012}", self.last));
        match log.rotate(&closed) {
            Ok(log) => {
                self.log = Some(log);
                Ok(closed)
            }
            Err(error) => Err(self.fail(&error.to_string())),
        }
    }

    fn fail(&mut self, why: &str) -> Error {
        tracing::error!(why, "the audit trail failed; no signature will be released");
        self.log = None;
        self.failure.happened.store(true, Ordering::Release);
        self.failure.wake.notify_waiters();
        Error::Failed
    }
}

#[derive(Default)]
struct Batch {
    bytes: Vec<u8>,
    waiting: Vec<(Labels, oneshot::Sender<Result<Written, Error>>)>,
}

impl Batch {
    /// One line: the sequence first, then the event's own fields, the source last.
    fn add(&mut self, event: &[u8], sequence: u64, source: &[u8]) {
        let fields = event.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).expect("an event is an object");
        self.bytes.extend_from_slice(format!("{{\"sequence\":{sequence},").as_bytes());
        self.bytes.extend_from_slice(fields);
        self.bytes.extend_from_slice(b",\"source\":");
        self.bytes.extend_from_slice(source);
        self.bytes.extend_from_slice(b"}\n");
    }
}

/// The last sequence in the trail: from the current file, or from the newest closed one.
fn last_sequence(log: &mut AppendLog, directory: &Path, path: &Path) -> Result<u64, OpenError> {
    /// Longer than any record: details are bounded by the request body.
    const TAIL: u64 = 1 << 20;
    let unusable = |source| OpenError::Directory { path: directory.to_owned(), source };
    let damaged = |path: &Path| OpenError::Damaged { path: path.to_owned() };
    let tail = log.tail(TAIL).map_err(unusable)?;
    if !tail.is_empty() && !tail.ends_with(b"\n") {
        tracing::warn!(path = %path.display(), "the last audit record is torn (a crash in mid-write); it stays in place and does not count");
        log.append(b"\n").map_err(unusable)?;
    }
    let whole = tail.strip_suffix(b"\n");
    let torn = whole.is_none();
    let mut lines = whole.unwrap_or(&tail).rsplit(|b| *b == b'\n').filter(|line| !line.is_empty());
    if torn {
        lines.next();
    }
    // Lines torn by earlier crashes stay in the file: skip what is no record, but only those.
    for line in lines {
        match reader::sequence_of(line) {
            Some(sequence) => return Ok(sequence),
            None if line.starts_with(b"{") && !line.ends_with(b"}") => {}
            None => return Err(damaged(path)),
        }
    }
    let mut newest = 0;
    for segment in reader::segments(directory).map_err(unusable)? {
        let last = segment
            .extension()
            .and_then(|suffix| suffix.to_str())
            .and_then(|suffix| suffix.rsplit('-').next()?.parse::<u64>().ok());
        newest = newest.max(last.unwrap_or(0));
    }
    Ok(newest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::EventType;

    fn source() -> Source {
        Source { service: "s", component: "c", instance: "i".into(), version: "v", host: "h".into() }
    }

    fn open(directory: &Path) -> Result<Audit, OpenError> {
        Audit::open(&Config { directory: directory.to_owned() }, &source(), Arc::new(Metrics::new().unwrap()))
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-23T10:00:00Z").unwrap()
    }

    fn event() -> Event {
        Event::of_service(EventType::ServiceStarted, "start", "service", now()).detail("text", "line\nbreak\u{2028}")
    }

    /// Opens once the writer thread of a dropped `Audit` has let go of the directory.
    fn reopen(directory: &Path) -> Audit {
        for _ in 0..1000 {
            match open(directory) {
                Ok(audit) => return audit,
                Err(OpenError::Locked { .. }) => thread::yield_now(),
                Err(error) => panic!("{error}"),
            }
            thread::sleep(std::time::Duration::from_millis(1));
        }
        panic!("the lock was never released");
    }

    #[tokio::test]
    async fn sequences_go_on_over_restart_and_rotation() {
        let directory = tempfile::tempdir().unwrap();
        let audit = reopen(directory.path());
        assert_eq!(audit.record(event()).await.unwrap().sequence(), 1);
        assert_eq!(audit.record(event()).await.unwrap().sequence(), 2);
        drop(audit);
        let audit = reopen(directory.path());
        assert_eq!(audit.record(event()).await.unwrap().sequence(), 3);
        let closed = audit.rotate(now()).await.unwrap();
        assert!(closed.file_name().unwrap().to_str().unwrap().starts_with("audit.log."));
        drop(audit);
        let audit = reopen(directory.path());
        assert_eq!(audit.record(event()).await.unwrap().sequence(), 4);
    }

    #[tokio::test]
    async fn one_record_is_one_line_whatever_it_says() {
        let directory = tempfile::tempdir().unwrap();
        let audit = reopen(directory.path());
        audit.record(event()).await.unwrap();
        let text = std::fs::read_to_string(directory.path().join(FILE_NAME)).unwrap();
        assert_eq!(text.lines().count(), 1);
        let record: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(record["type"], "service_started");
        assert_eq!(record["source"]["service"], "s");
    }

    #[tokio::test]
    async fn a_torn_record_stays_and_does_not_count() {
        let directory = tempfile::tempdir().unwrap();
        drop({
            let audit = reopen(directory.path());
            audit.record(event()).await.unwrap();
            audit
        });
        let path = directory.path().join(FILE_NAME);
        let mut content = std::fs::read(&path).unwrap();
        content.extend_from_slice(b"{\"sequence\":2,\"ty");
        std::fs::write(&path, &content).unwrap();
        assert_eq!(reopen(directory.path()).record(event()).await.unwrap().sequence(), 2);
        assert!(std::fs::read(&path).unwrap().starts_with(&content));
        assert_eq!(reopen(directory.path()).record(event()).await.unwrap().sequence(), 3);
    }

    #[tokio::test]
    async fn a_removed_file_fails_the_trail_for_good() {
        let directory = tempfile::tempdir().unwrap();
        let audit = reopen(directory.path());
        audit.record(event()).await.unwrap();
        std::fs::remove_file(directory.path().join(FILE_NAME)).unwrap();
        assert!(matches!(audit.record(event()).await, Err(Error::Failed)));
        assert!(audit.has_failed());
        assert!(matches!(audit.record_signature(event(), [0; 32]).await, Err(Error::Failed)));
        audit.failed().await;
    }

    #[tokio::test]
    async fn a_second_writer_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let _audit = reopen(directory.path());
        assert!(matches!(open(directory.path()), Err(OpenError::Locked { .. })));
    }

    #[tokio::test]
    async fn a_trail_tells_whether_keys_ever_existed() {
        let directory = tempfile::tempdir().unwrap();
        assert!(!crate::audit::mentions_keys(directory.path()).unwrap());
        let audit = reopen(directory.path());
        audit.record(event()).await.unwrap();
        assert!(!crate::audit::mentions_keys(directory.path()).unwrap());
        audit.record(Event::of_service(EventType::KeyGenerated, "generate", "k", now())).await.unwrap();
        assert!(crate::audit::mentions_keys(directory.path()).unwrap());
    }
}
