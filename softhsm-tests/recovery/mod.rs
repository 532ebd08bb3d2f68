//! A token that goes away and comes back is used again without a restart.

pub mod away;
