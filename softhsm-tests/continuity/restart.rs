//! A restart, and a second appliance beside the same token, find the same keys.

use std::{fs, os::unix::process::ExitStatusExt, thread};

use serde_json::Value;

use crate::support::{
    appliance::{Appliance, attestation_request},
    site::Site,
};

/// What an appliance says of its keys, ages left out.
fn keys(appliance: &Appliance) -> Value {
    let mut keys = appliance.get("/api/v1/keys").ok();
    for key in keys.as_array_mut().unwrap() {
        key.as_object_mut().unwrap().remove("age_seconds").unwrap();
    }
    keys
}

fn public_pem(appliance: &Appliance) -> String {
    let active = appliance.get("/api/v1/keys/active").ok();
    appliance.get(&format!("/api/v1/keys/{}/public.pem", active["key_id"].as_str().unwrap())).text()
}

fn attestation(appliance: &Appliance) -> Value {
    appliance.post("/api/v1/attestations", &attestation_request(&appliance.nonce())).ok()
}

fn accepts(appliance: &Appliance, attestation: &Value) -> bool {
    appliance.post("/api/v1/attestations/verify", attestation).ok()["valid"] == true
}

#[test]
fn a_restart_keeps_the_keys_and_what_they_signed() {
    let site = Site::new();
    let before = site.serve().unwrap();
    let (keys_before, pem_before, signed_before) = (keys(&before), public_pem(&before), attestation(&before));
    before.stop();
    let after = site.serve().unwrap();
    assert_eq!((keys(&after), public_pem(&after)), (keys_before, pem_before));
    assert!(accepts(&after, &signed_before));
    assert_eq!(attestation(&after)["issuer"], signed_before["issuer"]);
    after.stop();
    assert_eq!(site.pkcs11_tool().key_objects(), (1, 1));
}

#[test]
fn a_restarted_dev_keeps_its_key() {
    let home = tempfile::tempdir().unwrap();
    let first = Appliance::dev_in(home.path());
    let (keys_before, signed_before) = (keys(&first), attestation(&first));
    first.stop();
    let second = Appliance::dev_in(home.path());
    assert_eq!(keys(&second), keys_before);
    assert!(accepts(&second, &signed_before));
    assert_eq!(second.dev_token().key_objects(), (1, 1));
}

#[test]
fn a_killed_appliance_comes_back_with_its_keys() {
    let site = Site::new();
    let before = site.serve().unwrap();
    let (keys_before, signed_before) = (keys(&before), attestation(&before));
    before.signal("KILL");
    assert_eq!(before.wait().signal(), Some(9));
    let after = site.serve().unwrap();
    assert_eq!(keys(&after), keys_before);
    assert!(accepts(&after, &signed_before));
}

#[test]
fn a_second_appliance_beside_the_same_token_needs_nothing_else() {
    let site = Site::new();
    let first = site.serve().unwrap();
    let second = site.serve_with(&site.neighbour("second")).unwrap();
    assert_ne!(first.api, second.api);
    assert_eq!(keys(&second), keys(&first));
    assert_eq!(public_pem(&second), public_pem(&first));
    let (one, other) = (attestation(&first), attestation(&second));
    assert!(accepts(&second, &one) && accepts(&first, &other));
    assert_eq!(site.pkcs11_tool().key_objects(), (1, 1));
}

#[test]
fn a_state_directory_serves_one_process_at_a_time() {
    let site = Site::new();
    let first = site.serve().unwrap();
    site.refuse("serve").with(69, "another process uses the state directory");
    site.refuse("init").with(69, "another process uses the state directory");
    first.stop();
    site.serve().unwrap();
}

/// SoftHSM2 rewrites a token's files while somebody logs in, so that others see less of it for a
/// moment: the worst neighbours there are.
#[test]
fn appliances_that_start_at_once_never_take_a_busy_token_for_an_empty_one() {
    const ROUNDS: usize = 20;
    let site = Site::with_key();
    let mut started = 0;
    for round in 0..ROUNDS {
        let configs: Vec<_> = (0..3).map(|n| site.neighbour(&format!("{round}-{n}"))).collect();
        let ends = thread::scope(|scope| {
            let starts: Vec<_> = configs.iter().map(|config| scope.spawn(|| site.serve_with(config))).collect();
            starts.into_iter().map(|start| start.join().unwrap().map(Appliance::stop)).collect::<Vec<_>>()
        });
        for end in &ends {
            match end {
                Ok(_) => started += 1,
                // Whoever saw too little of the token says so and ends; starting again helps.
                Err(ended) => assert_eq!(ended.code, 69, "{ended:#?}"),
            }
        }
        assert_eq!(site.pkcs11_tool().key_objects(), (1, 1), "round {round}");
    }
    println!("{started} of {} simultaneous starts came up; one key pair", 3 * ROUNDS);
    assert!(started > ROUNDS, "{started}");
    let generated = |entry: fs::DirEntry| fs::read_to_string(entry.path().join("audit/audit.log")).unwrap_or_default();
    let trails: String = fs::read_dir(site.home.path()).unwrap().map(|entry| generated(entry.unwrap())).collect();
    assert!(!trails.contains("\"key_generated\""), "{trails}");
}
