//! TLS 1.3 and 1.2 for the API on the network; client certificates, and which of them are revoked.
//!
//! Everything here is read again when a file changes, without a restart. Sessions are not resumed: a
//! resumed session skips the check of the client's certificate, and with it a revocation.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustls::{
    DigitallySignedStruct, DistinguishedName, Error, RootCertStore, ServerConfig, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature},
    pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, UnixTime, pem::PemObject},
    server::{
        ClientHello, NoServerSessionStorage, ResolvesServerCert, WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
    version::{TLS12, TLS13},
};
use serde::Deserialize;

use super::expiry::{self, Expiry};
use crate::{authn::Watched, secret};

/// `[tls]` of the configuration file.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// Where the API listens with TLS.
    #[serde(default = "default_listen")]
    pub listen: SocketAddr,
    /// The server's certificate, its own first, and its private key (PEM).
    #[serde(default)]
    pub certificate_file: PathBuf,
    #[serde(default)]
    pub key_file: PathBuf,
    /// Certificates under which clients' certificates may stand (PEM).
    #[serde(default)]
    pub client_ca_file: Option<PathBuf>,
    /// Which of those are revoked (PEM). From every authority that issues client certificates.
    #[serde(default)]
    pub client_crl_file: Option<PathBuf>,
    /// Whether a client without a certificate is turned away in the handshake.
    #[serde(default)]
    pub require_client_certificate: bool,
}

fn default_listen() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 8443))
}

impl TlsConfig {
    /// The rules that the types do not hold.
    pub fn check(&self, authenticates: bool, open: bool) -> Result<(), String> {
        if self.certificate_file.as_os_str().is_empty() || self.key_file.as_os_str().is_empty() {
            return Err("[tls] needs certificate_file and key_file".into());
        }
        if self.client_ca_file.is_some() && !authenticates {
            return Err("tls.client_ca_file needs [auth]: a certificate says who somebody is, and nothing would say what they may do".into());
        }
        if self.client_ca_file.is_none() && (self.client_crl_file.is_some() || self.require_client_certificate) {
            return Err("tls.client_crl_file and tls.require_client_certificate need tls.client_ca_file".into());
        }
        if !self.listen.ip().is_loopback() && !authenticates && !open {
            return Err(format!(
                "tls.listen = \"{}\" is not loopback, and callers are not authenticated: whoever reaches it could have attestations \
                 signed. Say who may do what in [auth], or set http.allow_unauthenticated_network_access = true",
                self.listen
            ));
        }
        Ok(())
    }

    /// Reads the files as `serve` does: whether they are there, fit together, and are kept as they should
    /// be; and when they end.
    pub fn check_files(&self) -> Result<Vec<Expiry>, String> {
        Material::read(self).map(|material| material.expiries).map_err(|why| format!("tls: {why}"))
    }

    fn files(&self) -> Vec<PathBuf> {
        let files = [
            Some(&self.certificate_file),
            Some(&self.key_file),
            self.client_ca_file.as_ref(),
            self.client_crl_file.as_ref(),
        ];
        files.into_iter().flatten().cloned().collect()
    }
}

/// What the files say.
#[derive(Debug)]
pub(super) struct Material {
    key: Arc<CertifiedKey>,
    clients: Option<Arc<dyn ClientCertVerifier>>,
    expiries: Vec<Expiry>,
}

impl Material {
    fn read(config: &TlsConfig) -> Result<Self, String> {
        let provider = provider();
        let chain = certificates(&config.certificate_file)?;
        let mut expiries = Vec::from_iter(expiry::of_certificates("server_certificate", &chain));
        secret::check_file(&config.key_file).map_err(|error| format!("key_file: {error}"))?;
        let key = PrivateKeyDer::from_pem_file(&config.key_file)
            // The message of the parser could quote the file.
            .map_err(|_| format!("{}: no private key in PEM form can be read from it", config.key_file.display()))?;
        let key = CertifiedKey::from_der(chain, key, &provider).map_err(|error| {
            format!("{} and {}: {error}", config.certificate_file.display(), config.key_file.display())
        })?;
        let clients = config.client_ca_file.as_ref();
        let clients = clients.map(|ca| client_verifier(config, ca, &provider, &mut expiries)).transpose()?;
        Ok(Self { key: Arc::new(key), clients, expiries })
    }
}

fn client_verifier(
    config: &TlsConfig,
    ca: &Path,
    provider: &Arc<CryptoProvider>,
    expiries: &mut Vec<Expiry>,
) -> Result<Arc<dyn ClientCertVerifier>, String> {
    let mut roots = RootCertStore::empty();
    let authorities = certificates(ca)?;
    expiries.extend(expiry::of_certificates("client_ca", &authorities));
    for certificate in authorities {
        roots.add(certificate).map_err(|error| format!("{}: {error}", ca.display()))?;
    }
    let mut builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    if let Some(path) = &config.client_crl_file {
        let pem = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
        let lists: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&pem).collect();
        let lists = lists.map_err(|error| format!("{}: {error}", path.display()))?;
        if lists.is_empty() {
            return Err(format!("{}: no revocation list in it", path.display()));
        }
        expiries.extend(expiry::of_lists("client_crl", &lists));
        // A list that is overdue, or none for an issuer, says nothing of today: then nobody is let in.
        builder = builder.with_crls(lists).only_check_end_entity_revocation().enforce_revocation_expiration();
    }
    if !config.require_client_certificate {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| format!("{}: {error}", ca.display()))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let pem = std::fs::read(path).map_err(|error| format!("{} cannot be read: {error}", path.display()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&pem).collect();
    let found = found.map_err(|error| format!("{}: {error}", path.display()))?;
    if found.is_empty() {
        return Err(format!("{}: no certificate in it", path.display()));
    }
    Ok(found)
}
fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

/// The files of `[tls]`, as they were last read without a mistake.
pub(super) struct Tls {
    config: TlsConfig,
    material: Watched<Material>,
    provider: Arc<CryptoProvider>,
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tls").finish_non_exhaustive()
    }
}

impl Tls {
    pub(super) fn open(config: &TlsConfig) -> Result<Arc<Self>, String> {
        let material =
            Watched::open(config.files(), |_| Material::read(config)).map_err(|why| format!("tls: {why}"))?;
        Ok(Arc::new(Self { config: config.clone(), material, provider: provider() }))
    }

    pub(super) fn address(&self) -> SocketAddr {
        self.config.listen
    }

    /// What counts now.
    pub(super) fn current(&self) -> Arc<Material> {
        self.material.current()
    }

    /// When what counts now ends.
    pub(super) fn expiries(&self) -> Vec<Expiry> {
        self.current().expiries.clone()
    }

    /// See [`Watched::refresh`].
    pub(super) fn refresh(&self, forced: bool) -> Option<Result<String, String>> {
        self.material.refresh(forced, |_| Material::read(&self.config), "TLS certificates")
    }

    /// Whether a client's certificate would be let in now. It was when the connection began, but
    /// connections live long.
    pub(super) fn still_accepts(&self, chain: &[CertificateDer<'static>]) -> bool {
        let material = self.current();
        let (Some(clients), Some((end_entity, intermediates))) = (&material.clients, chain.split_first()) else {
            return false;
        };
        clients.verify_client_cert(end_entity, intermediates, UnixTime::now()).is_ok()
    }

    pub(super) fn server_config(self: &Arc<Self>) -> Result<ServerConfig, Error> {
        let builder = ServerConfig::builder_with_provider(Arc::clone(&self.provider))
            .with_protocol_versions(&[&TLS13, &TLS12])?;
        let builder = match &self.config.client_ca_file {
            Some(_) => builder.with_client_cert_verifier(Arc::new(Live(Arc::clone(self)))),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(Arc::new(Live(Arc::clone(self))));
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        Ok(config)
    }
}

/// Answers each handshake with what counts at that moment.
#[derive(Debug)]
struct Live(Arc<Tls>);

impl ResolvesServerCert for Live {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(Arc::clone(&self.0.current().key))
    }
}

impl ClientCertVerifier for Live {
    fn client_auth_mandatory(&self) -> bool {
        self.0.config.require_client_certificate
    }

    /// No hints: they would have to outlive the material that is replaced.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let material = self.0.current();
        let clients = material.clients.as_ref().ok_or(Error::General("no client certificates are taken".into()))?;
        clients.verify_client_cert(end_entity, intermediates, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.provider.signature_verification_algorithms.supported_schemes()
    }
}
