//! Redis: whether it is there, and keeps what it is given.

use super::finding::Finding;
use crate::{
    clock::Clock,
    config::Config,
    redis::{Health, Pool, Unfit},
};

pub(super) async fn look(config: &Config) -> Vec<Finding> {
    let Some(redis) = &config.redis else {
        return vec![Finding::ok("redis", "not configured: nonces and limits are kept in the process")];
    };
    let pool = match Pool::new(redis, &config.signer.id) {
        Ok(pool) => pool,
        Err(error) => return vec![Finding::fail("redis", error.to_string(), "correct [redis] and the files it names")],
    };
    match pool.health().await {
        Err(error) => vec![Finding::fail(
            "redis",
            format!("{}: {error}", pool.describe()),
            "see that it runs, that this machine may reach it, and that user and password are right; until then no \
             nonce is issued or spent",
        )],
        Ok(health) => judged(config, &pool.describe(), &health),
    }
}

fn judged(config: &Config, server: &str, health: &Health) -> Vec<Finding> {
    let mut findings = vec![match health.check_server() {
        Ok(()) => Finding::ok("redis", format!("{server}: version {}, {}", health.version, health.role)),
        Err(unfit) => unfit_server(&unfit, "name the master, of Redis 7.0 or newer"),
    }];
    findings.push(match health.check_settings() {
        Ok(()) => Finding::ok("redis-memory", "noeviction"),
        Err(unfit) => Finding::fail(
            "redis-memory",
            unfit.to_string(),
            "CONFIG SET maxmemory-policy noeviction, and in redis.conf: else nonces that it threw away are refused",
        ),
    });
    findings.push(if health.appends {
        Finding::ok("redis-disk", "appendonly yes")
    } else {
        Finding::warn(
            "redis-disk",
            "appendonly no: a Redis that is restarted has forgotten nonces, and clients must fetch new ones",
            "CONFIG SET appendonly yes, and in redis.conf",
        )
    });
    findings.push(replicas(config, health));
    let apart = health.clock.seconds_since(Clock::system().now()).unsigned_abs();
    findings.push(clock(apart, config.nonce.redis_clock_warning.as_secs()));
    findings
}

fn unfit_server(unfit: &Unfit, remedy: &str) -> Finding {
    Finding::fail("redis", unfit.to_string(), remedy)
}

/// Only nonces that clients bring need them: a majority of all nodes must have each.
fn replicas(config: &Config, health: &Health) -> Finding {
    let found = format!("{} connected", health.replicas);
    let nodes = config.nonce.redis_nodes as u64;
    if config.nonce.accept_client_nonces && health.replicas < nodes / 2 {
        return Finding::fail(
            "redis-replicas",
            format!("{found}; nonce.accept_client_nonces needs {} of {nodes} servers", nodes / 2 + 1),
            "start the replicas, or set nonce.accept_client_nonces = false",
        );
    }
    if health.replicas == 0 && !config.fleet.single {
        return Finding::warn(
            "redis-replicas",
            found,
            "with none, a Redis that fails stops every appliance of the fleet",
        );
    }
    Finding::ok("redis-replicas", found)
}

fn clock(apart: u64, bearable: u64) -> Finding {
    let found = format!("{apart} s apart from this machine's");
    if apart > bearable {
        return Finding::warn("redis-clock", found, "synchronise both clocks (chronyc sources; timedatectl)");
    }
    Finding::ok("redis-clock", found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;

    #[test]
    fn clocks_that_are_apart_are_told() {
        assert_eq!(clock(2, 2).verdict, Verdict::Ok);
        assert_eq!(clock(3, 2).verdict, Verdict::Warn);
    }
}
