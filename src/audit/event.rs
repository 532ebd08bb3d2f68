//! One record of the trail.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::replay::OpenIntent;
use crate::{client::Client, timestamp::Timestamp};

/// The detail of an outcome that names its intent.
const INTENT: &str = "intent_sequence";

/// What kind of thing happened. The text form is the wire form, the filter and the metric label.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EventType {
    KeyGenerated,
    KeyActivated,
    KeyRotated,
    KeyRotationCompleted,
    KeyRevoked,
    KeyExpired,
    KeyAccessed,
    AttestationSigned,
    AttestationVerified,
    AttestationRejected,
    NonceCreated,
    NonceUsed,
    NonceExpired,
    NonceRejected,
    RateLimitExceeded,
    AbuseDetected,
    IpBanned,
    AccessGranted,
    AccessDenied,
    ConfigChanged,
    ServiceStarted,
    ServiceStopped,
    Error,
    HealthCheck,
    SecurityAlert,
}

impl EventType {
    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeyGenerated => "key_generated",
            Self::KeyActivated => "key_activated",
            Self::KeyRotated => "key_rotated",
            Self::KeyRotationCompleted => "key_rotation_completed",
            Self::KeyRevoked => "key_revoked",
            Self::KeyExpired => "key_expired",
            Self::KeyAccessed => "key_accessed",
            Self::AttestationSigned => "attestation_signed",
            Self::AttestationVerified => "attestation_verified",
            Self::AttestationRejected => "attestation_rejected",
            Self::NonceCreated => "nonce_created",
            Self::NonceUsed => "nonce_used",
            Self::NonceExpired => "nonce_expired",
            Self::NonceRejected => "nonce_rejected",
            Self::RateLimitExceeded => "rate_limit_exceeded",
            Self::AbuseDetected => "abuse_detected",
            Self::IpBanned => "ip_banned",
            Self::AccessGranted => "access_granted",
            Self::AccessDenied => "access_denied",
            Self::ConfigChanged => "config_changed",
            Self::ServiceStarted => "service_started",
            Self::ServiceStopped => "service_stopped",
            Self::Error => "error",
            Self::HealthCheck => "health_check",
            Self::SecurityAlert => "security_alert",
        }
    }

    /// Whether the record may take the room that is kept for the time when the disk is full: what
    /// security staff do to keys, and what happens to the service itself. Never a signature.
    #[must_use]
    pub fn may_use_reserve(self) -> bool {
        match self {
            Self::KeyGenerated
            | Self::KeyActivated
            | Self::KeyRotated
            | Self::KeyRotationCompleted
            | Self::KeyRevoked
            | Self::KeyExpired
            | Self::IpBanned
            | Self::ConfigChanged
            | Self::ServiceStarted
            | Self::ServiceStopped
            | Self::Error
            | Self::SecurityAlert => true,
            Self::KeyAccessed
            | Self::AttestationSigned
            | Self::AttestationVerified
            | Self::AttestationRejected
            | Self::NonceCreated
            | Self::NonceUsed
            | Self::NonceExpired
            | Self::NonceRejected
            | Self::RateLimitExceeded
            | Self::AbuseDetected
            | Self::AccessGranted
            | Self::AccessDenied
            | Self::HealthCheck => false,
        }
    }
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    Success,
    Failure,
    Pending,
    /// It was announced, and nobody saw its end.
    Unknown,
}

impl Outcome {
    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Pending => "pending",
            Self::Unknown => "unknown",
        }
    }
}

/// How much attention it wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    Info,
    Warning,
    Critical,
}

impl Severity {
    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// Which service wrote the record: the same in every record of one process.
#[derive(Clone, Debug, Serialize)]
pub struct Source {
    pub service: &'static str,
    pub component: &'static str,
    pub instance: String,
    pub version: &'static str,
    pub host: String,
}

/// Who asked, from where.
#[derive(Clone, Debug, Serialize)]
struct Request {
    request_id: String,
    ip_address: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<String>,
    endpoint: String,
    method: String,
}

/// One record, before the writer gives it its sequence number.
#[derive(Clone, Debug, Serialize)]
pub struct Event {
    id: uuid::Uuid,
    #[serde(rename = "type")]
    pub(super) kind: EventType,
    timestamp: Timestamp,
    actor: String,
    resource: String,
    action: Cow<'static, str>,
    outcome: Outcome,
    pub(super) severity: Severity,
    #[serde(skip_serializing_if = "Map::is_empty")]
    details: Map<String, Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request: Option<Request>,
    /// Seconds the action took, where it was timed.
    #[serde(skip_serializing_if = "Option::is_none")]
    duration: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace_id: Option<String>,
}

impl Event {
    /// A successful action of this service itself.
    #[must_use]
    pub fn of_service(kind: EventType, action: &'static str, resource: impl Into<String>, now: Timestamp) -> Self {
        Self {
            id: uuid::Uuid::now_v7(),
            kind,
            timestamp: now,
            actor: "verification-signer".into(),
            resource: resource.into(),
            action: action.into(),
            outcome: Outcome::Success,
            severity: Severity::Info,
            details: Map::new(),
            request: None,
            duration: None,
            trace_id: None,
        }
    }

    /// A successful action that `client` asked for.
    #[must_use]
    pub fn of_client(
        kind: EventType,
        action: &'static str,
        resource: impl Into<String>,
        client: &Client,
        now: Timestamp,
    ) -> Self {
        Self::of_service(kind, action, resource, now).asked_by(client)
    }

    /// The same event as something that `client` asked for.
    #[must_use]
    pub fn asked_by(mut self, client: &Client) -> Self {
        self.actor = client.identity.to_string();
        self.trace_id.clone_from(&client.trace_id);
        self.request = Some(Request {
            request_id: client.request_id.clone(),
            ip_address: client.address.to_string(),
            user_agent: client.user_agent.clone(),
            endpoint: client.endpoint.clone(),
            method: client.method.clone(),
        });
        self
    }

    /// Who did it.
    #[must_use]
    pub fn actor(&self) -> &str {
        &self.actor
    }

    /// The same event with another actor, for actions by a person on the command line.
    #[must_use]
    pub fn by(mut self, actor: &str) -> Self {
        self.actor = actor.to_owned();
        self
    }

    /// The same event as one of another kind.
    #[must_use]
    pub fn of_kind(mut self, kind: EventType) -> Self {
        self.kind = kind;
        self
    }

    /// The same event as an intent: what is about to be done.
    #[must_use]
    pub fn pending(mut self) -> Self {
        self.outcome = Outcome::Pending;
        self
    }

    /// The same event with another severity.
    #[must_use]
    pub fn of_severity(mut self, severity: Severity) -> Self {
        self.severity = severity;
        self
    }

    /// The same event as a failure.
    #[must_use]
    pub fn failed(mut self, severity: Severity) -> Self {
        self.outcome = Outcome::Failure;
        self.severity = severity;
        self
    }

    /// The same event with one more detail. Nonces are recorded by their hash: a reader of the
    /// trail must not be able to spend one.
    #[must_use]
    pub fn detail(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.add_detail(name, value);
        self
    }

    pub(super) fn add_detail(&mut self, name: &str, value: impl Into<Value>) {
        self.details.insert(name.to_owned(), value.into());
    }

    /// What follows the record `sequence` of this event when its signature was thrown away after all.
    #[must_use]
    pub fn discarded(mut self, sequence: u64, now: Timestamp) -> Self {
        self.id = uuid::Uuid::now_v7();
        self.timestamp = now;
        self.action = "discard".into();
        if self.kind == EventType::AttestationSigned {
            self.kind = EventType::AttestationRejected;
        }
        self.failed(Severity::Warning).detail("discarded_sequence", sequence)
    }

    /// The same event with another outcome.
    #[must_use]
    pub fn with_outcome(mut self, outcome: Outcome) -> Self {
        self.outcome = outcome;
        self
    }

    /// The same event as the outcome of the intent on record under this sequence.
    #[must_use]
    pub(super) fn of_intent(mut self, sequence: u64) -> Self {
        self.id = uuid::Uuid::now_v7();
        self.detail(INTENT, sequence)
    }

    /// What the record opens, when it is an intent, and which intent it closes, when it is an outcome.
    pub(super) fn links(&self) -> (Option<OpenIntent>, Option<u64>) {
        let opens = (self.outcome == Outcome::Pending)
            .then(|| OpenIntent::of(self.kind.as_str(), &self.actor, &self.resource, &self.action));
        (opens, self.details.get(INTENT).and_then(Value::as_u64))
    }

    /// The outcome of an intent whose end a crash kept from everyone.
    #[must_use]
    pub(super) fn of_lost_intent(sequence: u64, intent: &OpenIntent, now: Timestamp) -> Self {
        let kind = serde_json::from_value(Value::String(intent.kind.clone())).unwrap_or(EventType::Error);
        let event = Self::of_service(kind, "", intent.resource.clone(), now).by(&intent.actor);
        Self { action: intent.action.clone().into(), ..event }
            .with_outcome(Outcome::Unknown)
            .of_severity(Severity::Warning)
            .of_intent(sequence)
    }

    /// The record as JSON, without the fields that the writer adds.
    pub(super) fn to_json(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("events are text and numbers")
    }
}
