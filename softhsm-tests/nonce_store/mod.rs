//! The nonce store as whole appliances and their operators see it: what it warns of, what it answers
//! when Redis is unwell, and single use through all of it.

mod concerns;
mod runbook;
mod settings;
