//! Any change of a backup is found and named, with the public audit key alone.

use std::{collections::BTreeSet, fs, path::Path};

use verification_signer::{audit::keys_from_pem, backup, key::PublicKey};

use super::{Used, run};

/// Name, where its header begins, where its content begins, and its size.
fn members(tar: &[u8]) -> Vec<(String, usize, usize, usize)> {
    let mut found = Vec::new();
    let mut at = 0;
    while tar[at] != 0 {
        let field = |from: usize, to: usize| {
            String::from_utf8_lossy(&tar[at + from..at + to]).trim_end_matches('\0').to_owned()
        };
        let size = usize::from_str_radix(field(124, 135).trim(), 8).unwrap();
        found.push((field(0, 100), at, at + 512, size));
        at += 512 + size.div_ceil(512) * 512;
    }
    found
}

/// The header that a member of this size has.
fn header(name: &str, size: usize) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name).unwrap();
    header.set_size(size as u64);
    header.set_mode(0o600);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_entry_type(tar::EntryType::Regular);
    header.set_cksum();
    header.as_bytes().to_vec()
}

fn padded(text: &str) -> Vec<u8> {
    let mut bytes = text.as_bytes().to_vec();
    bytes.resize(bytes.len().div_ceil(512) * 512, 0);
    bytes
}

/// What verification says of these bytes.
fn verdict(path: &Path, bytes: &[u8], keys: &[PublicKey]) -> Result<(), String> {
    fs::write(path, bytes).unwrap();
    backup::verify(path, Some(keys)).map(|_| ()).map_err(|error| error.to_string())
}

/// Changes each of these bytes; every change is found.
fn changed(used: &Used, offsets: impl Fn(usize) -> Vec<usize>) {
    let tar = fs::read(used.backup("backup.tar")).unwrap();
    let keys = keys_from_pem(&used.public_key()).unwrap();
    let path = used.path("changed.tar");
    assert_eq!(verdict(&path, &tar, &keys), Ok(()));
    let mut bytes = tar.clone();
    for at in offsets(tar.len()) {
        bytes[at] ^= 1;
        assert!(verdict(&path, &bytes, &keys).is_err(), "the change of byte {at} of {} is not found", tar.len());
        bytes[at] = tar[at];
    }
}

#[test]
fn a_changed_byte_is_found() {
    changed(&Used::new(), |length| (0..length).step_by(97).chain(length - 1024..length).collect());
}

#[test]
#[ignore = "each of some fifty thousand bytes"]
fn every_changed_byte_is_found() {
    changed(&Used::new(), |length| (0..length).collect());
}

#[test]
fn every_member_that_is_changed_is_named() {
    let used = Used::new();
    let tar = fs::read(used.backup("backup.tar")).unwrap();
    let keys = keys_from_pem(&used.public_key()).unwrap();
    let path = used.path("changed.tar");
    let mut named = BTreeSet::new();
    for (name, header, content, size) in members(&tar) {
        for at in [content, content + size / 2, content + size - 1] {
            let mut bytes = tar.clone();
            bytes[at] ^= 0x20;
            let refusal = verdict(&path, &bytes, &keys).unwrap_err();
            assert!(refusal.contains(&format!("signed: {name}:")), "{name} at {at}: {refusal}");
        }
        // Times, owners and rooms between say nothing, and may not be made to.
        for at in [header + 140, content + size.div_ceil(512) * 512 - 1] {
            if at >= content && size % 512 == 0 {
                continue;
            }
            let mut bytes = tar.clone();
            bytes[at] ^= 1;
            verdict(&path, &bytes, &keys).unwrap_err();
        }
        // Taken away, whole.
        let mut bytes = tar.clone();
        bytes.drain(header..content + size.div_ceil(512) * 512);
        let refusal = verdict(&path, &bytes, &keys).unwrap_err();
        assert!(refusal.contains(&name), "{name} is missing: {refusal}");
        named.insert(name);
    }
    for name in
        ["STATEMENT", "SHA256SUMS", "config.toml", "ledger.json", "audit/audit.log", "state/blocks.json", "keys/1.pem"]
    {
        assert!(named.contains(name), "{name} is in it: {named:?}");
    }
}

#[test]
fn what_is_cut_off_added_or_signed_by_others_is_refused() {
    let used = Used::new();
    let backup = used.backup("backup.tar");
    let tar = fs::read(&backup).unwrap();
    let pem = used.public_key();
    let keys = keys_from_pem(&pem).unwrap();
    let path = used.path("changed.tar");
    for length in [0, 1, 511, 512, tar.len() / 2, tar.len() - 512, tar.len() - 1] {
        verdict(&path, &tar[..length], &keys).unwrap_err();
    }
    verdict(&path, &[&tar[..], &[0]].concat(), &keys).unwrap_err();
    // A second signature under the statement, which readers of notes would pass over.
    let (name, _, content, size) = members(&tar)[0].clone();
    assert_eq!(name, "STATEMENT");
    let statement = String::from_utf8(tar[content..content + size].to_vec()).unwrap();
    let signature = statement.lines().last().unwrap();
    let twice = format!("{statement}{}\n", signature.replacen("verification-signer", "somebody-else", 1));
    let changed = [header(&name, twice.len()), padded(&twice), tar[1024..].to_vec()].concat();
    assert!(size <= 512, "the first member is one block");
    let refusal = verdict(&path, &changed, &keys).unwrap_err();
    assert!(refusal.contains("it is no statement over a backup"), "{refusal}");
    // The command says it too, with the exit code for programs.
    let other = Used::new();
    let arguments = |key: &Path| {
        run(&used.signer.token, &["backup", "verify", backup.to_str().unwrap(), "--public-key", key.to_str().unwrap()])
    };
    arguments(&pem).with(0, &["verified: ok"]);
    arguments(&other.public_key()).with(65, &["STATEMENT", "none of its signatures is by the audit key"]);
    // One that somebody made anew with a key of their own is believed by nobody who holds the right key.
    let theirs = other.backup("theirs.tar");
    run(&used.signer.token, &["backup", "verify", theirs.to_str().unwrap()])
        .with(0, &["remark", "hold a copy of your own"]);
    let known = ["backup", "verify", theirs.to_str().unwrap(), "--public-key", pem.to_str().unwrap()];
    run(&used.signer.token, &known).with(65, &["STATEMENT"]);
}
