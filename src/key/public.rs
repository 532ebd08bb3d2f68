//! Public keys and signatures: parsing what tokens return, fingerprints, verification.

use p256::{
    ecdsa::signature::hazmat::PrehashVerifier,
    pkcs8::{DecodePublicKey, EncodePublicKey, LineEnding},
};
use ring::signature::{ECDSA_P256_SHA256_FIXED, UnparsedPublicKey};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};
use sha2::{Digest, Sha256};
use spki::SubjectPublicKeyInfoRef;

use crate::key::Algorithm;

/// A public key of one of our algorithms.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PublicKey {
    P256(p256::ecdsa::VerifyingKey),
    Ed25519(ed25519_dalek::VerifyingKey),
    Secp256k1(k256::ecdsa::VerifyingKey),
}

/// A signature in the form of the wire: r‖s with low S for ECDSA, RFC 8032 for Ed25519; 64 bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Signature([u8; 64]);

/// The bytes are not a public key of the algorithm.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a public key of the expected algorithm")]
pub struct InvalidPublicKey;

/// The signature does not verify, or is not in the one form this product makes (low S, 64 bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the signature does not verify")]
pub struct BadSignature;

impl Signature {
    /// 64 bytes as a signature; whether it verifies is the key's to say.
    #[must_use]
    pub fn from_slice(bytes: &[u8]) -> Option<Self> {
        bytes.try_into().ok().map(Self)
    }

    /// The 64 bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }

    /// SHA-256 of the signature, under which the audit trail knows it.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        Sha256::digest(self.0).into()
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_spki_der().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_spki_der(&Vec::<u8>::deserialize(deserializer)?).map_err(de::Error::custom)
    }
}

impl PublicKey {
    /// Reads CKA_EC_POINT as tokens give it: raw, or wrapped in a DER OCTET STRING. The length
    /// decides, not the first byte: a raw Ed25519 point may begin with 04 as well.
    pub fn from_ec_point(algorithm: Algorithm, point: &[u8]) -> Result<Self, InvalidPublicKey> {
        let raw = match (algorithm, point) {
            (Algorithm::P256 | Algorithm::Secp256k1, [0x04, 65, raw @ ..]) if raw.len() == 65 => raw,
            (Algorithm::Ed25519, [0x04, 32, raw @ ..]) if raw.len() == 32 => raw,
            _ => point,
        };
        match algorithm {
            Algorithm::P256 => {
                p256::ecdsa::VerifyingKey::from_sec1_bytes(raw).map(Self::P256).map_err(|_| InvalidPublicKey)
            }
            Algorithm::Secp256k1 => {
                k256::ecdsa::VerifyingKey::from_sec1_bytes(raw).map(Self::Secp256k1).map_err(|_| InvalidPublicKey)
            }
            Algorithm::Ed25519 => {
                let raw = raw.try_into().map_err(|_| InvalidPublicKey)?;
                ed25519_dalek::VerifyingKey::from_bytes(raw)
                    .ok()
                    .filter(|key| !key.is_weak())
                    .map(Self::Ed25519)
                    .ok_or(InvalidPublicKey)
            }
        }
    }

    /// Reads a DER SubjectPublicKeyInfo (RFC 5280 §4.1.2.7).
    pub fn from_spki_der(spki: &[u8]) -> Result<Self, InvalidPublicKey> {
        let info = SubjectPublicKeyInfoRef::try_from(spki).map_err(|_| InvalidPublicKey)?;
        let ec_curve = || info.algorithm.parameters_oid().map_err(|_| InvalidPublicKey);
        let algorithm = if info.algorithm.oid == const_oid::db::rfc8410::ID_ED_25519 {
            Algorithm::Ed25519
        } else {
            Algorithm::from_curve_oid(ec_curve()?).ok_or(InvalidPublicKey)?
        };
        match algorithm {
            Algorithm::P256 => {
                p256::ecdsa::VerifyingKey::from_public_key_der(spki).map(Self::P256).map_err(|_| InvalidPublicKey)
            }
            Algorithm::Secp256k1 => {
                k256::ecdsa::VerifyingKey::from_public_key_der(spki).map(Self::Secp256k1).map_err(|_| InvalidPublicKey)
            }
            Algorithm::Ed25519 => {
                let raw = info.subject_public_key.as_bytes().ok_or(InvalidPublicKey)?;
                Self::from_ec_point(Algorithm::Ed25519, raw)
            }
        }
    }

    /// The algorithm this key is for.
    #[must_use]
    pub fn algorithm(&self) -> Algorithm {
        match self {
            Self::P256(_) => Algorithm::P256,
            Self::Ed25519(_) => Algorithm::Ed25519,
            Self::Secp256k1(_) => Algorithm::Secp256k1,
        }
    }

    /// DER SubjectPublicKeyInfo.
    #[must_use]
    pub fn to_spki_der(&self) -> Vec<u8> {
        const ENCODES: &str = "a parsed public key has an encoding";
        match self {
            Self::P256(key) => key.to_public_key_der().expect(ENCODES).into_vec(),
            Self::Secp256k1(key) => key.to_public_key_der().expect(ENCODES).into_vec(),
            Self::Ed25519(key) => key.to_public_key_der().expect(ENCODES).into_vec(),
        }
    }

    /// PEM SubjectPublicKeyInfo, as openssl reads it.
    #[must_use]
    pub fn to_pem(&self) -> String {
        const ENCODES: &str = "a parsed public key has an encoding";
        match self {
            Self::P256(key) => key.to_public_key_pem(LineEnding::LF).expect(ENCODES),
            Self::Secp256k1(key) => key.to_public_key_pem(LineEnding::LF).expect(ENCODES),
            Self::Ed25519(key) => key.to_public_key_pem(LineEnding::LF).expect(ENCODES),
        }
    }

    /// The keys in a text of PEM blocks; `None` when one of them is not a key of ours, or there is none.
    #[must_use]
    pub fn all_from_pem(text: &str) -> Option<Vec<Self>> {
        const BEGIN: &str = "-----BEGIN PUBLIC KEY-----";
        let blocks = text.split(BEGIN).skip(1).map(|rest| format!("{BEGIN}{}", rest.trim_end()));
        let parse = |block: String| {
            let (_, der) = der::pem::decode_vec(format!("{block}\n").as_bytes()).ok()?;
            Self::from_spki_der(&der).ok()
        };
        let keys: Option<Vec<_>> = blocks.map(parse).collect();
        keys.filter(|keys| !keys.is_empty())
    }

    /// The raw key: 32 bytes for Ed25519, compressed SEC1 for the EC curves.
    #[must_use]
    pub fn to_raw_bytes(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.to_sec1_point(true).as_bytes().to_vec(),
            Self::Secp256k1(key) => key.to_sec1_point(true).as_bytes().to_vec(),
            Self::Ed25519(key) => key.as_bytes().to_vec(),
        }
    }

    /// Affine coordinates for a JWK (RFC 7518 §6.2, RFC 8037 §2): x, and y for the EC curves.
    #[must_use]
    pub fn coordinates(&self) -> (Vec<u8>, Option<Vec<u8>>) {
        let split = |uncompressed: &[u8]| (uncompressed[1..33].to_vec(), Some(uncompressed[33..].to_vec()));
        match self {
            Self::P256(key) => split(key.to_sec1_point(false).as_bytes()),
            Self::Secp256k1(key) => split(key.to_sec1_point(false).as_bytes()),
            Self::Ed25519(key) => (key.as_bytes().to_vec(), None),
        }
    }

    /// SHA-256 of the raw key in hex: the key's fingerprint in issuer ids and attestations.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        hex::encode(Sha256::digest(self.to_raw_bytes()))
    }

    /// Brings what C_Sign returned into wire form: tokens give a high S half of the time, and
    /// strict verifiers (and the chain) refuse it.
    pub fn normalize(&self, raw: &[u8]) -> Result<Signature, BadSignature> {
        let bytes: Vec<u8> = match self {
            Self::P256(_) => p256::ecdsa::Signature::from_slice(raw).map_err(|_| BadSignature)?.normalize_s().to_vec(),
            Self::Secp256k1(_) => {
                k256::ecdsa::Signature::from_slice(raw).map_err(|_| BadSignature)?.normalize_s().to_vec()
            }
            Self::Ed25519(_) => raw.to_vec(),
        };
        Signature::from_slice(&bytes).ok_or(BadSignature)
    }

    /// Verifies `signature` over `message`. A high S is refused: the same statement would
    /// otherwise have two signatures.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> Result<(), BadSignature> {
        match self {
            Self::P256(key) => {
                let parsed = p256::ecdsa::Signature::from_slice(&signature.0).map_err(|_| BadSignature)?;
                let low_s = parsed.normalize_s() == parsed;
                // ring takes a third of the time, and every signature is checked before it leaves.
                let point = key.to_sec1_point(false);
                let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point.as_bytes());
                let verified = key.verify(message, &signature.0).is_ok();
                if low_s && verified { Ok(()) } else { Err(BadSignature) }
            }
            Self::Secp256k1(key) => {
                let parsed = k256::ecdsa::Signature::from_slice(&signature.0).map_err(|_| BadSignature)?;
                let low_s = parsed.normalize_s() == parsed;
                let verified = key.verify_prehash(&Sha256::digest(message), &parsed).is_ok();
                if low_s && verified { Ok(()) } else { Err(BadSignature) }
            }
            Self::Ed25519(key) => key
                .verify_strict(message, &ed25519_dalek::Signature::from_bytes(&signature.0))
                .map_err(|_| BadSignature),
        }
    }
}

/// OID of the X.509 signature algorithm for certificates signed with this kind of key.
#[must_use]
pub fn certificate_signature_oid(algorithm: Algorithm) -> const_oid::ObjectIdentifier {
    match algorithm {
        Algorithm::P256 | Algorithm::Secp256k1 => const_oid::db::rfc5912::ECDSA_WITH_SHA_256,
        Algorithm::Ed25519 => const_oid::db::rfc8410::ID_ED_25519,
    }
}
