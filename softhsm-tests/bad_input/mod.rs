//! Whatever a caller gets wrong is refused with a stable type, the field's name and what to do.

mod bodies;
mod fields;
mod raw_http;
mod routing;

use crate::support::{appliance::Answer, http::Connection};

/// What no refusal may show: names of our types and libraries, PKCS#11, files.
const INNER: &[&str] = &[
    "u8", "u16", "u32", "u64", "i64", "usize", "f64", "struct", "enum ", "Option", "serde", "actix", "tokio",
    "panicked", "RUST_", ".rs", "CKR_", "C_Sign", "pkcs11", "softhsm", "/usr/", "/tmp/", "/var/", "/root/", "/home/",
];

/// Asserts that an answer is a refusal of this type, as every refusal must be.
fn assert_refused(what: &str, answer: &Answer, status: u16, problem: &str) {
    let text = answer.text();
    assert_eq!(answer.status, status, "{what}: {text}");
    assert_eq!(answer.problem(), problem, "{what}: {text}");
    let body = answer.json();
    assert_eq!(body["status"], status, "{what}: {text}");
    assert!(!body["title"].as_str().unwrap().is_empty() && body["detail"].as_str().unwrap().ends_with('.'), "{text}");
    assert_shows_nothing_inside(what, answer);
}

/// Asserts that this field was refused.
fn assert_field(what: &str, answer: &Answer, field: &str) {
    assert_refused(what, answer, 400, "invalid-field");
    let errors = &answer.json()["errors"];
    assert_eq!(errors[0]["field"], field, "{what}: {errors}");
    assert!(errors[0]["detail"].as_str().unwrap().len() > 10, "{what}: {errors}");
}

fn assert_shows_nothing_inside(what: &str, answer: &Answer) {
    // A request's id is random hex: it may spell anything.
    let text = answer.text().replace(answer.header("x-request-id"), "");
    for inner in INNER {
        assert!(!text.contains(inner), "{what}: {inner:?} in {text}");
    }
}

/// Sends bytes on a connection of their own and reads one answer.
fn answer_to(base: &str, bytes: &[u8]) -> Answer {
    let mut connection = Connection::open(base);
    // The answer may come before everything was sent.
    let _ = connection.send(bytes);
    connection.answer().unwrap().expect("an answer")
}
