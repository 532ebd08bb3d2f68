//! A primary and a standby with the same keys.

mod failover;
mod keys;
mod pin;
mod revocation;
mod settings;
