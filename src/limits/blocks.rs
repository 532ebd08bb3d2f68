//! Blocks: whom this signer does nothing for, until when, why, and who said so.
//!
//! The list is a grow-only set of records, each of which may be ended once. Two copies are merged by
//! taking every record of both, ended where it is ended in either: so the file beside the appliance
//! and the hash in Redis may each be lost, cleared or late, and both come to say the same again. A
//! record is forgotten when it has been over for [`REMEMBERED_DAYS`].

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{client::ClientIdentity, durable, quota::Principal, timestamp::Timestamp};

/// How long whoever was blocked is known for it.
pub const REMEMBERED_DAYS: i64 = 30;

/// Records kept, at most: each request is compared with those in force.
const MOST: usize = 10_000;

/// Of these, places that scores do not take.
const FOR_STAFF: usize = 1000;

/// The actor of blocks that scores set.
pub const BY_SCORE: &str = "abuse-score";

/// Who is blocked.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "kind", content = "value")]
pub enum Target {
    /// An address or a network.
    Address(IpNet),
    Client(String),
    Subject(String),
}

impl Target {
    /// What a score's principal is blocked as.
    #[must_use]
    pub fn of(principal: &Principal) -> Self {
        match principal {
            Principal::Client(identity) => Self::Client(identity.to_string()),
            Principal::Subject(address) => Self::Subject(address.clone()),
            Principal::Address(group) => {
                let prefix = if group.address().is_ipv4() { 32 } else { 64 };
                Self::Address(IpNet::new(group.address(), prefix).expect("no longer than the address").trunc())
            }
        }
    }

    /// Whether it holds for this principal.
    #[must_use]
    pub fn covers(&self, principal: &Principal) -> bool {
        match (self, principal) {
            (Self::Address(network), Principal::Address(group)) => network.contains(&group.address()),
            (Self::Client(name), Principal::Client(identity)) => identity.as_str() == name,
            (Self::Subject(name), Principal::Subject(address)) => address == name,
            (Self::Address(_) | Self::Client(_) | Self::Subject(_), _) => false,
        }
    }
}

/// One block.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Block {
    pub id: Uuid,
    pub target: Target,
    pub reason: String,
    pub initiated_by: String,
    /// The authenticated identity, or `abuse-score`.
    pub actor: String,
    pub created_at: Timestamp,
    /// Left out: until it is removed.
    pub expires_at: Option<Timestamp>,
    pub removed_at: Option<Timestamp>,
    pub removed_by: Option<String>,
}

impl Block {
    /// Whether it holds at `now`.
    #[must_use]
    pub fn is_in_force(&self, now: Timestamp) -> bool {
        self.removed_at.is_none() && self.expires_at.is_none_or(|end| now < end)
    }

    fn ended_at(&self) -> Option<Timestamp> {
        match (self.removed_at, self.expires_at) {
            (Some(removed), Some(expires)) => Some(removed.min(expires)),
            (ended, None) | (None, ended) => ended,
        }
    }

    fn is_remembered(&self, now: Timestamp) -> bool {
        self.ended_at().is_none_or(|ended| now.seconds_since(ended) < REMEMBERED_DAYS * 86_400)
    }

    /// The later of two copies of one record: an end is never taken back, and of two ends the
    /// earlier counts.
    fn merged(self, other: Self) -> Self {
        match (self.removed_at, other.removed_at) {
            (Some(ours), Some(theirs)) if theirs < ours => other,
            (None, Some(_)) => other,
            _ => self,
        }
    }
}

/// Why a list cannot be changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("{MOST} blocks are kept already")]
    Full,
    #[error("the list of blocks cannot be kept in {path}: {source}")]
    File { path: PathBuf, source: io::Error },
    #[error("{path} is not a list of blocks ({source}): restore it, or remove it and block anew")]
    Damaged { path: PathBuf, source: serde_json::Error },
}

type Records = BTreeMap<Uuid, Block>;

/// What each request is compared with.
#[derive(Debug, Default)]
struct InForce {
    blocks: Vec<Arc<Block>>,
    clients: BTreeMap<String, usize>,
    subjects: BTreeMap<String, usize>,
    networks: Vec<(IpNet, usize)>,
}

/// The list of one appliance, on disk.
pub struct Blocks {
    path: PathBuf,
    records: Mutex<Records>,
    in_force: ArcSwap<InForce>,
}

impl Blocks {
    /// Reads the list in the state directory; none is an empty one.
    pub fn open(directory: &Path, now: Timestamp) -> Result<Self, Error> {
        let path = directory.join("blocks.json");
        let records: Records = match std::fs::read(&path) {
            Ok(bytes) => {
                let list: Vec<Block> =
                    serde_json::from_slice(&bytes).map_err(|source| Error::Damaged { path: path.clone(), source })?;
                list.into_iter().map(|block| (block.id, block)).collect()
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Records::new(),
            Err(source) => return Err(Error::File { path, source }),
        };
        let blocks =
            Self { path, in_force: ArcSwap::from_pointee(InForce::of(&records, now)), records: Mutex::new(records) };
        Ok(blocks)
    }

    /// The block that stands against one of these, if there is one.
    #[must_use]
    pub fn against(
        &self,
        address: Option<IpAddr>,
        client: Option<&ClientIdentity>,
        subject: Option<&str>,
        now: Timestamp,
    ) -> Option<Arc<Block>> {
        let list = self.in_force.load();
        let network = address.map(|address| address.to_canonical()).and_then(|address| {
            let mut networks = list.networks.iter();
            networks.find(|(network, at)| network.contains(&address) && list.blocks[*at].is_in_force(now))
        });
        let named = |names: &BTreeMap<String, usize>, name: Option<&str>| {
            name.and_then(|name| names.get(name).copied()).filter(|at| list.blocks[*at].is_in_force(now))
        };
        let at = network
            .map(|(_, at)| *at)
            .or_else(|| named(&list.clients, client.map(ClientIdentity::as_str)))
            .or_else(|| named(&list.subjects, subject))?;
        Some(Arc::clone(&list.blocks[at]))
    }

    /// Adds a block; from its return on it holds here, also after a restart.
    pub fn add(&self, block: Block, now: Timestamp) -> Result<(), Error> {
        self.change(now, |records| {
            // Those that are over give way first, the oldest before the others; and scores leave room
            // for what staff decide.
            let most = if block.actor == BY_SCORE { MOST - FOR_STAFF } else { MOST };
            while records.len() >= most {
                let over = records.values().filter(|block| !block.is_in_force(now)).min_by_key(|block| block.id);
                let id = over.map(|block| block.id).ok_or(Error::Full)?;
                records.remove(&id);
            }
            records.insert(block.id, block);
            Ok(())
        })
    }

    /// Ends a block; `None` when there is no such block, or it has ended.
    pub fn remove(&self, id: Uuid, by: &str, now: Timestamp) -> Result<Option<Block>, Error> {
        self.change(now, |records| {
            let Some(block) = records.get_mut(&id).filter(|block| block.is_in_force(now)) else { return Ok(None) };
            block.removed_at = Some(now);
            block.removed_by = Some(by.to_owned());
            Ok(Some(block.clone()))
        })
    }

    /// Takes over what another copy knows; returns what that copy does not know yet.
    pub fn merge(&self, other: Vec<Block>, now: Timestamp) -> Result<Vec<Block>, Error> {
        let other: Records = other.into_iter().map(|block| (block.id, block)).collect();
        let mut records = self.records.lock();
        let mut merged = records.clone();
        for (id, theirs) in other.iter().filter(|(_, block)| block.is_remembered(now)) {
            let block = match merged.remove(id) {
                Some(ours) => ours.merged(theirs.clone()),
                None => theirs.clone(),
            };
            merged.insert(*id, block);
        }
        if merged != *records {
            self.keep(&mut records, merged, now)?;
        }
        Ok(records.values().filter(|ours| other.get(&ours.id) != Some(ours)).cloned().collect())
    }

    fn change<T>(&self, now: Timestamp, change: impl FnOnce(&mut Records) -> Result<T, Error>) -> Result<T, Error> {
        let mut records = self.records.lock();
        let mut changed = records.clone();
        changed.retain(|_, block| block.is_remembered(now));
        let done = change(&mut changed)?;
        self.keep(&mut records, changed, now)?;
        Ok(done)
    }

    /// On disk first: nothing that was answered is lost by a crash.
    fn keep(&self, records: &mut Records, changed: Records, now: Timestamp) -> Result<(), Error> {
        let list: Vec<_> = changed.values().collect();
        let json = serde_json::to_vec_pretty(&list).expect("blocks are plain text");
        durable::replace(&self.path, &json).map_err(|source| Error::File { path: self.path.clone(), source })?;
        self.in_force.store(Arc::new(InForce::of(&changed, now)));
        *records = changed;
        Ok(())
    }

    /// Whether a record is too old to be kept.
    #[must_use]
    pub fn has_forgotten(block: &Block, now: Timestamp) -> bool {
        !block.is_remembered(now)
    }

    /// All records, newest first.
    #[must_use]
    pub fn all(&self) -> Vec<Block> {
        let mut all: Vec<_> = self.records.lock().values().cloned().collect();
        all.sort_by_key(|block| std::cmp::Reverse((block.created_at.unix_milliseconds(), block.id)));
        all
    }

    /// A record by its id.
    #[must_use]
    pub fn one(&self, id: Uuid) -> Option<Block> {
        self.records.lock().get(&id).cloned()
    }

    /// Whether a block of this very target is in force.
    #[must_use]
    pub fn is_blocked(&self, target: &Target, now: Timestamp) -> bool {
        self.in_force.load().blocks.iter().any(|block| block.target == *target && block.is_in_force(now))
    }

    /// Whether a principal was blocked within the last 30 days.
    #[must_use]
    pub fn knows(&self, principal: &Principal, now: Timestamp) -> bool {
        self.records.lock().values().any(|block| block.target.covers(principal) && block.is_remembered(now))
    }
}

impl InForce {
    fn of(records: &Records, now: Timestamp) -> Self {
        let mut list = Self::default();
        for block in records.values().filter(|block| block.is_in_force(now)) {
            let at = list.blocks.len();
            match &block.target {
                Target::Address(network) => list.networks.push((*network, at)),
                Target::Client(name) => drop(list.clients.insert(name.clone(), at)),
                Target::Subject(name) => drop(list.subjects.insert(name.clone(), at)),
            }
            list.blocks.push(Arc::new(block.clone()));
        }
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds).unwrap()
    }

    fn block(target: Target, until: Option<i64>) -> Block {
        Block {
            id: Uuid::now_v7(),
            target,
            reason: "flooding".into(),
            initiated_by: "security-team".into(),
            actor: "anonymous@127.0.0.1".into(),
            created_at: at(0),
            expires_at: until.map(at),
            removed_at: None,
            removed_by: None,
        }
    }

    fn network(text: &str) -> Target {
        Target::Address(text.parse().unwrap())
    }

    fn blocks() -> (tempfile::TempDir, Blocks) {
        let directory = tempfile::tempdir().unwrap();
        let blocks = Blocks::open(directory.path(), at(0)).unwrap();
        (directory, blocks)
    }

    fn is_blocked(blocks: &Blocks, address: &str, now: i64) -> bool {
        blocks.against(Some(address.parse().unwrap()), None, None, at(now)).is_some()
    }

    #[test]
    fn a_block_holds_for_what_it_names_and_until_it_ends() {
        let (_directory, blocks) = blocks();
        blocks.add(block(network("192.0.2.0/24"), Some(60)), at(0)).unwrap();
        blocks.add(block(Target::Client("producer".into()), None), at(0)).unwrap();
        blocks.add(block(Target::Subject("virtengine1q".into()), None), at(0)).unwrap();
        assert!(is_blocked(&blocks, "192.0.2.77", 59) && is_blocked(&blocks, "::ffff:192.0.2.77", 59));
        assert!(!is_blocked(&blocks, "192.0.3.1", 59) && !is_blocked(&blocks, "192.0.2.77", 60));
        let client = |name: &str| blocks.against(None, Some(&name.into()), None, at(1_000_000)).is_some();
        assert!(client("producer") && !client("producer2"));
        assert!(blocks.against(None, None, Some("virtengine1q"), at(1)).is_some());
    }

    #[test]
    fn a_removed_block_is_over_at_once_and_known_for_a_month() {
        let (_directory, blocks) = blocks();
        let one = block(Target::Subject("a".into()), None);
        blocks.add(one.clone(), at(0)).unwrap();
        assert_eq!(blocks.remove(one.id, "security", at(5)).unwrap().unwrap().removed_at, Some(at(5)));
        assert_eq!(blocks.remove(one.id, "security", at(6)).unwrap(), None);
        assert!(blocks.against(None, None, Some("a"), at(6)).is_none());
        let principal = Principal::Subject("a".into());
        assert!(blocks.knows(&principal, at(29 * 86_400)) && !blocks.knows(&principal, at(31 * 86_400)));
        blocks.add(block(network("192.0.2.1/32"), None), at(31 * 86_400)).unwrap();
        assert_eq!(blocks.all().len(), 1, "forgotten");
    }

    #[test]
    fn the_list_survives_a_restart_and_damage_is_refused() {
        let (directory, blocks) = blocks();
        blocks.add(block(network("192.0.2.1/32"), None), at(0)).unwrap();
        let again = Blocks::open(directory.path(), at(1)).unwrap();
        assert_eq!(again.all(), blocks.all());
        assert!(is_blocked(&again, "192.0.2.1", 1));
        std::fs::write(directory.path().join("blocks.json"), "[{").unwrap();
        assert!(matches!(Blocks::open(directory.path(), at(1)), Err(Error::Damaged { .. })));
    }

    #[test]
    fn copies_come_to_say_the_same_in_any_order() {
        let (_one, ours) = blocks();
        let (_two, theirs) = blocks();
        let (a, b) = (block(Target::Subject("a".into()), None), block(Target::Subject("b".into()), None));
        ours.add(a.clone(), at(0)).unwrap();
        theirs.add(b.clone(), at(0)).unwrap();
        let missing = ours.merge(theirs.all(), at(1)).unwrap();
        assert_eq!(missing, std::slice::from_ref(&a));
        assert!(theirs.merge(missing, at(1)).unwrap().iter().all(|block| block.id == b.id));
        theirs.remove(a.id, "x", at(2)).unwrap();
        // A late copy of the other side does not bring it back.
        theirs.merge(ours.all(), at(3)).unwrap();
        assert!(theirs.against(None, None, Some("a"), at(3)).is_none());
        ours.merge(theirs.all(), at(3)).unwrap();
        assert_eq!(ours.all(), theirs.all());
        // A copy that was cleared is filled again.
        assert_eq!(ours.merge(Vec::new(), at(4)).unwrap().len(), 2);
    }

    #[test]
    fn what_cannot_be_kept_is_not_in_force() {
        let (directory, blocks) = blocks();
        std::fs::create_dir(directory.path().join("blocks.new")).unwrap();
        assert!(matches!(blocks.add(block(network("192.0.2.1/32"), None), at(0)), Err(Error::File { .. })));
        assert!(!is_blocked(&blocks, "192.0.2.1", 0) && blocks.all().is_empty());
    }
}
