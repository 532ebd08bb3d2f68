//! Who is asking: what the front door found out about a caller, carried to policy and audit.

use std::{collections::BTreeSet, fmt, net::IpAddr, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::attestation::AttestationType;

/// The name under which a caller is known to nonces, limits and the audit trail.
///
/// Without authentication it is `anonymous@<address>`: the address is then all there is to bind to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ClientIdentity(Arc<str>);

impl ClientIdentity {
    /// The identity of a caller who did not authenticate.
    #[must_use]
    pub fn anonymous(address: IpAddr) -> Self {
        Self(format!("anonymous@{address}").into())
    }

    /// Whether nothing is known of the caller but the address.
    #[must_use]
    pub fn is_anonymous(&self) -> bool {
        self.0.starts_with("anonymous@")
    }

    /// The identity as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<&str> for ClientIdentity {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Whom records name where nobody asked: the program itself, on schedule, at a start, or as a command.
/// No client may have one of these names.
pub const PROGRAM: [&str; 7] = ["verification-signer", "abuse-score", "automatic", "start", "serve", "init", "dev"];

/// What a client is to this signer. Nothing is allowed without one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Nonces, attestations, signatures, verification.
    Producer,
    /// Rotations, and what else keeps the signer running.
    Operator,
    /// Revocations, emergencies, the end of keys.
    Security,
    /// Reads everything.
    Auditor,
    /// Reads the metrics.
    Metrics,
}

impl Role {
    /// Every role.
    pub const ALL: [Self; 5] = [Self::Producer, Self::Operator, Self::Security, Self::Auditor, Self::Metrics];

    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Producer => "producer",
            Self::Operator => "operator",
            Self::Security => "security",
            Self::Auditor => "auditor",
            Self::Metrics => "metrics",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// All of a kind, or those that are named. Nothing is in it by default.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope<T> {
    All,
    Only(BTreeSet<T>),
}

impl<T: Ord> Scope<T> {
    /// Whether this one is in it.
    pub fn has<Q: Ord + ?Sized>(&self, item: &Q) -> bool
    where
        T: std::borrow::Borrow<Q>,
    {
        match self {
            Self::All => true,
            Self::Only(items) => items.contains(item),
        }
    }
}

/// What a client may do. As a producer it is bound to types, purposes and keys besides.
#[derive(Clone, Debug)]
pub struct Grants {
    pub roles: BTreeSet<Role>,
    pub attestation_types: Scope<AttestationType>,
    pub purposes: Scope<String>,
    /// Key ids; [`ACTIVE_KEY`] stands for the key that is active when it is used.
    pub keys: Scope<String>,
}

/// In a list of keys: whichever is active.
pub const ACTIVE_KEY: &str = "active";

impl Grants {
    /// Everything: where nobody is authenticated, on loopback.
    #[must_use]
    pub fn everything() -> Self {
        let roles = Role::ALL.into_iter().collect();
        Self { roles, attestation_types: Scope::All, purposes: Scope::All, keys: Scope::All }
    }

    /// Nothing: for whoever did not say who they are.
    #[must_use]
    pub fn nothing() -> Self {
        Self {
            roles: BTreeSet::new(),
            attestation_types: Scope::Only(BTreeSet::new()),
            purposes: Scope::Only(BTreeSet::new()),
            keys: Scope::Only(BTreeSet::new()),
        }
    }

    /// Whether one of these roles is held.
    #[must_use]
    pub fn has_any(&self, roles: &[Role]) -> bool {
        roles.iter().any(|role| self.roles.contains(role))
    }

    /// Whether a key may be used, given whether it is the active one.
    #[must_use]
    pub fn may_use_key(&self, key_id: &str, is_active: bool) -> bool {
        self.keys.has(key_id) || (is_active && self.keys.has(ACTIVE_KEY))
    }
}

/// One request's caller and circumstances, as far as the audit trail wants to know them.
#[derive(Clone, Debug)]
pub struct Client {
    pub identity: ClientIdentity,
    pub grants: Arc<Grants>,
    pub request_id: String,
    /// The trace that the caller follows the request by (W3C Trace Context).
    pub trace_id: Option<String>,
    pub address: IpAddr,
    pub user_agent: Option<String>,
    pub method: String,
    pub endpoint: String,
}
