//! One signature for many attestations: the format and who reads it, explicit batches, and requests that
//! share a signature by themselves.

mod automatic;
mod batch;
mod vectors;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Output,
};

use serde_json::{Value, json};

use crate::support::{
    appliance::{Appliance, BINARY},
    tool,
};

/// Fresh nonces for e-mail attestations.
pub fn issued(appliance: &Appliance, count: usize) -> Vec<String> {
    let order = json!({ "attestation_type": "email_verification", "count": count });
    let nonces = appliance.post("/api/v1/nonces/batch", &order).ok();
    nonces.as_array().unwrap().iter().map(|nonce| nonce["nonce"].as_str().unwrap().to_owned()).collect()
}

/// Verifies with the Python program, which knows nothing of ours: what it prints.
pub fn python(keys: &Path, files: &[&Path]) -> Output {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let interpreter = root.join("target/venv/bin/python3");
    assert!(interpreter.exists(), "{} is not there: run `make test` once", interpreter.display());
    let script = &*root.join("softhsm-tests/verify_attestation.py");
    let arguments: Vec<_> = [script, keys].iter().chain(files).map(|path| path.to_str().unwrap()).collect();
    tool::output(interpreter.to_str().unwrap(), &arguments, &[], b"")
}

/// Verifies with `verification-signer verify`.
pub fn command_line(file: &Path, options: &[&str]) -> Output {
    let arguments = [&["verify", file.to_str().unwrap()], options].concat();
    tool::output(BINARY, &arguments, &[], b"")
}

/// A file of JSON.
pub fn written(directory: &Path, name: &str, value: &Value) -> PathBuf {
    let path = directory.join(name);
    fs::write(&path, serde_json::to_vec(value).unwrap()).unwrap();
    path
}
