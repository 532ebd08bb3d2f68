//! Reading the trail back: only what start-up needs; the files stay the truth.

use std::{
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

/// True when the trail in `directory` says that a key was ever generated or used: then an empty
/// token is a lost, moved or wrong one, and no reason to make a key.
pub fn mentions_keys(directory: &Path) -> io::Result<bool> {
    const SIGNS_OF_KEYS: [&[u8]; 4] =
        [b"\"key_generated\"", b"\"key_activated\"", b"\"attestation_signed\"", b"\"key_accessed\""];
    for path in segments(directory)? {
        for line in BufReader::new(File::open(path)?).split(b'\n') {
            let line = line?;
            if SIGNS_OF_KEYS.iter().any(|sign| line.windows(sign.len()).any(|window| window == *sign)) {
                return Ok(true);
            }
        }
    }
    Ok(false)
}
