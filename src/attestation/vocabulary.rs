//! The closed word lists and small values of the schema.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, de};

use crate::{attestation::Text, timestamp::Timestamp};

/// What was verified. The text form is the wire form and the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum AttestationType {
    FacialVerification,
    LivenessCheck,
    DocumentVerification,
    EmailVerification,
    SmsVerification,
    DomainVerification,
    SsoVerification,
    SocialMediaVerification,
    BiometricVerification,
    BiometricHardwareAttestation,
    DeviceIntegrityAttestation,
    CompositeIdentity,
}

impl AttestationType {
    /// Every type, in the order of the schema.
    pub const ALL: [Self; 12] = [
        Self::FacialVerification,
        Self::LivenessCheck,
        Self::DocumentVerification,
        Self::EmailVerification,
        Self::SmsVerification,
        Self::DomainVerification,
        Self::SsoVerification,
        Self::SocialMediaVerification,
        Self::BiometricVerification,
        Self::BiometricHardwareAttestation,
        Self::DeviceIntegrityAttestation,
        Self::CompositeIdentity,
    ];

    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FacialVerification => "facial_verification",
            Self::LivenessCheck => "liveness_check",
            Self::DocumentVerification => "document_verification",
            Self::EmailVerification => "email_verification",
            Self::SmsVerification => "sms_verification",
            Self::DomainVerification => "domain_verification",
            Self::SsoVerification => "sso_verification",
            Self::SocialMediaVerification => "social_media_verification",
            Self::BiometricVerification => "biometric_verification",
            Self::BiometricHardwareAttestation => "biometric_hardware_attestation",
            Self::DeviceIntegrityAttestation => "device_integrity_attestation",
            Self::CompositeIdentity => "composite_identity",
        }
    }
}

/// `proof.type`: names the algorithm, and whether the signature is over the attestation itself or over
/// the root of a Merkle tree in which it is a leaf: a verifier that does not know trees refuses the name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum ProofType {
    EcdsaSecp256r1Signature2019,
    Ed25519Signature2020,
    EcdsaSecp256k1Signature2019,
    MerkleEcdsaSecp256r1Signature2019,
    MerkleEd25519Signature2020,
    MerkleEcdsaSecp256k1Signature2019,
}

/// `proof.proof_purpose`: attestations are assertions, nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub enum ProofPurpose {
    #[serde(rename = "assertionMethod")]
    AssertionMethod,
}

/// An integer from 0 to 100.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Score(u8);

impl Score {
    /// `value`, if it is a score.
    #[must_use]
    pub fn new(value: u64) -> Option<Self> {
        u8::try_from(value).ok().filter(|v| *v <= 100).map(Self)
    }

    /// True for 0, which the schema leaves out where the field is optional.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.0 == 0
    }
}

impl<'de> Deserialize<'de> for Score {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Percent;
        impl de::Visitor<'_> for Percent {
            type Value = Score;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an integer from 0 to 100")
            }
            fn visit_u64<E: de::Error>(self, value: u64) -> Result<Score, E> {
                Score::new(value).ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(value), &self))
            }
            fn visit_i64<E: de::Error>(self, value: i64) -> Result<Score, E> {
                match u64::try_from(value) {
                    Ok(value) => self.visit_u64(value),
                    Err(_) => Err(E::invalid_value(de::Unexpected::Signed(value), &self)),
                }
            }
        }
        // Not `deserialize_u8`: that would accept 1.0 from no JSON either, but name a Rust type in its message.
        deserializer.deserialize_any(Percent)
    }
}

/// One check behind the attestation. Its timestamp keeps the zone it came in.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a verification proof object")]
pub struct VerificationProof {
    pub proof_type: Text<64>,
    pub content_hash: Text<256>,
    pub score: Score,
    pub passed: bool,
    #[serde(default, skip_serializing_if = "Score::is_zero")]
    pub threshold: Score,
    pub timestamp: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_form_of_a_type_is_its_label() {
        for kind in AttestationType::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("\"{}\"", kind.as_str()));
        }
    }

    #[test]
    fn scores_are_integers_from_0_to_100() {
        for (json, ok) in [
            ("0", true),
            ("100", true),
            ("101", false),
            ("-1", false),
            ("1.5", false),
            ("\"5\"", false),
            ("1e400", false),
            ("null", false),
        ] {
            assert_eq!(serde_json::from_str::<Score>(json).is_ok(), ok, "{json}");
        }
    }
}
