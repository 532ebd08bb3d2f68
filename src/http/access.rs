//! Who may call what: one row a route. A route without a row does not come up; a test holds both
//! lists together, and the served description of the interface is made from this one.

use crate::client::Role::{self, Auditor, Operator, Producer, Security};

/// Who may call one route.
#[derive(Debug, PartialEq, Eq)]
pub struct Access {
    pub method: &'static str,
    pub path: &'static str,
    pub allowed: Allowed,
    pub recorded: Recorded,
}

/// Whether the trail says that somebody was let through.
#[derive(Debug, PartialEq, Eq)]
pub enum Recorded {
    Never,
    /// Whoever looks on for hours is on record, without filling the trail.
    OnceAMinute,
    Always,
}

/// Who.
#[derive(Debug, PartialEq, Eq)]
pub enum Allowed {
    /// Whoever asks; no credential is looked at.
    Everybody,
    /// Whoever asks, also without a credential; one that is shown must be good.
    Guests,
    /// Whoever has one of these roles.
    Holders(&'static [Role]),
}

const READERS: &[Role] = &[Operator, Security, Auditor];
const MEMBERS: &[Role] = &[Producer, Operator, Security, Auditor];

const fn open(path: &'static str) -> Access {
    Access { method: "GET", path, allowed: Allowed::Everybody, recorded: Recorded::Never }
}

const fn read(path: &'static str, roles: &'static [Role]) -> Access {
    Access { method: "GET", path, allowed: Allowed::Holders(roles), recorded: Recorded::Never }
}

/// Reading the trail leaves a trace in it.
const fn read_trail(path: &'static str) -> Access {
    Access { method: "GET", path, allowed: Allowed::Holders(READERS), recorded: Recorded::OnceAMinute }
}

const fn ask(path: &'static str, roles: &'static [Role]) -> Access {
    Access { method: "POST", path, allowed: Allowed::Holders(roles), recorded: Recorded::Never }
}

const fn change(method: &'static str, path: &'static str, roles: &'static [Role]) -> Access {
    Access { method, path, allowed: Allowed::Holders(roles), recorded: Recorded::Always }
}

/// The rows.
pub const TABLE: &[Access] = &[
    open("/"),
    open("/healthz"),
    open("/livez"),
    open("/readyz"),
    open("/.well-known/jwks.json"),
    open("/problems"),
    open("/problems/{name}"),
    open("/docs"),
    open("/api/v1/openapi.json"),
    open("/console"),
    open("/console/{asset}"),
    Access { method: "GET", path: "/api/v1/me", allowed: Allowed::Guests, recorded: Recorded::Never },
    read("/api/v1/activity", READERS),
    read("/api/v1/signer", MEMBERS),
    read("/api/v1/keys", MEMBERS),
    change("POST", "/api/v1/keys", &[Operator]),
    read("/api/v1/keys/active", MEMBERS),
    // Which of the two, the request decides: see `lifecycle::rotate`.
    change("POST", "/api/v1/keys/rotate", &[Operator, Security]),
    change("POST", "/api/v1/keys/emergency", &[Security]),
    read("/api/v1/keys/{key_id}", MEMBERS),
    read("/api/v1/keys/{key_id}/public.pem", MEMBERS),
    read("/api/v1/keys/{key_id}/certificate.pem", MEMBERS),
    change("PUT", "/api/v1/keys/{key_id}/certificate.pem", &[Operator]),
    read("/api/v1/keys/{key_id}/csr.pem", &[Operator]),
    read("/api/v1/keys/{key_id}/evidence", READERS),
    change("POST", "/api/v1/keys/{key_id}/revoke", &[Security]),
    change("POST", "/api/v1/keys/{key_id}/destroy", &[Security]),
    read("/api/v1/rotations", READERS),
    read("/api/v1/rotations/{rotation_id}", READERS),
    change("POST", "/api/v1/rotations/{rotation_id}/complete", &[Operator]),
    change("POST", "/api/v1/rotations/{rotation_id}/cancel", &[Operator]),
    read("/api/v1/approvals", READERS),
    read("/api/v1/approvals/{approval_id}", READERS),
    // Which of them, the rule for the operation says.
    change("POST", "/api/v1/approvals/{approval_id}/approve", READERS),
    change("POST", "/api/v1/approvals/{approval_id}/reject", READERS),
    ask("/api/v1/nonces", &[Producer]),
    ask("/api/v1/nonces/batch", &[Producer]),
    read("/api/v1/nonce/stats", READERS),
    ask("/api/v1/nonce/cleanup", &[Operator]),
    read("/api/v1/abuse", READERS),
    read("/api/v1/abuse/{identifier}", READERS),
    read("/api/v1/blocks", READERS),
    change("POST", "/api/v1/blocks", &[Security]),
    read("/api/v1/blocks/{block_id}", READERS),
    change("DELETE", "/api/v1/blocks/{block_id}", &[Security]),
    ask("/api/v1/attestations", &[Producer]),
    ask("/api/v1/attestations/batch", &[Producer]),
    ask("/api/v1/attestations/verify", &[Producer, Auditor]),
    ask("/api/v1/sign", &[Producer]),
    ask("/api/v1/sign/test", &[Operator, Security]),
    ask("/api/v1/verify", &[Producer, Auditor]),
    read("/api/v1/maintenance", READERS),
    change("PUT", "/api/v1/maintenance", &[Operator]),
    read_trail("/api/v1/audit"),
    read("/api/v1/audit/checkpoint", READERS),
    read_trail("/api/v1/audit/proof"),
    read("/api/v1/audit/consistency", READERS),
    change("POST", "/api/v1/audit/rotate", &[Operator]),
];

/// The row of the metrics' own listener.
pub const METRICS: Access = read("/metrics", &[Role::Metrics]);

/// The row of a route.
#[must_use]
pub fn of(method: &str, path: &str) -> &'static Access {
    TABLE
        .iter()
        .find(|row| row.method == method && row.path == path)
        .expect("every route has a row: see the test of the same promise")
}
