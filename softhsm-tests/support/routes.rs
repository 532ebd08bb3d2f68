//! Every route of the API, read from the table in `src/http/server.rs`, with a request that it
//! accepts: so that what must hold for all routes is tested on all of them.

use std::{fs, path::Path};

use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::appliance::{Answer, Appliance, attestation_request};

/// One route: a method, and a path with its parameters in braces.
#[derive(Clone)]
pub struct Route {
    pub method: &'static str,
    pub path: String,
}

/// The routes that an appliance without authentication can answer with success. Those about one
/// approval request need one, and nobody can ask for one there.
pub fn all() -> Vec<Route> {
    let mut routes = every();
    routes.retain(|route| !route.path.contains("{approval_id}"));
    routes
}

/// The routes in the order of the source.
pub fn every() -> Vec<Route> {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/http/server.rs");
    let text = fs::read_to_string(source).unwrap();
    let table = text.split_once("fn routes(").unwrap().1.split_once("\n}").unwrap().0;
    let services = table.split(".service(").skip(1);
    let routes: Vec<_> = services
        .flat_map(|service| {
            let path = service.split('"').nth(1).unwrap();
            methods(service.trim_start()).iter().map(|method| Route { method, path: path.to_owned() })
        })
        .collect();
    assert!(routes.len() >= 20, "only {} routes found: has the table another form?", routes.len());
    routes
}

fn methods(service: &str) -> &'static [&'static str] {
    match service.split('"').next().unwrap().split_whitespace().collect::<String>().as_str() {
        "get(" => &["GET"],
        "post(" => &["POST"],
        "get_and(Method::POST," => &["GET", "POST"],
        "get_and(Method::PUT," => &["GET", "PUT"],
        "get_and(Method::DELETE," => &["GET", "DELETE"],
        other => panic!("a route by {other}: teach this test about it"),
    }
}

/// The `Allow` header of a path.
pub fn allowed(path: &str) -> String {
    let methods = all().into_iter().filter(|route| route.path == path).map(|route| route.method);
    methods.map(|method| if method == "GET" { "GET, HEAD" } else { method }).collect::<Vec<_>>().join(", ")
}

/// The routes that read a JSON object, and only read: any number of requests leaves the keys as they are.
pub fn with_harmless_bodies() -> Vec<Route> {
    let mut routes = with_objects();
    routes.retain(|route| !route.changes_keys());
    assert_eq!(routes.len(), 6);
    routes
}

/// The routes that read a JSON object.
pub fn with_objects() -> Vec<Route> {
    with_bodies().into_iter().filter(|route| route.path != "/api/v1/attestations/batch").collect()
}

/// The routes that read a JSON body.
pub fn with_bodies() -> Vec<Route> {
    let without = ["/api/v1/sign/test", "/api/v1/nonce/cleanup", "/api/v1/audit/rotate"];
    all().into_iter().filter(|route| route.method == "POST" && !without.contains(&route.path.as_str())).collect()
}

impl Route {
    fn changes_keys(&self) -> bool {
        ["/api/v1/keys", "/api/v1/rotations", "/api/v1/blocks"].iter().any(|prefix| self.path.starts_with(prefix))
    }

    /// Its body may be left out.
    pub fn takes_nothing(&self) -> bool {
        ["/destroy", "/complete", "/cancel"].iter().any(|end| self.path.ends_with(end))
    }

    /// The path with parameters that exist. A rotation is begun when there is none.
    pub fn concrete(&self, appliance: &Appliance) -> String {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        let mut path = self.path.replace("{name}", "invalid-json").replace("{asset}", "main.js");
        if path.contains("{key_id}") {
            // To read from, the active key; to revoke and destroy, the oldest.
            let key = if self.method == "GET" {
                appliance.get("/api/v1/keys/active").ok()
            } else {
                appliance.get("/api/v1/keys").ok().as_array().unwrap().last().unwrap().clone()
            };
            path = path.replace("{key_id}", &text(&key["key_id"]));
        }
        if path.contains("{rotation_id}") {
            if appliance.get("/api/v1/rotations").ok() == json!([]) {
                let rotate = json!({ "reason": "test", "initiated_by": "test" });
                assert_eq!(appliance.post("/api/v1/keys/rotate", &rotate).status, 201);
            }
            path = path.replace("{rotation_id}", &text(&appliance.get("/api/v1/rotations").ok()[0]["rotation_id"]));
        }
        if path.contains("{block_id}") {
            if appliance.get("/api/v1/blocks").ok() == json!([]) {
                let block = acceptable_body("/api/v1/blocks", appliance);
                assert_eq!(appliance.post("/api/v1/blocks", &block).status, 201);
            }
            path = path.replace("{block_id}", &text(&appliance.get("/api/v1/blocks").ok()[0]["id"]));
        }
        path = path.replace("{identifier}", "address:192.0.2.1");
        match path.as_str() {
            // Before the first checkpoint there is none: a proof of the newest record makes one.
            "/api/v1/audit/checkpoint" => drop(appliance.get("/api/v1/audit/proof?seq=1").ok()),
            "/api/v1/audit/proof" => path.push_str("?seq=1"),
            "/api/v1/audit/consistency" => path.push_str("?from=1&to=2"),
            _ => {}
        }
        assert!(!path.contains('{'), "{path}: teach this test about the parameter");
        path
    }

    /// Calls it in a way that succeeds, when routes are called in the order of the table.
    pub fn call(&self, appliance: &Appliance) -> Answer {
        let path = self.concrete(appliance);
        match self.method {
            "GET" => appliance.get(&path),
            "DELETE" => appliance.delete(&path),
            "PUT" if path == "/api/v1/maintenance" => {
                appliance.put_bytes(&path, "application/json", br#"{"on":false}"#)
            }
            // The chain of a key's own certificate alone.
            "PUT" => appliance.put_bytes(&path, "application/x-pem-file", &appliance.get(&path).body),
            _ if with_bodies().iter().any(|route| route.path == self.path) => {
                appliance.post(&path, &acceptable_body(&self.path, appliance))
            }
            _ => appliance.post_empty(&path),
        }
    }
}

/// A body that the route accepts.
pub fn acceptable_body(path: &str, appliance: &Appliance) -> Value {
    let data = STANDARD.encode("data");
    match path {
        "/api/v1/nonces" => json!({ "attestation_type": "email_verification" }),
        "/api/v1/nonces/batch" => json!({ "attestation_type": "email_verification", "count": 2 }),
        "/api/v1/attestations" => attestation_request(&appliance.nonce()),
        "/api/v1/attestations/batch" => json!([attestation_request(&appliance.nonce())]),
        "/api/v1/attestations/verify" => {
            appliance.post("/api/v1/attestations", &attestation_request(&appliance.nonce())).ok()
        }
        "/api/v1/blocks" => json!({ "address": "192.0.2.1", "reason": "test", "initiated_by": "test" }),
        "/api/v1/sign" => json!({ "data": data, "purpose": "test" }),
        "/api/v1/verify" => {
            let signed = appliance.post("/api/v1/sign", &json!({ "data": data, "purpose": "test" })).ok();
            json!({ "data": data, "purpose": "test", "signature": signed["signature"] })
        }
        "/api/v1/keys" | "/api/v1/keys/emergency" => json!({ "initiated_by": "test" }),
        "/api/v1/keys/rotate" => json!({ "reason": "test", "initiated_by": "test", "dry_run": true }),
        "/api/v1/keys/{key_id}/revoke" => json!({ "reason": "compromised", "initiated_by": "test" }),
        "/api/v1/keys/{key_id}/destroy"
        | "/api/v1/rotations/{rotation_id}/complete"
        | "/api/v1/rotations/{rotation_id}/cancel" => json!({ "force": true, "initiated_by": "test" }),
        other => panic!("{other}: teach this test what it accepts"),
    }
}
