//! A primary and a standby, each with keys of its own.

mod changes;
mod crashes;
mod failover;
mod first_key;
mod revocation;
mod scheduled;
mod settings;

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance},
    signer::rotation_request,
};

/// Rotates the key of the standby.
fn rotate_standby(appliance: &Appliance) -> Answer {
    rotate_standby_with(appliance, &json!({}))
}

fn rotate_standby_with(appliance: &Appliance, more: &Value) -> Answer {
    let mut body = rotation_request(more);
    body["token"] = "standby-1".into();
    appliance.post("/api/v1/keys/rotate", &body)
}

fn rotate_primary(appliance: &Appliance) -> Answer {
    appliance.post("/api/v1/keys/rotate", &rotation_request(&json!({})))
}
