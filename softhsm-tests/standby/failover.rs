//! The primary fails under load, in several ways: the standby signs, and the primary again when it does well.

use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

use crate::{
    recovery::away::Away,
    support::{
        appliance::{Appliance, BINARY, attestation_request},
        client::Client,
        eventually,
        pair::Pair,
        signer::key,
        tool,
    },
};

/// How soon signatures must flow again.
const SOON: Duration = Duration::from_secs(2);

/// The deadline of a call to the token, and what a request takes beside it on a busy machine.
const AT_MOST: Duration = Duration::from_secs(4);

/// A request: when it began, how long it took, its status, what it brought.
struct Asked {
    begun: Instant,
    took: Duration,
    status: u16,
    body: Vec<u8>,
}

fn ask(appliance: &Appliance, asked: &Mutex<Vec<Asked>>, stop: &AtomicBool) {
    let client = Client::new(&appliance.api);
    let since = Instant::now();
    // A test that has failed elsewhere does not wait for ever.
    while !stop.load(Ordering::Relaxed) && since.elapsed() < Duration::from_secs(180) {
        let nonce = client.nonce().unwrap();
        let begun = Instant::now();
        let answer = client.post("/api/v1/attestations", &attestation_request(&nonce)).unwrap();
        asked.lock().push(Asked { begun, took: begun.elapsed(), status: answer.status, body: answer.body });
    }
}

/// Ends the load when dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Has the primary fail while four clients ask for attestations, until the standby signs; then heals it.
pub fn bear<T>(pair: &Pair, keys: &[String], fault: impl FnOnce() -> T, heal: impl FnOnce(T)) {
    let appliance = pair.serve();
    let jwks = appliance.get("/.well-known/jwks.json").ok_text();
    let (asked, stop) = (Mutex::new(Vec::<Asked>::new()), AtomicBool::new(false));
    let signed_since =
        |since: Instant| asked.lock().iter().filter(|one| one.begun > since && one.status == 200).count();
    let failed_at = thread::scope(|scope| {
        let _ended_whatever_happens = Ended(&stop);
        for _ in 0..4 {
            scope.spawn(|| ask(&appliance, &asked, &stop));
        }
        let begun = Instant::now();
        eventually("signatures flow", || (signed_since(begun) > 20).then_some(()));
        let failed_at = Instant::now();
        let broken = fault();
        appliance.signs_on("standby-1");
        let now = Instant::now();
        eventually("signatures flow on the standby", || (signed_since(now) > 20).then_some(()));
        assert_eq!(appliance.get("/readyz").status, 200);
        assert_eq!(appliance.get("/.well-known/jwks.json").ok_text(), jwks);
        heal(broken);
        appliance.signs_on("primary");
        let now = Instant::now();
        eventually("signatures flow on the primary", || (signed_since(now) > 20).then_some(()));
        failed_at
    });
    judge(&appliance, &asked.into_inner(), failed_at, keys);
    appliance.records_agree(pair);
    assert_eq!(appliance.get("/.well-known/jwks.json").ok_text(), jwks);
    assert_eq!(appliance.switches(), ["standby-1", "primary"], "one record of each change");
    let signed_on = appliance.signed_on();
    assert!(signed_on.iter().any(|name| name == "standby-1"));
    assert_eq!(signed_on.last().unwrap(), "primary");
    assert!(appliance.states().iter().all(|state| state == "active"));
    appliance.stop();
}

fn judge(appliance: &Appliance, asked: &[Asked], failed_at: Instant, keys: &[String]) {
    let slowest = asked.iter().map(|one| one.took).max().unwrap();
    let refused = asked.iter().filter(|one| one.status != 200).count();
    let after = asked.iter().filter(|one| one.begun > failed_at && one.status == 200);
    let resumed = after.map(|one| (one.begun + one.took).duration_since(failed_at)).min().unwrap();
    println!("{} requests, {refused} refused, slowest {slowest:?}, resumed after {resumed:?}", asked.len());
    assert!(asked.iter().all(|one| matches!(one.status, 200 | 503)));
    assert!(slowest < AT_MOST, "{slowest:?}");
    assert!(resumed < SOON, "{resumed:?}");
    // Each of them, whichever token made it, and all keys were used.
    let (mut signed, mut used) = (Vec::new(), BTreeSet::new());
    for one in asked.iter().filter(|one| one.status == 200) {
        let attestation: Value = serde_json::from_slice(&one.body).unwrap();
        assert_eq!(appliance.verdict(&attestation), "valid");
        used.insert(attestation["issuer"]["key_id"].as_str().unwrap().to_owned());
        signed.push(json!({ "status": 200, "attestation": attestation }));
    }
    assert!(used.iter().eq(keys), "{used:?}");
    verifies_offline(appliance, &json!(signed));
}

/// With the key set alone, as anybody does.
pub fn verifies_offline(appliance: &Appliance, batch: &Value) {
    let home = tempfile::tempdir().unwrap();
    let written = |name: &str, text: String| {
        fs::write(home.path().join(name), text).unwrap();
        home.path().join(name).to_str().unwrap().to_owned()
    };
    let jwks = written("jwks.json", appliance.get("/.well-known/jwks.json").ok_text());
    let signed = written("signed.json", batch.to_string());
    tool::run(BINARY, &["verify", "--jwks", &jwks, &signed], &[]);
}

#[test]
fn the_primary_s_token_is_away() {
    let pair = Pair::new();
    bear(&pair, &[key(1)], || Away::take(&pair.site.token), drop);
}

#[test]
fn every_signature_of_the_primary_hangs() {
    let pair = Pair::new();
    bear(&pair, &[key(1)], || pair.faults[0].set("C_Sign hang"), |()| pair.faults[0].clear());
}

#[test]
fn the_primary_s_module_crashes_in_every_signature() {
    let pair = Pair::new();
    bear(&pair, &[key(1)], || pair.faults[0].set("C_Sign crash"), |()| pair.faults[0].clear());
}

#[test]
fn the_primary_s_sessions_are_lost_and_none_is_to_be_had() {
    let pair = Pair::new();
    let rules = "C_SignInit close-sessions\nC_OpenSession fail=CKR_DEVICE_REMOVED";
    bear(&pair, &[key(1)], || pair.faults[0].set(rules), |()| pair.faults[0].clear());
}

#[test]
fn a_call_of_the_primary_that_fails_alone_is_made_on_the_standby_and_changes_nothing() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let before = appliance.signed_on().len();
    pair.faults[0].set("C_Sign hang every=10");
    for _ in 0..30 {
        appliance.attest();
    }
    pair.faults[0].clear();
    let signed_on = &appliance.signed_on()[before..];
    let on_standby = signed_on.iter().filter(|name| *name == "standby-1").count();
    assert!((1..=8).contains(&on_standby), "{signed_on:?}");
    assert_eq!(appliance.switches(), Vec::<String>::new());
}

#[test]
fn a_signature_that_does_not_verify_is_not_passed_over_in_silence() {
    let pair = Pair::new();
    let appliance = pair.serve();
    pair.faults[0].set("C_Sign flip");
    let answer = appliance.try_attest();
    assert_ne!(answer.status, 200, "{}", answer.text());
    pair.faults[0].clear();
}

/// Whatever becomes of the standby: the primary signs as if there were none.
#[test]
fn a_standby_that_hangs_or_crashes_keeps_nobody_waiting() {
    let pair = Pair::new();
    for rules in ["C_GetTokenInfo hang", "C_Sign hang", "C_Sign crash", "C_FindObjects hang", "C_Initialize hang"] {
        let appliance = pair.serve();
        pair.faults[1].set(rules);
        let begun = Instant::now();
        while begun.elapsed() < Duration::from_secs(3) {
            let asked = Instant::now();
            appliance.attest();
            assert!(asked.elapsed() < Duration::from_secs(1), "{rules}: {:?}", asked.elapsed());
        }
        assert_eq!(appliance.switches(), Vec::<String>::new(), "{rules}");
        assert!(appliance.signed_on().iter().rev().take(20).all(|name| name == "primary"), "{rules}");
        pair.faults[1].clear();
        appliance.stop();
    }
}

#[test]
fn when_both_are_away_it_says_so_and_when_the_standby_alone_is_back_it_signs() {
    let pair = Pair::new();
    let appliance = pair.serve();
    let primary = Away::take(&pair.site.token);
    appliance.signs_on("standby-1");
    let standby = Away::take(&pair.standby);
    eventually("nothing signs", || (appliance.try_attest().status == 503).then_some(()));
    eventually("it is not ready", || (appliance.get("/readyz").status == 503).then_some(()));
    drop(standby);
    eventually("the standby signs", || (appliance.try_attest().status == 200).then_some(()));
    assert_eq!(appliance.signed_on().last().unwrap(), "standby-1");
    drop(primary);
    appliance.signs_on("primary");
}
