//! Copies of audit records in a Redis stream, for a search over the whole fleet.

use std::sync::{Arc, LazyLock};

use deadpool_redis::redis::Script;

use super::Error;
use crate::{
    key::SignerId,
    redis::{Pool, prefix},
};

static STREAM: LazyLock<Script> = LazyLock::new(|| Script::new(concat!("#!lua\n", include_str!("stream.lua"))));

/// The stream of one signer's appliances.
pub struct RecordStream {
    pool: Arc<Pool>,
    instance: String,
    key: String,
    length: u64,
}

impl RecordStream {
    /// A stream of about `length` records.
    #[must_use]
    pub fn new(pool: Arc<Pool>, signer: &SignerId, instance: &str, length: u64) -> Self {
        Self { pool, instance: instance.to_owned(), key: format!("{}:audit", prefix(signer)), length }
    }

    /// Adds records, one a line. A lost reply may add some of them twice; their sequence tells.
    pub async fn add(&self, lines: &[u8]) -> Result<(), Error> {
        let mut call = STREAM.key(&self.key);
        call.arg(&self.instance).arg(self.length);
        for line in lines.split(|byte| *byte == b'\n').filter(|line| !line.is_empty()) {
            call.arg(line);
        }
        self.pool.run::<String>(&call).await?;
        Ok(())
    }
}
