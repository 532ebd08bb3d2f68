//! Every route of the API, read from the table in `src/http/server.rs`, with a request that it
//! accepts: so that what must hold for all routes is tested on all of them.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::appliance::{Answer, Appliance, attestation_request};

/// One route: method, and path with its parameters in braces.
pub struct Route {
    pub method: &'static str,
    pub path: String,
}

/// The routes in the order of the source.
pub fn all() -> Vec<Route> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/server.rs");
    let text = fs::read_to_string(source).unwrap();
    let table = text.split_once("fn routes(").unwrap().1.split_once("\n}").unwrap().0;
    let routes = |service: &str| -> Vec<Route> {
        let Some((methods, rest)) = service.trim_start().split_once("(\"") else { return Vec::new() };
        let methods: &[_] = match methods {
            "get" => &["GET"],
            "post" => &["POST"],
            "get_and_post" => &["GET", "POST"],
            // The certificate, whose PUT takes PEM and has tests of its own.
            "get_and_put" => &["GET"],
            other => panic!("a route by {other}: teach this test about it"),
        };
        let path = rest.split_once('"').unwrap().0;
        methods.iter().map(|method| Route { method, path: path.to_owned() }).collect()
    };
    let routes: Vec<_> = table.split(".service(").skip(1).flat_map(routes).collect();
    assert!(routes.len() >= 20, "only {} routes found: has the table another form?", routes.len());
    routes
}

impl Route {
    /// The path with parameters that exist and that the route accepts.
    pub fn concrete(&self, appliance: &Appliance) -> String {
        let mut path = self.path.clone();
        if path.contains("{key_id}") {
            path = path.replace("{key_id}", &self.key_id(appliance));
        }
        if path.contains("{rotation_id}") {
            // An emergency ends whatever is in progress; the rotation after it can be completed or cancelled.
            rotate(appliance, true);
            path = path.replace("{rotation_id}", &rotate(appliance, false));
        }
        path = path.replace("{name}", "invalid-json");
        assert!(!path.contains('{'), "{path}: teach this test about the parameter");
        path
    }

    /// The active key, or one that may be revoked or destroyed without stopping everything.
    fn key_id(&self, appliance: &Appliance) -> String {
        let active = || appliance.get("/api/v1/keys/active").ok()["key_id"].as_str().unwrap().to_owned();
        if !self.path.ends_with("/revoke") && !self.path.ends_with("/destroy") {
            return active();
        }
        let old = active();
        rotate(appliance, true);
        old
    }

    /// Calls it in a way that succeeds.
    pub fn call(&self, appliance: &Appliance) -> Answer {
        let path = self.concrete(appliance);
        match self.method {
            "GET" => appliance.get(&path),
            _ => match acceptable_body(&self.path, appliance) {
                Some(body) => appliance.post(&path, &body),
                None => appliance.post_empty(&path),
            },
        }
    }
}

/// A body that the route accepts; `None` for routes that take none.
pub fn acceptable_body(path: &str, appliance: &Appliance) -> Option<Value> {
    let data = STANDARD.encode("data");
    Some(match path {
        "/api/v1/nonces" => json!({ "attestation_type": "email_verification" }),
        "/api/v1/nonces/batch" => json!({ "attestation_type": "email_verification", "count": 2 }),
        "/api/v1/attestations" => attestation_request(&appliance.nonce()),
        "/api/v1/attestations/verify" => {
            appliance.post("/api/v1/attestations", &attestation_request(&appliance.nonce())).ok()
        }
        "/api/v1/sign" => json!({ "data": data, "purpose": "test" }),
        "/api/v1/verify" => {
            let signed = appliance.post("/api/v1/sign", &json!({ "data": data, "purpose": "test" })).ok();
            json!({ "data": data, "purpose": "test", "signature": signed["signature"] })
        }
        "/api/v1/keys" => {
            // At most two may be pending: a rotation takes one.
            rotate(appliance, true);
            json!({ "initiated_by": "test" })
        }
        "/api/v1/keys/rotate" => json!({ "reason": "rotation", "initiated_by": "test", "emergency": true }),
        "/api/v1/keys/emergency" => json!({ "initiated_by": "test" }),
        "/api/v1/keys/{key_id}/revoke" => json!({ "reason": "administrative", "initiated_by": "test" }),
        "/api/v1/keys/{key_id}/destroy" | "/api/v1/rotations/{rotation_id}/complete" => {
            json!({ "force": true, "initiated_by": "test" })
        }
        "/api/v1/rotations/{rotation_id}/cancel" => json!({ "initiated_by": "test" }),
        "/api/v1/sign/test" | "/api/v1/nonce/cleanup" => return None,
        other => panic!("{other}: teach this test what it accepts"),
    })
}

/// Rotates; returns the rotation's id.
fn rotate(appliance: &Appliance, emergency: bool) -> String {
    let body = json!({ "reason": "rotation", "initiated_by": "test", "emergency": emergency });
    let answer = appliance.post("/api/v1/keys/rotate", &body);
    assert_eq!(answer.status, 201, "{}", answer.text());
    answer.json()["rotation_id"].as_str().unwrap().to_owned()
}
