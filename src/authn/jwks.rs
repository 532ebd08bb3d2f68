//! The public keys of an identity provider: from a file, or fetched over HTTPS.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse},
};
use parking_lot::Mutex;
use serde::Deserialize;

use super::{JwtConfig, Watched};

/// Longest key set that is read.
const MAX_BYTES: u64 = 1 << 20;

/// How long a fetch may take.
const FETCH_TIME: Duration = Duration::from_secs(5);

/// After a fetch that failed, the next one is tried this much later.
const RETRY: Duration = Duration::from_secs(10);

/// One key, with the one algorithm it is for.
#[derive(Debug)]
pub(super) struct ProviderKey {
    id: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) key: DecodingKey,
}

/// The keys of a provider.
#[derive(Debug)]
pub(super) struct KeySet(Vec<ProviderKey>);

impl KeySet {
    /// Reads a JWK set (RFC 7517 §5). Keys of kinds that are not used here are passed over, symmetric
    /// ones above all.
    fn parse(text: &[u8]) -> Result<Self, String> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<serde_json::Value>,
        }
        let set: Set = serde_json::from_slice(text).map_err(|_| "not a JWK set (RFC 7517)".to_owned())?;
        let known = set.keys.into_iter().filter_map(|key| serde_json::from_value(key).ok());
        let keys: Vec<_> = known.filter_map(|jwk| provider_key(&jwk)).collect();
        if keys.is_empty() {
            return Err("no key in it is usable (RSA, P-256, P-384 or Ed25519, for signatures)".into());
        }
        Ok(Self(keys))
    }

    /// The key of this id. A token without one is taken only while there is a single key.
    pub(super) fn find(&self, id: Option<&str>) -> Option<&ProviderKey> {
        match (id, &self.0[..]) {
            (Some(id), keys) => keys.iter().find(|key| key.id.as_deref() == Some(id)),
            (None, [only]) => Some(only),
            (None, _) => None,
        }
    }
}

fn provider_key(jwk: &Jwk) -> Option<ProviderKey> {
    if jwk.common.public_key_use.as_ref().is_some_and(|use_| *use_ != PublicKeyUse::Signature) {
        return None;
    }
    let named = jwk.common.key_algorithm;
    let algorithm = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => match named {
            None | Some(KeyAlgorithm::RS256) => Algorithm::RS256,
            Some(KeyAlgorithm::RS384) => Algorithm::RS384,
            Some(KeyAlgorithm::RS512) => Algorithm::RS512,
            Some(KeyAlgorithm::PS256) => Algorithm::PS256,
            Some(KeyAlgorithm::PS384) => Algorithm::PS384,
            Some(KeyAlgorithm::PS512) => Algorithm::PS512,
            Some(_) => return None,
        },
        AlgorithmParameters::EllipticCurve(key) => match (&key.curve, named) {
            (EllipticCurve::P256, None | Some(KeyAlgorithm::ES256)) => Algorithm::ES256,
            (EllipticCurve::P384, None | Some(KeyAlgorithm::ES384)) => Algorithm::ES384,
            _ => return None,
        },
        AlgorithmParameters::OctetKeyPair(key) => match (&key.curve, named) {
            (EllipticCurve::Ed25519, None | Some(KeyAlgorithm::EdDSA)) => Algorithm::EdDSA,
            _ => return None,
        },
        // The library's own, open list; symmetric keys among it.
        _ => return None,
    };
    let key = DecodingKey::from_jwk(jwk).ok()?;
    Some(ProviderKey { id: jwk.common.key_id.clone(), algorithm, key })
}

/// Where the keys come from.
pub(super) enum SetSource {
    File(Watched<KeySet>),
    Url(Box<Fetched>),
}

impl SetSource {
    /// The file must be there. A provider that does not answer yet does not keep this program from
    /// starting: until it does, no token is taken.
    pub(super) fn open(config: &JwtConfig) -> Result<Self, String> {
        if let Some(path) = &config.jwks_file {
            return Watched::open(vec![path.clone()], load).map(Self::File);
        }
        let url = config.jwks_url.clone().ok_or("neither jwks_file nor jwks_url is set")?;
        Ok(Self::Url(Box::new(Fetched {
            agent: agent(config.jwks_ca_file.as_deref())?,
            url,
            every: config.jwks_refresh,
            keys: ArcSwap::from_pointee(KeySet(Vec::new())),
            next: Mutex::new(Instant::now()),
        })))
    }

    pub(super) fn current(&self) -> Arc<KeySet> {
        match self {
            Self::File(file) => file.current(),
            Self::Url(fetched) => fetched.keys.load_full(),
        }
    }

    pub(super) fn refresh(&self, forced: bool) -> Option<Result<String, String>> {
        match self {
            Self::File(file) => file.refresh(forced, load, "keys of the identity provider"),
            Self::Url(_) => None,
        }
    }

    pub(super) fn fetch(&self, forced: bool) -> Option<Result<String, String>> {
        match self {
            Self::File(_) => None,
            Self::Url(fetched) => fetched.refresh(forced),
        }
    }
}

fn load(path: &Path) -> Result<KeySet, String> {
    let text = std::fs::read(path).map_err(|error| format!("{}: {error}", path.display()))?;
    KeySet::parse(&text).map_err(|why| format!("{}: {why}", path.display()))
}

/// Keys behind an address.
pub(super) struct Fetched {
    agent: ureq::Agent,
    url: String,
    every: Duration,
    keys: ArcSwap<KeySet>,
    next: Mutex<Instant>,
}

impl Fetched {
    fn refresh(&self, forced: bool) -> Option<Result<String, String>> {
        let mut next = self.next.lock();
        if !forced && Instant::now() < *next {
            return None;
        }
        let fetched = self.fetch();
        *next = Instant::now() + if fetched.is_ok() { self.every } else { RETRY };
        match fetched {
            Ok(keys) => {
                let first = self.keys.load().0.is_empty();
                self.keys.store(Arc::new(keys));
                first.then(|| Ok("keys of the identity provider".into()))
            }
            Err(why) => Some(Err(format!("keys of the identity provider: {}: {why}", self.url))),
        }
    }

    fn fetch(&self) -> Result<KeySet, String> {
        let mut answer = self.agent.get(&self.url).call().map_err(|error| error.to_string())?;
        let body = answer.body_mut().with_config().limit(MAX_BYTES).read_to_vec().map_err(|error| error.to_string())?;
        KeySet::parse(&body)
    }
}

fn agent(ca_file: Option<&Path>) -> Result<ureq::Agent, String> {
    use ureq::tls::{RootCerts, TlsConfig};
    let roots = match ca_file {
        Some(path) => certificates(path)?,
        None => system_roots(),
    };
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let tls =
        TlsConfig::builder().unversioned_rustls_crypto_provider(provider).root_certs(RootCerts::new_with_certs(&roots));
    let config = ureq::Agent::config_builder()
        .tls_config(tls.build())
        .https_only(true)
        .max_redirects(0)
        .timeout_global(Some(FETCH_TIME))
        .build();
    Ok(config.into())
}

fn certificates(path: &Path) -> Result<Vec<ureq::tls::Certificate<'static>>, String> {
    let unusable = |why: String| format!("jwks_ca_file {}: {why}", path.display());
    let pem = std::fs::read(path).map_err(|error| unusable(error.to_string()))?;
    let found: Result<Vec<_>, _> = rustls::pki_types::pem::PemObject::pem_slice_iter(&pem).collect();
    let found: Vec<rustls::pki_types::CertificateDer<'static>> = found.map_err(|error| unusable(error.to_string()))?;
    if found.is_empty() {
        return Err(unusable("no certificate in it".into()));
    }
    Ok(found.iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect())
}

/// Those that cannot be read are left out: what they would vouch for is then refused.
fn system_roots() -> Vec<ureq::tls::Certificate<'static>> {
    let found = rustls_native_certs::load_native_certs();
    found.certs.iter().map(|der| ureq::tls::Certificate::from_der(der).to_owned()).collect()
}
