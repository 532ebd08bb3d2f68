//! SoftHSM2's directory moved away and back, which looks to PKCS#11 like a token with nothing on it.

use std::{
    fs,
    path::PathBuf,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::json;

use crate::support::{
    appliance::{Answer, attestation_request},
    client::Client,
    eventually,
    signer::{Signer, key, rotation_request},
    site::Site,
    softhsm::SoftHsm,
};

/// The token's directory, out of the module's sight until dropped.
pub struct Away {
    from: PathBuf,
    to: PathBuf,
}

impl Away {
    pub fn take(token: &SoftHsm) -> Self {
        let from = token.tokens();
        let to = from.with_extension("away");
        fs::rename(&from, &to).unwrap();
        fs::create_dir(&from).unwrap();
        Self { from, to }
    }
}

impl Drop for Away {
    fn drop(&mut self) {
        fs::remove_dir(&self.from).unwrap();
        fs::rename(&self.to, &self.from).unwrap();
    }
}

fn recorded(signer: &Signer, record: &str) -> usize {
    signer.trail().iter().filter(|line| *line == record).count()
}

fn is_ready(signer: &Signer) -> bool {
    signer.get("/readyz").status == 200
}

#[test]
fn signing_stops_while_the_token_is_away_and_resumes_when_it_is_back() {
    let signer = Signer::new();
    let before = signer.attest();
    let pid = signer.pid();
    for round in 1..=3 {
        let away = Away::take(&signer.token);
        eventually("signing stops", || (signer.try_attest().status == 503).then_some(()));
        eventually("it is not ready", || (!is_ready(&signer)).then_some(()));
        assert_eq!(signer.get("/livez").status, 200);
        eventually("the loss is recorded", || (recorded(&signer, "error token_lost failure") == round).then_some(()));
        drop(away);
        eventually("signing resumes", || (signer.try_attest().status == 200).then_some(()));
        eventually("it is ready", || is_ready(&signer).then_some(()));
        let back = "health_check token_back success";
        eventually("its return is recorded", || (recorded(&signer, back) == round).then_some(()));
        assert_eq!(signer.signing_key(), key(1), "round {round}: the same key, and no other was made");
    }
    assert_eq!((signer.pid(), signer.states()), (pid, vec!["active".to_owned()]));
    assert_eq!(signer.verdict(&before), "valid");
    signer.rotate();
    assert_eq!(signer.signing_key(), key(2));

    assert_eq!(recorded(&signer, "error token_lost failure"), 3, "once each, and not once a request");
}

#[test]
fn every_request_is_answered_within_its_deadline_while_the_token_comes_and_goes() {
    let signer = Signer::new();
    let (stop, signed, refused) = (AtomicBool::new(false), AtomicUsize::new(0), AtomicUsize::new(0));
    let ask = || {
        let client = Client::new(&signer.api);
        while !stop.load(Ordering::Relaxed) {
            let Some(nonce) = client.nonce() else { continue };
            let begun = Instant::now();
            let answer: Answer = client.post("/api/v1/attestations", &attestation_request(&nonce)).unwrap();
            // The deadline of one call is 2 s, and a retry within it is one more.
            assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
            match answer.status {
                200 => signed.fetch_add(1, Ordering::Relaxed),
                503 => refused.fetch_add(1, Ordering::Relaxed),
                other => panic!("{other}: {}", answer.text()),
            };
        }
    };
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(ask);
        }
        for _ in 0..3 {
            let already = signed.load(Ordering::Relaxed);
            eventually("signatures flow", || (signed.load(Ordering::Relaxed) > already + 20).then_some(()));
            let away = Away::take(&signer.token);
            let turned_away = refused.load(Ordering::Relaxed);
            eventually("requests are refused", || (refused.load(Ordering::Relaxed) > turned_away + 5).then_some(()));
            drop(away);
        }
        let already = signed.load(Ordering::Relaxed);
        eventually("signatures flow again", || (signed.load(Ordering::Relaxed) > already + 20).then_some(()));
        stop.store(true, Ordering::Relaxed);
    });
    assert_eq!(signer.states(), ["active"]);
}

#[test]
fn a_change_asked_for_meanwhile_is_refused_and_leaves_nothing_half_done() {
    let signer = Signer::new();
    let away = Away::take(&signer.token);
    let refused = signer.post("/api/v1/keys/rotate", &rotation_request(&json!({})));
    assert!(matches!(refused.status, 409 | 503), "{}", refused.text());
    drop(away);
    eventually("signing resumes", || (signer.try_attest().status == 200).then_some(()));
    assert_eq!(signer.states(), ["active"]);
    eventually("a rotation succeeds", || {
        (signer.post("/api/v1/keys/rotate", &rotation_request(&json!({}))).status == 201).then_some(())
    });
    assert_eq!(signer.states(), ["rotating", "active"]);
}

#[test]
fn a_pin_that_is_refused_when_the_token_comes_back_is_tried_once() {
    let (site, spy) = Site::with_key().spied();
    let appliance = site.serve().unwrap();
    assert_eq!((appliance.try_attest().status, spy.calls("C_Login")), (200, 1));
    let away = Away::take(&site.token);
    eventually("signing stops", || (appliance.try_attest().status == 503).then_some(()));
    assert_eq!(spy.calls("C_Login"), 1, "nobody logs in to a token that is not there");
    site.token.write_pin("wrong-pin-000");
    drop(away);
    eventually("the PIN is refused", || appliance.log().contains("is not tried again").then_some(()));
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert_eq!(appliance.try_attest().status, 503);
    }
    assert_eq!(spy.calls("C_Login"), 2);
    assert!(!appliance.log().contains("wrong-pin"));
}
