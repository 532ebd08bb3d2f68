//! A signature that exists but has not left.

use super::{Error, KeyRef};
use crate::{evidence::Receipt, key::Signature};

/// A signature that was warranted, verified with the key's public half. Its bytes come out only
/// against the receipt of its audit record.
pub struct VerifiedSignature(Signature);

impl std::fmt::Debug for VerifiedSignature {
    /// Without the signature's bytes.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("VerifiedSignature")
    }
}

/// The receipt belongs to another signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit receipt is for another signature")]
pub struct NotCovered;

impl VerifiedSignature {
    /// Brings what C_Sign returned into wire form and verifies it.
    pub(super) fn check(key: &KeyRef, message: &[u8], raw: &[u8], verify: bool) -> Result<Self, Error> {
        let signature = key.public_key.normalize(raw).map_err(|_| Error::BadSignature)?;
        if verify {
            key.public_key.verify(message, &signature).map_err(|_| Error::BadSignature)?;
        }
        Ok(Self(signature))
    }

    /// SHA-256 of the signature, for its audit record.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.0.digest()
    }

    /// Gives the signature out against the receipt of its own record.
    pub fn release(self, receipt: &impl Receipt) -> Result<Signature, NotCovered> {
        if *receipt.signature_digest() == self.digest() { Ok(self.0) } else { Err(NotCovered) }
    }
}
