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
    TbsCertificate,
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
pub(super) struct CertificateParts {
    pub der: Vec<u8>,
    pub name: Vec<u8>,
    pub serial: Vec<u8>,
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
    Ok(CertificateParts {
        der: certificate.to_der().map_err(unbuildable)?,
        name: name.to_der().map_err(unbuildable)?,
        serial: serial.to_der().map_err(unbuildable)?,
    })
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
