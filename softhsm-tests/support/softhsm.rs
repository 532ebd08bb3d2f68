//! A SoftHSM2 token of a test's own, and configuration files that use it. What runs on every module
//! gets a token of the module that was chosen.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use tempfile::TempDir;

use super::{
    modules::{Footing, Module},
    pkcs11_tool::Pkcs11Tool,
    tool,
};

pub const MODULE: &str = "/usr/lib/softhsm/libsofthsm2.so";
pub const SO_PIN: &str = "87654321";
pub const PIN: &str = "correct-horse-7931";
pub const SIGNER: &str = "veid-signer-test";

/// A directory with SoftHSM2's configuration and room for tokens.
fn directory() -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path();
    fs::create_dir(path.join("tokens")).unwrap();
    let conf =
        format!("directories.tokendir = {}/tokens\nobjectstore.backend = file\nlog.level = ERROR\n", path.display());
    fs::write(path.join("softhsm2.conf"), conf).unwrap();
    directory
}

/// A token in a directory of its own.
pub struct SoftHsm {
    directory: TempDir,
    pub label: String,
    pub serial: String,
    footing: Footing,
}

impl SoftHsm {
    /// A fresh, initialised, empty token.
    pub fn new() -> Self {
        Self::labelled("unit-under-test")
    }

    /// A fresh token with this label.
    pub fn labelled(label: &str) -> Self {
        let directory = directory();
        let footing = Module::chosen().prepare(directory.path(), label);
        let mut token = Self { directory, label: label.to_owned(), serial: String::new(), footing };
        token.serial = token.pkcs11_tool().serial();
        token.write_pin(PIN);
        token
    }

    /// The same token once more, in a directory of its own. Nobody may be using the original.
    pub fn copy(&self) -> Self {
        let directory = directory();
        let footing = Footing::softhsm2(directory.path());
        let copy = Self { directory, label: self.label.clone(), serial: self.serial.clone(), footing };
        let tokens = self.tokens();
        tool::run("cp", &["-a", &format!("{}/.", tokens.display()), copy.tokens().to_str().unwrap()], &[]);
        copy.write_pin(PIN);
        copy
    }

    /// Initialises one more token in the same module.
    pub fn add_token(&self, label: &str) {
        let arguments = ["--init-token", "--free", "--label", label, "--so-pin", SO_PIN, "--pin", PIN];
        tool::run("softhsm2-util", &arguments, &self.environment());
    }

    /// The serials of all initialised tokens.
    pub fn serials(&self) -> Vec<String> {
        let slots = tool::run("softhsm2-util", &["--show-slots"], &self.environment());
        let value = |line: &str| line.trim().strip_prefix("Serial number:").map(|serial| serial.trim().to_owned());
        slots.lines().filter_map(value).filter(|serial| !serial.is_empty()).collect()
    }

    /// Initialises the token again: everything on it is gone. It keeps its label and serial.
    pub fn initialise_again(&self) {
        let arguments =
            ["--init-token", "--serial", &self.serial, "--label", &self.label, "--so-pin", SO_PIN, "--pin", PIN];
        tool::run("softhsm2-util", &arguments, &self.environment());
    }

    /// The file that makes a directory a token.
    pub fn token_object(&self) -> PathBuf {
        let mut found = self.files().into_iter().filter(|file| file.ends_with("token.object"));
        found.next().unwrap()
    }

    /// The files of all objects on all tokens, sorted: what SoftHSM2 stores, shown or not.
    pub fn object_files(&self) -> Vec<PathBuf> {
        let is_object = |file: &PathBuf| {
            file.extension().is_some_and(|extension| extension == "object") && !file.ends_with("token.object")
        };
        self.files().into_iter().filter(is_object).collect()
    }

    fn files(&self) -> Vec<PathBuf> {
        let inside = |directory: PathBuf| -> Vec<PathBuf> {
            fs::read_dir(directory).map(|all| all.map(|entry| entry.unwrap().path()).collect()).unwrap_or_default()
        };
        let mut files: Vec<_> = inside(self.tokens()).into_iter().flat_map(inside).collect();
        files.sort();
        files
    }

    pub fn path(&self) -> &Path {
        self.directory.path()
    }

    pub fn tokens(&self) -> PathBuf {
        self.path().join("tokens")
    }

    pub fn conf(&self) -> PathBuf {
        self.path().join("softhsm2.conf")
    }

    /// What a process needs to find the token.
    pub fn environment(&self) -> Vec<(&'static str, &Path)> {
        self.footing.environment.iter().map(|(name, value)| (*name, value.as_path())).collect()
    }

    /// Sets the token's user PIN; the PIN file stays as it is.
    pub fn change_pin(&self, pin: &str) {
        let arguments = ["--module", MODULE, "--token-label", &self.label, "--login", "--pin", PIN];
        let change = ["--change-pin", "--new-pin", pin];
        tool::run("pkcs11-tool", &[&arguments[..], &change].concat(), &self.environment());
    }

    pub fn write_pin(&self, pin: &str) {
        let path = self.path().join("pin");
        fs::write(&path, pin).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    pub fn uri(&self) -> String {
        format!("pkcs11:token={};serial={}", self.label, self.serial)
    }

    /// pkcs11-tool on this token.
    pub fn pkcs11_tool(&self) -> Pkcs11Tool {
        Pkcs11Tool {
            module: Module::chosen().path(),
            environment: self.footing.environment.clone(),
            label: self.label.clone(),
            pin: PIN.to_owned(),
        }
    }

    /// Writes a configuration with state and audit under `home` (made when missing) and free
    /// ports; `extra` is appended.
    pub fn config(&self, home: &Path, extra: &str) -> PathBuf {
        fs::create_dir_all(home.join("audit")).unwrap();
        // Tests ask for one subject again and again; those of the limits say what they want.
        let limits = if extra.contains("[limits") { "" } else { "[limits]\nenabled = false" };
        let text = format!(
            r#"
[signer]
id = "{SIGNER}"
[state]
directory = "{home}/state"
[token]
module = "{module}"
uri = "{uri}"
pin_file = "{pin}"
{token_lines}
[audit]
directory = "{home}/audit"
[http]
listen = "127.0.0.1:0"
[metrics]
listen = "127.0.0.1:0"
{limits}
{extra}
"#,
            home = home.display(),
            module = Module::chosen().path().display(),
            token_lines = Module::chosen().token_lines(),
            uri = self.uri(),
            pin = self.path().join("pin").display(),
        );
        let path = home.join("config.toml");
        fs::write(&path, text).unwrap();
        path
    }
}
