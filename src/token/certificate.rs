//! The self-signed X.509 certificate that stands beside every key, so that tools that know only
//! certificates can name and check it. Signed by the token, like everything else.

use std::str::FromStr;

use der::{Document, Encode, asn1::BitString};
use p256::ecdsa::signature::Keypair;
use spki::{
    AlgorithmIdentifierOwned, DynSignatureAlgorithmIdentifier, EncodePublicKey, SubjectPublicKeyInfoOwned,
    SubjectPublicKeyInfoRef,
};
use x509_cert::{
    Certificate, TbsCertificate,
    builder::{Builder, CertificateBuilder, profile::BuilderProfile},
    ext::{
        Extension, ToExtension,
        pkix::{BasicConstraints, KeyUsage, KeyUsages, SubjectKeyIdentifier},
    },
    name::Name,
    request::RequestBuilder,
    serial_number::SerialNumber,
    time::{Time, Validity},
};

use super::{CallError, Error};
use crate::{
    key::{Algorithm, PublicKey, Signature, public::certificate_signature_oid, record::to_generalized_time},
    timestamp::Timestamp,
};

/// What a certificate is to say.
pub(super) struct CertificateRequest<'a> {
    pub common_name: &'a str,
    pub public_key: &'a PublicKey,
    pub validity: (Timestamp, Timestamp),
    /// Positive, at most 20 octets (RFC 5280 §4.1.2.2).
    pub serial: [u8; 16],
}

/// A certificate with the parts that PKCS#11 wants as attributes.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub(super) struct CertificateParts {
    pub der: Vec<u8>,
    pub subject: Vec<u8>,
    pub issuer: Vec<u8>,
    pub serial: Vec<u8>,
}

impl CertificateParts {
    fn of(certificate: &Certificate) -> der::Result<Self> {
        let tbs = certificate.tbs_certificate();
        Ok(Self {
            der: certificate.to_der()?,
            subject: tbs.subject().to_der()?,
            issuer: tbs.issuer().to_der()?,
            serial: tbs.serial_number().to_der()?,
        })
    }
}

/// Why a chain is not one for the key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidChain {
    #[error("expected one to ten PEM certificates, the key's own first")]
    Unreadable,
    #[error("the first certificate is not for this key")]
    OtherKey,
    #[error("each certificate must be issued by the one after it")]
    Unlinked,
}

/// Reads a chain from PEM and checks that it is this key's. Whether to trust its last issuer is the
/// verifier's to decide; signatures of CAs are not checked here.
pub(super) fn parse_chain(pem: &[u8], public_key: &PublicKey) -> Result<Vec<CertificateParts>, InvalidChain> {
    let chain = Certificate::load_pem_chain(pem).map_err(|_| InvalidChain::Unreadable)?;
    if chain.is_empty() || chain.len() > 10 {
        return Err(InvalidChain::Unreadable);
    }
    let spki = chain[0].tbs_certificate().subject_public_key_info().to_der().map_err(|_| InvalidChain::Unreadable)?;
    if PublicKey::from_spki_der(&spki).as_ref() != Ok(public_key) {
        return Err(InvalidChain::OtherKey);
    }
    let linked = chain.windows(2).all(|pair| pair[0].tbs_certificate().issuer() == pair[1].tbs_certificate().subject());
    if !linked {
        return Err(InvalidChain::Unlinked);
    }
    chain.iter().map(CertificateParts::of).collect::<Result<_, _>>().map_err(|_| InvalidChain::Unreadable)
}

/// What stands between a key's label and the time and place of a chain's certificate.
const CHAIN: &str = " chain ";

/// The label of a chain's certificate: when the chain was stored, and its place, the key's own 0.
pub(super) fn chain_label(key_label: &str, at: i64, index: usize) -> String {
    format!("{key_label}{CHAIN}{at:012}.{index}")
}

/// True for labels that [`chain_label`] makes.
pub(super) fn is_chain_label(label: &str) -> bool {
    label.contains(CHAIN)
}

/// Picks, of all certificates stored for a key, the newest chain that has its first certificate.
pub(super) fn newest_chain(stored: Vec<(String, Vec<u8>)>) -> Vec<Vec<u8>> {
    let place = |label: &str| {
        label
            .rsplit_once(CHAIN)
            .and_then(|(_, place)| place.split_once('.'))
            .map(|(at, index)| (at.to_owned(), index.to_owned()))
    };
    let newest =
        stored.iter().filter_map(|(label, _)| place(label)).filter(|(_, index)| index == "0").map(|(at, _)| at).max();
    let mut chosen: Vec<_> = stored
        .into_iter()
        .filter_map(|(label, der)| match (place(&label), &newest) {
            (Some((at, index)), Some(newest)) if at == *newest => Some((index.parse::<usize>().ok()?, der)),
            (None, None) => Some((0, der)),
            _ => None,
        })
        .collect();
    chosen.sort_by_key(|(index, _)| *index);
    chosen.into_iter().map(|(_, der)| der).collect()
}

/// Builds the certificate; `sign` is the token.
pub(super) fn self_signed(
    request: &CertificateRequest<'_>,
    sign: impl FnOnce(&[u8]) -> Result<Signature, Error>,
) -> Result<CertificateParts, Error> {
    let name = Name::from_str(&format!("CN={}", request.common_name)).map_err(unbuildable)?;
    let mut serial = request.serial;
    // Positive and without a leading zero octet, whatever the random source gave.
    serial[0] = (serial[0] & 0x7f) | 0x40;
    let serial = SerialNumber::new(&serial).map_err(unbuildable)?;
    let validity = Validity::new(time(request.validity.0), time(request.validity.1));
    let spki = SubjectPublicKeyInfoOwned::try_from(request.public_key.to_spki_der().as_slice()).map_err(unbuildable)?;
    let signer = TokenKey(request.public_key.clone());
    let mut builder = CertificateBuilder::new(SigningKeyProfile(name.clone()), serial.clone(), validity, spki)
        .map_err(unbuildable)?;
    let to_be_signed = builder.finalize(&signer).map_err(unbuildable)?;
    let signature = encode_signature(request.public_key.algorithm(), &sign(&to_be_signed)?)?;
    let certificate = builder.assemble(signature, &signer).map_err(unbuildable)?;
    CertificateParts::of(&certificate).map_err(unbuildable)
}

/// A certificate request; `sign` is the token.
pub(super) fn request(
    common_name: &str,
    public_key: &PublicKey,
    sign: impl FnOnce(&[u8]) -> Result<Signature, Error>,
) -> Result<Vec<u8>, Error> {
    let name = Name::from_str(&format!("CN={common_name}")).map_err(unbuildable)?;
    let signer = TokenKey(public_key.clone());
    let mut builder = RequestBuilder::new(name).map_err(unbuildable)?;
    let to_be_signed = builder.finalize(&signer).map_err(unbuildable)?;
    let signature = encode_signature(public_key.algorithm(), &sign(&to_be_signed)?)?;
    builder.assemble(signature, &signer).and_then(|request| Ok(request.to_der()?)).map_err(unbuildable)
}

/// X.509 carries ECDSA signatures as a DER SEQUENCE of r and s (RFC 3279), Ed25519 as they are.
fn encode_signature(algorithm: Algorithm, signature: &Signature) -> Result<BitString, Error> {
    let bytes = match algorithm {
        Algorithm::P256 => {
            p256::ecdsa::Signature::from_slice(signature.as_bytes()).map_err(unbuildable)?.to_der().as_bytes().to_vec()
        }
        Algorithm::Secp256k1 => {
            k256::ecdsa::Signature::from_slice(signature.as_bytes()).map_err(unbuildable)?.to_der().as_bytes().to_vec()
        }
        Algorithm::Ed25519 => signature.as_bytes().to_vec(),
    };
    BitString::from_bytes(&bytes).map_err(unbuildable)
}

fn time(at: Timestamp) -> Time {
    Time::GeneralTime(to_generalized_time(at))
}

fn unbuildable(error: impl std::fmt::Display) -> Error {
    CallError::nonsense(&format!("a key for which no certificate can be built ({error})")).into()
}

/// A key that lives in the token, as the builder wants to see it: its public half and its name.
struct TokenKey(PublicKey);

#[derive(Clone)]
struct Spki(Vec<u8>);

impl EncodePublicKey for Spki {
    fn to_public_key_der(&self) -> spki::Result<Document> {
        Ok(Document::try_from(self.0.as_slice())?)
    }
}

impl Keypair for TokenKey {
    type VerifyingKey = Spki;
    fn verifying_key(&self) -> Spki {
        Spki(self.0.to_spki_der())
    }
}

impl DynSignatureAlgorithmIdentifier for TokenKey {
    fn signature_algorithm_identifier(&self) -> spki::Result<AlgorithmIdentifierOwned> {
        Ok(AlgorithmIdentifierOwned { oid: certificate_signature_oid(self.0.algorithm()), parameters: None })
    }
}

/// An end-entity certificate for signatures, and nothing else.
struct SigningKeyProfile(Name);

impl BuilderProfile for SigningKeyProfile {
    fn get_issuer(&self, subject: &Name) -> Name {
        subject.clone()
    }

    fn get_subject(&self) -> Name {
        self.0.clone()
    }

    fn build_extensions(
        &self,
        spk: SubjectPublicKeyInfoRef<'_>,
        _issuer_spk: SubjectPublicKeyInfoRef<'_>,
        tbs: &TbsCertificate,
    ) -> x509_cert::builder::Result<Vec<Extension>> {
        let subject = tbs.subject();
        // None of these looks at the extensions before it.
        let extensions = vec![
            BasicConstraints { ca: false, path_len_constraint: None }.to_extension(subject, &[])?,
            KeyUsage(KeyUsages::DigitalSignature.into()).to_extension(subject, &[])?,
            SubjectKeyIdentifier::try_from(spk)?.to_extension(subject, &[])?,
        ];
        Ok(extensions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_whole_chain_counts() {
        let one = |label: String, der: u8| (label, vec![der]);
        let own = || one("s:1 P-256".into(), 0);
        let chained = |at, index, der| one(chain_label("s:1 P-256", at, index), der);
        assert_eq!(newest_chain(vec![own()]), [vec![0]]);
        let stored = vec![chained(5, 1, 2), own(), chained(5, 0, 1), chained(9, 1, 7), chained(3, 0, 9)];
        assert_eq!(newest_chain(stored), [vec![1], vec![2]]);
        assert!(newest_chain(Vec::new()).is_empty());
    }
}
