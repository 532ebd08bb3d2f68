//! The process that holds the module ends in the middle of its work.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::{
    audit::{
        kills::{load, recorded},
        trail::verifies,
    },
    support::{
        appliance::Appliance,
        eventually,
        signer::{Signer, key},
        site::Site,
    },
};

/// How long until signatures flow again.
fn until_signing(appliance: &Appliance) -> Duration {
    let begun = Instant::now();
    eventually("signing resumes", || (appliance.try_attest().status == 200).then_some(()));
    begun.elapsed()
}

fn noted(appliance: &Appliance, record: &str) -> usize {
    appliance.trail().iter().filter(|line| *line == record).count()
}

const LOST: &str = "error token_lost failure";
const BACK: &str = "health_check token_back success";

/// Ends the load when dropped.
struct Ended<'a>(&'a AtomicBool);

impl Drop for Ended<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What is received is on record, one loss and one return each, and the appliance never ends.
fn kills_under_load(rounds: usize) {
    // What is refused meanwhile leaves nonces unspent.
    let signer = Signer::with("", "[fleet]\nsingle = true\n[nonce]\noutstanding_per_issuer = 100000");
    let (pid, stop) = (signer.pid(), AtomicBool::new(false));
    let (api, appliance) = (signer.api.clone(), &*signer);
    let (received, slowest) = thread::scope(|scope| {
        let loading = scope.spawn(|| load(&api, &stop));
        let _ended_whatever_happens = Ended(&stop);
        let mut slowest = Duration::ZERO;
        for round in 1..=rounds {
            thread::sleep(Duration::from_millis(50 + getrandom::u64().unwrap() % 300));
            // As a module that aborts ends it, and as the kernel does that is out of memory.
            let old = appliance.signal_token_process(if round % 2 == 0 { "ABRT" } else { "KILL" });
            slowest = slowest.max(until_signing(appliance));
            appliance.another_token_process(old);
            eventually("the loss is recorded", || (noted(appliance, LOST) == round).then_some(()));
            eventually("the return is recorded", || (noted(appliance, BACK) == round).then_some(()));
        }
        stop.store(true, Ordering::Relaxed);
        (loading.join().unwrap(), slowest)
    });
    println!("{rounds} ends, {} signatures received; signing again after {slowest:?} at most", received.len());
    assert!(received.len() > rounds * 5, "too little was signed to mean anything");
    assert_eq!(signer.pid(), pid);
    let directory = signer.home().join("audit");
    let known = recorded(&directory);
    let missing = received.iter().filter(|digest| !known.contains_key(*digest)).count();
    assert_eq!(missing, 0, "of {} received signatures", received.len());
    assert_eq!(signer.metric("virtengine_verification_token_process_restarts_total"), rounds.to_string());
    assert!(signer.get("/healthz").text().contains(&format!("started again {rounds} times")));
    assert_eq!((signer.signing_key(), signer.states()), (key(1), vec!["active".to_owned()]));
    verifies(&directory);
}

#[test]
fn a_process_that_ends_under_load_loses_no_record_and_another_takes_its_place() {
    kills_under_load(4);
}

#[test]
#[ignore = "long: run by make test-long"]
fn a_hundred_processes_end_under_load() {
    kills_under_load(100);
}

#[test]
fn a_module_that_crashes_takes_only_its_process_with_it() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    let pid = appliance.pid();
    for round in 1..=3 {
        // Once in a call of whatever signs next; the next process makes the same call and does not crash.
        faults.set("C_Sign crash times=1");
        let old = appliance.token_process();
        let answer = appliance.try_attest();
        faults.clear();
        assert!(matches!(answer.status, 200 | 503), "{}", answer.text());
        appliance.another_token_process(old);
        let after = until_signing(&appliance);
        println!("round {round}: answered {}, signing again after {after:?}", answer.status);
    }
    assert_eq!(appliance.pid(), pid);
    verifies(&site.path("audit"));
}

#[test]
fn a_call_that_crashes_every_process_is_not_made_for_ever() {
    let (site, faults) = Site::with_key().faulty();
    let appliance = site.serve().unwrap();
    faults.set("C_Sign crash");
    let begun = Instant::now();
    let logins = faults.calls("C_Login");
    while begun.elapsed() < Duration::from_secs(3) {
        let asked = Instant::now();
        let answer = appliance.try_attest();
        assert_eq!(answer.status, 503, "{}", answer.text());
        assert!(answer.headers.contains_key("retry-after"));
        assert!(asked.elapsed() < Duration::from_secs(8), "{:?}", asked.elapsed());
    }
    // 50 ms, 100 ms, 200 ms … between them.
    let storm = faults.calls("C_Login") - logins;
    assert!(storm < 12, "{storm} logins in {:?}", begun.elapsed());
    assert_eq!(appliance.get("/livez").status, 200);
    faults.clear();
    println!("{storm} logins, signing again after {:?}", until_signing(&appliance));
}
