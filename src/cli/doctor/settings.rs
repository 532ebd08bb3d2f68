//! What the configuration allows and should not in production; and the certificates it names.

use super::finding::Finding;
use crate::{
    clock::Clock,
    config::{Config, LedgerConfig},
    timestamp::Timestamp,
};

/// From this many days on, an end is told.
const SOON: i64 = 21;

pub(super) fn look(config: &Config) -> Vec<Finding> {
    let mut findings: Vec<_> =
        [permissions(config), fleet(config), once_only(config), unverified(config), unlimited(config)]
            .into_iter()
            .flatten()
            .collect();
    if findings.is_empty() {
        findings.push(Finding::ok("settings", "nothing that should not be"));
    }
    findings
}

fn permissions(config: &Config) -> Option<Finding> {
    let open = config.http.allow_unauthenticated_network_access;
    if open {
        return Some(Finding::warn(
            "settings",
            "http.allow_unauthenticated_network_access: whoever reaches the address may have anything signed",
            "set up [tls] and [auth], and take it out",
        ));
    }
    config.auth.is_none().then(|| {
        Finding::warn(
            "settings",
            "without [auth] every user of this machine may do everything",
            "say who may do what in [auth]; hsm-config/softhsm2.toml shows how",
        )
    })
}

fn fleet(config: &Config) -> Option<Finding> {
    let file = matches!(config.ledger, LedgerConfig::File { .. });
    if file && !config.fleet.single {
        return Some(Finding::fail(
            "settings",
            "a ledger in a file, and fleet.single = false: another appliance would not see this one's revocations",
            "set fleet.single = true, and run one appliance only; or keep the ledger on the token",
        ));
    }
    (config.redis.is_none() && !config.fleet.single).then(|| {
        Finding::warn(
            "settings",
            "neither [redis] nor fleet.single: nothing keeps two appliances from changing keys at once",
            "name a Redis, or set fleet.single = true where this is the only appliance on the token",
        )
    })
}

/// Settings that are meant for one start.
fn once_only(config: &Config) -> Option<Finding> {
    let left: Vec<_> = [
        ("state.accept_ledger_head", config.state.accept_ledger_head.is_some()),
        ("audit.accept_checkpoint", config.audit.accept_checkpoint.is_some()),
        ("key_policy.first_key_on_token_serial", config.key_policy.first_key_on_token_serial.is_some()),
    ]
    .into_iter()
    .filter_map(|(name, set)| set.then_some(name))
    .collect();
    (!left.is_empty()).then(|| {
        Finding::warn("settings", format!("{} is for one start", left.join(", ")), "take it out once it has served")
    })
}

fn unverified(config: &Config) -> Option<Finding> {
    (!config.token.verify_signatures).then(|| {
        Finding::warn(
            "settings",
            "token.verify_signatures = false: a faulty token's signatures would go out",
            "leave it out: it costs less than a tenth of a millisecond",
        )
    })
}

fn unlimited(config: &Config) -> Option<Finding> {
    (!config.limits.enabled).then(|| {
        Finding::warn("settings", "limits.enabled = false: nobody is limited", "leave it out, unless this is a test")
    })
}

/// The files of `[tls]`.
pub(super) fn certificates(config: &Config) -> Option<Finding> {
    let tls = config.tls.as_ref()?;
    Some(match tls.check_files() {
        Err(error) => {
            Finding::fail("certificates", error, "correct the file that is named; `serve` reads it the same way")
        }
        Ok(expiries) => {
            let (what, end) = expiries.into_iter().min_by_key(|(_, end)| *end)?;
            ending(what, Timestamp::from_unix_seconds(end)?, Clock::system().now())
        }
    })
}

/// The first of them to end.
fn ending(what: &str, end: Timestamp, now: Timestamp) -> Finding {
    let renew = "renew it; the files are read again when they change, without a restart";
    let found = format!("{what} ends first, at {end}");
    match end.seconds_since(now).div_euclid(86_400) {
        ..0 => Finding::fail("certificates", format!("{what}: ended at {end}"), renew),
        0..SOON => Finding::warn("certificates", found, renew),
        SOON.. => Finding::ok("certificates", found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::doctor::finding::Verdict;

    #[test]
    fn an_end_is_told_before_and_after() {
        let now = Timestamp::from_unix_seconds(1_000_000_000).unwrap();
        let verdict = |seconds| ending("client_ca", now.plus_seconds(seconds), now).verdict;
        assert_eq!(verdict(-1), Verdict::Fail);
        assert_eq!(verdict(60), Verdict::Warn);
        assert_eq!(verdict(20 * 86_400), Verdict::Warn);
        assert_eq!(verdict(22 * 86_400), Verdict::Ok);
    }
}
