//! `[limits]` of the configuration file.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use serde::Deserialize;

use super::abuse;
use crate::{
    attestation::AttestationType,
    quota::{Failure, Principal, Quota},
};

/// How much whoever asks may have. A subject is the account that attestations are about.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Config {
    /// False: nothing is limited and nobody is blocked.
    pub enabled: bool,
    /// Requests of one client.
    pub client: Rate,
    /// Requests from one IPv4 address, or one IPv6 /64.
    pub address: Rate,
    /// Addresses that are neither limited nor blocked as such; their clients are.
    #[serde(deserialize_with = "crate::network::deserialize_list")]
    pub exempt: Vec<IpNet>,
    pub subject: Subject,
    pub abuse: abuse::Config,
}

/// A rate of requests.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rate {
    pub per_second: u32,
    /// At once, after a pause.
    pub burst: u32,
}

impl Rate {
    /// As a bucket.
    #[must_use]
    pub fn quota(self) -> Quota {
        Quota { interval: Duration::from_secs(1) / self.per_second, burst: self.burst }
    }
}

/// What one subject may have of one thing.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Allowance {
    pub hour: u32,
    pub day: u32,
    /// In an hour, before the cool-down.
    pub failures: u32,
    #[serde(deserialize_with = "crate::duration::deserialize")]
    pub cool_down: Duration,
}

impl Allowance {
    const HOUR: Duration = Duration::from_secs(3600);

    const fn new(hour: u32, day: u32, failures: u32, minutes: u64) -> Self {
        Self { hour, day, failures, cool_down: Duration::from_secs(60 * minutes) }
    }

    /// Its bucket for an hour.
    #[must_use]
    pub fn hourly(&self) -> Quota {
        Quota::per(self.hour, Self::HOUR)
    }

    /// Its bucket for a day.
    #[must_use]
    pub fn daily(&self) -> Quota {
        Quota::per(self.day, 24 * Self::HOUR)
    }

    /// A failure of this subject.
    #[must_use]
    pub fn failure(&self, limit: &'static str, principal: Principal) -> Failure {
        Failure { principal, limit, quota: Quota::per(self.failures, Self::HOUR), cool_down: self.cool_down }
    }
}

/// Allowances of one subject, by what is done for it.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Subject {
    pub email: Allowance,
    pub sms: Allowance,
    pub facial: Allowance,
    pub liveness: Allowance,
    pub document: Allowance,
    pub sso: Allowance,
    /// Attestations of every type together.
    pub attestation_signing: Allowance,
    /// Nonces bound to the subject.
    pub nonce_generation: Allowance,
}

impl Subject {
    /// The allowance of an attestation type, besides that of all types together.
    #[must_use]
    pub fn of(&self, kind: AttestationType) -> Option<(&'static str, &Allowance)> {
        match kind {
            AttestationType::EmailVerification => Some(("email", &self.email)),
            AttestationType::SmsVerification => Some(("sms", &self.sms)),
            AttestationType::FacialVerification => Some(("facial", &self.facial)),
            AttestationType::LivenessCheck => Some(("liveness", &self.liveness)),
            AttestationType::DocumentVerification => Some(("document", &self.document)),
            AttestationType::SsoVerification => Some(("sso", &self.sso)),
            AttestationType::DomainVerification
            | AttestationType::SocialMediaVerification
            | AttestationType::BiometricVerification
            | AttestationType::BiometricHardwareAttestation
            | AttestationType::DeviceIntegrityAttestation
            | AttestationType::CompositeIdentity => None,
        }
    }

    fn all(&self) -> [(&'static str, &Allowance); 8] {
        [
            ("email", &self.email),
            ("sms", &self.sms),
            ("facial", &self.facial),
            ("liveness", &self.liveness),
            ("document", &self.document),
            ("sso", &self.sso),
            ("attestation_signing", &self.attestation_signing),
            ("nonce_generation", &self.nonce_generation),
        ]
    }
}

impl Default for Subject {
    fn default() -> Self {
        Self {
            email: Allowance::new(10, 50, 5, 60),
            sms: Allowance::new(5, 20, 3, 120),
            facial: Allowance::new(20, 100, 10, 30),
            liveness: Allowance::new(30, 200, 15, 30),
            document: Allowance::new(10, 30, 5, 60),
            sso: Allowance::new(20, 100, 10, 30),
            attestation_signing: Allowance::new(100, 1000, 20, 15),
            nonce_generation: Allowance::new(200, 2000, 50, 10),
        }
    }
}

impl Default for Config {
    fn default() -> Self {
        let loopback = [IpAddr::from([127, 0, 0, 1]), IpAddr::from([0, 0, 0, 0, 0, 0, 0, 1])];
        Self {
            enabled: true,
            client: Rate { per_second: 1000, burst: 2000 },
            address: Rate { per_second: 2000, burst: 4000 },
            exempt: loopback.map(IpNet::from).to_vec(),
            subject: Subject::default(),
            abuse: abuse::Config::default(),
        }
    }
}

impl Config {
    /// The rules that the types do not hold.
    pub fn check(&self) -> Result<(), String> {
        for (name, rate) in [("client", self.client), ("address", self.address)] {
            if !(1..=1_000_000).contains(&rate.per_second) || !(1..=10_000_000).contains(&rate.burst) {
                return Err(format!(
                    "limits.{name}: per_second must be between 1 and 1000000, burst between 1 and 10000000"
                ));
            }
        }
        for (name, allowance) in self.subject.all() {
            let Allowance { hour, day, failures, cool_down } = *allowance;
            let counts = [hour, day, failures];
            if counts.iter().any(|count| !(1..=1_000_000).contains(count)) || day < hour {
                return Err(format!(
                    "limits.subject.{name}: hour, day and failures must be between 1 and 1000000, and day at least hour"
                ));
            }
            if cool_down > Duration::from_secs(7 * 86_400) {
                return Err(format!("limits.subject.{name}.cool_down must be at most 7d"));
            }
        }
        self.abuse.check()
    }
}
