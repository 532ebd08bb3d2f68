//! `GET /api/v1/audit`: filters, order, pages.

use serde_json::Value;

use super::trail::audit;
use crate::support::{
    appliance::Appliance,
    signer::{Signer, key},
};

fn sequences(page: &Value) -> Vec<u64> {
    page.as_array().unwrap().iter().map(|record| record["sequence"].as_u64().unwrap()).collect()
}

/// All pages of a search, by its Link headers.
fn pages(signer: &Appliance, path: &str) -> Vec<u64> {
    let (mut path, mut all) = (path.to_owned(), Vec::new());
    loop {
        let answer = signer.get(&path);
        all.extend(sequences(&answer.json()));
        let Some(link) = answer.header("link").strip_prefix('<').map(ToOwned::to_owned) else { return all };
        let (next, rel) = link.split_once('>').unwrap();
        assert_eq!(rel, "; rel=\"next\"");
        path = next.to_owned();
    }
}

#[test]
fn filters_order_and_pages() {
    let signer = Signer::new();
    for _ in 0..5 {
        signer.attest();
    }
    signer.rotate();
    signer.attest();
    let signed = signer.get("/api/v1/audit?event_type=attestation_signed").ok();
    assert_eq!(signed.as_array().unwrap().len(), 6);
    let newest_first = sequences(&signed);
    assert!(newest_first.is_sorted_by(|a, b| a > b), "{newest_first:?}");
    let oldest_first: Vec<_> = newest_first.iter().rev().copied().collect();
    let by_twos = "/api/v1/audit?event_type=attestation_signed&limit=2";
    assert_eq!(pages(&signer, by_twos), newest_first);
    assert_eq!(pages(&signer, &format!("{by_twos}&order=asc")), oldest_first);

    let of_key = |key: &str| {
        let path = format!("/api/v1/audit?event_type=attestation_signed&key_id={key}");
        sequences(&signer.get(&path).ok()).len()
    };
    assert_eq!((of_key(&key(1)), of_key(&key(2)), of_key("other:1")), (5, 1, 0));
    let since = signed[1]["timestamp"].as_str().unwrap();
    let path = format!("/api/v1/audit?event_type=attestation_signed&since={since}");
    assert_eq!(sequences(&signer.get(&path).ok()), newest_first[..2]);
    for (filter, at_least) in [
        ("ip=127.0.0.1", 12),
        ("ip=192.0.2.1", 0),
        ("actor=anonymous@127.0.0.1&outcome=pending", 2),
        ("outcome=success&severity=info", 12),
        ("resource=rotation-2", 1),
    ] {
        let found = sequences(&signer.get(&format!("/api/v1/audit?{filter}&limit=1000")).ok());
        assert!(if at_least == 0 { found.is_empty() } else { found.len() >= at_least }, "{filter}: {found:?}");
    }
    for bad in ["event_type=no_such_type", "since=yesterday", "limit=0", "limit=1000000", "colour=red", "order=up"] {
        assert_eq!(signer.get(&format!("/api/v1/audit?{bad}")).status, 400, "{bad}");
    }
}

#[test]
fn a_record_is_found_as_soon_as_it_was_answered() {
    let signer = Signer::new();
    for _ in 0..20 {
        let answer = signer.try_attest();
        let newest = signer.get("/api/v1/audit?event_type=attestation_signed&limit=1").ok();
        assert_eq!(newest[0]["sequence"].to_string(), answer.header("audit-sequence"));
    }
}

#[test]
fn an_export_holds_what_was_asked_for_in_lines_or_as_a_table() {
    let signer = Signer::new();
    signer.attest();
    signer.attest();
    let directory = signer.home.join("audit");
    let export = |more: &[&str]| {
        let said = audit(&[&["export", directory.to_str().unwrap()], more].concat());
        assert_eq!(said.code, 0, "{}", said.text);
        said.text
    };
    let lines = export(&["--event-type", "attestation_signed", "--key-id", &key(1)]);
    assert!(signer.audit_log().contains(&lines.lines().next().unwrap().to_owned()));
    assert_eq!(lines.lines().count(), 2);
    let table = export(&["--format", "csv", "--event-type", "attestation_signed"]);
    let rows: Vec<_> = table.lines().collect();
    assert_eq!(rows.len(), 3, "{table}");
    assert!(rows[0].starts_with("sequence,id,type,") && rows[1].contains("\"attestation_signed\""), "{table}");
    assert_eq!(audit(&["export", directory.to_str().unwrap(), "--event-type", "nonsense"]).code, 64);
}
