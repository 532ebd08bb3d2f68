//! The runbook's audit sections, command by command.

use serde_json::Value;

use super::trail::{closed, verifies};
use crate::support::{
    eventually,
    signer::{Signer, key},
    tool,
};

const REVIEW: &str = include_str!("../runbook/audit-review.sh");
const ROTATION: &str = include_str!("../runbook/audit-rotation.sh");

fn run(signer: &Signer, command: &str) -> String {
    let directory = signer.home.join("audit");
    let command = command
        .replace("http://signer:8080", &signer.api)
        .replace("/var/log/virtengine/audit", directory.to_str().unwrap())
        // It finds nothing on Linux, where a process's name has 15 characters.
        .replace("$(pgrep verification-signer)", &signer.pid().to_string())
        .replace("audit-$(date", &format!("{}/audit-$(date", signer.home.display()));
    tool::run("bash", &["-o", "pipefail", "-c", &command], &[])
}

fn commands(block: &str) -> Vec<&str> {
    block.split("\n\n").collect()
}

#[test]
fn both_reviews_work_as_printed() {
    let signer = Signer::new();
    for _ in 0..3 {
        signer.attest();
    }
    signer.post_empty("/api/v1/sign/test");
    let [accessed, patterns] = commands(REVIEW)[..] else { panic!() };
    let accessed: Value = serde_json::from_str(&run(&signer, accessed)).unwrap();
    assert_eq!(accessed[0]["type"], "key_accessed", "{accessed}");
    assert_eq!(accessed[0]["details"]["key_id"], key(1));
    let patterns: Value = serde_json::from_str(&run(&signer, patterns)).unwrap();
    assert_eq!(patterns, serde_json::json!([{ "ip": "127.0.0.1", "count": 3 }]));
}

#[test]
fn size_rotation_and_archive_work_as_printed() {
    let signer = Signer::new();
    signer.attest();
    let [size, rotate, archive] = commands(ROTATION)[..] else { panic!() };
    let directory = signer.home.join("audit");
    assert!(run(&signer, size).contains("audit"));
    run(&signer, rotate);
    eventually("the file is closed, with its checkpoint", || {
        let [file] = &closed(&directory)[..] else { return None };
        std::path::PathBuf::from(format!("{}.checkpoint", file.display())).exists().then_some(())
    });
    run(&signer, archive);
    let listed = tool::run("bash", &["-c", &format!("tar -tzf {}/audit-*.tar.gz", signer.home.display())], &[]);
    assert_eq!(listed.lines().count(), 2, "the closed file and its checkpoint: {listed}");
    signer.attest();
    verifies(&directory);
}

#[test]
fn the_file_is_closed_over_http_too() {
    let signer = Signer::new();
    signer.attest();
    let name = signer.post_empty("/api/v1/audit/rotate").ok()["closed"].as_str().unwrap().to_owned();
    assert!(name.starts_with("audit.log."), "{name}");
    assert!(signer.home.join("audit").join(&name).exists());
    let found = signer.get("/api/v1/audit?event_type=config_changed").ok();
    assert_eq!(found[0]["action"], "rotate_audit");
    assert_eq!(found[0]["request"]["endpoint"], "/api/v1/audit/rotate");
}
