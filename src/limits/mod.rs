//! Limits, abuse scores and blocks: who is turned away before anything is done for them.
//!
//! Buckets are kept twice. This process has those of clients and addresses, which keep it from being
//! flooded, and, for a single appliance, those of subjects. For a fleet the subjects' buckets, and
//! once more the clients' and addresses', are in Redis, charged by the nonce store in the round trip
//! it makes anyway; they say the same on every appliance.

pub mod abuse;
pub mod blocks;
mod config;
mod local;
mod recent;
mod shared;

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
pub use blocks::{Block, Blocks, Target};
pub use config::Config;
use local::Local;
use parking_lot::Mutex;
use recent::Recent;
pub use shared::Shared;

use crate::{
    attestation::AttestationType,
    client::Client,
    quota::{Charge, Exceeded, Failure, Principal, Window},
    timestamp::Timestamp,
};

/// Everything that turns callers away.
pub struct Limits {
    config: ArcSwap<Config>,
    local: Local,
    pub scores: abuse::Scores,
    pub blocks: Blocks,
    shared: Option<Shared>,
    recorded: Mutex<Recorded>,
}

/// When the refusal of a limit was last recorded, and how many were not since.
type Recorded = Recent<(Principal, &'static str), (Timestamp, u64)>;

/// How long the next refusals of a bucket stay unrecorded.
const NEWS_SECONDS: i64 = 60;

/// What a client has left of its rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Left {
    pub requests: u32,
    pub burst: u32,
    pub per_second: u32,
}

impl Limits {
    /// With what is configured, and what the fleet shares when there is one.
    #[must_use]
    pub fn new(config: Config, blocks: Blocks, shared: Option<Shared>) -> Self {
        let scores = abuse::Scores::new(config.abuse.clone());
        let recorded = Mutex::new(Recent::at_most(10_000));
        Self { config: ArcSwap::from_pointee(config), local: Local::default(), scores, blocks, shared, recorded }
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Goes on with another configuration: what was used up stays used up, scores and blocks stay. False
    /// when it is the same.
    pub fn change(&self, config: Config) -> bool {
        let is_another = **self.config.load() != config;
        if is_another {
            self.scores.change(config.abuse.clone());
            self.config.store(Arc::new(config));
            self.local.forget_quotas();
        }
        is_another
    }

    /// Whether an address is neither limited nor blocked as such.
    #[must_use]
    pub fn is_exempt(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        self.config.load().exempt.iter().any(|network| network.contains(&address))
    }

    /// Takes one request of an address from its rate.
    pub fn take_address(&self, address: IpAddr) -> Result<(), Exceeded> {
        self.local.take(&self.address_rate(address)).map(|_| ())
    }

    /// Takes one request of a client from its rate.
    pub fn take_client(&self, client: &Client) -> Result<Left, Exceeded> {
        let rate = self.config.load().client;
        let requests = self.local.take(&[self.client_rate(client)])?.unwrap_or_default();
        Ok(Left { requests, burst: rate.burst, per_second: rate.per_second })
    }

    /// Takes the further requests that a batch stands for from the rates of its client and address.
    pub fn take_more(&self, client: &Client, count: usize) -> Result<(), Exceeded> {
        if !self.config.load().enabled {
            return Ok(());
        }
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let mut charges = self.address_rate(client.address);
        charges.push(self.client_rate(client));
        for charge in &mut charges {
            charge.count = count;
        }
        self.take(&charges)
    }

    /// What is charged for an attestation, here or by the nonce store of a fleet.
    #[must_use]
    pub fn of_attestation(&self, client: &Client, kind: AttestationType, subject: &str) -> Vec<Charge> {
        let mut charges = self.of_request(client);
        let subject = Principal::Subject(subject.to_owned());
        for (limit, allowance) in self.allowances(kind) {
            charges.push(Failure::rest(subject.clone(), limit));
            charges.extend(of_allowance(&subject, limit, &allowance, 1));
        }
        charges
    }

    /// What is charged for nonces.
    #[must_use]
    pub fn of_nonces(&self, client: &Client, subject: Option<&str>, count: usize) -> Vec<Charge> {
        const LIMIT: &str = "nonce_generation";
        let (mut charges, config) = (self.of_request(client), self.config.load());
        if let Some(subject) = subject.filter(|_| config.enabled) {
            let (subject, count) = (Principal::Subject(subject.to_owned()), u32::try_from(count).unwrap_or(u32::MAX));
            charges.push(Failure::rest(subject.clone(), LIMIT));
            charges.extend(of_allowance(&subject, LIMIT, &config.subject.nonce_generation, count));
        }
        charges
    }

    /// Charges here what the nonce store does not.
    pub fn take(&self, charges: &[Charge]) -> Result<(), Exceeded> {
        self.local.take(charges).map(|_| ())
    }

    /// Counts a refused attestation against its subject; the limits whose cool-down begins with it.
    pub async fn fail(&self, kind: AttestationType, subject: &str) -> Vec<&'static str> {
        let mut cooling = Vec::new();
        for (limit, allowance) in self.allowances(kind) {
            let failure = allowance.failure(limit, Principal::Subject(subject.to_owned()));
            let began = match &self.shared {
                None => self.local.fail(&failure),
                // The nonce store is away as well then: nothing can be signed anyway.
                Some(shared) => shared.fail(&failure).await.unwrap_or_else(|error| {
                    tracing::warn!(%error, "a failure could not be counted");
                    false
                }),
            };
            if began {
                cooling.push(limit);
            }
        }
        cooling
    }

    /// Brings this appliance's blocks and the fleet's together.
    pub async fn share_blocks(&self, now: Timestamp) -> Result<(), ShareError> {
        let Some(shared) = &self.shared else { return Ok(()) };
        let theirs = shared.blocks(&[], &[]).await.map_err(ShareError::Away)?;
        let forget: Vec<_> =
            theirs.iter().filter(|block| Blocks::has_forgotten(block, now)).map(|block| block.id).collect();
        let add = self.blocks.merge(theirs, now)?;
        if !add.is_empty() || !forget.is_empty() {
            shared.blocks(&add, &forget).await.map_err(ShareError::Away)?;
        }
        Ok(())
    }

    /// Whether a refusal is to be recorded, and then how many have not been since the last one.
    pub fn is_news(&self, charge: &Charge, now: Timestamp) -> Option<u64> {
        let key = (charge.principal.clone(), charge.limit);
        let mut recorded = self.recorded.lock();
        match recorded.get(&key) {
            Some((at, unrecorded)) if (0..NEWS_SECONDS).contains(&now.seconds_since(*at)) => {
                *unrecorded += 1;
                None
            }
            earlier => {
                let unrecorded = earlier.map_or(0, |(_, unrecorded)| *unrecorded);
                recorded.put(key, (now, 0));
                Some(unrecorded)
            }
        }
    }

    fn of_request(&self, client: &Client) -> Vec<Charge> {
        // Without a fleet these two have been charged where the request came in.
        if self.shared.is_none() || !self.config.load().enabled {
            return Vec::new();
        }
        let mut charges = self.address_rate(client.address);
        charges.push(self.client_rate(client));
        charges
    }

    fn address_rate(&self, address: IpAddr) -> Vec<Charge> {
        if !self.config.load().enabled || self.is_exempt(address) {
            return Vec::new();
        }
        let (principal, quota) = (Principal::Address(address.into()), self.config.load().address.quota());
        vec![Charge { principal, limit: "address", window: Window::Rate, quota, count: 1 }]
    }

    fn client_rate(&self, client: &Client) -> Charge {
        let (principal, quota) = (Principal::Client(client.identity.clone()), self.config.load().client.quota());
        Charge { principal, limit: "client", window: Window::Rate, quota, count: 1 }
    }

    fn allowances(&self, kind: AttestationType) -> Vec<(&'static str, config::Allowance)> {
        let config = self.config.load();
        if !config.enabled {
            return Vec::new();
        }
        let of_kind = config.subject.of(kind).map(|(limit, allowance)| (limit, *allowance));
        of_kind.into_iter().chain([("attestation_signing", config.subject.attestation_signing)]).collect()
    }
}

fn of_allowance(subject: &Principal, limit: &'static str, allowance: &config::Allowance, count: u32) -> [Charge; 2] {
    [(Window::Hour, allowance.hourly()), (Window::Day, allowance.daily())].map(|(window, quota)| Charge {
        principal: subject.clone(),
        limit,
        window,
        quota,
        count,
    })
}

/// Why the blocks of the fleet are not known here, or ours not there.
#[derive(Debug, thiserror::Error)]
pub enum ShareError {
    #[error("the fleet's list of blocks cannot be reached: {0}")]
    Away(#[source] crate::redis::Failure),
    #[error(transparent)]
    Ours(#[from] blocks::Error),
}
