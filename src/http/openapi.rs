//! The description of the interface (OpenAPI 3.1), made from the handlers and their types, and a page
//! to read it with. Who may call what is put in from [`access`].

use std::{fmt::Write, sync::LazyLock};

use actix_web::HttpResponse;
use serde_json::{Map, Value, json};
use utoipa::OpenApi;

use super::{
    abuse,
    access::{Access, Allowed, TABLE},
    activity, approvals, attestations, audit, blocks, console, health, index, jwks, keys, lifecycle, maintenance, me,
    nonces, opaque,
    problem::{self, Body},
    rotations, signer,
};
use crate::audit::{EventType, Outcome, Severity};

#[derive(OpenApi)]
#[openapi(
    info(
        title = "verification-signer",
        description = "HSM-first signing appliance for VEID attestations",
        license(name = "Apache-2.0", identifier = "Apache-2.0")
    ),
    paths(
        index::index,
        health::healthz,
        health::readyz,
        health::livez,
        jwks::jwks,
        problem::list,
        problem::explain,
        console::page,
        console::asset,
        me::me,
        activity::activity,
        signer::signer,
        keys::list,
        keys::active,
        keys::one,
        keys::public_pem,
        keys::certificate_pem,
        keys::install_chain,
        keys::csr_pem,
        keys::evidence,
        lifecycle::rotate,
        lifecycle::revoke,
        lifecycle::emergency,
        lifecycle::generate,
        lifecycle::destroy,
        rotations::list,
        rotations::one,
        rotations::complete,
        rotations::cancel,
        approvals::list,
        approvals::one,
        approvals::approve,
        approvals::reject,
        nonces::issue,
        nonces::issue_batch,
        nonces::stats,
        nonces::cleanup,
        abuse::list,
        abuse::explain,
        blocks::list,
        blocks::add,
        blocks::one,
        blocks::remove,
        attestations::sign,
        attestations::sign_batch,
        attestations::verify,
        maintenance::show,
        maintenance::switch,
        audit::search,
        audit::checkpoint,
        audit::proof,
        audit::consistency,
        audit::rotate,
        opaque::sign,
        opaque::verify,
        opaque::test,
        document,
        page,
    ),
    components(schemas(Body, EventType, Outcome, Severity, audit::Order))
)]
struct Described;

/// The document, made once.
pub static DOCUMENT: LazyLock<Value> = LazyLock::new(describe);

fn describe() -> Value {
    let mut document = serde_json::to_value(Described::openapi()).expect("a description is JSON");
    document["components"]["securitySchemes"] = json!({
        "bearer": { "type": "http", "scheme": "bearer", "description": "A bearer key (vsk_…), or a token of the identity provider" },
        "mutualTLS": { "type": "mutualTLS" },
    });
    for row in TABLE {
        let operation = &mut document["paths"][row.path][row.method.to_lowercase()];
        finish(operation.as_object_mut().expect("every route is described: see the test of the same promise"), row);
    }
    document
}

/// What holds for every route: refusals are problems, and who is let in.
fn finish(operation: &mut Map<String, Value>, row: &Access) {
    let problem = |description: &str| {
        let schema = json!({ "$ref": "#/components/schemas/Problem" });
        json!({ "description": description, "content": { "application/problem+json": { "schema": schema } } })
    };
    for parameter in operation.get_mut("parameters").and_then(Value::as_array_mut).into_iter().flatten() {
        // A header or query that may be left out is not null: it is not there.
        if let Some(kind) = parameter["schema"].get_mut("type").filter(|kind| kind.is_array()) {
            *kind = json!("string");
        }
    }
    if let Some(body) = operation.get_mut("requestBody") {
        may_be_left_out(body);
    }
    let responses = &mut operation["responses"];
    responses["default"] = problem("Refused: see type and detail");
    let (security, roles) = match row.allowed {
        Allowed::Everybody => (json!([]), None),
        Allowed::Guests => (json!([{}, { "bearer": [] }, { "mutualTLS": [] }]), Some(&[][..])),
        Allowed::Holders(roles) => (json!([{ "bearer": [] }, { "mutualTLS": [] }]), Some(roles)),
    };
    if let Some(roles) = roles {
        responses["401"] = problem("Nobody is known by the credential, or none was shown");
        responses["403"] = problem("The caller does not have the role, or may not do this with it");
        operation.insert("x-roles".into(), json!(roles));
    }
    operation.insert("security".into(), security);
}

/// `GET /api/v1/openapi.json`
#[utoipa::path(
    get,
    path = "/api/v1/openapi.json",
    operation_id = "openapi_document",
    tag = "index",
    responses((status = 200, description = "This document", body = Object))
)]
pub async fn document() -> HttpResponse {
    HttpResponse::Ok().json(&*DOCUMENT)
}

/// The same of a body: `null` is something else than nothing.
fn may_be_left_out(body: &mut Value) {
    for content in body["content"].as_object_mut().into_iter().flatten().map(|(_, content)| content) {
        if let Some(schema) = content["schema"]["oneOf"].get(0).cloned() {
            content["schema"] = schema;
            body["required"] = json!(false);
            return;
        }
    }
}

static PAGE: LazyLock<String> = LazyLock::new(write_page);

/// `GET /docs`: the same for people. A page without a script, so that it needs no network and no trust.
#[utoipa::path(
    get,
    path = "/docs",
    operation_id = "openapi_page",
    tag = "index",
    responses((status = 200, description = "This document as a page", body = String, content_type = "text/html"))
)]
pub async fn page() -> HttpResponse {
    HttpResponse::Ok().content_type("text/html; charset=utf-8").body(PAGE.as_str())
}

fn write_page() -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>verification-signer</title>\
         <h1>verification-signer</h1><p>Everything below is in <a href=\"/api/v1/openapi.json\">openapi.json</a>.</p>",
    );
    for row in TABLE {
        write_operation(&mut page, row);
    }
    page.push_str("<h2 id=\"schemas\">Schemas</h2>");
    for (name, schema) in DOCUMENT["components"]["schemas"].as_object().into_iter().flatten() {
        let text = serde_json::to_string_pretty(schema).expect("it was JSON");
        let _ = write!(page, "<details id=\"{name}\"><summary>{name}</summary><pre>{}</pre></details>", escape(&text));
    }
    page
}

fn write_operation(page: &mut String, row: &Access) {
    let operation = &DOCUMENT["paths"][row.path][row.method.to_lowercase()];
    let roles = match row.allowed {
        Allowed::Everybody | Allowed::Guests => "everybody".to_owned(),
        Allowed::Holders(roles) => roles.iter().map(|role| role.as_str()).collect::<Vec<_>>().join(", "),
    };
    // Writing to a String cannot fail.
    let _ = write!(page, "<details><summary><b>{}</b> {} <i>({roles})</i></summary>", row.method, escape(row.path));
    let _ = write!(page, "<p>{}</p>", escape(operation["summary"].as_str().unwrap_or_default()));
    for part in ["parameters", "requestBody", "responses"] {
        if let Some(value) = operation.get(part) {
            let text = serde_json::to_string_pretty(value).expect("it was JSON");
            let _ = write!(page, "<h4>{part}</h4><pre>{}</pre>", linked(&escape(&text)));
        }
    }
    page.push_str("</details>");
}

/// References to schemas as links.
fn linked(text: &str) -> String {
    const REFERENCE: &str = "#/components/schemas/";
    let mut parts = text.split(REFERENCE);
    let mut linked = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let end = part.find("&quot;").unwrap_or(part.len());
        let (name, rest) = part.split_at(end);
        let _ = write!(linked, "<a href=\"#{name}\">{name}</a>{rest}");
    }
    linked
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
