//! A signature that exists but has not left.

use super::{Error, KeyRef};
use crate::{
    evidence::{Receipt, Warrant},
    key::Signature,
};

/// A signature that was warranted, verified with the key's public half. Its bytes come out only
/// against the receipt of its audit record, or of as many as it covers things.
pub struct VerifiedSignature {
    signature: Signature,
    covers: usize,
}

impl std::fmt::Debug for VerifiedSignature {
    /// Without the signature's bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerifiedSignature")
    }
}

/// The receipt belongs to another signature, or to fewer things than this one covers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit receipt is for another signature, or not for all that it covers")]
pub struct NotCovered;

impl VerifiedSignature {
    /// Brings what C_Sign returned into wire form and verifies it.
    pub(super) fn check(key: &KeyRef, warrant: &impl Warrant, raw: &[u8], verify: bool) -> Result<Self, Error> {
        let signature = key.public_key.normalize(raw).map_err(|_| Error::BadSignature)?;
        if verify {
            key.public_key.verify(warrant.message(), &signature).map_err(|_| Error::BadSignature)?;
        }
        Ok(Self { signature, covers: warrant.covers() })
    }

    /// SHA-256 of the signature, for its audit record.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.signature.digest()
    }

    /// Gives the signature out against the receipt of its own record.
    pub fn release(self, receipt: &impl Receipt) -> Result<Signature, NotCovered> {
        let is_for_it = *receipt.signature_digest() == self.digest() && receipt.records() == self.covers;
        if is_for_it { Ok(self.signature) } else { Err(NotCovered) }
    }
}
