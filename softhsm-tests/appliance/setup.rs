//! `init` where nothing is set up yet: what it asks for, writes and refuses.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    process::{Command, Output},
};

use tempfile::TempDir;

use crate::support::{
    appliance::BINARY,
    softhsm::{PIN, SoftHsm},
    tool,
};

/// A machine on which nothing is set up: a profile, and a module.
struct Bare {
    token: SoftHsm,
    home: TempDir,
}

impl Bare {
    fn new() -> Self {
        let (token, home) = (SoftHsm::new(), tempfile::tempdir().unwrap());
        let profile = fs::read_to_string(format!("{}/hsm-config/softhsm2.toml", env!("CARGO_MANIFEST_DIR"))).unwrap();
        for name in ["profiles", "audit"] {
            fs::create_dir(home.path().join(name)).unwrap();
        }
        let at = home.path().display().to_string();
        let profile = profile
            .replace("/var/lib/verification-signer\"", &format!("{at}/state\""))
            .replace("/var/log/virtengine/audit", &format!("{at}/audit"))
            .replace("/run/verification-signer/api.sock", &format!("{at}/api.sock"))
            .replace("[fleet]\n", "[fleet]\n# one\n")
            .replace("127.0.0.1:8080\"", "127.0.0.1:0\"")
            .replace("127.0.0.1:9090\"", "127.0.0.1:0\"");
        fs::write(home.path().join("profiles/softhsm2.toml"), &profile).unwrap();
        fs::write(home.path().join("profiles/other.toml"), profile).unwrap();
        Self { token, home }
    }

    fn config(&self) -> PathBuf {
        self.home.path().join("config.toml")
    }

    fn kept_pin(&self) -> PathBuf {
        self.home.path().join("credentials/hsm-pin")
    }

    /// `init` with these flags, as the user that runs the tests.
    fn init(&self, flags: &[&str]) -> Output {
        let own = tool::run("id", &["-un"], &[]);
        let mut command = Command::new(BINARY);
        command.arg("init").arg("--config").arg(self.config()).arg("--profiles").arg(self.home.path().join("profiles"));
        command.args(["--user", own.trim(), "--pin-store", "file"]).args(flags).envs(self.token.environment());
        command.stdin(std::process::Stdio::null()).output().unwrap()
    }

    /// It must refuse, name this, and leave nothing behind that a next try would stumble over.
    fn refuses(&self, flags: &[&str], code: i32, reason: &str) {
        let output = self.init(flags);
        let said = tool::text(&output.stdout) + &tool::text(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{flags:?}: {said}");
        assert!(said.contains(reason), "{flags:?}: {reason:?} is not in {said}");
        assert!(!self.config().exists(), "{flags:?}");
    }

    fn pin_file(&self, pin: &str) -> String {
        let path = self.home.path().join("typed-pin");
        fs::write(&path, pin).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path.display().to_string()
    }
}

#[test]
fn init_takes_a_token_and_its_pin_and_leaves_an_appliance_that_starts() {
    let bare = Bare::new();
    let pin = bare.pin_file(PIN);
    let output = bare.init(&["--profile", "softhsm2", "--signer-id", "site-7", "--pin-file", &pin]);
    let said = tool::text(&output.stdout) + &tool::text(&output.stderr);
    assert!(output.status.success(), "{said}");
    for expected in ["active key site-7:1 (P-256), fingerprint ", &bare.token.uri(), "systemctl enable --now"] {
        assert!(said.contains(expected), "{expected} is not in {said}");
    }
    assert!(!said.contains(PIN), "{said}");
    let text = fs::read_to_string(bare.config()).unwrap();
    assert!(text.contains("\npin_credential = \"hsm-pin\"\n") && !text.contains("\npin_file"), "{text}");
    assert!(text.contains("# A key signs no longer than this"), "the profile's comments stay");
    let socket = format!("\nunix_socket = \"{}/api.sock\"\n", bare.home.path().display());
    assert!(text.contains(&socket), "operators' commands find it: {text}");
    assert_eq!(fs::metadata(bare.config()).unwrap().permissions().mode() & 0o777, 0o640);
    assert_eq!(fs::metadata(bare.kept_pin()).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(fs::read_to_string(bare.kept_pin()).unwrap(), PIN);

    // The same command once more only looks.
    let mut check = Command::new(BINARY);
    check.arg("check").arg("--config").arg(bare.config()).envs(bare.token.environment());
    let checked = check.env("CREDENTIALS_DIRECTORY", bare.kept_pin().parent().unwrap()).output().unwrap();
    assert!(checked.status.success(), "{}", tool::text(&checked.stderr));
    assert!(tool::text(&checked.stdout).contains("site-7:1 (P-256), signs"));
}

#[test]
fn init_makes_a_token_with_a_pin_that_nobody_has_seen() {
    let bare = Bare::new();
    let output = bare.init(&["--profile", "softhsm2", "--make-token", "--token", "new-one"]);
    let said = tool::text(&output.stdout) + &tool::text(&output.stderr);
    assert!(output.status.success(), "{said}");
    let pin = fs::read_to_string(bare.kept_pin()).unwrap();
    assert!(pin.len() == 32 && !said.contains(&pin), "{said}");
    assert!(said.contains("pkcs11:token=new-one;serial="), "{said}");
    assert_eq!(bare.token.serials().len(), 2);
}

#[test]
fn what_is_not_said_is_asked_for_or_refused() {
    let bare = Bare::new();
    let pin = bare.pin_file(PIN);
    bare.refuses(&[], 64, "name it with --profile");
    bare.refuses(&["--profile", "none"], 64, "there are: other, softhsm2");
    bare.refuses(&["--profile", "softhsm2"], 64, "--pin-file");
    bare.refuses(&["--profile", "softhsm2", "--signer-id", "Not Good", "--pin-file", &pin], 64, "--signer-id");
    bare.refuses(&["--profile", "other", "--make-token"], 64, "vendor's tools");
    bare.refuses(&["--profile", "softhsm2", "--token", "other", "--pin-file", &pin], 78, &bare.token.uri());
    bare.refuses(&["--profile", "softhsm2", "--make-token", "--token", &bare.token.label], 78, "is there already");
    bare.refuses(&["--profile", "softhsm2", "--module", "/nowhere.so", "--pin-file", &pin], 78, "/nowhere.so");
    bare.token.add_token("second");
    bare.refuses(&["--profile", "softhsm2", "--pin-file", &pin], 78, "name one token with --token");
    assert!(bare.token.object_files().is_empty());
}

#[test]
fn a_wrong_pin_leaves_no_configuration_so_that_the_next_try_begins_anew() {
    let bare = Bare::new();
    let wrong = bare.pin_file("wrong-pin-000");
    bare.refuses(&["--profile", "softhsm2", "--pin-file", &wrong], 78, "is wrong: it was tried once");
    let right = bare.pin_file(PIN);
    let output = bare.init(&["--profile", "softhsm2", "--pin-file", &right]);
    assert!(output.status.success(), "{}", tool::text(&output.stderr));
    assert_eq!(fs::read_to_string(bare.kept_pin()).unwrap(), PIN);
}

#[test]
fn tokens_are_listed_by_their_uris_without_a_login() {
    let token = SoftHsm::new();
    let listed =
        tool::run(BINARY, &["token", "list", "--module", crate::support::softhsm::MODULE], &token.environment());
    assert_eq!(listed, format!("{}\n", token.uri()));
}
