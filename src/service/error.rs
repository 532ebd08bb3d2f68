//! The one internal error language; `http::problem` is its one translation.

use std::sync::Arc;

use crate::{
    attestation::InvalidField,
    audit::{self, Stop},
    client::ClientIdentity,
    fleet,
    key::{KeyId, KeyState, LedgerError, LedgerUnavailable},
    limits, nonce,
    quota::Exceeded,
    service::{approvals, first_key, maintenance::Pause, once},
    timestamp::Timestamp,
    token,
};

/// Why a request was not done.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(transparent)]
    Field(#[from] InvalidField),
    #[error("nonce refused: {}", .0.as_str())]
    Nonce(nonce::Refusal),
    /// A limit was reached; nothing was done.
    #[error("limit {} of {} is reached", .0.charge.field(), .0.charge.principal)]
    Limited(Box<Exceeded>),
    #[error("blocked ({id})")]
    Blocked { id: uuid::Uuid, until: Option<Timestamp> },
    #[error("no block {0:?}")]
    UnknownBlock(String),
    #[error(transparent)]
    Blocks(#[from] limits::blocks::Error),
    #[error("nonce refused: store_full ({0:?})")]
    NonceStoreFull(nonce::Bound),
    /// Another client has spent the nonce.
    #[error("nonce refused: already_used, by {spent_by}")]
    NonceReplayed { spent_by: ClientIdentity },
    /// What this client may not do, after "may not".
    #[error("the client may not {0}")]
    NotPermitted(String),
    #[error(transparent)]
    Approval(#[from] approvals::Refusal),
    #[error("idempotency key: {0}")]
    Once(#[from] once::Conflict),
    #[error("the same request is in progress")]
    InProgress,
    #[error("in maintenance since {}", .0.since)]
    Maintenance(Arc<Pause>),
    #[error("the state directory cannot be written")]
    StateUnwritable,
    #[error("no key {0:?}")]
    UnknownKey(String),
    #[error("key {id} is {state:?} and does not sign")]
    KeyMayNotSign { id: KeyId, state: KeyState },
    #[error("no key is active")]
    NoActiveKey,
    /// The last reading of the ledger is too old to sign by.
    #[error("the key ledger could not be read within the lease")]
    StaleLedger,
    #[error("{0}")]
    LedgerRolledBack(String),
    #[error("{rotation} cannot go back to {old}, which is {state:?}")]
    CannotGoBack { rotation: String, old: KeyId, state: KeyState },
    #[error("the private key of {id} was destroyed at {at}")]
    KeyDestroyed { id: KeyId, at: Timestamp },
    #[error("another appliance changed the keys at the same time")]
    LostRace,
    #[error("another lifecycle operation is running")]
    ChangeInProgress,
    #[error("the fleet lock is not usable: {0}")]
    FleetLock(#[source] fleet::Error),
    /// Only the primary makes, certifies and destroys keys.
    #[error("the primary token {token} does not answer: keys cannot be changed")]
    PrimaryAway { token: String, signing: Option<String> },
    /// Only the token whose keys they are makes, certifies and destroys them.
    #[error("{token} does not answer: its keys cannot be changed")]
    StandbyAway { token: String },
    #[error(transparent)]
    FirstKey(#[from] first_key::Refusal),
    #[error("pre-flight: {item} ({detail})")]
    Preflight { item: &'static str, detail: String },
    #[error("{rotation} is in progress")]
    RotationInProgress { rotation: String },
    #[error("no rotation {0:?}")]
    UnknownRotation(String),
    #[error("{rotation} is {status}")]
    RotationEnded { rotation: String, status: &'static str },
    #[error("the overlap of {rotation} runs until {until}")]
    OverlapRunning { rotation: String, until: Timestamp },
    #[error("{limit} keys are pending already")]
    TooManyPending { limit: usize },
    #[error("key {id} is {state:?} and may still sign")]
    KeyMayStillSign { id: KeyId, state: KeyState },
    #[error("key {id} is kept until {until}")]
    RetentionRunning { id: KeyId, until: Timestamp },
    #[error("certificate chain: {0}")]
    Chain(token::InvalidChain),
    #[error("no certificate is stored for key {0}")]
    NoCertificate(KeyId),
    #[error("the nonce store is not usable: {0}")]
    NonceStore(#[source] nonce::Error),
    #[error("token: {0}")]
    Token(#[source] token::Error),
    #[error("audit: {0}")]
    Audit(#[source] audit::Error),
    #[error(
        "the token has no audit key of this signer, and the configuration does not allow making one: run `verification-signer init --config FILE`"
    )]
    NoAuditKey,
    #[error(transparent)]
    LedgerUnavailable(#[from] LedgerUnavailable),
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    #[error("audit trail: {0}")]
    Trail(#[from] audit::IndexError),
    /// What kept a signature from being made that several were to share.
    #[error(transparent)]
    Shared(Arc<Error>),
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
            Self::Shared(error) => error.class(),
            Self::Approval(approvals::Refusal::Disk)
            | Self::Once(once::Conflict::Disk)
            | Self::StateUnwritable
            | Self::NoActiveKey
            | Self::StaleLedger
            | Self::LedgerRolledBack(_)
            | Self::FleetLock(_)
            | Self::NonceStore(_)
            | Self::LedgerUnavailable(_)
            | Self::PrimaryAway { .. }
            | Self::StandbyAway { .. }
            | Self::NoAuditKey
            | Self::Trail(audit::IndexError::Io(_) | audit::IndexError::Database(_))
            | Self::Audit(
                audit::Error::Stopped(Stop::DiskFull | Stop::ReadOnly | Stop::FileLost) | audit::Error::Withheld(_),
            )
            | Self::Blocks(limits::blocks::Error::File { .. } | limits::blocks::Error::Damaged { .. })
            | Self::Ledger(_) => Class::Dependency,
            Self::Nonce(nonce::Refusal::StoreFull)
            | Self::NonceStoreFull(_)
            | Self::InProgress
            | Self::Maintenance(_)
            | Self::Trail(audit::IndexError::Building { .. })
            | Self::Audit(audit::Error::Busy) => Class::Busy,
            Self::Trail(audit::IndexError::TooBroad | audit::IndexError::Beyond { .. })
            | Self::Field(_)
            | Self::NotPermitted(_)
            | Self::Approval(_)
            | Self::Once(_)
            | Self::Nonce(_)
            | Self::NonceReplayed { .. }
            | Self::UnknownKey(_)
            | Self::Limited(_)
            | Self::Blocked { .. }
            | Self::UnknownBlock(_)
            | Self::Blocks(limits::blocks::Error::Full)
            | Self::KeyMayNotSign { .. }
            | Self::NoCertificate(_)
            | Self::Chain(_)
            | Self::FirstKey(_)
            | Self::LostRace
            | Self::ChangeInProgress
            | Self::Preflight { .. }
            | Self::RotationInProgress { .. }
            | Self::UnknownRotation(_)
            | Self::RotationEnded { .. }
            | Self::OverlapRunning { .. }
            | Self::TooManyPending { .. }
            | Self::CannotGoBack { .. }
            | Self::KeyDestroyed { .. }
            | Self::KeyMayStillSign { .. }
            | Self::RetentionRunning { .. } => Class::Caller,
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
                | token::Error::Sandbox(_)
                | token::Error::Lost(_)
                | token::Error::Unanswered
                | token::Error::PinSource(_)
                | token::Error::Login(_)
                | token::Error::Call(_) => Class::Dependency,
            },
            Self::Audit(audit::Error::Stopped(Stop::Failed)) | Self::Internal(_) => Class::Fatal,
        }
    }

    /// The kinds that mean trouble with signing itself, for counters that begin at zero.
    pub const COUNTED: [&'static str; 9] = [
        "token",
        "token_busy",
        "token_deadline",
        "bad_signature",
        "nonce_store",
        "audit",
        "stale_ledger",
        "no_active_key",
        "key_may_not_sign",
    ];

    /// A short word for `signer_errors_total{error_type}` and log lines.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Field(_) => "invalid_field",
            Self::Nonce(refusal) => refusal.as_str(),
            Self::Limited(_) => "rate_limited",
            Self::Blocked { .. } => "blocked",
            Self::UnknownBlock(_) => "unknown_block",
            Self::Blocks(_) => "blocks",
            Self::NonceStoreFull(_) => nonce::Refusal::StoreFull.as_str(),
            Self::NonceReplayed { .. } => nonce::Refusal::AlreadyUsed.as_str(),
            Self::NotPermitted(_) => "not_permitted",
            Self::Approval(_) => "approval",
            Self::Once(_) => "idempotency_key",
            Self::InProgress => "in_progress",
            Self::Maintenance(_) => "maintenance",
            Self::StateUnwritable => "state",
            Self::UnknownKey(_) => "unknown_key",
            Self::KeyMayNotSign { .. } => "key_may_not_sign",
            Self::NoActiveKey => "no_active_key",
            Self::NoCertificate(_) => "no_certificate",
            Self::Chain(_) => "certificate_chain",
            Self::StaleLedger => "stale_ledger",
            Self::LedgerRolledBack(_) => "ledger_rolled_back",
            Self::CannotGoBack { .. } => "cannot_go_back",
            Self::KeyDestroyed { .. } => "key_destroyed",
            Self::LostRace | Self::ChangeInProgress => "change_in_progress",
            Self::FleetLock(_) => "fleet_lock",
            Self::Preflight { .. } => "preflight",
            Self::RotationInProgress { .. } => "rotation_in_progress",
            Self::UnknownRotation(_) => "unknown_rotation",
            Self::RotationEnded { .. } => "rotation_ended",
            Self::OverlapRunning { .. } => "overlap_running",
            Self::TooManyPending { .. } => "too_many_pending",
            Self::KeyMayStillSign { .. } => "key_may_still_sign",
            Self::RetentionRunning { .. } => "retention_running",
            Self::NonceStore(_) => "nonce_store",
            Self::Token(token::Error::BadSignature) => "bad_signature",
            Self::Token(token::Error::Busy) => "token_busy",
            Self::Token(token::Error::Deadline(_)) => "token_deadline",
            Self::Token(_) | Self::PrimaryAway { .. } | Self::StandbyAway { .. } => "token",
            Self::FirstKey(_) => "first_key",
            Self::Audit(_) | Self::NoAuditKey | Self::Trail(_) => "audit",
            Self::LedgerUnavailable(_) | Self::Ledger(_) => "ledger",
            Self::Shared(error) => error.kind(),
            Self::Internal(_) => "internal",
        }
    }
}

impl Error {
    /// Whether a call to the token was given up that has not ended: it may do its work yet.
    #[must_use]
    pub fn may_still_happen(&self) -> bool {
        let given_up = token::Error::leaves_it_open;
        if let Self::LedgerUnavailable(LedgerUnavailable(source)) = self {
            return source.downcast_ref().is_some_and(given_up);
        }
        matches!(self, Self::Token(error) if given_up(error))
    }
}

impl From<token::Error> for Error {
    fn from(error: token::Error) -> Self {
        Self::Token(error)
    }
}

impl From<fleet::Error> for Error {
    fn from(error: fleet::Error) -> Self {
        match error {
            fleet::Error::Held => Self::ChangeInProgress,
            fleet::Error::Unavailable(_) => Self::FleetLock(error),
        }
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
            nonce::Error::Full(bound) => Self::NonceStoreFull(bound),
            nonce::Error::Replayed { spent_by } => Self::NonceReplayed { spent_by },
            nonce::Error::InProgress => Self::InProgress,
            nonce::Error::Limited(exceeded) => Self::Limited(exceeded),
            nonce::Error::Unfit(_) | nonce::Error::Unavailable(_) => Self::NonceStore(error),
        }
    }
}
