//! The front door: who may do what, over which wire, and what hostile input gets.

mod approvals;
mod circumstances;
mod configuration;
mod credentials;
mod description;
mod hostile;
mod maintenance;
mod once;
mod reload;
mod roles;
mod schemathesis;
mod shedding;
