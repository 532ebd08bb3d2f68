//! The manifests, as far as they can be looked at without a cluster.

use std::collections::BTreeSet;

use verification_signer::config::Config;

use crate::support::guarded::Guarded;

const MANIFESTS: &str = include_str!("../../packaging/kubernetes/verification-signer.yaml");

/// The configuration inside the `ConfigMap`.
fn configuration() -> Config {
    let block = MANIFESTS.split("  config.toml: |\n").nth(1).unwrap();
    let lines: Vec<_> = block.lines().map_while(|line| line.strip_prefix("    ")).collect();
    Config::parse(&lines.join("\n")).unwrap()
}

/// What stands after a key, wherever it stands.
fn values(key: &str) -> BTreeSet<&str> {
    let after = format!("{key}: ");
    let found = MANIFESTS.split(after.as_str()).skip(1);
    found.map(|rest| rest.split([',', ' ', '\n', '}']).next().unwrap()).collect()
}

#[test]
fn the_configuration_of_the_manifests_is_accepted_and_their_ports_and_times_go_with_it() {
    let config = configuration();
    let tls = config.tls.as_ref().unwrap();
    assert!(!tls.listen.ip().is_loopback() && config.auth.is_some() && config.redis.is_some());
    assert!(!tls.require_client_certificate, "the kubelet has no client certificate");
    assert!(!config.fleet.single);
    let ports = [tls.listen.port(), config.metrics.listen.port()].map(|port| port.to_string());
    assert_eq!(values("containerPort"), ports.iter().map(String::as_str).collect());
    assert_eq!(values("replicas"), ["3"].into());
    let grace: u64 = values("terminationGracePeriodSeconds").first().unwrap().parse().unwrap();
    assert!(grace > (config.http.leave + config.http.drain).as_secs() + 30, "{grace}");
    for mounted in ["/data", "/run/tls", "/run/redis", "/run/credentials", "/etc/verification-signer"] {
        assert!(values("mountPath").contains(mounted), "{mounted}");
    }
}

#[test]
fn the_probes_are_answered_over_tls_to_whoever_asks() {
    let guarded = Guarded::new();
    let probes: BTreeSet<_> = values("httpGet: { path");
    assert_eq!(probes, ["/livez", "/readyz"].into());
    for probe in probes {
        assert_eq!(guarded.tls().get(probe).status, 200, "{probe}");
    }
}
