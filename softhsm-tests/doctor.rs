//! `doctor`: each line, healthy and broken, on the real thing.

use std::{
    fs,
    os::unix::fs::PermissionsExt,
    path::Path,
    process::Command,
    time::{Duration, SystemTime},
};

use serde_json::Value;

use crate::support::{
    appliance::BINARY,
    modules::{Footing, Module},
    pki::Authority,
    redis::RedisServer,
    site::Site,
    softhsm::{MODULE, PIN, SO_PIN},
    tool,
};

/// What the doctor said.
pub struct Report {
    code: Option<i32>,
    findings: Vec<Value>,
}

impl Report {
    pub fn of(mut doctor: Command) -> Self {
        let output = doctor.output().unwrap();
        let text = tool::text(&output.stdout);
        assert!(!text.contains(PIN), "{text}");
        let report: Value = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {output:?}"));
        let findings = report["findings"].as_array().unwrap().clone();
        let failed = findings.iter().any(|finding| finding["verdict"] == "fail");
        assert_eq!((report["healthy"] == true, output.status.code()), (!failed, Some(if failed { 78 } else { 0 })));
        Self { code: output.status.code(), findings }
    }

    /// The lines of one check, as `verdict: found`.
    fn lines(&self, check: &str) -> Vec<String> {
        let of_check = self.findings.iter().filter(|finding| finding["check"] == check);
        let text = |finding: &Value, field: &str| finding[field].as_str().unwrap().to_owned();
        of_check.map(|finding| format!("{}: {}", text(finding, "verdict"), text(finding, "found"))).collect()
    }

    /// Asserts that a check has a line with this verdict and these words, and a remedy unless it is ok.
    pub fn says(&self, check: &str, verdict: &str, words: &str) {
        let wanted = format!("{verdict}: ");
        let found = self.lines(check);
        assert!(found.iter().any(|line| line.starts_with(&wanted) && line.contains(words)), "{check}: {found:?}");
        for finding in &self.findings {
            assert_eq!(finding["remedy"].is_string(), finding["verdict"] != "ok", "{finding}");
        }
    }
}

fn doctor(site: &Site) -> Report {
    Report::of(site.doctor(&site.config()))
}

/// After a change of the configuration.
fn after_edit(from: &str, to: &str) -> Report {
    let site = Site::with_key();
    site.edit_config(from, to);
    doctor(&site)
}

#[test]
fn a_healthy_appliance_has_nothing_that_fails_and_every_line() {
    let site = Site::with_key();
    let report = doctor(&site);
    assert_eq!(report.code, Some(0), "{:#?}", report.findings);
    for (check, words) in [
        ("configuration", "config.toml"),
        ("state", "writable"),
        ("appliance", "does not run"),
        ("audit", "writable"),
        ("audit-room", "MiB free"),
        ("clock", ""),
        ("sandbox", "not started by systemd"),
        ("redis", "not configured"),
        ("pin-source", "readable"),
        ("module", "SoftHSM"),
        ("token", &site.token.serial),
        ("pin", "accepted"),
        ("mechanisms", "P-256, Ed25519, secp256k1 (tried out)"),
        ("sessions", "7 wanted; the token tells no limit"),
        ("room", "does not tell"),
    ] {
        report.says(check, "ok", words);
    }
    let text = site.run("doctor").output;
    assert!(text.contains("ok    module") && text.lines().count() > 15, "{text}");
}

#[test]
fn beside_a_running_appliance_nothing_is_disturbed() {
    let (site, spy) = Site::with_key().spied();
    let appliance = site.serve().unwrap();
    let logins = spy.calls("C_Login");
    let report = doctor(&site);
    report.says("appliance", "ok", "runs with this state directory");
    report.says("pin", "ok", "left to the running appliance; not tried");
    report.says("mechanisms", "ok", "(by its list)");
    assert_eq!((report.code, spy.calls("C_Login")), (Some(0), logins));
    appliance.attest();
}

#[test]
fn a_wrong_pin_is_tried_once_however_often_the_doctor_is_asked() {
    let (site, spy) = Site::with_key().spied();
    site.token.write_pin("wrong-pin-000");
    let logins = spy.calls("C_Login");
    doctor(&site).says("pin", "fail", "is wrong: it was tried once");
    for _ in 0..3 {
        doctor(&site).says("pin", "warn", "a wrong PIN was tried since the last good login; not tried here");
    }
    assert_eq!(spy.calls("C_Login"), logins + 1);
}

/// A Kryoptic token whose PIN was tried wrong so often.
fn after_wrong_pins(site: &Site, tries: usize) -> (Footing, Command) {
    let directory = site.path("kryoptic");
    fs::create_dir(&directory).unwrap();
    let footing = Module::Kryoptic.prepare(&directory, "locking");
    let module = Module::Kryoptic.path();
    site.edit_config(MODULE, module.to_str().unwrap());
    site.edit_config(&site.token.uri(), "pkcs11:token=locking");
    for _ in 0..tries {
        log_in(&footing, "wrong-pin-000");
    }
    let mut doctor = site.doctor(&site.config());
    doctor.envs(footing.environment.iter().cloned());
    (footing, doctor)
}

fn log_in(footing: &Footing, pin: &str) -> bool {
    let environment: Vec<_> = footing.environment.iter().map(|(name, value)| (*name, value.as_path())).collect();
    let module = Module::Kryoptic.path();
    let arguments = ["--module", module.to_str().unwrap(), "--slot", "8", "--login", "--pin", pin, "--list-objects"];
    tool::output("pkcs11-tool", &arguments, &environment, b"").status.success()
}

#[test]
fn the_last_try_is_left_to_somebody_who_knows_the_pin() {
    let site = Site::new();
    site.token.write_pin("wrong-pin-000");
    let (footing, doctor) = after_wrong_pins(&site, 9);
    Report::of(doctor).says("pin", "fail", "has one try left before it locks");
    assert!(log_in(&footing, PIN), "the doctor used the last try up");
}

#[test]
fn a_locked_pin_is_said_to_be_locked() {
    let site = Site::new();
    let (footing, doctor) = after_wrong_pins(&site, 10);
    assert!(!log_in(&footing, PIN));
    Report::of(doctor).says("pin", "fail", "is locked");
}

#[test]
fn a_token_with_a_limit_of_sessions_is_asked_for_it() {
    let site = Site::new();
    let directory = site.path("tpm2");
    fs::create_dir(&directory).unwrap();
    let footing = Module::Tpm2.prepare(&directory, "limited");
    site.edit_config(MODULE, Module::Tpm2.path().to_str().unwrap());
    site.edit_config(&site.token.uri(), "pkcs11:token=limited");
    let mut doctor = site.doctor(&site.config());
    doctor.envs(footing.environment.iter().cloned());
    let report = Report::of(doctor);
    report.says("sessions", "ok", "7 wanted, 1024 allowed");
    // There are no session keys, and the profile was not used.
    report.says("mechanisms", "fail", "none of ours");
}

#[test]
fn a_configuration_that_cannot_be_read_is_the_only_line() {
    let report = after_edit("[token]", "[token]\nnonsense = 1");
    report.says("configuration", "fail", "nonsense");
    assert_eq!(report.findings.len(), 1);
}

#[test]
fn a_module_that_cannot_be_loaded_or_initialised_fails() {
    after_edit(MODULE, "/nonexistent/module.so").says("module", "fail", "cannot be loaded");
    let site = Site::with_key();
    let site = site.with_environment("SOFTHSM2_CONF", Path::new("/nonexistent.conf"));
    doctor(&site).says("module", "fail", "cannot be initialized");
}

#[test]
fn a_token_that_is_not_there_fails_and_those_present_are_named() {
    let site = Site::with_key();
    site.edit_config(&site.token.serial, "0000000000000000");
    doctor(&site).says("token", "fail", &site.token.serial);
}

#[test]
fn a_pin_source_that_others_can_read_fails_and_is_not_used() {
    let (site, spy) = Site::with_key().spied();
    let logins = spy.calls("C_Login");
    fs::set_permissions(site.token.path().join("pin"), fs::Permissions::from_mode(0o644)).unwrap();
    let report = doctor(&site);
    report.says("pin-source", "fail", "can be read by others");
    report.says("pin", "warn", "cannot be read");
    assert_eq!(spy.calls("C_Login"), logins);
}

#[test]
fn an_algorithm_that_the_token_does_not_offer_fails() {
    let site = Site::with_key();
    site.edit_config("[token]", "[token]\nalgorithms = [\"Ed25519\"]");
    doctor(&site).says("mechanisms", "fail", "Ed25519 (tried out), and not P-256");
}

#[test]
fn a_state_directory_that_is_open_missing_or_none_is_told() {
    let site = Site::with_key();
    let state = site.path("state");
    fs::set_permissions(&state, fs::Permissions::from_mode(0o755)).unwrap();
    doctor(&site).says("state", "warn", "others may enter it (mode 0755)");
    fs::rename(&state, site.path("elsewhere")).unwrap();
    doctor(&site).says("state", "warn", "not there yet");
    fs::write(&state, "").unwrap();
    doctor(&site).says("state", "fail", "not a directory");
}

#[test]
fn where_it_cannot_be_seen_whether_an_appliance_runs_no_pin_is_tried() {
    let (site, spy) = Site::with_key().spied();
    let logins = spy.calls("C_Login");
    let lock = site.path("state/.lock");
    let _ = fs::remove_file(&lock);
    // Nobody can open a link to itself, root included.
    std::os::unix::fs::symlink(&lock, &lock).unwrap();
    let report = doctor(&site);
    report.says("appliance", "warn", "whether it runs cannot be seen");
    report.says("pin", "ok", "not tried");
    assert_eq!(spy.calls("C_Login"), logins);
}

#[test]
fn an_audit_directory_that_is_away_or_full_fails() {
    let site = Site::with_key();
    site.edit_config("[audit]", "[audit]\nwarn_below_bytes = 4611686018427387904");
    doctor(&site).says("audit-room", "warn", "less than audit.warn_below_bytes");
    site.edit_config("[audit]", "[audit]\nstop_below_bytes = 4611686018427387904");
    doctor(&site).says("audit-room", "fail", "signing stops");
    fs::rename(site.path("audit"), site.path("elsewhere")).unwrap();
    doctor(&site).says("audit", "fail", "No such file");
}

#[test]
fn a_clock_that_was_set_back_fails() {
    let site = Site::with_key();
    let trail = fs::File::options().append(true).create(true).open(site.path("audit/audit.log")).unwrap();
    trail.set_modified(SystemTime::now() + Duration::from_secs(3600)).unwrap();
    doctor(&site).says("clock", "fail", "s behind the last record");
}

#[test]
fn a_unit_without_a_sandbox_is_told_what_it_leaves_open() {
    let site = Site::with_key().with_environment("INVOCATION_ID", Path::new("0123456789abcdef"));
    doctor(&site).says("sandbox", "warn", "NoNewPrivileges=yes");
}

#[test]
fn settings_that_are_meant_for_tests_or_for_one_start_are_told() {
    let site = Site::with_key();
    let report = doctor(&site);
    report.says("settings", "warn", "without [auth]");
    report.says("settings", "warn", "neither [redis] nor fleet.single");
    report.says("settings", "warn", "key_policy.first_key_on_token_serial is for one start");
    report.says("settings", "warn", "limits.enabled = false");
    site.edit_config("[token]", "[token]\nverify_signatures = false");
    site.edit_config("[http]", "[ledger]\nstore = \"file\"\npath = \"/nonexistent/ledger\"\n[http]");
    let report = doctor(&site);
    report.says("settings", "warn", "verify_signatures = false");
    report.says("settings", "fail", "a ledger in a file, and fleet.single = false");
}

#[test]
fn redis_is_asked_whether_it_is_there_and_keeps_what_it_is_given() {
    let site = Site::with_key();
    let mut redis = RedisServer::start(&["--appendonly", "yes"]);
    site.edit_config("[http]", &format!("[redis]\nurl = \"{}\"\n[http]", redis.url()));
    let healthy = doctor(&site);
    healthy.says("redis", "ok", "master");
    healthy.says("redis-memory", "ok", "noeviction");
    healthy.says("redis-disk", "ok", "appendonly yes");
    healthy.says("redis-clock", "ok", "0 s apart");
    healthy.says("redis-replicas", "warn", "0 connected");
    redis.command::<()>(&["CONFIG", "SET", "maxmemory-policy", "allkeys-lru"]);
    redis.command::<()>(&["CONFIG", "SET", "appendonly", "no"]);
    let broken = doctor(&site);
    broken.says("redis-memory", "fail", "allkeys-lru");
    broken.says("redis-disk", "warn", "appendonly no");
    site.edit_config("[http]", "[nonce]\naccept_client_nonces = true\n[http]");
    doctor(&site).says("redis-replicas", "fail", "needs 2 of 3 servers");
    redis.kill();
    doctor(&site).says("redis", "fail", "redis://");
}

#[test]
fn certificates_are_read_as_serve_reads_them() {
    let site = Site::with_key();
    let authority = Authority::new(&site.path("ca"));
    let lasting = authority.issue("signer", "DNS:localhost", "365");
    let ending = authority.issue("ending", "DNS:localhost", "1");
    let tls = |certificate: &Path, key: &Path| {
        format!("[tls]\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n", certificate.display(), key.display())
    };
    let before = tls(&lasting.certificate, &lasting.key);
    site.edit_config("[http]", &format!("{before}[http]"));
    doctor(&site).says("certificates", "ok", "ends first");
    site.edit_config(&before, &tls(&ending.certificate, &ending.key));
    doctor(&site).says("certificates", "warn", "ends first");
    site.edit_config(&tls(&ending.certificate, &ending.key), &tls(&ending.certificate, &lasting.key));
    assert!(!doctor(&site).lines("certificates").iter().any(|line| line.starts_with("ok") || line.starts_with("warn")));
}

#[test]
fn a_code_of_pkcs11_is_explained() {
    let explain = |code: &str| {
        let output = Command::new(BINARY).args(["doctor", "--token", code]).output().unwrap();
        (output.status.code(), tool::text(&output.stdout))
    };
    let (code, text) = explain("CKR_PIN_LOCKED");
    assert!(code == Some(0) && text.contains("0xa4") && text.contains("security officer unlocks it"), "{text}");
    assert_eq!(explain("0xa4").1, text);
    let (code, text) = explain("0x30");
    assert!(
        code == Some(0) && text.contains("CKR_DEVICE_ERROR") && text.contains("finalized and initialized"),
        "{text}"
    );
    assert_eq!(explain("CKR_NONSENSE").0, Some(64));
    // Both at once is one question too many.
    let both = Command::new(BINARY).args(["doctor", "--token", "0x30", "--config", "/x"]).output().unwrap();
    assert_eq!(both.status.code(), Some(64));
}

#[test]
fn the_security_officer_can_unlock_what_the_doctor_calls_locked() {
    let site = Site::new();
    let (footing, doctor) = after_wrong_pins(&site, 10);
    let environment: Vec<_> = footing.environment.iter().map(|(name, value)| (*name, value.as_path())).collect();
    let module = Module::Kryoptic.path();
    // The remedy, as printed.
    let officer = ["--login", "--login-type", "so", "--so-pin", SO_PIN, "--init-pin", "--new-pin", PIN];
    let arguments = [&["--module", module.to_str().unwrap(), "--slot", "8"][..], &officer].concat();
    tool::run("pkcs11-tool", &arguments, &environment);
    Report::of(doctor).says("pin", "ok", "accepted");
}
