//! Rates of clients and addresses.

use std::fs;

use serde_json::Value;

use super::{ask_from, behind_a_proxy, limited, retry_after};
use crate::support::{appliance::Appliance, eventually, signer::Signer};

#[test]
fn a_client_that_asks_too_much_is_told_when_to_come_back_and_others_are_served() {
    let signer = behind_a_proxy("client = { per_second = 1, burst = 5 }");
    let ask = |address: &str| ask_from(&signer.api, address, "GET", "/api/v1/keys", &Value::Null);
    let first = ask("192.0.2.1");
    assert_eq!(first.status, 200);
    assert_eq!(first.header("ratelimit-policy"), "\"client\";q=5;w=5");
    assert_eq!(first.header("ratelimit"), "\"client\";r=4;t=1");
    let refused = (0..100).map(|_| ask("192.0.2.1")).find(|answer| answer.status != 200).unwrap();
    assert_eq!((refused.status, refused.problem()), (429, "rate-limited".into()));
    assert_eq!(retry_after(&refused), 1);
    assert_eq!(refused.header("ratelimit-policy"), "\"client:rate\";q=5;w=5");
    assert_eq!(refused.header("ratelimit"), "\"client:rate\";r=0;t=1");
    assert_eq!(ask("192.0.2.2").status, 200, "another client");
    let blocked = "virtengine_verification_ratelimit_blocked_total{limit_type=\"client\",reason=\"rate\"}";
    assert!(signer.metric(blocked).parse::<u64>().unwrap() > 0);

    let recorded = signer.audit_events("rate_limit_exceeded");
    assert_eq!(recorded.len(), 1, "the first is recorded, and not every one: {recorded:#?}");
    assert_eq!(recorded[0]["request"]["ip_address"], "192.0.2.1");
    assert_eq!(recorded[0]["resource"], "client:anonymous@192.0.2.1");
}

#[test]
fn an_ipv6_host_cannot_choose_other_addresses_of_its_network() {
    let signer = behind_a_proxy("address = { per_second = 1, burst = 5 }");
    let refused = (0..200).find_map(|number| {
        let address = format!("2001:db8::{number:x}");
        let answer = ask_from(&signer.api, &address, "GET", "/api/v1/keys", &Value::Null);
        (answer.status == 429).then_some(answer)
    });
    assert!(refused.unwrap().text().contains("address"));
    let other = ask_from(&signer.api, "2001:db8:0:1::1", "GET", "/api/v1/keys", &Value::Null);
    assert_eq!(other.status, 200);
}

#[test]
fn health_and_public_keys_are_for_everyone_at_any_rate() {
    let signer = Signer::with("", &limited("client = { per_second = 1, burst = 1 }"));
    (0..100).find(|_| signer.get("/api/v1/keys").status == 429).unwrap();
    for path in ["/healthz", "/readyz", "/livez", "/.well-known/jwks.json", "/"] {
        assert_eq!(signer.get(path).status, 200, "{path}");
    }
}

#[test]
fn dev_limits_nobody_unless_asked() {
    let appliance = Appliance::dev();
    let answer = appliance.get("/api/v1/keys");
    assert!(!answer.headers.contains_key("ratelimit"));
}

#[test]
fn limits_are_read_again_on_hangup_and_a_mistake_in_them_changes_nothing() {
    let tight = "client = { per_second = 1, burst = 3 }";
    let signer = Signer::with("", &limited(tight));
    let asked = || signer.get("/api/v1/keys").status;
    (0..100).find(|_| asked() == 429).unwrap();
    let reload = |to: &str| {
        let text = fs::read_to_string(signer.config()).unwrap();
        let from = text.lines().find(|line| line.starts_with("client = ")).unwrap().to_owned();
        fs::write(signer.config(), text.replace(&from, to)).unwrap();
        signer.signal("HUP");
    };
    reload("client = { per_second = 1000000, burst = 1000000 }");
    eventually("the limit is another", || {
        let answer = signer.get("/api/v1/keys");
        let is_another = answer.headers.get("ratelimit-policy")?.to_str().ok()?.contains("q=1000000");
        // What was used up by the old measure is still being made good.
        (is_another && answer.status == 200).then_some(())
    });
    assert!((0..100).all(|_| asked() == 200));
    reload("client = { per_second = 0, burst = 3 }");
    eventually("the mistake is named", || signer.log().contains("limits.client: per_second must be").then_some(()));
    assert_eq!(asked(), 200);
    reload(tight);
    eventually("the limit is back", || (asked() == 429).then_some(()));
    let recorded = signer.audit_events("config_changed");
    assert_eq!(recorded.iter().filter(|record| record["resource"] == "limits").count(), 2, "{recorded:#?}");
}
