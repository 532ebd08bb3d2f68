//! The audit trail of a running appliance: what is promised of it, and what breaks it.

mod copies;
mod faults;
mod kills;
mod mutations;
mod proofs;
mod retention;
mod runbook;
mod search;
mod trail;
mod witness;
