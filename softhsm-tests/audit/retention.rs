//! Closed files: compressed, still verified and searched; removed by retention, and never unsaid.

use std::fs;

use super::trail::{audit, closed, verifies};
use crate::support::{eventually, signer::Signer};

const SMALL_FILES: &str = "rotate_bytes = 16384";

#[test]
fn compressed_files_are_verified_and_searched_as_before() {
    let mut signer = Signer::with_audit(&format!("{SMALL_FILES}\ncompress = true"), "[fleet]\nsingle = true");
    for _ in 0..60 {
        signer.attest();
    }
    let directory = signer.home().join("audit");
    let is_compressed = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "gz");
    eventually("a closed file is compressed", || closed(&directory).iter().any(is_compressed).then_some(()));
    let searched = signer.get("/api/v1/audit?event_type=attestation_signed&order=asc&limit=1000").ok();
    assert_eq!(searched.as_array().unwrap().len(), 60);
    verifies(&directory);
    signer.restart();
    let again = signer.get("/api/v1/audit?event_type=attestation_signed&order=asc&limit=1000").ok();
    assert_eq!(again, searched);
    verifies(&directory);
    // One changed byte in a compressed file is found as well.
    let file = closed(&directory).into_iter().find(is_compressed).unwrap();
    let mut bytes = fs::read(&file).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&file, bytes).unwrap();
    let said = super::trail::verify(&directory);
    assert!(said.code == 65 && said.text.contains(file.file_name().unwrap().to_str().unwrap()), "{}", said.text);
}

#[test]
fn retention_keeps_what_was_never_exported_and_says_so() {
    let mut signer = Signer::with_audit(&format!("{SMALL_FILES}\nretention = \"1s\""), "[fleet]\nsingle = true");
    for _ in 0..60 {
        signer.attest();
    }
    let directory = signer.home().join("audit");
    eventually("health says that a file waits to be exported", || {
        signer.get("/healthz").json()["warnings"].to_string().contains("was never exported").then_some(())
    });
    let before = closed(&directory);
    assert!(before.len() >= 3);
    let out = signer.home().join("export.jsonl");
    let arguments = ["export", directory.to_str().unwrap(), "--output", out.to_str().unwrap(), "--mark-exported"];
    assert_eq!(audit(&arguments).code, 0);
    eventually("exported files go", || (!before[0].exists()).then_some(()));
    let record = eventually("the removal is on record", || {
        signer.audit_events("config_changed").into_iter().find(|record| record["outcome"] == "success")
    });
    assert_eq!((&record["action"], &record["details"]["exported"]), (&"remove_by_retention".into(), &true.into()));
    // What is left verifies, over a restart, and with its index made anew.
    verifies(&directory);
    signer.restart_after(|_| {
        for name in ["audit.index", "audit.nodes"] {
            fs::remove_file(directory.join(name)).unwrap();
        }
    });
    let sequence: u64 = signer.try_attest().header("audit-sequence").parse().unwrap();
    signer.get(&format!("/api/v1/audit/proof?seq={sequence}")).ok();
    verifies(&directory);
    let oldest = signer.get("/api/v1/audit?order=asc&limit=1").ok();
    assert!(oldest[0]["sequence"].as_u64().unwrap() > 1, "{oldest}");
    // A file that was not removed by retention is missed.
    signer.kill();
    let Some(file) = closed(&directory).into_iter().next() else { return };
    fs::remove_file(&file).unwrap();
    assert_eq!(super::trail::verify(&directory).code, 65);
}
