//! The key ledger as data objects on the token (CKO_DATA, application `verification-signer`), so
//! that an appliance beside the same token needs nothing else.

use std::sync::Arc;

use async_trait::async_trait;

use super::Token;
use crate::key::{Ledger, LedgerUnavailable, StoredRecord};

/// Records on the token.
pub struct DataObjectLedger(Arc<Token>);

impl DataObjectLedger {
    /// The ledger of `token`.
    #[must_use]
    pub fn new(token: Arc<Token>) -> Self {
        Self(token)
    }
}

#[async_trait]
impl Ledger for DataObjectLedger {
    async fn read(&self) -> Result<Vec<StoredRecord>, LedgerUnavailable> {
        self.0.data_objects().await.map_err(|error| LedgerUnavailable(Box::new(error)))
    }

    async fn append(&self, record: StoredRecord) -> Result<(), LedgerUnavailable> {
        self.0.create_data_object(record).await.map_err(|error| LedgerUnavailable(Box::new(error)))
    }

    async fn remove(&self, label: &str) -> Result<(), LedgerUnavailable> {
        self.0.destroy_data_object(label.to_owned()).await.map_err(|error| LedgerUnavailable(Box::new(error)))
    }
}
