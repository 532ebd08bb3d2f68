//! Every refusal, as `application/problem+json` (RFC 9457): what was refused, why, what to do.
//!
//! `type` is a reference relative to the server; `GET` on it explains the problem. Types are part
//! of the interface and never change their meaning.

use std::{fmt, time::Duration};

use actix_web::{
    HttpResponse, ResponseError,
    http::{StatusCode, header},
    web,
};
use serde::Serialize;

use super::trace::CURRENT;
use crate::{
    audit::{IndexError, Stop},
    key::KeyState,
    nonce::{Bound, Refusal},
    quota::{Charge, Exceeded, Window},
    service::{Class, Error, approvals, once::Conflict},
};

/// A type of problem. One row each in [`KINDS`].
#[derive(Debug, PartialEq, Eq)]
pub struct Kind {
    pub name: &'static str,
    pub status: StatusCode,
    pub title: &'static str,
    pub remedy: &'static str,
}

macro_rules! kinds {
    ($($constant:ident = $name:literal, $status:ident, $title:literal, $remedy:literal;)*) => {
        $(pub const $constant: Kind = Kind { name: $name, status: StatusCode::$status, title: $title, remedy: $remedy };)*
        /// Every type of problem.
        pub const KINDS: &[Kind] = &[$($constant),*];
    };
}

kinds! {
    INVALID_JSON = "invalid-json", BAD_REQUEST, "The body is not valid JSON",
        "Send one JSON value in UTF-8, with nothing after it.";
    INVALID_FIELD = "invalid-field", BAD_REQUEST, "A field of the request is not acceptable",
        "Correct the field named in errors.";
    BODY_TOO_LARGE = "body-too-large", PAYLOAD_TOO_LARGE, "The body is too large",
        "Send at most 65536 bytes; a batch may have 1048576 in all.";
    BODY_TOO_SLOW = "body-too-slow", REQUEST_TIMEOUT, "The body did not arrive in time",
        "Send the whole body within 5 seconds.";
    UNSUPPORTED_MEDIA_TYPE = "unsupported-media-type", UNSUPPORTED_MEDIA_TYPE, "The content type is not supported",
        "Send the body as application/json, without a content encoding.";
    NOT_AUTHENTICATED = "not-authenticated", UNAUTHORIZED, "Nobody may do this without saying who they are",
        "Show a client certificate, or a bearer key or token in the Authorization header.";
    MISSING_ROLE = "missing-role", FORBIDDEN, "The caller does not have the role for this",
        "Ask the signer's operators for the role that is named.";
    NOT_PERMITTED = "not-permitted", FORBIDDEN, "The caller may not do this with this type, purpose or key",
        "Ask the signer's operators to add it to what this client may use.";
    OTHER_SITE = "other-site", FORBIDDEN, "The request was made by a page of another site",
        "Use the console of this signer, /console, or a program that is no browser.";
    NOT_FOUND = "not-found", NOT_FOUND, "There is nothing at this path",
        "GET / lists the paths.";
    METHOD_NOT_ALLOWED = "method-not-allowed", METHOD_NOT_ALLOWED, "The path does not take this method",
        "Use a method named in the Allow header.";
    UNKNOWN_KEY = "unknown-key", NOT_FOUND, "There is no such key",
        "List the keys with GET /api/v1/keys.";
    NO_SUCH_ACTIVE_KEY = "no-active-key", NOT_FOUND, "No key is active",
        "Make a new one with POST /api/v1/keys/rotate; on an empty ledger with `verification-signer init`.";
    NO_CERTIFICATE = "no-certificate", NOT_FOUND, "No certificate is stored for this key",
        "Use its public key: GET /api/v1/keys/{key_id}/public.pem.";
    KEY_MAY_NOT_SIGN = "key-may-not-sign", CONFLICT, "The key does not sign in its present state",
        "Leave key_id out to sign with the active key.";
    UNKNOWN_ROTATION = "unknown-rotation", NOT_FOUND, "There is no such rotation",
        "List the rotations with GET /api/v1/rotations.";
    CHANGE_IN_PROGRESS = "change-in-progress", CONFLICT, "Another change of the keys is running",
        "Repeat the request when it has finished; a revocation never has to wait.";
    ROTATION_IN_PROGRESS = "rotation-in-progress", CONFLICT, "A rotation is in progress",
        "Complete it (POST /api/v1/rotations/{id}/complete), cancel it, or set emergency to true.";
    ROTATION_REFUSED = "rotation-refused", CONFLICT, "The checks before a rotation did not pass",
        "Correct the item that is named; dry_run shows all of them.";
    ROTATION_ENDED = "rotation-ended", CONFLICT, "The rotation is over",
        "Nothing has to be done.";
    OVERLAP_RUNNING = "overlap-running", CONFLICT, "The overlap has not ended",
        "Wait until it has, or send {\"force\": true} as application/json: the old key is then retired at once.";
    TOO_MANY_PENDING = "too-many-pending-keys", CONFLICT, "Enough keys have been generated ahead",
        "Rotate, which activates one of them.";
    CANNOT_GO_BACK = "cannot-go-back", CONFLICT, "The rotation cannot be cancelled",
        "Complete it, or rotate again.";
    PRIVATE_KEY_DESTROYED = "private-key-destroyed", CONFLICT, "The private key was destroyed",
        "Its public key and certificate are still served.";
    KEY_MAY_STILL_SIGN = "key-may-still-sign", CONFLICT, "The key may still sign",
        "Only retired and revoked keys are destroyed: rotate or revoke first.";
    RETENTION_RUNNING = "retention-running", CONFLICT, "The key is to be kept for a while",
        "Wait until then, or send {\"force\": true}.";
    UNKNOWN_APPROVAL = "unknown-approval", NOT_FOUND, "There is no such approval request",
        "List them with GET /api/v1/approvals.";
    OWN_REQUEST = "own-request", FORBIDDEN, "Nobody approves their own request",
        "Ask somebody else with one of the roles in needed.";
    APPROVAL_OF_ANOTHER = "approval-of-another", FORBIDDEN, "The approval was given to another client",
        "Send the request without Approval-Id: it then waits for an approval of its own.";
    APPROVAL_GIVEN = "approval-given", CONFLICT, "This client has approved already",
        "Others have to approve as well.";
    APPROVAL_CONTENT = "approval-content", CONFLICT, "What is asked for is not what the approval request is bound to",
        "Read it again with GET /api/v1/approvals/{approval_id}; changed content waits for an approval of its own.";
    APPROVAL_CLOSED = "approval-closed", CONFLICT, "The approval request is no longer open",
        "Send the request again without Approval-Id: it then waits for a new approval.";
    TOO_MANY_APPROVALS = "too-many-approvals", CONFLICT, "Too many requests of this client wait for approval",
        "Take some back with POST /api/v1/approvals/{approval_id}/reject.";
    IDEMPOTENCY_KEY_REUSED = "idempotency-key-reused", CONFLICT, "The Idempotency-Key was used for another request",
        "Use a new key for a new request.";
    IDEMPOTENCY_KEY_BUSY = "idempotency-key-busy", CONFLICT, "The first request with this Idempotency-Key is being worked on",
        "Repeat the request after the time in Retry-After: it will get the answer of the first one.";
    STATE_UNWRITABLE = "state-unwritable", SERVICE_UNAVAILABLE, "The signer cannot write its state directory",
        "Nothing was changed. Operators find the cause in the log.";
    NONCE_NOT_FOUND = "nonce-not-found", UNPROCESSABLE_ENTITY, "The nonce was never issued here, or is forgotten",
        "Fetch a new nonce with POST /api/v1/nonces.";
    NONCE_ALREADY_USED = "nonce-already-used", CONFLICT, "The nonce was spent on something else",
        "Fetch a new nonce with POST /api/v1/nonces; only the same client may repeat the same content.";
    NONCE_EXPIRED = "nonce-expired", UNPROCESSABLE_ENTITY, "The nonce's window has ended",
        "Fetch a new nonce with POST /api/v1/nonces and use it within its window.";
    NONCE_ISSUER_MISMATCH = "nonce-issuer-mismatch", UNPROCESSABLE_ENTITY, "The nonce was issued to another client",
        "Use nonces only from the client that fetched them.";
    NONCE_SUBJECT_MISMATCH = "nonce-subject-mismatch", UNPROCESSABLE_ENTITY, "The nonce was issued for another subject",
        "Fetch a nonce for this subject_address, or without one.";
    NONCE_TYPE_MISMATCH = "nonce-type-mismatch", UNPROCESSABLE_ENTITY, "The nonce was issued for another attestation type",
        "Fetch a nonce for this attestation_type.";
    NONCE_INVALID_TIMESTAMP = "nonce-invalid-timestamp", UNPROCESSABLE_ENTITY, "issued_at does not lie in the nonce's window",
        "Check the producer's clock, or leave issued_at out; with a nonce of your own, issued_at must be sent.";
    NONCE_INVALID_FORMAT = "nonce-invalid-format", BAD_REQUEST, "The nonce is malformed or weak",
        "Use the nonce exactly as POST /api/v1/nonces returned it.";
    NONCE_STORE_FULL = "nonce-store-full", TOO_MANY_REQUESTS, "Too many nonces are outstanding",
        "Spend outstanding nonces or wait for them to expire.";
    NONCE_STORE_FAILOVER = "nonce-store-failover", CONFLICT, "The nonce store has failed over since the nonce was issued",
        "Fetch a new nonce with POST /api/v1/nonces; of your own nonces, make a new one with a new issued_at.";
    RATE_LIMITED = "rate-limited", TOO_MANY_REQUESTS, "A limit is reached",
        "Repeat the request after the time in Retry-After.";
    BLOCKED = "blocked", FORBIDDEN, "The caller, its address or the subject is blocked",
        "Ask the security staff of this signer; they see the block with GET /api/v1/blocks/{id}.";
    UNKNOWN_BLOCK = "unknown-block", NOT_FOUND, "There is no such block, or it is over",
        "List the blocks with GET /api/v1/blocks?all=true.";
    TOO_MANY_BLOCKS = "too-many-blocks", CONFLICT, "Enough blocks are kept already",
        "Lift some, or block networks instead of single addresses.";
    BLOCKS_UNAVAILABLE = "blocks-unavailable", SERVICE_UNAVAILABLE, "The list of blocks cannot be changed",
        "Nothing was changed. Operators find the cause in the log.";
    IN_PROGRESS = "in-progress", SERVICE_UNAVAILABLE, "The same request is being signed right now",
        "Repeat the request: it will get the answer of the first one.";
    MAINTENANCE = "maintenance", SERVICE_UNAVAILABLE, "The signer is out of service for maintenance",
        "Nothing was signed or spent. Repeat the request after the time in Retry-After, or ask another appliance.";
    BUSY = "busy", SERVICE_UNAVAILABLE, "The signer has too much to do",
        "Repeat the request after the time in Retry-After.";
    NOTHING_CAN_SIGN = "no-key-may-sign", SERVICE_UNAVAILABLE, "No key may sign now",
        "Make a new key with POST /api/v1/keys/rotate, or POST /api/v1/keys/emergency after a compromise; GET /healthz says more.";
    PRIMARY_AWAY = "primary-token-away", SERVICE_UNAVAILABLE, "The primary token does not answer, and keys are changed there only",
        "Nothing was changed; revocations are still taken. Operators bring the primary back, or make a standby the primary (RUNBOOK).";
    STANDBY_AWAY = "standby-token-away", SERVICE_UNAVAILABLE, "The token whose keys these are does not answer",
        "Nothing was changed; revocations are still taken. Operators bring that token back (RUNBOOK); what is due on it is done then.";
    TOKEN_UNAVAILABLE = "token-unavailable", SERVICE_UNAVAILABLE, "The token does not answer as it should",
        "Nothing was signed. Repeat later; operators find the cause in the log and GET /healthz.";
    NONCE_STORE_UNAVAILABLE = "nonce-store-unavailable", SERVICE_UNAVAILABLE, "The nonce store does not answer",
        "Nothing was signed. Repeat later; operators find the cause in the log and GET /healthz.";
    AUDIT_UNAVAILABLE = "audit-unavailable", SERVICE_UNAVAILABLE, "The audit trail cannot be written",
        "Nothing is signed without a record. Operators find the cause in the log and GET /healthz.";
    NO_CHECKPOINT = "no-checkpoint", NOT_FOUND, "The trail has not been signed yet",
        "Ask again in a minute.";
    NO_SUCH_RECORD = "no-such-record", NOT_FOUND, "The trail is not that long",
        "GET /api/v1/audit?limit=1 shows the last record.";
    SEARCH_TOO_BROAD = "search-too-broad", BAD_REQUEST, "The search would take too long",
        "Give a time range (since, until), or a condition that fewer records fulfil.";
    INDEX_BUILDING = "index-building", SERVICE_UNAVAILABLE, "The index of the trail is being made",
        "Ask again later; signing goes on meanwhile.";
    AUDIT_DISK_FULL = "audit-disk-full", SERVICE_UNAVAILABLE, "The disk of the audit trail is full",
        "Nothing is signed without a record. Make room on the disk: signing goes on by itself. Keys can still be revoked and rotated.";
    AUDIT_READ_ONLY = "audit-read-only", SERVICE_UNAVAILABLE, "The file system of the audit trail is read-only",
        "Nothing is signed without a record. Make it writable: signing goes on by itself.";
    AUDIT_FILE_LOST = "audit-file-lost", SERVICE_UNAVAILABLE, "The file of the audit trail was moved, replaced or removed",
        "Nothing is signed without a record. Find the file and put it back, then start the signer again: it checks the trail.";
    AUDIT_ROLLED_BACK = "audit-rolled-back", SERVICE_UNAVAILABLE, "The audit trail is not the one that others remember",
        "Nothing is signed until an operator decides; GET /healthz says what was found and how to go on.";
    INTERNAL = "internal", INTERNAL_SERVER_ERROR, "The signer found itself in a state it must not be in",
        "Nothing was released. Operators find the cause in the log under the request id.";
}

/// A field that is not acceptable.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// Dotted path of the field, e.g. `verification_proofs[0].score`.
    pub field: String,
    pub detail: String,
}

/// One refusal.
#[derive(Debug)]
pub struct Problem {
    kind: &'static Kind,
    detail: String,
    errors: Vec<FieldError>,
    retry_after: Option<u32>,
    /// The limit that was reached: its name, how many, in how many seconds.
    policy: Option<(String, u32, u64)>,
}

#[derive(Serialize, utoipa::ToSchema)]
#[schema(as = Problem)]
pub(super) struct Body<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    detail: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// Under which the log and the audit trail know the request.
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl Problem {
    /// A refusal of this kind; `detail` says what of this very request was refused.
    pub fn new(kind: &'static Kind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), errors: Vec::new(), retry_after: None, policy: None }
    }

    /// A field that is not acceptable.
    pub fn field(field: impl Into<String>, detail: impl Into<String>) -> Self {
        let error = FieldError { field: field.into(), detail: detail.into() };
        Self { errors: vec![error.clone()], ..Self::new(&INVALID_FIELD, format!("{}: {}", error.field, error.detail)) }
    }

    /// What kind of refusal it is.
    #[must_use]
    pub fn kind(&self) -> &'static Kind {
        self.kind
    }

    fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// The body. The remedy stands in `detail`, so that a person with curl reads it at once.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        let detail = match self.detail.trim_end_matches('.') {
            "" => self.kind.remedy.to_owned(),
            detail => format!("{detail}. {}", self.kind.remedy),
        };
        let current = CURRENT.try_with(Clone::clone).ok();
        let body = Body {
            request_id: current.as_ref().map(|current| current.request_id.clone()),
            trace_id: current.and_then(|current| current.trace).map(|trace| trace.id()),
            r#type: format!("/problems/{}", self.kind.name),
            title: self.kind.title,
            status: self.kind.status.as_u16(),
            detail: &detail,
            errors: &self.errors,
        };
        serde_json::to_vec(&body).expect("a problem is plain text and numbers")
    }

    /// The response.
    #[must_use]
    pub fn to_response(&self) -> HttpResponse {
        let mut response = HttpResponse::build(self.kind.status);
        response.content_type("application/problem+json");
        if let Some(seconds) = self.retry_after {
            response.insert_header((header::RETRY_AFTER, seconds));
        }
        if let Some((name, quota, window)) = &self.policy {
            let wait = self.retry_after.unwrap_or_default();
            response.insert_header(("ratelimit-policy", format!("\"{name}\";q={quota};w={window}")));
            response.insert_header(("ratelimit", format!("\"{name}\";r=0;t={wait}")));
        }
        response.body(self.to_json())
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.kind.name, self.detail)
    }
}

impl ResponseError for Problem {
    fn status_code(&self) -> StatusCode {
        self.kind.status
    }

    fn error_response(&self) -> HttpResponse {
        self.to_response()
    }
}

impl From<Error> for Problem {
    /// Inner messages go to the log, never to the caller.
    fn from(error: Error) -> Self {
        match error.class() {
            Class::Caller => {}
            Class::Busy => tracing::info!(%error, "turned away"),
            Class::Dependency => tracing::warn!(%error, "a dependency failed"),
            Class::Fatal => tracing::error!(%error, "a promise could not be kept"),
        }
        Self::of(&error)
    }
}

impl Problem {
    /// The one translation.
    fn of(error: &Error) -> Self {
        match error {
            Error::Shared(error) => Self::of(error),
            Error::Field(field) => Self::field(field.field, field.detail),
            Error::Nonce(refusal) => refused_nonce(*refusal),
            Error::Limited(exceeded) => limited(exceeded),
            Error::Blocked { id, until } => Self::new(
                &BLOCKED,
                match until {
                    Some(until) => format!("Block {id} holds until {until}."),
                    None => format!("Block {id} holds until it is lifted."),
                },
            ),
            Error::UnknownBlock(id) => Self::new(&UNKNOWN_BLOCK, format!("There is no block {id:?}.")),
            Error::Blocks(crate::limits::blocks::Error::Full) => Self::new(&TOO_MANY_BLOCKS, ""),
            Error::Blocks(_) => Self::new(&BLOCKS_UNAVAILABLE, ""),
            Error::NonceStoreFull(bound) => Self::new(&NONCE_STORE_FULL, full(*bound)).retry_after(30),
            // Who has spent it is the operator's to know.
            Error::NonceReplayed { .. } => refused_nonce(Refusal::AlreadyUsed),
            Error::NotPermitted(what) => Self::new(&NOT_PERMITTED, format!("This client may not {what}.")),
            Error::Approval(refusal) => refused_approval(refusal),
            Error::Once(Conflict::OtherContent) => Self::new(&IDEMPOTENCY_KEY_REUSED, ""),
            Error::Once(Conflict::Running) => Self::new(&IDEMPOTENCY_KEY_BUSY, "").retry_after(1),
            Error::StateUnwritable | Error::Once(Conflict::Disk) => Self::new(&STATE_UNWRITABLE, "").retry_after(30),
            Error::Maintenance(pause) => {
                Self::new(&MAINTENANCE, format!("Since {}: {}", pause.since, pause.reason)).retry_after(60)
            }
            Error::InProgress => Self::new(&IN_PROGRESS, "").retry_after(1),
            Error::UnknownKey(id) => Self::new(&UNKNOWN_KEY, format!("There is no key {id:?}.")),
            Error::KeyMayNotSign { id, state } => match state {
                KeyState::Expired => {
                    Self::new(&NOTHING_CAN_SIGN, format!("Key {id} has reached its end date.")).retry_after(60)
                }
                KeyState::Pending | KeyState::Active | KeyState::Rotating | KeyState::Retired | KeyState::Revoked => {
                    Self::new(&KEY_MAY_NOT_SIGN, format!("Key {id} is {}.", state.as_str()))
                }
            },
            Error::UnknownRotation(id) => Self::new(&UNKNOWN_ROTATION, format!("There is no rotation {id:?}.")),
            Error::ChangeInProgress | Error::LostRace => Self::new(&CHANGE_IN_PROGRESS, ""),
            Error::RotationInProgress { rotation } => {
                Self::new(&ROTATION_IN_PROGRESS, format!("{rotation} is in progress."))
            }
            Error::FirstKey(refusal) => Self::new(&ROTATION_REFUSED, format!("{refusal}.")),
            Error::Preflight { item, detail } => Self::new(&ROTATION_REFUSED, format!("{item} failed: {detail}.")),
            Error::RotationEnded { rotation, status } => Self::new(&ROTATION_ENDED, format!("{rotation} is {status}.")),
            Error::OverlapRunning { rotation, until } => {
                Self::new(&OVERLAP_RUNNING, format!("The overlap of {rotation} runs until {until}."))
            }
            Error::CannotGoBack { rotation, old, state } => Self::new(
                &CANNOT_GO_BACK,
                format!("{rotation} would bring back key {old}, which is {}.", state.as_str()),
            ),
            Error::KeyDestroyed { id, at } => {
                Self::new(&PRIVATE_KEY_DESTROYED, format!("Key {id} was destroyed at {at}."))
            }
            Error::TooManyPending { limit } => Self::new(&TOO_MANY_PENDING, format!("{limit} keys are pending.")),
            Error::KeyMayStillSign { id, state } => {
                Self::new(&KEY_MAY_STILL_SIGN, format!("Key {id} is {}.", state.as_str()))
            }
            Error::RetentionRunning { id, until } => {
                Self::new(&RETENTION_RUNNING, format!("Key {id} is kept until {until}."))
            }
            Error::PrimaryAway { token, signing } => {
                Self::new(&PRIMARY_AWAY, primary_away(token, signing.as_deref())).retry_after(30)
            }
            Error::StandbyAway { token } => {
                Self::new(&STANDBY_AWAY, format!("{token} does not answer.")).retry_after(30)
            }
            Error::StaleLedger | Error::LedgerRolledBack(_) | Error::FleetLock(_) => {
                Self::new(&TOKEN_UNAVAILABLE, "").retry_after(2)
            }
            Error::NoActiveKey => Self::new(&NOTHING_CAN_SIGN, "").retry_after(60),
            Error::Chain(invalid) => Self::field("(body)", invalid.to_string()),
            Error::NoCertificate(id) => Self::new(&NO_CERTIFICATE, format!("Key {id} has none.")),
            Error::NonceStore(_) => Self::new(&NONCE_STORE_UNAVAILABLE, "").retry_after(2),
            Error::Token(crate::token::Error::Busy | crate::token::Error::Deadline(_)) => {
                Self::new(&BUSY, "").retry_after(1)
            }
            Error::Token(_) | Error::LedgerUnavailable(_) | Error::Ledger(_) => {
                Self::new(&TOKEN_UNAVAILABLE, "").retry_after(5)
            }
            Error::Audit(crate::audit::Error::Busy) => Self::new(&BUSY, "").retry_after(1),
            Error::Audit(crate::audit::Error::Stopped(stop)) => stopped_trail(*stop),
            Error::Audit(crate::audit::Error::Withheld(_)) => Self::new(&AUDIT_ROLLED_BACK, "").retry_after(60),
            Error::Trail(error) => unanswered(error),
            Error::NoAuditKey => Self::new(&AUDIT_UNAVAILABLE, "").retry_after(30),
            Error::Internal(_) => Self::new(&INTERNAL, ""),
        }
    }
}

fn limited(exceeded: &Exceeded) -> Problem {
    let Charge { principal, limit, window, quota, .. } = &exceeded.charge;
    let whose = principal.kind();
    let detail = match window {
        Window::CoolDown => format!("There were too many failures of {limit} for this {whose}."),
        Window::Rate | Window::Hour | Window::Day | Window::Failures => format!(
            "This {whose} has had what it may have of {limit}: {} in {}.",
            quota.burst,
            humantime::format_duration(Duration::from_secs(quota.window_seconds()))
        ),
    };
    let mut problem = Problem::new(&RATE_LIMITED, detail).retry_after(exceeded.retry_after_seconds());
    problem.policy = Some((exceeded.charge.field(), quota.burst, quota.window_seconds()));
    problem
}

fn primary_away(token: &str, signing: Option<&str>) -> String {
    let signing = signing.map_or_else(|| "no standby signs".to_owned(), |standby| format!("{standby} signs meanwhile"));
    format!("The primary token {token} does not answer; {signing}.")
}

fn full(bound: Bound) -> &'static str {
    match bound {
        Bound::Issuer => "This client holds as many unspent nonces as one client may (outstanding_per_issuer).",
        Bound::Store => "The nonce store as a whole holds as many nonces as it may (capacity).",
        Bound::Memory => "The nonce store is out of memory.",
    }
}

fn refused_approval(refusal: &approvals::Refusal) -> Problem {
    use approvals::Refusal;
    let kind = match refusal {
        Refusal::Unknown(_) => &UNKNOWN_APPROVAL,
        Refusal::OwnRequest => &OWN_REQUEST,
        Refusal::MissingRole { .. } | Refusal::MayNotBreakGlass { .. } => &MISSING_ROLE,
        Refusal::AlreadyGiven => &APPROVAL_GIVEN,
        Refusal::OtherContent => &APPROVAL_CONTENT,
        Refusal::AnothersRequest => &APPROVAL_OF_ANOTHER,
        Refusal::Closed(_) => &APPROVAL_CLOSED,
        Refusal::TooMany => &TOO_MANY_APPROVALS,
        Refusal::Disk => return Problem::new(&STATE_UNWRITABLE, "").retry_after(30),
    };
    Problem::new(kind, super::authn::sentence(&refusal.to_string()))
}

fn unanswered(error: &IndexError) -> Problem {
    match error {
        IndexError::Building { .. } => Problem::new(&INDEX_BUILDING, format!("{error}.")).retry_after(5),
        IndexError::TooBroad => Problem::new(&SEARCH_TOO_BROAD, ""),
        IndexError::Beyond { .. } => Problem::new(&NO_SUCH_RECORD, format!("{error}.")),
        IndexError::Io(_) | IndexError::Database(_) => Problem::new(&INDEX_BUILDING, "").retry_after(5),
    }
}

fn stopped_trail(stop: Stop) -> Problem {
    let kind = match stop {
        Stop::DiskFull => &AUDIT_DISK_FULL,
        Stop::ReadOnly => &AUDIT_READ_ONLY,
        Stop::FileLost => &AUDIT_FILE_LOST,
        Stop::Failed => &AUDIT_UNAVAILABLE,
    };
    Problem::new(kind, "").retry_after(30)
}

fn refused_nonce(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::NotFound => Problem::new(&NONCE_NOT_FOUND, ""),
        Refusal::AlreadyUsed => Problem::new(&NONCE_ALREADY_USED, ""),
        Refusal::Expired => Problem::new(&NONCE_EXPIRED, ""),
        Refusal::IssuerMismatch => Problem::new(&NONCE_ISSUER_MISMATCH, ""),
        Refusal::SubjectMismatch => Problem::new(&NONCE_SUBJECT_MISMATCH, ""),
        Refusal::TypeMismatch => Problem::new(&NONCE_TYPE_MISMATCH, ""),
        Refusal::InvalidTimestamp => Problem::new(&NONCE_INVALID_TIMESTAMP, ""),
        Refusal::InvalidFormat => Problem::new(&NONCE_INVALID_FORMAT, ""),
        Refusal::StoreFull => Problem::new(&NONCE_STORE_FULL, "").retry_after(30),
        Refusal::StoreFailover => Problem::new(&NONCE_STORE_FAILOVER, ""),
    }
}

/// `GET /problems`: every problem type, one a line.
#[utoipa::path(
    get,
    path = "/problems",
    operation_id = "problem_list",
    tag = "problem",
    responses(
        (status = 200, description = "As text", body = String, content_type = "text/plain"),
    )
)]
pub async fn list() -> HttpResponse {
    let line = |kind: &Kind| format!("{:<28} {}  {}\n", kind.name, kind.status.as_u16(), kind.title);
    let text: String = KINDS.iter().map(line).collect();
    HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text)
}

/// `GET /problems/{name}`: what a problem type means.
#[utoipa::path(
    get,
    path = "/problems/{name}",
    operation_id = "problem_explain",
    tag = "problem",
    params(("name" = String, Path)),
    responses(
        (status = 200, description = "As text", body = String, content_type = "text/plain"),
    )
)]
pub async fn explain(name: web::Path<String>) -> Result<HttpResponse, Problem> {
    let kind = KINDS.iter().find(|kind| kind.name == name.as_str()).ok_or_else(nothing_here)?;
    let text = format!("{} (status {})\n\n{}.\n{}\n", kind.name, kind.status.as_u16(), kind.title, kind.remedy);
    Ok(HttpResponse::Ok().content_type("text/plain; charset=utf-8").body(text))
}

fn nothing_here() -> Problem {
    Problem::new(&NOT_FOUND, "")
}

/// Answers every path that no route takes.
pub async fn not_found() -> HttpResponse {
    nothing_here().to_response()
}

/// Answers every method that a path does not take.
pub fn method_not_allowed(allow: &str) -> HttpResponse {
    let mut response = Problem::new(&METHOD_NOT_ALLOWED, "").to_response();
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_str(allow).expect("names of methods"));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_every_remedy_is_a_sentence() {
        let mut names: Vec<_> = KINDS.iter().map(|kind| kind.name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), KINDS.len());
        assert!(KINDS.iter().all(|kind| kind.remedy.ends_with('.')));
    }
}
