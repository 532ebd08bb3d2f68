//! What somebody must put right before a start can succeed: `check` says so beforehand, and `serve`
//! ends with 78, so that nothing starts it again and again.

use std::{fs, net::TcpListener, os::unix::fs::PermissionsExt, path::Path};

use crate::support::{pki::Authority, site::Site};

fn refused(site: &Site, says: &str) {
    for command in ["check", "serve"] {
        site.refuse(command).with(78, says);
    }
}

/// A site with a certificate and a key, and the configuration for them.
fn with_tls(site: &Site) -> (std::path::PathBuf, std::path::PathBuf) {
    let authority = Authority::new(&site.path("ca"));
    let leaf = authority.issue("server", "DNS:localhost", "30");
    let tls = format!(
        "[tls]\nlisten = \"127.0.0.1:0\"\ncertificate_file = \"{}\"\nkey_file = \"{}\"\n\n[http]",
        leaf.certificate.display(),
        leaf.key.display()
    );
    site.edit_config("[http]", &tls);
    (leaf.certificate, leaf.key)
}

#[test]
fn a_missing_certificate_or_key_is_named_and_a_key_that_others_can_read_is_refused() {
    let site = Site::with_key();
    let (certificate, key) = with_tls(&site);
    site.run("check").with(0, "configuration  ok");
    let away = |path: &Path| path.with_extension("away");
    for (path, says) in [(&certificate, "server.pem cannot be read: No such file"), (&key, "server.key: No such file")]
    {
        fs::rename(path, away(path)).unwrap();
        refused(&site, says);
        assert!(!site.refuse("serve").output.contains("cannot listen"));
        fs::rename(away(path), path).unwrap();
    }
    for mode in [0o644, 0o640, 0o604] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        refused(&site, &format!("server.key can be read by others (mode {mode:04o})"));
    }
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    site.serve().unwrap();
}

#[test]
fn a_socket_without_its_directory_is_named_and_a_taken_port_may_become_free() {
    let site = Site::with_key();
    let socket = site.path("run/api.sock");
    site.edit_config("[http]", &format!("[http]\nunix_socket = \"{}\"", socket.display()));
    refused(&site, "http.unix_socket: there is no directory");
    fs::create_dir(site.path("run")).unwrap();
    site.run("check").with(0, "configuration  ok");
    site.serve().unwrap();

    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    site.edit_config("listen = \"127.0.0.1:0\"", &format!("listen = \"{}\"", taken.local_addr().unwrap()));
    // Both listeners were on port 0: the second of them is refused by the configuration itself.
    let second = format!("[metrics]\nlisten = \"{}\"", taken.local_addr().unwrap());
    site.edit_config(&second, "[metrics]\nlisten = \"127.0.0.1:0\"");
    site.refuse("serve").with(69, "cannot listen: http.listen");
}

#[test]
fn softhsm_without_its_configuration_is_told_from_a_token_that_is_away() {
    let site = Site::with_key().with_environment("SOFTHSM2_CONF", Path::new("/nowhere/softhsm2.conf"));
    refused(&site, "SOFTHSM2_CONF, and /nowhere/softhsm2.conf cannot be read");
    let site = Site::with_key();
    site.edit_config("libsofthsm2.so", "libsofthsm3.so");
    refused(&site, "cannot be loaded");
}

#[test]
fn a_damaged_trail_is_for_an_operator_and_check_reads_it_too() {
    let site = Site::with_key();
    site.run("check").with(0, "audit trail    ");
    let file = site.path("audit/audit.log");
    let text = fs::read_to_string(&file).unwrap();
    fs::write(&file, text.replacen("\"sequence\":2,", "\"sequence\":3,", 1)).unwrap();
    fs::remove_file(site.path("audit/audit.state")).unwrap();
    refused(&site, "the audit trail is damaged");
    fs::write(&file, text).unwrap();
    site.run("check").with(0, "record(s) in");
}

#[test]
fn check_says_what_is_allowed_and_worth_knowing() {
    let site = Site::with_key();
    let checked = site.run("check");
    checked.with(0, "warning        without [auth]");
    checked.with(0, "warning        limits.enabled = false");
    let log = site.serve().unwrap().log();
    assert!(log.contains("without [auth]") && log.contains("limits.enabled = false"), "{log}");
}
