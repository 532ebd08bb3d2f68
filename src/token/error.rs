//! What can go wrong with a token, and what each CKR code means to us.

use std::{borrow::Cow, io, path::PathBuf, time::Duration};

use cryptoki::error::{Error as CryptokiError, RvError};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::TokenUri;

/// Why a call to the token gave no result. No message contains a PIN or key material.
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
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
    Worker(#[serde(with = "os_error")] io::Error),
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
    /// Whatever was to be done may have been done.
    #[error("the process that holds the token ended before it answered: whether this was done is not known")]
    Unanswered,
    /// The way to the token is gone; it is being looked for.
    #[error("{0}")]
    Lost(Cow<'static, str>),
    #[error("the PIN cannot be read again: {0}")]
    PinSource(String),
    #[error("{0}")]
    Call(#[from] CallError),
}

/// Why the PIN was not, or must not be, tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
pub enum PinProblem {
    #[error(
        "is wrong: it was tried once. Each start would try it once more, and tokens lock after a few: correct the PIN source first (systemd: RestartPreventExitStatus=78)"
    )]
    Incorrect,
    #[error(
        "is the one that this token refused before: it is not tried again. Correct the PIN source, then start again. If the token's PIN has been set to this one since, remove pin-refused.json from the state directory"
    )]
    Refused,
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
#[derive(Debug, Serialize, Deserialize, thiserror::Error)]
#[error("{0}")]
pub struct CallError(String, #[serde(skip)] #[source] Option<CryptokiError>);

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

/// What an error asks of us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Remedy {
    /// The session or a handle was lost: the call is made once more in a fresh session, with the
    /// objects looked for anew. If that fails as well, the connection is made anew.
    FreshSession,
    /// The connection was lost: the module is finalized and initialized again, once for all workers,
    /// and logged in.
    Reopen,
    /// The PIN was refused: nobody tries it again before somebody has looked.
    Pin(PinProblem),
    /// The same call would get the same answer.
    Refusal,
}

/// The decision for every code of PKCS#11 v3.1 §6.
pub(super) fn remedy(code: RvError) -> Remedy {
    use RvError as Ckr;
    match code {
        Ckr::SessionHandleInvalid
        | Ckr::SessionClosed
        | Ckr::ObjectHandleInvalid
        | Ckr::KeyHandleInvalid
        | Ckr::KeyChanged
        | Ckr::OperationActive
        | Ckr::OperationNotInitialized
        | Ckr::Cancel
        | Ckr::FunctionCanceled => Remedy::FreshSession,

        // Modules answer with these whatever has happened to the token or the way to it.
        Ckr::GeneralError
        | Ckr::FunctionFailed
        | Ckr::HostMemory
        | Ckr::DeviceError
        | Ckr::DeviceMemory
        | Ckr::DeviceRemoved
        | Ckr::TokenNotPresent
        | Ckr::TokenNotRecognized
        | Ckr::SlotIdInvalid
        | Ckr::SessionCount
        | Ckr::UserNotLoggedIn
        | Ckr::UserAnotherAlreadyLoggedIn
        | Ckr::UserTooManyTypes
        | Ckr::CryptokiNotInitialized
        | Ckr::CryptokiAlreadyInitialized
        | Ckr::MutexBad
        | Ckr::MutexNotLocked
        | Ckr::CantLock
        | Ckr::RandomNoRng
        | Ckr::VendorDefined(_)
        | Ckr::UnknownErrorCode(_) => Remedy::Reopen,

        Ckr::PinIncorrect | Ckr::PinInvalid | Ckr::PinLenRange => Remedy::Pin(PinProblem::Incorrect),
        Ckr::PinLocked => Remedy::Pin(PinProblem::Locked),
        Ckr::PinExpired => Remedy::Pin(PinProblem::MustBeChanged),
        Ckr::UserPinNotInitialized => Remedy::Pin(PinProblem::NotInitialised),

        Ckr::ArgumentsBad
        | Ckr::NoEvent
        | Ckr::NeedToCreateThreads
        | Ckr::AttributeReadOnly
        | Ckr::AttributeSensitive
        | Ckr::AttributeTypeInvalid
        | Ckr::AttributeValueInvalid
        | Ckr::ActionProhibited
        | Ckr::DataInvalid
        | Ckr::DataLenRange
        | Ckr::EncryptedDataInvalid
        | Ckr::EncryptedDataLenRange
        | Ckr::FunctionNotParallel
        | Ckr::FunctionNotSupported
        | Ckr::CurveNotSupported
        | Ckr::KeySizeRange
        | Ckr::KeyTypeInconsistent
        | Ckr::KeyNotNeeded
        | Ckr::KeyNeeded
        | Ckr::KeyIndigestible
        | Ckr::KeyFunctionNotPermitted
        | Ckr::KeyNotWrappable
        | Ckr::KeyUnextractable
        | Ckr::MechanismInvalid
        | Ckr::MechanismParamInvalid
        | Ckr::SessionParallelNotSupported
        | Ckr::SessionReadOnly
        | Ckr::SessionExists
        | Ckr::SessionReadOnlyExists
        | Ckr::SessionReadWriteSoExists
        | Ckr::SignatureInvalid
        | Ckr::SignatureLenRange
        | Ckr::TemplateIncomplete
        | Ckr::TemplateInconsistent
        | Ckr::TokenWriteProtected
        | Ckr::UnwrappingKeyHandleInvalid
        | Ckr::UnwrappingKeySizeRange
        | Ckr::UnwrappingKeyTypeInconsistent
        | Ckr::UserAlreadyLoggedIn
        | Ckr::UserTypeInvalid
        | Ckr::WrappedKeyInvalid
        | Ckr::WrappedKeyLenRange
        | Ckr::WrappingKeyHandleInvalid
        | Ckr::WrappingKeySizeRange
        | Ckr::WrappingKeyTypeInconsistent
        | Ckr::RandomSeedNotSupported
        | Ckr::DomainParamsInvalid
        | Ckr::BufferTooSmall
        | Ckr::SavedStateInvalid
        | Ckr::InformationSensitive
        | Ckr::StateUnsaveable
        | Ckr::NewPinMode
        | Ckr::NextOtp
        | Ckr::ExceededMaxIterations
        | Ckr::FipsSelfTestFailed
        | Ckr::LibraryLoadFailed
        | Ckr::PinTooWeak
        | Ckr::PublicKeyInvalid
        | Ckr::FunctionRejected => Remedy::Refusal,
    }
}

impl Error {
    /// True when nobody knows whether what was asked for was done: it may have been, or may yet be.
    #[must_use]
    pub fn leaves_it_open(&self) -> bool {
        match self {
            Self::Deadline(_) | Self::Unanswered => true,
            Self::Module { .. }
            | Self::Initialize { .. }
            | Self::NoToken { .. }
            | Self::AmbiguousToken { .. }
            | Self::Pin(_)
            | Self::Worker(_)
            | Self::KeyMissing { .. }
            | Self::KeyPolicy(_)
            | Self::Busy
            | Self::BadSignature
            | Self::Lost(_)
            | Self::PinSource(_)
            | Self::Call(_) => false,
        }
    }

    /// A way to the token that is gone.
    pub(super) const fn lost(why: &'static str) -> Self {
        Self::Lost(Cow::Borrowed(why))
    }

    /// What is to be done. A key that is not there may be one that is not seen: SoftHSM2 leaves out
    /// an object whose file another process held while it was read, and shows an empty token when
    /// its directory is away.
    pub(super) fn remedy(&self) -> Remedy {
        match self {
            Self::Call(call) => call.code().map_or(Remedy::FreshSession, remedy),
            Self::KeyMissing { .. } => Remedy::FreshSession,
            Self::Lost(_) | Self::Unanswered | Self::NoToken { .. } => Remedy::Reopen,
            Self::Pin(problem) => Remedy::Pin(*problem),
            Self::Module { .. }
            | Self::Initialize { .. }
            | Self::AmbiguousToken { .. }
            | Self::PinSource(_)
            | Self::Worker(_)
            | Self::KeyPolicy(_)
            | Self::Busy
            | Self::Deadline(_)
            | Self::BadSignature => Remedy::Refusal,
        }
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
            | Self::Lost(_)
            | Self::Unanswered
            | Self::PinSource(_)
            | Self::Call(_) => false,
            Self::Module { .. } | Self::NoToken { .. } | Self::AmbiguousToken { .. } | Self::Pin(_) => true,
        }
    }
}

/// An error of the operating system, as its number.
mod os_error {
    use super::{Deserialize, Deserializer, Serialize, Serializer, io};

    pub(super) fn serialize<S: Serializer>(error: &io::Error, serializer: S) -> Result<S::Ok, S::Error> {
        error.raw_os_error().unwrap_or_default().serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<io::Error, D::Error> {
        i32::deserialize(deserializer).map(io::Error::from_raw_os_error)
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
