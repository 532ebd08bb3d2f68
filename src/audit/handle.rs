//! The trail as everyone else sees it: records go in, and come back numbered once they are on disk.

use std::{path::PathBuf, sync::Arc, thread};

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;
use tokio::sync::{mpsc::UnboundedReceiver, oneshot};

use super::{
    Config, Error, Event, EventType, Index, OpenError, Outcome, Recorded, Severity, Source, Written,
    checkpoint::Checkpoint,
    condition::{Condition, Stop},
    copies::Copies,
    opening::{self, Closing, Found},
    replay::{OpenIntent, REPAIR},
    saved::{self, Position},
    segment,
    space::Space,
    writer::{Encoded, Job, Listeners, Notes, Pending, RotationPolicy, Writer, allowed},
};
use crate::{
    clock::Clock,
    durable::{self, AppendLog},
    key::PublicKey,
    metrics::Metrics,
};

/// Records that may wait for the disk before callers are turned away.
const QUEUE: usize = 8192;

/// The trail, open for appending. Cheap to clone.
#[derive(Clone)]
pub struct Audit {
    jobs: Sender<Job>,
    notes: Arc<Notes>,
    condition: Arc<Condition>,
    directory: PathBuf,
}

/// What the trail is opened with.
pub struct Opening<'a> {
    pub config: &'a Config,
    pub source: &'a Source,
    /// Public audit keys of the token, with which checkpoints were signed.
    pub keys: &'a [PublicKey],
    /// Checkpoints of this very log that others remember, and who they are.
    pub remembered: Vec<(String, Checkpoint)>,
    pub copies: Copies,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
}

/// The trail and what was found at its opening.
pub struct Opened {
    pub audit: Audit,
    /// Segments that want a checkpoint, now and from now on.
    pub closings: UnboundedReceiver<Closing>,
    pub index: Index,
    /// The trail does not continue what others remember, and an operator accepted it.
    pub accepted: bool,
}

impl Audit {
    /// Examines the trail in the configured directory and starts its writer. The directory must
    /// exist. What a crash left is put on record: torn bytes, and intents without an outcome.
    pub fn open(opening: Opening<'_>) -> Result<Opened, OpenError> {
        let Opening { config, source, keys, remembered, copies, clock, metrics } = opening;
        let directory = config.directory.clone();
        let unusable = |source| OpenError::Directory { path: directory.clone(), source };
        let lock = durable::lock_directory(&directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::WouldBlock => OpenError::Locked { path: directory.clone() },
            _ => unusable(error),
        })?;
        // Until the last of those who write there has ended: the writer, and whoever makes the index.
        let lock = Arc::new(lock);
        let path = directory.join(segment::OPEN);
        if path.exists() {
            AppendLog::open(&path).and_then(|log| log.settle()).map_err(unusable)?;
        }
        let found = opening::examine(&directory, keys, progress())?;
        let accepted = compare(&found, &remembered, config.accept_checkpoint.as_deref())?;
        let log = AppendLog::open(&path).map_err(unusable)?;
        let condition = Arc::new(Condition::default());
        condition.set_size(found.position.tree.size());
        let (jobs, queue) = crossbeam_channel::bounded(QUEUE);
        let notes = Arc::<Notes>::default();
        let (closings, wanted) = tokio::sync::mpsc::unbounded_channel();
        for closing in &found.closings {
            let _ = closings.send(closing.clone());
        }
        let (index, wake) = crossbeam_channel::bounded(1);
        let mut writer = Writer {
            log: Some(log),
            directory: directory.clone(),
            tree: found.position.tree.clone(),
            begins_after: found.position.begins_after,
            open: found.position.open.clone(),
            closed: found.position.closed.clone(),
            opened_at: std::time::Instant::now(),
            source: serde_json::to_vec(source).expect("a source is plain text"),
            space: Space::new(&directory, config.reserve_bytes, config.stop_below_bytes),
            rotation: RotationPolicy { bytes: config.rotate_bytes, age: config.rotate_age },
            clock,
            metrics,
            condition: Arc::clone(&condition),
            notes: Arc::clone(&notes),
            listeners: Listeners { closings, copies, index },
            wants_newline: false,
            lock: Arc::clone(&lock),
        };
        writer.begin(&found).map_err(|error| unusable(std::io::Error::other(error.to_string())))?;
        let position = found.position;
        thread::Builder::new().name("audit-writer".into()).spawn(move || writer.run(&queue)).map_err(unusable)?;
        let base = saved::load_retired(&directory, keys).ok().flatten();
        let base = base.map(|(position, _)| position.tree).unwrap_or_default();
        let index = Index::start(lock, &directory, Arc::clone(&condition), wake, &position, base).map_err(unusable)?;
        let audit = Self { jobs, notes, condition, directory: config.directory.clone() };
        Ok(Opened { audit, closings: wanted, index, accepted })
    }

    /// Appends a record; returns when it is on disk.
    pub async fn record(&self, event: Event) -> Result<Written, Error> {
        let (done, wait) = oneshot::channel();
        self.append(std::slice::from_ref(&event), Some(done))?;
        wait.await.map_err(|_| Error::Stopped(Stop::Failed))?
    }

    /// Appends records of one kind, one after the other and in one write; returns when all are on disk. The
    /// first of them.
    pub async fn record_all(&self, events: &[Event]) -> Result<Written, Error> {
        let (done, wait) = oneshot::channel();
        self.append(events, Some(done))?;
        wait.await.map_err(|_| Error::Stopped(Stop::Failed))?
    }

    /// Appends a record without waiting: it is on disk before any record that comes after it.
    pub fn note(&self, event: &Event) -> Result<(), Error> {
        self.append(std::slice::from_ref(event), None)
    }

    /// The same of several of one kind, in one write.
    pub fn note_all(&self, events: &[Event]) -> Result<(), Error> {
        self.append(events, None)
    }

    fn append(&self, events: &[Event], done: Option<oneshot::Sender<Result<Written, Error>>>) -> Result<(), Error> {
        let Some((event, more)) = events.split_first() else {
            // Whoever waits for the record of nothing is not told that there is one.
            return Ok(());
        };
        if let Some(stop) = self.condition.stop().filter(|stop| !allowed(Some(*stop), event.kind)) {
            return Err(Error::Stopped(stop));
        }
        let more = more.iter().map(Encoded::from).collect();
        let pending = Pending { record: Encoded::from(event), more, done };
        if pending.done.is_some() {
            return self.submit(Job::Append(pending));
        }
        if self.notes.put(pending, QUEUE)?
            && let Err(TrySendError::Disconnected(_)) = self.jobs.try_send(Job::Noted)
        {
            return Err(Error::Stopped(Stop::Failed));
        }
        // A queue that is full wakes the writer as well.
        Ok(())
    }

    /// Appends the records of what one signature covers; the receipt for all of them is what releases it.
    pub async fn record_signature(&self, events: &mut [Event], signature_digest: [u8; 32]) -> Result<Recorded, Error> {
        if let Some(why) = self.condition.withheld() {
            return Err(Error::Withheld(why));
        }
        let digest = hex::encode(signature_digest);
        for event in &mut *events {
            event.add_detail("signature_sha256", &*digest);
        }
        let written = self.record_all(events).await?;
        Ok(Recorded { written, records: events.len(), signature_digest })
    }

    /// Announces what is about to be done. What was announced gets an outcome in any case.
    pub async fn intend(&self, event: Event) -> Result<Intent, Error> {
        let written = self.record(event.clone().pending()).await?;
        Ok(Intent { audit: self.clone(), sequence: written.sequence(), unknown: Some(event) })
    }

    /// Closes the current file under a name of its own and begins a new one; `None` when it is empty.
    pub async fn rotate(&self) -> Result<Option<PathBuf>, Error> {
        let (done, wait) = oneshot::channel();
        self.submit(Job::Rotate { done })?;
        wait.await.map_err(|_| Error::Stopped(Stop::Failed))?
    }

    /// Where the trail stands.
    pub async fn position(&self) -> Result<Position, Error> {
        let (done, wait) = oneshot::channel();
        self.submit(Job::Position { done })?;
        wait.await.map_err(|_| Error::Stopped(Stop::Failed))
    }

    /// These closed segments need not be there any more.
    pub async fn retire(&self, names: Vec<String>) -> Result<(), Error> {
        let (done, wait) = oneshot::channel();
        self.submit(Job::Retired { names, done })?;
        wait.await.map_err(|_| Error::Stopped(Stop::Failed))
    }

    fn submit(&self, job: Job) -> Result<(), Error> {
        self.jobs.try_send(job).map_err(|error| match error {
            TrySendError::Full(_) => Error::Busy,
            TrySendError::Disconnected(_) => Error::Stopped(Stop::Failed),
        })
    }

    /// Where the files are.
    #[must_use]
    pub fn directory(&self) -> &std::path::Path {
        &self.directory
    }

    /// How many records are on disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.condition.size()
    }

    /// Bytes that were free on the disk when it was last looked at; 0 before that.
    #[must_use]
    pub fn free_bytes(&self) -> u64 {
        self.condition.free()
    }

    /// Why records are not taken, or no signature is.
    pub fn trouble(&self) -> Result<(), Error> {
        match (self.condition.stop(), self.condition.withheld()) {
            (Some(stop), _) => Err(Error::Stopped(stop)),
            (None, Some(why)) => Err(Error::Withheld(why)),
            (None, None) => Ok(()),
        }
    }

    /// Why the tree's head must not be signed.
    pub fn trouble_with_head(&self) -> Result<(), Error> {
        self.condition.withheld().map_or(Ok(()), |why| Err(Error::Withheld(why)))
    }

    /// From now on no signature is recorded, and so none released; other records are.
    pub fn withhold_signatures(&self, why: Option<String>) {
        self.condition.withhold(why);
    }

    /// Returns when the state of the file is unknown and the process must end.
    pub async fn failed(&self) {
        self.condition.failed().await;
    }
}

/// Compares what was found with what others remember. True when it differs and was accepted by name.
fn compare(found: &Found, remembered: &[(String, Checkpoint)], accepted: Option<&str>) -> Result<bool, OpenError> {
    let (size, root) = (found.position.tree.size(), found.position.tree.root());
    let what = |seen: &Checkpoint| match seen.size.cmp(&size) {
        std::cmp::Ordering::Greater => {
            Some(format!("remembers {} records of this audit trail, but there are only {size}", seen.size))
        }
        std::cmp::Ordering::Equal if seen.root != root => {
            Some(format!("remembers other records up to {size} of this audit trail"))
        }
        // Smaller ones are compared when the index is there.
        std::cmp::Ordering::Equal | std::cmp::Ordering::Less => None,
    };
    let differs = remembered.iter().find_map(|(witness, seen)| Some((witness, what(seen)?)));
    let Some((witness, what)) = differs else { return Ok(false) };
    let accept = format!("{size}:{}", hex::encode(root));
    if accepted == Some(&accept) {
        return Ok(true);
    }
    Err(OpenError::Behind { witness: witness.clone(), what, accept })
}

/// Says from time to time how far a long reading has come.
fn progress() -> impl FnMut(u64) {
    let begun = Mutex::new(std::time::Instant::now());
    move |records| {
        if records % 100_000 == 0 && begun.lock().elapsed() > std::time::Duration::from_secs(2) {
            *begun.lock() = std::time::Instant::now();
            tracing::info!(records, "reading the audit trail: there is no saved checkpoint to begin from");
        }
    }
}

impl Writer {
    /// Puts what a crash left on record, before anything else is.
    fn begin(&mut self, found: &Found) -> Result<(), Error> {
        if let Err(error) = self.space.take_reserve() {
            tracing::error!(%error, "the reserve of the audit trail could not be taken");
            self.condition.set(Some(Stop::DiskFull));
        }
        let now = self.clock.now();
        let mut events = Vec::new();
        if let Some(torn) = &found.torn {
            tracing::warn!(
                bytes = torn.bytes,
                "the last audit record is torn (a crash in mid-write): it stays, and is accounted for"
            );
            let event = Event::of_service(EventType::Error, REPAIR, "audit", now)
                .of_severity(Severity::Warning)
                .detail("torn_bytes", torn.bytes)
                .detail("torn_sha256", torn.sha256.clone());
            events.push(event);
        }
        for (sequence, intent) in &found.position.open {
            tracing::warn!(
                sequence,
                action = intent.action,
                resource = intent.resource,
                "announced, and its outcome is unknown"
            );
            events.push(Event::of_lost_intent(*sequence, intent, now));
        }
        self.begin_with(&events, found.wants_newline)
    }
}

/// Something that was announced. Dropped without a conclusion, its outcome is on record as unknown.
pub struct Intent {
    audit: Audit,
    sequence: u64,
    unknown: Option<Event>,
}

impl Intent {
    /// Records how it ended.
    pub async fn conclude(mut self, outcome: Event) -> Result<Written, Error> {
        self.unknown = None;
        self.audit.record(outcome.of_intent(self.sequence)).await
    }
}

impl Drop for Intent {
    fn drop(&mut self) {
        let Some(event) = self.unknown.take() else { return };
        let event = event.of_intent(self.sequence).with_outcome(Outcome::Unknown).of_severity(Severity::Warning);
        if let Err(error) = self.audit.note(&event) {
            // The next start finds the intent without an outcome, and says the same.
            tracing::warn!(%error, "an unknown outcome could not be recorded");
        }
    }
}

impl OpenIntent {
    /// What `event` announces.
    #[must_use]
    pub fn of(kind: &str, actor: &str, resource: &str, action: &str) -> Self {
        Self { kind: kind.into(), actor: actor.into(), resource: resource.into(), action: action.into() }
    }
}
