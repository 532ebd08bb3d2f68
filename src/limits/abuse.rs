//! Abuse scores: how much a client, an address or a subject behaves like somebody up to no good.
//!
//! A score is the sum of factors, each of which grows with every occurrence up to its weight, and
//! the whole sinks evenly with time; so it takes several kinds of misbehaviour to reach 80, where
//! the principal is blocked, and a score explains itself factor by factor. Scores are kept by each
//! appliance for itself and forgotten when it ends; blocks are not.

use std::{collections::BTreeMap, net::IpAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::recent::Recent;
use crate::{
    client::ClientIdentity,
    quota::{AddressGroup, Principal},
    timestamp::Timestamp,
};

/// What makes a score.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Factor {
    /// Requests beyond a limit.
    HighRequestRate,
    /// Attestations that were refused.
    RepeatedFailures,
    /// Nonces of others, used or unknown ones.
    SuspiciousPattern,
    /// Blocked before, within 30 days. Not an occurrence: it counts while it is so.
    KnownAbuser,
    /// Many clients from one address.
    MultipleIdentities,
    /// Requests that are no part of the interface: unknown paths and methods, bodies that are none.
    BotBehavior,
    /// Times far from the clock.
    TemporalAnomaly,
}

impl Factor {
    const ALL: [Self; 7] = [
        Self::HighRequestRate,
        Self::RepeatedFailures,
        Self::SuspiciousPattern,
        Self::KnownAbuser,
        Self::MultipleIdentities,
        Self::BotBehavior,
        Self::TemporalAnomaly,
    ];

    /// After how many occurrences the factor has its whole weight.
    fn full_after(self) -> u32 {
        match self {
            Self::HighRequestRate | Self::BotBehavior => 50,
            Self::RepeatedFailures => 20,
            Self::SuspiciousPattern | Self::TemporalAnomaly => 10,
            Self::KnownAbuser => 1,
            Self::MultipleIdentities => 5,
        }
    }
}

/// How dangerous a score is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    Low,
    Medium,
    High,
    Critical,
}

impl Risk {
    fn of(score: f64) -> Self {
        match score {
            score if score < 40.0 => Self::Low,
            score if score < 60.0 => Self::Medium,
            score if score < 80.0 => Self::High,
            _ => Self::Critical,
        }
    }

    /// The wire form.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
            Self::Critical => "critical",
        }
    }
}

/// `[limits.abuse]` of the configuration file.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// Points that a score loses in an hour.
    pub decay_per_hour: u32,
    /// From this score on the principal is blocked; 0 blocks nobody.
    pub block_at: u32,
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub block_for: Duration,
    /// Clients that one address may have in an hour, before each more counts.
    pub identities_per_address: usize,
    /// The most points of each factor.
    pub weights: Weights,
}

/// The most points of each factor.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Weights {
    pub high_request_rate: u32,
    pub repeated_failures: u32,
    pub suspicious_pattern: u32,
    pub known_abuser: u32,
    pub multiple_identities: u32,
    pub bot_behavior: u32,
    pub temporal_anomaly: u32,
}

impl Weights {
    fn of(&self, factor: Factor) -> f64 {
        f64::from(match factor {
            Factor::HighRequestRate => self.high_request_rate,
            Factor::RepeatedFailures => self.repeated_failures,
            Factor::SuspiciousPattern => self.suspicious_pattern,
            Factor::KnownAbuser => self.known_abuser,
            Factor::MultipleIdentities => self.multiple_identities,
            Factor::BotBehavior => self.bot_behavior,
            Factor::TemporalAnomaly => self.temporal_anomaly,
        })
    }
}

impl Default for Weights {
    fn default() -> Self {
        Self {
            high_request_rate: 20,
            repeated_failures: 30,
            suspicious_pattern: 25,
            known_abuser: 50,
            multiple_identities: 40,
            bot_behavior: 35,
            temporal_anomaly: 15,
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            decay_per_hour: 5,
            block_at: 80,
            block_for: Duration::from_secs(3600),
            identities_per_address: 20,
            weights: Weights::default(),
        }
    }
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        if self.block_at > 100 {
            return Err("limits.abuse.block_at must be at most 100; 0 blocks nobody".into());
        }
        if !(Duration::from_secs(60)..=Duration::from_secs(30 * 86_400)).contains(&self.block_for) {
            return Err("limits.abuse.block_for must be between 1m and 30d".into());
        }
        Ok(())
    }
}

/// A score and why.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AbuseScore)]
pub struct Score {
    pub identifier: String,
    pub score: f64,
    pub risk: Risk,
    pub factors: Vec<Part>,
    pub updated_at: Option<Timestamp>,
}

/// One factor of a score.
#[derive(Clone, Debug, Serialize, utoipa::ToSchema)]
#[schema(as = AbuseFactor)]
pub struct Part {
    pub factor: Factor,
    pub points: f64,
    pub weight: f64,
    pub occurrences: u32,
}

/// What an occurrence did to a score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Change {
    pub score: f64,
    /// The risk has become this one, from a lower.
    pub risen_to: Option<Risk>,
    /// The score has come to where principals are blocked.
    pub blocks: bool,
}

/// Principals with a score that are remembered: some 40 MiB when all are taken.
const REMEMBERED: usize = 100_000;

/// Addresses whose clients are told apart.
const ADDRESSES: usize = 20_000;

const HOUR_MS: i64 = 3_600_000;

/// The scores of one appliance.
pub struct Scores {
    config: ArcSwap<Config>,
    entries: Mutex<Recent<Principal, Entry>>,
    clients_by_address: Mutex<Recent<AddressGroup, BTreeMap<ClientIdentity, i64>>>,
}

#[derive(Clone, Debug, Default)]
struct Entry {
    /// Unix milliseconds.
    at: i64,
    updated: Option<Timestamp>,
    parts: BTreeMap<Factor, (f64, u32)>,
}

impl Entry {
    fn total(&self) -> f64 {
        self.parts.values().map(|(points, _)| points).sum()
    }

    /// Lets the whole sink by the time that has passed; every factor keeps its share. A clock set
    /// back lets nothing sink.
    fn sink(&mut self, now: i64, decay_per_hour: u32) {
        #[expect(clippy::cast_precision_loss, reason = "milliseconds below 2^53")]
        let hours = (now - self.at).max(0) as f64 / HOUR_MS as f64;
        self.at = now;
        let total = self.total();
        if total > 0.0 {
            let share = ((total - hours * f64::from(decay_per_hour)) / total).max(0.0);
            self.parts.values_mut().for_each(|(points, _)| *points *= share);
        }
    }
}

impl Scores {
    /// No scores yet.
    #[must_use]
    pub fn new(config: Config) -> Self {
        Self {
            config: ArcSwap::from_pointee(config),
            entries: Mutex::new(Recent::at_most(REMEMBERED)),
            clients_by_address: Mutex::new(Recent::at_most(ADDRESSES)),
        }
    }

    /// Goes on with another configuration.
    pub fn change(&self, config: Config) {
        self.config.store(Arc::new(config));
    }

    /// Something happened. `known` says whether the principal was blocked before.
    pub fn note(&self, principal: &Principal, factor: Factor, known: bool, now: Timestamp) -> Change {
        let mut entries = self.entries.lock();
        let mut entry = entries.get(principal).cloned().unwrap_or_default();
        let before = self.shown(&entry, known, now);
        entry.sink(now.unix_milliseconds(), self.config.load().decay_per_hour);
        entry.updated = Some(now);
        let weight = self.config.load().weights.of(factor);
        let (points, occurrences) = entry.parts.entry(factor).or_default();
        *points = (*points + weight / f64::from(factor.full_after())).min(weight);
        *occurrences = occurrences.saturating_add(1);
        let after = self.shown(&entry, known, now);
        entries.put(principal.clone(), entry);
        let limit = f64::from(self.config.load().block_at);
        Change {
            score: after,
            risen_to: (Risk::of(after) > Risk::of(before)).then(|| Risk::of(after)),
            blocks: limit > 0.0 && after >= limit,
        }
    }

    fn shown(&self, entry: &Entry, known: bool, now: Timestamp) -> f64 {
        let mut entry = entry.clone();
        entry.sink(now.unix_milliseconds(), self.config.load().decay_per_hour);
        let known = if known { self.config.load().weights.of(Factor::KnownAbuser) } else { 0.0 };
        (entry.total() + known).min(100.0)
    }

    /// Whether this client makes one too many for its address.
    pub fn is_one_too_many(&self, address: IpAddr, client: &ClientIdentity, now: Timestamp) -> bool {
        let (group, now) = (AddressGroup::from(address), now.unix_milliseconds());
        let mut addresses = self.clients_by_address.lock();
        let mut clients = addresses.get(&group).map(std::mem::take).unwrap_or_default();
        let is_new = clients.insert(client.clone(), now).is_none();
        if is_new {
            clients.retain(|_, seen| now - *seen < HOUR_MS);
        }
        let too_many = clients.len() > self.config.load().identities_per_address;
        if too_many && is_new {
            // What is kept is bounded, too.
            clients.remove(client);
        }
        addresses.put(group, clients);
        too_many && is_new
    }

    /// Why a principal has its score.
    #[must_use]
    pub fn explain(&self, principal: &Principal, known: bool, now: Timestamp) -> Score {
        let entry = self.entries.lock().get(principal).cloned().unwrap_or_default();
        self.score(principal, entry, known, now)
    }

    fn score(&self, principal: &Principal, mut entry: Entry, known: bool, now: Timestamp) -> Score {
        let score = self.shown(&entry, known, now);
        entry.sink(now.unix_milliseconds(), self.config.load().decay_per_hour);
        if known {
            entry.parts.insert(Factor::KnownAbuser, (self.config.load().weights.of(Factor::KnownAbuser), 1));
        }
        let part = |factor: &Factor| {
            let (points, occurrences) = entry.parts.get(factor).copied()?;
            Some(Part {
                factor: *factor,
                points: rounded(points),
                weight: self.config.load().weights.of(*factor),
                occurrences,
            })
        };
        Score {
            identifier: principal.to_string(),
            score: rounded(score),
            risk: Risk::of(score),
            factors: Factor::ALL.iter().filter_map(part).collect(),
            updated_at: entry.updated,
        }
    }

    /// The highest scores, highest first.
    #[must_use]
    pub fn highest(&self, count: usize, known: impl Fn(&Principal) -> bool, now: Timestamp) -> Vec<Score> {
        let entries: Vec<_> = {
            let entries = self.entries.lock();
            entries.iter().map(|(principal, entry)| (principal.clone(), entry.clone())).collect()
        };
        let mut scores: Vec<_> = entries
            .into_iter()
            .map(|(principal, entry)| {
                let known = known(&principal);
                self.score(&principal, entry, known, now)
            })
            .filter(|score| score.score > 0.0)
            .collect();
        scores.sort_by(|a, b| b.score.total_cmp(&a.score).then_with(|| a.identifier.cmp(&b.identifier)));
        scores.truncate(count);
        scores
    }
}

/// To a hundredth: more says nothing.
fn rounded(points: f64) -> f64 {
    (points * 100.0).round() / 100.0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn somebody() -> Principal {
        Principal::Subject("a".into())
    }

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_unix_seconds(1_800_000_000 + seconds).unwrap()
    }

    fn note(scores: &Scores, factor: Factor, times: usize) -> Change {
        (0..times).map(|_| scores.note(&somebody(), factor, false, at(0))).last().unwrap()
    }

    #[test]
    fn a_factor_grows_to_its_weight_and_no_further() {
        let scores = Scores::new(Config::default());
        assert!((note(&scores, Factor::RepeatedFailures, 1).score - 1.5).abs() < 1e-9);
        assert!((note(&scores, Factor::RepeatedFailures, 100).score - 30.0).abs() < 1e-9);
        let part = &scores.explain(&somebody(), false, at(0)).factors[0];
        assert_eq!((part.factor, part.occurrences), (Factor::RepeatedFailures, 101));
    }

    #[test]
    fn it_takes_several_kinds_of_misbehaviour_to_be_blocked() {
        let scores = Scores::new(Config::default());
        note(&scores, Factor::HighRequestRate, 100);
        assert_eq!(note(&scores, Factor::RepeatedFailures, 100).risen_to, None, "50 was reached before the last one");
        assert!(!note(&scores, Factor::SuspiciousPattern, 100).blocks);
        let last = note(&scores, Factor::BotBehavior, 8);
        assert!(last.blocks && (last.score - 80.6).abs() < 1e-9, "{last:?}");
    }

    #[test]
    fn a_rise_of_the_risk_is_told_once() {
        let scores = Scores::new(Config::default());
        note(&scores, Factor::RepeatedFailures, 20);
        let rises: Vec<_> = (0..50).filter_map(|_| note(&scores, Factor::BotBehavior, 1).risen_to).collect();
        assert_eq!(rises, [Risk::Medium, Risk::High]);
    }

    #[test]
    fn a_score_sinks_by_five_an_hour() {
        let scores = Scores::new(Config::default());
        note(&scores, Factor::RepeatedFailures, 20);
        note(&scores, Factor::TemporalAnomaly, 10);
        for (hours, left) in [(0, 45.0), (1, 40.0), (8, 5.0), (9, 0.0), (1000, 0.0), (-5, 45.0)] {
            let score = scores.explain(&somebody(), false, at(3600 * hours));
            assert!((score.score - left).abs() < 1e-9, "after {hours} hours: {score:?}");
        }
        let after = scores.explain(&somebody(), false, at(3600));
        assert!((after.factors[0].points - 26.67).abs() < 1e-9, "{after:?}");
    }

    #[test]
    fn whoever_was_blocked_before_is_blocked_sooner() {
        let scores = Scores::new(Config::default());
        note(&scores, Factor::RepeatedFailures, 20);
        assert!(scores.note(&somebody(), Factor::RepeatedFailures, true, at(0)).blocks);
        assert!(scores.explain(&somebody(), true, at(0)).score >= 80.0);
    }

    #[test]
    fn many_clients_from_one_address_are_noticed() {
        let scores = Scores::new(Config { identities_per_address: 2, ..Config::default() });
        let address = IpAddr::from([192, 0, 2, 1]);
        let seen = |name: &str, seconds| scores.is_one_too_many(address, &name.into(), at(seconds));
        assert_eq!([seen("a", 0), seen("b", 0), seen("a", 1), seen("c", 2)], [false, false, false, true]);
        assert!(!seen("c", 3602), "the others have been silent for an hour");
    }

    #[test]
    fn the_highest_come_first() {
        let scores = Scores::new(Config::default());
        for (name, times) in [("a", 1), ("b", 3), ("c", 2)] {
            for _ in 0..times {
                scores.note(&Principal::Subject(name.into()), Factor::BotBehavior, false, at(0));
            }
        }
        let names: Vec<_> = scores.highest(2, |_| false, at(0)).into_iter().map(|score| score.identifier).collect();
        assert_eq!(names, ["subject:b", "subject:c"]);
    }
}
