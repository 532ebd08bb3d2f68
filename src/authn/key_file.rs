//! The file of bearer keys: hashes, whose they are, and until when.

use std::{
    collections::HashMap,
    io,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::{
    Refused,
    bearer::{BearerKey, SECRET_BYTES},
};
use crate::{
    durable::{self, DirectoryLock},
    timestamp::Timestamp,
};

/// One for use and its successor: more at once are keys that nobody remembers.
pub const MAX_VALID_KEYS: usize = 2;

/// One key's row.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KeyRow {
    pub id: String,
    pub client: String,
    salt: String,
    hmac_sha256: String,
    pub created_at: Timestamp,
    pub expires_at: Timestamp,
}

#[derive(Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rows {
    keys: Vec<KeyRow>,
}

/// Why the file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum KeyFileError {
    #[error("bearer keys {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("bearer keys {path}: line {line} is not as `verification-signer key` writes it")]
    Content { path: PathBuf, line: usize },
    #[error("bearer keys {path}: the row of key {id} is damaged")]
    Row { path: PathBuf, id: String },
    #[error("client {client:?} has {MAX_VALID_KEYS} valid keys already: revoke one of {ids} first")]
    TooMany { client: String, ids: String },
    #[error("no key {0:?}: list them with `verification-signer key list`")]
    Unknown(String),
    #[error("no random numbers: {0}")]
    Random(getrandom::Error),
}

/// The keys in use.
pub(super) struct KeyFile {
    rows: HashMap<String, Row>,
}

struct Row {
    client: String,
    salt: Vec<u8>,
    hash: Vec<u8>,
    expires_at: i64,
}

impl KeyFile {
    /// Reads it. A file that is not there yet has no keys in it.
    pub(super) fn load(path: &Path) -> Result<Self, KeyFileError> {
        let mut rows = HashMap::new();
        for row in read(path)?.keys {
            let damaged = || KeyFileError::Row { path: path.into(), id: row.id.clone() };
            let salt = hex::decode(&row.salt).map_err(|_| damaged())?;
            let hash = hex::decode(&row.hmac_sha256).map_err(|_| damaged())?;
            if hash.len() != SECRET_BYTES || salt.len() < 16 {
                return Err(damaged());
            }
            let entry = Row { client: row.client.clone(), salt, hash, expires_at: row.expires_at.unix_seconds() };
            if rows.insert(row.id.clone(), entry).is_some() {
                return Err(damaged());
            }
        }
        Ok(Self { rows })
    }

    /// Whose key this is.
    pub(super) fn client_of(&self, key: &BearerKey, now_seconds: i64) -> Result<String, Refused> {
        // The id is no secret: that there is no such key may be told by how long the answer takes.
        let row = self.rows.get(&key.id).ok_or(Refused::UnknownKey)?;
        if !key.matches(&row.salt, &row.hash) {
            return Err(Refused::UnknownKey);
        }
        if now_seconds >= row.expires_at {
            return Err(Refused::ExpiredKey);
        }
        Ok(row.client.clone())
    }
}

/// A key that was just made: the only moment in which it can be seen.
pub struct NewKey {
    pub row: KeyRow,
    pub key: Zeroizing<String>,
}

/// The file in the hands of whoever administers it.
pub struct Keys {
    path: PathBuf,
    rows: Rows,
    _lock: DirectoryLock,
}

impl Keys {
    /// Reads it, and keeps others from changing it meanwhile.
    pub fn open(path: &Path) -> Result<Self, KeyFileError> {
        let lock = durable::lock_file(&path.with_extension("lock"))
            .map_err(|source| KeyFileError::Io { path: path.into(), source })?;
        Ok(Self { path: path.to_owned(), rows: read(path)?, _lock: lock })
    }

    /// All rows, oldest first.
    #[must_use]
    pub fn rows(&self) -> &[KeyRow] {
        &self.rows.keys
    }

    /// Makes a key and writes the file.
    pub fn add(&mut self, client: &str, now: Timestamp, expires_at: Timestamp) -> Result<NewKey, KeyFileError> {
        let valid: Vec<_> = self
            .rows
            .keys
            .iter()
            .filter(|row| row.client == client && row.expires_at > now)
            .map(|row| &*row.id)
            .collect();
        if valid.len() >= MAX_VALID_KEYS {
            return Err(KeyFileError::TooMany { client: client.into(), ids: valid.join(", ") });
        }
        let key = BearerKey::random().map_err(KeyFileError::Random)?;
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(KeyFileError::Random)?;
        let row = KeyRow {
            id: key.id.clone(),
            client: client.into(),
            salt: hex::encode(salt),
            hmac_sha256: hex::encode(key.hash(&salt)),
            created_at: now,
            expires_at,
        };
        self.rows.keys.push(row.clone());
        self.write()?;
        Ok(NewKey { row, key: key.reveal() })
    }

    /// Takes a key out and writes the file.
    pub fn revoke(&mut self, id: &str) -> Result<KeyRow, KeyFileError> {
        let at = self.rows.keys.iter().position(|row| row.id == id).ok_or_else(|| KeyFileError::Unknown(id.into()))?;
        let row = self.rows.keys.remove(at);
        self.write()?;
        Ok(row)
    }

    fn write(&self) -> Result<(), KeyFileError> {
        let mut text = serde_json::to_vec_pretty(&self.rows).expect("rows are texts");
        text.push(b'\n');
        durable::replace(&self.path, &text).map_err(|source| KeyFileError::Io { path: self.path.clone(), source })
    }
}

fn read(path: &Path) -> Result<Rows, KeyFileError> {
    match std::fs::read(path) {
        // serde's own message may quote what stands there.
        Ok(text) => serde_json::from_slice(&text)
            .map_err(|error| KeyFileError::Content { path: path.into(), line: error.line() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Rows::default()),
        Err(source) => Err(KeyFileError::Io { path: path.into(), source }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).unwrap()
    }

    #[test]
    fn keys_are_found_until_they_expire_or_are_revoked_and_a_third_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        let mut keys = Keys::open(&path).unwrap();
        let first = keys.add("a", at(100), at(200)).unwrap();
        let second = keys.add("a", at(100), at(300)).unwrap();
        assert!(matches!(keys.add("a", at(100), at(300)), Err(KeyFileError::TooMany { .. })));
        keys.add("b", at(100), at(200)).map(|_| ()).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(!text.contains(first.key.rsplit_once('_').unwrap().1), "the secret is in the file");

        let client = |key: &str, now| KeyFile::load(&path).unwrap().client_of(&BearerKey::parse(key).unwrap(), now);
        assert_eq!(client(&first.key, 199).unwrap(), "a");
        assert_eq!(client(&first.key, 200).unwrap_err(), Refused::ExpiredKey);
        assert_eq!(client(&second.key, 200).unwrap(), "a");
        keys.revoke(&second.row.id).unwrap();
        assert_eq!(client(&second.key, 150).unwrap_err(), Refused::UnknownKey);
        // The id of one with the secret of another.
        let mixed = first.key.replace(&first.row.id, &keys.rows()[1].id);
        assert_eq!(client(&mixed, 150).unwrap_err(), Refused::UnknownKey);
        // The first has expired: there is room for its successor.
        keys.add("a", at(200), at(300)).map(|_| ()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_refused_and_not_quoted() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("keys.json");
        for text in ["", "{\"keys\":[{\"vsk_secret\":1}]}", "{\"keys\":[]} x"] {
            std::fs::write(&path, text).unwrap();
            let error = KeyFile::load(&path).map(|_| ()).unwrap_err();
            assert!(!format!("{error} {error:?}").contains("vsk_secret"), "{error}");
        }
    }
}
