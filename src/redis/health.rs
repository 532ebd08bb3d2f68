//! What the promises of the store ask of the server, and whether it is so.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;

use super::{HealthReply, failure::Failure};
use crate::timestamp::Timestamp;

/// The oldest major version whose scripts have flags and whose INFO takes several sections.
const OLDEST_VERSION: u32 = 7;

/// What the server said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Health {
    pub version: String,
    pub role: String,
    pub eviction_policy: String,
    /// Keys that the server has thrown away for want of memory since it started.
    pub evicted_keys: u64,
    pub memory_used: u64,
    /// `maxmemory`; `None` when there is no limit.
    pub memory_limit: Option<u64>,
    /// Whether every write goes to a file as well (appendonly).
    pub appends: bool,
    /// Replicas that follow it now.
    pub replicas: u64,
    /// The server's clock, for the skew against ours.
    pub clock: Timestamp,
    run_id: String,
}

/// Why a server may not keep nonces. The text says what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfit {
    #[error("Redis {0} is too old: scripts need Redis 7.0 or later")]
    Version(String),
    #[error("this Redis server is a {0}, not the master: name the master, or let Sentinel find it")]
    Role(String),
    #[error(
        "Redis throws keys away when memory is full (maxmemory-policy {0}): set `maxmemory-policy noeviction` in \
         redis.conf and run `CONFIG SET maxmemory-policy noeviction`"
    )]
    Evicts(String),
    #[error(
        "Redis has thrown away {0} keys for want of memory: check that maxmemory-policy is noeviction, and give \
         Redis more memory"
    )]
    Evicted(u64),
}

impl Health {
    /// Reads the answer of `health.lua`.
    pub fn from_reply(reply: &HealthReply) -> Result<Self, Failure> {
        let (info, (seconds, micros)) = reply;
        let fields: HashMap<&str, &str> = info.lines().filter_map(|line| line.trim_end().split_once(':')).collect();
        let text = |name: &str| {
            fields
                .get(name)
                .map(|value| (*value).to_owned())
                .ok_or_else(|| Failure::Reply(format!("INFO has no {name}")))
        };
        let number = |name: &str| {
            text(name)?.parse::<u64>().map_err(|_| Failure::Reply(format!("{name} of INFO is not a number")))
        };
        let nanos = i128::from(*seconds) * 1_000_000_000 + i128::from(*micros) * 1000;
        let clock = time::OffsetDateTime::from_unix_timestamp_nanos(nanos)
            .map_err(|_| Failure::Reply("TIME is out of range".into()))?;
        Ok(Self {
            version: text("redis_version")?,
            role: text("role")?,
            eviction_policy: text("maxmemory_policy")?,
            evicted_keys: number("evicted_keys")?,
            memory_used: number("used_memory")?,
            memory_limit: Some(number("maxmemory")?).filter(|limit| *limit > 0),
            appends: number("aof_enabled")? == 1,
            replicas: number("connected_slaves")?,
            clock: Timestamp::from(clock),
            run_id: text("run_id")?,
        })
    }

    /// Whether the server may keep nonces.
    pub fn check(&self) -> Result<(), Unfit> {
        self.check_server()?;
        self.check_settings()
    }

    /// Whether it is the right server.
    pub fn check_server(&self) -> Result<(), Unfit> {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        if major.is_none_or(|major| major < OLDEST_VERSION) {
            return Err(Unfit::Version(self.version.clone()));
        }
        if self.role != "master" {
            return Err(Unfit::Role(self.role.clone()));
        }
        Ok(())
    }

    /// Whether it keeps what it is given.
    pub fn check_settings(&self) -> Result<(), Unfit> {
        if self.eviction_policy != "noeviction" {
            return Err(Unfit::Evicts(self.eviction_policy.clone()));
        }
        Ok(())
    }
}

/// Notices keys being thrown away. Nonces that are gone are refused, so this is not about double
/// use: it is about clients losing nonces they were promised.
#[derive(Debug, Default)]
pub struct EvictionWatch(Mutex<Option<Seen>>);

#[derive(Debug)]
struct Seen {
    run_id: String,
    evicted_keys: u64,
    grew_at: Option<Instant>,
}

impl EvictionWatch {
    /// How long the store is not ready after keys were thrown away.
    const REMEMBERED: Duration = Duration::from_secs(60);

    /// Compares with the last look at the same server.
    pub fn look(&self, health: &Health, at: Instant) -> Result<(), Unfit> {
        let mut seen = self.0.lock();
        let before = seen.as_ref().filter(|seen| seen.run_id == health.run_id);
        let grew_at = match before {
            Some(before) if health.evicted_keys > before.evicted_keys => Some(at),
            Some(before) => before.grew_at,
            None => None,
        };
        let evicted_keys = health.evicted_keys;
        *seen = Some(Seen { run_id: health.run_id.clone(), evicted_keys, grew_at });
        match grew_at {
            Some(grew_at) if at.duration_since(grew_at) < Self::REMEMBERED => Err(Unfit::Evicted(evicted_keys)),
            Some(_) | None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(evicted_keys: u64) -> Health {
        Health {
            version: "7.0.15".into(),
            role: "master".into(),
            eviction_policy: "noeviction".into(),
            evicted_keys,
            memory_used: 1,
            memory_limit: None,
            appends: true,
            replicas: 2,
            clock: Timestamp::from_unix_seconds(0).unwrap(),
            run_id: "aa".into(),
        }
    }

    #[test]
    fn only_a_recent_master_that_keeps_its_keys_is_fit() {
        assert_eq!(health(0).check(), Ok(()));
        for unfit in [
            Health { version: "6.2.14".into(), ..health(0) },
            Health { version: "unknown".into(), ..health(0) },
            Health { role: "slave".into(), ..health(0) },
            Health { eviction_policy: "volatile-ttl".into(), ..health(0) },
        ] {
            assert!(unfit.check().is_err(), "{unfit:?}");
        }
    }

    #[test]
    fn evictions_since_the_last_look_are_told_for_a_minute() {
        let watch = EvictionWatch::default();
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        // What happened before we came is not ours to tell.
        assert_eq!(watch.look(&health(7), start), Ok(()));
        assert_eq!(watch.look(&health(7), after(1)), Ok(()));
        assert_eq!(watch.look(&health(9), after(2)), Err(Unfit::Evicted(9)));
        assert_eq!(watch.look(&health(9), after(61)), Err(Unfit::Evicted(9)));
        assert_eq!(watch.look(&health(9), after(63)), Ok(()));
        // Another server, or the same one restarted, counts anew.
        assert_eq!(watch.look(&Health { run_id: "bb".into(), ..health(20) }, after(64)), Ok(()));
    }
}
