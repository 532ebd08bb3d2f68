//! Our algorithms in PKCS#11's words.

use cryptoki::mechanism::{
    Mechanism, MechanismType,
    eddsa::{EddsaParams, EddsaSignatureScheme},
};
use der::Encode;

use crate::key::Algorithm;

/// The mechanism that signs.
pub(super) fn signing(algorithm: Algorithm) -> Mechanism<'static> {
    match algorithm {
        Algorithm::P256 | Algorithm::Secp256k1 => Mechanism::Ecdsa,
        Algorithm::Ed25519 => Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519)),
    }
}

/// The mechanism that generates key pairs.
pub(super) fn generation(algorithm: Algorithm) -> Mechanism<'static> {
    match algorithm {
        Algorithm::P256 | Algorithm::Secp256k1 => Mechanism::EccKeyPairGen,
        Algorithm::Ed25519 => Mechanism::EccEdwardsKeyPairGen,
    }
}

/// CKA_ALLOWED_MECHANISMS of our keys: one.
pub(super) fn allowed(algorithm: Algorithm) -> MechanismType {
    match algorithm {
        Algorithm::P256 | Algorithm::Secp256k1 => MechanismType::ECDSA,
        Algorithm::Ed25519 => MechanismType::EDDSA,
    }
}

/// CKA_EC_PARAMS: the curve's OID in DER (PKCS#11 v3.1 §6.3.3).
pub(super) fn ec_params(algorithm: Algorithm) -> Vec<u8> {
    algorithm.curve_oid().to_der().expect("a constant OID has an encoding")
}
