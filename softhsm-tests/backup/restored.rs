//! An empty appliance becomes the one that was backed up, and nothing secret was in the backup.

use std::fs;

use super::{Used, picture, run};
use crate::support::{
    appliance::BINARY,
    softhsm::{PIN, SO_PIN},
    tool,
};

#[test]
fn a_used_appliance_is_restored_with_its_keys_states_and_history() {
    let mut used = Used::new();
    let before = picture(&used.signer);
    let backup = used.backup("backup.tar");
    used.signer.stop_and_wait();
    let history: Vec<String> = trail(&used.signer.home().join("audit"));

    let empty = used.empty("empty", "[fleet]\nsingle = true");
    used.restore(&empty, &backup, &[]).with(0, &["3 on the token as in the backup", "signed a canary", "restored"]);
    let appliance = used.start(&empty);
    assert_eq!(picture(&appliance), before);
    // Not a record of its history is another, up to the moment of the backup; and it goes on from there.
    let after = trail(&empty.home.join("audit"));
    let common = history.iter().zip(&after).take_while(|(one, other)| one == other).count();
    assert!(common >= history.len() - 4, "{common} of {}", history.len());
    let verdicts: Vec<_> = used.attestations.iter().map(|one| appliance.verdict(one)).collect();
    assert_eq!(verdicts, ["key_revoked", "valid", "valid"]);
    appliance.attest();
    appliance.stop();
    let directory = empty.home.join("audit");
    tool::run(BINARY, &["audit", "verify", directory.to_str().unwrap()], &[]);
}

fn trail(directory: &std::path::Path) -> Vec<String> {
    fs::read_to_string(directory.join("audit.log")).unwrap().lines().map(ToOwned::to_owned).collect()
}

#[test]
fn what_is_not_there_yet_is_written_and_what_is_there_is_kept() {
    let mut used = Used::new();
    let backup = used.backup("backup.tar");
    let config = used.config().to_owned();
    // It runs: its state is its own.
    let arguments = ["restore", backup.to_str().unwrap(), "--config", &config];
    run(&used.signer.token, &arguments).with(69, &["another process uses the state directory"]);
    used.signer.stop_and_wait();
    let before = fs::read(used.signer.state().join("ledger-seen.json")).unwrap();
    run(&used.signer.token, &arguments).with(76, &["is there already", "Move it aside"]);
    assert_eq!(fs::read(used.signer.state().join("ledger-seen.json")).unwrap(), before);
    assert!(!used.signer.state().join(".restore").exists());

    // The machine is lost, but for the token.
    for directory in [used.signer.state(), used.signer.home().join("audit")] {
        fs::remove_dir_all(directory).unwrap();
    }
    let text = fs::read(&config).unwrap();
    fs::remove_file(&config).unwrap();
    run(&used.signer.token, &arguments).with(0, &["written", &config]);
    assert_eq!(fs::read(&config).unwrap(), text);
    assert!(fs::create_dir(used.signer.home().join("audit")).is_err(), "the trail is back");
    used.signer.start_again().unwrap();
    used.signer.attest();
}

#[test]
fn no_secret_is_in_a_backup_and_ordinary_tools_read_it() {
    let used = Used::new();
    // The hash of a bearer key goes in, the key does not.
    let keys = used.path("api-keys.json");
    let client =
        "[fleet]\nsingle = true\n[auth]\nkeys_file = \"KEYS\"\nclients = [{ name = \"ops\", roles = [\"operator\"] }]";
    let config = used.empty("guarded", &client.replace("KEYS", keys.to_str().unwrap())).config;
    let config = config.to_str().unwrap();
    let bearer = tool::run(BINARY, &["key", "new", "--config", config, "--client", "ops"], &[]);
    let backup = used.path("guarded.tar");
    fs::write(used.path("guarded/audit/audit.log"), "").unwrap();
    run(&used.signer.token, &["backup", "create", "--config", config, "--output", backup.to_str().unwrap()])
        .with(0, &[]);
    let bytes = fs::read(&backup).unwrap();
    let holds = |secret: &str| bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
    let secret = bearer.trim().rsplit('_').next().unwrap();
    assert_eq!(secret.len(), 64, "{bearer}");
    for secret in [PIN, SO_PIN, secret, &hex::encode(PIN), "PRIVATE KEY"] {
        assert!(!holds(secret), "{secret}");
    }
    assert!(holds("\"ops\"") && holds("BEGIN PUBLIC KEY"), "the search finds what is there");
    for object in used.signer.token.object_files() {
        let object = fs::read(object).unwrap();
        assert!(!bytes.windows(64).any(|window| window == &object[object.len() - 64..]), "an object of the token");
    }

    let place = used.path("untarred");
    fs::create_dir(&place).unwrap();
    let script = format!(
        "tar -xf {} -C {place} && cd {place} && sha256sum --check --strict --quiet SHA256SUMS && ls",
        backup.display(),
        place = place.display()
    );
    let listed = tool::run("sh", &["-c", &script], &[]);
    assert!(listed.contains("STATEMENT") && listed.contains("config.toml"), "{listed}");
    tool::run("openssl", &["pkey", "-pubin", "-noout", "-in", place.join("keys/3.pem").to_str().unwrap()], &[]);
}

#[test]
fn a_drill_proves_that_it_restores_and_changes_nothing() {
    let used = Used::new();
    let backup = used.backup("backup.tar");
    let pem = used.public_key();
    let drill = |backup: &str| {
        run(
            &used.signer.token,
            &["backup", "drill", backup, "--config", used.config(), "--public-key", pem.to_str().unwrap()],
        )
    };
    let objects = used.signer.token.object_files();
    let state = fs::read(used.signer.state().join("ledger-seen.json")).unwrap();
    drill(backup.to_str().unwrap()).with(0, &["trail", "verified", "identical", "drill: ok"]);
    assert_eq!(used.signer.token.object_files(), objects);
    assert_eq!(fs::read(used.signer.state().join("ledger-seen.json")).unwrap(), state);
    // It runs beside the appliance, which goes on; then the token is ahead, and that is said.
    used.signer.attest();
    used.signer.rotate_with(&serde_json::json!({ "emergency": true }));
    drill(backup.to_str().unwrap()).with(0, &["the token has gone on", "drill: ok"]);
    // Another token, or none.
    let text = fs::read_to_string(used.config()).unwrap();
    let other = used.path("other.toml");
    fs::write(&other, text.replace("veid-signer-test", "another")).unwrap();
    let arguments = ["backup", "drill", backup.to_str().unwrap(), "--config", other.to_str().unwrap()];
    run(&used.signer.token, &arguments).with(76, &["the backup is one of signer veid-signer-test"]);
}
