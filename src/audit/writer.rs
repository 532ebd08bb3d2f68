//! The one writer of the trail: a thread that owns the file. Records that arrive while a batch is
//! being synced share the next `fdatasync`. Between batches it looks at the disk, and closes files
//! that are large or old enough.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, Instant},
};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender};
use parking_lot::Mutex;
use tokio::sync::{mpsc::UnboundedSender, oneshot};

use super::{
    Error, Event, EventType, Severity, Written,
    condition::{Condition, Stop},
    merkle::{Frontier, leaf_hash},
    opening::Closing,
    replay::OpenIntent,
    saved::Position,
    segment,
    space::{self, Space},
};
use crate::{
    clock::Clock,
    durable::{AppendError, AppendLog, DirectoryLock},
    metrics::Metrics,
};

/// Records in one write.
const BATCH: usize = 512;

/// How often the disk is looked at when there is nothing to write.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// How long records that nobody waits for may wait for one that somebody does.
const LINGER: Duration = Duration::from_millis(5);

/// What the writer is asked to do.
pub enum Job {
    Append(Pending),
    /// There are [`Notes`].
    Noted,
    Rotate {
        done: oneshot::Sender<Result<Option<PathBuf>, Error>>,
    },
    /// Where the trail stands, for a checkpoint.
    Position {
        done: oneshot::Sender<Position>,
    },
    /// These closed segments were removed on purpose.
    Retired {
        names: Vec<String>,
        done: oneshot::Sender<()>,
    },
}

/// Records that nobody waits for: they go out before the next that somebody does, by the same sync, and wake
/// the writer once for many.
#[derive(Default)]
pub struct Notes(Mutex<Vec<Pending>>);

impl Notes {
    /// True when the writer is to be told: the others will find it awake.
    pub fn put(&self, note: Pending, most: usize) -> Result<bool, Error> {
        let mut notes = self.0.lock();
        if notes.len() >= most {
            return Err(Error::Busy);
        }
        notes.push(note);
        Ok(notes.len() == 1)
    }

    fn take(&self) -> Vec<Pending> {
        std::mem::take(&mut self.0.lock())
    }
}

/// A record that waits to be written.
pub struct Pending {
    pub record: Encoded,
    /// Of the same kind, and in the same write: all of them are on disk, or nobody is told that any is.
    pub more: Vec<Encoded>,
    /// Nobody waits for what is only noted.
    pub done: Option<oneshot::Sender<Result<Written, Error>>>,
}

/// A record encoded by whoever made it, so that the one writer only puts lines together.
pub struct Encoded {
    pub json: Vec<u8>,
    pub kind: EventType,
    pub severity: Severity,
    /// Of an intent: what is announced.
    pub opens: Option<OpenIntent>,
    /// Of an outcome: its intent.
    pub closes: Option<u64>,
}

impl Pending {
    /// A record by itself.
    pub fn one(record: Encoded) -> Self {
        Self { record, more: Vec::new(), done: None }
    }

    fn records(&self) -> impl Iterator<Item = &Encoded> {
        std::iter::once(&self.record).chain(&self.more)
    }
}

impl From<&Event> for Encoded {
    fn from(event: &Event) -> Self {
        let (opens, closes) = event.links();
        Self { json: event.to_json(), kind: event.kind, severity: event.severity, opens, closes }
    }
}

/// When a file is closed without being asked.
pub struct RotationPolicy {
    pub bytes: u64,
    pub age: Duration,
}

/// Who is told of what was written.
pub struct Listeners {
    pub closings: UnboundedSender<Closing>,
    pub copies: super::copies::Copies,
    /// The index looks at the files itself; this only wakes it.
    pub index: Sender<()>,
}

/// The writer and what it owns.
pub struct Writer {
    pub log: Option<AppendLog>,
    pub directory: PathBuf,
    pub tree: Frontier,
    pub begins_after: u64,
    pub open: BTreeMap<u64, OpenIntent>,
    pub closed: Vec<String>,
    /// By a clock that nobody sets: a jump of the wall clock closes no file.
    pub opened_at: Instant,
    /// The `source` of every record, encoded once.
    pub source: Vec<u8>,
    pub space: Space,
    pub rotation: RotationPolicy,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub condition: Arc<Condition>,
    pub notes: Arc<Notes>,
    pub listeners: Listeners,
    /// The last line was torn: the first write ends it.
    pub wants_newline: bool,
    #[expect(dead_code, reason = "held for as long as the writer lives")]
    pub lock: Arc<DirectoryLock>,
}

impl Writer {
    /// Works until nobody can ask any more.
    pub fn run(mut self, queue: &Receiver<Job>) {
        let mut looked = Instant::now();
        loop {
            let first = match queue.recv_timeout(LOOK_EVERY) {
                Ok(first) => Some(first),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return self.write(Vec::new()),
            };
            self.work(first, queue);
            if looked.elapsed() >= LOOK_EVERY {
                looked = Instant::now();
                self.look();
            }
        }
    }

    /// One batch: everything that waits, up to the first job of another kind.
    fn work(&mut self, first: Option<Job>, queue: &Receiver<Job>) {
        let (mut batch, mut records) = (Vec::new(), 0);
        let mut next = first;
        let latest = Instant::now() + LINGER;
        while let Some(job) = next.take() {
            match job {
                Job::Noted if batch.is_empty() => {
                    next = queue.recv_deadline(latest).ok();
                    continue;
                }
                Job::Noted => {}
                Job::Append(pending) => {
                    records += 1 + pending.more.len();
                    batch.push(pending);
                }
                // A receiver that is gone has stopped waiting for the answer.
                Job::Rotate { done } => {
                    self.write(std::mem::take(&mut batch));
                    let _ = done.send(self.rotate());
                }
                Job::Position { done } => {
                    self.write(std::mem::take(&mut batch));
                    let _ = done.send(self.position());
                }
                Job::Retired { names, done } => {
                    self.closed.retain(|name| !names.contains(name));
                    let _ = done.send(());
                }
            }
            if records < BATCH {
                next = queue.try_recv().ok();
            }
        }
        self.write(batch);
    }

    /// One write, one `fdatasync`, then everyone who waited learns the same answer. What was noted before the
    /// first of them goes first.
    fn write(&mut self, waited_for: Vec<Pending>) {
        let mut batch = self.notes.take();
        batch.extend(waited_for);
        let (now_allowed, refused): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|pending| allowed(self.condition.stop(), pending.record.kind));
        self.refuse(refused);
        if now_allowed.is_empty() {
            return;
        }
        let begun = Instant::now();
        match self.append(&now_allowed) {
            Ok(first) => self.tell(now_allowed, first),
            Err(Error::Stopped(Stop::DiskFull)) => self.write_in_the_reserve(now_allowed),
            Err(_) => self.refuse(now_allowed),
        }
        self.metrics.audit_flush_latency.observe(begun.elapsed().as_secs_f64());
        if self.log.as_ref().is_some_and(|log| log.length() >= self.rotation.bytes) {
            // Whether it succeeded shows in the condition.
            let _ = self.rotate();
        }
    }

    /// The disk has just turned out to be full: the reserve is given up for those who may use it.
    fn write_in_the_reserve(&mut self, batch: Vec<Pending>) {
        let (may, may_not): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|pending| pending.record.kind.may_use_reserve());
        self.refuse(may_not);
        self.space.give_up_reserve();
        self.announce("disk_full", "the disk is full");
        if may.is_empty() {
            return;
        }
        match self.append(&may) {
            Ok(first) => self.tell(may, first),
            Err(_) => self.refuse(may),
        }
    }

    fn refuse(&self, batch: Vec<Pending>) {
        let error = self.condition.stop().map_or(Error::Busy, Error::Stopped);
        for done in batch.into_iter().filter_map(|pending| pending.done) {
            let _ = done.send(Err(error.clone()));
        }
    }

    fn tell(&self, batch: Vec<Pending>, first: u64) {
        let mut sequence = first;
        for pending in batch {
            for record in pending.records() {
                self.metrics.audit_events.with_label_values(&[record.kind.as_str(), record.severity.as_str()]).inc();
            }
            let records = 1 + pending.more.len() as u64;
            if let Some(done) = pending.done {
                let _ = done.send(Ok(Written { sequence }));
            }
            sequence += records;
        }
    }

    /// Puts records on disk; the sequence of the first.
    fn append(&mut self, batch: &[Pending]) -> Result<u64, Error> {
        let first = self.tree.size() + 1;
        let mut tree = self.tree.clone();
        let mut bytes = Vec::with_capacity(batch.len() * 1024);
        bytes.extend(self.wants_newline.then_some(b'\n'));
        let records = || batch.iter().flat_map(Pending::records).zip(first..);
        for (record, sequence) in records() {
            let begin = bytes.len();
            add_line(&mut bytes, &record.json, sequence, &self.source);
            tree.append(leaf_hash(&bytes[begin..bytes.len() - 1]));
        }
        self.put(&bytes)?;
        self.wants_newline = false;
        self.tree = tree;
        for (record, sequence) in records() {
            if let Some(intent) = record.closes {
                self.open.remove(&intent);
            }
            if let Some(intent) = record.opens.clone() {
                self.open.insert(sequence, intent);
            }
        }
        self.condition.set_size(self.tree.size());
        self.listeners.copies.send(&bytes);
        // Full: it has been woken already.
        let _ = self.listeners.index.try_send(());
        Ok(first)
    }

    fn put(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let log = self.log.as_mut().ok_or(Error::Stopped(Stop::Failed))?;
        let stop = match log.append(bytes) {
            Ok(()) if log.is_in_place() => return Ok(()),
            Ok(()) => Stop::FileLost,
            Err(AppendError::NotWritten(error)) if space::is_full(&error) => Stop::DiskFull,
            Err(AppendError::NotWritten(error)) if space::is_read_only(&error) => Stop::ReadOnly,
            Err(AppendError::NotWritten(error) | AppendError::Unknown(error)) => {
                tracing::error!(%error, "the audit file could not be written");
                Stop::Failed
            }
        };
        Err(self.stop(stop))
    }

    fn stop(&mut self, stop: Stop) -> Error {
        if self.condition.stop() != Some(stop) {
            tracing::error!("{}", stop.describe());
        }
        if matches!(stop, Stop::Failed | Stop::FileLost) {
            // Never written again: what it holds is for the next start to find out.
            self.log = None;
        }
        self.metrics.service_health.with_label_values(&["audit"]).set(0.0);
        self.condition.set(Some(stop));
        Error::Stopped(stop)
    }

    fn go_on(&mut self, action: &'static str) {
        self.condition.set(None);
        self.announce(action, "records are written again");
        if self.condition.stop().is_none() {
            tracing::warn!("the audit trail is written again");
            self.metrics.service_health.with_label_values(&["audit"]).set(1.0);
        }
    }

    /// Puts on record what happened to the trail itself. Where even that fails, the condition says so.
    fn announce(&mut self, action: &'static str, what: &'static str) {
        let event = Event::of_service(EventType::SecurityAlert, action, "audit", self.clock.now())
            .of_severity(Severity::Critical)
            .detail("what", what)
            .detail("free_bytes", self.condition.free());
        let pending = [Pending::one(Encoded::from(&event))];
        if let Ok(first) = self.append(&pending) {
            self.tell(pending.into(), first);
        }
    }

    /// A look at disk and file, once a second.
    fn look(&mut self) {
        if let Ok(free) = self.space.free() {
            self.condition.set_free(free);
            #[expect(clippy::cast_precision_loss, reason = "bytes of a disk, shown to people")]
            self.metrics.audit_free_bytes.set(free as f64);
        }
        let short = self.space.is_short(self.condition.free());
        match self.condition.stop() {
            None if !self.log.as_ref().is_some_and(AppendLog::is_in_place) => {
                self.stop(Stop::FileLost);
            }
            None if short => {
                self.stop(Stop::DiskFull);
                self.announce("disk_full", "too little is free");
            }
            None => self.rotate_when_old(),
            Some(Stop::DiskFull) if !short && self.space.take_reserve().is_ok() => self.go_on("disk_has_room"),
            Some(Stop::ReadOnly) if self.space.take_reserve().is_ok() => self.go_on("writable_again"),
            Some(Stop::DiskFull | Stop::ReadOnly | Stop::FileLost | Stop::Failed) => {}
        }
    }

    fn rotate_when_old(&mut self) {
        if self.opened_at.elapsed() >= self.rotation.age {
            let _ = self.rotate();
        }
    }

    fn position(&self) -> Position {
        Position {
            tree: self.tree.clone(),
            begins_after: self.begins_after,
            offset: self.log.as_ref().map_or(0, AppendLog::length),
            open: self.open.clone(),
            closed: self.closed.clone(),
        }
    }

    /// Closes the growing file; `None` when there is nothing in it to close.
    fn rotate(&mut self) -> Result<Option<PathBuf>, Error> {
        if let Some(stop) = self.condition.stop() {
            return Err(Error::Stopped(stop));
        }
        self.opened_at = Instant::now();
        if self.log.as_ref().is_some_and(AppendLog::is_empty) {
            return Ok(None);
        }
        let log = self.log.take().ok_or(Error::Stopped(Stop::Failed))?;
        let name = segment::closed_name(self.clock.now(), self.tree.size());
        let closed = self.directory.join(&name);
        match log.rotate(&closed) {
            Ok(log) => {
                self.log = Some(log);
                self.closed.push(name);
                self.begins_after = self.tree.size();
                // Nobody listens any more when the process ends: the next start signs it.
                let _ = self.listeners.closings.send(Closing { segment: closed.clone(), position: self.position() });
                let _ = self.listeners.index.try_send(());
                Ok(Some(closed))
            }
            Err(error) => {
                tracing::error!(%error, "the audit file could not be closed");
                Err(self.stop(Stop::Failed))
            }
        }
    }
}

/// Whether a record of this kind is taken in this condition.
pub fn allowed(stop: Option<Stop>, kind: EventType) -> bool {
    match stop {
        None => true,
        Some(Stop::DiskFull) => kind.may_use_reserve(),
        Some(Stop::ReadOnly | Stop::FileLost | Stop::Failed) => false,
    }
}

/// One line: the sequence first, then the event's own fields, the source last.
pub fn add_line(bytes: &mut Vec<u8>, event: &[u8], sequence: u64, source: &[u8]) {
    let fields = event.strip_prefix(b"{").and_then(|rest| rest.strip_suffix(b"}")).expect("an event is an object");
    bytes.extend_from_slice(format!("{{\"sequence\":{sequence},").as_bytes());
    bytes.extend_from_slice(fields);
    bytes.extend_from_slice(b",\"source\":");
    bytes.extend_from_slice(source);
    bytes.extend_from_slice(b"}\n");
}

impl Writer {
    /// The first records of this process, in one write; before them the newline that a crash left out.
    pub fn begin_with(&mut self, events: &[Event], wants_newline: bool) -> Result<(), Error> {
        if wants_newline && events.is_empty() {
            return self.put(b"\n");
        }
        if events.is_empty() {
            return Ok(());
        }
        let batch: Vec<_> = events.iter().map(|event| Pending::one(Encoded::from(event))).collect();
        self.wants_newline = wants_newline;
        let first = self.append(&batch)?;
        self.tell(batch, first);
        Ok(())
    }
}
