//! Bytes that are hardly HTTP. The server below ours may answer them with a bare 4xx; what counts is
//! that it never answers 2xx or 5xx, never takes one request for two, and lives on.

use crate::support::{
    appliance::Appliance,
    http::{Connection, json_post, request},
    tool,
};

/// Sends bytes, says that nothing follows, and reads all answers.
fn statuses(base: &str, bytes: &[u8]) -> Vec<u16> {
    let mut connection = Connection::open(base);
    let _ = connection.send(bytes);
    connection.finish_sending();
    let mut statuses = Vec::new();
    while let Ok(Some(answer)) = connection.answer() {
        super::assert_shows_nothing_inside("raw", &answer);
        statuses.push(answer.status);
    }
    statuses
}

#[test]
fn malformed_requests_are_refused_once_and_harm_nobody() {
    let appliance = Appliance::dev();
    let json = "host: x\r\ncontent-type: application/json";
    let body = r#"{"attestation_type":"email_verification"}"#;
    let length = body.len();
    let smuggled = "GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let post = "POST /api/v1/nonces HTTP/1.1";
    for request in [
        // Two ways to say where the body ends.
        format!(
            "{post}\r\n{json}\r\ncontent-length: {length}\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}"
        ),
        format!("{post}\r\n{json}\r\ntransfer-encoding: chunked\r\ncontent-length: 5\r\n\r\n0\r\n\r\n{smuggled}"),
        format!("{post}\r\n{json}\r\ncontent-length: {length}\r\ncontent-length: 0\r\n\r\n{body}{smuggled}"),
        format!("{post}\r\n{json}\r\ncontent-length: 0\r\ncontent-length: {length}\r\n\r\n{body}{smuggled}"),
        // No way to say it.
        format!("{post}\r\n{json}\r\ncontent-length: -1\r\n\r\n{body}"),
        format!("{post}\r\n{json}\r\ncontent-length: +{length}\r\n\r\n{body}"),
        format!("{post}\r\n{json}\r\ncontent-length: 0x10\r\n\r\n{body}"),
        format!("{post}\r\n{json}\r\ncontent-length: 99999999999999999999999\r\n\r\n{body}"),
        format!("{post}\r\n{json}\r\ncontent-length: {length}, {length}\r\n\r\n{body}"),
        format!("{post}\r\n{json}\r\ncontent-length: \r\n\r\n{body}"),
        format!("{post}\r\n{json}\r\ntransfer-encoding: xchunked\r\n\r\n0\r\n\r\n"),
        format!("{post}\r\n{json}\r\ntransfer-encoding: chunked, gzip\r\n\r\n0\r\n\r\n"),
        format!("{post}\r\n{json}\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n\r\n"),
        format!("{post}\r\n{json}\r\ntransfer-encoding: chunked\r\n\r\n-1\r\n\r\n"),
        format!("{post}\r\n{json}\r\ntransfer-encoding: chunked\r\n\r\nffffffffffffffffff\r\n\r\n"),
        format!("{post}\r\n{json}\r\ntransfer-encoding: chunked\r\n\r\n5\r\n123456789\r\n0\r\n\r\n"),
        // Heads that are none.
        format!("GET\r\n\r\n{smuggled}"),
        format!("GET /livez\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/9.9\r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/1.1 \r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET /li vez HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET  /livez HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET /livez\0 HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET /ä HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}"),
        format!("G\u{1}T /livez HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/1.1\r\nhost x\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/1.1\r\nhost : x\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/1.1\r\n: x\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/1.1\r\nx: a\0b\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/1.1\r\nx: a\r\n b\r\n\r\n{smuggled}"),
        format!("GET /livez HTTP/1.1\r\n{}\r\n\r\n{smuggled}", vec!["x: y"; 200].join("\r\n")),
        format!("GET /livez HTTP/1.1\r\nx: {}\r\n\r\n{smuggled}", "y".repeat(1 << 20)),
        format!("GET /{} HTTP/1.1\r\nhost: x\r\n\r\n{smuggled}", "y".repeat(1 << 20)),
        "\u{16}\u{3}\u{1}\u{2}\0\u{1}\0\u{1}\u{fc}".to_owned(),
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_owned(),
        "\0".repeat(1000),
    ] {
        let shown: String = request.chars().take(200).collect();
        let statuses = statuses(&appliance.api, request.as_bytes());
        println!("{statuses:?} {shown:?}");
        assert!(statuses.len() <= 1, "{shown:?} got {statuses:?}");
        assert!(statuses.iter().all(|status| (400..500).contains(status)), "{shown:?} got {statuses:?}");
        assert_eq!(appliance.get("/livez").status, 200);
    }
    assert_eq!(appliance.audit_events("nonce_created").len(), 0);
    assert!(!appliance.log().contains("panicked"));
}

#[test]
fn the_body_of_a_refused_request_is_never_taken_for_a_request() {
    let appliance = Appliance::dev();
    let smuggled = b"GET /livez HTTP/1.1\r\nhost: x\r\n\r\n";
    let text = [("content-type", "text/plain")];
    for (request, status) in [
        (request("POST", "/api/v1/nonces", &text, smuggled), 415),
        (request("POST", "/nowhere", &text, smuggled), 404),
        (request("POST", "/api/v1/signer", &text, smuggled), 405),
        (request("POST", "/api/v1/sign/test", &text, smuggled), 200),
        (request("GET", "/livez", &text, smuggled), 200),
        (request("GET", "/nowhere", &text, smuggled), 404),
        (json_post("/api/v1/nonces", smuggled), 400),
        (json_post("/api/v1/nonces", &smuggled.repeat(3000)), 413),
    ] {
        assert_eq!(statuses(&appliance.api, &request), [status], "{}", tool::text(&request[..request.len().min(200)]));
    }
}
