//! Closed files of the audit trail: compressed, and removed when their time has come. Nothing that
//! was never exported goes without being said.

use parking_lot::Mutex;

use crate::{
    audit::{self, Event, EventType, Position, Removable, Severity},
    service::{Error, Service, checkpoints::written},
};

/// What the configuration wants done with closed files.
pub struct Tidiness {
    compress: bool,
    retention_seconds: Option<i64>,
    remove_unexported: bool,
    /// The file that stays because nobody has exported it.
    waiting: Mutex<Option<String>>,
}

impl Tidiness {
    /// As configured.
    #[must_use]
    pub fn new(config: &audit::Config) -> Self {
        Self {
            compress: config.compress,
            retention_seconds: config.retention.map(|time| i64::try_from(time.as_secs()).unwrap_or(i64::MAX)),
            remove_unexported: config.remove_unexported,
            waiting: Mutex::new(None),
        }
    }

    /// What health says about it.
    #[must_use]
    pub fn warning(&self) -> Option<String> {
        let waiting = self.waiting.lock().clone()?;
        Some(format!(
            "{waiting} is older than audit.retention and was never exported: it stays; run `verification-signer audit export --mark-exported`"
        ))
    }

    /// Remembers which file waits to be exported; true when that is news.
    fn keep_waiting(&self, name: Option<&str>) -> bool {
        let mut waiting = self.waiting.lock();
        let news = waiting.as_deref() != name;
        *waiting = name.map(ToOwned::to_owned);
        news && name.is_some()
    }
}

impl Service {
    /// One round: at most one file is compressed, and at most one removed.
    pub async fn tidy_trail(&self) -> Result<(), Error> {
        let tidiness = &self.checkpoints.tidiness;
        let directory = self.audit.directory().to_owned();
        if tidiness.compress {
            written(move || audit::compress_one(&directory).map(drop)).await?;
        }
        let Some(retention) = tidiness.retention_seconds else { return Ok(()) };
        let before = self.clock.now().plus_seconds(-retention);
        let directory = self.audit.directory().to_owned();
        let found = tokio::task::spawn_blocking(move || audit::removable(&directory, before)).await;
        let found = found.map_err(|_| Error::Internal("looking for old files ended early"))?;
        match found.map_err(audit::IndexError::Io)? {
            Some(old) if !old.is_exported && !tidiness.remove_unexported => {
                if tidiness.keep_waiting(Some(&old.name)) {
                    tracing::warn!(
                        file = old.name,
                        "this file of the audit trail is old enough to go and was never exported: it stays"
                    );
                }
                Ok(())
            }
            Some(old) => {
                tidiness.keep_waiting(None);
                self.remove(old).await
            }
            None => {
                tidiness.keep_waiting(None);
                Ok(())
            }
        }
    }

    /// Removes a closed file: on record first; then what stands for it is kept, and only then it goes.
    async fn remove(&self, old: Removable) -> Result<(), Error> {
        self.index.caught_up().await?;
        let event =
            Event::of_service(EventType::ConfigChanged, "remove_by_retention", old.name.clone(), self.clock.now())
                .of_severity(if old.is_exported { Severity::Info } else { Severity::Critical })
                .detail("last_sequence", old.last)
                .detail("exported", old.is_exported);
        tracing::warn!(
            file = old.name,
            exported = old.is_exported,
            "a file of the audit trail is removed by retention"
        );
        let work = async {
            let position =
                Position { tree: self.index.frontier(old.last)?, begins_after: old.last, ..Position::default() };
            let (directory, retired) = (self.audit.directory().to_owned(), old.clone());
            written(move || audit::save_retired(&directory, &position, &retired.checkpoint)).await?;
            self.audit.retire(vec![old.name.clone()]).await?;
            self.index.retire(old.last);
            // From here on no start misses the file.
            self.checkpoint().await?;
            let old = old.clone();
            written(move || audit::discard(&old)).await
        };
        self.on_record(event.clone(), work, |()| event).await
    }
}
