//! The units, judged by systemd's own tools.

use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use crate::support::{appliance::BINARY, tool};

const UNIT: &str = "verification-signer.service";

fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn drop_ins() -> BTreeMap<String, String> {
    let entries = fs::read_dir(file("systemd/drop-ins")).unwrap().map(|entry| entry.unwrap().path());
    entries
        .map(|path| (path.file_name().unwrap().to_str().unwrap().to_owned(), fs::read_to_string(&path).unwrap()))
        .collect()
}

/// The unit in a directory of its own, running the binary under test, with these drop-ins.
fn installed(drop_ins: &[(&str, &str)]) -> (TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let unit = directory.path().join(UNIT);
    let text = fs::read_to_string(file("systemd").join(UNIT)).unwrap();
    fs::write(&unit, text.replace("/usr/bin/verification-signer", BINARY)).unwrap();
    let beside = directory.path().join(format!("{UNIT}.d"));
    fs::create_dir(&beside).unwrap();
    for (name, text) in drop_ins {
        fs::write(beside.join(name), text).unwrap();
    }
    (directory, unit)
}

fn analyze(directory: &TempDir, arguments: &[&str]) -> std::process::Output {
    let path = format!("{}:", directory.path().display());
    tool::output("systemd-analyze", arguments, &[("SYSTEMD_UNIT_PATH", Path::new(&path))], b"")
}

/// The overall exposure, as systemd prints it: `1.1`.
fn exposure(drop_ins: &[(&str, &str)]) -> String {
    let (directory, _) = installed(drop_ins);
    let output = analyze(&directory, &["security", "--offline=yes", "--no-pager", UNIT]);
    let printed = tool::text(&output.stdout);
    let line = printed.lines().find(|line| line.contains("Overall exposure level")).unwrap_or_else(|| {
        panic!("{printed}{}", tool::text(&output.stderr));
    });
    line.rsplit(": ").next().unwrap().split(' ').next().unwrap().to_owned()
}

/// What the README says of a row of its table.
fn in_readme(row: &str) -> String {
    let readme = fs::read_to_string(file("README.md")).unwrap();
    let line = readme.lines().find(|line| line.starts_with(&format!("| `{row}` |")));
    let line = line.unwrap_or_else(|| panic!("the README has no row for {row}"));
    line.trim_end_matches([' ', '|']).rsplit("| ").next().unwrap().to_owned()
}

#[test]
fn systemd_finds_nothing_wrong_with_the_unit_alone_or_with_any_drop_in() {
    let drop_ins = drop_ins();
    let alone: Vec<Vec<(&str, &str)>> =
        drop_ins.iter().map(|(name, text)| vec![(name.as_str(), text.as_str())]).chain([vec![]]).collect();
    for drop_ins in alone {
        let (directory, unit) = installed(&drop_ins);
        // The manual page is not installed here; an unknown key is an error only so.
        let verify = ["verify", "--man=no", "--recursive-errors=yes", unit.to_str().unwrap()];
        let output = analyze(&directory, &verify);
        assert!(output.status.success(), "{drop_ins:?}: {}", tool::text(&output.stderr));
    }
}

#[test]
fn systemd_would_find_a_mistake_in_a_drop_in() {
    let (directory, unit) = installed(&[("wrong.conf", "[Service]\nMemoryDenyWriteAndExecute=no\n")]);
    let output = analyze(&directory, &["verify", "--man=no", "--recursive-errors=yes", unit.to_str().unwrap()]);
    assert!(!output.status.success());
}

#[test]
fn the_exposure_is_what_the_readme_says_and_1_5_or_better() {
    let measured = exposure(&[]);
    assert_eq!(measured, in_readme(UNIT));
    assert!(measured.parse::<f32>().unwrap() <= 1.5, "{measured}");
}

#[test]
fn each_drop_in_says_its_exposure_and_so_does_the_readme() {
    for (name, text) in drop_ins() {
        let measured = exposure(&[(&name, &text)]);
        assert!(text.contains(&format!("\n# exposure: {measured}\n")), "{name} has an exposure of {measured}");
        assert_eq!(measured, in_readme(&name), "{name}");
    }
}

#[test]
fn no_start_that_may_have_tried_a_wrong_pin_is_repeated() {
    let unit = fs::read_to_string(file("systemd").join(UNIT)).unwrap();
    let value = |key: &str| unit.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('=')).unwrap().to_owned();
    assert_eq!(value("Restart"), "on-failure");
    assert_eq!(value("RestartPreventExitStatus"), "64 78");
    assert_eq!(value("Type"), "notify");
    assert!(value("LoadCredential").starts_with("hsm-pin:/"));
}
