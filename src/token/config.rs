//! `[token]` of the configuration file.

use std::{path::PathBuf, time::Duration};

use secrecy::SecretString;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{OptionalAttribute, TokenUri};
use crate::{
    key::Algorithm,
    secret::{self, SecretError},
};

/// Which token, through which module, and how it is used.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The PKCS#11 module: an absolute path to a shared library.
    pub module: PathBuf,
    /// RFC 7512 URI that matches exactly one token, by label and serial.
    pub uri: TokenUri,
    /// A file with the user PIN, readable by its owner only. Either this or `pin_credential`.
    #[serde(skip_serializing)]
    pin_file: Option<PathBuf>,
    /// The name of a systemd credential with the user PIN.
    #[serde(skip_serializing)]
    pin_credential: Option<String>,
    /// Worker threads that sign, each with a session of its own.
    #[serde(default = "default_workers")]
    pub workers: usize,
    /// Signing calls that may wait before callers are turned away.
    #[serde(default = "default_queue")]
    pub queue: usize,
    /// Longest wait for one signature.
    #[serde(default = "default_deadline", with = "crate::duration")]
    pub call_deadline: Duration,
    /// Calls that may hang at once: each has its worker replaced. One more, and the process ends.
    #[serde(default = "default_hung_calls")]
    pub hung_calls: usize,
    /// Verify every signature in software before it is released.
    #[serde(default = "default_true")]
    pub verify_signatures: bool,
    /// Parts of the strict key template that this module refuses; the ledger records what was left out.
    #[serde(default)]
    pub omit: Vec<OptionalAttribute>,
    /// False for modules that report CKA_LOCAL=false of keys they generated (NSS).
    #[serde(default = "default_true")]
    pub reports_local: bool,
    /// Only one thread looks for, makes or destroys objects at a time. False for modules that bear it
    /// and are so slow that the ledger could not be read in time beside a generation (TPMs).
    #[serde(default = "default_true")]
    pub objects_one_at_a_time: bool,
    /// Which algorithms the token offers, where it cannot be tried out with session keys.
    pub algorithms: Option<Vec<Algorithm>>,
    /// The module is loaded by a process of its own, which is killed when it hangs.
    #[serde(default = "default_true")]
    pub isolation: bool,
    /// The variables of the environment that this process gets: `NAME` with the appliance's own value,
    /// `NAME=value` with this one. Others it does not.
    #[serde(default = "default_environment")]
    pub environment: Vec<String>,
    /// Whose keys a standby has.
    #[serde(default, skip_serializing)]
    pub keys: Keys,
    /// `serve` makes the first key of a standby that has its own only on the token with this serial, and
    /// only when nothing says that it ever had one. Left out: it never does.
    #[serde(default, skip_serializing)]
    pub first_key_on_token_serial: Option<String>,
    /// The only places where this process may write: directories, and devices. Without it, wherever the
    /// user may.
    pub writable: Option<Vec<PathBuf>>,
}

/// Which keys are on a standby.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = TokenKeys)]
pub enum Keys {
    /// Copies of the primary's.
    #[default]
    Cloned,
    /// Its own, made on it.
    Own,
}

/// What the modules of the profiles read.
fn default_environment() -> Vec<String> {
    [
        "SOFTHSM2_CONF",
        "KRYOPTIC_CONF",
        "TPM2_PKCS11_STORE",
        "TPM2_PKCS11_TCTI",
        // The way to a TPM's resource manager.
        "DBUS_SYSTEM_BUS_ADDRESS",
        "DBUS_SESSION_BUS_ADDRESS",
        "P11_KIT_SERVER_ADDRESS",
    ]
    .map(str::to_owned)
    .to_vec()
}

fn default_workers() -> usize {
    2
}

fn default_queue() -> usize {
    1024
}

fn default_deadline() -> Duration {
    Duration::from_secs(2)
}

fn default_hung_calls() -> usize {
    16
}

fn default_true() -> bool {
    true
}

/// Where the PIN comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PinSource {
    File(PathBuf),
    Credential(String),
}

impl PinSource {
    /// Reads the PIN.
    pub fn read(&self) -> Result<SecretString, SecretError> {
        match self {
            Self::File(path) => secret::from_file(path),
            Self::Credential(name) => secret::from_credential(name),
        }
    }
}

impl Config {
    /// A configuration with every default, for `dev`.
    #[must_use]
    pub fn new(module: PathBuf, uri: TokenUri, pin_file: PathBuf) -> Self {
        Self {
            module,
            uri,
            pin_file: Some(pin_file),
            pin_credential: None,
            workers: default_workers(),
            queue: default_queue(),
            call_deadline: default_deadline(),
            hung_calls: default_hung_calls(),
            verify_signatures: true,
            omit: Vec::new(),
            reports_local: true,
            objects_one_at_a_time: true,
            algorithms: None,
            isolation: false,
            environment: default_environment(),
            keys: Keys::default(),
            first_key_on_token_serial: None,
            writable: None,
        }
    }

    /// The one place the PIN is read from.
    pub fn pin_source(&self) -> Result<PinSource, String> {
        match (&self.pin_file, &self.pin_credential) {
            (Some(path), None) => Ok(PinSource::File(path.clone())),
            (None, Some(name)) => Ok(PinSource::Credential(name.clone())),
            _ => Err("token: name exactly one of pin_file and pin_credential".into()),
        }
    }

    /// What tells this place from others: the module, the token, and where the module is told to look.
    #[must_use]
    pub fn place(&self) -> String {
        let mut digest = Sha256::new();
        for part in [self.module.to_string_lossy().into_owned(), self.uri.to_string(), self.environment.join("\0")] {
            digest.update(part.as_bytes());
            digest.update([0]);
        }
        hex::encode(&digest.finalize()[..8])
    }

    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        self.pin_source()?;
        if self.pin_file.as_ref().is_some_and(|path| !path.is_absolute()) {
            // Not quoted: it may be the PIN itself.
            return Err("token.pin_file must be the absolute path of a file".into());
        }
        if !self.module.is_absolute() {
            return Err("token.module must be an absolute path".into());
        }
        if self.workers == 0 || self.workers > 256 {
            return Err("token.workers must be between 1 and 256".into());
        }
        if self.queue == 0 {
            return Err("token.queue must be above 0".into());
        }
        if self.call_deadline < Duration::from_millis(10) || self.call_deadline > Duration::from_secs(60) {
            return Err("token.call_deadline must be between 10ms and 60s".into());
        }
        if self.hung_calls == 0 || self.hung_calls > 256 {
            return Err("token.hung_calls must be between 1 and 256".into());
        }
        if self.writable.is_some() && !self.isolation {
            return Err(
                "token.writable is kept by a process of the module's own: it needs token.isolation = true".into()
            );
        }
        if self.writable.iter().flatten().any(|path| !path.is_absolute()) {
            return Err("token.writable must name absolute paths".into());
        }
        if !self.isolation && self.environment.iter().any(|entry| entry.contains('=')) {
            return Err("token.environment sets a value: that needs token.isolation = true".into());
        }
        if self.algorithms.as_ref().is_some_and(Vec::is_empty) {
            return Err("token.algorithms must name at least one algorithm, or be left out".into());
        }
        Ok(())
    }
}
