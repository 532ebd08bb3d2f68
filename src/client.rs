//! Who is asking: what the front door found out about a caller, carried to policy and audit.

use std::{fmt, net::IpAddr, sync::Arc};

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

/// One request's caller and circumstances, as far as the audit trail wants to know them.
#[derive(Clone, Debug)]
pub struct Client {
    pub identity: ClientIdentity,
    pub request_id: String,
    pub address: IpAddr,
    pub user_agent: Option<String>,
    pub method: String,
    pub endpoint: String,
}
