//! Paths and methods that are not ours.

use super::{answer_to, assert_field, assert_refused};
use crate::support::{
    appliance::Appliance,
    http::{Connection, request},
    routes,
};

fn get(appliance: &Appliance, path: &str) -> crate::support::appliance::Answer {
    answer_to(&appliance.api, &request("GET", path, &[], b""))
}

#[test]
fn unknown_paths_are_not_found_however_they_are_written() {
    let appliance = Appliance::dev();
    let long = format!("/{}", "a".repeat(8_000));
    for path in [
        "//",
        "/api",
        "/api/v1",
        "/api/v1/",
        "/api/v2/keys",
        "/API/v1/keys",
        "/api/v1/keys/",
        "//api/v1/keys",
        "/api//v1/keys",
        "/api/v1/keys/a/b",
        "/api/v1/keys/a/private.pem",
        "/api/v1/nonces/",
        "/api/v1/attestations/x",
        "/healthz/",
        "/healthz/x",
        "/metrics",
        "/problems/",
        "/problems/nothing",
        "/problems/INVALID-JSON",
        "/problems/%ff",
        "/problems/../healthz",
        "/problems/..%2fhealthz",
        "/.well-known/",
        "/.well-known/jwks.json/..",
        "/../../../../etc/passwd",
        "/api/v1/../../etc/passwd",
        "/api/v1/keys/../../../etc/passwd",
        "/..%2f..%2f..%2fetc%2fpasswd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/%252e%252e/etc/passwd",
        "/..\\..\\windows\\win.ini",
        "/%",
        "/%0",
        "/%zz",
        "/%00",
        "/%0d%0aset-cookie:%20a=b",
        "/api/v1/keys%00",
        "/api/v1/keys;x=y",
        "/%C3%A4",
        &long,
    ] {
        assert_refused(path, &get(&appliance, path), 404, "not-found");
    }
    // A query does not change what a path is.
    assert_eq!(get(&appliance, "/livez?x=../../etc/passwd&y=%ff").status, 200);
}

#[test]
fn unknown_keys_are_not_found_however_they_are_written() {
    let appliance = Appliance::dev();
    let long = "a".repeat(8_000);
    for key in [
        "x",
        "nobody:1",
        "veid-signer-dev",
        "veid-signer-dev:",
        "veid-signer-dev:0",
        "veid-signer-dev:2",
        "veid-signer-dev:01",
        "veid-signer-dev:+1",
        "veid-signer-dev:-1",
        "veid-signer-dev:1 ",
        "veid-signer-dev:1.0",
        "veid-signer-dev:4294967297",
        "veid-signer-dev:99999999999999999999",
        "VEID-SIGNER-DEV:1",
        "veid-signer-dev%3A2",
        ":1",
        "1",
        "%00",
        "%ff%fe",
        "%zz",
        "%",
        "..",
        "..%2f..%2f..%2fetc%2fpasswd",
        "%2e%2e",
        "%0d%0ax-injected:%201",
        "%3Cscript%3E",
        "%C3%A4",
        "active%00",
        &long,
    ] {
        for tail in ["", "/public.pem", "/certificate.pem"] {
            // Spaces would end the path in a request line.
            let path = format!("/api/v1/keys/{}{tail}", key.replace(' ', "%20"));
            let answer = get(&appliance, &path);
            assert_refused(&path, &answer, 404, "unknown-key");
            assert!(answer.body.len() < 1000, "{path}: {}", answer.body.len());
            assert!(answer.headers.get("x-injected").is_none());
        }
    }
    assert_eq!(get(&appliance, "/api/v1/keys/veid-signer-dev%3A1").status, 200);
    for path in ["/api/v1/sign", "/api/v1/verify"] {
        let mut body = routes::acceptable_body(path, &appliance);
        body["key_id"] = "nobody:1".into();
        assert_refused(path, &appliance.post(path, &body), 404, "unknown-key");
    }
}

#[test]
fn a_method_that_a_path_does_not_take_is_refused_with_those_it_does() {
    let appliance = Appliance::dev();
    for route in routes::all() {
        let path = route.concrete(&appliance);
        let allowed = routes::allowed(&route.path);
        let takes = |method: &str| allowed.split(", ").any(|allowed| allowed == method);
        let methods = ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND", "GETX", "get"];
        for method in methods.into_iter().filter(|method| !takes(method)) {
            let answer = answer_to(&appliance.api, &request(method, &path, &[], b""));
            assert_refused(&format!("{method} {path}"), &answer, 405, "method-not-allowed");
            assert_eq!(answer.header("allow"), allowed, "{method} {path}");
        }
        let mut connection = Connection::open(&appliance.api);
        connection.send(&request("HEAD", &path, &[], b"")).unwrap();
        let answer = connection.answer_to_head().unwrap().unwrap();
        assert_eq!(answer.status, if takes("HEAD") { 200 } else { 405 }, "HEAD {path}");
        // Nothing came after the head: the connection answers the next request.
        connection.send(&request("GET", "/livez", &[], b"")).unwrap();
        assert_eq!(connection.answer().unwrap().unwrap().status, 200, "GET after HEAD {path}");
    }
}

#[test]
fn a_request_id_is_taken_over_only_when_it_is_harmless() {
    let appliance = Appliance::dev();
    let id_for = |id: &str| {
        let bytes = request("GET", "/livez", &[("x-request-id", id)], b"");
        answer_to(&appliance.api, &bytes).header("x-request-id").to_owned()
    };
    assert_eq!(id_for("abc-DEF_1.2"), "abc-DEF_1.2");
    let long = "a".repeat(129);
    for id in ["", "a b", "a\tb", "ä", "<script>", "\"", "a,b", &long] {
        let given = id_for(id);
        assert!(given != id && given.len() == 36, "{id:?} became {given:?}");
    }
}

#[test]
fn a_query_that_is_not_understood_is_refused() {
    let appliance = Appliance::dev();
    let path = "/api/v1/keys/veid-signer-dev:1/evidence";
    for (query, field) in [
        ("x=1", "(query)"),
        ("challenge=0123456789abcdef&challenge=0123456789abcdef", "(query)"),
        ("%", "(query)"),
        ("challenge=", "challenge"),
        ("challenge=short", "challenge"),
        ("challenge=%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff%ff", "challenge"),
    ] {
        assert_field(query, &get(&appliance, &format!("{path}?{query}")), field);
    }
    assert_eq!(get(&appliance, &format!("{path}?challenge=0123456789abcdef")).status, 200);
}
