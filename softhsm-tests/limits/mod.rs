//! Who is turned away: limits, cool-downs, abuse scores, blocks, and the addresses they go by.

mod abuse;
mod blocks;
mod fleet;
mod flood;
mod proxies;
mod rates;
mod subjects;

use serde_json::{Value, json};

use crate::support::{
    appliance::{Answer, attestation_request},
    http::{Connection, request},
    signer::Signer,
};

/// Tables of a single appliance with these lines in `[limits]`.
fn limited(lines: &str) -> String {
    format!("[fleet]\nsingle = true\n[limits]\n{lines}")
}

/// One that believes what this machine says of a caller's address, so that callers can be many.
fn behind_a_proxy(lines: &str) -> Signer {
    Signer::with_lines("[http]", "trusted_proxies = [\"127.0.0.1\"]", "", &limited(lines))
}

/// Asks as a caller at this address.
fn ask_from(api: &str, address: &str, method: &str, path: &str, body: &Value) -> Answer {
    let headers = [("content-type", "application/json"), ("x-forwarded-for", address)];
    let bytes = if body.is_null() { Vec::new() } else { serde_json::to_vec(body).unwrap() };
    let mut connection = Connection::open(api);
    connection.send(&request(method, path, &headers, &bytes)).unwrap();
    connection.answer().unwrap().unwrap()
}

/// Fetches a nonce and has an attestation about `subject` signed, as a caller at this address.
fn attest_from(api: &str, address: &str, subject: &str) -> Answer {
    let order = json!({ "attestation_type": "email_verification" });
    let issued = ask_from(api, address, "POST", "/api/v1/nonces", &order);
    if issued.status != 200 {
        return issued;
    }
    let request = about(subject, issued.json()["nonce"].as_str().unwrap());
    ask_from(api, address, "POST", "/api/v1/attestations", &request)
}

fn about(subject: &str, nonce: &str) -> Value {
    let mut request = attestation_request(nonce);
    request["subject"]["account_address"] = json!(subject);
    request
}

fn retry_after(answer: &Answer) -> u64 {
    answer.header("retry-after").parse().unwrap()
}
