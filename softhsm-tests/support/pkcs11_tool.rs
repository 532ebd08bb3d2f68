//! pkcs11-tool, looking at one token: what security staff see.

use std::{
    path::{Path, PathBuf},
    process::Output,
};

use super::tool;

/// Everything pkcs11-tool needs to open a token.
pub struct Pkcs11Tool {
    pub module: PathBuf,
    /// What the module needs to find its tokens.
    pub environment: Vec<(&'static str, PathBuf)>,
    pub label: String,
    pub pin: String,
}

impl Pkcs11Tool {
    fn environment(&self) -> Vec<(&'static str, &Path)> {
        self.environment.iter().map(|(name, value)| (*name, value.as_path())).collect()
    }

    fn on_token<'a>(&'a self, arguments: &[&'a str]) -> Vec<&'a str> {
        let token = ["--module", self.module.to_str().unwrap(), "--token-label", &self.label];
        [&token, arguments].concat()
    }

    /// The token's serial number.
    pub fn serial(&self) -> String {
        let module = self.module.to_str().unwrap();
        let slots = tool::run("pkcs11-tool", &["--module", module, "--list-token-slots"], &self.environment());
        let (_, ours) = slots.split_once(&format!("token label        : {}\n", self.label)).unwrap();
        ours.lines().find_map(|line| line.trim().strip_prefix("serial num         : ")).unwrap().to_owned()
    }

    /// Runs it without a login; it must succeed.
    pub fn public(&self, arguments: &[&str]) -> String {
        tool::run("pkcs11-tool", &self.on_token(arguments), &self.environment())
    }

    /// Runs it logged in; it must succeed.
    pub fn logged_in(&self, arguments: &[&str]) -> String {
        self.public(&[&["--login", "--pin", &self.pin], arguments].concat())
    }

    /// Runs it logged in, whatever comes of it.
    pub fn attempt(&self, arguments: &[&str]) -> Output {
        let arguments = [&["--login", "--pin", &self.pin], arguments].concat();
        tool::output("pkcs11-tool", &self.on_token(&arguments), &self.environment(), b"")
    }

    /// The listing of all objects but the audit key, logged in, one text an object.
    pub fn objects(&self) -> Vec<String> {
        let mut objects = objects(&self.logged_in(&["--list-objects"]));
        objects.retain(|object| !is_audit_key(object));
        objects
    }

    /// The halves of the audit key.
    pub fn audit_key(&self) -> Vec<String> {
        let mut objects = objects(&self.logged_in(&["--list-objects"]));
        objects.retain(|object| is_audit_key(object));
        objects
    }

    /// CKA_IDs of all private keys but the audit key. A key that a crash left half written has none.
    pub fn private_keys(&self) -> Vec<String> {
        let objects = self.objects();
        let private = objects.iter().filter(|object| object.starts_with("Private Key Object"));
        private.filter(|object| object.contains("\n  ID:")).map(|object| field(object, "ID").to_owned()).collect()
    }

    /// The only object in the listing that has all these parts.
    pub fn object(&self, parts: &[&str]) -> String {
        let listing = self.objects();
        let mut fitting = listing.iter().filter(|object| parts.iter().all(|part| object.contains(part)));
        let found = fitting.next().unwrap_or_else(|| panic!("no object with {parts:?} in {listing:#?}"));
        assert!(fitting.next().is_none(), "several objects with {parts:?} in {listing:#?}");
        found.clone()
    }

    /// How many private and public key objects there are.
    pub fn key_objects(&self) -> (usize, usize) {
        let listing = self.objects();
        let count = |head: &str| listing.iter().filter(|object| object.starts_with(head)).count();
        (count("Private Key Object"), count("Public Key Object"))
    }
}

/// The value of `  name:   value` in an object's listing.
pub fn field<'a>(object: &'a str, name: &str) -> &'a str {
    let line = |line: &'a str| line.trim().strip_prefix(name)?.strip_prefix(':').map(str::trim);
    object.lines().find_map(line).unwrap_or_else(|| panic!("no {name} in {object}"))
}

/// Whether an object is half of an audit key: `<signer> audit <number> <algorithm>`.
fn is_audit_key(object: &str) -> bool {
    let label = object.lines().find_map(|line| line.trim().strip_prefix("label:"));
    object.contains("Key Object") && label.is_some_and(|label| label.contains(" audit "))
}

/// Takes a listing apart: an object begins at the margin, its attributes are indented.
pub fn objects(listing: &str) -> Vec<String> {
    let mut objects: Vec<String> = Vec::new();
    for line in listing.lines() {
        match objects.last_mut() {
            Some(object) if line.starts_with(' ') => {
                object.push('\n');
                object.push_str(line);
            }
            _ if line.contains("bject") && !line.starts_with(' ') => objects.push(line.to_owned()),
            _ => {}
        }
    }
    objects
}
