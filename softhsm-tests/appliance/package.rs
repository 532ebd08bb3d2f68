//! The package in a machine of its own, and what of it can be looked at without one.

use std::{fs, process::Command};

use crate::support::tool;

#[test]
fn every_asset_of_the_package_is_there() {
    let manifest = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml")).unwrap();
    let assets = manifest.split("\nassets = [").nth(1).unwrap().split("\n]").next().unwrap();
    let sources = assets.lines().filter_map(|line| line.trim().strip_prefix("[\"")?.split('"').next());
    let sources: Vec<_> = sources.filter(|source| !source.starts_with("target/")).collect();
    assert!(sources.len() >= 7, "{sources:?}");
    for source in sources {
        let found = tool::output("bash", &["-c", &format!("ls {}/{source}", env!("CARGO_MANIFEST_DIR"))], &[], b"");
        assert!(found.status.success(), "{source}: {}", tool::text(&found.stderr));
    }
}

#[test]
fn maintainer_scripts_are_shell_and_purging_spares_tokens_and_pins() {
    let root = env!("CARGO_MANIFEST_DIR");
    for script in ["postinst", "postrm"] {
        tool::run("sh", &["-n", &format!("{root}/packaging/debian/{script}")], &[]);
    }
    let home = tempfile::tempdir().unwrap();
    let at = |path: &str| home.path().join(path.trim_start_matches('/'));
    let kept = [
        "/var/lib/verification-signer/tokens/0123/token.object",
        "/var/lib/verification-signer/tpm2_pkcs11/store",
        "/etc/credstore.encrypted/verification-signer.hsm-pin",
        "/etc/verification-signer/credentials/hsm-pin",
    ];
    let gone = [
        "/var/lib/verification-signer/ledger-seen.json",
        "/var/lib/verification-signer/idempotency/x",
        "/var/log/virtengine/audit/audit.log",
        "/etc/verification-signer/config.toml",
    ];
    for path in kept.iter().chain(&gone) {
        fs::create_dir_all(at(path).parent().unwrap()).unwrap();
        fs::write(at(path), "x").unwrap();
    }
    let script = fs::read_to_string(format!("{root}/packaging/debian/postrm")).unwrap();
    let here = home.path().display().to_string();
    let script = ["/var/", "/etc/"].iter().fold(script, |text, path| text.replace(path, &format!("{here}{path}")));
    for (argument, purged) in [("remove", false), ("upgrade", false), ("purge", true)] {
        let ended = Command::new("sh").args(["-c", &script, "postrm", argument]).status().unwrap();
        assert!(ended.success());
        assert!(kept.iter().all(|path| at(path).exists()), "{argument}");
        assert!(gone.iter().all(|path| at(path).exists() != purged), "{argument}");
    }
}

#[test]
#[ignore = "builds the package and a Debian root: several minutes, root, and a package mirror"]
fn the_package_is_installed_set_up_crashed_upgraded_and_purged_in_a_machine_of_its_own() {
    tool::run("make", &["-C", env!("CARGO_MANIFEST_DIR"), "test-appliance"], &[]);
}
