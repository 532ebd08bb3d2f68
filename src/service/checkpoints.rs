//! Checkpoints of the audit trail: taken beside the requests, at an interval, for every closed file,
//! and at the end. Where the token cannot sign one now, the next round tries again.

use std::{
    path::PathBuf,
    sync::OnceLock,
    time::{Duration, Instant},
};

use tokio::sync::{Mutex, mpsc::UnboundedReceiver};

use crate::{
    audit::{self, Closing, EventType, Position, checkpoint::Checkpoint},
    durable,
    service::{Error, Service, lifecycle::Actor, tidy::Tidiness},
    token::AuditKey,
};

/// So many new records want a checkpoint before its time, so that a start has little to read.
const RECORDS: u64 = 50_000;

/// What is needed to take checkpoints.
pub struct Checkpoints {
    origin: String,
    interval: Duration,
    pub(super) tidiness: Tidiness,
    key: OnceLock<AuditKey>,
    state: Mutex<State>,
    progress: parking_lot::Mutex<Progress>,
}

struct State {
    closings: UnboundedReceiver<Closing>,
    /// A segment whose checkpoint is still wanted.
    unsigned: Option<Closing>,
}

/// How far the last checkpoint goes, and when it was taken. Read by whoever asks for health, also while
/// the token takes its time over the next one.
#[derive(Clone, Copy)]
struct Progress {
    signed: u64,
    last: Instant,
}

impl Checkpoints {
    /// Checkpoints of the log `origin`, of which the last covers `signed` records.
    #[must_use]
    pub fn new(origin: String, config: &audit::Config, signed: u64, closings: UnboundedReceiver<Closing>) -> Self {
        let state = State { closings, unsigned: None };
        let progress = parking_lot::Mutex::new(Progress { signed, last: Instant::now() });
        let (interval, tidiness) = (config.checkpoint_interval, Tidiness::new(config));
        Self { origin, interval, tidiness, key: OnceLock::new(), state: Mutex::new(state), progress }
    }

    /// The log's name.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// The key that signs, once it is there.
    #[must_use]
    pub fn key(&self) -> Option<&AuditKey> {
        self.key.get()
    }

    /// From now on this key signs.
    pub fn sign_with(&self, key: AuditKey) {
        // A second call changes nothing: the key is chosen once, at start.
        let _ = self.key.set(key);
    }
}

impl Service {
    /// A checkpoint when there are new records and it is time, and one for every closed file.
    pub async fn checkpoint_when_due(&self) -> Result<(), Error> {
        let mut state = self.checkpoints.state.lock().await;
        self.sign_closed(&mut state).await?;
        let Progress { signed, last } = *self.checkpoints.progress.lock();
        let new = self.audit.size().saturating_sub(signed);
        if new >= RECORDS || (new > 0 && last.elapsed() >= self.checkpoints.interval) {
            self.sign_head().await?;
        }
        Ok(())
    }

    /// A checkpoint now.
    pub async fn checkpoint(&self) -> Result<(), Error> {
        let mut state = self.checkpoints.state.lock().await;
        self.sign_closed(&mut state).await?;
        if self.audit.size() > self.checkpoints.progress.lock().signed {
            self.sign_head().await?;
        }
        Ok(())
    }

    /// How long the last checkpoint is ago, when there are records that none covers.
    pub(super) fn checkpoint_age(&self) -> Duration {
        let Progress { signed, last } = *self.checkpoints.progress.lock();
        if self.audit.size() > signed { last.elapsed() } else { Duration::ZERO }
    }

    async fn sign_closed(&self, state: &mut State) -> Result<(), Error> {
        loop {
            if state.unsigned.is_none() {
                state.unsigned = state.closings.try_recv().ok();
            }
            let Some(Closing { segment, position }) = state.unsigned.clone() else { return Ok(()) };
            let note = self.sign_position(&position).await?;
            let path = PathBuf::from(format!("{}.checkpoint", segment.display()));
            written(move || durable::replace(&path, note.as_bytes())).await?;
            state.unsigned = None;
        }
    }

    /// Only with the state locked: two heads signed at once could be kept in the wrong order.
    async fn sign_head(&self) -> Result<(), Error> {
        let position = self.audit.position().await?;
        let size = position.tree.size();
        let note = self.sign_position(&position).await?;
        let directory = self.audit.directory().to_owned();
        let saved = note.clone();
        written(move || audit::save_checkpoint(&directory, &position, &saved)).await?;
        self.remember_own(&note).await?;
        *self.checkpoints.progress.lock() = Progress { signed: size, last: Instant::now() };
        self.metrics.audit_checkpoint_size.set(i64::try_from(size).unwrap_or(i64::MAX));
        Ok(())
    }

    /// The note of a position, signed in the token. The log of a tree that may have been rolled back
    /// signs nothing (C2SP tlog-checkpoint).
    async fn sign_position(&self, position: &Position) -> Result<String, Error> {
        self.audit.trouble_with_head()?;
        let key = self.checkpoints.key().ok_or(Error::Internal("a checkpoint before there is an audit key"))?;
        let checkpoint = Checkpoint {
            origin: self.checkpoints.origin.clone(),
            size: position.tree.size(),
            root: position.tree.root(),
        };
        let signature = self.tokens.sign_tree_head(key, &checkpoint.text()).await?;
        checkpoint
            .note(key.public_key(), &signature)
            .ok_or(Error::Internal("an audit key of a kind that signs no notes"))
    }

    /// Goes on with a trail that an operator accepted by name although others remember another.
    pub async fn accept_trail(&self) -> Result<(), Error> {
        tracing::warn!(
            origin = self.checkpoints.origin,
            "an operator accepted an audit trail that does not continue what others remember"
        );
        let event = audit::Event::of_service(EventType::SecurityAlert, "accept_checkpoint", "audit", self.clock.now())
            .of_severity(audit::Severity::Critical)
            .detail("origin", self.checkpoints.origin.clone())
            .detail("records", self.audit.size());
        self.audit.record(event).await?;
        self.checkpoint().await
    }

    /// Chooses the audit key: the newest on the token. Where there is none, `may_make` says whether
    /// one may be made.
    pub async fn choose_audit_key(&self, may_make: bool, actor: &Actor) -> Result<(), Error> {
        let found = self.token.audit_keys(&self.signer.id).await?;
        let key = match found.into_iter().next() {
            Some(key) => key,
            None if may_make => self.make_audit_key(actor).await?,
            None => return Err(Error::NoAuditKey),
        };
        self.checkpoints.sign_with(key);
        let known = self.token.audit_keys(&self.signer.id).await?;
        let pem: String = known.iter().map(|key| key.public_key().to_pem()).collect();
        let path = self.audit.directory().join(audit::KEYS);
        written(move || durable::replace(&path, pem.as_bytes())).await
    }

    /// Makes the audit key, under the fleet lock: another appliance may be about to.
    async fn make_audit_key(&self, actor: &Actor) -> Result<AuditKey, Error> {
        let _change = self.wait_to_change(self.tokens.line()).await?;
        if let Some(key) = self.token.audit_keys(&self.signer.id).await?.into_iter().next() {
            return Ok(key);
        }
        let resource = self.signer.id.as_str();
        let event = actor.event(EventType::KeyGenerated, "generate_audit_key", resource, self.clock.now());
        let work = async { Ok(self.token.generate_audit_key(&self.signer.id).await?) };
        let key = self
            .on_record(event.clone(), work, |key| {
                event.detail("label", key.label()).detail("fingerprint", key.public_key().fingerprint())
            })
            .await?;
        tracing::info!(label = key.label(), "an audit key was made");
        Ok(key)
    }
}

/// Does file work where it holds up nothing.
pub(super) async fn written(work: impl FnOnce() -> std::io::Result<()> + Send + 'static) -> Result<(), Error> {
    let done = tokio::task::spawn_blocking(work).await.unwrap_or_else(|error| Err(std::io::Error::other(error)));
    done.map_err(|error| {
        tracing::warn!(%error, "a checkpoint of the audit trail could not be written");
        Error::Internal("a checkpoint could not be written")
    })
}
