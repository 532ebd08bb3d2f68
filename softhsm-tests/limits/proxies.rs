//! Whose word on an address is believed.

use serde_json::json;

use super::{ask_from, limited};
use crate::support::signer::Signer;

fn recorded_address(signer: &Signer) -> String {
    let body = json!({ "attestation_type": "email_verification" });
    assert_eq!(ask_from(&signer.api, "203.0.113.9", "POST", "/api/v1/nonces", &body).status, 200);
    signer.audit_events("nonce_created")[0]["request"]["ip_address"].as_str().unwrap().to_owned()
}

#[test]
fn anybody_else_cannot_pretend_to_be_elsewhere() {
    let signer = Signer::with("", &limited("enabled = true"));
    assert_eq!(recorded_address(&signer), "127.0.0.1");
}

#[test]
fn a_trusted_proxy_names_the_caller() {
    let lines = "trusted_proxies = [\"127.0.0.0/8\"]";
    let signer = Signer::with_lines("[http]", lines, "", &limited("enabled = true"));
    assert_eq!(recorded_address(&signer), "203.0.113.9");
}

#[test]
fn only_the_header_that_is_configured_is_looked_at() {
    let lines = "trusted_proxies = [\"127.0.0.1\"]\nproxy_header = \"Forwarded\"";
    let signer = Signer::with_lines("[http]", lines, "", &limited("enabled = true"));
    assert_eq!(recorded_address(&signer), "127.0.0.1");
}
