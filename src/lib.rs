//! An HSM-first signing appliance for VEID attestations. Private keys are generated in a PKCS#11
//! token and never leave it.
//!
//! # One idea
//!
//! A request becomes a signature only by passing through values, each of which can only be made
//! from the one before it:
//!
//! **permitted → fresh (nonce spent) → signed and verified → recorded (on disk) → released**
//!
//! [`service::attest`] is that sentence. Its values have private fields and live in the rooms that
//! mint them ([`service::policy::AttestationPermit`], [`nonce::Spent`],
//! [`token::VerifiedSignature`], [`audit::Recorded`]); signature bytes come out of a
//! `VerifiedSignature` only against the receipt of its own audit record ([`evidence`]).
//!
//! # Rooms
//!
//! Imports point down this list only; a test holds it.
//!
//! | layer | rooms | know |
//! |---|---|---|
//! | entry | `main`, [`cli`] | argv → configuration → app |
//! | composition | [`app`], [`supervisor`], [`backup`], [`config`] | wiring |
//! | delivery | [`http`] | actix-web |
//! | use cases | [`service`] | the rules of the product |
//! | adapters | [`token`], [`ledger_file`], [`nonce`], [`limits`], [`fleet`], [`audit`], [`authn`] | PKCS#11; files; credentials |
//! | foundation | [`redis`], [`durable`], [`secret`], [`metrics`], [`telemetry`], [`duration`], [`network`], [`systemd`], [`exit_code`] | Redis, the operating system |
//! | vocabulary | [`attestation`], [`key`], [`evidence`], [`client`], [`nonce_value`], [`quota`], [`clock`], [`timestamp`], [`schema`], [`merkle`] | nothing: no I/O |
//!
//! Adapters do not import each other: what one needs of another is a trait in [`evidence`] or
//! [`key::ledger`].

pub mod app;
pub mod attestation;
pub mod audit;
pub mod authn;
pub mod backup;
pub mod cli;
pub mod client;
pub mod clock;
pub mod config;
pub mod durable;
pub mod duration;
pub mod evidence;
pub mod exit_code;
pub mod fleet;
pub mod http;
pub mod key;
pub mod ledger_file;
pub mod limits;
pub mod merkle;
pub mod metrics;
pub mod network;
pub mod nonce;
pub mod nonce_value;
pub mod quota;
pub mod redis;
pub mod schema;
pub mod secret;
pub mod service;
pub mod supervisor;
pub mod systemd;
pub mod telemetry;
pub mod timestamp;
pub mod token;
