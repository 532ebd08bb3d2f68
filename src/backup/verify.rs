//! `backup verify`: everything about a backup that can be checked with the public audit key alone.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufReader, Write},
    path::{Path, PathBuf},
};

use super::{
    Error,
    container::Members,
    contents::{ABOUT, AUDIT_KEYS, About, LEDGER, Record, TRAIL},
    manifest::{Manifest, STATEMENT, SUMS},
};
use crate::key::{PublicKey, SignerId, Standing, StoredRecord, seen::Seen};

/// Largest member beside the trail: the configuration, the ledger, or a small file.
const MOST: u64 = 64 << 20;

/// A backup that was verified.
#[derive(Debug)]
pub struct Backup {
    pub(super) path: PathBuf,
    pub about: About,
    pub members: usize,
    pub standing: Standing,
    pub(super) records: Vec<StoredRecord>,
    /// Every member but the trail.
    pub(super) small: BTreeMap<String, Vec<u8>>,
    pub(super) keys: Vec<PublicKey>,
}

/// Where the members of the trail go.
pub(super) type TrailSink<'a> = &'a mut dyn FnMut(&str) -> io::Result<Box<dyn Write>>;

/// Verifies a backup with these public audit keys; without any, with those that are in it, which proves nothing
/// against somebody who made it anew.
pub fn verify(path: &Path, keys: Option<&[PublicKey]>) -> Result<Backup, Error> {
    read(path, keys, &mut |_| Ok(Box::new(io::sink())))
}

/// The same, with the trail's files on the way.
pub(super) fn read(path: &Path, keys: Option<&[PublicKey]>, trail: TrailSink<'_>) -> Result<Backup, Error> {
    let keys = match keys {
        Some(keys) => keys.to_vec(),
        None => own_keys(path)?,
    };
    let mut members = open(path)?;
    let statement = text(&mut members, STATEMENT)?;
    let sums = text(&mut members, SUMS)?;
    let manifest = Manifest::parse(&sums).ok_or_else(|| Error::spoiled(SUMS, "it cannot be read"))?;
    manifest.check(&statement, &keys)?;
    let mut small = BTreeMap::new();
    for (name, hash) in &manifest.0 {
        let size = expect(&mut members, name)?;
        let mut kept = Vec::new();
        let found = if name.starts_with(TRAIL) {
            let mut out = trail(name).map_err(Error::io(Path::new(name)))?;
            let found = members.content(name, size, &mut out)?;
            out.flush().map_err(Error::io(Path::new(name)))?;
            found
        } else {
            limited(name, size)?;
            members.content(name, size, &mut kept)?
        };
        if found != *hash {
            return Err(Error::spoiled(name, format!("it is not the one that {SUMS} names")));
        }
        small.insert(name.clone(), kept);
    }
    if let Some((name, _)) = members.next()? {
        return Err(Error::spoiled(name, format!("{SUMS} does not name it")));
    }
    understood(path, manifest.0.len(), small, keys)
}

fn open(path: &Path) -> Result<Members<BufReader<File>>, Error> {
    Ok(Members::new(BufReader::new(File::open(path).map_err(Error::io(path))?)))
}

/// The public keys that lie in it.
fn own_keys(path: &Path) -> Result<Vec<PublicKey>, Error> {
    let mut members = open(path)?;
    while let Some((name, size)) = members.next()? {
        if name == AUDIT_KEYS {
            limited(&name, size)?;
            let mut pem = Vec::new();
            members.content(&name, size, &mut pem)?;
            let keys = std::str::from_utf8(&pem).ok().and_then(PublicKey::all_from_pem);
            return keys.ok_or_else(|| Error::spoiled(name, "it holds no public key"));
        }
        members.content(&name, size, &mut io::sink())?;
    }
    Err(Error::spoiled(AUDIT_KEYS, "it is missing"))
}

fn limited(name: &str, size: u64) -> Result<(), Error> {
    if size <= MOST { Ok(()) } else { Err(Error::spoiled(name, "it is too large")) }
}

/// The next member, which must be this one; its size.
fn expect(members: &mut Members<impl io::Read>, name: &str) -> Result<u64, Error> {
    match members.next()? {
        Some((found, size)) if found == name => Ok(size),
        Some((found, _)) => Err(Error::spoiled(name, format!("{found} stands in its place"))),
        None => Err(Error::spoiled(name, "it is missing")),
    }
}

fn text(members: &mut Members<impl io::Read>, name: &str) -> Result<String, Error> {
    let size = expect(members, name)?;
    limited(name, size)?;
    let mut bytes = Vec::new();
    members.content(name, size, &mut bytes)?;
    String::from_utf8(bytes).map_err(|_| Error::spoiled(name, "it is not text"))
}

/// What the members say, and that they say the same.
fn understood(
    path: &Path,
    members: usize,
    small: BTreeMap<String, Vec<u8>>,
    keys: Vec<PublicKey>,
) -> Result<Backup, Error> {
    let unreadable = |name: &str| Error::Refused(format!("{name} of the backup cannot be read by this version"));
    let member = |name: &str| small.get(name).ok_or_else(|| Error::spoiled(name, "it is missing"));
    let about: About = serde_json::from_slice(member(ABOUT)?).map_err(|_| unreadable(ABOUT))?;
    let ledger: Vec<Record> = serde_json::from_slice(member(LEDGER)?).map_err(|_| unreadable(LEDGER))?;
    let records: Option<Vec<_>> = ledger.into_iter().map(Record::stored).collect();
    let records = records.ok_or_else(|| unreadable(LEDGER))?;
    let signer = SignerId::parse(&about.signer_id).map_err(|_| unreadable(ABOUT))?;
    let standing = Standing::fold(&signer, records.iter().cloned()).map_err(crate::app::StartError::from)?;
    if about.format != 1 || Seen::of(&standing) != about.seen {
        return Err(unreadable(ABOUT));
    }
    Ok(Backup { path: path.to_owned(), about, members, standing, records, small, keys })
}

impl Backup {
    /// A member that is text; empty where it is not there.
    pub(super) fn text(&self, name: &str) -> &str {
        self.small.get(name).and_then(|bytes| std::str::from_utf8(bytes).ok()).unwrap_or_default()
    }

    /// The configuration that it was made with.
    #[must_use]
    pub fn configuration(&self) -> &str {
        self.text(super::contents::CONFIG)
    }
}
