//! Several appliances on one token, each with a state and a trail of its own.

mod clock;
mod following;
pub mod members;
mod memory;
pub mod races;
mod revocation;
mod stuck;
