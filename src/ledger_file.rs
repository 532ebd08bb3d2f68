//! The key ledger in a durable local file, for tokens that have no data objects (NSS). One record
//! a line: label, tab, hex of the DER. Only one appliance may use such a token.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    durable::{self, AppendLog},
    key::{Ledger, LedgerUnavailable, StoredRecord},
};

/// Records in a file.
pub struct FileLedger {
    path: PathBuf,
    log: Mutex<AppendLog>,
}

impl FileLedger {
    /// Opens the ledger, or begins an empty one. What follows the last newline is a record whose
    /// append never returned: it is cut off.
    pub fn open(path: &Path) -> io::Result<Self> {
        durable::cut_torn_line(path)?;
        Ok(Self { path: path.to_owned(), log: Mutex::new(AppendLog::open(path)?) })
    }
}

/// The records of a ledger that somebody else may be writing.
pub fn read(path: &Path) -> io::Result<Vec<StoredRecord>> {
    let text = std::fs::read_to_string(path)?;
    // What follows the last newline is being written.
    Ok(parse(text.rsplit_once('\n').map_or("", |(whole, _)| whole)))
}

fn unavailable(error: io::Error) -> LedgerUnavailable {
    LedgerUnavailable(Box::new(error))
}

/// A record as it stands in the file.
#[must_use]
pub fn line(record: &StoredRecord) -> String {
    format!("{}\t{}\n", record.label, hex::encode(&record.value))
}

/// Stands where a record's value would.
const REMOVED: &str = "-";

/// The records that have not been taken back.
fn parse(text: &str) -> Vec<StoredRecord> {
    let mut records: Vec<StoredRecord> = Vec::new();
    for line in text.lines() {
        // A damaged line becomes a record that cannot be read, which the fold refuses by its label.
        let (label, value) = line.split_once('\t').unwrap_or((line, ""));
        if value == REMOVED {
            records.retain(|record| record.label != label);
        } else {
            records.push(StoredRecord { label: label.to_owned(), value: hex::decode(value).unwrap_or_default() });
        }
    }
    records
}

#[async_trait]
impl Ledger for FileLedger {
    async fn read(&self) -> Result<Vec<StoredRecord>, LedgerUnavailable> {
        Ok(parse(&std::fs::read_to_string(&self.path).map_err(unavailable)?))
    }

    async fn append(&self, record: StoredRecord) -> Result<(), LedgerUnavailable> {
        self.log.lock().append(line(&record).as_bytes()).map_err(|error| unavailable(error.into()))
    }

    async fn remove(&self, label: &str) -> Result<(), LedgerUnavailable> {
        // The file only grows: a line without a value takes back what stands before it.
        let line = format!("{label}\t{REMOVED}\n");
        self.log.lock().append(line.as_bytes()).map_err(|error| unavailable(error.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn records_survive_reopening() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        let record = |n: u8| StoredRecord { label: format!("s ledger {n}"), value: vec![n, 0, 9] };
        FileLedger::open(&path).unwrap().append(record(1)).await.unwrap();
        let ledger = FileLedger::open(&path).unwrap();
        ledger.append(record(2)).await.unwrap();
        assert_eq!(ledger.read().await.unwrap(), [record(1), record(2)]);
    }

    #[tokio::test]
    async fn a_torn_record_is_cut_off_and_removed_ones_do_not_count() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        std::fs::write(&path, "a\t00\nb\t0").unwrap();
        let ledger = FileLedger::open(&path).unwrap();
        let record = StoredRecord { label: "c".into(), value: vec![1] };
        ledger.append(record.clone()).await.unwrap();
        ledger.remove("a").await.unwrap();
        assert_eq!(ledger.read().await.unwrap(), [record]);
    }
}
