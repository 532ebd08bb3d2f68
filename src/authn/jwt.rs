//! Tokens of an identity provider (RFC 7519, OpenID Connect). They say who somebody is; what that
//! somebody may do is said by the configuration, never by the token.

use std::{path::PathBuf, time::Duration};

use jsonwebtoken::{Validation, decode, decode_header};
use serde::Deserialize;

use super::{
    Refused,
    jwks::{KeySet, SetSource},
    ring_jwt,
};

/// Longest token that is looked at.
const MAX_BYTES: usize = 8192;

/// `[auth.jwt]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JwtConfig {
    /// `iss`, exactly.
    pub issuer: String,
    /// `aud`: the token must be for this one.
    pub audience: String,
    /// The provider's public keys (RFC 7517): a file, or where they are fetched.
    #[serde(default)]
    pub jwks_file: Option<PathBuf>,
    #[serde(default)]
    pub jwks_url: Option<String>,
    /// Certificates that the server of `jwks_url` may stand under; left out, those of the system.
    #[serde(default)]
    pub jwks_ca_file: Option<PathBuf>,
    /// How often `jwks_url` is fetched.
    #[serde(default = "default_refresh", deserialize_with = "crate::duration::deserialize")]
    pub jwks_refresh: Duration,
    /// How far the provider's clock may differ.
    #[serde(default = "default_leeway", deserialize_with = "crate::duration::deserialize")]
    pub leeway: Duration,
}

fn default_refresh() -> Duration {
    Duration::from_secs(300)
}

fn default_leeway() -> Duration {
    Duration::from_secs(30)
}

impl JwtConfig {
    /// The rules that the types do not hold.
    pub(super) fn check(&self) -> Result<(), String> {
        if self.issuer.is_empty() || self.audience.is_empty() {
            return Err("auth.jwt.issuer and auth.jwt.audience must not be empty".into());
        }
        match (&self.jwks_file, &self.jwks_url) {
            (Some(_), None) if self.jwks_ca_file.is_some() => Err("auth.jwt.jwks_ca_file is for jwks_url".into()),
            (None, Some(url)) if !url.starts_with("https://") => {
                Err("auth.jwt.jwks_url must begin with https://: whoever changes the keys on their way is everybody"
                    .into())
            }
            (Some(_), None) | (None, Some(_)) => self.check_times(),
            (Some(_), Some(_)) | (None, None) => Err("auth.jwt needs exactly one of jwks_file and jwks_url".into()),
        }
    }

    fn check_times(&self) -> Result<(), String> {
        if self.leeway > Duration::from_secs(300) {
            return Err("auth.jwt.leeway must be at most 300s".into());
        }
        if self.jwks_refresh < Duration::from_secs(10) {
            return Err("auth.jwt.jwks_refresh must be at least 10s".into());
        }
        Ok(())
    }
}

/// What of the claims is used. The library checks `exp`, `nbf`, `iss` and `aud`.
#[derive(Deserialize)]
struct Claims {
    sub: String,
}

/// The judge of tokens.
pub(super) struct Tokens {
    config: JwtConfig,
    keys: SetSource,
}

impl Tokens {
    pub(super) fn open(config: &JwtConfig) -> Result<Self, String> {
        ring_jwt::install();
        Ok(Self { keys: SetSource::open(config)?, config: config.clone() })
    }

    /// Whom the token speaks of. Which algorithm counts is said by the key, not by the token.
    pub(super) fn subject_of(&self, token: &str) -> Result<String, Refused> {
        if token.len() > MAX_BYTES {
            return Err(Refused::Token("too long"));
        }
        let header = decode_header(token).map_err(|_| Refused::Token("not a signed token with a known algorithm"))?;
        // RFC 7515 §4.1.11: what must be understood and is not.
        if header.crit.is_some() {
            return Err(Refused::Token("critical header parameters"));
        }
        let set: &KeySet = &self.keys.current();
        let key = set.find(header.kid.as_deref()).ok_or(Refused::Token("signed by no known key"))?;
        let data = decode::<Claims>(token, &key.key, &self.validation(key.algorithm))
            .map_err(|error| Refused::Token(why(error.kind())))?;
        Ok(data.claims.sub)
    }

    fn validation(&self, algorithm: jsonwebtoken::Algorithm) -> Validation {
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&[&self.config.issuer]);
        validation.set_audience(&[&self.config.audience]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        validation.validate_nbf = true;
        validation.leeway = self.config.leeway.as_secs();
        validation
    }

    pub(super) fn refresh(&self, forced: bool) -> Option<Result<String, String>> {
        self.keys.refresh(forced)
    }

    pub(super) fn fetch(&self, forced: bool) -> Option<Result<String, String>> {
        self.keys.fetch(forced)
    }
}

/// Words of ours: the library's own message may quote the token.
fn why(kind: &jsonwebtoken::errors::ErrorKind) -> &'static str {
    use jsonwebtoken::errors::ErrorKind;
    match kind {
        ErrorKind::InvalidSignature => "the signature is wrong",
        ErrorKind::InvalidAlgorithm => "the algorithm is not that of the key",
        ErrorKind::ExpiredSignature => "expired",
        ErrorKind::ImmatureSignature => "not valid yet",
        ErrorKind::InvalidIssuer => "another issuer",
        ErrorKind::InvalidAudience => "for another audience",
        ErrorKind::MissingRequiredClaim(_) => "a claim is missing",
        // The library's own, open list.
        _ => "malformed",
    }
}
