//! What can go wrong with a token, and what each CKR code means to us.

use std::{path::PathBuf, time::Duration};

use cryptoki::error::{Error as CryptokiError, RvError};

use super::TokenUri;

/// Why a call to the token gave no result. No message contains a PIN or key material.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the PKCS#11 module {path} cannot be loaded: {source}")]
    Module { path: PathBuf, source: CallError },
    /// An HSM that cannot be reached yet; no PIN was tried.
    #[error("the PKCS#11 module {path} cannot be initialized: {source}")]
    Initialize { path: PathBuf, source: CallError },
    #[error("no token matches {uri}; tokens present: {present}")]
    NoToken { uri: TokenUri, present: String },
    #[error("{count} tokens match {uri}: name one by its serial")]
    AmbiguousToken { uri: TokenUri, count: usize },
    #[error("the token's user PIN {0}")]
    Pin(PinProblem),
    #[error("a token worker could not be started: {0}")]
    Worker(std::io::Error),
    #[error("the token has no private key with id {}", hex::encode(object_id))]
    KeyMissing { object_id: Vec<u8> },
    #[error("{0}")]
    KeyPolicy(String),
    #[error("too many calls wait for the token")]
    Busy,
    #[error("the token did not answer within {} ms", .0.as_millis())]
    Deadline(Duration),
    #[error("the token returned a signature that does not verify with the key's public half")]
    BadSignature,
    #[error("{0}")]
    Call(#[from] CallError),
}

/// Why the PIN was not, or must not be, tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PinProblem {
    #[error(
        "is wrong: it was tried once. Each start would try it once more, and tokens lock after a few: correct the PIN source first (systemd: RestartPreventExitStatus=78)"
    )]
    Incorrect,
    #[error("is locked: the security officer must unlock it (C_InitPIN)")]
    Locked,
    #[error("has one try left before it locks: log in with another tool to prove the PIN, then start again")]
    FinalTry,
    #[error("has expired or must be changed before first use")]
    MustBeChanged,
    #[error("is not initialised: the security officer must set it first (C_InitPIN)")]
    NotInitialised,
}

/// A PKCS#11 function that failed, with its CKR code kept.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct CallError(String, #[source] Option<CryptokiError>);

impl CallError {
    /// A value that the token gave and that makes no sense.
    pub(super) fn nonsense(what: &str) -> Self {
        Self(format!("the token returned {what}"), None)
    }

    /// The CKR code, where the module returned one.
    pub(super) fn code(&self) -> Option<RvError> {
        match &self.1 {
            Some(CryptokiError::Pkcs11(code, _)) => Some(*code),
            _ => None,
        }
    }
}

impl From<CryptokiError> for CallError {
    fn from(error: CryptokiError) -> Self {
        let text = match &error {
            CryptokiError::Pkcs11(code, function) => format!("C_{function:?} failed with {}", ckr_name(*code)),
            other => other.to_string(),
        };
        Self(text, Some(error))
    }
}

impl From<CryptokiError> for Error {
    fn from(error: CryptokiError) -> Self {
        Self::Call(error.into())
    }
}

/// `CKR_…` as the standard writes it: `SessionHandleInvalid` becomes `CKR_SESSION_HANDLE_INVALID`.
fn ckr_name(code: RvError) -> String {
    let debug = format!("{code:?}");
    let mut name = String::from("CKR");
    for character in debug.chars() {
        if character.is_ascii_uppercase() {
            name.push('_');
        }
        name.push(character.to_ascii_uppercase());
    }
    name
}

/// The PIN's share of what C_Login can answer.
pub(super) fn pin_problem(code: RvError) -> Option<PinProblem> {
    match code {
        RvError::PinIncorrect | RvError::PinInvalid | RvError::PinLenRange => Some(PinProblem::Incorrect),
        RvError::PinLocked => Some(PinProblem::Locked),
        RvError::PinExpired => Some(PinProblem::MustBeChanged),
        RvError::UserPinNotInitialized => Some(PinProblem::NotInitialised),
        _ => None,
    }
}

impl Error {
    /// True when a fresh session and a fresh look for the object may help: the handle or the
    /// session was lost, not the key. Signing is safe to repeat, since nothing was released.
    /// So is a key that is not there: SoftHSM2 leaves out an object whose file another process
    /// held while it was read.
    pub(super) fn is_stale(&self) -> bool {
        let Self::Call(call) = self else { return matches!(self, Self::KeyMissing { .. }) };
        matches!(
            call.code(),
            Some(
                RvError::SessionHandleInvalid
                    | RvError::SessionClosed
                    | RvError::ObjectHandleInvalid
                    | RvError::KeyHandleInvalid
                    | RvError::OperationActive
            )
        )
    }

    /// True when starting again cannot help before somebody changes the configuration or the token.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            // A token that others are logging in to can look like this for a moment; no PIN was tried.
            Self::Pin(PinProblem::NotInitialised)
            | Self::Initialize { .. }
            | Self::Worker(_)
            | Self::KeyMissing { .. }
            | Self::KeyPolicy(_)
            | Self::Busy
            | Self::Deadline(_)
            | Self::BadSignature
            | Self::Call(_) => false,
            Self::Module { .. } | Self::NoToken { .. } | Self::AmbiguousToken { .. } | Self::Pin(_) => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_written_as_the_standard_writes_them() {
        assert_eq!(ckr_name(RvError::SessionHandleInvalid), "CKR_SESSION_HANDLE_INVALID");
        assert_eq!(ckr_name(RvError::GeneralError), "CKR_GENERAL_ERROR");
    }
}
