//! The front door: who may do what, over which wire, and what hostile input gets.

mod approvals;
mod credentials;
mod description;
mod once;
mod roles;
mod schemathesis;
