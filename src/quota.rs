//! How much a client, an address or a subject may have, and what a request is charged to.
//!
//! Every limit is a leaky bucket in the form of the generic cell rate algorithm (GCRA, ITU-T I.371):
//! `burst` at once, given back evenly, one every `interval`. Two keepers know the same buckets: one
//! in this process, and one in Redis that a whole fleet shares.

use std::{
    fmt,
    net::{IpAddr, Ipv6Addr},
    time::Duration,
};

use crate::client::ClientIdentity;

/// Whose bucket it is. Shown, and taken in paths, as `client:…`, `address:…` and `subject:…`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Principal {
    Client(ClientIdentity),
    Address(AddressGroup),
    /// An account address that attestations are about.
    Subject(String),
}

/// What is treated as one address: an IPv4 address, or the /64 that one IPv6 host chooses from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AddressGroup(IpAddr);

impl From<IpAddr> for AddressGroup {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V4(address) => address.into(),
            IpAddr::V6(address) => {
                let network = u128::from(address) & !u128::from(u64::MAX);
                // The loopback address is one host, not a network to choose from.
                if address.is_loopback() { address.into() } else { Ipv6Addr::from(network).into() }
            }
        })
    }
}

impl AddressGroup {
    /// The address, or the first of the group.
    #[must_use]
    pub fn address(self) -> IpAddr {
        self.0
    }
}

impl Principal {
    /// What kind of thing it is, as in metrics.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Client(_) => "client",
            Self::Address(_) => "address",
            Self::Subject(_) => "subject",
        }
    }

    /// Reads what [`fmt::Display`] writes.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (kind, name) = text.split_once(':')?;
        match kind {
            "client" if !name.is_empty() => Some(Self::Client(name.into())),
            "address" => name.parse::<IpAddr>().ok().map(|address| Self::Address(address.into())),
            "subject" if !name.is_empty() => Some(Self::Subject(name.to_owned())),
            _ => None,
        }
    }
}

impl fmt::Display for Principal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Client(identity) => write!(f, "client:{identity}"),
            Self::Address(AddressGroup(address)) => write!(f, "address:{address}"),
            Self::Subject(address) => write!(f, "subject:{address}"),
        }
    }
}

/// The size of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Time after which one more may be had. Zero: no bucket, only a time that must have passed.
    pub interval: Duration,
    pub burst: u32,
}

impl Quota {
    /// `count` in any hour or day or second: all at once, or evenly.
    #[must_use]
    pub fn per(count: u32, period: Duration) -> Self {
        Self { interval: period / count.max(1), burst: count }
    }

    /// The time in which an empty bucket fills up.
    #[must_use]
    pub fn window(&self) -> Duration {
        self.interval * self.burst
    }

    /// The same in whole seconds, at least one.
    #[must_use]
    pub fn window_seconds(&self) -> u64 {
        u64::try_from(self.window().as_millis().div_ceil(1000)).unwrap_or(u64::MAX).max(1)
    }
}

/// Which of a limit's buckets it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    Rate,
    Hour,
    Day,
    Failures,
    /// After too many failures: nothing for a while.
    CoolDown,
}

impl Window {
    /// The reason in answers and in `ratelimit_blocked_total{reason}`.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::Hour => "hour",
            Self::Day => "day",
            Self::Failures => "failures",
            Self::CoolDown => "cool_down",
        }
    }
}

/// One bucket that a request takes one from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Charge {
    pub principal: Principal,
    /// `client`, `address`, or what is limited of a subject, such as `email`.
    pub limit: &'static str,
    pub window: Window,
    pub quota: Quota,
    /// How many it takes.
    pub count: u32,
}

impl Charge {
    /// The bucket's name among those of its principal.
    #[must_use]
    pub fn field(&self) -> String {
        format!("{}:{}", self.limit, self.window.as_str())
    }
}

/// A failure of a subject, and what follows when there are too many.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub principal: Principal,
    pub limit: &'static str,
    /// With the last failure that it holds, the cool-down begins.
    pub quota: Quota,
    pub cool_down: Duration,
}

impl Failure {
    /// The bucket of failures.
    #[must_use]
    pub fn charge(&self) -> Charge {
        let Self { principal, limit, quota, .. } = self;
        Charge { principal: principal.clone(), limit, window: Window::Failures, quota: *quota, count: 1 }
    }

    /// Whether a cool-down is on.
    #[must_use]
    pub fn rest(principal: Principal, limit: &'static str) -> Charge {
        let quota = Quota { interval: Duration::ZERO, burst: 0 };
        Charge { principal, limit, window: Window::CoolDown, quota, count: 1 }
    }
}

/// A bucket was empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exceeded {
    pub charge: Charge,
    pub retry_after: Duration,
}

impl Exceeded {
    /// Whole seconds for `Retry-After`, at least one.
    #[must_use]
    pub fn retry_after_seconds(&self) -> u32 {
        u32::try_from(self.retry_after.as_millis().div_ceil(1000)).unwrap_or(u32::MAX).max(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_principal_is_read_back_as_it_is_shown() {
        for text in ["client:anonymous@127.0.0.1", "address:192.0.2.7", "address:2001:db8::", "subject:virtengine1q"] {
            assert_eq!(Principal::parse(text).unwrap().to_string(), text);
        }
        for text in ["", "client:", "address:nowhere", "host:a", "subject"] {
            assert_eq!(Principal::parse(text), None, "{text}");
        }
    }

    #[test]
    fn hosts_that_choose_among_their_ipv6_addresses_are_one() {
        let group = |text: &str| AddressGroup::from(text.parse::<IpAddr>().unwrap());
        assert_eq!(group("2001:db8:0:1::1"), group("2001:db8:0:1:ffff::2"));
        assert_ne!(group("2001:db8:0:1::1"), group("2001:db8:0:2::1"));
        assert_eq!(group("::ffff:192.0.2.7"), group("192.0.2.7"));
        assert_ne!(group("192.0.2.7"), group("192.0.2.8"));
        assert_ne!(group("::1"), group("::"));
    }
}
