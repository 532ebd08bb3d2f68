//! `bench` measures the configured token, and leaves nothing behind.

use std::fs;

use serde_json::Value;

use crate::support::{site::Site, softhsm::SIGNER, tool};

#[test]
fn a_measurement_of_ones_own_token_leaves_nothing_behind_and_other_names_alone() {
    let site = Site::with_key();
    for (label, id) in [
        ("another:1 P-256", "01"),
        (&*format!("{SIGNER}-throwaway:1 P-256"), "02"),
        (&format!("{SIGNER}-throwaway-benchmark:1 P-256"), "03"),
        (&format!("{SIGNER}-throwaway-benchmark audit 1 P-256"), "04"),
        (&format!("x{SIGNER}-throwaway-bench:1 P-256"), "05"),
        ("under the id of what was left", "06"),
    ] {
        make_key(&site, label, id);
    }
    let (before, listed) = (site.token.object_files().len(), keys(&site));
    // Of measurements that were cut short.
    make_key(&site, &format!("{SIGNER}-throwaway-bench:7 P-256"), "06");
    make_key(&site, &format!("{SIGNER}-throwaway-bench audit 7 P-256"), "07");
    let plot = site.path("plot.svg");
    let output = site
        .command("bench", &site.config())
        .args(["--seconds", "1", "--yes", "--json", "--plot", plot.to_str().unwrap()])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", tool::text(&output.stderr));
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let lines: Vec<&Value> = ["bare", "service"].iter().flat_map(|part| report[part].as_array().unwrap()).collect();
    assert_eq!(lines.len(), 4 + 3 + 5);
    for line in &lines {
        let figure = |name: &str| line[name].as_f64().unwrap();
        assert!(figure("per_second") > 1.0 && figure("cpu_us") > 0.0, "{line}");
        assert!(figure("p50_us") <= figure("p99_us") && figure("p99_us") <= figure("p999_us"), "{line}");
    }
    assert!([1, 2, 4, 8].contains(&report["workers"].as_u64().unwrap()));
    assert!(fs::read_to_string(plot).unwrap().starts_with("<svg"));
    assert_eq!(keys(&site), listed);
    assert_eq!(site.token.object_files().len(), before, "its keys are off the token again");
    let left = fs::read_dir(site.path("")).unwrap().map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left.filter(|name| name.to_string_lossy().contains("-bench-")).collect();
    assert!(left.is_empty(), "{left:?}");
    // The appliance itself is as it was.
    site.run("check").with(0, "active key");
}

fn make_key(site: &Site, label: &str, id: &str) {
    let pair = ["--keypairgen", "--key-type", "EC:prime256v1", "--usage-sign", "--label", label, "--id", id];
    site.pkcs11_tool().logged_in(&pair);
}

/// Everything that the token shows of all keys, audit keys among them.
fn keys(site: &Site) -> Vec<String> {
    let tool = site.pkcs11_tool();
    let mut keys = [tool.objects(), tool.audit_key()].concat();
    keys.retain(|object| object.contains("Key Object"));
    keys.sort();
    keys
}

#[test]
fn nobody_is_measured_without_being_asked() {
    let site = Site::with_key();
    let output = site.command("bench", &site.config()).stdin(std::process::Stdio::null()).output().unwrap();
    assert_eq!(output.status.code(), Some(64), "{}", tool::text(&output.stderr));
    assert!(tool::text(&output.stderr).contains("--yes"));
}
