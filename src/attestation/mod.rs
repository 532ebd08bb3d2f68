//! The attestation: what a producer asks for, what is signed byte for byte, and what comes back.
//!
//! Schema 1.0.0 of the VEID attestation. [`Statement`] is the object without its proof; its
//! canonical bytes ([`canonical`]) are what the token signs, exactly as the VirtEngine chain's Go
//! code encodes them; or, for callers that ask for it, a leaf under what it signs ([`inclusion`]).

pub mod canonical;
pub mod document;
pub mod envelope;
pub mod inclusion;
pub mod judge;
pub mod request;
pub mod strict;
pub mod text;
pub mod vocabulary;

pub use document::{Attestation, Issuer, Proof, Statement, Subject};
pub use inclusion::{AttestationTree, Inclusion};
pub use judge::{Invalid, judge};
pub use request::{AttestationRequest, InvalidField};
pub use text::Text;
pub use vocabulary::{AttestationType, ProofPurpose, ProofType, Score, VerificationProof};

/// The only schema version this signer writes and verifies.
pub const SCHEMA_VERSION: &str = "1.0.0";
