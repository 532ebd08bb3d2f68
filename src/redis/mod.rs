//! Redis, as far as everything that uses it shares: the configuration, the way to the server that is
//! the master, a pool of connections on which many calls travel at once, and a look at whether the
//! server may be trusted with anything.
//!
//! Each call is a script, so that it is one atomic step and one round trip. All may be sent twice.

mod apart;
pub mod config;
mod failure;
mod health;
mod pool;
mod sentinel;
mod server;

use std::sync::LazyLock;

use deadpool_redis::redis::{Script, ScriptInvocation};

pub use apart::{Apart, Waited};
pub use config::{Cluster, Config, Sentinel, ServerUrl};
pub use failure::Failure;
pub use health::{EvictionWatch, Health, Unfit};
pub use pool::Pool;
pub use server::{ConfigError, Servers};

use crate::key::SignerId;

/// What a script is given, ready to be sent as often as needed.
pub type Call = ScriptInvocation<'static>;

/// INFO, and TIME in seconds and microseconds.
type HealthReply = (String, (i64, i64));

static HEALTH: LazyLock<Script> =
    LazyLock::new(|| Script::new(concat!("#!lua flags=no-writes\n", include_str!("health.lua"))));

/// What every key of a signer begins with: `virtengine:veid:` is what the runbook clears, and a
/// Cluster keeps keys with the same braces on one node (Redis Cluster specification, "Hash tags").
#[must_use]
pub fn prefix(signer: &SignerId) -> String {
    format!("virtengine:veid:{{{signer}}}")
}
