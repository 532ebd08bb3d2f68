//! Which records are wanted.

use std::borrow::Cow;

use serde::Deserialize;

use super::{EventType, Outcome, Severity};
use crate::timestamp::Timestamp;

/// Every condition that is given must hold.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    pub event_type: Option<EventType>,
    pub actor: Option<String>,
    pub resource: Option<String>,
    pub key_id: Option<String>,
    pub ip: Option<String>,
    pub outcome: Option<Outcome>,
    pub severity: Option<Severity>,
    /// Not before.
    pub since: Option<Timestamp>,
    /// Not after.
    pub until: Option<Timestamp>,
}

/// What can be asked of a record.
#[derive(Debug, Deserialize)]
pub struct Facts<'a> {
    pub sequence: u64,
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    pub timestamp: Timestamp,
    #[serde(borrow)]
    pub actor: Cow<'a, str>,
    #[serde(borrow)]
    pub resource: Cow<'a, str>,
    #[serde(borrow)]
    pub outcome: Cow<'a, str>,
    #[serde(borrow)]
    pub severity: Cow<'a, str>,
    #[serde(default)]
    details: Details,
    #[serde(default, borrow)]
    request: Option<Request<'a>>,
}

#[derive(Debug, Default, Deserialize)]
struct Details {
    #[serde(default)]
    key_id: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Request<'a> {
    #[serde(borrow)]
    ip_address: Cow<'a, str>,
}

impl<'a> Facts<'a> {
    /// Reads a record.
    #[must_use]
    pub fn parse(line: &'a [u8]) -> Option<Self> {
        serde_json::from_slice(line).ok()
    }

    /// The key it is about, if it names one.
    #[must_use]
    pub fn key_id(&self) -> Option<&str> {
        self.details.key_id.as_deref()
    }

    /// Where the request came from, if there was one.
    #[must_use]
    pub fn ip(&self) -> Option<&str> {
        self.request.as_ref().map(|request| &*request.ip_address)
    }
}

impl Filter {
    /// The conditions that ask for one exact text, with the name of what they ask for.
    #[must_use]
    pub fn texts(&self) -> Vec<(Field, &str)> {
        let given = [
            (Field::Type, self.event_type.map(EventType::as_str)),
            (Field::Actor, self.actor.as_deref()),
            (Field::Resource, self.resource.as_deref()),
            (Field::Key, self.key_id.as_deref()),
            (Field::Ip, self.ip.as_deref()),
            (Field::Outcome, self.outcome.map(Outcome::as_str)),
            (Field::Severity, self.severity.map(Severity::as_str)),
        ];
        given.into_iter().filter_map(|(field, text)| Some((field, text?))).collect()
    }

    /// Whether the record is wanted.
    #[must_use]
    pub fn accepts(&self, facts: &Facts<'_>) -> bool {
        self.texts().into_iter().all(|(field, text)| field.of(facts) == Some(text))
            && self.since.is_none_or(|since| facts.timestamp >= since)
            && self.until.is_none_or(|until| facts.timestamp <= until)
    }
}

/// A part of a record that filters ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Field {
    Type,
    Actor,
    Resource,
    Key,
    Ip,
    Outcome,
    Severity,
}

impl Field {
    /// All of them.
    pub const ALL: [Self; 7] =
        [Self::Type, Self::Actor, Self::Resource, Self::Key, Self::Ip, Self::Outcome, Self::Severity];

    /// The name of its column in the index.
    #[must_use]
    pub fn column(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Actor => "actor",
            Self::Resource => "resource",
            Self::Key => "key",
            Self::Ip => "ip",
            Self::Outcome => "outcome",
            Self::Severity => "severity",
        }
    }

    /// What a record says there.
    #[must_use]
    pub fn of<'a>(self, facts: &'a Facts<'_>) -> Option<&'a str> {
        match self {
            Self::Type => Some(&facts.kind),
            Self::Actor => Some(&facts.actor),
            Self::Resource => Some(&facts.resource),
            Self::Key => facts.key_id(),
            Self::Ip => facts.ip(),
            Self::Outcome => Some(&facts.outcome),
            Self::Severity => Some(&facts.severity),
        }
    }
}
