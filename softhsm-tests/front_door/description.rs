//! The served description of the interface and the interface are one.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, Appliance},
    guarded::Guarded,
    routes, schema,
};

fn document(appliance: &Appliance) -> Value {
    appliance.get("/api/v1/openapi.json").ok()
}

#[test]
fn every_route_is_described_and_nothing_else() {
    let appliance = Appliance::dev();
    let document = document(&appliance);
    assert_eq!(document["openapi"], "3.1.0");
    let described: BTreeSet<_> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, item)| {
            item.as_object().unwrap().keys().map(move |method| format!("{} {path}", method.to_uppercase()))
        })
        .collect();
    let routes: BTreeSet<_> =
        routes::every().into_iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    assert_eq!(described, routes);
    for item in document["paths"].as_object().unwrap().values() {
        for operation in item.as_object().unwrap().values() {
            let open = operation["security"] == json!([]);
            assert_eq!(open, operation.get("x-roles").is_none(), "{operation}");
            assert!(!operation["summary"].as_str().unwrap().is_empty(), "{operation}");
        }
    }
}

/// The faults of an answer under what is described for its status and content type.
fn faults(document: &Value, method: &str, path: &str, answer: &Answer) -> Vec<String> {
    let responses = &document["paths"][path][method.to_lowercase()]["responses"];
    let status = answer.status.to_string();
    let response = responses.get(&status).or_else(|| responses.get("default")).unwrap();
    let content_type = answer.header("content-type").split(';').next().unwrap();
    let Some(content) = response["content"].get(content_type) else {
        return vec![format!("{status} {content_type} is not described")];
    };
    let value = if content_type.ends_with("json") { answer.json() } else { Value::String(answer.text()) };
    schema::faults(document, &content["schema"], &value)
}

fn assert_described(document: &Value, method: &str, path: &str, answer: &Answer) {
    let faults = faults(document, method, path, answer);
    assert!(faults.is_empty(), "{method} {path} {}: {faults:#?}\n{}", answer.status, answer.text());
}

#[test]
fn every_answer_is_as_it_is_described() {
    let appliance = Appliance::dev();
    let document = document(&appliance);
    for route in routes::all() {
        let answer = route.call(&appliance);
        // The walk ends with a rotation that cannot be cancelled any more; one that can comes below.
        assert!(
            answer.status < 300 || route.path.ends_with("/cancel"),
            "{} {}: {}",
            route.method,
            route.path,
            answer.text()
        );
        assert_described(&document, route.method, &route.path, &answer);
    }
    // What the walk over all routes does not see.
    let rotate = "/api/v1/keys/rotate";
    let body = json!({ "reason": "test", "initiated_by": "test" });
    let rotation = appliance.post(rotate, &body);
    assert_described(&document, "POST", rotate, &rotation);
    let cancel = "/api/v1/rotations/{rotation_id}/cancel";
    let id = rotation.json()["rotation_id"].as_str().unwrap().to_owned();
    let cancelled = appliance.post_empty(&cancel.replace("{rotation_id}", &id));
    assert_eq!(cancelled.status, 200, "{}", cancelled.text());
    assert_described(&document, "POST", cancel, &cancelled);
    for route in routes::with_bodies() {
        let path = route.path.replace("{key_id}", "nobody:1").replace("{rotation_id}", "rot-0");
        assert_described(&document, "POST", &route.path, &appliance.post(&path, &json!({ "no such field": 1 })));
        assert_described(&document, "POST", &route.path, &appliance.post_bytes(&path, "application/json", b"{"));
    }
    for path in ["/api/v1/keys", "/api/v1/rotations", "/api/v1/signer", "/healthz"] {
        assert_described(&document, "GET", path, &appliance.get(path));
    }
    let evidence = "/api/v1/keys/{key_id}/evidence";
    let key = appliance.get("/api/v1/keys/active").ok()["key_id"].as_str().unwrap().to_owned();
    let challenged = appliance.get(&format!("{}?challenge=0123456789abcdef", evidence.replace("{key_id}", &key)));
    assert_described(&document, "GET", evidence, &challenged);
}

#[test]
fn answers_about_approvals_and_denials_are_as_they_are_described() {
    let guarded = Guarded::with("none", "", "[approvals]\nrotate = { count = 1, roles = [\"security\"] }\n");
    let document = document(guarded.appliance());
    let body = json!({ "reason": "test", "initiated_by": "test" });
    let waiting = guarded.certified("operator").post("/api/v1/keys/rotate", &body);
    assert_eq!(waiting.status, 202);
    assert_described(&document, "POST", "/api/v1/keys/rotate", &waiting);
    let (id, digest) = (waiting.json()["approval_id"].clone(), waiting.json()["digest"].clone());
    let one = "/api/v1/approvals/{approval_id}";
    let path = |tail: &str| format!("/api/v1/approvals/{}{tail}", id.as_str().unwrap());
    let security = guarded.certified("security");
    let denied = guarded.certified("auditor").post(&path("/approve"), &json!({ "digest": digest }));
    for (method, template, answer, status) in [
        ("POST", "/api/v1/approvals/{approval_id}/approve", denied, 403),
        (
            "POST",
            "/api/v1/approvals/{approval_id}/approve",
            security.post(&path("/approve"), &json!({ "digest": digest })),
            200,
        ),
        (
            "POST",
            "/api/v1/approvals/{approval_id}/reject",
            security.post(&path("/reject"), &json!({ "reason": "no" })),
            200,
        ),
        ("GET", one, security.get(&path("")), 200),
        ("GET", "/api/v1/approvals", security.get("/api/v1/approvals"), 200),
        ("GET", "/api/v1/keys", guarded.tls().get("/api/v1/keys"), 401),
        ("GET", "/api/v1/keys", guarded.certified("metrics").get("/api/v1/keys"), 403),
    ] {
        assert_eq!(answer.status, status, "{method} {template}: {}", answer.text());
        assert_described(&document, method, template, &answer);
    }
}

#[test]
fn the_page_needs_no_network_and_no_script() {
    let appliance = Appliance::dev();
    let answer = appliance.get("/docs");
    assert!(answer.header("content-type").starts_with("text/html"));
    let page = answer.ok_text();
    for never in ["<script", "http://", "https://", "src=", "@import", "<link", "<style"] {
        assert!(!page.contains(never), "{never}");
    }
    for route in routes::every() {
        assert!(page.contains(&format!("<b>{}</b> {}", route.method, route.path)), "{} {}", route.method, route.path);
    }
    // Every link within the page leads somewhere.
    for target in page.split("href=\"#").skip(1).map(|rest| rest.split('"').next().unwrap()) {
        assert!(page.contains(&format!("id=\"{target}\"")), "{target}");
    }
}
