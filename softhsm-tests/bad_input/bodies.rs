//! Bodies that are not one JSON value, too large, or not said to be JSON.

use super::{answer_to, assert_refused};
use crate::support::{
    appliance::Appliance,
    http::{Connection, json_post, request},
    routes::{self, Route},
};

const LIMIT: usize = 65_536;
const PATH: &str = "/api/v1/nonces";
const GOOD: &str = r#"{"attestation_type":"email_verification"}"#;

#[test]
fn what_is_not_one_json_value_is_refused_on_every_route() {
    let appliance = Appliance::dev();
    let deep = |open: &str| open.repeat(10_000).into_bytes();
    let utf16: Vec<u8> = GOOD.encode_utf16().flat_map(u16::to_be_bytes).collect();
    let not_json: &[(&str, Vec<u8>)] = &[
        ("empty", b"".to_vec()),
        ("white space", b" \r\n\t".to_vec()),
        ("cut off", b"{".to_vec()),
        ("cut off in a text", b"{\"a".to_vec()),
        ("a word", b"nul".to_vec()),
        ("single quotes", b"{'a':1}".to_vec()),
        ("a byte order mark", b"\xef\xbb\xbf{}".to_vec()),
        ("UTF-16", utf16),
        ("a NUL byte", b"\0".to_vec()),
        ("NaN", b"NaN".to_vec()),
        ("invalid UTF-8 as a value", b"\"\xff\xfe\"".to_vec()),
        ("invalid UTF-8 in a name", b"{\"\xc3\":1}".to_vec()),
        ("overlong UTF-8", b"{\"\xc0\xaf\":1}".to_vec()),
        ("a lone surrogate in a name", b"{\"\\ud800\":1}".to_vec()),
        ("a control character in a text", b"{\"a\n\":1}".to_vec()),
        ("a comment", b"/**/{}".to_vec()),
    ];
    // JSON, and still not an object.
    let no_object: &[(&str, Vec<u8>)] = &[
        ("null", b"null".to_vec()),
        ("a number", b"5".to_vec()),
        ("a text", b"\"{}\"".to_vec()),
        ("a list", b"[]".to_vec()),
        ("a list of objects", b"[{}]".to_vec()),
        ("deep lists", deep("[")),
        ("a huge number", vec![b'9'; 60_000]),
        ("a minus and a huge number", [b"-".to_vec(), vec![b'9'; 300]].concat()),
    ];
    for route in routes::with_objects() {
        let path = route.concrete(&appliance);
        for (what, body) in not_json {
            if body.is_empty() && route.takes_nothing() {
                continue;
            }
            let answer = appliance.post_bytes(&path, "application/json", body);
            assert_refused(&format!("{path}: {what}"), &answer, 400, "invalid-json");
        }
        for (what, body) in no_object {
            let answer = appliance.post_bytes(&path, "application/json", body);
            let what = format!("{path}: {what}");
            match answer.problem().as_str() {
                "invalid-json" => assert_refused(&what, &answer, 400, "invalid-json"),
                _ => super::assert_field(&what, &answer, "(body)"),
            }
        }
        let good = routes::acceptable_body(&route.path, &appliance).to_string();
        for tail in ["x", "}", " {}", ",", "\0", "null", "//"] {
            let answer = appliance.post_bytes(&path, "application/json", (good.clone() + tail).as_bytes());
            assert_refused(&format!("{path}: {tail:?} after the end"), &answer, 400, "invalid-json");
        }
        for nested in ["{\"a\":", "{\"metadata\":", "{\"subject\":", "{\"verification_proofs\":[", "{\"data\":["] {
            let mut nested = deep(nested);
            nested.truncate(LIMIT);
            let answer = appliance.post_bytes(&path, "application/json", &nested);
            assert_eq!(answer.status, 400, "{path}: {}", answer.text());
            assert!(["invalid-json", "invalid-field"].contains(&answer.problem().as_str()));
        }
        let surrogate = good.replacen("\":\"", "\":\"\\udfff", 1);
        let answer = appliance.post_bytes(&path, "application/json", surrogate.as_bytes());
        assert_refused(&format!("{path}: a lone surrogate"), &answer, 400, "invalid-json");
    }
    assert!(!appliance.log().contains("panicked"));
}

#[test]
fn a_body_of_64_kib_is_read_and_one_byte_more_is_not() {
    let appliance = Appliance::dev();
    for Route { path, .. } in routes::with_harmless_bodies() {
        let good = routes::acceptable_body(&path, &appliance).to_string();
        let padded = |length: usize| good.clone() + &" ".repeat(length - good.len());
        let answer = answer_to(&appliance.api, &json_post(&path, padded(LIMIT + 1).as_bytes()));
        assert_refused(&path, &answer, 413, "body-too-large");
        let answer = appliance.post_bytes(&path, "application/json", padded(LIMIT).as_bytes());
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    }
}

#[test]
fn a_body_that_is_announced_too_large_is_refused_before_it_is_sent() {
    let appliance = Appliance::dev();
    for length in ["65537", "10000000000", "18446744073709551615"] {
        let head = format!(
            "POST {PATH} HTTP/1.1\r\nhost: signer\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
        );
        let answer = answer_to(&appliance.api, head.as_bytes());
        assert_refused(length, &answer, 413, "body-too-large");
    }
}

#[test]
fn a_chunked_body_without_an_end_is_refused_when_it_is_too_large() {
    let appliance = Appliance::dev();
    let mut connection = Connection::open(&appliance.api);
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: signer\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    connection.send(head.as_bytes()).unwrap();
    let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
    // 4 KiB at a time, until it has had enough.
    for _ in 0..1000 {
        if connection.send(chunk.as_bytes()).is_err() {
            break;
        }
    }
    if let Ok(Some(answer)) = connection.answer() {
        assert_refused("chunks", &answer, 413, "body-too-large");
    }
    // The same, sent only a little beyond the limit: the answer arrives for certain.
    let mut connection = Connection::open(&appliance.api);
    connection.send(head.as_bytes()).unwrap();
    for _ in 0..=LIMIT / 0x1000 {
        connection.send(chunk.as_bytes()).unwrap();
    }
    assert_refused("chunks", &connection.answer().unwrap().unwrap(), 413, "body-too-large");
}

#[test]
fn a_chunked_body_with_an_end_is_read() {
    let appliance = Appliance::dev();
    let head = format!(
        "POST {PATH} HTTP/1.1\r\nhost: signer\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    );
    let chunks: Vec<_> = GOOD.chars().map(|c| format!("1\r\n{c}\r\n")).collect();
    let answer = answer_to(&appliance.api, format!("{head}{}0\r\n\r\n", chunks.concat()).as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
}

#[test]
fn only_what_says_that_it_is_json_is_read() {
    let appliance = Appliance::dev();
    let post = |headers: &[(&str, &str)]| answer_to(&appliance.api, &request("POST", PATH, headers, GOOD.as_bytes()));
    for headers in [
        &[][..],
        &[("content-type", "")],
        &[("content-type", "text/plain")],
        &[("content-type", "text/json")],
        &[("content-type", "application/jsonx")],
        &[("content-type", "application/json5")],
        &[("content-type", "application/problem+json")],
        &[("content-type", "application/x-www-form-urlencoded")],
        &[("content-type", "multipart/form-data; boundary=x")],
        &[("content-type", "*/*")],
        &[("content-type", "json")],
        &[("content-type", "/usr/bin/x")],
        &[("content-type", "application/json"), ("content-encoding", "gzip")],
        &[("content-type", "application/json"), ("content-encoding", "br")],
        &[("content-type", "application/json"), ("content-encoding", "deflate, identity")],
        &[("content-type", "application/json"), ("content-encoding", "x")],
    ] {
        let answer = post(headers);
        assert_eq!((answer.status, answer.problem().as_str()), (415, "unsupported-media-type"), "{headers:?}");
    }
    for headers in [
        &[("content-type", "application/json")][..],
        &[("content-type", "Application/JSON")],
        &[("content-type", "application/json; charset=utf-8")],
        &[("content-type", "application/json"), ("content-encoding", "identity")],
        &[("content-type", "application/json"), ("accept", "text/html"), ("expect", "nothing")],
    ] {
        let answer = post(headers);
        assert_eq!(answer.status, 200, "{headers:?}: {}", answer.text());
    }
    for route in routes::with_bodies() {
        let path = route.concrete(&appliance);
        let answer = appliance.post_bytes(&path, "text/plain", b"{}");
        assert_refused(&path, &answer, 415, "unsupported-media-type");
    }
}
