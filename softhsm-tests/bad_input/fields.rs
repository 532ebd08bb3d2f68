//! JSON of the wrong shape: each row changes an acceptable body in one place, and names the field
//! that must be refused.

use base64::{Engine, engine::general_purpose::STANDARD};

use super::assert_field;
use crate::support::appliance::Appliance;

/// What to replace, by what, and the field that is named in the refusal.
type Row<'a> = (&'a str, &'a str, &'a str);

/// `good` is accepted; every row makes it unacceptable.
fn refuses(path: &str, good: impl Fn(&Appliance) -> String, rows: &[Row<'_>]) {
    let appliance = Appliance::dev();
    let accepted = appliance.post_bytes(path, "application/json", good(&appliance).as_bytes());
    assert_eq!(accepted.status, 200, "{}", accepted.text());
    let good = good(&appliance);
    for (from, to, field) in rows {
        assert!(good.matches(from).count() >= 1, "{from} is not in {good}");
        let body = good.replacen(from, to, 1);
        let answer = appliance.post_bytes(path, "application/json", body.as_bytes());
        let what = format!("{path}: {} for {from}", to.chars().take(80).collect::<String>());
        assert_field(&what, &answer, field);
    }
    assert!(!appliance.log().contains("panicked"));
}

fn attestation(appliance: &Appliance) -> String {
    r#"{"type":"email_verification","subject":{"account_address":"virtengine1qyfe","scope_id":"sc"},"nonce":"NONCE","validity_seconds":60,"verification_proofs":[{"proof_type":"match","content_hash":"abab","score":7,"passed":true,"threshold":6,"timestamp":"2026-01-31T09:30:00Z"}],"score":9,"confidence":8,"metadata":{"a":"1"}}"#
        .replace("NONCE", &appliance.nonce())
}

#[test]
fn attestation_requests_with_unknown_missing_or_repeated_fields() {
    refuses(
        "/api/v1/attestations",
        attestation,
        &[
            // What is the signer's to say.
            ("{\"type\"", "{\"id\":\"x\",\"type\"", "id"),
            ("{\"type\"", "{\"schema_version\":\"1.0.0\",\"type\"", "schema_version"),
            ("{\"type\"", "{\"issuer\":{},\"type\"", "issuer"),
            ("{\"type\"", "{\"proof\":{},\"type\"", "proof"),
            ("{\"account_address\"", "{\"id\":\"x\",\"account_address\"", "subject.id"),
            // Unknown anywhere.
            ("{\"type\"", "{\"Type\":1,\"type\"", "Type"),
            ("{\"type\"", "{\"\":1,\"type\"", ""),
            ("{\"account_address\"", "{\"extra\":1,\"account_address\"", "subject.extra"),
            ("{\"proof_type\"", "{\"extra\":1,\"proof_type\"", "verification_proofs[0].extra"),
            // Missing.
            ("\"type\":\"email_verification\",", "", "type"),
            ("\"subject\":{\"account_address\":\"virtengine1qyfe\",\"scope_id\":\"sc\"},", "", "subject"),
            ("\"account_address\":\"virtengine1qyfe\",", "", "subject.account_address"),
            ("\"nonce\":", "\"model_version\":", "nonce"),
            ("\"score\":9,", "", "score"),
            ("\"confidence\":8,", "", "confidence"),
            ("\"proof_type\":\"match\",", "", "verification_proofs[0].proof_type"),
            ("\"content_hash\":\"abab\",", "", "verification_proofs[0].content_hash"),
            ("\"score\":7,", "", "verification_proofs[0].score"),
            ("\"passed\":true,", "", "verification_proofs[0].passed"),
            (",\"timestamp\":\"2026-01-31T09:30:00Z\"", "", "verification_proofs[0].timestamp"),
            ("\"validity_seconds\":60,", "", "expires_at"),
            // Repeated, also in another spelling.
            ("\"score\":9", "\"score\":9,\"score\":9", "score"),
            ("\"score\":9", "\"score\":9,\"sc\\u006fre\":9", "score"),
            ("\"type\":\"email", "\"type\":\"sms_verification\",\"type\":\"email", "type"),
            ("\"scope_id\":\"sc\"", "\"scope_id\":\"sc\",\"scope_id\":\"sd\"", "subject.scope_id"),
            ("\"passed\":true", "\"passed\":true,\"passed\":false", "verification_proofs[0].passed"),
            ("{\"a\":\"1\"}", "{\"a\":\"1\",\"a\":\"1\"}", "metadata.a"),
            ("{\"a\":\"1\"}", "{\"a\":\"1\",\"b\":\"1\",\"\\u0061\":\"2\"}", "metadata.a"),
        ],
    );
}

#[test]
fn attestation_requests_with_values_of_the_wrong_type() {
    let mut rows: Vec<Row<'_>> = Vec::new();
    for wrong in ["5", "null", "true", "[]", "{}", "[\"email_verification\"]", "{\"email_verification\":null}", "\"e\""]
    {
        rows.push(("\"email_verification\"", wrong, "type"));
    }
    for wrong in ["5", "null", "\"virtengine1qyfe\"", "[\"virtengine1qyfe\"]", "[\"virtengine1qyfe\",\"sc\",\"\"]"] {
        rows.push(("{\"account_address\":\"virtengine1qyfe\",\"scope_id\":\"sc\"}", wrong, "subject"));
    }
    for wrong in ["5", "null", "{}", "[\"a\"]", "false"] {
        rows.push(("\"virtengine1qyfe\"", wrong, "subject.account_address"));
        rows.push(("\"sc\"", wrong, "subject.scope_id"));
        rows.push(("\"score\":9", leak(format!("\"model_version\":{wrong},\"score\":9")), "model_version"));
        rows.push(("\"match\"", wrong, "verification_proofs[0].proof_type"));
        rows.push(("\"2026-01-31T09:30:00Z\"", wrong, "verification_proofs[0].timestamp"));
    }
    for wrong in ["5", "null", "\"a\"", "[\"a\"]", "[[\"a\",\"1\"]]", "false"] {
        rows.push(("{\"a\":\"1\"}", wrong, "metadata"));
    }
    for wrong in ["\"9\"", "9.0", "9.5", "-9", "null", "[9]", "{}", "true", "99999999999999999999999999"] {
        rows.push(("\"score\":9", leak(format!("\"score\":{wrong}")), "score"));
        rows.push(("\"confidence\":8", leak(format!("\"confidence\":{wrong}")), "confidence"));
        rows.push(("\"score\":7", leak(format!("\"score\":{wrong}")), "verification_proofs[0].score"));
        rows.push(("\"threshold\":6", leak(format!("\"threshold\":{wrong}")), "verification_proofs[0].threshold"));
    }
    for wrong in ["\"60\"", "60.0", "6e1", "-60", "[]", "{}", "true", "18446744073709551616"] {
        rows.push((":60,", leak(format!(":{wrong},")), "validity_seconds"));
    }
    for wrong in ["1", "0", "\"true\"", "null", "[]"] {
        rows.push((":true,", leak(format!(":{wrong},")), "verification_proofs[0].passed"));
    }
    for wrong in ["5", "null", "[]", "{}"] {
        rows.push(("\"1\"", wrong, "metadata.a"));
    }
    for (wrong, field) in [
        ("{}", "verification_proofs"),
        ("5", "verification_proofs"),
        ("[5]", "verification_proofs[0]"),
        ("[null]", "verification_proofs[0]"),
        ("[[\"match\",\"abab\",7,true,6,\"2026-01-31T09:30:00Z\"]]", "verification_proofs[0]"),
    ] {
        rows.push((PROOFS, wrong, field));
    }
    refuses("/api/v1/attestations", attestation, &rows);
}

const PROOFS: &str = r#"[{"proof_type":"match","content_hash":"abab","score":7,"passed":true,"threshold":6,"timestamp":"2026-01-31T09:30:00Z"}]"#;

/// Rows live as long as their test, which ends soon.
fn leak(text: String) -> &'static str {
    text.leak()
}

#[test]
fn attestation_requests_with_values_out_of_range() {
    let proof = PROOFS.trim_matches(['[', ']']);
    let many_proofs = format!("[{}]", vec![proof; 65].join(","));
    let entries: Vec<_> = (0..65).map(|n| format!("\"k{n}\":\"v\"")).collect();
    let many_entries = format!("{{{}}}", entries.join(","));
    let text = |length: usize| format!("\"{}\"", "x".repeat(length));
    let times = |wrong: &'static str| {
        [
            ("\"score\":9", leak(format!("\"issued_at\":\"{wrong}\",\"score\":9")), "issued_at"),
            ("\"validity_seconds\":60", leak(format!("\"expires_at\":\"{wrong}\"")), "expires_at"),
            ("\"2026-01-31T09:30:00Z\"", leak(format!("\"{wrong}\"")), "verification_proofs[0].timestamp"),
        ]
    };
    let mut rows = vec![
        ("\"score\":9", "\"score\":101", "score"),
        ("\"score\":7", "\"score\":101", "verification_proofs[0].score"),
        ("\"threshold\":6", "\"threshold\":256", "verification_proofs[0].threshold"),
        ("\"confidence\":8", "\"confidence\":4294967297", "confidence"),
        (":60", ":0", "validity_seconds"),
        (":60", ":315360001", "validity_seconds"),
        (":60", ":18446744073709551615", "validity_seconds"),
        (":60", ":60,\"expires_at\":\"2999-01-01T00:00:00Z\"", "validity_seconds"),
        ("\"validity_seconds\":60", "\"expires_at\":\"2020-01-01T00:00:00Z\"", "expires_at"),
        (
            "\"validity_seconds\":60",
            "\"issued_at\":\"2999-01-01T00:00:00Z\",\"expires_at\":\"2999-01-01T00:00:00Z\"",
            "expires_at",
        ),
        ("\"virtengine1qyfe\"", "\"\"", "subject.account_address"),
        ("\"virtengine1qyfe\"", "\"a b\"", "subject.account_address"),
        ("\"virtengine1qyfe\"", "\"a/b\"", "subject.account_address"),
        ("\"virtengine1qyfe\"", "\"a#b\"", "subject.account_address"),
        ("\"virtengine1qyfe\"", "\"a\\u0000\"", "subject.account_address"),
        ("\"virtengine1qyfe\"", "\"ä\"", "subject.account_address"),
        ("\"virtengine1qyfe\"", leak(text(129)), "subject.account_address"),
        ("\"sc\"", leak(text(129)), "subject.scope_id"),
        ("\"score\":9", leak(format!("\"model_version\":{},\"score\":9", text(129))), "model_version"),
        ("\"match\"", leak(text(65)), "verification_proofs[0].proof_type"),
        ("\"abab\"", leak(text(257)), "verification_proofs[0].content_hash"),
        ("\"1\"", leak(text(1025)), "metadata.a"),
        ("\"a\"", leak(text(129)), leak(format!("metadata.{}", "x".repeat(129)))),
        ("{\"a\":\"1\"}", leak(many_entries), "metadata"),
        (PROOFS, leak(many_proofs), "verification_proofs"),
    ];
    for wrong in [
        "",
        "2026-01-31",
        "2026-01-31T09:30:00",
        "2026-01-31t09:30:00Z",
        "2026-01-31T09:30:00z",
        "2026-01-31 09:30:00Z",
        "2026-02-30T09:30:00Z",
        "2026-13-31T09:30:00Z",
        "2026-01-31T24:00:00Z",
        "2026-12-31T23:59:60Z",
        "2026-01-31T09:30:00.0000000001Z",
        "2026-01-31T09:30:00+24:00",
        "2026-01-31T09:30:00+0100",
        "0000-01-01T00:00:00+01:00",
        "9999-12-31T23:59:59-01:00",
        "10000-01-01T00:00:00Z",
        "-001-01-01T00:00:00Z",
        "2026-01-31T09:30:00Zä",
        "ääääääääääääääääää",
        "1769851800",
    ] {
        rows.extend(times(wrong));
    }
    refuses("/api/v1/attestations", attestation, &rows);
}

#[test]
fn nonce_requests() {
    let good = |_: &Appliance| {
        r#"{"attestation_type":"email_verification","subject_address":"virtengine1qyfe","window_seconds":300}"#
            .to_owned()
    };
    let rows = [
        ("\"attestation_type\":\"email_verification\",", "", "attestation_type"),
        ("\"email_verification\"", "\"email\"", "attestation_type"),
        ("\"email_verification\"", "\"EMAIL_VERIFICATION\"", "attestation_type"),
        ("\"email_verification\"", "3", "attestation_type"),
        ("\"email_verification\"", "{\"email_verification\":null}", "attestation_type"),
        ("{\"attestation", "{\"type\":1,\"attestation", "type"),
        ("{\"attestation", "{\"count\":1,\"attestation", "count"),
        (":300", ":300,\"window_seconds\":300", "window_seconds"),
        (":300", ":299", "window_seconds"),
        (":300", ":86401", "window_seconds"),
        (":300", ":-300", "window_seconds"),
        (":300", ":300.5", "window_seconds"),
        (":300", ":\"300\"", "window_seconds"),
        (":300", ":18446744073709551616", "window_seconds"),
        ("\"virtengine1qyfe\"", "\"\"", "subject_address"),
        ("\"virtengine1qyfe\"", "\"a b\"", "subject_address"),
        ("\"virtengine1qyfe\"", leak(format!("\"{}\"", "x".repeat(129))), "subject_address"),
        ("\"virtengine1qyfe\"", "[\"virtengine1qyfe\"]", "subject_address"),
    ];
    refuses("/api/v1/nonces", good, &rows);

    let batch = |appliance: &Appliance| good(appliance).replace('}', ",\"count\":2}");
    let rows = [
        (",\"count\":2", "", "count"),
        (":2}", ":0}", "count"),
        (":2}", ":1001}", "count"),
        (":2}", ":-1}", "count"),
        (":2}", ":2.0}", "count"),
        (":2}", ":18446744073709551615}", "count"),
        (":2}", ":\"2\"}", "count"),
        (":2}", ":2,\"count\":2}", "count"),
        (":300", ":299", "window_seconds"),
        ("\"email_verification\"", "null", "attestation_type"),
        ("{\"attestation", "{\"extra\":1,\"attestation", "extra"),
    ];
    refuses("/api/v1/nonces/batch", batch, &rows);
}

#[test]
fn signing_and_verification_of_opaque_data() {
    let rows = [
        ("\"data\":\"AQID\",", "", "data"),
        ("\"AQID\"", "\"AQI\"", "data"),
        ("\"AQID\"", "\"_-==\"", "data"),
        ("\"AQID\"", "\"AQ ID\"", "data"),
        ("\"AQID\"", "5", "data"),
        ("\"AQID\"", "[1,2,3]", "data"),
        ("\"data\":", "\"data\":\"AQID\",\"data\":", "data"),
        ("\"test\"", "\"\"", "purpose"),
        ("\"test\"", "\"Test\"", "purpose"),
        ("\"test\"", "\"a b\"", "purpose"),
        ("\"test\"", "\"a;b\"", "purpose"),
        ("\"test\"", "null", "purpose"),
        ("\"test\"", leak(format!("\"{}\"", "x".repeat(65))), "purpose"),
        ("\"data\":", "\"key_id\":5,\"data\":", "key_id"),
        ("\"data\":", "\"algorithm\":\"P-256\",\"data\":", "algorithm"),
        ("\"data\":", leak(format!("\"request_id\":\"{}\",\"data\":", "x".repeat(129))), "request_id"),
    ];
    refuses("/api/v1/sign", |_| r#"{"data":"AQID","purpose":"test"}"#.to_owned(), &rows);

    let signature = STANDARD.encode([7; 64]);
    let quoted = leak(format!("\"{signature}\""));
    let short = leak(format!("\"{}\"", STANDARD.encode([7; 63])));
    let mut rows = rows.to_vec();
    rows.extend([
        (quoted, "\"\"", "signature"),
        (quoted, "\"!\"", "signature"),
        (quoted, short, "signature"),
        (quoted, "null", "signature"),
        ("\"signature\":", "\"extra\":", "extra"),
    ]);
    let good = format!(r#"{{"data":"AQID","purpose":"test","signature":{quoted}}}"#);
    refuses("/api/v1/verify", |_| good.clone(), &rows);
}

#[test]
fn attestations_to_verify() {
    let good = |appliance: &Appliance| {
        appliance.post_bytes("/api/v1/attestations", "application/json", attestation(appliance).as_bytes()).text()
    };
    refuses(
        "/api/v1/attestations/verify",
        good,
        &[
            ("{\"id\":", "{\"extra\":1,\"id\":", "extra"),
            ("{\"id\":", "{\"id\":\"x\",\"id\":", "id"),
            ("\"schema_version\":\"1.0.0\",", "", "schema_version"),
            ("\"1.0.0\"", leak(format!("\"{}\"", "1".repeat(17))), "schema_version"),
            ("\"email_verification\"", "7", "type"),
            ("\"issuer\":{", "\"issuer\":{\"extra\":1,", "issuer.extra"),
            ("\"subject\":{", "\"subject\":{\"extra\":1,", "subject.extra"),
            ("\"proof\":{", "\"proof\":{\"extra\":1,", "proof.extra"),
            ("\"proof\":{", "\"proof\":{\"created\":\"2026-01-31T09:30:00Z\",", "proof.created"),
            ("\"proof_purpose\":\"assertionMethod\"", "\"proof_purpose\":\"authentication\"", "proof.proof_purpose"),
            ("\"assertionMethod\"", "{\"assertionMethod\":null}", "proof.proof_purpose"),
            ("\"EcdsaSecp256r1Signature2019\"", "\"RsaSignature2018\"", "proof.type"),
            ("\"EcdsaSecp256r1Signature2019\"", "1", "proof.type"),
            ("\"proof_value\":\"", leak(format!("\"proof_value\":\"{}", "A".repeat(129))), "proof.proof_value"),
            ("\"issued_at\":\"", "\"issued_at\":\"x", "issued_at"),
            ("\"score\":9", "\"score\":101", "score"),
            ("{\"a\":\"1\"}", "{\"a\":\"1\",\"a\":\"1\"}", "metadata.a"),
        ],
    );
}

#[test]
fn changes_of_keys() {
    let words = |field: &'static str, good: &'static str| {
        ["5", "[]", "\"x\"", leak(format!("{{{good}:null}}")), leak(format!("[{good}]"))]
            .map(|wrong| (good, wrong, field))
    };
    let mut rotate = vec![
        ("\"reason\":\"test\",", "", "reason"),
        ("\"initiated_by\":\"me\",", "", "initiated_by"),
        ("\"me\"", "5", "initiated_by"),
        ("\"me\"", leak(format!("\"{}\"", "x".repeat(129))), "initiated_by"),
        ("true", "\"true\"", "dry_run"),
        ("true", "true,\"emergency\":1", "emergency"),
        ("true", "true,\"overlap_seconds\":-1", "overlap_seconds"),
        ("true", "true,\"dry_run\":false", "dry_run"),
        ("true", "true,\"extra\":1", "extra"),
    ];
    rotate.extend(words("algorithm", "\"P-256\""));
    let good = r#"{"reason":"test","initiated_by":"me","algorithm":"P-256","dry_run":true}"#;
    refuses("/api/v1/keys/rotate", |_| good.to_owned(), &rotate);

    let mut revoke = vec![
        (",\"initiated_by\":\"me\"", "", "initiated_by"),
        ("\"reason\":\"compromised\",", "", "reason"),
        ("\"me\"", "\"me\",\"compromised_at\":\"yesterday\"", "compromised_at"),
        ("\"me\"", "\"me\",\"force\":true", "force"),
        ("\"me\"", "\"me\",\"reason\":\"rotation\"", "reason"),
    ];
    revoke.extend(words("reason", "\"compromised\""));
    let good = |_: &Appliance| r#"{"reason":"compromised","initiated_by":"me"}"#.to_owned();
    refuses("/api/v1/keys/veid-signer-dev:1/revoke", good, &revoke);
    refuses("/api/v1/keys/emergency", good, &words("reason", "\"compromised\""));
}
