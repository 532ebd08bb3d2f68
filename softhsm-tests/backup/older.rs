//! A backup that is behind: whoever remembers more keeps a revoked key from coming back.

use std::{fs, path::PathBuf};

use super::{Ended, Used, run};
use crate::support::{
    appliance::Appliance,
    redis::RedisServer,
    signer::{first_key_here, key},
    softhsm::SoftHsm,
};

/// What a refusal says is to be given to accept the backup.
fn head(refused: &Ended) -> String {
    let (_, rest) = refused.output.split_once("--accept-older ").unwrap_or_else(|| panic!("{refused:?}"));
    rest.split(':').next().unwrap().to_owned()
}

#[test]
fn a_backup_from_before_a_revocation_is_refused_by_the_token() {
    let mut used = Used::new();
    let backup = used.backup("backup.tar");
    used.signer.revoke(2);
    used.signer.stop_and_wait();
    let empty = used.empty("empty", "[fleet]\nsingle = true");
    let refused = used.restore(&empty, &backup, &[]);
    refused.with(76, &["is behind the token", &format!("{} was revoked since", key(2)), "Restore a later one"]);
    let left: Vec<_> = fs::read_dir(empty.home.join("audit")).unwrap().collect();
    assert!(left.is_empty() && !empty.home.join("state/ledger-seen.json").exists(), "nothing was restored: {left:?}");

    // Another head is no acceptance.
    used.restore(&empty, &backup, &["--accept-older", &"0".repeat(64)]).with(76, &["is behind the token"]);
    let head = head(&refused);
    used.restore(&empty, &backup, &["--accept-older", &head]).with(0, &["what was done after the backup is lost"]);
    let appliance = used.start(&empty);
    assert_eq!(appliance.states(), ["revoked", "revoked", "active"], "the token's word counts");
    assert_eq!(appliance.verdict(&used.attestations[1]), "key_revoked");
}

/// A signer with its ledger in a file, so that the token remembers no revocation: backed up, then its key revoked,
/// then stopped.
struct Filed {
    token: SoftHsm,
    home: tempfile::TempDir,
    config: PathBuf,
    backup: PathBuf,
}

impl Filed {
    fn new(more: &str) -> Self {
        let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        let ledger = format!("[ledger]\nstore = \"file\"\npath = \"{}/ledger\"\n{more}", home.path().display());
        let config = token.config(home.path(), &first_key_here(&token, "", &ledger));
        let appliance = Appliance::serve(&token, &config).unwrap();
        appliance.attest();
        let backup = home.path().join("backup.tar");
        let arguments =
            ["backup", "create", "--config", config.to_str().unwrap(), "--output", backup.to_str().unwrap()];
        run(&token, &arguments).with(0, &[]);
        let body = serde_json::json!({ "reason": "compromised", "initiated_by": "test" });
        appliance.post(&format!("/api/v1/keys/{}/revoke", key(1)), &body).ok();
        appliance.stop();
        Self { token, home, config, backup }
    }

    fn lose(&self, names: &[&str]) {
        for name in names {
            let path = self.home.path().join(name);
            if path.is_dir() { fs::remove_dir_all(path).unwrap() } else { fs::remove_file(path).unwrap() }
        }
    }

    fn restore(&self, more: &[&str]) -> Ended {
        let arguments = ["restore", self.backup.to_str().unwrap(), "--config", self.config.to_str().unwrap()];
        run(&self.token, &[&arguments[..], more].concat())
    }

    /// What a start says that refuses.
    fn start_refused(&self) -> String {
        Appliance::serve(&self.token, &self.config).err().unwrap().1
    }
}

const ALONE: &str = "[fleet]\nsingle = true\n";

/// Each witness alone remembers the revocation.
#[test]
fn every_witness_alone_keeps_a_revoked_key_from_coming_back() {
    let revoked = format!("{} was revoked since", key(1));
    for (lost, witness) in [
        (&["audit", "state"][..], "/ledger: "),
        (&["audit", "ledger"], "ledger-seen.json"),
        (&["state", "ledger"], "the audit trail in "),
    ] {
        let filed = Filed::new(ALONE);
        filed.lose(lost);
        filed.restore(&[]).with(76, &[witness, &revoked, "Restore a later one"]);
    }
}

#[test]
fn what_redis_remembers_is_asked_as_well() {
    let redis = RedisServer::start(&[]);
    let filed = Filed::new(&format!("[redis]\nurl = \"{}\"\n", redis.url()));
    filed.lose(&["audit", "state", "ledger"]);
    let refused = filed.restore(&[]);
    refused.with(76, &["the fleet's memory in Redis", &format!("{} was revoked since", key(1))]);
    // Accepted by name, the backup is restored; the start still knows the revocation.
    filed.restore(&["--accept-older", &head(&refused)]).with(0, &["restored"]);
    let refusal = filed.start_refused();
    assert!(refusal.contains("state.accept_ledger_head"), "{refusal}");
}

#[test]
fn a_token_that_has_lost_what_the_backup_knows_is_refused() {
    let mut used = Used::new();
    let backup = used.backup("backup.tar");
    used.signer.stop_and_wait();
    used.signer.token.initialise_again();
    let empty = used.empty("empty", "[fleet]\nsingle = true");
    let refused = used.restore(&empty, &backup, &[]);
    assert_ne!(refused.code, 0, "{refused:?}");
    assert!(!empty.home.join("state/ledger-seen.json").exists(), "{refused:?}");
}
