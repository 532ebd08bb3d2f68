//! The rules of the product: who may have what signed, by which key, and in which order things
//! happen. Everything below is an adapter, everything above a skin.

mod access;
pub mod admission;
pub mod approvals;
pub mod attest;
pub mod batch;
pub mod blocks;
pub mod checkpoints;
pub mod error;
pub mod evidence;
pub mod first_key;
mod homes;
pub mod janitor;
pub mod keyring;
pub mod lifecycle;
pub mod maintenance;
pub mod marker;
pub mod merkle;
pub mod nonce_watch;
pub mod nonces;
mod on_record;
pub mod once;
pub mod opaque;
pub mod policy;
pub mod readiness;
mod release;
pub mod revoke;
pub mod standby;
pub mod tidy;
pub mod trail;
pub mod upkeep;
pub mod verify;
pub mod witness;

use std::sync::{Arc, atomic::AtomicBool};

use serde::Deserialize;

pub use access::{Denials, Readers};
pub use error::{Class, Error};
pub use keyring::{FleetConfig, Keyring};
pub use policy::{KeyPolicy, Policy};

use crate::{
    attestation::{Issuer, Text},
    audit::{Audit, Index},
    clock::Clock,
    fleet::Fleet,
    key::{KeyEntry, SignerId},
    limits::Limits,
    metrics::Metrics,
    nonce,
    token::{Token, standby::Tokens},
};

/// `[signer]` of the configuration file: who this signer is.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignerConfig {
    /// First part of every key id, and of every label on the token.
    pub id: SignerId,
    /// A name for people.
    #[serde(default)]
    pub name: Text<128>,
    /// When set, attestations are issued as `did:virtengine:validator:<address>`.
    #[serde(default)]
    pub validator_address: Text<128>,
    /// Where verifiers find this signer, if they may know.
    #[serde(default)]
    pub service_endpoint: Text<256>,
}

impl SignerConfig {
    /// The issuer of attestations signed with `key`.
    #[must_use]
    pub fn issuer(&self, key: &KeyEntry) -> Issuer {
        let fingerprint = key.public_key.fingerprint();
        let id = if self.validator_address.is_empty() {
            format!("did:virtengine:signer:{}", &fingerprint[..16])
        } else {
            format!("did:virtengine:validator:{}", self.validator_address)
        };
        Issuer {
            id: Text::new(id).expect("a fixed prefix and at most 128 characters"),
            key_fingerprint: Text::new(fingerprint).expect("64 hex digits"),
            key_id: Text::new(key.id.to_string()).expect("a signer id and a number"),
            validator_address: self.validator_address.clone(),
            service_endpoint: self.service_endpoint.clone(),
        }
    }
}

/// Everything a request needs, in one place.
pub struct Service {
    pub signer: SignerConfig,
    pub policy: Policy,
    pub keyring: Keyring,
    pub fleet: Arc<dyn Fleet>,
    /// This appliance's name among the others.
    pub instance: String,
    pub nonces: Arc<dyn nonce::Store>,
    pub limits: Limits,
    pub audit: Audit,
    pub checkpoints: checkpoints::Checkpoints,
    pub index: Index,
    pub witness: witness::Witness,
    /// The primary.
    pub token: Arc<Token>,
    /// All that sign.
    pub tokens: Tokens,
    pub clock: Clock,
    pub metrics: Arc<Metrics>,
    pub last_probe: readiness::LastProbe,
    /// Told to stop: requests are served, and nobody should send more.
    pub leaving: AtomicBool,
    pub maintenance: maintenance::Maintenance,
    pub denials: Denials,
    pub readers: Readers,
    pub approvals: Arc<approvals::Approvals>,
    pub once: Arc<once::Once>,
    /// Requests that share a signature.
    pub gathering: merkle::Gathering,
}
