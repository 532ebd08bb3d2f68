//! "No key found" never means "make a key": a token that others are just reading, that was moved,
//! or that is the wrong one looks empty too. This is the one place that decides.

use std::path::PathBuf;

use crate::{
    audit,
    key::Standing,
    service::{janitor, marker::Marker},
    token::KeyObject,
};

/// Who asks for a first key.
#[derive(Clone, Debug)]
pub enum Asker {
    /// A person ran `init`, or `dev` made the token itself a moment ago.
    Person { command: &'static str },
    /// `serve`, with the serial for which the configuration allows it, if it does.
    Configuration { allowed_serial: Option<String> },
}

impl Asker {
    /// Whether a first key may be made, or one whose making a crash cut short activated, on the
    /// token with this serial.
    #[must_use]
    pub fn may_on(&self, token_serial: &str) -> bool {
        match self {
            Self::Person { .. } => true,
            Self::Configuration { allowed_serial } => allowed_serial.as_deref() == Some(token_serial),
        }
    }

    /// Whether the first key of a standby that has its own may be made; `named`: the configuration names its serial.
    #[must_use]
    pub fn may_on_standby(&self, named: bool) -> bool {
        match self {
            Self::Person { .. } => true,
            Self::Configuration { .. } => named,
        }
    }

    /// The actor in ledger and audit trail.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            Self::Person { command } => command,
            Self::Configuration { .. } => "serve",
        }
    }
}

/// Why no key is made on an empty token.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error(
        "no key exists for this signer on the token, and the configuration does not allow making one here: \
         run `verification-signer init --config FILE`, or set key_policy.first_key_on_token_serial = {serial:?}"
    )]
    NotAsked { serial: String },
    #[error(
        "the token shows no ledger, but {0} says that this signer had keys: find the right token; do not start over"
    )]
    Marker(PathBuf),
    #[error(
        "the token shows no ledger, but the audit trail in {0} says that this signer had keys: find the right token; do not start over"
    )]
    AuditTrail(PathBuf),
    #[error("the audit trail in {path} cannot be searched for earlier keys: {source}")]
    AuditUnreadable { path: PathBuf, source: std::io::Error },
    #[error(
        "the token has key objects of this signer ({0}) but no ledger record for them: they are never adopted silently; inspect them with pkcs11-tool"
    )]
    Orphans(String),
    #[error(
        "{standby} has objects of this signer ({objects}) that are no keys of its own: a token that gets its own has none; \
         inspect them with pkcs11-tool"
    )]
    NotEmpty { standby: String, objects: String },
}

/// Whether the first key of its own may be made on a standby with these key objects.
pub fn permit_on_standby(standing: &Standing, standby: &str, objects: &[KeyObject]) -> Result<(), Refusal> {
    let unexplained = janitor::unexplained(standing, objects);
    if unexplained.is_empty() {
        return Ok(());
    }
    let labels: Vec<_> = unexplained.iter().map(|object| object.label.as_str()).collect();
    Err(Refusal::NotEmpty { standby: standby.to_owned(), objects: labels.join(", ") })
}

/// What was found on the token and beside it.
#[derive(Debug)]
pub struct Findings<'a> {
    pub standing: &'a Standing,
    pub token_serial: &'a str,
    /// Key objects of this signer.
    pub key_objects: &'a [KeyObject],
    pub marker: &'a Marker,
    pub audit: &'a audit::Config,
}

/// Whether a first key may be made, given an empty ledger.
pub fn permit(asker: &Asker, findings: &Findings<'_>) -> Result<(), Refusal> {
    if findings.marker.exists() {
        return Err(Refusal::Marker(findings.marker.path().to_owned()));
    }
    let directory = || findings.audit.directory.clone();
    match audit::mentions_keys(&findings.audit.directory) {
        Ok(false) => {}
        Ok(true) => return Err(Refusal::AuditTrail(directory())),
        Err(source) => return Err(Refusal::AuditUnreadable { path: directory(), source }),
    }
    let unexplained = janitor::unexplained(findings.standing, findings.key_objects);
    if !unexplained.is_empty() {
        let labels: Vec<_> = unexplained.iter().map(|object| object.label.as_str()).collect();
        return Err(Refusal::Orphans(labels.join(", ")));
    }
    if asker.may_on(findings.token_serial) {
        Ok(())
    } else {
        Err(Refusal::NotAsked { serial: findings.token_serial.to_owned() })
    }
}
