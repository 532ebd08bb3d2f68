//! The files of a trail, and `verification-signer audit` on them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{appliance::BINARY, tool};

/// How a command ended, and what it said.
pub struct Said {
    pub code: i32,
    pub text: String,
}

/// `verification-signer audit …`
pub fn audit(arguments: &[&str]) -> Said {
    let output = Command::new(BINARY).arg("audit").args(arguments).output().unwrap();
    let text = tool::text(&output.stdout) + &tool::text(&output.stderr);
    Said { code: output.status.code().unwrap_or(-1), text }
}

/// Verifies the trail in a directory with the key that lies beside it.
pub fn verify(directory: &Path) -> Said {
    audit(&["verify", directory.to_str().unwrap()])
}

/// Asserts that a trail verifies.
pub fn verifies(directory: &Path) -> String {
    let said = verify(directory);
    assert!(said.code == 0 && said.text.contains("verified: ok"), "{} {}", said.code, said.text);
    let number = |before: &str| {
        let found = said.text.split(before).nth(1).and_then(|rest| rest.split_whitespace().next()?.parse::<u64>().ok());
        found.unwrap_or_else(|| panic!("no number after {before:?} in {}", said.text))
    };
    assert_eq!(number("covers ") + number("record(s), "), number("\nrecords "), "{}", said.text);
    said.text
}

/// A copy of a trail's files in a directory of its own.
pub fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        if path.file_name().unwrap() != "audit.reserve" {
            // Files that come and go beside a running appliance.
            let copied = fs::copy(&path, to.join(path.file_name().unwrap()));
            assert!(copied.is_ok() || !path.exists(), "{}", path.display());
        }
    }
}

/// The closed segments.
pub fn closed(directory: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| {
        let name = path.file_name().unwrap().to_str().unwrap();
        let ending = name.rsplit('.').next().unwrap();
        name.starts_with("audit.log.") && !["checkpoint", "new"].contains(&ending)
    });
    found.sort();
    found
}
