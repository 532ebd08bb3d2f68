//! Reading the trail back: only what start-up needs; the files stay the truth.

use std::{
    collections::BTreeSet,
    fs::File,
    io::{self, BufRead, BufReader},
    path::{Path, PathBuf},
};

use serde::Deserialize;

#[derive(Deserialize)]
struct Numbered {
    sequence: u64,
}

/// The sequence number of a record, if the line is one.
pub(super) fn sequence_of(line: &[u8]) -> Option<u64> {
    serde_json::from_slice::<Numbered>(line).ok().map(|record| record.sequence)
}

/// `audit.log` and its rotated segments in `directory`.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<PathBuf>> {
    if !directory.exists() {
        return Ok(Vec::new());
    }
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_name().to_string_lossy().starts_with(super::writer::FILE_NAME) {
            paths.push(entry.path());
        }
    }
    paths.sort();
    Ok(paths)
}

#[derive(Deserialize)]
struct Typed<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    outcome: &'a str,
}

/// True when the trail in `directory` says that a key exists or was used: then an empty token is a
/// lost, moved or wrong one, and no reason to make a key. An intent without success says nothing.
pub fn mentions_keys(directory: &Path) -> io::Result<bool> {
    let says_so = |line: &[u8]| {
        serde_json::from_slice::<Typed<'_>>(line).is_ok_and(|record| {
            let of_keys = record.kind.starts_with("key_") || record.kind == "attestation_signed";
            of_keys && record.outcome == "success"
        })
    };
    for path in segments(directory)? {
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            if says_so(&line?) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

#[derive(Deserialize)]
struct Revocation<'a> {
    #[serde(rename = "type")]
    kind: &'a str,
    action: &'a str,
    resource: String,
}

/// Ids of the keys that the trail in `directory` says were revoked. An intent counts: it may have
/// been carried out.
pub fn revoked_keys(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    for path in segments(directory)? {
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            if let Ok(Revocation { kind: "key_revoked", action: "revoke", resource }) = serde_json::from_slice(&line?) {
                keys.insert(resource);
            }
        }
    }
    Ok(keys)
}
