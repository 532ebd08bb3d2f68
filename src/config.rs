//! The configuration file: one TOML file, no unknown keys, everything parsed here and nowhere else.

use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::{
    audit, authn,
    client::Role,
    http, limits, nonce, redis,
    service::{FleetConfig, KeyPolicy, SignerConfig, approvals, merkle},
    telemetry, token,
};

/// The whole file. Each table belongs to the room that reads it.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    pub signer: SignerConfig,
    #[serde(default)]
    pub state: StateConfig,
    pub token: token::Config,
    /// Tokens with copies of its keys, in order of preference.
    #[serde(default)]
    pub standby: Vec<token::Config>,
    #[serde(default)]
    pub failover: token::standby::FailoverConfig,
    #[serde(default)]
    pub ledger: LedgerConfig,
    #[serde(default)]
    pub fleet: FleetConfig,
    #[serde(default)]
    pub key_policy: KeyPolicy,
    /// One signature for many attestations.
    #[serde(default)]
    pub merkle: merkle::Config,
    #[serde(default)]
    pub nonce: nonce::Config,
    #[serde(default)]
    pub limits: limits::Config,
    /// Nonces and the fleet's lock are kept in Redis; without it, in this process.
    #[serde(default)]
    pub redis: Option<redis::Config>,
    #[serde(default)]
    pub audit: audit::Config,
    #[serde(default)]
    pub http: http::Config,
    /// The API on the network.
    #[serde(default)]
    pub tls: Option<http::TlsConfig>,
    /// Who may do what; without it everybody may do everything, on loopback.
    #[serde(default)]
    pub auth: Option<authn::Config>,
    /// Which changes of keys need the approval of others.
    #[serde(default)]
    pub approvals: approvals::Config,
    #[serde(default)]
    pub metrics: http::MetricsConfig,
    #[serde(default)]
    pub log: telemetry::Config,
    /// The file it was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
}

/// `[state]`: what this appliance remembers.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StateConfig {
    /// A directory only the service can enter.
    #[serde(default = "default_state_directory")]
    pub directory: PathBuf,
    /// SHA-256 of the last record of a ledger that does not continue what this appliance has seen,
    /// and that an operator accepts all the same (a token restored from a backup, on purpose).
    #[serde(default)]
    pub accept_ledger_head: Option<String>,
}

fn default_state_directory() -> PathBuf {
    PathBuf::from("/var/lib/verification-signer")
}

impl Default for StateConfig {
    fn default() -> Self {
        Self { directory: default_state_directory(), accept_ledger_head: None }
    }
}

/// `[ledger]`: where the key ledger is kept.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, tag = "store", rename_all = "kebab-case")]
pub enum LedgerConfig {
    /// Data objects on the token: an appliance beside the same token needs nothing else.
    // With braces: serde would let unknown keys pass beside a variant without them.
    Token {},
    /// A file, for tokens without data objects. Only one appliance may then use the token.
    File { path: PathBuf },
}

impl Default for LedgerConfig {
    fn default() -> Self {
        Self::Token {}
    }
}

/// Why a configuration is refused. The message names the place.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error("{path}: {message}")]
    Invalid { path: PathBuf, message: String },
}

impl Config {
    /// Reads and checks a file.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.into(), source })?;
        let config = Self::parse(&text).map_err(|message| ConfigError::Invalid { path: path.into(), message })?;
        Ok(Self { file: Some(path.into()), ..config })
    }

    /// Reads and checks the text of a file.
    pub fn parse(text: &str) -> Result<Self, String> {
        let deserializer = toml::Deserializer::parse(text).map_err(|error| describe(text, "", &error))?;
        let config: Self = serde_path_to_error::deserialize(deserializer)
            .map_err(|located| describe(text, &located.path().to_string(), located.inner()))?;
        config.check()?;
        Ok(config)
    }

    /// Whether the files and directories that listening needs are as they must be.
    pub fn check_files(&self) -> Result<(), String> {
        self.tls.as_ref().map_or(Ok(Vec::new()), http::TlsConfig::check_files)?;
        self.http.check_socket_place()
    }

    /// What is allowed, and what somebody should know all the same.
    #[must_use]
    pub fn warnings(&self) -> Vec<&'static str> {
        let exposed = |address: std::net::SocketAddr| !address.ip().is_loopback();
        let tls = self.tls.as_ref();
        let (plain, encrypted) = (exposed(self.http.listen), tls.is_some_and(|tls| exposed(tls.listen)));
        let open = self.auth.is_none();
        let said = [
            (
                self.redis.is_none() && !self.fleet.single,
                "without [redis] nothing keeps two appliances from changing keys at once, and nonces are known to this process \
                 only: name a Redis, or set fleet.single = true",
            ),
            (
                plain,
                "http.listen lets the network in without TLS: whoever listens on the way reads everything, bearer keys too",
            ),
            (
                open && (plain || encrypted),
                "without [auth] whoever reaches this machine over the network may do everything, also have attestations signed \
                 and revoke keys",
            ),
            (self.auth.is_none(), "without [auth] whoever works on this machine may do everything, also revoke keys"),
            (
                tls.is_some_and(|tls| tls.client_ca_file.is_some() && tls.client_crl_file.is_none()),
                "without tls.client_crl_file a client certificate that was revoked is let in until it expires",
            ),
            (
                exposed(self.metrics.listen) && !self.metrics.authenticate,
                "metrics.listen is not loopback, and metrics.authenticate is false: everybody there may read the metrics",
            ),
            (!self.limits.enabled, "limits.enabled = false: nobody is limited, and nobody is blocked by score"),
            (
                !self.token.verify_signatures,
                "token.verify_signatures = false: a signature that the token got wrong would be released",
            ),
        ];
        said.into_iter().filter_map(|(holds, text)| holds.then_some(text)).collect()
    }

    /// Standbys need a ledger that can be read while the primary is away, and nobody else who writes one.
    fn check_standbys(&self) -> Result<(), String> {
        token::standby::check(&self.token, &self.standby)?;
        self.failover.check()?;
        if self.standby.is_empty() {
            return Ok(());
        }
        if !matches!(self.ledger, LedgerConfig::File { .. }) {
            return Err("[[standby]] does not go with [ledger] store = \"token\": while the primary is away nobody could read which keys are revoked. Set store = \"file\" and a path; `verification-signer token ledger` copies the ledger there".into());
        }
        if !self.fleet.single {
            return Err("[[standby]] needs fleet.single = true: its ledger is a file of this machine, which no other appliance reads".into());
        }
        Ok(())
    }

    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        self.token.check()?;
        self.check_standbys()?;
        self.fleet.check()?;
        self.key_policy.check()?;
        self.merkle.check()?;
        self.nonce.check()?;
        self.limits.check()?;
        self.redis.as_ref().map_or(Ok(()), redis::Config::check)?;
        if self.nonce.accept_client_nonces && self.redis.as_ref().is_some_and(|redis| redis.cluster.is_some()) {
            return Err(
                "nonce.accept_client_nonces does not go with redis.cluster: name the servers with redis.sentinel or redis.url".into(),
            );
        }
        self.audit.check()?;
        if self.audit.redis_stream_length > 0 && self.redis.is_none() {
            return Err("audit.redis_stream_length needs [redis]".into());
        }
        self.http.check()?;
        self.auth.as_ref().map_or(Ok(()), authn::Config::check)?;
        let open = self.http.allow_unauthenticated_network_access;
        self.tls.as_ref().map_or(Ok(()), |tls| tls.check(self.auth.is_some(), open))?;
        match &self.auth {
            Some(auth) => self.approvals.check(Some(&|roles: &[Role]| auth.holders(roles)))?,
            None => self.approvals.check(None)?,
        }
        if self.metrics.authenticate && self.auth.is_none() {
            return Err("metrics.authenticate needs [auth]: there is nobody with the role metrics".into());
        }
        let mut listeners = vec![("http.listen", self.http.listen), ("metrics.listen", self.metrics.listen)];
        listeners.extend(self.tls.as_ref().map(|tls| ("tls.listen", tls.listen)));
        for (at, (one, address)) in listeners.iter().enumerate() {
            if let Some((other, _)) =
                listeners[..at].iter().find(|(_, earlier)| earlier == address && address.port() != 0)
            {
                return Err(format!("{other} and {one} are the same address"));
            }
        }
        Ok(())
    }
}

/// Line and message. Not toml's own text, which quotes the line, and not serde's quotation of a value
/// of the wrong type: whoever wrote a PIN into the file by mistake must not find it in the journal as
/// well.
fn describe(text: &str, path: &str, error: &toml::de::Error) -> String {
    let line = error.span().map_or(1, |span| text.get(..span.start).unwrap_or_default().matches('\n').count() + 1);
    // A missing or unknown name is in the message; the path is then the table's.
    let place = if matches!(path, "" | ".") { format!("line {line}") } else { format!("line {line}: {path}") };
    let message = error.message();
    match message.split_once(", expected ") {
        Some((found, expected)) if found.starts_with("invalid type") || found.starts_with("invalid value") => {
            format!("{place}: expected {expected}")
        }
        _ => format!("{place}: {message}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_line_and_does_not_quote_it() {
        let text = "[signer]\nid = \"s\"\n[token]\nmodule = \"/m\"\npin_file = \"/p\"\nuri = \"pkcs11:token=x?pin-value=8642\"\n";
        let message = Config::parse(text).unwrap_err();
        assert!(message.contains("line 6") && message.contains("pin-value"), "{message}");
        assert!(!message.contains("8642"), "{message}");
    }
}
