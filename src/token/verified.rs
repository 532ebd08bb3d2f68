//! A signature that exists but has not left.

use super::{Error, KeyRef};
use crate::{
    evidence::{Receipt, Warrant},
    key::Signature,
};

/// A signature over what `W` warrants, verified with the key's public half. Its bytes come out
/// only against the receipt of its audit record.
#[derive(Debug)]
pub struct VerifiedSignature<W> {
    warrant: W,
    signature: Unreleased,
}

/// Keeps signature bytes out of debug output.
struct Unreleased(Signature);

impl std::fmt::Debug for Unreleased {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Unreleased")
    }
}

/// The receipt belongs to another signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the audit receipt is for another signature")]
pub struct NotCovered;

impl<W: Warrant> VerifiedSignature<W> {
    /// Brings what C_Sign returned into wire form and verifies it.
    pub(super) fn check(key: &KeyRef, warrant: W, raw: &[u8], verify: bool) -> Result<Self, Error> {
        let signature = key.public_key.normalize(raw).map_err(|_| Error::BadSignature)?;
        if verify {
            key.public_key.verify(warrant.message(), &signature).map_err(|_| Error::BadSignature)?;
        }
        Ok(Self { warrant, signature: Unreleased(signature) })
    }

    /// What the signature was made for.
    pub fn warrant(&self) -> &W {
        &self.warrant
    }

    /// SHA-256 of the signature, for its audit record.
    #[must_use]
    pub fn digest(&self) -> [u8; 32] {
        self.signature.0.digest()
    }

    /// Gives the signature out against the receipt of its own record.
    pub fn release(self, receipt: &impl Receipt) -> Result<(W, Signature), NotCovered> {
        if *receipt.signature_digest() == self.digest() {
            Ok((self.warrant, self.signature.0))
        } else {
            Err(NotCovered)
        }
    }
}
