//! "No key found" never means "make a key". Every case damages, hides or swaps the token of an
//! appliance that has a key, and then starts it again and again, by `serve` (allowed to make a first
//! key) and by `init`.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::support::{
    appliance::{Appliance, dev_command},
    site::Site,
    softhsm::SoftHsm,
};

/// Starts in each case; the cases together make more than 200.
const STARTS: usize = 12;

/// Damages a site with a key, and checks that no start makes another.
fn never_makes_a_key(damage: impl FnOnce(&Site), refusal: (i32, &str)) {
    let site = Site::with_key();
    damage(&site);
    refuses_again_and_again(&site, &["serve", "init"], refusal);
}

fn refuses_again_and_again(site: &Site, commands: &[&str], (code, reason): (i32, &str)) {
    let before = site.token.object_files();
    for command in commands.iter().cycle().take(STARTS) {
        site.refuse(command).with(code, reason);
        // No object of any kind has come, whether or not the token can be opened now.
        assert_eq!(site.token.object_files(), before, "{command}");
    }
}

/// Removes the objects of these labels through the token itself.
fn destroy(site: &Site, kind: &str, label: &str) {
    let mut arguments = vec!["--delete-object", "--type", kind, "--label", label];
    if kind == "data" {
        arguments.extend(["--application-label", "verification-signer"]);
    }
    site.pkcs11_tool().logged_in(&arguments);
}

const KEY: &str = "veid-signer-test:1 P-256";
const GENERATED: &str = "veid-signer-test ledger 000001 key-generated";
const ACTIVATED: &str = "veid-signer-test ledger 000002 key-activated";

fn destroy_ledger(site: &Site) {
    destroy(site, "data", GENERATED);
    destroy(site, "data", ACTIVATED);
}

fn destroy_audit_key(site: &Site) {
    for kind in ["privkey", "pubkey"] {
        destroy(site, kind, "veid-signer-test audit 1 Ed25519");
    }
    assert!(site.pkcs11_tool().audit_key().is_empty());
}

fn destroy_everything(site: &Site) {
    destroy_ledger(site);
    for kind in ["privkey", "pubkey", "cert"] {
        destroy(site, kind, KEY);
    }
    assert!(site.pkcs11_tool().objects().is_empty());
    destroy_audit_key(site);
}

/// What the appliance itself remembers of its keys.
fn forget(site: &Site, memories: &[PathBuf]) {
    for memory in memories {
        assert!(memory.exists() && memory.starts_with(site.home.path()));
        fs::remove_file(memory).unwrap();
    }
}

fn audit_log(site: &Site) -> PathBuf {
    site.path("audit/audit.log")
}

fn truncate(files: &[PathBuf]) {
    assert!(!files.is_empty());
    for file in files {
        fs::File::options().write(true).truncate(true).open(file).unwrap();
    }
}

fn move_away(path: &Path) {
    fs::rename(path, path.with_extension("moved")).unwrap();
}

#[test]
fn when_the_tokens_directory_is_gone() {
    never_makes_a_key(
        |site| move_away(&site.token.tokens()),
        (69, "cannot be initialized: C_Initialize failed with CKR_GENERAL_ERROR"),
    );
}

#[test]
fn when_the_token_was_moved_out_of_its_directory() {
    never_makes_a_key(
        |site| {
            move_away(&site.token.tokens());
            fs::create_dir(site.token.tokens()).unwrap();
        },
        (69, "tokens present: none"),
    );
}

#[test]
fn when_another_token_of_the_same_label_is_in_its_place() {
    never_makes_a_key(
        |site| {
            move_away(&site.token.tokens());
            fs::create_dir(site.token.tokens()).unwrap();
            site.token.add_token(&site.token.label);
        },
        (69, "no token matches pkcs11:token=unit-under-test;serial="),
    );
}

/// A site whose configuration names its token by label only, and a new token under that label, for
/// which the configuration allows a first key.
fn swap_token_named_by_label(site: &Site) {
    move_away(&site.token.tokens());
    fs::create_dir(site.token.tokens()).unwrap();
    site.token.add_token(&site.token.label);
    let (old, new) = (&site.token.serial, site.token.serials().remove(0));
    site.edit_config(&format!(";serial={old}"), "");
    site.edit_config(
        &format!("first_key_on_token_serial = \"{old}\""),
        &format!("first_key_on_token_serial = \"{new}\""),
    );
}

#[test]
fn when_a_new_token_took_the_label_of_the_old_one() {
    never_makes_a_key(swap_token_named_by_label, (69, "says that this signer's keys are on token serial"));
}

#[test]
fn when_a_new_token_took_the_label_and_the_marker_is_lost() {
    never_makes_a_key(
        |site| {
            swap_token_named_by_label(site);
            forget(site, &[site.marker()]);
        },
        (69, "the audit trail in"),
    );
}

#[test]
fn when_a_new_token_took_the_label_and_only_the_old_serial_is_allowed_a_first_key() {
    let site = Site::with_key();
    swap_token_named_by_label(&site);
    let (old, new) = (&site.token.serial, site.token.serials().remove(0));
    site.edit_config(
        &format!("first_key_on_token_serial = \"{new}\""),
        &format!("first_key_on_token_serial = \"{old}\""),
    );
    forget(&site, &[site.marker(), audit_log(&site)]);
    // `init` would be a person's decision, and nothing here speaks against it.
    refuses_again_and_again(&site, &["serve"], (78, &format!("first_key_on_token_serial = \"{new}\"")));
}

#[test]
fn when_the_token_was_initialised_again_under_the_same_serial() {
    never_makes_a_key(
        |site| {
            site.token.initialise_again();
            assert_eq!(site.token.serials(), std::slice::from_ref(&site.token.serial));
        },
        (69, "says that the ledger had 2 records, but the token shows 0"),
    );
}

#[test]
fn when_the_token_shows_itself_uninitialised() {
    never_makes_a_key(|site| fs::remove_file(site.token.token_object()).unwrap(), (69, "no token matches"));
}

#[test]
fn when_the_token_was_emptied_and_the_marker_remembers() {
    never_makes_a_key(destroy_everything, (69, "says that the ledger had 2 records, but the token shows 0"));
}

#[test]
fn when_the_token_is_empty_and_only_the_audit_trail_remembers() {
    never_makes_a_key(
        |site| {
            destroy_everything(site);
            forget(site, &[site.marker()]);
        },
        (69, "says that this signer had keys: find the right token; do not start over"),
    );
}

#[test]
fn when_the_token_is_empty_and_only_a_rotated_audit_file_remembers() {
    never_makes_a_key(
        |site| {
            destroy_everything(site);
            forget(site, &[site.marker()]);
            fs::rename(audit_log(site), site.path("audit/audit.log.20260101T000000Z-000000000004")).unwrap();
        },
        (69, "says that this signer had keys: find the right token; do not start over"),
    );
}

#[test]
fn when_the_token_is_empty_and_the_audit_trail_cannot_be_read() {
    never_makes_a_key(
        |site| {
            destroy_everything(site);
            forget(site, &[site.marker(), audit_log(site)]);
            fs::create_dir(audit_log(site)).unwrap();
        },
        (69, "cannot be searched for earlier keys"),
    );
}

#[test]
fn when_the_token_is_empty_and_a_marker_of_no_records_is_there() {
    never_makes_a_key(
        |site| {
            destroy_everything(site);
            forget(site, &[audit_log(site)]);
            let serial = &site.token.serial;
            let marker = format!("{{\"token_serial\":\"{serial}\",\"ledger_records\":0,\"ledger_head\":\"\"}}");
            fs::write(site.marker(), marker).unwrap();
        },
        (69, "the token shows no ledger, but"),
    );
}

#[test]
fn when_the_marker_cannot_be_read() {
    never_makes_a_key(
        |site| {
            destroy_everything(site);
            forget(site, &[audit_log(site)]);
            fs::write(site.marker(), "{").unwrap();
        },
        (69, "ledger-seen.json cannot be read"),
    );
}

#[test]
fn when_key_objects_have_no_ledger() {
    never_makes_a_key(
        |site| {
            destroy_ledger(site);
            forget(site, &[site.marker(), audit_log(site)]);
        },
        (78, "the token has key objects of this signer (veid-signer-test:1 P-256"),
    );
}

#[test]
fn when_only_a_public_key_is_left() {
    never_makes_a_key(
        |site| {
            destroy_ledger(site);
            destroy(site, "privkey", KEY);
            destroy_audit_key(site);
            forget(site, &[site.marker(), audit_log(site)]);
        },
        (78, "the token has key objects of this signer (veid-signer-test:1 P-256)"),
    );
}

#[test]
fn when_only_the_audit_key_is_left() {
    never_makes_a_key(
        |site| {
            destroy_ledger(site);
            for kind in ["privkey", "pubkey", "cert"] {
                destroy(site, kind, KEY);
            }
            forget(site, &[site.marker()]);
            site.forget_trail();
        },
        (78, "the token has key objects of this signer (veid-signer-test audit 1 Ed25519"),
    );
}

#[test]
fn when_only_the_audit_key_is_gone() {
    never_makes_a_key(destroy_audit_key, (69, "was signed by an audit key that the token does not show"));
}

#[test]
fn when_the_first_ledger_record_is_gone() {
    never_makes_a_key(
        |site| {
            destroy(site, "data", GENERATED);
            forget(site, &[site.marker(), audit_log(site)]);
        },
        (69, "ledger record 1 is missing, but later ones exist"),
    );
}

#[test]
fn when_the_last_ledger_record_is_gone() {
    never_makes_a_key(|site| destroy(site, "data", ACTIVATED), (69, "had 2 records, but the token shows 1"));
}

#[test]
fn when_the_ledger_is_not_the_one_that_was_seen() {
    never_makes_a_key(
        |site| {
            let marker = fs::read_to_string(site.marker()).unwrap();
            let (before, head) = marker.split_once("\"ledger_head\": \"").unwrap();
            fs::write(site.marker(), format!("{before}\"ledger_head\": \"{}{}", "0".repeat(64), &head[64..])).unwrap();
        },
        (69, "ledger record 2 is not the one that was seen"),
    );
}

#[test]
fn when_the_private_key_is_gone() {
    never_makes_a_key(
        |site| destroy(site, "privkey", KEY),
        (69, "the active key veid-signer-test:1 is not usable: the token has no private key with id"),
    );
}

#[test]
fn when_every_object_file_was_cut_to_nothing() {
    never_makes_a_key(
        |site| truncate(&site.token.object_files()),
        (69, "says that the ledger had 2 records, but the token shows 0"),
    );
}

#[test]
fn when_every_object_file_was_cut_to_nothing_and_only_the_audit_trail_remembers() {
    never_makes_a_key(
        |site| {
            truncate(&site.token.object_files());
            forget(site, &[site.marker()]);
        },
        (69, "the audit trail in"),
    );
}

#[test]
fn when_one_object_file_after_the_other_was_cut_to_nothing() {
    let site = Site::with_key();
    let files = site.token.object_files();
    assert_eq!(files.len(), 7);
    for file in &files {
        let whole = fs::read(file).unwrap();
        truncate(std::slice::from_ref(file));
        for command in ["init", "serve", "init"] {
            // Without its certificate or its public key object the key still signs.
            match command {
                "serve" => drop(site.serve()),
                other => drop(site.run(other)),
            }
            assert_eq!(site.token.object_files(), files);
        }
        fs::write(file, whole).unwrap();
    }
    assert_eq!(site.pkcs11_tool().key_objects(), (1, 1));
    site.serve().unwrap();
}

#[test]
fn when_the_configuration_names_another_signer_beside_the_same_state() {
    never_makes_a_key(
        |site| site.edit_config("id = \"veid-signer-test\"", "id = \"veid-signer-tset\""),
        (69, "says that the ledger had 2 records, but the token shows 0"),
    );
}

#[test]
fn when_softhsm_has_another_configuration() {
    never_makes_a_key(
        |site| {
            let elsewhere = SoftHsm::new();
            fs::copy(elsewhere.conf(), site.token.conf()).unwrap();
            // The other token stays where it is for as long as this test runs.
            std::mem::forget(elsewhere);
        },
        (69, "no token matches"),
    );
}

#[test]
fn a_key_whose_making_was_cut_short_is_activated_only_by_permission_and_never_replaced() {
    let site = Site::with_key();
    destroy(&site, "data", ACTIVATED);
    forget(&site, &[site.marker()]);
    site.forget_trail();
    site.edit_config("first_key_on_token_serial", "# first_key_on_token_serial");
    for _ in 0..STARTS / 2 {
        let appliance = site.serve().unwrap();
        assert_eq!(appliance.get("/healthz").status, 503);
        assert_eq!(appliance.get("/api/v1/keys").ok()[0]["state"], "pending");
        appliance.stop();
    }
    for _ in 0..STARTS / 2 {
        site.run("init").with(0, "active key veid-signer-test:1");
    }
    assert_eq!(site.pkcs11_tool().key_objects(), (1, 1));
}

#[test]
fn a_dev_whose_tokens_were_moved_away_refuses() {
    let home = tempfile::tempdir().unwrap();
    Appliance::dev_in(home.path()).stop();
    let tokens = home.path().join("tokens");
    move_away(&tokens);
    for _ in 0..STARTS {
        let Err((status, output)) = Appliance::start(dev_command(home.path()), home.path()) else {
            panic!("dev came up without its token");
        };
        assert_eq!(status.code(), Some(78), "{output}");
        assert!(output.contains("has a PIN but not exactly one token labelled"), "{output}");
        assert_eq!(fs::read_dir(&tokens).unwrap().count(), 0);
    }
    fs::remove_dir(&tokens).unwrap();
    fs::rename(tokens.with_extension("moved"), &tokens).unwrap();
    assert_eq!(Appliance::dev_in(home.path()).dev_token().key_objects(), (1, 1));
}
