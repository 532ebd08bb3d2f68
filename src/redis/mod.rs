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
#[cfg(test)]
pub(crate) mod test_proxy;
#[cfg(test)]
pub(crate) mod test_server;

use std::{sync::LazyLock, time::Duration};

use deadpool_redis::redis::{Script, ScriptInvocation};

pub use apart::{Apart, Waited};
pub use config::{Cluster, Config, Sentinel, ServerUrl};
pub use failure::Failure;
pub use health::{EvictionWatch, Health, Unfit};
pub use pool::Pool;
pub use server::{ConfigError, Servers};

use crate::{
    key::SignerId,
    quota::{Charge, Principal},
};

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

/// The key of a principal's buckets.
#[must_use]
pub fn bucket_key(signer: &SignerId, principal: &Principal) -> String {
    format!("{}:limit:{principal}", prefix(signer))
}

/// Hands charges to a script that ends its keys and arguments with them.
pub fn charge(call: &mut Call, signer: &SignerId, charges: &[Charge]) {
    let micros = |duration: Duration| u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
    for charge in charges {
        let Charge { principal, quota, count, .. } = charge;
        call.key(bucket_key(signer, principal));
        call.arg(charge.field()).arg(micros(quota.interval * *count)).arg(micros(quota.window()));
    }
}
