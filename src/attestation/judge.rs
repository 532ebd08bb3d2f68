//! Whether an attestation is what its key has signed: all that can be said without a clock and without
//! the key's state.

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::Serialize;

use crate::{
    attestation::{Attestation, SCHEMA_VERSION, Statement, request::attestation_id},
    key::{KeyId, PublicKey, Signature},
    timestamp::Timestamp,
};

/// Why an attestation is not valid: a closed set, part of the interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Invalid {
    UnknownKey,
    SchemaVersion,
    IssuerMismatch,
    SubjectMismatch,
    IdMismatch,
    NonceMismatch,
    ProofTypeMismatch,
    VerificationMethodMismatch,
    SignatureMalformed,
    SignatureMismatch,
    /// The place in the tree cannot be, or the path is not as long as it must be there.
    InclusionMalformed,
    KeyPending,
    KeyRevoked,
    NotYetValid,
    Expired,
}

impl Statement {
    /// Whether it counts now, if it may have been issued at `latest` at the latest.
    pub fn counts_at(&self, now: Timestamp, latest: Timestamp) -> Result<(), Invalid> {
        expect(self.issued_at <= latest, Invalid::NotYetValid)?;
        expect(now < self.expires_at, Invalid::Expired)
    }
}

/// Checks everything that signing with this key guarantees.
pub fn judge(attestation: &Attestation, key_id: &KeyId, public_key: &PublicKey) -> Result<(), Invalid> {
    let (statement, proof) = (&attestation.statement, &attestation.proof);
    expect(statement.schema_version.as_str() == SCHEMA_VERSION, Invalid::SchemaVersion)?;
    let message = signed_bytes(attestation, public_key)?;
    let bytes = STANDARD.decode(proof.proof_value.as_str()).map_err(|_| Invalid::SignatureMalformed)?;
    let signature = Signature::from_slice(&bytes).ok_or(Invalid::SignatureMalformed)?;
    public_key.verify(&message, &signature).map_err(|_| Invalid::SignatureMismatch)?;

    // Signed by us; what follows could only differ in a statement we would not have made, or
    // in the proof, which the signature does not cover.
    let fingerprint = public_key.fingerprint();
    expect(statement.issuer.key_fingerprint.as_str() == fingerprint, Invalid::IssuerMismatch)?;
    let subject = format!("did:virtengine:{}", statement.subject.account_address);
    expect(statement.subject.id.as_str() == subject, Invalid::SubjectMismatch)?;
    expect(statement.id.as_str() == attestation_id(&fingerprint, &statement.nonce), Invalid::IdMismatch)?;
    expect(proof.nonce == statement.nonce, Invalid::NonceMismatch)?;
    let method = format!("{}#{key_id}", statement.issuer.id);
    expect(proof.verification_method.as_str() == method, Invalid::VerificationMethodMismatch)
}

/// What the signature of the proof covers. The type of the proof says whether that is the statement
/// itself or a root over it, so that neither passes for the other.
fn signed_bytes(attestation: &Attestation, public_key: &PublicKey) -> Result<Vec<u8>, Invalid> {
    let (algorithm, proof) = (public_key.algorithm(), &attestation.proof);
    let canonical = attestation.statement.canonical_bytes();
    match &proof.merkle {
        None => {
            expect(proof.kind == algorithm.proof_type(), Invalid::ProofTypeMismatch)?;
            Ok(canonical)
        }
        Some(inclusion) => {
            expect(proof.kind == algorithm.merkle_proof_type(), Invalid::ProofTypeMismatch)?;
            inclusion.root_statement(&canonical).ok_or(Invalid::InclusionMalformed)
        }
    }
}

fn expect(holds: bool, otherwise: Invalid) -> Result<(), Invalid> {
    if holds { Ok(()) } else { Err(otherwise) }
}
