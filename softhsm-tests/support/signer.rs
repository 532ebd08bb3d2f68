//! An appliance with a token, a home and an active key: where the tests of a key's life begin.

use std::{
    fs,
    ops::Deref,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::{
    appliance::{Answer, Appliance, attestation_request},
    eventually,
    softhsm::{SIGNER, SoftHsm},
};

/// The key with this number.
pub fn key(sequence: u32) -> String {
    format!("{SIGNER}:{sequence}")
}

/// A running appliance and what it stands on.
pub struct Signer {
    appliance: Option<Appliance>,
    pub token: SoftHsm,
    home: TempDir,
    config: PathBuf,
}

impl Deref for Signer {
    type Target = Appliance;

    fn deref(&self) -> &Appliance {
        self.appliance.as_ref().unwrap()
    }
}

impl Signer {
    /// With the defaults of a single appliance.
    pub fn new() -> Self {
        Self::with("", "[fleet]\nsingle = true")
    }

    /// With these lines in `[key_policy]`, and whatever tables follow it.
    pub fn with(key_policy: &str, tables: &str) -> Self {
        Self::with_lines("[token]", "", key_policy, tables)
    }

    /// With these lines in `[audit]`, and these tables.
    pub fn with_audit(lines: &str, tables: &str) -> Self {
        Self::with_edited("[audit]", lines, "", tables, &[])
    }

    /// The same in an environment of its own.
    pub fn with_audit_in(lines: &str, environment: &[(&str, &Path)]) -> Self {
        Self::with_edited("[audit]", lines, "", "[fleet]\nsingle = true", environment)
    }

    /// With these lines in a table that every configuration has.
    pub fn with_lines(table: &str, lines: &str, key_policy: &str, tables: &str) -> Self {
        Self::with_edited(table, lines, key_policy, tables, &[])
    }

    fn with_edited(table: &str, lines: &str, key_policy: &str, tables: &str, environment: &[(&str, &Path)]) -> Self {
        let token = SoftHsm::new();
        let home = tempfile::tempdir().unwrap();
        let config = token.config(home.path(), &first_key_here(&token, key_policy, tables));
        let text = fs::read_to_string(&config).unwrap();
        fs::write(&config, text.replacen(table, &format!("{table}\n{lines}"), 1)).unwrap();
        let mut command = std::process::Command::new(super::appliance::BINARY);
        command.args(["serve", "--config"]).arg(&config).envs(token.environment());
        command.envs(environment.iter().copied());
        let started = Appliance::start(command, home.path());
        let appliance = started.unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"));
        Self { appliance: Some(appliance), token, home, config }
    }

    /// Ends it without letting it finish anything.
    pub fn kill(&mut self) {
        drop(self.appliance.take());
    }

    /// Stops it as systemd does.
    pub fn stop_and_wait(&mut self) {
        self.appliance.take().unwrap().stop();
    }

    /// Waits for its end by whatever cause.
    pub fn wait_for_end(&mut self) -> std::process::ExitStatus {
        self.appliance.take().unwrap().wait()
    }

    /// Starts again after [`Signer::kill`], or says why not.
    pub fn start_again(&mut self) -> Result<(), String> {
        let started = Appliance::serve(&self.token, &self.config).map_err(|(_, log)| log)?;
        self.appliance = Some(started);
        Ok(())
    }

    /// The directory of its files.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// One more appliance on the same token, with a state and a trail of its own.
    pub fn second(&self) -> Appliance {
        self.second_with("")
    }

    /// The same with these tables.
    pub fn second_with(&self, tables: &str) -> Appliance {
        serve(&self.token, &self.token.config(&self.home.path().join("second"), tables))
    }

    /// Stops and starts again.
    pub fn restart(&mut self) {
        self.restart_after(|_| {});
    }

    /// Stops, does something with the token, and starts again.
    pub fn restart_after(&mut self, meanwhile: impl FnOnce(&SoftHsm)) {
        self.appliance.take().unwrap().stop();
        meanwhile(&self.token);
        self.appliance = Some(serve(&self.token, &self.config));
    }

    /// Stops, does something, and fails to start again; what it says.
    pub fn restart_refused(&mut self, meanwhile: impl FnOnce()) -> String {
        self.appliance.take().unwrap().stop();
        meanwhile();
        Appliance::serve(&self.token, &self.config).err().unwrap().1
    }

    /// Its state directory.
    pub fn state(&self) -> PathBuf {
        self.home.path().join("state")
    }

    /// Rotates as an operator does; the rotation's id.
    pub fn rotate(&self) -> String {
        self.rotate_with(&json!({}))
    }

    /// Rotates with more fields in the request.
    pub fn rotate_with(&self, more: &Value) -> String {
        let answer = self.post("/api/v1/keys/rotate", &rotation_request(more));
        assert_eq!(answer.status, 201, "{}", answer.text());
        answer.json()["rotation_id"].as_str().unwrap().to_owned()
    }

    /// Revokes for compromise.
    pub fn revoke(&self, sequence: u32) -> Value {
        let body = json!({ "reason": "compromised", "initiated_by": "security-team" });
        self.post(&format!("/api/v1/keys/{}/revoke", key(sequence)), &body).ok()
    }
}

/// What tests ask of any appliance about its keys.
impl Appliance {
    /// The states of all keys, oldest first.
    pub fn states(&self) -> Vec<String> {
        let keys = self.get("/api/v1/keys").ok();
        keys.as_array().unwrap().iter().rev().map(|key| key["state"].as_str().unwrap().to_owned()).collect()
    }

    /// Waits until the keys, oldest first, have these states.
    pub fn reaches(&self, states: &[&str]) {
        eventually(&format!("{states:?}"), || (self.states() == states).then_some(()));
    }

    /// The key as the API shows it.
    pub fn key(&self, sequence: u32) -> Value {
        self.get(&format!("/api/v1/keys/{}", key(sequence))).ok()
    }

    /// Has an attestation signed, which must succeed.
    pub fn attest(&self) -> Value {
        self.try_attest().ok()
    }

    /// Asks for an attestation.
    pub fn try_attest(&self) -> Answer {
        self.post("/api/v1/attestations", &attestation_request(&self.nonce()))
    }

    /// The same when even the nonce may be refused: that answer then.
    pub fn try_attest_or_refused(&self) -> Answer {
        let issued = self.post("/api/v1/nonces", &json!({ "attestation_type": "email_verification" }));
        if issued.status != 200 {
            return issued;
        }
        let nonce = issued.json()["nonce"].as_str().unwrap().to_owned();
        self.post("/api/v1/attestations", &attestation_request(&nonce))
    }

    /// The key that signs now.
    pub fn signing_key(&self) -> String {
        self.attest()["issuer"]["key_id"].as_str().unwrap().to_owned()
    }

    /// What verification says of an attestation: `valid`, or the reason why not.
    pub fn verdict(&self, attestation: &Value) -> String {
        let verdict = self.post("/api/v1/attestations/verify", attestation).ok();
        if verdict["valid"] == true { "valid".into() } else { verdict["reason"].as_str().unwrap().to_owned() }
    }

    /// Audit records as `type action outcome`, in order.
    pub fn trail(&self) -> Vec<String> {
        let log = self.audit_log();
        // What follows the last newline is being written right now.
        let whole = log.rsplit_once('\n').map_or("", |(whole, _)| whole);
        let records = whole.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
        let word = |record: &Value, field: &str| record[field].as_str().unwrap().to_owned();
        records
            .map(|record| format!("{} {} {}", word(&record, "type"), word(&record, "action"), word(&record, "outcome")))
            .collect()
    }
}

/// The body of a rotation, with more fields.
pub fn rotation_request(more: &Value) -> Value {
    let mut body = json!({ "reason": "rotation", "initiated_by": "ops-team" });
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    body
}

/// Configuration under which `serve` makes the first key on this token.
pub fn first_key_here(token: &SoftHsm, key_policy: &str, tables: &str) -> String {
    format!("[key_policy]\nfirst_key_on_token_serial = \"{}\"\n{key_policy}\n{tables}\n", token.serial)
}

fn serve(token: &SoftHsm, config: &Path) -> Appliance {
    Appliance::serve(token, config).unwrap_or_else(|(status, log)| panic!("serve ended with {status}: {log}"))
}
