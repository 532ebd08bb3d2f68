//! A primary and a standby with the same keys.

pub mod failover;
mod keys;
mod pin;
mod promotion;
mod revocation;
mod settings;
