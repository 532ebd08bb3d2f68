//! The one internal error language; `http::problem` is its one translation.

use crate::{
    attestation::InvalidField,
    audit,
    key::{KeyId, KeyState, LedgerError, LedgerUnavailable},
    nonce, token,
};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error("nonce refused: {}", .0.as_str())]
    Nonce(nonce::Refusal),
    #[error("the same request is in progress")]
    InProgress,
    #[error("no key {0:?}")]
    UnknownKey(String),
    #[error("key {id} is {state:?} and does not sign")]
    KeyMayNotSign { id: KeyId, state: KeyState },
    #[error("no key is active")]
    NoActiveKey,
    #[error("no certificate is stored for key {0}")]
    NoCertificate(KeyId),
    #[error("the nonce store is not usable: {0}")]
    NonceStore(#[source] nonce::Error),
    #[error("token: {0}")]
    Token(#[source] token::Error),
    #[error("audit: {0}")]
    Audit(#[source] audit::Error),
    #[error(transparent)]
    LedgerUnavailable(#[from] LedgerUnavailable),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// A promise of the program itself was broken; nothing was released.
    #[error("internal: {0}")]
    Internal(&'static str),
}

/// What kind of trouble it is: decides status codes, retries and readiness.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// The caller must change the request.
    Caller,
    /// Too much at once; the same request may succeed soon.
    Busy,
    /// Something we stand on is away; nothing was signed.
    Dependency,
    /// The truth is unknown: stop being ready.
    Fatal,
}

impl Error {
    /// The class of this error.
    #[must_use]
    pub fn class(&self) -> Class {
        match self {
            Self::Field(_) | Self::UnknownKey(_) | Self::KeyMayNotSign { .. } | Self::NoCertificate(_) => Class::Caller,
            Self::Nonce(nonce::Refusal::StoreFull) | Self::InProgress => Class::Busy,
            Self::Nonce(_) => Class::Caller,
            Self::NoActiveKey | Self::NonceStore(_) | Self::LedgerUnavailable(_) | Self::Ledger(_) => Class::Dependency,
            Self::Token(error) => match error {
                token::Error::Busy | token::Error::Deadline(_) => Class::Busy,
                token::Error::BadSignature => Class::Fatal,
                token::Error::Module { .. }
                | token::Error::Initialize { .. }
                | token::Error::NoToken { .. }
                | token::Error::AmbiguousToken { .. }
                | token::Error::Pin(_)
                | token::Error::Worker(_)
                | token::Error::KeyMissing { .. }
                | token::Error::KeyPolicy(_)
                | token::Error::Call(_) => Class::Dependency,
            },
            Self::Audit(audit::Error::Busy) => Class::Busy,
            Self::Audit(audit::Error::Failed) | Self::Internal(_) => Class::Fatal,
        }
    }

    /// A short word for `signer_errors_total{error_type}` and log lines.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Field(_) => "invalid_field",
            Self::Nonce(refusal) => refusal.as_str(),
            Self::InProgress => "in_progress",
            Self::UnknownKey(_) => "unknown_key",
            Self::KeyMayNotSign { .. } => "key_may_not_sign",
            Self::NoActiveKey => "no_active_key",
            Self::NoCertificate(_) => "no_certificate",
            Self::NonceStore(_) => "nonce_store",
            Self::Token(token::Error::BadSignature) => "bad_signature",
            Self::Token(token::Error::Busy) => "token_busy",
            Self::Token(token::Error::Deadline(_)) => "token_deadline",
            Self::Token(_) => "token",
            Self::Audit(_) => "audit",
            Self::LedgerUnavailable(_) | Self::Ledger(_) => "ledger",
            Self::Internal(_) => "internal",
        }
    }
}

impl From<token::Error> for Error {
    fn from(error: token::Error) -> Self {
        Self::Token(error)
    }
}

impl From<audit::Error> for Error {
    fn from(error: audit::Error) -> Self {
        Self::Audit(error)
    }
}

impl From<nonce::Error> for Error {
    fn from(error: nonce::Error) -> Self {
        match error {
            nonce::Error::Refused(refusal) => Self::Nonce(refusal),
            nonce::Error::InProgress => Self::InProgress,
            nonce::Error::Unavailable(_) => Self::NonceStore(error),
        }
    }
}
