//! Faults of the disk: refused by name at once, recovered from, and nothing lost. Needs root, for
//! mounts.

use std::{fs, path::Path, process::Command};

use serde_json::json;

use super::trail::verifies;
use crate::support::{
    eventually,
    signer::{Signer, key},
    tool,
};

const SHIM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/softhsm-tests/support/disk_shim.c");

/// A small file system of its own on the audit directory.
struct SmallDisk(std::path::PathBuf);

impl SmallDisk {
    /// Mounted where the trail of this signer will be, once it has stopped.
    fn under(signer: &mut Signer, mount: &[&str]) -> Self {
        let directory = signer.home().join("audit");
        let (path, kept) = (directory.clone(), signer.home().join("kept"));
        signer.restart_after(|_| {
            super::trail::copy(&path, &kept);
            tool::run("mount", &[mount, &[path.to_str().unwrap()]].concat(), &[]);
            for entry in fs::read_dir(&kept).unwrap() {
                let file = entry.unwrap().path();
                fs::copy(&file, path.join(file.file_name().unwrap())).unwrap();
            }
        });
        Self(directory)
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily: the process under test may still have files there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

fn fill(directory: &Path) {
    use std::io::Write;
    let mut filler = fs::File::create(directory.join("filler")).unwrap();
    while filler.write_all(&[0; 4096]).is_ok() {}
}

const HEALTH: &str = "virtengine_verification_service_health{service=\"audit\"}";

#[test]
fn a_full_disk_stops_signing_lets_keys_be_revoked_and_recovers() {
    let lines = "reserve_bytes = 131072\nstop_below_bytes = 0\nwarn_below_bytes = 65536";
    let mut signer = Signer::with_audit(lines, "[fleet]\nsingle = true");
    let disk = SmallDisk::under(&mut signer, &["-t", "tmpfs", "-o", "size=4m", "tmpfs"]);
    signer.attest();
    fill(&disk.0);
    // What is left of a page takes a few records more.
    let refused = eventually("signing stops", || {
        let answer = signer.try_attest_or_refused();
        (answer.status != 200).then_some(answer)
    });
    assert_eq!((refused.status, refused.problem()), (503, "audit-disk-full".into()));
    assert_eq!(signer.get("/healthz").status, 503);
    assert_eq!(signer.metric(HEALTH), "0");
    assert!(signer.get("/healthz").text().contains("disk of the audit trail is full"));
    // Security staff go on, by the reserve.
    assert_eq!(signer.revoke(1)["revoked"], true);
    signer.rotate_with(&json!({ "emergency": true }));
    assert_eq!(signer.states(), ["revoked", "active"]);
    assert_eq!(signer.try_attest_or_refused().problem(), "audit-disk-full");
    fs::remove_file(disk.0.join("filler")).unwrap();
    eventually("signing goes on by itself", || (signer.post_empty("/api/v1/sign/test").status == 200).then_some(()));
    assert_eq!(signer.signing_key(), key(2));
    signer.get("/healthz").ok();
    assert_eq!(signer.metric(HEALTH), "1");
    let trail = signer.trail();
    for expected in
        ["security_alert disk_full success", "key_revoked revoke success", "security_alert disk_has_room success"]
    {
        assert!(trail.contains(&expected.to_owned()), "{expected}: {trail:#?}");
    }
    verifies(&disk.0);
    signer.restart();
    signer.attest();
    verifies(&disk.0);
    signer.kill();
}

// Nobody can make a mount read-only while a file on it is open for writing, but the kernel does when
// it finds an error in the file system.
#[test]
fn a_disk_that_its_kernel_makes_read_only_stops_signing_and_nothing_is_lost() {
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("disk");
    fs::File::create(&image).unwrap().set_len(64 << 20).unwrap();
    let image = image.to_str().unwrap();
    tool::run("mkfs.ext4", &["-q", "-F", image], &[]);
    let mut signer = Signer::with_audit("reserve_bytes = 131072\nstop_below_bytes = 0", "[fleet]\nsingle = true");
    let disk = SmallDisk::under(&mut signer, &["-o", "loop,errors=remount-ro", image]);
    signer.attest();
    let device = tool::run("findmnt", &["-n", "-o", "SOURCE", disk.0.to_str().unwrap()], &[]);
    let device = Path::new(device.trim()).file_name().unwrap().to_str().unwrap().to_owned();
    fs::write(format!("/sys/fs/ext4/{device}/trigger_fs_error"), "found by hand").unwrap();
    let refused = signer.try_attest_or_refused();
    assert_eq!((refused.status, refused.problem()), (503, "audit-read-only".into()));
    assert_eq!(signer.metric(HEALTH), "0");
    assert!(signer.get("/healthz").text().contains("is read-only"));
    // What its operator does: repair it, mount it again, start again.
    signer.kill();
    tool::run("umount", &[disk.0.to_str().unwrap()], &[]);
    // fsck says 1 where it has mended something.
    assert!(Command::new("e2fsck").args(["-f", "-p", image]).status().unwrap().code().unwrap() <= 1);
    tool::run("mount", &["-o", "loop,errors=remount-ro", image, disk.0.to_str().unwrap()], &[]);
    signer.start_again().unwrap();
    signer.attest();
    verifies(&disk.0);
    signer.kill();
}

// The same where the disk becomes writable again in its place, as network file systems do: by the shim.
#[test]
fn a_file_system_that_becomes_read_only_stops_signing_and_recovers() {
    let (signer, fault) = shimmed();
    signer.attest();
    fs::write(&fault, "read-only").unwrap();
    let refused = signer.try_attest_or_refused();
    assert_eq!((refused.status, refused.problem()), (503, "audit-read-only".into()));
    assert!(signer.get("/healthz").text().contains("is read-only"));
    fs::remove_file(&fault).unwrap();
    eventually("signing goes on by itself", || (signer.post_empty("/api/v1/sign/test").status == 200).then_some(()));
    signer.attest();
    assert!(signer.trail().contains(&"security_alert writable_again success".to_owned()));
    verifies(&signer.home().join("audit"));
}

#[test]
fn a_file_that_is_removed_or_replaced_stops_signing_at_once() {
    for replaced in [false, true] {
        let mut signer = Signer::new();
        signer.attest();
        let log = signer.home().join("audit/audit.log");
        let saved = signer.home().join("saved.log");
        fs::rename(&log, &saved).unwrap();
        if replaced {
            fs::copy(&saved, &log).unwrap();
        }
        let refused = eventually("signing stops", || {
            let answer = signer.try_attest_or_refused();
            (answer.status != 200).then_some(answer)
        });
        assert_eq!(refused.problem(), "audit-file-lost");
        assert_eq!(signer.metric(HEALTH), "0");
        signer.kill();
        if !replaced {
            // The start misses it, and says what.
            let refusal = signer.start_again().unwrap_err();
            assert!(refusal.contains("audit.log") && refusal.contains("missing"), "{refusal}");
        }
        // Put back, all of it is there: also the record whose answer was a refusal.
        fs::rename(&saved, &log).unwrap();
        signer.start_again().unwrap();
        signer.attest();
        verifies(&signer.home().join("audit"));
    }
}

/// A signer on whose disk the shim lies, and how to make it fail.
fn shimmed() -> (Signer, std::path::PathBuf) {
    let place = tempfile::tempdir().unwrap().keep();
    let (library, fault) = (place.join("disk_shim.so"), place.join("fault"));
    tool::run("gcc", &["-shared", "-fPIC", "-O1", "-o", library.to_str().unwrap(), SHIM], &[]);
    let signer = Signer::with_audit_in("", &[("LD_PRELOAD", &library), ("DISK_FAULT_FILE", &fault)]);
    (signer, fault)
}

#[test]
fn a_failed_sync_or_write_ends_the_process_whether_it_happened_or_not() {
    for word in ["sync-fails", "sync-fails-after", "write-fails-after"] {
        let (mut signer, fault) = shimmed();
        signer.attest();
        let nonce = signer.nonce();
        fs::write(&fault, word).unwrap();
        let refused = signer.post("/api/v1/attestations", &crate::support::appliance::attestation_request(&nonce));
        assert_eq!((refused.status, refused.problem()), (503, "audit-unavailable".into()), "{word}");
        let status = signer.wait_for_end();
        // A write that is taken back leaves a file whose state is known: it may go on, or end as well.
        assert_eq!(status.code(), Some(70), "{word}: {status}");
        // Never tried again: one failure, and no success after it.
        fs::remove_file(&fault).unwrap();
        verifies(&signer.home().join("audit"));
        signer.start_again().unwrap_or_else(|log| panic!("{word}: {log}"));
        signer.attest();
        verifies(&signer.home().join("audit"));
    }
}
