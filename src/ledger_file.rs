//! The key ledger in a durable local file, for tokens that have no data objects (NSS). One record
//! a line: label, tab, hex of the DER. Only one appliance may use such a token.

use std::{
    io,
    path::{Path, PathBuf},
};

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::{
    durable::AppendLog,
    key::{Ledger, LedgerUnavailable, StoredRecord},
};

/// Records in a file.
pub struct FileLedger {
    path: PathBuf,
    log: Mutex<AppendLog>,
}

impl FileLedger {
    /// Opens the ledger, or begins an empty one.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), log: Mutex::new(AppendLog::open(path)?) })
    }
}

fn unavailable(error: io::Error) -> LedgerUnavailable {
    LedgerUnavailable(Box::new(error))
}

fn parse(line: &str) -> StoredRecord {
    // A damaged line becomes a record that cannot be read, which the fold refuses by its label.
    let (label, value) = line.split_once('\t').unwrap_or((line, ""));
    StoredRecord { label: label.to_owned(), value: hex::decode(value).unwrap_or_default() }
}

#[async_trait]
impl Ledger for FileLedger {
    async fn read(&self) -> Result<Vec<StoredRecord>, LedgerUnavailable> {
        let text = std::fs::read_to_string(&self.path).map_err(unavailable)?;
        // The part after the last newline is a record whose append never returned.
        let complete = text.rsplit_once('\n').map_or("", |(complete, _)| complete);
        Ok(complete.lines().filter(|line| !line.is_empty()).map(parse).collect())
    }

    async fn append(&self, record: StoredRecord) -> Result<(), LedgerUnavailable> {
        let mut log = self.log.lock();
        let torn = log.tail(1).map_err(unavailable)?.first().is_some_and(|byte| *byte != b'\n');
        if torn {
            let error = io::Error::new(
                io::ErrorKind::InvalidData,
                format!("{} ends in the middle of a record", self.path.display()),
            );
            return Err(unavailable(error));
        }
        let line = format!("{}\t{}\n", record.label, hex::encode(record.value));
        log.append(line.as_bytes()).map_err(unavailable)
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
    async fn a_torn_record_does_not_count_and_stops_further_appends() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("ledger");
        std::fs::write(&path, "a\t00\nb\t0").unwrap();
        let ledger = FileLedger::open(&path).unwrap();
        assert_eq!(ledger.read().await.unwrap().len(), 1);
        assert!(ledger.append(StoredRecord { label: "c".into(), value: vec![1] }).await.is_err());
    }
}
