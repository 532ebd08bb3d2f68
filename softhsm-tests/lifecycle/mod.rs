//! The life of a key, as operators lead it: through the API, as the runbook prints it.

mod destruction;
mod emergency;
mod evidence;
mod following;
mod leftovers;
mod looking_on;
mod no_waiting;
mod pending;
mod record;
mod revocation;
mod rotation;
mod runbook;
