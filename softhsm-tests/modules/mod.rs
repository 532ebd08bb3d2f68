//! The same tests, unchanged, on every PKCS#11 module that can be had here: this test binary again,
//! with `TEST_MODULE` naming the module, and the module's own profile from hsm-config.

mod handles;
mod skipped;

use std::process::Command;

use crate::support::{
    modules::{CHOICE, Module},
    site::Site,
    softhsm::MODULE,
    tool,
};

/// The main job, a rotation and a revocation, in every run.
const SHORT: [&str; 3] = [
    "main_job::p256_attestations_verify_with_openssl",
    "lifecycle::rotation::the_old_key_verifies_and_no_longer_signs",
    "lifecycle::revocation::what_a_revoked_key_has_signed_is_refused",
];

fn this_binary() -> Command {
    Command::new(std::env::current_exe().unwrap())
}

/// Runs these tests on a module; each must be found, and pass.
fn pass(module: Module, tests: &[String]) {
    let output = this_binary()
        .args(["--exact", "--include-ignored", "--test-threads", "2"])
        .args(tests)
        .env(CHOICE, module.name())
        .output()
        .unwrap();
    let text = tool::text(&output.stdout) + &tool::text(&output.stderr);
    let passed = text.contains(&format!("test result: ok. {} passed", tests.len()));
    assert!(output.status.success() && passed, "on {}: {text}", module.name());
}

/// Every test of the main job and of a key's life.
fn all() -> Vec<String> {
    let listing = this_binary().args(["--list", "--format", "terse", "main_job::", "lifecycle::"]).output().unwrap();
    let names = tool::text(&listing.stdout);
    names.lines().filter_map(|line| line.strip_suffix(": test")).map(ToOwned::to_owned).collect()
}

/// All that the module is not excused from.
fn all_that_apply(module: Module) -> Vec<String> {
    let excused = skipped::on(module);
    all().into_iter().filter(|name| !excused.iter().any(|excuse| excuse.tests.contains(&name.as_str()))).collect()
}

#[test]
fn what_is_skipped_is_told_and_exists() {
    let (all, told) = (all(), include_str!("../../hsm-config/README.md"));
    for module in Module::OTHERS {
        let row = told.lines().find(|line| line.contains(&format!("({}.toml)", module.name()))).unwrap();
        for excuse in skipped::on(module) {
            let missing: Vec<_> = excuse.tests.iter().filter(|test| !all.contains(&(**test).to_owned())).collect();
            assert!(missing.is_empty(), "no such tests: {missing:?}");
            let entry = format!("{} ({})", excuse.reason, excuse.tests.len());
            assert!(row.contains(&entry), "{entry:?} is not in {row:?}");
        }
    }
}

fn short(module: Module) {
    pass(module, &SHORT.map(ToOwned::to_owned));
}

#[test]
fn p11_kit_remote_signs_rotates_and_revokes() {
    short(Module::P11KitRemote);
}

#[test]
fn a_tpm_signs_rotates_and_revokes() {
    short(Module::Tpm2);
}

#[test]
fn kryoptic_signs_rotates_and_revokes() {
    short(Module::Kryoptic);
}

/// No curves there, and token information that cannot be read; or, where its daemon does not run, a
/// module that cannot be initialised.
#[test]
fn open_cryptoki_is_refused_plainly() {
    let site = Site::new();
    site.edit_config(MODULE, "/usr/lib/x86_64-linux-gnu/pkcs11/libopencryptoki.so");
    let refusal = site.refuse("check");
    let said = ["cannot be initialized", "no token matches"].iter().any(|words| refusal.output.contains(words));
    assert!(refusal.code == 78 && said, "{refusal:?}");
}

#[test]
#[ignore = "some minutes: make test-long"]
fn every_test_of_a_keys_life_passes_on_p11_kit_remote() {
    pass(Module::P11KitRemote, &all_that_apply(Module::P11KitRemote));
}

#[test]
#[ignore = "some minutes: make test-long"]
fn every_test_of_a_keys_life_passes_on_a_tpm() {
    pass(Module::Tpm2, &all_that_apply(Module::Tpm2));
}

#[test]
#[ignore = "some minutes: make test-long"]
fn every_test_of_a_keys_life_passes_on_kryoptic() {
    pass(Module::Kryoptic, &all_that_apply(Module::Kryoptic));
}
