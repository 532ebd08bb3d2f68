//! The audit trail of a running appliance: what is promised of it, and what breaks it.

mod copies;
mod faults;
pub mod kills;
mod mutations;
mod proofs;
mod retention;
mod runbook;
mod search;
pub mod trail;
mod witness;
