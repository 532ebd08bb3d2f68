//! The nonce store as whole appliances and their operators see it: what it warns of, what it answers
//! when Redis is unwell, and single use through all of it.

mod client_nonces;
mod concerns;
mod double_spend;
mod failover;
mod outages;
mod runbook;
mod settings;

use crate::support::redis::RedisServer;

/// `[redis]` with a single server, for appliances that need not be in a hurry.
fn on_redis(redis: &RedisServer) -> String {
    format!("[redis]\nurl = \"{}\"\ncommand_timeout = \"3s\"\n", redis.url())
}
