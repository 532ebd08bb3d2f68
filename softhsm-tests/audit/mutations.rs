//! Random changes of a trail's files: each must be found. The trail is whole and ends with a
//! checkpoint, and its last checkpoint is held elsewhere.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use verification_signer::audit;

use super::trail::{closed, copy, verifies, verify};
use crate::support::{dice::Dice, signer::Signer};

/// A trail of several files, closed cleanly, and its last checkpoint at another place.
struct Trail {
    directory: PathBuf,
    elsewhere: PathBuf,
    work: PathBuf,
    _home: tempfile::TempDir,
}

impl Trail {
    fn new() -> Self {
        let signer = Signer::with_audit("rotate_bytes = 16384", "[fleet]\nsingle = true");
        for _ in 0..60 {
            signer.attest();
        }
        let home = tempfile::tempdir().unwrap();
        let directory = home.path().join("trail");
        let source = signer.home().join("audit");
        signer.signal("TERM");
        let kept = crate::support::eventually("it has ended", || {
            let note = fs::read_to_string(source.join("audit.checkpoint")).unwrap_or_default();
            fs::read_to_string(source.join("audit.log")).unwrap().contains("service_stopped").then_some(note)
        });
        drop(kept);
        crate::support::eventually("the last record is covered", || {
            copy(&source, &directory);
            let text = verify(&directory).text;
            let count = |word: &str| {
                text.lines().find(|line| line.starts_with(word))?.split_whitespace().nth(1)?.parse::<u64>().ok()
            };
            let covered = text.split("covers ").nth(1)?.split(' ').next()?.parse::<u64>().ok();
            (count("records") == covered).then_some(())
        });
        assert!(closed(&directory).len() >= 3);
        let elsewhere = home.path().join("elsewhere");
        fs::copy(directory.join("audit.checkpoint"), &elsewhere).unwrap();
        Self { directory, elsewhere, work: home.path().join("work"), _home: home }
    }

    fn files(&self) -> Vec<PathBuf> {
        let mut files = closed(&self.work);
        files.push(self.work.join("audit.log"));
        files
    }

    fn verdict(&self) -> Result<(), String> {
        let keys = audit::keys_from_pem(&self.directory.join(audit::KEYS)).unwrap();
        let verdict = audit::verify(&self.work, &keys, &[&self.elsewhere], |_| {});
        verdict.map(drop).map_err(|wrong| format!("{}: {}", wrong.path.display(), wrong.what))
    }
}

/// One change; what it was. The files are then no longer what they were.
fn mutate(trail: &Trail, dice: &mut Dice) -> String {
    let files = trail.files();
    let file = dice.pick(&files);
    let name = file.file_name().unwrap().to_str().unwrap().to_owned();
    let content = fs::read(&file).unwrap();
    let lines: Vec<&[u8]> = content.split_inclusive(|byte| *byte == b'\n').collect();
    let write = |path: &Path, bytes: &[u8]| fs::write(path, bytes).unwrap();
    let (a, b) = (dice.below(lines.len()), dice.below(lines.len()));
    match dice.below(10) {
        0..3 => {
            let bit = dice.below(content.len() * 8);
            let mut changed = content.clone();
            changed[bit / 8] ^= 1 << (bit % 8);
            write(&file, &changed);
            format!("bit {bit} of {name}")
        }
        3 => {
            let length = dice.below(content.len());
            write(&file, &content[..length]);
            format!("{name} cut to {length} bytes")
        }
        4 if lines[a] != lines[b] => {
            let mut swapped = lines.clone();
            swapped.swap(a, b);
            write(&file, &swapped.concat());
            format!("lines {a} and {b} of {name} swapped")
        }
        5 | 4 => {
            let mut fewer = lines.clone();
            fewer.remove(a);
            write(&file, &fewer.concat());
            format!("line {a} of {name} deleted")
        }
        6 => {
            let mut more = lines.clone();
            more.insert(b, lines[a]);
            write(&file, &more.concat());
            format!("line {a} of {name} doubled at {b}")
        }
        7 => {
            fs::remove_file(&file).unwrap();
            format!("{name} removed")
        }
        8 => {
            let checkpoints: Vec<_> = closed(&trail.work)
                .iter()
                .map(|path| PathBuf::from(format!("{}.checkpoint", path.display())))
                .chain([trail.work.join("audit.checkpoint")])
                .collect();
            let file = dice.pick(&checkpoints);
            let mut note = fs::read(&file).unwrap();
            let bit = dice.below(note.len() * 8);
            note[bit / 8] ^= 1 << (bit % 8);
            write(&file, &note);
            format!("bit {bit} of {}", file.display())
        }
        _ => {
            let from = dice.below(content.len());
            let to = (from + 1 + dice.below(64)).min(content.len());
            let mut without = content[..from].to_vec();
            without.extend_from_slice(&content[to..]);
            write(&file, &without);
            format!("bytes {from}..{to} of {name} removed")
        }
    }
}

fn mutations(count: usize) {
    let trail = Trail::new();
    verifies(&trail.directory);
    copy(&trail.directory, &trail.work);
    assert_eq!(trail.verdict(), Ok(()));
    let (mut dice, mut kinds) = (Dice::new(0x7a11), BTreeSet::new());
    for round in 0..count {
        copy(&trail.directory, &trail.work);
        let what = mutate(&trail, &mut dice);
        let Err(found) = trail.verdict() else { panic!("round {round}: {what} was not found") };
        kinds.insert(
            found.split_once(": ").unwrap().1.chars().filter(|c| !c.is_ascii_digit()).take(40).collect::<String>(),
        );
        assert!(found.contains("audit."), "{what} was not located: {found}");
    }
    println!("{count} mutations, all found, as: {kinds:#?}");
}

#[test]
fn every_random_change_is_found() {
    mutations(250);
}

#[test]
#[ignore = "long: run by make test-long"]
fn ten_thousand_random_changes_are_found() {
    mutations(10_000);
}

#[test]
fn the_newest_records_can_only_be_missed_by_who_holds_a_checkpoint_elsewhere() {
    let trail = Trail::new();
    copy(&trail.directory, &trail.work);
    // The last file goes, and with it the checkpoint that covers it: beside the files, nothing tells.
    fs::remove_file(trail.work.join("audit.log")).unwrap();
    fs::remove_file(trail.work.join("audit.checkpoint")).unwrap();
    assert_eq!(verify(&trail.work).code, 0);
    let found = trail.verdict().unwrap_err();
    assert!(found.contains("the last are missing"), "{found}");
    // With another key nothing verifies.
    let other = Signer::new();
    other.get("/api/v1/audit/proof?seq=1").ok();
    let key = other.home().join("audit").join(audit::KEYS);
    let arguments = ["verify", trail.directory.to_str().unwrap(), "--public-key", key.to_str().unwrap()];
    let said = super::trail::audit(&arguments);
    assert!(said.code == 65 && said.text.contains("none of its signatures is by the audit key"), "{}", said.text);
}
