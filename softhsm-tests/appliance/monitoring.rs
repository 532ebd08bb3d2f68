//! Alerts and dashboard, judged by promtool and by a real Prometheus that scrapes a real appliance.

use std::{collections::BTreeSet, fs, path::PathBuf};

use serde_json::Value;

use crate::support::{eventually, guarded::Guarded, prometheus::Prometheus, redis::RedisServer, signer::Signer, tool};

fn file(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(file(name)).unwrap()
}

/// Every alert: its name, its expression, the address of its section in the runbook.
fn alerts() -> Vec<[String; 3]> {
    let text = read("monitoring/alerts.yml");
    let field = |part: &str, name: &str| {
        let line = part.lines().find_map(|line| line.trim().strip_prefix(&format!("{name}: ")));
        line.unwrap_or_else(|| panic!("no {name} in {part}")).trim_matches('\'').to_owned()
    };
    let parts = text.split("- alert: ").skip(1);
    parts
        .map(|part| [part.lines().next().unwrap().to_owned(), field(part, "expr"), field(part, "runbook_url")])
        .collect()
}

/// The selectors of an expression: metric and labels, without ranges.
fn selectors(expression: &str) -> BTreeSet<String> {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut found = BTreeSet::new();
    for prefix in ["virtengine_verification_", "process_"] {
        for (at, _) in expression.match_indices(prefix) {
            if expression[..at].ends_with(is_name) {
                continue;
            }
            let rest = &expression[at..];
            let name: String = rest.chars().take_while(|c| is_name(*c)).collect();
            let labels = rest[name.len()..].strip_prefix('{').map(|labels| labels.split('}').next().unwrap());
            found.insert(labels.map_or(name.clone(), |labels| format!("{name}{{{labels}}}")));
        }
    }
    found
}

/// What GitHub and Markdown viewers make of a heading.
fn anchor(heading: &str) -> String {
    let kept = heading.trim_start_matches('#').trim().to_lowercase();
    kept.chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-'))
        .map(|c| if c == ' ' { '-' } else { c })
        .collect()
}

/// Every panel: its title and the expression of each of its queries.
fn panels() -> Vec<(String, Vec<String>)> {
    let dashboard: Value = serde_json::from_str(&read("monitoring/dashboard.json")).unwrap();
    let panels = dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row");
    panels
        .map(|panel| {
            let targets = panel["targets"].as_array().unwrap().iter();
            let expressions = targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect();
            (panel["title"].as_str().unwrap().to_owned(), expressions)
        })
        .collect()
}

/// What Grafana puts in for its variables.
fn filled_in(expression: &str) -> String {
    expression.replace("$__rate_interval", "1m").replace("$instance", ".*")
}

#[test]
fn promtool_accepts_the_rules_and_each_alert_fires_when_it_should_and_only_then() {
    tool::run("promtool", &["check", "rules", file("monitoring/alerts.yml").to_str().unwrap()], &[]);
    tool::run("promtool", &["test", "rules", file("monitoring/alerts_test.yml").to_str().unwrap()], &[]);
    let tests = read("monitoring/alerts_test.yml");
    let (quiet, loud) = tests.split_once("\n  - name: SignerDown").unwrap();
    for [name, ..] in alerts() {
        assert!(quiet.contains(&format!("alertname: {name} }}")), "{name} is not looked for when all is well");
        assert!(loud.contains(&format!("alertname: {name}\n        exp_alerts:")), "nothing makes {name} fire");
    }
}

#[test]
fn each_alert_links_to_a_section_of_the_runbook_and_is_in_its_table() {
    let runbook = read("RUNBOOK.md");
    let anchors: BTreeSet<_> = runbook.lines().filter(|line| line.starts_with('#')).map(anchor).collect();
    let links = runbook.match_indices("](#").map(|(at, _)| runbook[at + 3..].split(')').next().unwrap());
    for link in links {
        assert!(anchors.contains(link), "RUNBOOK.md links to #{link}, which is no section");
    }
    for [name, _, url] in alerts() {
        let section = url.strip_prefix("file:///usr/share/doc/verification-signer/RUNBOOK.md#").unwrap();
        assert!(anchors.contains(section), "{name} links to #{section}, which is no section");
        let row = runbook.lines().find(|line| line.starts_with('|') && line.contains(&format!("(#{section})")));
        let row = row.unwrap_or_else(|| panic!("no row of the table links to #{section}"));
        assert!(row.split(['|', ',', ' ']).any(|word| word == name), "{name} is not in {row}");
    }
}

#[test]
fn promtool_finds_nothing_wrong_with_the_metrics() {
    let signer = Signer::new();
    signer.attest();
    let output = tool::output("promtool", &["check", "metrics"], &[], signer.get_metrics().as_bytes());
    assert!(output.status.success(), "{}{}", tool::text(&output.stdout), tool::text(&output.stderr));
}

/// With everything that has metrics of its own: TLS with revocation lists, Redis.
#[test]
fn what_alerts_and_panels_ask_for_is_there_in_a_real_prometheus() {
    let redis = RedisServer::start(&["--maxmemory", "100mb", "--maxmemory-policy", "noeviction"]);
    let guarded =
        Guarded::with("operator", "", &format!("[redis]\nurl = \"{}\"\ncommand_timeout = \"3s\"\n", redis.url()));
    let prometheus = Prometheus::scraping(&guarded.appliance().metrics, &file("monitoring/alerts.yml"));

    let expected: BTreeSet<_> = alerts().into_iter().map(|[name, ..]| name).collect();
    eventually("every rule is evaluated", || prometheus.rules().iter().all(|rule| rule[1] == "ok").then_some(()));
    let rules = prometheus.rules();
    assert_eq!(rules.iter().map(|rule| rule[0].clone()).collect::<BTreeSet<_>>(), expected);
    for [name, _, state] in rules {
        assert_eq!(state, "inactive", "{name} on an appliance that is well");
    }
    for [name, expression, _] in alerts() {
        for selector in selectors(&expression) {
            assert!(!prometheus.query(&selector).is_empty(), "{name} asks for {selector}, which nothing exposes");
        }
    }
    let panels = panels();
    assert!(panels.len() >= 20, "the dashboard has shrunk to {} panels", panels.len());
    for (title, expressions) in panels {
        assert!(!expressions.is_empty(), "{title} asks nothing");
        for expression in expressions {
            let filled = filled_in(&expression);
            assert!(!prometheus.query(&filled).is_empty(), "{title}: nothing answers {filled}");
            for selector in selectors(&filled) {
                assert!(!prometheus.query(&selector).is_empty(), "{title} asks for {selector}, which nothing exposes");
            }
        }
    }
}

#[test]
fn the_dates_that_alerts_count_down_to_are_the_real_ones() {
    let guarded = Guarded::new();
    let appliance = guarded.appliance();
    let value = |series: &str| appliance.metric(&format!("virtengine_verification_{series}")).parse::<f64>().unwrap();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
    let days = |series: &str| (value(series) - now) / 86_400.0;
    assert!((days("signer_key_expiry_timestamp_seconds") - 90.0).abs() < 0.1);
    eventually("the certificates were looked at", || {
        appliance.get_metrics().contains("of=\"client_crl\"").then_some(())
    });
    assert!((days("tls_expiry_timestamp_seconds{of=\"server_certificate\"}") - 30.0).abs() < 0.1);
    assert!(days("tls_expiry_timestamp_seconds{of=\"client_ca\"}") > 0.0);
    assert!(days("tls_expiry_timestamp_seconds{of=\"client_crl\"}") > 0.0);
    assert!((value("start_time_seconds") - now).abs() < 600.0);

    let signer = Signer::with("overlap = \"2d\"\ncomplete_automatically = false", "[fleet]\nsingle = true");
    let series = "virtengine_verification_signer_rotation_overlap_end_timestamp_seconds";
    assert_eq!(signer.metric(series), "0");
    let rotation = signer.rotate();
    assert!(((signer.metric(series).parse::<f64>().unwrap() - now) / 86_400.0 - 2.0).abs() < 0.1);
    let force = serde_json::json!({ "force": true, "initiated_by": "ops-team" });
    signer.post(&format!("/api/v1/rotations/{rotation}/complete"), &force).ok();
    assert_eq!(signer.metric(series), "0");
}

#[test]
fn the_age_of_the_checkpoint_grows_only_while_records_wait_for_one() {
    let series = "virtengine_verification_audit_checkpoint_age_seconds";
    let signer = Signer::with_audit("checkpoint_interval = \"1s\"", "[fleet]\nsingle = true");
    signer.attest();
    eventually("everything is signed", || (signer.metric(series) == "0").then_some(()));
    let waiting = Signer::with_audit("checkpoint_interval = \"1h\"", "[fleet]\nsingle = true");
    waiting.attest();
    eventually("the records have waited", || (waiting.metric(series).parse::<f64>().unwrap() > 1.0).then_some(()));
}
