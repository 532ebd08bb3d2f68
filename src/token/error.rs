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
    #[error("token.writable: the process of the module cannot be kept to these places: {0}")]
    Sandbox(String),
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
    /// The PIN went to the token, which says nothing of it.
    #[error("the login failed: {0}")]
    Login(CallError),
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
    #[error(
        "was tried and the module ended before it answered: it may be wrong, and tokens lock after a few wrong ones, so it is not tried again. Prove it with another tool (pkcs11-tool --login), remove pin-refused.json from the state directory, then start again"
    )]
    Unanswered,
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
#[error("{text}")]
pub struct CallError {
    text: String,
    /// What its CKR code asks of us, where the module returned one.
    remedy: Option<Remedy>,
    /// Known to the process that made the call only.
    #[serde(skip)]
    source: Option<CryptokiError>,
}

impl CallError {
    /// A value that the token gave and that makes no sense.
    pub(super) fn nonsense(what: &str) -> Self {
        Self { text: format!("the token returned {what}"), remedy: None, source: None }
    }

    /// The CKR code, where the module returned one.
    pub(super) fn code(&self) -> Option<RvError> {
        match &self.source {
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
        let remedy = match &error {
            CryptokiError::Pkcs11(code, _) => Some(remedy(*code)),
            _ => None,
        };
        Self { text, remedy, source: Some(error) }
    }
}

impl From<CryptokiError> for Error {
    fn from(error: CryptokiError) -> Self {
        Self::Call(error.into())
    }
}

/// `CKR_…` as the standard writes it: `SessionHandleInvalid` becomes `CKR_SESSION_HANDLE_INVALID`.
pub(super) fn ckr_name(code: RvError) -> String {
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
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Remedy {
    /// The session or a handle was lost: the call is made once more in a fresh session, with the
    /// objects looked for anew. If that fails as well, the connection is made anew.
    FreshSession,
    /// The connection was lost: the module is finalized and initialized again, once for all workers,
    /// and logged in.
    Reopen,
    /// The token has no room for it now: whoever asks may come again, and nothing is torn down.
    Later,
    /// The PIN was refused: nobody tries it again before somebody has looked.
    Pin(PinProblem),
    /// The token or its module is not set up for what we do: the same call gets the same answer until
    /// somebody changes that.
    Configuration,
    /// The same call would get the same answer.
    Refusal,
}

/// The decision for every code of PKCS#11 v3.2 §5.1 (README, "When the token fails", shows the same).
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

        Ckr::SessionCount => Remedy::Later,

        Ckr::PinIncorrect | Ckr::PinInvalid | Ckr::PinLenRange => Remedy::Pin(PinProblem::Incorrect),
        Ckr::PinLocked => Remedy::Pin(PinProblem::Locked),
        Ckr::PinExpired => Remedy::Pin(PinProblem::MustBeChanged),
        Ckr::UserPinNotInitialized => Remedy::Pin(PinProblem::NotInitialised),

        Ckr::NeedToCreateThreads
        | Ckr::CurveNotSupported
        | Ckr::DomainParamsInvalid
        | Ckr::FunctionNotSupported
        | Ckr::KeyFunctionNotPermitted
        | Ckr::KeySizeRange
        | Ckr::KeyTypeInconsistent
        | Ckr::LibraryLoadFailed
        | Ckr::MechanismInvalid
        | Ckr::MechanismParamInvalid
        | Ckr::SessionReadOnly
        | Ckr::SessionReadOnlyExists
        | Ckr::SessionReadWriteSoExists
        | Ckr::TokenWriteProtected
        | Ckr::UserTypeInvalid => Remedy::Configuration,

        Ckr::ArgumentsBad
        | Ckr::NoEvent
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
        | Ckr::KeyNotNeeded
        | Ckr::KeyNeeded
        | Ckr::KeyIndigestible
        | Ckr::KeyNotWrappable
        | Ckr::KeyUnextractable
        | Ckr::SessionParallelNotSupported
        | Ckr::SessionExists
        | Ckr::SignatureInvalid
        | Ckr::SignatureLenRange
        | Ckr::TemplateIncomplete
        | Ckr::TemplateInconsistent
        | Ckr::UnwrappingKeyHandleInvalid
        | Ckr::UnwrappingKeySizeRange
        | Ckr::UnwrappingKeyTypeInconsistent
        | Ckr::UserAlreadyLoggedIn
        | Ckr::WrappedKeyInvalid
        | Ckr::WrappedKeyLenRange
        | Ckr::WrappingKeyHandleInvalid
        | Ckr::WrappingKeySizeRange
        | Ckr::WrappingKeyTypeInconsistent
        | Ckr::RandomSeedNotSupported
        | Ckr::BufferTooSmall
        | Ckr::SavedStateInvalid
        | Ckr::InformationSensitive
        | Ckr::StateUnsaveable
        | Ckr::NewPinMode
        | Ckr::NextOtp
        | Ckr::ExceededMaxIterations
        | Ckr::PinTooWeak
        | Ckr::PublicKeyInvalid
        | Ckr::FunctionRejected => Remedy::Refusal,

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
        | Ckr::UserNotLoggedIn
        | Ckr::UserAnotherAlreadyLoggedIn
        | Ckr::UserTooManyTypes
        | Ckr::CryptokiNotInitialized
        | Ckr::CryptokiAlreadyInitialized
        | Ckr::MutexBad
        | Ckr::MutexNotLocked
        | Ckr::CantLock
        | Ckr::RandomNoRng
        | Ckr::FipsSelfTestFailed
        | Ckr::VendorDefined(_) => Remedy::Reopen,

        Ckr::UnknownErrorCode(number) => of_number(number),
    }
}

/// The decision for the codes of PKCS#11 v3.0 to v3.2 that cryptoki has no names for.
fn of_number(code: u64) -> Remedy {
    match code {
        // CKR_OPERATION_CANCEL_FAILED, CKR_PENDING
        0x202 | 0x204 => Remedy::FreshSession,
        // CKR_TOKEN_RESOURCE_EXCEEDED
        0x201 => Remedy::Later,
        // CKR_PARAMETER_SET_NOT_SUPPORTED
        0x209 => Remedy::Configuration,
        // CKR_AEAD_DECRYPT_FAILED, CKR_KEY_EXHAUSTED, CKR_SESSION_ASYNC_NOT_SUPPORTED,
        // CKR_SEED_RANDOM_REQUIRED, CKR_OPERATION_NOT_VALIDATED
        0x42 | 0x203 | 0x205 | 0x206 | 0x207 => Remedy::Refusal,
        // CKR_TOKEN_NOT_INITIALIZED, and what no standard knows.
        _ => Remedy::Reopen,
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
            | Self::Sandbox(_)
            | Self::Busy
            | Self::BadSignature
            | Self::Lost(_)
            | Self::PinSource(_)
            | Self::Login(_)
            | Self::Call(_) => false,
        }
    }

    /// The module has no memory left (CKR_HOST_MEMORY): what it has lost, only a new process has.
    pub(super) fn is_out_of_memory(&self) -> bool {
        matches!(self, Self::Call(call) if matches!(call.code(), Some(RvError::HostMemory)))
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
            Self::Call(call) | Self::Login(call) => call.remedy.unwrap_or(Remedy::FreshSession),
            Self::KeyMissing { .. } => Remedy::FreshSession,
            Self::Lost(_) | Self::Unanswered | Self::NoToken { .. } => Remedy::Reopen,
            Self::Pin(problem) => Remedy::Pin(*problem),
            Self::Module { .. }
            | Self::Initialize { .. }
            | Self::AmbiguousToken { .. }
            | Self::PinSource(_)
            | Self::Worker(_)
            | Self::KeyPolicy(_)
            | Self::Sandbox(_)
            | Self::Busy
            | Self::Deadline(_)
            | Self::BadSignature => Remedy::Refusal,
        }
    }

    /// True when starting again cannot help before somebody changes the configuration or the token.
    #[must_use]
    pub fn is_configuration(&self) -> bool {
        match self {
            Self::Call(call) | Self::Login(call) => call.remedy == Some(Remedy::Configuration),
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
            | Self::PinSource(_) => false,
            Self::Module { .. }
            | Self::NoToken { .. }
            | Self::AmbiguousToken { .. }
            | Self::Pin(_)
            | Self::Sandbox(_) => true,
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
    use cryptoki::error::Rv;
    use fault_module::CODES;

    use super::*;

    #[test]
    fn codes_are_written_as_the_standard_writes_them() {
        assert_eq!(ckr_name(RvError::SessionHandleInvalid), "CKR_SESSION_HANDLE_INVALID");
        assert_eq!(ckr_name(RvError::GeneralError), "CKR_GENERAL_ERROR");
    }

    fn decided(code: u64) -> Remedy {
        match Rv::from(code) {
            Rv::Error(code) => remedy(code),
            Rv::Ok => panic!("no error"),
        }
    }

    /// The rows of the table, with the names of their codes.
    fn rows() -> String {
        let rows = [
            ("made once more in a fresh session, where handles are looked for anew", &[Remedy::FreshSession][..]),
            (
                "module finalized, initialized and logged in to again, once for all workers; then made once more",
                &[Remedy::Reopen],
            ),
            ("refused for now; nothing is torn down", &[Remedy::Later]),
            (
                "a PIN is never tried again before a restart",
                &[
                    Remedy::Pin(PinProblem::Incorrect),
                    Remedy::Pin(PinProblem::Locked),
                    Remedy::Pin(PinProblem::MustBeChanged),
                ],
            ),
            ("no PIN was tried; the token is looked at again", &[Remedy::Pin(PinProblem::NotInitialised)]),
            (
                "refused: module, token or configuration must be changed; at start exit code 78",
                &[Remedy::Configuration],
            ),
            ("refused: the same call would get the same answer", &[Remedy::Refusal]),
        ];
        let row = |(what, remedies): &(&str, &[Remedy])| {
            let codes = CODES.iter().filter(|(_, code)| remedies.contains(&decided(*code)));
            let names: Vec<_> = codes.map(|(name, _)| name.strip_prefix("CKR_").unwrap()).collect();
            format!("| {what} | {} |\n", names.join(", "))
        };
        rows.iter().map(row).collect::<Vec<_>>().concat()
    }

    #[test]
    fn the_table_in_the_readme_is_the_table() {
        let readme = include_str!("../../README.md");
        assert!(readme.contains(&rows()), "README.md, \"When the token fails\", must have:\n{}", rows());
        let listed: usize = rows().lines().map(|row| row.split('|').nth(2).unwrap().split(',').count()).sum();
        assert_eq!(listed, CODES.len(), "each code stands in one row");
    }

    #[test]
    fn what_no_standard_knows_is_a_lost_connection() {
        for code in [0x4, 0x7777, 0x8000_0001, 0xce53_4351] {
            assert_eq!(decided(code), Remedy::Reopen, "{code:#x}");
        }
    }

    #[test]
    fn only_what_says_so_is_a_wrong_pin() {
        let wrong = |(_, code): &&(&str, u64)| matches!(decided(*code), Remedy::Pin(_));
        let names: Vec<_> = CODES.iter().filter(wrong).map(|(name, _)| *name).collect();
        assert!(names.iter().all(|name| name.contains("PIN")), "{names:?}");
        assert_eq!(names.len(), 6);
    }
}
