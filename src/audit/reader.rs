//! Reading the trail back: only what start-up asks of it before it is opened.

use std::{collections::BTreeSet, io, path::Path};

use super::{replay::Head, segment};

/// Calls `each` with every record in `directory` until it has seen enough.
fn search(directory: &Path, mut each: impl FnMut(&Head<'_>) -> bool) -> io::Result<bool> {
    for segment in segment::list(directory)? {
        let mut lines = segment.lines_from(0)?;
        while let Some(line) = lines.next()? {
            if Head::parse(line.bytes).is_some_and(|head| each(&head)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}

/// True when the trail in `directory` says that a key exists or was used: then an empty token is a
/// lost, moved or wrong one, and no reason to make a key. An intent without success says nothing.
pub fn mentions_keys(directory: &Path) -> io::Result<bool> {
    search(directory, |head| {
        let of_keys = head.kind.starts_with("key_") || head.kind == "attestation_signed";
        of_keys && head.outcome == "success"
    })
}

/// Ids of the keys that the trail in `directory` says were revoked. An intent counts: it may have
/// been carried out.
pub fn revoked_keys(directory: &Path) -> io::Result<BTreeSet<String>> {
    let mut keys = BTreeSet::new();
    search(directory, |head| {
        if head.kind == "key_revoked" && head.action == "revoke" {
            keys.insert(head.resource.to_string());
        }
        false
    })?;
    Ok(keys)
}
