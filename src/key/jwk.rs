//! Public keys as others publish them: JWK (RFC 7517; RFC 7518 §6.2, RFC 8037 §2, RFC 8812 §3).

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

use super::{Algorithm, PublicKey};

/// A JWK set, as far as we use it.
#[derive(Debug, Deserialize)]
pub struct KeySet {
    pub keys: Vec<Jwk>,
}

/// One key of it.
#[derive(Debug, Deserialize)]
pub struct Jwk {
    kty: String,
    crv: String,
    x: String,
    y: Option<String>,
    pub kid: Option<String>,
}

impl Jwk {
    /// The key; `None` when it is of a kind that this program does not sign with, or not a key at all.
    #[must_use]
    pub fn public_key(&self) -> Option<PublicKey> {
        let algorithm = Algorithm::ALL.into_iter().find(|algorithm| algorithm.as_str() == self.crv)?;
        let coordinate = |text: &str| URL_SAFE_NO_PAD.decode(text).ok().filter(|bytes| bytes.len() == 32);
        let x = coordinate(&self.x)?;
        let point = match (algorithm, self.kty.as_str(), &self.y) {
            (Algorithm::Ed25519, "OKP", None) => x,
            (Algorithm::P256 | Algorithm::Secp256k1, "EC", Some(y)) => [&[4][..], &x, &coordinate(y)?].concat(),
            (Algorithm::Ed25519 | Algorithm::P256 | Algorithm::Secp256k1, _, _) => return None,
        };
        PublicKey::from_ec_point(algorithm, &point).ok()
    }
}
