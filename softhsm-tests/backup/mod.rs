//! Backups of a used appliance: restored on an empty one, looked through for secrets, changed, and outlived by what
//! happened after them.

mod changes;
mod older;
mod restored;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{
    appliance::{Appliance, BINARY},
    signer::{Signer, key},
    softhsm::SoftHsm,
    tool,
};

/// How a command ended.
#[derive(Debug)]
struct Ended {
    code: i32,
    output: String,
}

impl Ended {
    #[track_caller]
    fn with(&self, code: i32, says: &[&str]) {
        assert_eq!(self.code, code, "{}", self.output);
        for text in says {
            assert!(self.output.contains(text), "{text:?} is not in {}", self.output);
        }
    }
}

/// A command of the program beside this token.
fn run(token: &SoftHsm, arguments: &[&str]) -> Ended {
    let output = Command::new(BINARY).args(arguments).envs(token.environment()).output().unwrap();
    let code = output.status.code().unwrap_or(-1);
    Ended { code, output: tool::text(&output.stdout) + &tool::text(&output.stderr) }
}

/// An appliance that was used: rotated twice, a key of its revoked, somebody blocked.
struct Used {
    signer: Signer,
    place: TempDir,
    attestations: Vec<Value>,
}

impl Used {
    fn new() -> Self {
        Self::with("[fleet]\nsingle = true")
    }

    fn with(tables: &str) -> Self {
        let signer = Signer::with("", tables);
        let mut attestations = vec![signer.attest()];
        signer.rotate();
        attestations.push(signer.attest());
        signer.revoke(1);
        signer.rotate_with(&json!({ "emergency": true, "algorithm": "Ed25519" }));
        attestations.push(signer.attest());
        let block = json!({ "address": "192.0.2.0/24", "reason": "stuffing", "initiated_by": "test" });
        assert_eq!(signer.post("/api/v1/blocks", &block).status, 201);
        Self { signer, place: tempfile::tempdir().unwrap(), attestations }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.place.path().join(name)
    }

    /// Makes a backup while the appliance runs.
    fn backup(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        let arguments = ["backup", "create", "--config", self.config(), "--output", path.to_str().unwrap()];
        run(&self.signer.token, &arguments).with(0, &["written", "no private key and no PIN"]);
        path
    }

    fn config(&self) -> &str {
        self.signer.config().to_str().unwrap()
    }

    /// The public audit key, as somebody keeps it elsewhere.
    fn public_key(&self) -> PathBuf {
        let path = self.path("audit.pem");
        let pem = self.signer.get("/api/v1/signer").ok()["audit"]["public_key"].as_str().unwrap().to_owned();
        fs::write(&path, pem).unwrap();
        path
    }

    /// An empty place beside the same token; its configuration is there, nothing else.
    fn empty(&self, name: &str, tables: &str) -> Empty {
        let home = self.path(name);
        let config = self.signer.token.config(&home, tables);
        Empty { home, config }
    }

    fn restore(&self, empty: &Empty, backup: &Path, more: &[&str]) -> Ended {
        let arguments = ["restore", backup.to_str().unwrap(), "--config", empty.config.to_str().unwrap()];
        run(&self.signer.token, &[&arguments[..], more].concat())
    }

    fn start(&self, empty: &Empty) -> Appliance {
        let started = Appliance::serve(&self.signer.token, &empty.config);
        started.unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"))
    }
}

struct Empty {
    home: PathBuf,
    config: PathBuf,
}

/// What is asked of an appliance before and after; ages go on.
fn picture(appliance: &Appliance) -> Vec<Value> {
    let mut keys = appliance.get("/api/v1/keys").ok();
    for key in keys.as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("age_seconds");
    }
    let asked = ["/api/v1/rotations", "/api/v1/blocks", "/.well-known/jwks.json"];
    let mut picture: Vec<_> = asked.iter().map(|path| appliance.get(path).ok()).collect();
    picture.push(keys);
    picture.extend((1..=3).map(|number| {
        let certificate = appliance.get(&format!("/api/v1/keys/{}/certificate.pem", key(number)));
        certificate.ok_text().into()
    }));
    picture
}
