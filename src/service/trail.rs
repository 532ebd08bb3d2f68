//! Questions about the audit trail. Searching and proving is blocking work, done beside the requests.

use crate::{
    audit::{self, Event, EventType, Index, IndexError, Page, Query, checkpoint::Checkpoint, merkle::Hash},
    client::Client,
    service::{Error, Service},
};

/// That a record is in the trail.
#[derive(Debug)]
pub struct Inclusion {
    /// The record's line, whose hash is the leaf.
    pub record: Vec<u8>,
    pub leaf: Hash,
    pub size: u64,
    pub root: Hash,
    pub path: Vec<Hash>,
    /// The signed checkpoint of that size, when there is one.
    pub checkpoint: Option<String>,
}

/// That one trail continues another.
#[derive(Debug)]
pub struct Consistency {
    pub from_root: Hash,
    pub to_root: Hash,
    pub path: Vec<Hash>,
}

impl Service {
    /// One page of records.
    pub async fn search_trail(&self, query: Query) -> Result<Page, Error> {
        self.index.caught_up().await?;
        self.of_index(move |index| index.search(&query)).await
    }

    /// The last signed checkpoint.
    pub async fn last_checkpoint(&self) -> Result<Option<String>, Error> {
        let directory = self.audit.directory().to_owned();
        let note = tokio::task::spawn_blocking(move || audit::last_note(&directory)).await;
        note.map_err(|_| Error::Internal("reading a checkpoint ended early"))?
            .map_err(|error| IndexError::Io(error).into())
    }

    /// Proves a record against the tree of this size, or against the last checkpoint. A record younger
    /// than that gets one of its own.
    pub async fn prove_inclusion(&self, sequence: u64, size: Option<u64>) -> Result<Inclusion, Error> {
        if size.is_none() && sequence <= self.audit.size() && sequence > self.signed_records().await? {
            self.checkpoint().await?;
        }
        let note = self.last_checkpoint().await?;
        let signed = note.as_deref().and_then(Checkpoint::size_of);
        let size = size.or(signed).unwrap_or_else(|| self.audit.size());
        self.index.caught_up().await?;
        let checkpoint = note.filter(|_| signed == Some(size));
        self.of_index(move |index| {
            let path = index.inclusion(sequence, size)?;
            let (record, leaf, root) = (index.record(sequence)?, index.leaf(sequence)?, index.root(size)?);
            Ok(Inclusion { record, leaf, size, root, path, checkpoint })
        })
        .await
    }

    /// Proves that the trail of `to` records continues that of `from` records.
    pub async fn prove_consistency(&self, from: u64, to: u64) -> Result<Consistency, Error> {
        self.index.caught_up().await?;
        self.of_index(move |index| {
            let path = index.consistency(from, to)?;
            Ok(Consistency { from_root: index.root(from)?, to_root: index.root(to)?, path })
        })
        .await
    }

    /// The root of the first `size` records.
    pub(super) async fn root_of_trail(&self, size: u64) -> Result<Hash, Error> {
        self.index.caught_up().await?;
        self.of_index(move |index| index.root(size)).await
    }

    /// Closes the growing file, on record.
    pub async fn rotate_trail(&self, client: &Client) -> Result<Option<String>, Error> {
        let event = Event::of_client(EventType::ConfigChanged, "rotate_audit", "audit", client, self.clock.now());
        self.audit.record(event).await?;
        let Some(closed) = self.audit.rotate().await? else { return Ok(None) };
        tracing::info!(closed = %closed.display(), "the audit file was rotated");
        Ok(closed.file_name().map(|name| name.to_string_lossy().into_owned()))
    }

    async fn signed_records(&self) -> Result<u64, Error> {
        Ok(self.last_checkpoint().await?.as_deref().and_then(Checkpoint::size_of).unwrap_or(0))
    }

    async fn of_index<T: Send + 'static>(
        &self,
        ask: impl FnOnce(&Index) -> Result<T, IndexError> + Send + 'static,
    ) -> Result<T, Error> {
        let index = self.index.clone();
        let answer = tokio::task::spawn_blocking(move || ask(&index)).await;
        Ok(answer.map_err(|_| Error::Internal("a search of the trail ended early"))??)
    }
}
