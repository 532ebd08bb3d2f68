//! The attestation document, fields in schema order.

use serde::{Deserialize, Serialize, Serializer};

use crate::{
    attestation::{
        AttestationType, Inclusion, ProofPurpose, ProofType, Score, Text, VerificationProof, canonical,
        request::attestation_id,
        strict::{self, Metadata},
    },
    nonce_value::NonceValue,
    timestamp::Timestamp,
};

/// Who attests: this signer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an issuer object")]
pub struct Issuer {
    pub id: Text<256>,
    pub key_fingerprint: Text<64>,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub key_id: Text<128>,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub validator_address: Text<128>,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub service_endpoint: Text<256>,
}

/// Whose identity was verified.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a subject object")]
pub struct Subject {
    pub id: Text<256>,
    pub account_address: Text<128>,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub scope_id: Text<128>,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub request_id: Text<128>,
}

/// The attestation without its proof: the thing that is signed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, expecting = "an attestation object")]
pub struct Statement {
    pub id: Text<128>,
    pub schema_version: Text<16>,
    #[serde(rename = "type", deserialize_with = "strict::word")]
    pub kind: AttestationType,
    #[serde(deserialize_with = "strict::object")]
    pub issuer: Issuer,
    #[serde(deserialize_with = "strict::object")]
    pub subject: Subject,
    pub nonce: NonceValue,
    #[serde(serialize_with = "in_utc")]
    pub issued_at: Timestamp,
    #[serde(serialize_with = "in_utc")]
    pub expires_at: Timestamp,
    /// `None` is written `null`, an empty list `[]`: the two are different bytes to the chain.
    #[serde(default, deserialize_with = "strict::bounded_list::<_, _, 64>")]
    pub verification_proofs: Option<Vec<VerificationProof>>,
    pub score: Score,
    pub confidence: Score,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub model_version: Text<128>,
    #[serde(default, skip_serializing_if = "Metadata::is_empty", deserialize_with = "strict::metadata")]
    pub metadata: Metadata,
}

impl Statement {
    /// Names another issuer, and the id that follows from it.
    pub fn issue(&mut self, issuer: Issuer) {
        let id = attestation_id(issuer.key_fingerprint.as_str(), &self.nonce);
        self.id = Text::new(id).expect("a fixed prefix and 33 characters");
        self.issuer = issuer;
    }

    /// The bytes that are signed.
    #[must_use]
    pub fn canonical_bytes(&self) -> Vec<u8> {
        canonical::encode(self)
    }
}

/// The signature over a [`Statement`] and how to check it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a proof object")]
pub struct Proof {
    #[serde(rename = "type", deserialize_with = "strict::word")]
    pub kind: ProofType,
    #[serde(serialize_with = "in_utc")]
    pub created: Timestamp,
    pub verification_method: Text<512>,
    #[serde(deserialize_with = "strict::word")]
    pub proof_purpose: ProofPurpose,
    /// Standard base64 of the signature.
    pub proof_value: Text<128>,
    pub nonce: NonceValue,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub domain: Text<256>,
    #[serde(default, skip_serializing_if = "Text::is_empty")]
    pub challenge: Text<256>,
    /// With the types that begin with Merkle, and only with them.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "strict::some_object")]
    #[schema(nullable = false)]
    pub merkle: Option<Inclusion>,
}

/// A complete attestation as a caller sends it to be verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attestation {
    pub statement: Statement,
    pub proof: Proof,
}

impl Attestation {
    /// The whole object as JSON.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        self.proof.complete(self.statement.canonical_bytes())
    }
}

impl Proof {
    /// The whole object as JSON: the canonical bytes with `proof` added as the last field.
    #[must_use]
    pub fn complete(&self, canonical: Vec<u8>) -> Vec<u8> {
        let mut json = canonical;
        json.pop().expect("an object ends with a brace");
        json.extend_from_slice(b",\"proof\":");
        json.extend_from_slice(&canonical::encode(self));
        json.push(b'}');
        json
    }
}

/// The same fields in one flat struct: `#[serde(flatten)]` would let unknown fields pass.
#[derive(Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an attestation object")]
#[schema(as = Attestation)]
pub struct Flat {
    id: Text<128>,
    schema_version: Text<16>,
    #[serde(rename = "type", deserialize_with = "strict::word")]
    kind: AttestationType,
    #[serde(deserialize_with = "strict::object")]
    issuer: Issuer,
    #[serde(deserialize_with = "strict::object")]
    subject: Subject,
    nonce: NonceValue,
    issued_at: Timestamp,
    expires_at: Timestamp,
    #[serde(default, deserialize_with = "strict::bounded_list::<_, _, 64>")]
    #[schema(max_items = 64)]
    verification_proofs: Option<Vec<VerificationProof>>,
    score: Score,
    confidence: Score,
    #[serde(default)]
    model_version: Text<128>,
    #[serde(default, deserialize_with = "strict::metadata")]
    #[schema(schema_with = crate::schema::metadata)]
    metadata: Metadata,
    #[serde(deserialize_with = "strict::object")]
    proof: Proof,
}

impl<'de> Deserialize<'de> for Attestation {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let flat = Flat::deserialize(deserializer)?;
        Ok(Self {
            statement: Statement {
                id: flat.id,
                schema_version: flat.schema_version,
                kind: flat.kind,
                issuer: flat.issuer,
                subject: flat.subject,
                nonce: flat.nonce,
                issued_at: flat.issued_at,
                expires_at: flat.expires_at,
                verification_proofs: flat.verification_proofs,
                score: flat.score,
                confidence: flat.confidence,
                model_version: flat.model_version,
                metadata: flat.metadata,
            },
            proof: flat.proof,
        })
    }
}

fn in_utc<S: Serializer>(time: &Timestamp, serializer: S) -> Result<S::Ok, S::Error> {
    time.to_utc().serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    const DOCUMENT: &str = r#"{"id":"veid:attestation:9f86d081884c7d65:0011223344556677","schema_version":"1.0.0","type":"email_verification","issuer":{"id":"did:virtengine:signer:9f86d081884c7d65","key_fingerprint":"9f86"},"subject":{"id":"did:virtengine:a","account_address":"a"},"nonce":"00112233445566778899aabbccddeeff","issued_at":"2026-11-23T10:00:00Z","expires_at":"2026-11-24T10:00:00Z","verification_proofs":null,"score":1,"confidence":2,"proof":{"type":"Ed25519Signature2020","created":"2026-11-23T10:00:00Z","verification_method":"m","proof_purpose":"assertionMethod","proof_value":"AA==","nonce":"00112233445566778899aabbccddeeff"}}"#;

    #[test]
    fn a_document_is_written_as_it_was_read() {
        let attestation: Attestation = serde_json::from_str(DOCUMENT).unwrap();
        assert_eq!(String::from_utf8(attestation.to_json()).unwrap(), DOCUMENT);
    }

    #[test]
    fn null_and_empty_proof_lists_are_different_bytes() {
        let mut attestation: Attestation = serde_json::from_str(DOCUMENT).unwrap();
        let null = attestation.statement.canonical_bytes();
        attestation.statement.verification_proofs = Some(Vec::new());
        let empty = attestation.statement.canonical_bytes();
        assert_ne!(null, empty);
        assert!(String::from_utf8(empty).unwrap().contains("\"verification_proofs\":[]"));
    }

    #[test]
    fn unknown_and_repeated_fields_are_refused() {
        for (from, to) in [
            ("\"score\":1", "\"score\":1,\"score\":2"),
            ("\"score\":1", "\"score\":1,\"extra\":2"),
            ("\"score\":1", "\"score\":1,\"metadata\":{\"a\":\"1\",\"a\":\"2\"}"),
            ("\"proof_value\":\"AA==\"", "\"proof_value\":\"AA==\",\"x\":1"),
        ] {
            assert!(serde_json::from_str::<Attestation>(&DOCUMENT.replace(from, to)).is_err(), "{to}");
        }
    }
}
