//! The port through which ledger records are read and added.

use async_trait::async_trait;

use crate::key::standing::StoredRecord;

/// The place that keeps the records could not be read or written.
#[derive(Debug, thiserror::Error)]
#[error("the key ledger is not usable: {0}")]
pub struct LedgerUnavailable(pub Box<dyn std::error::Error + Send + Sync>);

/// An append-only store of records: data objects on the token, or a durable file beside a token
/// that has none.
#[async_trait]
pub trait Ledger: Send + Sync {
    /// Every record, in any order.
    async fn read(&self) -> Result<Vec<StoredRecord>, LedgerUnavailable>;

    /// Adds one record; returns when it is stored.
    async fn append(&self, record: StoredRecord) -> Result<(), LedgerUnavailable>;

    /// Removes what stands under this label. Only intents are ever removed.
    async fn remove(&self, label: &str) -> Result<(), LedgerUnavailable>;
}
