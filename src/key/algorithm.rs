//! The signature algorithms of the product. Which of them a token offers is found out at start.

use std::{borrow::Cow, fmt};

use const_oid::ObjectIdentifier;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::attestation::ProofType;

/// A signature algorithm, named as in SP 800-186 and RFC 8032.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
pub enum Algorithm {
    /// ECDSA over NIST P-256 with SHA-256.
    #[serde(rename = "P-256")]
    P256,
    /// EdDSA over edwards25519 (RFC 8032, pure).
    Ed25519,
    /// ECDSA over secp256k1 with SHA-256.
    #[serde(rename = "secp256k1")]
    Secp256k1,
}

impl Algorithm {
    /// Every algorithm, the default first.
    pub const ALL: [Self; 3] = [Self::P256, Self::Ed25519, Self::Secp256k1];

    /// The name on the wire, in labels and in the ledger.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::P256 => "P-256",
            Self::Ed25519 => "Ed25519",
            Self::Secp256k1 => "secp256k1",
        }
    }

    /// `proof.type` of attestations signed with this algorithm.
    #[must_use]
    pub fn proof_type(self) -> ProofType {
        match self {
            Self::P256 => ProofType::EcdsaSecp256r1Signature2019,
            Self::Ed25519 => ProofType::Ed25519Signature2020,
            Self::Secp256k1 => ProofType::EcdsaSecp256k1Signature2019,
        }
    }

    /// `proof.type` of attestations whose Merkle root was signed with this algorithm.
    #[must_use]
    pub fn merkle_proof_type(self) -> ProofType {
        match self {
            Self::P256 => ProofType::MerkleEcdsaSecp256r1Signature2019,
            Self::Ed25519 => ProofType::MerkleEd25519Signature2020,
            Self::Secp256k1 => ProofType::MerkleEcdsaSecp256k1Signature2019,
        }
    }

    /// The object identifier that names this algorithm's curve in the ledger and on the token.
    #[must_use]
    pub fn curve_oid(self) -> ObjectIdentifier {
        match self {
            Self::P256 => const_oid::db::rfc5912::SECP_256_R_1,
            Self::Ed25519 => const_oid::db::rfc8410::ID_ED_25519,
            Self::Secp256k1 => ObjectIdentifier::new_unwrap("1.3.132.0.10"),
        }
    }

    /// The algorithm of a curve, if it is one of ours.
    #[must_use]
    pub fn from_curve_oid(oid: ObjectIdentifier) -> Option<Self> {
        Self::ALL.into_iter().find(|algorithm| algorithm.curve_oid() == oid)
    }

    /// What the token is asked to sign for `message`: its SHA-256 for ECDSA (CKM_ECDSA signs what
    /// it is given), the message itself for Ed25519.
    #[must_use]
    pub fn token_input(self, message: &[u8]) -> Cow<'_, [u8]> {
        match self {
            Self::P256 | Self::Secp256k1 => Cow::Owned(Sha256::digest(message).to_vec()),
            Self::Ed25519 => Cow::Borrowed(message),
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
