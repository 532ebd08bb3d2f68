//! What a producer sends to have an attestation signed: the document without what is the signer's
//! to say (`id`, `schema_version`, `issuer`, `subject.id`, `proof`).

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::{
    attestation::{
        AttestationType, Issuer, SCHEMA_VERSION, Score, Statement, Subject, Text, VerificationProof, canonical,
        strict::{self, Metadata},
    },
    nonce_value::NonceValue,
    timestamp::Timestamp,
};

/// Longest validity that can be asked for: ten years, in seconds.
pub const MAX_VALIDITY_SECONDS: u64 = 10 * 365 * 86_400;

/// The body of `POST /api/v1/attestations`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "an attestation request object")]
pub struct AttestationRequest {
    #[serde(rename = "type", deserialize_with = "strict::word")]
    pub kind: AttestationType,
    #[serde(deserialize_with = "strict::object")]
    pub subject: SubjectRequest,
    pub nonce: NonceValue,
    /// Defaults to the time of signing.
    #[serde(default)]
    pub issued_at: Option<Timestamp>,
    /// Either this or `validity_seconds`.
    #[serde(default)]
    pub expires_at: Option<Timestamp>,
    #[serde(default)]
    #[schema(minimum = 1, maximum = 315_360_000)]
    pub validity_seconds: Option<u64>,
    #[serde(default, deserialize_with = "strict::bounded_list::<_, _, 64>")]
    #[schema(max_items = 64)]
    pub verification_proofs: Option<Vec<VerificationProof>>,
    pub score: Score,
    pub confidence: Score,
    #[serde(default)]
    pub model_version: Text<128>,
    #[serde(default, deserialize_with = "strict::metadata")]
    #[schema(schema_with = crate::schema::metadata)]
    pub metadata: Metadata,
}

/// The subject as a producer names it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(deny_unknown_fields, expecting = "a subject object")]
pub struct SubjectRequest {
    pub account_address: Text<128>,
    #[serde(default)]
    pub scope_id: Text<128>,
    #[serde(default)]
    pub request_id: Text<128>,
}

/// A field whose value parses but breaks a rule of the schema.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {detail}")]
pub struct InvalidField {
    pub field: &'static str,
    pub detail: &'static str,
}

/// When an attestation begins and ends, after defaults.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period {
    pub issued_at: Timestamp,
    pub expires_at: Timestamp,
}

impl AttestationRequest {
    /// SHA-256 of the request's meaning, not its spelling: two requests are "the same content"
    /// exactly when this agrees.
    #[must_use]
    pub fn content_digest(&self) -> [u8; 32] {
        Sha256::digest(canonical::encode(self)).into()
    }

    /// Applies defaults and the rules that span fields.
    pub fn period(&self, now: Timestamp) -> Result<Period, InvalidField> {
        if !is_address(self.subject.account_address.as_str()) {
            return Err(InvalidField {
                field: "subject.account_address",
                detail: "expected 1 to 128 ASCII letters, digits, or the characters . _ : -",
            });
        }
        let issued_at = self.issued_at.unwrap_or(now).to_utc();
        let expires_at = match (self.expires_at, self.validity_seconds) {
            (Some(time), None) => time.to_utc(),
            (None, Some(seconds @ 1..=MAX_VALIDITY_SECONDS)) => {
                issued_at.plus_seconds(i64::try_from(seconds).expect("bounded by MAX_VALIDITY_SECONDS"))
            }
            (None, Some(_)) => {
                return Err(InvalidField { field: "validity_seconds", detail: "expected 1 to 315360000 seconds" });
            }
            (Some(_), Some(_)) => {
                return Err(InvalidField {
                    field: "validity_seconds",
                    detail: "send either expires_at or validity_seconds, not both",
                });
            }
            (None, None) => {
                return Err(InvalidField { field: "expires_at", detail: "send expires_at or validity_seconds" });
            }
        };
        if expires_at <= issued_at {
            return Err(InvalidField { field: "expires_at", detail: "must be after issued_at" });
        }
        Ok(Period { issued_at, expires_at })
    }

    /// The statement this request becomes when `issuer` signs it.
    #[must_use]
    pub fn into_statement(self, issuer: Issuer, period: Period) -> Statement {
        let id = attestation_id(issuer.key_fingerprint.as_str(), &self.nonce);
        let subject_id = format!("did:virtengine:{}", self.subject.account_address);
        Statement {
            id: Text::new(id).expect("a fixed prefix and 33 characters"),
            schema_version: Text::new(SCHEMA_VERSION).expect("a short constant"),
            kind: self.kind,
            issuer,
            subject: Subject {
                id: Text::new(subject_id).expect("an address is at most 128 characters"),
                account_address: self.subject.account_address,
                scope_id: self.subject.scope_id,
                request_id: self.subject.request_id,
            },
            nonce: self.nonce,
            issued_at: period.issued_at,
            expires_at: period.expires_at,
            verification_proofs: self.verification_proofs,
            score: self.score,
            confidence: self.confidence,
            model_version: self.model_version,
            metadata: self.metadata,
        }
    }
}

/// `veid:attestation:<first 16 hex of fingerprint>:<first 16 hex of nonce>`
#[must_use]
pub fn attestation_id(fingerprint: &str, nonce: &NonceValue) -> String {
    let fingerprint = fingerprint.get(..16).unwrap_or(fingerprint);
    format!("veid:attestation:{fingerprint}:{}", hex::encode(&nonce.as_bytes()[..8]))
}

/// An account address becomes part of a DID, so its alphabet is that of a DID's last segment.
#[must_use]
pub fn is_address(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b':' | b'-'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(extra: &str) -> AttestationRequest {
        serde_json::from_str(&format!(
            r#"{{"type":"email_verification","subject":{{"account_address":"virtengine1abc"}},"nonce":"00112233445566778899aabbccddeeff","score":5,"confidence":6{extra}}}"#
        ))
        .unwrap()
    }

    fn now() -> Timestamp {
        Timestamp::parse("2026-11-23T10:00:00Z").unwrap()
    }

    #[test]
    fn expiry_comes_from_exactly_one_of_two_fields() {
        assert_eq!(request("").period(now()).unwrap_err().field, "expires_at");
        assert_eq!(
            request(r#","validity_seconds":60"#).period(now()).unwrap().expires_at.to_string(),
            "2026-11-23T10:01:00Z"
        );
        assert_eq!(
            request(r#","expires_at":"2026-11-23T10:00:01Z","validity_seconds":60"#).period(now()).unwrap_err().field,
            "validity_seconds"
        );
        assert_eq!(request(r#","validity_seconds":0"#).period(now()).unwrap_err().field, "validity_seconds");
        assert_eq!(request(r#","expires_at":"2026-11-23T10:00:00Z""#).period(now()).unwrap_err().field, "expires_at");
    }

    #[test]
    fn the_digest_follows_the_meaning_not_the_spelling() {
        let a: AttestationRequest = serde_json::from_str(r#"{"type":"email_verification","subject":{"account_address":"a"},"nonce":"00112233445566778899aabbccddeeff","score":5,"confidence":6,"metadata":{"a":"1","b":"2"}}"#).unwrap();
        let b: AttestationRequest = serde_json::from_str(r#" { "confidence":6,"metadata":{"b":"2","a":"\u0031"},"score":5,"nonce":"00112233445566778899aabbccddeeff","subject":{"account_address":"a"},"type":"email_verification"}"#).unwrap();
        assert_eq!(a.content_digest(), b.content_digest());
        let mut c = b.clone();
        c.score = Score::new(7).unwrap();
        assert_ne!(b.content_digest(), c.content_digest());
    }
}
