//! Every route × every role × every wire.

use std::collections::BTreeSet;

use serde_json::json;

use crate::support::{
    curl::Curl,
    guarded::{CLIENTS, Guarded},
    routes,
};

/// Who may, written down once more: this table is read by people and compared with what happens.
/// p = producer, o = operator, s = security, a = auditor, m = metrics, * = everybody.
const MAY: &[(&str, &str, &str)] = &[
    ("GET", "/", "*"),
    ("GET", "/healthz", "*"),
    ("GET", "/readyz", "*"),
    ("GET", "/livez", "*"),
    ("GET", "/.well-known/jwks.json", "*"),
    ("GET", "/problems", "*"),
    ("GET", "/problems/{name}", "*"),
    ("GET", "/docs", "*"),
    ("GET", "/api/v1/openapi.json", "*"),
    ("GET", "/console", "*"),
    ("GET", "/console/{asset}", "*"),
    ("GET", "/api/v1/me", "*"),
    ("GET", "/api/v1/activity", "osa"),
    ("GET", "/api/v1/signer", "posa"),
    ("GET", "/api/v1/keys", "posa"),
    ("POST", "/api/v1/keys", "o"),
    ("GET", "/api/v1/keys/active", "posa"),
    ("POST", "/api/v1/keys/rotate", "os"),
    ("POST", "/api/v1/keys/emergency", "s"),
    ("GET", "/api/v1/keys/{key_id}", "posa"),
    ("GET", "/api/v1/keys/{key_id}/public.pem", "posa"),
    ("GET", "/api/v1/keys/{key_id}/certificate.pem", "posa"),
    ("PUT", "/api/v1/keys/{key_id}/certificate.pem", "o"),
    ("GET", "/api/v1/keys/{key_id}/csr.pem", "o"),
    ("GET", "/api/v1/keys/{key_id}/evidence", "osa"),
    ("POST", "/api/v1/keys/{key_id}/revoke", "s"),
    ("POST", "/api/v1/keys/{key_id}/destroy", "s"),
    ("GET", "/api/v1/rotations", "osa"),
    ("GET", "/api/v1/rotations/{rotation_id}", "osa"),
    ("POST", "/api/v1/rotations/{rotation_id}/complete", "o"),
    ("POST", "/api/v1/rotations/{rotation_id}/cancel", "o"),
    ("GET", "/api/v1/approvals", "osa"),
    ("GET", "/api/v1/approvals/{approval_id}", "osa"),
    ("POST", "/api/v1/approvals/{approval_id}/approve", "osa"),
    ("POST", "/api/v1/approvals/{approval_id}/reject", "osa"),
    ("POST", "/api/v1/nonces", "p"),
    ("POST", "/api/v1/nonces/batch", "p"),
    ("GET", "/api/v1/nonce/stats", "osa"),
    ("POST", "/api/v1/nonce/cleanup", "o"),
    ("GET", "/api/v1/abuse", "osa"),
    ("GET", "/api/v1/abuse/{identifier}", "osa"),
    ("GET", "/api/v1/blocks", "osa"),
    ("POST", "/api/v1/blocks", "s"),
    ("GET", "/api/v1/blocks/{block_id}", "osa"),
    ("DELETE", "/api/v1/blocks/{block_id}", "s"),
    ("POST", "/api/v1/attestations", "p"),
    ("POST", "/api/v1/attestations/batch", "p"),
    ("POST", "/api/v1/attestations/verify", "pa"),
    ("POST", "/api/v1/sign", "p"),
    ("POST", "/api/v1/sign/test", "os"),
    ("POST", "/api/v1/verify", "pa"),
    ("GET", "/api/v1/maintenance", "osa"),
    ("PUT", "/api/v1/maintenance", "o"),
    ("GET", "/api/v1/audit", "osa"),
    ("GET", "/api/v1/audit/checkpoint", "osa"),
    ("GET", "/api/v1/audit/proof", "osa"),
    ("GET", "/api/v1/audit/consistency", "osa"),
    ("POST", "/api/v1/audit/rotate", "o"),
];

#[test]
fn no_route_is_without_a_row_and_no_row_without_a_route() {
    let mut rows: Vec<_> = MAY.iter().map(|(method, path, _)| format!("{method} {path}")).collect();
    let mut routes: Vec<_> =
        routes::every().into_iter().map(|route| format!("{} {}", route.method, route.path)).collect();
    let mut access: Vec<_> =
        verification_signer::http::access::TABLE.iter().map(|row| format!("{} {}", row.method, row.path)).collect();
    for list in [&mut rows, &mut routes, &mut access] {
        list.sort_unstable();
    }
    assert_eq!(rows, routes);
    assert_eq!(access, routes);
}

fn concrete(path: &str) -> String {
    path.replace("{name}", "invalid-json")
        .replace("{asset}", "main.js")
        .replace("{key_id}", "veid-signer-test:99")
        .replace("{rotation_id}", "rot-99")
        .replace("{approval_id}", "apr-99")
}

/// Calls all routes in one way; the problems with who may and who may not, and how many were denied.
fn check(wire: &str, curl: &Curl, role: Option<char>) -> usize {
    let mut denied = 0;
    for (method, path, may) in MAY {
        let body = json!({});
        let answer = curl.send(method, &concrete(path), (*method != "GET").then_some(&body)).unwrap();
        let what = format!("{wire}, {role:?}: {method} {path} got {} {}", answer.status, answer.text());
        let allowed = *may == "*" || role.is_some_and(|role| may.contains(role));
        match (allowed, role) {
            (true, _) => {
                assert!(!matches!(answer.status, 401 | 403) && answer.status < 500, "{what}");
            }
            (false, None) => {
                assert_eq!(answer.status, 401, "{what}");
                assert_eq!(answer.problem(), "not-authenticated", "{what}");
                assert!(answer.header("www-authenticate").starts_with("Bearer"), "{what}");
            }
            (false, Some(_)) => {
                assert_eq!(answer.status, 403, "{what}");
                assert_eq!(answer.problem(), "missing-role", "{what}");
                let missing = CLIENTS
                    .iter()
                    .any(|name| may.contains(name.chars().next().unwrap()) && answer.text().contains(name));
                assert!(missing, "{what}");
            }
        }
        denied += usize::from(!allowed);
    }
    denied
}

#[test]
fn everybody_learns_who_they_are_and_what_they_may_do() {
    let guarded = Guarded::new();
    for client in &CLIENTS[..5] {
        let me = guarded.certified(client).get("/api/v1/me").ok();
        assert_eq!((&me["identity"], &me["roles"]), (&json!(client), &json!([client])));
        let may = me["may"].as_array().unwrap().iter().map(|route| route.as_str().unwrap().to_owned());
        let rows = MAY.iter().filter(|(_, _, may)| may.contains(letter(client).unwrap()));
        let expected: BTreeSet<_> = rows.map(|(method, path, _)| format!("{method} {path}")).collect();
        assert_eq!(may.collect::<BTreeSet<_>>(), expected, "{client}");
    }
    let nobody = guarded.tls().get("/api/v1/me").ok();
    assert_eq!(
        (&nobody["roles"], &nobody["may"], &nobody["authentication_required"]),
        (&json!([]), &json!([]), &json!(true))
    );
    // A credential that is shown must be good, and a bad one is on record.
    assert!(guarded.appliance().audit_events("access_denied").is_empty());
    assert_eq!(guarded.tls().bearer("vsk_nobody_0").get("/api/v1/me").status, 401);
    assert_eq!(guarded.appliance().audit_events("access_denied").len(), 1);
}

fn letter(client: &str) -> Option<char> {
    client.chars().next()
}

#[test]
fn every_route_is_open_to_its_roles_and_to_nobody_else_over_every_wire() {
    let guarded = Guarded::new();
    let before = guarded.appliance().metric("virtengine_verification_access_denied_total");
    assert_eq!(before, "0");
    let mut denied = 0;
    for (wire, curl) in [("plain", guarded.plain()), ("tls", guarded.tls())] {
        denied += check(&format!("{wire}, nobody"), &curl, None);
    }
    for client in &CLIENTS[..5] {
        denied += check("certificate", &guarded.certified(client), letter(client));
        denied += check("token", &guarded.tls().bearer(&guarded.provider.token(client)), letter(client));
        let key = guarded.key(client, &[]);
        denied += check("key", &guarded.plain().bearer(&key), letter(client));
        denied += check("key over TLS", &guarded.tls().bearer(&key), letter(client));
        denied += check("key over the socket", &guarded.unix().bearer(&key), letter(client));
    }
    denied += check("socket", &guarded.unix(), letter("operator"));

    // Everything that was denied is on record; in a flood as a number.
    let records = guarded.appliance().audit_events("access_denied");
    let left_out: u64 =
        records.iter().filter_map(|record| record["details"]["denials_not_recorded_before"].as_u64()).sum();
    let counted: usize = guarded.appliance().metric("virtengine_verification_access_denied_total").parse().unwrap();
    // Waiting for a new key to be taken is denied as well.
    assert!(counted >= denied, "{counted} counted of {denied}");
    assert!(records.len() as u64 + left_out <= counted as u64 && records.len() > 100);
    let one = records.iter().find(|record| record["actor"] == "auditor").unwrap();
    assert!(one["details"]["reason"].as_str().unwrap().contains("is missing"), "{one}");
    assert_eq!(one["request"]["ip_address"], "127.0.0.1");
}

#[test]
fn whoever_is_on_the_socket_has_the_roles_of_their_user() {
    for client in ["producer", "security", "auditor", "metrics"] {
        let guarded = Guarded::with(client, "", "");
        check("socket", &guarded.unix(), letter(client));
    }
    let guarded = Guarded::with("none", "", "");
    check("socket", &guarded.unix(), None);
    let denied = &guarded.appliance().audit_events("access_denied")[0];
    assert_eq!(denied["actor"], format!("uid:{}", rustix::process::geteuid().as_raw()));
}

#[test]
fn a_rotation_with_overlap_is_the_operators_and_one_without_is_securitys() {
    let guarded = Guarded::new();
    let body = |emergency: bool| json!({ "reason": "test", "initiated_by": "somebody else", "emergency": emergency });
    let status =
        |client: &str, emergency| guarded.certified(client).post("/api/v1/keys/rotate", &body(emergency)).status;
    assert_eq!(status("security", false), 403);
    assert_eq!(status("operator", true), 403);
    assert_eq!(status("operator", false), 201);
    assert_eq!(status("security", true), 201);
    let records = guarded.appliance().audit_events("key_rotated");
    let actors: Vec<_> = records.iter().map(|record| record["actor"].as_str().unwrap()).collect();
    assert_eq!(actors, ["operator", "operator", "security", "security"]);
    assert!(records.iter().all(|record| record["details"]["initiated_by"] == "somebody else"));
    // Each had been let through on record, whether or not the handler agreed.
    assert_eq!(guarded.appliance().audit_events("access_granted").len(), 4);
}

#[test]
fn reading_the_trail_leaves_a_trace_in_it_once_a_minute() {
    let guarded = Guarded::new();
    for _ in 0..3 {
        guarded.certified("auditor").get("/api/v1/audit?limit=1").ok();
        guarded.certified("security").get("/api/v1/audit/proof?seq=1").ok();
        guarded.certified("auditor").get("/api/v1/keys").ok();
    }
    let readers: Vec<_> = guarded.appliance().audit_events("access_granted");
    let readers: Vec<_> = readers.iter().map(|record| (&record["actor"], &record["resource"])).collect();
    assert_eq!(
        format!("{readers:?}"),
        r#"[(String("auditor"), String("/api/v1/audit")), (String("security"), String("/api/v1/audit/proof"))]"#
    );
}

#[test]
fn a_producer_keeps_to_its_types_purposes_and_keys() {
    let guarded = Guarded::new();
    let producer = guarded.certified("producer");
    let nonce = |kind: &str| producer.post("/api/v1/nonces", &json!({ "attestation_type": kind }));
    let answer = nonce("sms_verification");
    assert_eq!((answer.status, &*answer.problem()), (403, "not-permitted"), "{}", answer.text());
    let nonce = nonce("email_verification").ok()["nonce"].as_str().unwrap().to_owned();
    let mut attestation = crate::support::appliance::attestation_request(&nonce);
    attestation["type"] = "sms_verification".into();
    let answer = producer.post("/api/v1/attestations", &attestation);
    assert_eq!((answer.status, &*answer.problem()), (403, "not-permitted"), "{}", answer.text());
    attestation["type"] = "email_verification".into();
    assert_eq!(producer.post("/api/v1/attestations", &attestation).status, 200, "the nonce was not spent");
    let sign = |purpose: &str| producer.post("/api/v1/sign", &json!({ "data": "AAAA", "purpose": purpose }));
    assert_eq!(sign("receipt").status, 200);
    assert_eq!((sign("other").status, &*sign("other").problem()), (403, "not-permitted"));
    let denied = guarded.appliance().audit_events("access_denied");
    assert_eq!(denied.len(), 4, "{denied:?}");
    assert!(denied.iter().all(|record| record["actor"] == "producer"));
}
