//! Appliances witness each other's logs (C2SP tlog-witness): each remembers the last checkpoint of
//! every log it knows, on its own disk, and takes a newer one only with a proof that the log has only
//! grown. So a log that was rolled back, or forked, meets somebody who remembers.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
};

use base64::{Engine, engine::general_purpose::STANDARD};

use super::{
    checkpoint::Checkpoint,
    merkle::{self, Hash},
};
use crate::{durable, key::PublicKey};

/// Most hashes in a proof (tlog-witness).
const MAX_PROOF: usize = 63;

/// Most logs that one witness remembers: far more than a fleet has appliances.
const MAX_LOGS: usize = 1000;

/// What a log asks of a witness: the body of `add-checkpoint`.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub old_size: u64,
    pub proof: Vec<Hash>,
    pub note: String,
}

impl Request {
    /// The body as it is sent.
    #[must_use]
    pub fn to_text(&self) -> String {
        let proof: String = self.proof.iter().map(|hash| STANDARD.encode(hash) + "\n").collect();
        format!("old {}\n{proof}\n{}", self.old_size, self.note)
    }

    /// Reads a body.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (head, note) = text.split_once("\n\n")?;
        let mut lines = head.split('\n');
        let old = lines.next()?.strip_prefix("old ")?;
        let old_size: u64 = old.parse().ok()?;
        let proof: Option<Vec<Hash>> = lines.map(|line| STANDARD.decode(line).ok()?.try_into().ok()).collect();
        let proof = proof.filter(|proof| proof.len() <= MAX_PROOF && old_size.to_string() == old)?;
        Some(Self { old_size, proof, note: note.to_owned() })
    }
}

/// Why a witness does not take a checkpoint. The numbers are those of tlog-witness.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("400: the request has not the right form, or its old size is above its size")]
    BadRequest,
    #[error("403: it is not signed by the audit key")]
    Forbidden,
    #[error("409: the last checkpoint that was witnessed has {size} records")]
    Conflict { size: u64 },
    #[error("409: another tree of the same size was witnessed before")]
    Forked,
    #[error("422: the log does not continue the one that was witnessed before")]
    Inconsistent,
}

impl Refusal {
    /// Whether it shows that the log has two histories.
    #[must_use]
    pub fn accuses(&self) -> bool {
        matches!(self, Self::Forked | Self::Inconsistent)
    }
}

/// The rule: what a witness that remembers `last` makes of a request.
pub fn judge(last: Option<&Checkpoint>, request: &Request, keys: &[PublicKey]) -> Result<Checkpoint, Refusal> {
    let new = Checkpoint::open(&request.note, keys).map_err(|_| Refusal::Forbidden)?;
    if request.old_size > new.size {
        return Err(Refusal::BadRequest);
    }
    let (known, root) = last.map_or((0, Hash::default()), |last| (last.size, last.root));
    if request.old_size != known {
        return Err(Refusal::Conflict { size: known });
    }
    if known == new.size && last.is_some() && root != new.root {
        return Err(Refusal::Forked);
    }
    if merkle::verify_consistency((known, &root), (new.size, &new.root), &request.proof) {
        Ok(new)
    } else {
        Err(Refusal::Inconsistent)
    }
}

/// What this appliance remembers of logs, its own among them.
pub struct Memory {
    path: PathBuf,
    keys: Vec<PublicKey>,
    notes: BTreeMap<String, String>,
}

impl Memory {
    /// Reads it from the state directory. A memory that cannot be read is an error, not an empty one.
    pub fn load(state_directory: &Path, keys: &[PublicKey]) -> io::Result<Self> {
        let path = state_directory.join("audit-seen.json");
        let notes = match std::fs::read(&path) {
            Ok(bytes) => serde_json::from_slice(&bytes)?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => BTreeMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path, keys: keys.to_vec(), notes })
    }

    /// The file, for messages.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Keys that are known besides from now on.
    pub fn know(&mut self, keys: &[PublicKey]) {
        self.keys.extend(keys.iter().filter(|key| !self.keys.contains(key)).cloned().collect::<Vec<_>>());
    }

    /// The last checkpoint of a log, where it verifies.
    #[must_use]
    pub fn last(&self, origin: &str) -> Option<Checkpoint> {
        Checkpoint::open(self.notes.get(origin)?, &self.keys).ok()
    }

    /// Every note but that of this log.
    pub fn others(&self, origin: &str) -> impl Iterator<Item = (&String, &String)> {
        self.notes.iter().filter(move |(known, _)| *known != origin)
    }

    /// A note that verifies with the keys that are known.
    #[must_use]
    pub fn open(&self, note: &str) -> Option<Checkpoint> {
        Checkpoint::open(note, &self.keys).ok()
    }

    /// Remembers a checkpoint of our own.
    pub fn remember(&mut self, origin: &str, note: &str) -> io::Result<()> {
        self.keep(origin.to_owned(), note.to_owned())
    }

    /// Judges a request; what is taken is on disk when this returns.
    pub fn witness(&mut self, request: &Request) -> Result<Checkpoint, Refusal> {
        let origin = request.note.split('\n').next().unwrap_or_default().to_owned();
        if !self.notes.contains_key(&origin) && self.notes.len() >= MAX_LOGS {
            return Err(Refusal::BadRequest);
        }
        let last = self.last(&origin);
        let new = judge(last.as_ref(), request, &self.keys)?;
        // Not kept is not witnessed.
        self.keep(origin, request.note.clone()).map_err(|_| Refusal::BadRequest)?;
        Ok(new)
    }

    fn keep(&mut self, origin: String, note: String) -> io::Result<()> {
        if self.notes.get(&origin) == Some(&note) {
            return Ok(());
        }
        let mut notes = self.notes.clone();
        notes.insert(origin, note);
        durable::replace(&self.path, &serde_json::to_vec_pretty(&notes)?)?;
        self.notes = notes;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::audit::{
        checkpoint::tests::{key, note},
        merkle::{Frontier, leaf_hash},
    };

    /// The heads of a log after 1, 2, 3 … records, and proofs between them.
    struct Log(Vec<Vec<u8>>);

    impl Log {
        fn head(&self, size: usize) -> Checkpoint {
            let mut tree = Frontier::default();
            self.0[..size].iter().for_each(|record| tree.append(leaf_hash(record)));
            Checkpoint { origin: "log".into(), size: size as u64, root: tree.root() }
        }

        fn request(&self, old: usize, new: usize) -> Request {
            let mut stored = Stored::default();
            let mut tree = Frontier::default();
            self.0.iter().for_each(|record| tree.append_with(leaf_hash(record), |node| stored.0.push(*node)));
            let proof = merkle::consistency_proof(&stored, old as u64, new as u64).unwrap();
            Request { old_size: old as u64, proof, note: note(&self.head(new), 1) }
        }
    }

    #[derive(Default)]
    struct Stored(Vec<Hash>);

    impl merkle::Nodes for Stored {
        type Error = std::convert::Infallible;
        fn node(&self, level: u32, number: u64) -> Result<Hash, Self::Error> {
            Ok(self.0[usize::try_from(merkle::stored_index(level, number)).unwrap()])
        }
    }

    fn log(name: &str) -> Log {
        Log((0..20).map(|number| format!("{name} {number}").into_bytes()).collect())
    }

    #[test]
    fn a_witness_follows_a_log_that_grows_and_no_other() {
        let (ours, forked) = (log("one"), log("two"));
        let keys = [key(1).1];
        let last = judge(None, &ours.request(0, 5), &keys).unwrap();
        assert_eq!(last, ours.head(5));
        assert_eq!(judge(Some(&last), &ours.request(5, 12), &keys), Ok(ours.head(12)));
        assert_eq!(judge(Some(&last), &ours.request(5, 5), &keys), Ok(ours.head(5)));
        assert_eq!(judge(Some(&last), &ours.request(0, 12), &keys), Err(Refusal::Conflict { size: 5 }));
        assert_eq!(judge(Some(&last), &ours.request(3, 12), &keys), Err(Refusal::Conflict { size: 5 }));
        assert_eq!(judge(Some(&last), &forked.request(5, 12), &keys), Err(Refusal::Inconsistent));
        assert_eq!(judge(Some(&last), &forked.request(5, 5), &keys), Err(Refusal::Forked));
        let rolled_back = Request { old_size: 5, ..ours.request(0, 3) };
        assert_eq!(judge(Some(&last), &rolled_back, &keys), Err(Refusal::BadRequest));
        assert_eq!(judge(Some(&last), &ours.request(5, 12), &[key(2).1]), Err(Refusal::Forbidden));
        let without_proof = Request { proof: Vec::new(), ..ours.request(5, 12) };
        assert_eq!(judge(Some(&last), &without_proof, &keys), Err(Refusal::Inconsistent));
    }

    #[test]
    fn a_request_is_read_as_it_was_written() {
        let request = log("one").request(5, 12);
        assert_eq!(Request::parse(&request.to_text()), Some(request));
        for bad in ["", "old 05\n\nnote", "old\n\nnote", "old 5\nnot base64!\n\nnote", "old 5\n"] {
            assert_eq!(Request::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn what_was_witnessed_is_remembered_over_a_restart() {
        let directory = tempfile::tempdir().unwrap();
        let keys = [key(1).1];
        let ours = log("one");
        let mut memory = Memory::load(directory.path(), &keys).unwrap();
        memory.witness(&ours.request(0, 5)).unwrap();
        let mut memory = Memory::load(directory.path(), &keys).unwrap();
        assert_eq!(memory.last("log"), Some(ours.head(5)));
        assert_eq!(memory.witness(&ours.request(0, 7)), Err(Refusal::Conflict { size: 5 }));
        std::fs::write(memory.path(), "{").unwrap();
        assert!(Memory::load(directory.path(), &keys).is_err());
    }
}
