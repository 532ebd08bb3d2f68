//! Requests that are done once, however often they are sent: `Idempotency-Key`.
//!
//! A file a key under the state directory: written before the work begins, and again with the answer
//! when it was done. What is found there when the same key comes again decides:
//!
//! | file | the work | what follows |
//! |---|---|---|
//! | with an answer | was done | the same answer |
//! | without, and the work is running | is being done | the caller waits and asks again |
//! | without, and it is not running | may have been done: a crash, or a failure that left it open | look whether it was, before it is begun again |
//!
//! A refusal, after which nothing was changed, is not kept: the cause may pass.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{durable, timestamp::Timestamp};

/// How long answers are kept.
const KEPT_SECONDS: i64 = 7 * 86_400;

/// Most answers that are kept; the oldest go first.
const MOST: usize = 10_000;

/// What was answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptAnswer {
    pub status: u16,
    pub location: Option<String>,
    pub body: serde_json::Value,
}

/// What is on disk under one key.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Entry {
    client: String,
    /// SHA-256 of what was asked for.
    content: String,
    began_at: Timestamp,
    answer: Option<KeptAnswer>,
}

/// What to do with a request.
#[derive(Debug)]
pub enum Begin {
    /// It is the first, or the ones before changed nothing.
    Fresh(Ticket),
    /// One before it, begun at this time, may have been done.
    Unsettled(Ticket, Timestamp),
    /// It was done: this was the answer.
    Done(KeptAnswer),
}

/// Why a request with a key is not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    #[error("the key was used for something else")]
    OtherContent,
    #[error("the first request with this key is being worked on")]
    Running,
    #[error("the state directory cannot be written")]
    Disk,
}

/// All keys.
pub struct Once {
    directory: PathBuf,
    began: Mutex<HashMap<String, Timestamp>>,
    running: Mutex<BTreeSet<String>>,
}

/// The right to do the work of one key. Dropped without a word, it leaves the outcome open.
#[derive(Debug)]
pub struct Ticket {
    once: Arc<Once>,
    name: String,
    entry: Entry,
}

impl std::fmt::Debug for Once {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Once").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Once {
    /// Reads what is kept in this directory, which is made when missing.
    pub fn open(directory: &Path) -> io::Result<Arc<Self>> {
        if !directory.is_dir() {
            durable::private_directory(directory)?;
        }
        let mut began = HashMap::new();
        for file in std::fs::read_dir(directory)? {
            let path = file?.path();
            if path.extension().is_some_and(|extension| extension == "json")
                && let Some(name) = path.file_stem().and_then(|stem| stem.to_str())
            {
                began.insert(name.to_owned(), read(&path)?.began_at);
            }
        }
        Ok(Arc::new(Self { directory: directory.into(), began: Mutex::new(began), running: Mutex::default() }))
    }

    /// Takes a key of a client for this content. Blocks.
    pub fn begin(
        self: &Arc<Self>,
        client: &str,
        key: &str,
        content: &[u8; 32],
        now: Timestamp,
    ) -> Result<Begin, Conflict> {
        let name = name_of(client, key);
        let content = hex::encode(content);
        if !self.running.lock().insert(name.clone()) {
            // Whether it is the same content is seen when that one has finished.
            return Err(Conflict::Running);
        }
        let ticket = |entry| Ticket { once: Arc::clone(self), name: name.clone(), entry };
        let path = self.path(&name);
        let known = self.began.lock().contains_key(&name);
        if known {
            let kept = ticket(read(&path).map_err(|_| self.end(&name, Conflict::Disk))?);
            if kept.entry.content != content {
                return Err(Conflict::OtherContent);
            }
            return Ok(match kept.entry.answer.clone() {
                Some(answer) => Begin::Done(answer),
                None => {
                    let began_at = kept.entry.began_at;
                    Begin::Unsettled(kept, began_at)
                }
            });
        }
        let fresh = ticket(Entry { client: client.into(), content, began_at: now, answer: None });
        fresh.write().map_err(|_| Conflict::Disk)?;
        self.began.lock().insert(name.clone(), now);
        self.forget_old(now);
        Ok(Begin::Fresh(fresh))
    }

    fn end(&self, name: &str, conflict: Conflict) -> Conflict {
        self.running.lock().remove(name);
        conflict
    }

    fn path(&self, name: &str) -> PathBuf {
        self.directory.join(format!("{name}.json"))
    }

    /// What cannot be removed is tried again with the next key.
    fn forget_old(&self, now: Timestamp) {
        let mut began = self.began.lock();
        let mut by_age: Vec<_> = began.iter().map(|(name, at)| (at.unix_milliseconds(), name.clone())).collect();
        by_age.sort_unstable();
        let surplus = by_age.len().saturating_sub(MOST);
        let limit = now.plus_seconds(-KEPT_SECONDS).unix_milliseconds();
        let old = by_age.iter().enumerate().filter(|(at, (began_at, _))| *at < surplus || *began_at < limit);
        for (_, (_, name)) in old {
            if !self.running.lock().contains(name) && std::fs::remove_file(self.path(name)).is_ok() {
                began.remove(name);
            }
        }
    }
}

impl Ticket {
    /// It was done, and this is the answer from now on. Blocks.
    pub fn settle(mut self, answer: KeptAnswer) -> io::Result<()> {
        self.entry.answer = Some(answer);
        self.write()
    }

    /// Nothing was changed: the key is as if it had never come. Blocks.
    pub fn forget(self) -> io::Result<()> {
        self.once.began.lock().remove(&self.name);
        std::fs::remove_file(self.once.path(&self.name))
    }

    fn write(&self) -> io::Result<()> {
        let text = serde_json::to_vec(&self.entry).expect("texts and an answer that was JSON");
        durable::replace(&self.once.path(&self.name), &text)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.once.running.lock().remove(&self.name);
    }
}

fn read(path: &Path) -> io::Result<Entry> {
    serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)
}

/// A file name that tells nothing and that no key can choose.
fn name_of(client: &str, key: &str) -> String {
    let mut hash = Sha256::new();
    hash.update((client.len() as u64).to_be_bytes());
    hash.update(client);
    hash.update(key);
    hex::encode(hash.finalize())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: [u8; 32] = [1; 32];
    const OTHER: [u8; 32] = [2; 32];

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(seconds).unwrap()
    }

    fn answer() -> KeptAnswer {
        KeptAnswer { status: 201, location: Some("/x".into()), body: serde_json::json!({ "a": 1 }) }
    }

    fn fresh(once: &Arc<Once>, key: &str, now: i64) -> Ticket {
        match once.begin("client", key, &ONE, at(now)).unwrap() {
            Begin::Fresh(ticket) => ticket,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_was_done_is_answered_the_same_after_a_restart_and_only_for_the_same_content_and_client() {
        let directory = tempfile::tempdir().unwrap();
        let once = Once::open(directory.path()).unwrap();
        fresh(&once, "k", 1).settle(answer()).unwrap();
        for once in [Arc::clone(&once), Once::open(directory.path()).unwrap()] {
            for _ in 0..2 {
                assert!(matches!(once.begin("client", "k", &ONE, at(2)), Ok(Begin::Done(kept)) if kept == answer()));
                assert_eq!(once.begin("client", "k", &OTHER, at(2)).unwrap_err(), Conflict::OtherContent);
            }
        }
        assert!(matches!(once.begin("stranger", "k", &OTHER, at(2)), Ok(Begin::Fresh(_))));
    }

    #[test]
    fn while_it_runs_others_wait_and_when_it_ends_without_a_word_the_outcome_is_open() {
        let directory = tempfile::tempdir().unwrap();
        let once = Once::open(directory.path()).unwrap();
        let ticket = fresh(&once, "k", 1);
        assert_eq!(once.begin("client", "k", &ONE, at(2)).unwrap_err(), Conflict::Running);
        assert_eq!(once.begin("client", "k", &OTHER, at(2)).unwrap_err(), Conflict::Running);
        drop(ticket);
        for once in [Arc::clone(&once), Once::open(directory.path()).unwrap()] {
            assert!(matches!(once.begin("client", "k", &ONE, at(2)), Ok(Begin::Unsettled(_, began)) if began == at(1)));
            assert_eq!(once.begin("client", "k", &OTHER, at(2)).unwrap_err(), Conflict::OtherContent);
        }
    }

    #[test]
    fn a_refusal_leaves_nothing_and_old_answers_go() {
        let directory = tempfile::tempdir().unwrap();
        let once = Once::open(directory.path()).unwrap();
        fresh(&once, "refused", 1).forget().unwrap();
        drop(fresh(&once, "refused", 1));
        let week = 7 * 86_400;
        fresh(&once, "later", week + 2).settle(answer()).unwrap();
        assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 1);
    }
}
